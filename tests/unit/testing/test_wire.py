"""The client's response parser is strict, whole and incremental; requests are encoded as RFC 9112 says."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.testing.errors import ConnectionClosed, InvalidResponse
from armature.testing.wire import ResponseParser, encode_chunk, encode_head

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n000\r\nx-end: yes\r\n\r\n"
)


def parse(data: bytes, method: str = "GET", eof: bool = True) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser(method)
    parser.feed_data(data)
    if eof:
        parser.feed_eof()
    return parser, parser.take()


def test_a_response_with_a_length() -> None:
    parser, body = parse(OK)
    assert body == b"hello"
    assert parser.head is not None
    assert (parser.head.status, parser.head.reason, parser.head.http_version) == (200, b"OK", "1.1")
    assert parser.head.fields == [(b"content-length", b"5"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert parser.framing == "length"
    assert parser.keep_alive


def test_a_chunked_response_with_extensions_and_trailers() -> None:
    parser, body = parse(CHUNKED)
    assert body == b"hello world"
    assert parser.trailers == [(b"x-end", b"yes")]
    assert parser.keep_alive


def test_a_body_that_ends_with_the_connection() -> None:
    parser, body = parse(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", eof=False)
    assert not parser.complete
    parser.feed_data(b"!")
    parser.feed_eof()
    assert body + parser.take() == b"until the end!"
    assert parser.complete
    assert not parser.keep_alive


def test_interim_responses_come_before_the_final_one() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    parser, body = parse(early + OK)
    assert [head.status for head in parser.interim] == [100, 103]
    assert body == b"hello"


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", b"200 OK"), ("GET", b"304 Not Modified"), ("HEAD", b"404 Not Found")]
)
def test_no_body_follows_whatever_the_length_says(method: str, status: bytes) -> None:
    parser, body = parse(b"HTTP/1.1 " + status + b"\r\ncontent-length: 12\r\n\r\n", method)
    assert parser.complete
    assert (body, parser.framing) == (b"", "none")


def test_head_of_a_chunked_response_has_no_body() -> None:
    parser, body = parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "HEAD")
    assert parser.complete
    assert body == b""


def test_204_ends_with_its_head() -> None:
    parser, body = parse(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert parser.complete
    assert body == b""


def test_an_upgrade_ends_with_its_head_and_keeps_what_follows() -> None:
    parser, _ = parse(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n\x81\x00")
    assert parser.framing == "upgrade"
    assert parser.rest == b"\x81\x00"
    assert not parser.keep_alive


def test_bytes_after_the_response_are_kept_apart() -> None:
    parser, body = parse(OK + b"HTTP/1.1 200 OK")
    assert body == b"hello"
    assert parser.rest == b"HTTP/1.1 200 OK"


def test_an_empty_reason_phrase_needs_its_space() -> None:
    parser, _ = parse(b"HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n")
    assert parser.head is not None
    assert parser.head.reason == b""


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: foo, Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", True),
    ],
)
def test_whether_the_connection_can_be_used_again(head: bytes, reusable: bool) -> None:
    assert parse(head)[0].keep_alive is reusable


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\r\nHTTP/1.1 200 OK\r\n\r\n", id="empty line first"),
        pytest.param(b"HTTP/1.1 200\r\n\r\n", id="no space after the status"),
        pytest.param(b"HTTP/1.1 099 X\r\n\r\n", id="status below 100"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="short status"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="version"),
        pytest.param(b"http/1.1 200 OK\r\n\r\n", id="case of the version"),
        pytest.param(b"HTTP/1.1  200 OK\r\n\r\n", id="two spaces"),
        pytest.param(b"HTTP/1.1 200 O\x00K\r\n\r\n", id="NUL in the reason"),
        pytest.param(b"HTTP/1.1 200 OK\nx: 1\n\n", id="bare LF"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: 1\n\r\n", id="one bare LF"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", id="bare CR"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\n\r\n", id="obs-fold"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx : 1\r\n\r\n", id="space before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: 1\r\n\r\n", id="empty name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx\r\n\r\n", id="no colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello", id="list of lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", id="signed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", id="empty length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", id="length and coding"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", id="two codings"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", id="unknown coding"),
        pytest.param(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", id="coding in 1.0"),
        pytest.param(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", id="length in 204"),
        pytest.param(b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", id="coding in 204"),
        pytest.param(b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n", id="length in 100"),
    ],
)
def test_what_is_no_response_is_refused(data: bytes) -> None:
    parser = ResponseParser()
    with pytest.raises(InvalidResponse):
        parser.feed_data(data)
    with pytest.raises(InvalidResponse):
        parser.feed_data(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"x\r\n", id="no size"),
        pytest.param(b"\r\n", id="empty size"),
        pytest.param(b"0x5\r\nhello\r\n", id="prefix"),
        pytest.param(b"-5\r\n", id="sign"),
        pytest.param(b"5\nhello\r\n", id="bare LF after the size"),
        pytest.param(b"5\r\nhelloX", id="no CRLF after the data"),
        pytest.param(b"5\r\nhello\n0\r\n\r\n", id="bare LF after the data"),
        pytest.param(b"11111111111111111\r\n", id="huge size"),
        pytest.param(b"0\r\nx-a\r\n\r\n", id="bad trailer"),
        pytest.param(b"5 x\r\nhello\r\n", id="text after the size"),
    ],
)
def test_what_is_no_chunked_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body, eof=False)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "without a response"),
        (b"HTTP/1.1 200 OK\r\nx: ", "head"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "body"),
        (CHUNKED[:-1], "body"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "without a response"),
    ],
)
def test_an_early_end_is_told_from_a_response(data: bytes, where: str) -> None:
    parser = ResponseParser()
    parser.feed_data(data)
    with pytest.raises(ConnectionClosed, match=where):
        parser.feed_eof()


def test_a_head_without_end_is_refused() -> None:
    parser = ResponseParser()
    parser.feed_data(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(InvalidResponse, match="longer"):
        for _ in range(20):
            parser.feed_data(b"x: " + b"a" * 65536 + b"\r\n")


@given(
    data=st.sampled_from(
        [OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, b"HTTP/1.1 200 OK\r\n\r\nto the end"]
    ),
    cuts=st.lists(st.integers(0, 120), max_size=12),
)
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    whole, body = parse(data)
    parser = ResponseParser()
    got = b""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        parser.feed_data(data[start:end])
        got += parser.take()
    parser.feed_eof()
    got += parser.take()
    assert whole.head is not None
    assert parser.head is not None
    assert (got, parser.head.fields, parser.trailers) == (body, whole.head.fields, whole.trailers)
    assert [head.status for head in parser.interim] == [head.status for head in whole.interim]


@given(st.binary(max_size=200))
def test_garbage_is_a_response_or_refused(data: bytes) -> None:
    parser = ResponseParser()
    try:
        parser.feed_data(data)
        parser.feed_eof()
    except (InvalidResponse, ConnectionClosed):
        return
    assert parser.complete


def test_heads_and_chunks_are_encoded() -> None:
    assert encode_head("GET", "/a?b=1", [(b"host", b"x")]) == b"GET /a?b=1 HTTP/1.1\r\nhost: x\r\n\r\n"
    assert encode_chunk(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"
    assert encode_chunk(b"") == b"0\r\n\r\n"


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "ÄH"])
def test_a_bad_method_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        encode_head(method, "/", [])


@pytest.mark.parametrize("target", ["", "/a b", "/ä", "/\r\nx: 1"])
def test_a_bad_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        encode_head("GET", target, [])
