"""JSON: the same bytes from every engine, errors that name the path, strict decoding."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import importlib.util
import ipaddress
import json as stdlib_json
import math
import pathlib
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from armature.http import HttpResponse, json
from armature.http.json_reference import encode as reference


def label(item: object) -> str:
    """Name a case; no addresses, which differ between the processes that run the tests."""
    return re.sub(" (at|object).*", "", ascii(item))[:40]


ENGINES = [json.engine(name) for name in json.ENGINES if name == "stdlib" or importlib.util.find_spec(name)]
DUMPS = [engine.dumps for engine in ENGINES]
NAMES = [engine.name for engine in ENGINES]


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)
    NOTHING = None
    HALF = 0.5


class Level(enum.IntEnum):
    LOW = 1


class Kind(enum.StrEnum):
    A = "a"


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Mixed(str, enum.Enum):  # noqa: UP042
    X = "x"


@dataclasses.dataclass
class Point:
    x: int
    _private: int = 2
    extra: Any = None
    hidden: dataclasses.InitVar[int] = 0


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    at: Any


@dataclasses.dataclass
class Empty:
    pass


@attrs.define
class Attrs:
    a: Any
    _b: int = 2


class Struct(msgspec.Struct):
    a: Any
    b: bytes = b""


class Renamed(msgspec.Struct, rename="camel", tag="kind", omit_defaults=True):
    first_name: str
    age: int = 5


class Model(pydantic.BaseModel):
    a: int
    when: dt.datetime = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    price: decimal.Decimal = decimal.Decimal("1.10")


class Row(NamedTuple):
    a: int
    b: str


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


UTC = dt.UTC
HOUR = dt.timezone(dt.timedelta(hours=-3, minutes=-30))
CORPUS: list[tuple[Any, bytes]] = [
    # numbers
    (0, b"0"),
    (-1, b"-1"),
    (True, b"true"),
    (None, b"null"),
    (2**63, b"9223372036854775808"),
    (2**64 - 1, b"18446744073709551615"),
    (2**64, b"18446744073709551616"),
    (-(2**63) - 1, b"-9223372036854775809"),
    (10**40, b"1" + b"0" * 40),
    (1.0, b"1.0"),
    (-0.0, b"-0.0"),
    (0.1, b"0.1"),
    (1e15, b"1000000000000000.0"),
    (1e16, b"1e+16"),
    (1.5e300, b"1.5e+300"),
    (1e-4, b"0.0001"),
    (1e-5, b"0.00001"),
    (-1.25e-5, b"-0.0000125"),
    (1e-6, b"1e-6"),
    (-2.5e-7, b"-2.5e-7"),
    (5e-324, b"5e-324"),
    (math.nan, b"null"),
    (math.inf, b"null"),
    (-math.inf, b"null"),
    ([math.nan, 1e16, 1e-7, "1e16", "1e-07"], b'[null,1e+16,1e-7,"1e16","1e-07"]'),
    (Number(5), b"5"),
    (Ratio(0.5), b"0.5"),
    # strings
    ("", b'""'),
    ('"\\/\b\f\n\r\t\x00\x1f\x7f', b'"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f"'),
    ("é\u2028\U0001f600", '"é\u2028\U0001f600"'.encode()),
    (Text("t"), b'"t"'),
    ("</script>", b'"</script>"'),
    # containers
    ({}, b"{}"),
    ([], b"[]"),
    ((), b"[]"),
    ((1, "a"), b'[1,"a"]'),
    (Row(1, "b"), b'[1,"b"]'),
    ({1}, b"[1]"),
    (frozenset([1]), b"[1]"),
    (collections.deque([1, 2]), b"[1,2]"),
    (range(3), b"[0,1,2]"),
    ({"a": 1}.keys(), b'["a"]'),
    ({"a": 1}.values(), b"[1]"),
    ({"a": 1}.items(), b'[["a",1]]'),
    (collections.OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
    (collections.defaultdict(int, a=1), b'{"a":1}'),
    (collections.Counter("aab"), b'{"a":2,"b":1}'),
    (collections.ChainMap({"a": 1}), b'{"a":1}'),
    (MappingProxyType({"a": 1}), b'{"a":1}'),
    (collections.UserDict(a=1), b'{"a":1}'),
    (collections.UserList([1]), b"[1]"),
    # keys
    ({1: "a"}, b'{"1":"a"}'),
    ({True: 1, None: 2}, b'{"true":1,"null":2}'),
    ({1.5: 1, 1e16: 2, 1e-7: 3}, b'{"1.5":1,"1e+16":2,"1e-7":3}'),
    ({math.nan: 1, math.inf: 2}, b'{"null":1,"null":2}'),
    ({"nan": 1, "1e16": 2, "1e-07": 3, "-inf": 4}, b'{"nan":1,"1e16":2,"1e-07":3,"-inf":4}'),
    ({2**70: 1}, b'{"1180591620717411303424":1}'),
    ({Colour.RED: 1, Level.LOW: 2, Kind.A: 3, Mixed.X: 4}, b'{"red":1,"1":2,"a":3,"x":4}'),
    ({uuid.UUID(int=1): 1}, b'{"00000000-0000-0000-0000-000000000001":1}'),
    ({dt.date(2020, 1, 2): 1}, b'{"2020-01-02":1}'),
    ({dt.datetime(2020, 1, 2, tzinfo=UTC): 1}, b'{"2020-01-02T00:00:00Z":1}'),
    ({dt.time(1, 2): 1}, b'{"01:02:00":1}'),
    ({decimal.Decimal("1.0"): 1}, b'{"1.0":1}'),
    ({b"k": 1}, b'{"aw==":1}'),
    ({pathlib.PurePosixPath("/a"): 1}, b'{"/a":1}'),
    ({Text("t"): 1}, b'{"t":1}'),
    ({1: {2: {"a": [{3: 4}]}}}, b'{"1":{"2":{"a":[{"3":4}]}}}'),
    # dates
    (dt.datetime(2020, 1, 2, 3, 4, 5), b'"2020-01-02T03:04:05"'),
    (dt.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC), b'"2020-01-02T03:04:05.000006Z"'),
    (dt.datetime(2020, 1, 2, tzinfo=HOUR), b'"2020-01-02T00:00:00-03:30"'),
    (dt.datetime(2020, 1, 2, tzinfo=ZoneInfo("Europe/London")), b'"2020-01-02T00:00:00Z"'),
    (dt.datetime(2020, 7, 2, tzinfo=ZoneInfo("Europe/London")), b'"2020-07-02T00:00:00+01:00"'),
    (dt.datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")), b'"1890-01-01T00:00:00+00:20"'),
    (dt.datetime(2020, 1, 2, 3, 4, 5, 10_000, tzinfo=dt.timezone(dt.timedelta(0))), b'"2020-01-02T03:04:05.010000Z"'),
    (dt.datetime(1, 1, 1), b'"0001-01-01T00:00:00"'),
    (dt.datetime(2020, 10, 25, 1, 30, fold=1, tzinfo=ZoneInfo("Europe/London")), b'"2020-10-25T01:30:00Z"'),
    (dt.date(20, 1, 2), b'"0020-01-02"'),
    (dt.time(1, 2, 3, 4), b'"01:02:03.000004"'),
    (dt.time(0, 0, 0, 10_000), b'"00:00:00.010000"'),
    ({"a": [dt.time(0, 0, 0, 99_999)], "b": "00:00:00.12345"}, b'{"a":["00:00:00.099999"],"b":"00:00:00.12345"}'),
    ({dt.time(0, 0, 0, 10_000): 1}, b'{"00:00:00.010000":1}'),
    (dt.time(1, 2, 3, tzinfo=UTC), b'"01:02:03Z"'),
    (dt.time(1, 2, 3, tzinfo=HOUR), b'"01:02:03-03:30"'),
    (dt.timedelta(days=1, seconds=3661, microseconds=500_000), b'"P1DT3661.5S"'),
    (dt.timedelta(days=-1, seconds=5), b'"-PT86395S"'),
    (dt.timedelta(0), b'"P0D"'),
    (dt.timedelta(microseconds=5), b'"PT0.000005S"'),
    (dt.timedelta(days=2), b'"P2D"'),
    # other values
    (uuid.UUID(int=5), b'"00000000-0000-0000-0000-000000000005"'),
    (decimal.Decimal("1.10"), b'"1.10"'),
    (decimal.Decimal("1E+5"), b'"1E+5"'),
    (decimal.Decimal("NaN"), b'"NaN"'),
    (b"\xff\x00", b'"/wA="'),
    (bytearray(b"a"), b'"YQ=="'),
    (memoryview(b"a"), b'"YQ=="'),
    (pathlib.PurePosixPath("/a/b"), b'"/a/b"'),
    (ipaddress.ip_address("::1"), b'"::1"'),
    (ipaddress.ip_network("10.0.0.0/8"), b'"10.0.0.0/8"'),
    (Colour.RED, b'"red"'),
    (Colour.PAIR, b"[1,2]"),
    (Colour.NOTHING, b"null"),
    (Colour.HALF, b"0.5"),
    (Level.LOW, b"1"),
    (Kind.A, b'"a"'),
    (Mixed.X, b'"x"'),
    (Permission.READ | Permission.WRITE, b"3"),
    # models
    (Point(1), b'{"x":1,"_private":2,"extra":null}'),
    (Slotted(Slotted(2**70)), b'{"at":{"at":1180591620717411303424}}'),
    (Empty(), b"{}"),
    (Attrs(1), b'{"a":1}'),
    (Attrs({1: Attrs(2)}), b'{"a":{"1":{"a":2}}}'),
    (Struct(1, b"\xff"), b'{"a":1,"b":"/w=="}'),
    (Struct(math.nan), b'{"a":null,"b":""}'),
    (Struct(1e16), b'{"a":1e+16,"b":""}'),
    (Struct(Model(a=1)), b'{"a":{"a":1,"when":"2020-01-01T00:00:00Z","price":"1.10"},"b":""}'),
    (Renamed("Ada"), b'{"type":"kind","firstName":"Ada"}'),
    (Model(a=1), b'{"a":1,"when":"2020-01-01T00:00:00Z","price":"1.10"}'),
    ([Point(1, extra=Model(a=2)), {3: Struct({4})}],)[0:1]
    + (b'[{"x":1,"_private":2,"extra":{"a":2,"when":"2020-01-01T00:00:00Z","price":"1.10"}},{"3":{"a":[4],"b":""}}]',),
]


@pytest.mark.parametrize(("value", "expected"), CORPUS, ids=label)
def test_every_engine_writes_the_same_bytes(value: Any, expected: bytes) -> None:
    assert reference(value) == expected
    assert {engine.name: engine.dumps(value) for engine in ENGINES} == dict.fromkeys(NAMES, expected)


def test_all_engines_are_tested() -> None:
    assert list(json.ENGINES) == NAMES


def test_a_cached_property_does_not_change_the_output() -> None:
    import functools

    @dataclasses.dataclass
    class Cart:
        items: list[int]

        @functools.cached_property
        def total(self) -> int:
            return sum(self.items)

    cart = Cart([1, 2])
    before = [dumps(cart) for dumps in DUMPS]
    assert cart.total == 3
    assert [dumps(cart) for dumps in DUMPS] == before == [b'{"items":[1,2]}'] * len(DUMPS)


KEYS = st.one_of(
    st.text(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.decimals(allow_nan=False),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text('e+-.0123456789nif"\\:'),
    st.binary(max_size=5),
    st.dates(),
    st.times(),
    # RFC 3339 has no offsets with seconds, and the engines do not round halves alike.
    st.datetimes(timezones=st.one_of(st.none(), st.timezones())).filter(
        lambda moment: not moment.tzinfo or not (moment.utcoffset() or dt.timedelta()).seconds % 60
    ),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.sampled_from([*Colour, *Level, *Kind, *Mixed]),
    st.fractions().map(float),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        inner.map(Slotted),
        inner.map(Attrs),
        inner.map(lambda value: Struct(value)),
    ),
    max_leaves=12,
)


@given(TREES)
@example([1e22, -1e-5, {"a": 1e-10}])
def test_engines_agree_on_whatever_they_are_given(value: Any) -> None:
    expected = reference(value)
    for engine in ENGINES:
        assert engine.dumps(value) == expected, engine.name
    stdlib_json.loads(expected)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back(value: float) -> None:
    for engine in ENGINES:
        assert stdlib_json.loads(engine.dumps(value)) == value


class Unknown:
    pass


def generator() -> Iterator[int]:
    yield 1


UNENCODABLE: list[tuple[Any, str]] = [
    (Unknown(), r"^\$: cannot encode <class '.*Unknown'>$"),
    ({"users": [0, 1, 2, {"joined": Unknown()}]}, r"^\$\.users\[3\]\.joined: cannot encode <class '.*Unknown'>$"),
    ({"a b": {1: [Unknown()]}}, r"^\$\['a b'\]\['1'\]\[0\]: cannot encode"),
    ({"a": [1, {(1, 2): 1}]}, r"^\$\.a\[1\]: cannot encode a key of <class 'tuple'>$"),
    ({"a": {Unknown(): 1}}, r"^\$\.a: cannot encode a key of <class '.*Unknown'>$"),
    (["\ud800"], r"^\$\[0\]: cannot encode a str that holds a lone surrogate$"),
    ({"a": {"\ud800": 1}}, r"^\$\.a.*: cannot encode a str that holds a lone surrogate$"),
    ({"a": generator()}, r"^\$\.a: cannot encode <class 'generator'>$"),
    ([object], r"^\$\[0\]: cannot encode <class 'type'>$"),
    ([1j], r"^\$\[0\]: cannot encode <class 'complex'>$"),
    (Slotted({"a": Unknown()}), r"^\$\.at\.a: cannot encode"),
    (Struct([Unknown()]), r"^\$\.a\[0\]: cannot encode <class '.*Unknown'>$"),
    ([print], r"^\$\[0\]: cannot encode"),
]


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
@pytest.mark.parametrize(("value", "message"), UNENCODABLE, ids=label)
def test_errors_name_the_path(engine: json.Engine, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        engine.dumps(value)


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
def test_a_circle_is_an_error_with_a_path(engine: json.Engine) -> None:
    circle: dict[str, Any] = {"a": [1]}
    circle["a"].append({"again": circle})
    with pytest.raises(TypeError, match=r"^\$\.a\[1\]\.again: cannot encode a circular reference"):
        engine.dumps(circle)
    shared = [1]
    assert engine.dumps([shared, shared]) == b"[[1],[1]]"


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
@pytest.mark.parametrize("depth", [100, 300])
def test_deep_values(engine: json.Engine, depth: int) -> None:
    value: Any = []
    for _ in range(depth):
        value = [value]
    assert engine.dumps(value) == b"[" * (depth + 1) + b"]" * (depth + 1)


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
def test_too_deep_a_value_is_an_error(engine: json.Engine) -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    try:
        with pytest.raises(TypeError, match="nested too deeply"):
            engine.dumps(value)
    finally:
        while value:
            value = value.pop()


# ---- decoding

DOCUMENTS: list[tuple[bytes, Any]] = [
    (b"{}", {}),
    (b' \r\n\t[1, 2.5, -0, "a", null, true, false] ', [1, 2.5, 0, "a", None, True, False]),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'"\\u00e9\\ud83d\\ude00\\n"', "é\U0001f600\n"),
    ('"é\U0001f600"'.encode(), "é\U0001f600"),
    (b"18446744073709551615", 2**64 - 1),
    (b"-9223372036854775808", -(2**63)),
    (b"18446744073709551616", 18446744073709551616.0),
    (b"[-9223372036854775809,1]", [-9223372036854775809.0, 1]),
    (b"1e308", 1e308),
    (b"1E-400", 0.0),
    (b'{"\\u0000":"\\u0000"}', {"\0": "\0"}),
    (b"[" * 500 + b"]" * 500, None),
]


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
@pytest.mark.parametrize(("document", "value"), DOCUMENTS, ids=label)
def test_decoding(engine: json.Engine, document: bytes, value: Any) -> None:
    decoded = engine.loads(document)
    if value is not None:
        assert decoded == value
        assert type(decoded) is type(value)
    for form in (bytearray(document), memoryview(document), document.decode()):
        assert engine.loads(form) == decoded


#: Document, and line and column of what is wrong where every engine agrees on it.
MALFORMED: list[tuple[bytes, tuple[int, int] | None]] = [
    (b"", (1, 1)),
    (b" ", None),
    (b"[1,]", None),
    (b'{"a":\n 1 x}', (2, 4)),
    (b"[1\n,\n\xc3\xa9]", (3, 1)),
    (b'{"a"', (1, 5)),
    (b"{'a':1}", None),
    (b"{a:1}", None),
    (b"1 2", (1, 3)),
    (b"01", None),
    (b"+1", None),
    (b"1.", None),
    (b".5", None),
    (b"0x1", None),
    (b"NaN", (1, 1)),
    (b"[Infinity]", None),
    (b"-Infinity", None),
    (b"1e999", (1, 1)),
    (b"[-1e999]", None),
    (b"1" * 5000, (1, 1)),
    (b'"\\ud800"', (1, 2)),
    (b'["\\udc00\\ud800"]', None),
    (b'"\n"', (1, 2)),
    (b'"\xff"', None),
    (b'"\xed\xa0\x80"', None),
    (b"\xef\xbb\xbf1", (1, 1)),
    (b"\xff\xfe1\x00", None),
    (b"\x00", (1, 1)),
    (b"tru", None),
    (b"//c\n1", None),
    (b"[" * 100_000, None),
    (b'{"a":' * 100_000, None),
]


@pytest.mark.parametrize("engine", ENGINES, ids=NAMES)
@pytest.mark.parametrize(("document", "place"), MALFORMED, ids=label)
def test_malformed_documents(engine: json.Engine, document: bytes, place: tuple[int, int] | None) -> None:
    with pytest.raises(stdlib_json.JSONDecodeError, match=r"line \d+ column \d+") as caught:
        engine.loads(document)
    if place is not None:
        assert (caught.value.lineno, caught.value.colno) == place


JSON_TEXT = st.text(st.sampled_from('[]{},:"\\u0123456789abcdefE+-.ntrl \n'), max_size=24)


@given(JSON_TEXT)
def test_engines_accept_the_same_language(document: str) -> None:
    outcomes = []
    for engine in ENGINES:
        try:
            outcomes.append(repr(engine.loads(document.encode())))
        except ValueError:
            outcomes.append("refused")
    assert len(set(outcomes)) == 1, outcomes


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_what_is_written_reads_back(value: Any) -> None:
    for engine in ENGINES:
        assert engine.loads(engine.dumps(value)) == value


# ---- choosing


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(ValueError, match="unknown JSON engine 'yajl'; there are orjson, msgspec, stdlib"):
        json.engine("yajl")


def test_responses_use_the_chosen_engine() -> None:
    before = json.use()
    try:
        for name in json.ENGINES:
            assert json.use(name).name == name
            assert json.use().name == name
            assert HttpResponse.json({"a": 1e16}).body == b'{"a":1e+16}'
            assert json.loads(json.dumps([1])) == [1]
    finally:
        json.use(before.name)


RUN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from armature.http import HttpResponse, json
assert not {{"orjson", "msgspec"}} & set(sys.modules), "loaded before it is used"
print(HttpResponse.json({{"a": [1e16, None]}}).body.decode(), json.use().name)
"""


@pytest.mark.parametrize(
    ("hidden", "name"), [((), "orjson"), (("orjson",), "msgspec"), (("orjson", "msgspec"), "stdlib")]
)
def test_the_first_that_is_installed_is_taken_when_it_is_needed(hidden: tuple[str, ...], name: str) -> None:
    code = RUN.format(hidden=hidden)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[0] == f'{{"a":[1e+16,null]}} {name}'
