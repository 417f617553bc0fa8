"""What is told about answers: lines of the access log, figures of routes; alike from both twins."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature._spec.access import FIELD_LIMIT, FIELDS, LINES_GATHER
from armature._spec.methods import METHOD_IDS, METHODS, OTHER
from armature.logs import ACCESS_FORMATS, access_parts, json_parts
from twins.harness import Harness

HEAD = (
    b"GET /users/7?q=a%%20b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: %b\r\nReferer: https://a.example/\r\n"
    b"X-Request-Id: 42\r\n\r\n"
)


class Route:
    path = "/users/{number}"


class Told:
    """A connection with a reporter, and what it told."""

    def __init__(self, impl: Any, **options: Any) -> None:
        self.impl = impl
        self.harness = Harness(impl)
        self.harness.connection.report = impl.report.Reporter(**options).answered

    def __enter__(self) -> Harness:
        return self.harness

    def __exit__(self, *_: object) -> None:
        self.harness.close()


def lines_of(impl: Any, template: str = "default", form: Any = "text", **options: Any) -> Any:
    return impl.report.AccessLines(access_parts(template, form)[0], form == "json", **options)


def line(impl: Any, lines: Any, data: bytes) -> str:
    """The line about one request."""
    with Told(impl, lines=lines) as harness:
        harness.connection.__class__.client = ("192.0.2.1", 1234)
        harness.feed(data)
    text: bytes = lines.take()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    return text.decode("ascii").rstrip("\n")


def test_the_named_formats(impl: Any) -> None:
    data = HEAD % b'curl "x\\\xff'
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO     192\.0\.2\.1 "GET /users/7 HTTP/1\.1" \d{3} \d+ \d+us',
        line(impl, lines_of(impl), data),
    )
    common = r'192\.0\.2\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /users/7 HTTP/1\.1" \d{3} \d+'
    assert re.fullmatch(common, line(impl, lines_of(impl, "common"), data))
    assert re.fullmatch(
        common + r' "https://a\.example/" "curl \\x22x\\x5c\\xff"', line(impl, lines_of(impl, "combined"), data)
    )
    for template in ACCESS_FORMATS:
        assert "q=" not in line(impl, lines_of(impl, template), data)


def test_json_lines_hold_the_fields(impl: Any) -> None:
    told = json.loads(line(impl, lines_of(impl, "default", "json"), HEAD % b'curl "x\\\xe9'))
    assert list(told)[:1] == ["time"]
    assert told["client"] == "192.0.2.1"
    assert (told["method"], told["path"], told["version"]) == ("GET", "/users/7", "1.1")
    assert told["user_agent"] == 'curl "x\\\xe9'
    assert (told["referer"], told["request_id"]) == ("https://a.example/", "42")
    assert isinstance(told["status"], int)
    assert told["duration_us"] >= 0
    assert (told["level"], told["logger"]) == ("info", "armature.access")
    absent = json.loads(line(impl, lines_of(impl, "default", "json"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert absent["user_agent"] is absent["referer"] is absent["request_id"] is None


def test_every_field(impl: Any) -> None:
    template = " ".join(f"{name}=%({name})s" for name in FIELDS if not name.startswith(("time", "duration")))
    assert line(impl, lines_of(impl, template + " 100%%"), HEAD % b"curl") == (
        "client=192.0.2.1 method=GET path=/users/7 query=q=a%20b target=/users/7?q=a%20b user_agent=curl "
        "referer=https://a.example/ request_id=42 host=shop.example route=- version=1.1 status=404 bytes=9 100%"
    )
    assert line(impl, lines_of(impl, "%(query)s %(target)s"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == "- /"


def test_a_request_that_could_not_be_read_has_no_fields(impl: Any) -> None:
    lines = lines_of(impl, "%(client)s %(method)s %(path)s %(status)s %(duration_us)s %(user_agent)s")
    with Told(impl) as harness:
        reporter = impl.report.Reporter(lines)
        reporter.answered(harness.connection, 400, 0)
    assert lines.take() == b"- - - 400 0 -\n"


def test_the_time_is_that_of_the_wall(impl: Any) -> None:
    lines = lines_of(impl, "%(time)s|%(time_common)s")
    with Told(impl) as harness:
        lines.add(harness.connection, 200, 0, 0, 0)
        # How far the two clocks are apart is the twin's own affair; it is the same for all lines until `take`.
        first = lines.take()
        assert re.fullmatch(rb"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z\|\d\d/[A-Z][a-z]{2}/\d{4}:[\d:]{8} \+0000\n", first)
        for now in (10**18, 10**18 + 999_999_999, 10**18 + 86_400_000_000_000):
            lines.add(harness.connection, 200, 0, now, 0)
    assert lines.take().count(b"Z|") == 3


def test_lines_are_bounded_and_what_is_dropped_is_counted(impl: Any) -> None:
    calls: list[str] = []
    lines = lines_of(
        impl, "%(status)s", limit=10, on_first=lambda: calls.append("first"), on_full=lambda: calls.append("full")
    )
    before = impl.report.stats()
    with Told(impl) as harness:
        for _ in range(4):
            lines.add(harness.connection, 200, 0, 0, 0)
        assert (len(lines), lines.dropped, calls) == (12, 1, ["first"])
        assert lines.take() == b"200\n" * 3
        lines.held = 12
        lines.add(harness.connection, 200, 0, 0, 0)
        assert (len(lines), lines.dropped, lines.take()) == (0, 2, b"")
        lines.held = 0
        lines.add(harness.connection, 204, 0, 0, 0)
        assert (lines.take(), calls) == (b"204\n", ["first", "first"])
    after = impl.report.stats()
    assert after["lines"] - before["lines"] == 4
    assert after["lines_dropped"] - before["lines_dropped"] == 2


def test_a_batch_that_is_worth_a_write_is_told_of_once(impl: Any) -> None:
    calls: list[int] = []
    lines = lines_of(impl, "x" * 1000 + "%(status)s", on_full=lambda: calls.append(len(lines)))
    with Told(impl) as harness:
        for _ in range(2 * LINES_GATHER // 1000):
            lines.add(harness.connection, 200, 0, 0, 0)
    assert len(calls) == 1
    assert calls[0] >= LINES_GATHER


def test_a_long_value_is_cut(impl: Any) -> None:
    lines = lines_of(impl, "%(path)s")
    assert line(impl, lines, b"GET /" + b"a" * FIELD_LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n") == (
        "/" + "a" * (FIELD_LIMIT - 1) + "..."
    )


def test_a_field_that_is_not_known_is_refused(impl: Any) -> None:
    with pytest.raises(ValueError, match=r"^an access log has no field 'cookie'; it has client, method"):
        impl.report.AccessLines([(b"", "cookie")])


values = st.binary(max_size=60).map(lambda raw: bytes(byte for byte in raw if byte in b"\t" or 32 <= byte != 127))


@settings(deadline=None)
@given(value=values, form=st.sampled_from(["text", "json"]))
def test_the_twins_write_the_same_line(both: Any, value: bytes, form: str) -> None:
    value = value.strip(b" \t")
    parts = json_parts(["user_agent", "path", "method"]) if form == "json" else [(b"[", "user_agent"), (b"]", None)]
    written = []
    for room in both:
        lines = room.report.AccessLines(parts, form == "json")
        with Told(room, lines=lines) as harness:
            harness.feed(HEAD % value)
        written.append(lines.take())
    assert written[0] == written[1]
    assert written[0].isascii()
    assert written[0].count(b"\n") == 1
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", written[0])
    if form == "json":
        assert json.loads(written[0])["user_agent"] == value.decode("latin-1")


def test_figures_by_route_and_method(impl: Any) -> None:
    figures = impl.report.RouteFigures([0.001, 0.01])
    assert figures.bounds == (0.001, 0.01)
    one, other = object(), object()
    get, post = METHOD_IDS["GET"], METHOD_IDS["POST"]
    figures.add(one, get, 200, 5, 1_000_000)
    figures.add(one, get, 404, 6, 1_000_001)
    figures.add(one, OTHER, 999, 0, 10_000_001)
    figures.add(other, post, 503, 0, 0)
    figures.add(None, OTHER, 400, 0, 0)
    assert figures.collect() == [
        (one, "GET", (1, 1, 0), (0, 0, 1, 0, 1, 0), 2_000_001, 11),
        (one, "_OTHER", (0, 0, 1), (1, 0, 0, 0, 0, 0), 10_000_001, 0),
        (other, "POST", (1, 0, 0), (0, 0, 0, 0, 0, 1), 0, 0),
        (None, "_OTHER", (1, 0, 0), (0, 0, 0, 0, 1, 0), 0, 0),
    ]
    for method in (-1, len(METHODS) + 1):
        with pytest.raises(IndexError, match="^index out of range$"):
            figures.add(one, method, 200, 0, 0)
    with pytest.raises(ValueError, match="^a histogram has at most 63 bounds, not 64$"):
        impl.report.RouteFigures(range(64))


@pytest.fixture
def figures(impl: Any) -> Any:
    return impl.report.RouteFigures([1.0])


def test_answers_are_counted_by_endpoint(impl: Any, figures: Any) -> None:
    with Told(impl, figures=figures) as harness:
        harness.feed(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        harness.feed(b"HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n")
        harness.feed(b"BREW /none HTTP/1.1\r\nHost: x\r\n\r\n")
        endpoints = {harness.service.router.find(m, b"/none").endpoint for m in ("GET", "BREW")}
    collected = figures.collect()
    assert {row[0] for row in collected} == endpoints
    assert sorted(row[1] for row in collected) == ["GET", "HEAD", "_OTHER"]
    assert all(sum(row[2]) == 1 for row in collected)


def test_a_call_gets_what_a_line_gets(impl: Any) -> None:
    calls: list[tuple[Any, ...]] = []
    with Told(impl, call=lambda *told: calls.append(told)) as harness:
        harness.feed(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        ((connection, status, _, now, duration),) = calls
        assert connection is harness.connection
        assert status == 204
        assert 0 <= duration < now


def test_clients_that_differ_from_request_to_request(impl: Any) -> None:
    class Request(impl.message.Request):  # type: ignore[name-defined, misc]
        @property
        def client(self) -> tuple[str, int] | None:
            raw = self.header(b"x-client")
            return None if raw is None else (raw.decode(), 0)

    lines = lines_of(impl, "%(client)s", by_request=True)
    with Told(impl, lines=lines) as harness:
        harness.connection.__class__.client = ("192.0.2.1", 1)
        service = harness.service
        service.request_class = Request
        connection = type(harness.connection)(service, harness.dispatcher, impl.writer.Writer())
        connection.log = service.log
        connection.report = impl.report.Reporter(lines).answered
        harness.connection = connection
        harness._in_loop(lambda: connection.attach(harness.transport))
        for client in (b"198.51.100.1", b"198.51.100.2"):
            harness.feed(b"GET /none HTTP/1.1\r\nHost: x\r\nX-Client: %b\r\n\r\n" % client)
        harness.feed(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
        # Without a request there is the peer to tell of.
        lines.add(connection, 400, 0, 0, 0)
    assert lines.take() == b"198.51.100.1\n198.51.100.2\n-\n192.0.2.1\n"
