"""From text to values: what is accepted, and what is said of the rest."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NewType

import annotated_types
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.binding.kinds import InvalidItems, Kind, interpret
from armature.binding.markers import MISSING, Cookie, Header, Marker, Path, Query
from armature.binding.scalars import InvalidValue
from armature.exceptions import ConfigurationError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    A = "a"


UserId = NewType("UserId", int)
ONE = uuid.UUID("12345678-1234-5678-1234-567812345678")


def kind_of(annotation: Any) -> Kind:
    kind = interpret(annotation)
    assert kind is not None
    return kind


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "5", 5),
        (int, "-5", -5),
        (int, "+5", 5),
        (int, "007", 7),
        (int, " 5 ", 5),
        (int, "123456789012345678901234567890", 123456789012345678901234567890),
        (float, "1", 1.0),
        (float, "-1.5e3", -1500.0),
        (float, ".5", 0.5),
        (float, "5.", 5.0),
        *((bool, text, True) for text in ("1", "true", "True", "TRUE", "tRuE", "t", "T", "yes", "Y", "on", "ON")),
        *((bool, text, False) for text in ("0", "false", "FALSE", "f", "F", "no", "N", "off", "Off")),
        (str, "", ""),
        (str, " x ", " x "),
        (bytes, "ü", "ü".encode()),
        (uuid.UUID, str(ONE), ONE),
        (uuid.UUID, ONE.hex, ONE),
        (uuid.UUID, f"urn:uuid:{ONE}", ONE),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (dt.date, "2024-02-29", dt.date(2024, 2, 29)),
        (dt.time, "10:30:01.5", dt.time(10, 30, 1, 500000)),
        (dt.datetime, "2024-02-29T10:30:00Z", dt.datetime(2024, 2, 29, 10, 30, tzinfo=dt.UTC)),
        (dt.datetime, "2024-02-29 10:30", dt.datetime(2024, 2, 29, 10, 30)),
        (dt.timedelta, "P1DT2H3M4.5S", dt.timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        (dt.timedelta, "-PT1H", -dt.timedelta(hours=1)),
        (dt.timedelta, "P2W", dt.timedelta(weeks=2)),
        (dt.timedelta, "01:30:00", dt.timedelta(hours=1.5)),
        (dt.timedelta, "2 days, 01:30", dt.timedelta(days=2, hours=1.5)),
        (dt.timedelta, "90.5", dt.timedelta(seconds=90.5)),
        (Color, "red", Color.RED),
        (Level, "2", Level.HIGH),
        (Word, "a", Word.A),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (Literal[True, "x"], "yes", True),
        (Literal[Color.RED], "red", Color.RED),
        (int | None, "5", 5),
        (Color | None, "blue", Color.BLUE),
        (int | str, "5", 5),
        (int | str, "x", "x"),
        (Any, "x", "x"),
        (UserId, "5", 5),
        (Annotated[int, "a remark"], "5", 5),
        (Annotated[Annotated[int, annotated_types.Ge(1)], annotated_types.Le(9)], "9", 9),
    ],
)
def test_accepted(annotation: Any, text: str, value: Any) -> None:
    kind = kind_of(annotation)
    assert not kind.many
    result = kind.convert(text)
    assert result == value
    assert type(result) is type(value)


INT = "Input should be a valid integer, unable to parse string as an integer"
NUMBER = "Input should be a valid number, unable to parse string as a number"
BOOL = "Input should be a valid boolean, unable to interpret input"
FINITE = "Input should be a finite number"


@pytest.mark.parametrize(
    ("annotation", "text", "error", "message"),
    [
        *((int, text, "int_parsing", INT)
          for text in ("", "x", "1.0", "1_000", "\u0661", "0x10", "--1", "1 2", "\uff11")),
        (int, "9" * 5000, "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"),
        *((float, text, "float_parsing", NUMBER) for text in ("", "x", "1_0.0", "1e", "\u0663.\u0665")),
        *((float, text, "finite_number", FINITE) for text in ("nan", "inf", "-Infinity", "1e999")),
        *((bool, text, "bool_parsing", BOOL) for text in ("", "2", "yess", " true")),
        (uuid.UUID, "x", "uuid_parsing", "Input should be a valid UUID"),
        (decimal.Decimal, "x", "decimal_parsing", "Input should be a valid decimal"),
        (decimal.Decimal, "NaN", "finite_number", FINITE),
        (dt.date, "2023-02-29", "date_parsing",
         "Input should be a valid date in the format YYYY-MM-DD, it is out of range"),
        (dt.date, "x", "date_parsing", "Input should be a valid date in the format YYYY-MM-DD, invalid format"),
        (dt.time, "25:00", "time_parsing", "Input should be in a valid time format, it is out of range"),
        (dt.datetime, "x", "datetime_parsing", "Input should be a valid datetime, invalid format"),
        *((dt.timedelta, text, "time_delta_parsing",
           "Input should be a valid duration, such as PT1H30M, 01:30:00 or 5400")
          for text in ("", "P", "PT", "P1Y", "x", "1:2:3:4")),
        (dt.timedelta, "9" * 30, "time_delta_parsing", "Input should be a valid duration, it is too long"),
        (Color, "green", "enum", "Input should be 'red' or 'blue'"),
        (Level, "3", "enum", "Input should be 1 or 2"),
        (Literal["a", "b", "c"], "d", "literal_error", "Input should be 'a', 'b' or 'c'"),
        (int | float, "x", "int_parsing", INT),
    ],
)  # fmt: skip
def test_refused(annotation: Any, text: str, error: str, message: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        kind_of(annotation).convert(text)
    assert (raised.value.kind, raised.value.message) == (error, message)


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "error", "message", "context"),
    [
        (Annotated[int, annotated_types.Ge(1)], "1", "0", "greater_than_equal",
         "Input should be greater than or equal to 1", {"ge": 1}),
        (Annotated[int, annotated_types.Gt(1)], "2", "1", "greater_than", "Input should be greater than 1", {"gt": 1}),
        (Annotated[float, Query(lt=1.5)], "1.4", "1.5", "less_than", "Input should be less than 1.5", {"lt": 1.5}),
        (Annotated[int, Query(le=5)], "5", "6", "less_than_equal",
         "Input should be less than or equal to 5", {"le": 5}),
        (Annotated[int, Query(ge=0)], "0", "-1", "greater_than_equal",
         "Input should be greater than or equal to 0", {"ge": 0}),
        (Annotated[int, msgspec.Meta(multiple_of=5)], "10", "11", "multiple_of",
         "Input should be a multiple of 5", {"multiple_of": 5}),
        (pydantic.PositiveInt, "1", "0", "greater_than", "Input should be greater than 0", {"gt": 0}),
        (Annotated[str, pydantic.Field(min_length=1)], "x", "", "string_too_short",
         "String should have at least 1 character", {"min_length": 1}),
        (Annotated[str, pydantic.StringConstraints(max_length=2)], "ab", "abc", "string_too_long",
         "String should have at most 2 characters", {"max_length": 2}),
        (Annotated[str, Query(pattern="^a+$")], "aa", "b", "string_pattern_mismatch",
         "String should match pattern '^a+$'", {"pattern": "^a+$"}),
        (Annotated[str, annotated_types.Predicate(str.isupper)], "A", "a", "predicate_failed",
         "Predicate str.isupper failed", None),
        (Annotated[int | None, Query(ge=1, le=3)], "3", "4", "less_than_equal",
         "Input should be less than or equal to 3", {"le": 3}),
    ],
)  # fmt: skip
def test_constraints(annotation: Any, good: str, bad: str, error: str, message: str, context: Any) -> None:
    kind = kind_of(annotation)
    kind.convert(good)
    with pytest.raises(InvalidValue) as raised:
        kind.convert(bad)
    assert (raised.value.kind, raised.value.message, raised.value.context) == (error, message, context)


def test_infinity_where_it_is_asked_for() -> None:
    assert kind_of(Annotated[float, Query(allow_inf_nan=True)]).convert("-inf") == float("-inf")
    with pytest.raises(InvalidValue, match="valid number"):
        kind_of(Annotated[float, Query(allow_inf_nan=True)]).convert("x")


@pytest.mark.parametrize(
    ("annotation", "texts", "value"),
    [
        (list[int], ["1", "2"], [1, 2]),
        (list, ["a"], ["a"]),
        (set[int], ["1", "1"], {1}),
        (frozenset[str], ["a"], frozenset("a")),
        (tuple[int, ...], ["1", "2"], (1, 2)),
        (tuple[int, str], ["1", "x"], (1, "x")),
        (Sequence[Color], ["red"], [Color.RED]),
        (list[int] | None, ["1"], [1]),
        (list[Annotated[int, annotated_types.Ge(1)]], ["1"], [1]),
        (Annotated[list[str], Query(min_length=1)], ["a"], ["a"]),
    ],
)
def test_containers(annotation: Any, texts: list[str], value: Any) -> None:
    kind = kind_of(annotation)
    assert kind.many
    result = kind.convert(texts)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("annotation", "texts", "error", "message"),
    [
        (tuple[int, str], ["1"], "too_short", "Tuple should have at least 2 items after validation, not 1"),
        (tuple[int], ["1", "2"], "too_long", "Tuple should have at most 1 item after validation, not 2"),
        (Annotated[set[str], Query(min_length=2)], ["a", "a"], "too_short",
         "Set should have at least 2 items after validation, not 1"),
        (Annotated[list[str], Query(max_length=1)], ["a", "b"], "too_long",
         "List should have at most 1 item after validation, not 2"),
    ],
)  # fmt: skip
def test_containers_of_the_wrong_length(annotation: Any, texts: list[str], error: str, message: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        kind_of(annotation).convert(texts)
    assert (raised.value.kind, raised.value.message) == (error, message)


def test_every_wrong_item_is_named() -> None:
    with pytest.raises(InvalidItems) as raised:
        kind_of(list[int]).convert(["1", "x", "3", ""])
    assert [(number, text, error.kind) for number, text, error in raised.value.items] == [
        (1, "x", "int_parsing"),
        (3, "", "int_parsing"),
    ]


@pytest.mark.parametrize(
    "annotation",
    [dict, dict[str, int], list[list[int]], complex, object(), "a string", Kind, list[Kind], int | Kind, type[int], 5],
)
def test_no_parameter_of_this_type(annotation: Any) -> None:
    assert interpret(annotation) is None


@given(st.text())
def test_a_convertor_returns_or_raises_one_error(text: str) -> None:
    for annotation in (
        int,
        float,
        bool,
        uuid.UUID,
        decimal.Decimal,
        dt.date,
        dt.time,
        dt.datetime,
        dt.timedelta,
        Color,
    ):
        with contextlib.suppress(InvalidValue):
            kind_of(annotation).convert(text)


@given(st.integers())
def test_integers_come_back(number: int) -> None:
    assert kind_of(int).convert(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    assert kind_of(float).convert(repr(number)) == number


@given(st.timedeltas(min_value=dt.timedelta(0), max_value=dt.timedelta(days=99)))
def test_durations_agree_with_pydantic(length: dt.timedelta) -> None:
    text = pydantic.TypeAdapter(dt.timedelta).dump_json(length).decode().strip('"')
    assert kind_of(dt.timedelta).convert(text) == length


@pytest.mark.parametrize("annotation", [int, float, bool, uuid.UUID, Color, Literal["a"]])
def test_error_types_and_messages_are_those_of_pydantic(annotation: Any) -> None:
    with pytest.raises(pydantic.ValidationError) as theirs:
        pydantic.TypeAdapter(annotation).validate_python("?")
    with pytest.raises(InvalidValue) as ours:
        kind_of(annotation).convert("?")
    (error,) = theirs.value.errors()
    assert ours.value.kind == error["type"]
    assert error["msg"].startswith(ours.value.message)


def test_markers_keep_what_they_are_given() -> None:
    marker = Query(10, ge=1, alias="n", description="how many")
    assert isinstance(marker, Marker)
    assert (marker.location, marker.default, marker.ge, marker.alias) == ("query", 10, 1, "n")
    assert Query(...).default is MISSING
    assert repr(MISSING) == "MISSING"
    assert Query(regex="x").pattern == "x"
    assert Header(validation_alias="X").alias == "X"
    assert Cookie().location == "cookie"
    assert Path(ge=1).location == "path"


def test_markers_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ConfigurationError, match=r"Query\(...\) does not know minimum; it takes alias, "):
        Query(minimum=1)
    with pytest.raises(ConfigurationError, match=r"Path\(...\) takes no default"):
        Path(1)
    with pytest.raises(ConfigurationError, match="default or default_factory, not both"):
        Query(1, default_factory=list)
