"""The connection twins without sockets: one scene at a time, and both against a table of what must come of it."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from armature._spec.limits import BODY_LIMIT, JSON_LARGE, PIPELINE_HIGH_WATER, UNREAD_BODY_LIMIT
from armature._spec.routes import Node, RouteTree
from armature._spec.states import TRANSITIONS, Event, State
from twins.harness import Harness, Transport, connection_class, responses


@contextmanager
def playing(impl: Any, **options: Any) -> Iterator[Harness]:
    harness = Harness(impl, **options)
    try:
        yield harness
        assert harness.errors == []
        assert harness.complaints == []
    finally:
        harness.close()


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: h", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(path: str, *chunks: bytes, end: bytes = b"0\r\n\r\n", fields: tuple[str, ...] = ()) -> bytes:
    head = get(path, "Transfer-Encoding: chunked", *fields, method="POST")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def statuses(harness: Harness, methods: list[str] | None = None) -> list[int]:
    return [status for status, _, _ in responses(harness.wire, methods or ["GET"] * 200)]


def bodies(harness: Harness, methods: list[str] | None = None) -> list[bytes]:
    return [body for _, _, body in responses(harness.wire, methods or ["GET"] * 200)]


ANSWERS: list[tuple[bytes, int, str | None, bytes]] = [
    (get("/"), 200, "text/plain; charset=utf-8", b"hello"),
    (get("/dict"), 200, "application/json", b'{"a": [1, null]}'),
    (get("/bytes"), 200, "application/octet-stream", b"\x00\x01"),
    (get("/none"), 204, None, b""),
    (get("/odd"), 200, "text/plain; charset=utf-8", b"encoded 1.5"),
    (get("/unencodable"), 500, "text/plain; charset=utf-8", b"ValueError: cannot be encoded"),
    (get("/surrogate"), 500, "text/plain; charset=utf-8", b"UnicodeEncodeError: 'utf-8' codec can't encode character"),
    (get("/created", method="POST"), 201, None, b""),
    (get("/reset"), 205, None, b""),
    (get("/unchanged"), 304, None, b""),
    (get("/nowhere"), 404, None, b"not found"),
    (get("/", method="DELETE"), 405, None, b"no such method"),
    (get("/number/12"), 200, "text/plain; charset=utf-8", b"number 12"),
    (get("/number/-0"), 200, "text/plain; charset=utf-8", b"number 0"),
    (get("/number/" + "9" * 18), 200, "text/plain; charset=utf-8", b"number " + b"9" * 18),
    (get("/number/%31%32"), 200, "text/plain; charset=utf-8", b"number 12"),
    (get("/number/" + "9" * 19), 200, None, b"general plan {'n': '9999999999999999999'}"),
    (get("/number/+1"), 200, None, b"general plan {'n': '+1'}"),
    (get("/number/1_0"), 200, None, b"general plan {'n': '1_0'}"),
    (get("/number/%D9%A5"), 200, None, b"general plan {'n': '\\u0665'}"),
    (get("/number/-"), 200, None, b"general plan {'n': '-'}"),
    (get("/text/a%2Fb/7"), 200, None, b"text 'a/b' 7"),
    (get("/text/%FF\xe9/7"), 200, None, b"text '\\ufffd\\ufffd' 7"),
    (get("/text/%31/x"), 200, None, b"general plan {'a': '1', 'b': 'x'}"),
    (get("/read", method="POST", body=b"body"), 200, None, b"4 body"),
    (get("/read", method="POST"), 200, None, b"0 "),
    (chunked("/read", b"bo", b"dy"), 200, None, b"4 body"),
    (chunked("/read", b"", end=b""), 200, None, b"0 "),
    (chunked("/read", b"body", end=b"0;last\r\nA: b\r\n\r\n"), 200, None, b"4 body"),
    (get("/ignore", method="POST", body=b"body"), 200, None, b"ignored"),
    (get("/small", method="POST", body=b"12345678"), 200, None, b"8 12345678"),
    (get("/fail"), 500, None, b"ValueError: failed"),
    (get("/fail-twice"), 500, "text/plain; charset=utf-8", b"Internal Server Error"),
    (get("/cancel"), 500, "text/plain; charset=utf-8", b"Internal Server Error"),
    (get("/stream-length"), 200, None, b"onetwo"),
]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(("request_bytes", "status", "content_type", "body"), ANSWERS, ids=lambda value: "")
def test_answers(
    impl: Any, request_bytes: bytes, status: int, content_type: str | None, body: bytes, version: str
) -> None:
    if b"chunked" in request_bytes and version == "1.0":
        pytest.skip("there are no chunks in HTTP/1.0")
    data = request_bytes.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with playing(impl) as whole, playing(impl) as cut:
        whole.feed(data)
        for index in range(len(data)):
            cut.feed(data[index : index + 1], into_buffer=index % 2 == 0)
        found = responses(whole.wire, [data.split()[0].decode()])
        assert len(found) == 1
        assert found[0][0] == status
        assert found[0][2].startswith(body)
        if content_type is not None:
            assert found[0][1]["content-type"] == content_type
        if version == "1.0" or b"fail-twice" in data or b"cancel" in data:
            assert found[0][1]["connection"] == "close"
            assert whole.transport.closed
        else:
            assert "connection" not in found[0][1]
            assert whole.connection.state == State.CONNECTED
        if status != 204:
            assert ("content-length" in found[0][1]) is (status != 304)
        assert whole.wire == cut.wire
        assert whole.connection.state == cut.connection.state
        assert len(whole.transport.writes) == 1 or b"stream" in data


def test_what_the_request_says(impl: Any) -> None:
    with playing(impl) as harness:
        fields = ("X-A: 1", "x-a: 2", "Cookie: a=b", "COOKIE: c=d", "X-E: \xe9\t", "Empty:")
        harness.feed(get("/show?a=b&c#f", *fields, method="PUT", body=b"\x00\xff"))
        harness.feed(get("http://other/show?x", "Accept: */*"))
        harness.feed(get("/rest/a%2Fb//%C3%A9?", method="QUERY"))
        harness.feed(get("*", method="OPTIONS"))
        told = [json.loads(body) for body in bodies(harness)[:3]]
        assert told[0]["method"] == "PUT"
        assert (told[0]["path"], told[0]["decoded"], told[0]["query"], told[0]["version"]) == (
            "/show",
            "/show",
            "a=b&c",
            "1.1",
        )
        assert told[0]["headers"] == [
            ["host", "h"], ["x-a", "1"], ["x-a", "2"], ["cookie", "a=b"], ["cookie", "c=d"], ["x-e", "\xe9"], ["empty", ""],
            ["content-length", "2"],
        ]  # fmt: skip
        assert told[0]["body"] == "\x00\xff"
        assert told[1]["host"] == "other"
        assert told[1]["headers"][0] == ["host", "other"]
        assert told[1]["body"] == ""
        assert (told[2]["method"], told[2]["params"], told[2]["decoded"]) == (
            "QUERY",
            {"path": "a/b//\u00e9"},
            "/rest/a/b//\u00e9",
        )


def test_head_is_get_without_a_body(impl: Any) -> None:
    for path in (
        "/",
        "/dict",
        "/none",
        "/fields",
        "/large",
        "/nowhere",
        "/fail",
        "/stream-length",
        "/stream",
        "/number/5",
    ):
        with playing(impl) as harness:
            harness.feed(get(path) + get(path, method="HEAD") + get("/"))
            harness.open_gate()
            found = responses(harness.wire, ["GET", "HEAD", "GET"])
            assert len(found) == 3, path
            assert found[0][:2] == found[1][:2]
            assert found[1][2] == b""
            assert found[2][2] == b"hello"


def test_fields_of_the_application(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/fields"))
        head = harness.wire.partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert head == [
            b"HTTP/1.1 200 OK",
            b"server: armature",
            b"date: now",
            b"content-length: 1",
            b"content-type: text/html",
            b"x-one: 1",
            b"set-cookie: a=b",
            b"set-cookie: c=d",
        ]


# ------------------------------------------------------------------------------------------------ keep-alive, closing


@pytest.mark.parametrize(
    ("version", "field", "kept", "said"),
    [
        ("1.1", None, True, None),
        ("1.1", "close", False, "close"),
        ("1.1", "Close", False, "close"),
        ("1.1", "x, close ,y", False, "close"),
        ("1.1", "keep-alive", True, None),
        ("1.1", "keep-alive, close", False, "close"),
        ("1.1", "closed", True, None),
        ("1.0", None, False, "close"),
        ("1.0", "keep-alive", True, "keep-alive"),
        ("1.0", "Keep-Alive", True, "keep-alive"),
        ("1.0", "close, keep-alive", False, "close"),
        ("1.0", "upgrade", False, "close"),
    ],
)
def test_keep_alive(impl: Any, version: str, field: str | None, kept: bool, said: str | None) -> None:
    with playing(impl) as harness:
        harness.feed(get("/", *([f"Connection: {field}"] if field else []), version=version) + get("/dict"))
        found = responses(harness.wire, ["GET", "GET"])
        assert len(found) == 1 + kept
        assert found[0][1].get("connection") == said
        assert harness.transport.closed is not kept


def test_a_response_that_closes(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/close") + get("/"))
        assert bodies(harness) == [b"bye"]
        assert harness.wire.count(b"connection: close") == 1
        assert harness.transport.closed


def test_a_server_that_is_closing_answers_what_it_has_begun(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/suspend"))
        harness.connection.closing = True
        harness.feed(get("/"))
        harness.open_gate()
        found = responses(harness.wire, ["GET"])
        assert found[0][1]["connection"] == "close"
        assert harness.transport.closed


def test_a_list_that_is_large_is_left_to_the_encoder(impl: Any) -> None:
    """HOT-33: `encode` may take turns of the loop, and fails as a handler does."""
    with playing(impl) as harness:
        harness.feed(get("/few-rows"))
        assert len(json.loads(bodies(harness)[0])) == JSON_LARGE - 2
        harness.feed(get("/rows") + get("/bad-rows") + get("/"))
        assert statuses(harness) == [200]
        harness.open_gate()
        assert bodies(harness)[1:] == [b"encoded %d items" % JSON_LARGE]
        harness.open_gate()
        assert bodies(harness)[2:] == [b"ValueError: cannot be encoded, late", b"hello"]
        assert statuses(harness) == [200, 200, 500, 200]


def test_a_peer_that_goes_away_while_its_answer_is_encoded(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/rows"))
        harness.lose()
        harness.open_gate()
        assert harness.wire == b""
        assert not harness.connection.busy


# --------------------------------------------------------------------------------------------------------- pipelining


def test_64_mixed_requests_leave_in_order(impl: Any) -> None:
    """HOT-18: the first is slow; cut anywhere."""
    parts: list[tuple[bytes, str, bytes]] = [(get("/suspend"), "GET", b"b'/suspend' resumed 0")]
    for number in range(63):
        match number % 6:
            case 0:
                parts.append((get(f"/number/{number}"), "GET", b"number %d" % number))
            case 1:
                parts.append((get("/read", method="POST", body=b"x" * number), "POST", b"%d " % number + b"x" * number))
            case 2:
                parts.append(
                    (chunked("/read", b"y" * number, b"z"), "POST", b"%d " % (number + 1) + b"y" * number + b"z")
                )
            case 3:
                parts.append((get("/", method="HEAD"), "HEAD", b""))
            case 4:
                parts.append((get("/stream"), "GET", b"onetwo"))
            case _:
                parts.append((get("/fail-late", method="POST", body=b"unread"), "POST", b"ValueError: gate 5"))
    data = b"".join(part for part, _, _ in parts)
    for size in (len(data), 1000, 97, 13):
        with playing(impl) as harness:
            for at in range(0, len(data), size):
                harness.feed(data[at : at + size], into_buffer=True)
            assert harness.wire == b""
            harness.open_gate(0)
            while harness.service.gates[-1].done() is False:
                last = harness.service.gates[-1]
                path = harness.connection.request.raw_path
                harness.open_gate(ValueError("gate 5") if path == b"/fail-late" else None)
                assert last.done()
            found = responses(harness.wire, [method for _, method, _ in parts])
            assert [body for _, _, body in found] == [body for _, _, body in parts]
            assert harness.connection.state == State.CONNECTED


def test_answers_of_one_read_leave_in_one_write(impl: Any) -> None:
    """HOT-19."""
    with playing(impl) as harness:
        harness.feed(get("/") * 16)
        assert statuses(harness) == [200] * 16
        assert len(harness.transport.writes) == 1


def test_reading_pauses_behind_a_slow_request_and_goes_on(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/suspend"))
        many = get("/", "X: " + "y" * 1000)
        count = PIPELINE_HIGH_WATER // len(many) + 20
        for _ in range(count):
            harness.feed(many)
        assert not harness.transport.reading
        assert harness.connection.carried <= PIPELINE_HIGH_WATER + len(many)
        harness.open_gate()
        assert harness.transport.reading
        assert len(statuses(harness)) == count + 1


@pytest.mark.parametrize("last", ["/suspend", "/"])
def test_reading_goes_on_when_the_last_pipelined_request_was_slow_too(impl: Any, last: str) -> None:
    """Nothing is carried any more when it is answered, but the transport is still paused."""
    with playing(impl) as harness:
        harness.feed(get("/suspend"))
        many = get("/", "X: " + "y" * 1000)
        count = PIPELINE_HIGH_WATER // len(many) + 1
        harness.feed(many * count + get(last))
        assert not harness.transport.reading
        harness.open_gate()
        harness.open_gate()
        assert harness.transport.reading
        assert harness.connection.state == State.CONNECTED
        harness.feed(get("/dict"))
        assert len(statuses(harness)) == count + 3


def test_a_handler_that_feeds_a_connection_of_its_loop(impl: Any) -> None:
    """An in-process client does: the bytes wait for the end of the step."""
    loop = asyncio.new_event_loop()
    with playing(impl, loop=loop) as outer:
        inner = connection_class(impl)(outer.service, outer.dispatcher, impl.writer.Writer())
        inner.log = []
        inner.attach(Transport())

        def call(request: Any) -> str:
            inner.data_received(get("/") + get("/ignore", "Content-Length: 3", method="POST") + b"a")
            inner.data_received(b"bc" + get("/dict"))
            assert inner.transport.wire == b""
            return "outer"

        endpoint = outer.service.router.find("GET", b"/show").endpoint
        endpoint.call = call
        outer.feed(get("/show"))
        outer.feed(get("/"))
        assert bodies(outer) == [b"outer", b"hello"]
        assert [body for _, _, body in responses(bytes(inner.transport.wire), ["GET", "POST", "GET"])] == [
            b"hello",
            b"ignored",
            b'{"a": [1, null]}',
        ]
    loop.close()


def test_the_end_of_an_unread_body_comes_from_within_a_handler(impl: Any) -> None:
    """The next request may not begin inside the step of another connection's handler."""
    loop = asyncio.new_event_loop()
    with playing(impl, loop=loop) as outer:
        inner = Harness(impl, loop=loop)
        inner.service, inner.dispatcher = outer.service, outer.dispatcher
        connection = connection_class(impl)(outer.service, outer.dispatcher, impl.writer.Writer())
        connection.log = []
        inner.connection, inner.transport = connection, Transport()
        inner._in_loop(lambda: connection.attach(inner.transport))
        inner.feed(get("/ignore", "Content-Length: 3", method="POST") + b"a")
        assert connection.state == State.DRAINING
        tasks: list[Any] = []

        def call(request: Any) -> str:
            connection.data_received(b"bc" + get("/dict"))
            tasks.append(asyncio.current_task())
            return "outer"

        outer.service.router.find("GET", b"/show").endpoint.call = call
        outer.feed(get("/show") + get("/"))
        assert tasks[0] is not None, "the handler's Task was taken away while it ran"
        assert bodies(outer) == [b"outer", b"hello"]
        assert [body for _, _, body in responses(bytes(inner.transport.wire), ["POST", "GET"])] == [
            b"ignored",
            b'{"a": [1, null]}',
        ]
    loop.close()


# ------------------------------------------------------------------------------------------------------------- bodies


def test_a_body_in_pieces(impl: Any) -> None:
    with playing(impl) as harness:
        for data in (get("/read", "Content-Length: 6", method="POST"), b"ab", b"cd", b"ef" + get("/")):
            harness.feed(data)
        assert bodies(harness) == [b"6 abcdef", b"hello"]


def test_an_unread_body_is_thrown_away(impl: Any) -> None:
    for data in (get("/ignore", "Content-Length: 100", method="POST"), chunked("/ignore", b"x" * 30, end=b"46\r\n")):
        with playing(impl) as harness:
            harness.feed(data)
            assert harness.connection.state == State.DRAINING
            assert bodies(harness) == [b"ignored"]
            assert harness.connection.request is None
            for _ in range(7):
                harness.feed(b"x" * 10)
            if b"chunked" in data:
                harness.feed(b"\r\n0\r\n\r\n" + get("/"))
            else:
                harness.feed(b"x" * 30 + get("/"))
            assert bodies(harness) == [b"ignored", b"hello"]
            assert not harness.transport.closed


def test_a_long_unread_body_closes(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/ignore", f"Content-Length: {UNREAD_BODY_LIMIT + 1}", method="POST"))
        assert harness.wire.count(b"connection: close") == 1
        assert harness.transport.closed
        assert harness.connection.must_linger
    with playing(impl) as harness:
        harness.feed(chunked("/ignore", end=b""))
        assert not harness.transport.closed
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        for _ in range(UNREAD_BODY_LIMIT // 0x4000 + 2):
            harness.feed(chunk)
        assert harness.transport.closed
        assert harness.connection.must_linger
        assert statuses(harness) == [200]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_limit_of_a_body(impl: Any, framing: str) -> None:
    with playing(impl) as harness:
        if framing == "length":
            harness.feed(get("/small", "Content-Length: 9", method="POST") + b"123")
        else:
            harness.feed(chunked("/small", b"1234", end=b""))
            assert harness.wire == b""
            harness.feed(b"5\r\n12345\r\n")
        found = responses(harness.wire, ["POST"])
        assert found[0][0] == 413
        assert found[0][1]["connection"] == "close"
        assert harness.transport.closed
        assert harness.connection.must_linger
        assert harness.service.log[-2][:4] == ("error", "POST", b"/small", "PayloadTooLarge")


def test_a_huge_declared_length_is_refused_before_its_body(impl: Any) -> None:
    for length in (BODY_LIMIT + 1, 2**31, 2**32 + 4, 10**18 - 1):
        with playing(impl) as harness:
            harness.feed(get("/read", f"Content-Length: {length}", method="POST") + b"xxxx")
            assert statuses(harness) == [413]
            assert harness.transport.closed


def test_reading_pauses_while_nobody_wants_the_body(impl: Any) -> None:
    with playing(impl, high_water=10) as harness:
        harness.feed(get("/suspend", "Content-Length: 40", method="POST") + b"x" * 12)
        assert not harness.transport.reading
        harness.feed(b"y" * 28 + get("/"))
        harness.open_gate()
        assert bodies(harness) == [b"b'/suspend' resumed gate", b"hello"]
        assert harness.transport.reading


def test_expect_continue(impl: Any) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    with playing(impl) as harness:
        # Asked for: the interim response comes when the handler reads.
        harness.feed(get("/read", "Content-Length: 3", "Expect: 100-continue", method="POST"))
        assert harness.wire == interim
        harness.feed(b"abc")
        assert harness.wire.startswith(interim + b"HTTP/1.1 200 OK\r\n")
    with playing(impl) as harness:
        # Not asked for: the body may never come, so the connection cannot go on.
        harness.feed(get("/ignore", "Content-Length: 3", "Expect: 100-Continue", method="POST"))
        assert interim not in harness.wire
        assert b"connection: close" in harness.wire
        assert harness.transport.closed
    with playing(impl) as harness:
        # Sent without waiting: no interim response.
        harness.feed(get("/read", "Expect: 100-continue", method="POST", body=b"abc") + get("/"))
        assert bodies(harness) == [b"3 abc", b"hello"]
    with playing(impl) as harness:
        # Part of the body is there: RFC 9110 section 10.1.1 lets us leave it out.
        harness.feed(get("/read", "Content-Length: 3", "Expect: 100-continue", method="POST") + b"a")
        harness.feed(b"bc")
        assert bodies(harness) == [b"3 abc"]
    with playing(impl) as harness:
        harness.feed(get("/read", "Content-Length: 3", "Expect: 100-continue", method="POST", version="1.0"))
        assert harness.wire == b""
    with playing(impl) as harness:
        harness.feed(get("/small", "Content-Length: 9", "Expect: 100-continue", method="POST"))
        assert statuses(harness) == [413]
    with playing(impl) as harness:
        harness.feed(get("/read", "Content-Length: 3", "Expect: 101-switch", method="POST"))
        assert statuses(harness) == [417]


def test_a_broken_chunked_body(impl: Any) -> None:
    # Broken at once: the handler is not called.
    with playing(impl) as harness:
        harness.feed(chunked("/read", end=b"x\r\n"))
        assert statuses(harness) == [400]
        assert harness.transport.closed
    # Broken while the handler reads: refused, and what the handler makes of it comes too late.
    with playing(impl) as harness:
        harness.feed(chunked("/read", b"ab", end=b""))
        harness.feed(b"x\r\n" + get("/"))
        assert statuses(harness) == [400]
        assert harness.transport.closed
    # Broken while the handler does something else.
    with playing(impl) as harness:
        harness.feed(chunked("/suspend", b"ab", end=b""))
        harness.feed(b"x\r\n")
        assert statuses(harness) == [400]
        harness.open_gate()
        assert statuses(harness) == [400]
        assert harness.transport.closed
    # Broken after the answer, while the rest is thrown away.
    with playing(impl) as harness:
        harness.feed(chunked("/ignore", b"ab", end=b""))
        harness.feed(b"x\r\n" + get("/"))
        assert statuses(harness) == [200]
        assert harness.transport.closed


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"x" * 17000, 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 70000, 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 200, 431),
        (get("/", "Transfer-Encoding: gzip, chunked"), 501),
        (get("h:1", method="CONNECT"), 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\n", 400),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_a_refusal_is_answered_once_and_closes(impl: Any, data: bytes, status: int) -> None:
    for before in (b"", get("/", method="HEAD"), get("/read", method="POST", body=b"x")):
        with playing(impl) as harness:
            harness.feed(before + data + get("/"))
            methods = [before.split()[0].decode(), "GET"] if before else ["GET"]
            found = responses(harness.wire, methods)
            assert len(found) == len(methods)
            code, headers, body = found[-1]
            assert code == status
            assert headers["connection"] == "close"
            assert headers["content-type"] == "text/plain; charset=utf-8"
            assert body
            assert harness.transport.closed
            assert harness.connection.must_linger
            harness.feed(get("/"))
            assert len(responses(harness.wire, ["GET"] * 9 if not before else methods + ["GET"])) == len(methods)
            assert [entry for entry in harness.service.log if entry[0] == "refused"] == [
                ("refused", status, body.decode().strip())
            ]


# ----------------------------------------------------------------------------------------------------- errors, streams


def test_errors_of_handlers(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/fail-slowly") + get("/fail-late"))
        assert harness.wire == b""
        harness.open_gate()
        harness.open_gate()
        assert statuses(harness) == [503, 500]
        assert not harness.transport.closed


def test_an_awaitable_that_is_no_coroutine(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/future"))
        harness.open_gate("the value")
        harness.feed(get("/future"))
        harness.open_gate(ValueError("x"))
        assert bodies(harness) == [b"the value", b"ValueError: x"]


def test_a_stream(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/stream") + get("/"))
        assert harness.wire.endswith(b"\r\n3\r\none\r\n")
        assert harness.connection.state == State.WRITING
        harness.open_gate()
        assert bodies(harness) == [b"onetwo", b"hello"]
    with playing(impl) as harness:
        harness.feed(get("/stream", "Connection: keep-alive", version="1.0"))
        harness.open_gate()
        assert harness.wire.endswith(b"connection: close\r\n\r\nonetwo")
        assert harness.transport.closed


def test_a_stream_that_fails_is_cut_off(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/stream-fail") + get("/"))
        assert harness.wire.endswith(b"\r\n3\r\none\r\n")
        assert harness.transport.closed
        assert harness.service.log[-2:] == [("stream failed", "the stream failed"), "abort"]


@pytest.mark.parametrize("length", ["5", "7", "", "x", "-1", "+6", "6_0", " 6", "\u0666"])
def test_a_stream_with_a_wrong_length(impl: Any, length: str) -> None:
    with playing(impl) as harness:
        endpoint = harness.service.router.find("GET", b"/stream-length").endpoint
        endpoint.call = lambda request: harness.service._streamed({"content-length": length})
        harness.feed(get("/stream-length") + get("/"))
        if length in ("5", "7"):
            assert harness.transport.closed
            assert harness.service.log[-1] == "abort"
        else:
            # What is no length at all never reaches the peer.
            assert b"content-length: " + length.encode() + b"\r\n" not in harness.wire or not length
            assert statuses(harness) == [500, 200]


def test_a_response_that_cannot_be_written_is_an_error(impl: Any) -> None:
    """Fields that were put in unchecked, or a body of another type, must not leave the connection half answered."""
    Response = impl.message.Response

    def fields(*pairs: Any) -> Any:
        response = Response(b"x")
        response.fields().extend(pairs)
        return response

    made = [
        lambda: fields(("name", "value")),
        lambda: fields((b"name", None)),
        lambda: fields((b"name",)),
        lambda: fields(None),
        lambda: fields((b"connection", "close")),
    ]
    for make in made:
        with playing(impl) as harness:
            harness.service.router.find("GET", b"/show").endpoint.call = lambda request, make=make: make()
            harness.feed(get("/show") + get("/"))
            assert statuses(harness) == [500, 200]
    for wrong in ("text", None, bytearray(b"x"), 5):
        with playing(impl) as harness:
            harness.service.router.find("GET", b"/dict").endpoint.dumps = lambda value, wrong=wrong: wrong
            harness.feed(get("/dict") + get("/"))
            assert statuses(harness) == [500, 200]


# ------------------------------------------------------------------------------------------- the peer, the other way


def test_a_peer_that_does_not_read_stops_the_answers(impl: Any) -> None:
    with playing(impl) as harness:
        harness.pause_writing()
        harness.feed(get("/") * 3)
        assert harness.wire == b""
        harness.feed(get("/dict"))
        assert harness.connection.carried
        harness.resume_writing()
        assert statuses(harness) == [200] * 4
        assert harness.connection.carried == 0


def test_a_transport_that_pauses_in_the_middle_of_a_batch(impl: Any) -> None:
    """The answers of one read are bounded: above the mark they are handed over before the next request is begun."""
    with playing(impl) as harness:
        write = harness.transport.write

        def pausing(data: bytes) -> None:
            write(data)
            harness.connection.write_paused = True

        harness.transport.write = pausing  # type: ignore[method-assign]
        harness.feed(get("/large") * 5)
        assert statuses(harness) == [200]
        for count in range(2, 6):
            harness.resume_writing()
            assert statuses(harness) == [200] * count
        harness.resume_writing()
        assert harness.connection.state == State.CONNECTED


def test_a_peer_that_goes_away(impl: Any) -> None:
    for path in ("/suspend", "/suspend-bare", "/stream", "/fail-late", "/future", "/fail-slowly"):
        with playing(impl) as harness:
            harness.feed(get(path) + get("/"))
            before = harness.wire
            harness.lose()
            assert harness.connection.is_disconnected()
            harness.open_gate()
            assert harness.wire == before
            assert harness.connection.state == State.CLOSED
            assert not harness.connection.busy
            harness.feed(get("/"))
            assert harness.wire == before


def test_a_body_whose_peer_goes_away(impl: Any) -> None:
    with playing(impl) as harness:
        harness.feed(get("/read", "Content-Length: 9", method="POST") + b"abc")
        receiver = harness.connection.request.receiver
        harness.lose()
        harness._in_loop(lambda: receiver.set_exception(ConnectionError("gone")))
        assert harness.connection.state == State.CLOSED
        assert harness.wire == b""


# ---------------------------------------------------------------------------------------------------------- lifetimes


def test_a_request_that_is_kept_never_shows_later_bytes(impl: Any) -> None:
    """The memory that a request was parsed in is used again; what was not asked for in time is read from a copy."""
    with playing(impl) as harness:
        expected = []
        for number in range(40):
            body = bytes([65 + number % 26]) * (number * 7 % 50)
            fields = [f"X-{name}: {number}-{name}" for name in range(number % 20)]
            path = f"/keep?number={number}"
            data = get(path, *fields, f"Cookie: c={number}", method="POST", body=body)
            expected.append((data, number, body))
            if number % 3 == 0:
                for at in range(0, len(data), 11):
                    harness.feed(data[at : at + 11], into_buffer=True)
            elif number % 3 == 1:
                harness.feed(data, into_buffer=True)
            else:
                harness.feed(data * 1 + get("/", "X-Poison: " + "p" * 300), into_buffer=True)
            harness.feed(get("/show", "X-Poison: " + "q" * 2000), into_buffer=True)
        assert len(harness.service.kept) == 40
        for request, (data, number, body) in zip(harness.service.kept, expected, strict=True):
            assert request.header(b"cookie") == b"c=%d" % number
            assert request.header(b"x-poison") is None
            told = harness.service.tell(request)
            assert (told["method"], told["path"], told["query"]) == ("POST", "/keep", f"number={number}")
            head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
            assert [f"{name}: {value}" for name, value in told["headers"]] == [
                line.decode().partition(":")[0].lower() + ":" + line.decode().partition(":")[2] for line in head
            ]
            assert request.body_bytes == (body if request.receiver is None else None)
            assert request.endpoint.call == harness.service.keep
            assert request.connection is harness.connection


@pytest.mark.parametrize("how", ["list", "closure", "exception", "task", "cycle", "state"])
def test_a_request_may_be_kept_in_any_way(impl: Any, how: str) -> None:
    with playing(impl) as harness:
        kept: list[Any] = []

        def keep(request: Any) -> Any:
            if how == "list":
                kept.append(lambda: request)
            elif how == "closure":

                def later() -> Any:
                    return request

                kept.append(later)
            elif how == "exception":
                try:
                    raise ValueError(request)
                except ValueError as error:
                    kept.append(lambda error=error: error.args[0])
            elif how == "task":

                async def background() -> Any:
                    await asyncio.sleep(0)
                    return request

                task = asyncio.get_running_loop().create_task(background())
                kept.append(task.result)
            elif how == "cycle":
                cycle: list[Any] = [request]
                cycle.append(cycle)
                request._state = cycle
                kept.append(lambda cycle=cycle: cycle[0])
            else:
                request._view = {"request": request}
                kept.append(lambda view=request._view: view["request"])
            return "kept"

        harness.service.router.find("GET", b"/show").endpoint.call = keep
        for number in range(10):
            harness.feed(get(f"/show?{number}", f"X-Number: {number}"), into_buffer=True)
            harness.feed(get("/", "X-Number: poison" * 5), into_buffer=True)
        for number, read in enumerate(kept):
            request = read()
            assert request.query_string == b"%d" % number
            assert request.header(b"x-number") == b"%d" % number
            if how == "cycle":
                request._state = None
            request._view = None


def test_requests_of_suspended_handlers_outlive_the_buffer(impl: Any) -> None:
    """`Service.suspend` itself compares what it sees before and after."""
    with playing(impl) as harness:
        for number in range(5):
            harness.feed(
                get(f"/suspend?{number}", f"X-{number}: y", method="POST", body=b"b" * number), into_buffer=True
            )
            harness.feed(get("/", "X-Poison: " + "p" * 500), into_buffer=True)
            harness.open_gate(number)
        assert statuses(harness) == [200] * 10


def test_a_subclass_of_request(impl: Any) -> None:
    class OwnRequest(impl.message.Request):  # type: ignore[misc, name-defined]
        __slots__ = ()

        @property
        def shouted(self) -> str:
            return self.path.upper()

    with playing(impl) as harness:
        harness.service.request_class = OwnRequest
        harness.connection = connection_class(impl)(harness.service, harness.dispatcher, impl.writer.Writer())
        harness.connection.log = []
        harness._in_loop(lambda: harness.connection.attach(harness.transport))
        harness.service.router.find("GET", b"/show").endpoint.call = lambda request: request.shouted
        harness.feed(get("/show"))
        assert bodies(harness) == [b"/SHOW"]


def test_nothing_is_left_of_many_requests(impl: Any) -> None:
    import gc

    data = (
        get("/") * 20
        + get("/show", "X: y") * 20
        + get("/read", method="POST", body=b"x") * 5
        + chunked("/read", b"a", b"b") * 5
    )
    data += get("/suspend") + get("/fail") + get("/nowhere") + get("/number/7") + get("/stream-length")
    with playing(impl) as harness:
        counts = []
        for number in range(60):
            harness.feed(data, into_buffer=True)
            harness.open_gate()
            harness.service.log.clear()
            harness.service.gates.clear()
            harness.transport.wire.clear()
            harness.transport.writes.clear()
            if number in (5, 59):
                gc.collect()
                counts.append(len(gc.get_objects()))
        assert counts[1] - counts[0] < 50


# --------------------------------------------------------------------------------------------------------- the states


def test_every_state_and_event(both: Any) -> None:
    """HOT-17: the table decides, in both twins."""
    reach: dict[State, list[Event]] = {State.IDLE: []}
    grown = True
    while grown:
        grown = False
        for (state, event), target in TRANSITIONS.items():
            if state in reach and target not in reach:
                reach[target] = [*reach[state], event]
                grown = True
    assert set(reach) == set(State)
    loop = asyncio.new_event_loop()
    for room in both:
        router = room.router.RadixRouter(RouteTree(Node({}, (), None, None), {}), None, lambda methods: None)
        service = types.SimpleNamespace(router=router, request_class=room.message.Request, app=None)
        dispatcher, writer = room.dispatch.Dispatcher(loop), room.writer.Writer()
        for state, path in reach.items():
            for event in Event:
                connection = room.connection.Connection(service, dispatcher, writer)
                for step in path:
                    connection.event(step)
                assert connection.state == state
                connection.event(event)
                assert connection.state == TRANSITIONS.get((state, event), State.ERROR)
    loop.close()


@pytest.mark.parametrize("event", [2**40, "x", None])
def test_an_event_that_is_none(impl: Any, event: Any) -> None:
    with playing(impl) as harness:
        with pytest.raises((IndexError, TypeError, OverflowError)):
            harness.connection.event(event)
        assert harness.connection.state == State.CONNECTED
