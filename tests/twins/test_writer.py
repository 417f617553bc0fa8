"""The writer twins: equal bytes, read again by `http.client`; nothing that a header holds can break out of it."""

from __future__ import annotations

import http.client
import io
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature._spec.status import REASONS

token = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12).map(
    lambda text: text.encode()
)
value = st.binary(max_size=30).map(lambda data: bytes(byte for byte in data if byte >= 0x20 and byte != 0x7F).strip())
known = st.sampled_from(
    [
        (b"server", b"mine"),
        (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (b"connection", b"close"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"content-type", b"text/html"),
        (b"set-cookie", b"a=b"),
        (b"dat", b"1"),
        (b"servers", b"2"),
        (b"x-connection", b"3"),
    ]
)
fields = st.none() | st.lists(known | st.tuples(token, value), max_size=8)


def settle() -> None:
    """Begin early enough in a second that two heads get the same Date."""
    if time.time() % 1 > 0.9:
        time.sleep(0.11)


@given(
    st.integers(100, 999) | st.sampled_from(sorted(REASONS)),
    fields,
    st.none() | value,
    st.integers(-3, 2**63 - 1) | st.sampled_from([0, 9, 10, 2**31, 2**32]),
    st.integers(0, 2),
    st.sampled_from([(b"armature", True), (None, True), (b"x", False), (None, False)]),
)
@settings(max_examples=400, deadline=None)
def test_heads_are_equal(
    both: Any, status: int, given_fields: Any, content_type: Any, length: int, connection: int, options: Any
) -> None:
    settle()
    heads = [room.writer.Writer(*options).head(status, given_fields, content_type, length, connection) for room in both]
    assert heads[0] == heads[1]


@given(st.integers(200, 599), fields, st.none() | st.just(b"text/plain"), st.integers(0, 50), st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_a_head_is_read_again_by_http_client(
    impl: Any, status: int, given_fields: Any, content_type: Any, length: int, connection: int
) -> None:
    head = impl.writer.Writer().head(status, given_fields, content_type, length, connection)

    class Sock:
        def makefile(self, *_: Any) -> io.BytesIO:
            return io.BytesIO(head + b"x" * length)

    response = http.client.HTTPResponse(Sock())  # type: ignore[arg-type]
    response.begin()
    assert response.status == status
    assert response.reason == REASONS.get(status, "")
    headers = [(name.lower().encode(), text.encode("latin-1")) for name, text in response.getheaders()]
    own = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length"}
    sent = [(name, text) for name, text in given_fields or () if name not in own]
    names = {name for name, _ in sent}
    expected = [] if b"server" in names else [(b"server", b"armature")]
    if b"date" not in names:
        stamp = dict(headers)[b"date"]
        assert abs(parsedate_to_datetime(stamp.decode()).timestamp() - time.time()) < 3
        expected.append((b"date", stamp))
    if content_type is not None:
        expected.append((b"content-type", content_type))
    expected.append((b"content-length", b"%d" % length))
    expected += sent
    expected += [[], [(b"connection", b"close")], [(b"connection", b"keep-alive")]][connection]
    assert headers == expected
    if status not in (204, 304):
        assert response.read() == b"x" * length


@given(st.binary(max_size=5000))
@settings(max_examples=100, deadline=None)
def test_chunks_are_equal_and_read_again(both: Any, data: bytes) -> None:
    chunks = [room.writer.chunk(data) for room in both]
    assert chunks[0] == chunks[1]
    for room in both:
        parser = room.chunked.ChunkedParser()
        wire = chunks[0] + (room.writer.chunk(b"") if data else b"")
        assert parser.parse(wire) == (len(wire), [data] if data else [])
        assert parser.done


def test_the_date_changes_with_the_second(impl: Any) -> None:
    writer = impl.writer.Writer(None)
    first = writer.head(200, None, None, 0)
    deadline = time.monotonic() + 5
    while writer.head(200, None, None, 0) == first:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("status", [-1, 0, 99, 1000, 2**31, 2**64])
def test_a_status_out_of_range(impl: Any, status: int) -> None:
    with pytest.raises(IndexError, match="^tuple index out of range$"):
        impl.writer.Writer().head(status, None, None, 0)


@pytest.mark.parametrize("connection", [-1, 3, 2**40])
def test_a_connection_out_of_range(impl: Any, connection: int) -> None:
    with pytest.raises(IndexError, match="^tuple index out of range$"):
        impl.writer.Writer().head(200, None, None, 0, connection)


@pytest.mark.parametrize(
    "pair",
    [
        ("a", b"b"),
        (b"a", "b"),
        (b"a", None),
        None,
        (b"a",),
        (b"a", b"b", b"c"),
        [b"a", b"b"],
        (bytearray(b"a"), b"b"),
        b"ab",
    ],
)
def test_fields_that_are_no_pairs_of_bytes(impl: Any, pair: Any) -> None:
    writer = impl.writer.Writer()
    with pytest.raises(TypeError, match=r"^the fields of a response must be pairs of bytes; use response\.headers$"):
        writer.head(200, [(b"x", b"y"), pair], None, 0)
    assert writer.head(200, [(b"x", b"y")], None, 0).endswith(b"x: y\r\n\r\n")


@pytest.mark.parametrize("wrong", [None, "x", bytearray(b"x"), memoryview(b"x"), 5])
def test_only_bytes_make_a_chunk(impl: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^Expected bytes, got {type(wrong).__name__}$"):
        impl.writer.chunk(wrong)


def test_a_long_server_field(impl: Any) -> None:
    name = b"s" * 256
    assert b"server: " + name + b"\r\n" in impl.writer.Writer(name).head(200, None, None, 0)
    with pytest.raises(ValueError, match="^the Server field may be 256 bytes long, not 257$"):
        impl.writer.Writer(b"s" * 257)


@pytest.mark.parametrize("server", [b"a\r\nb: c", b"a\nb", b"\x00", b"\x7f"])
def test_a_server_field_cannot_break_out(impl: Any, server: bytes) -> None:
    with pytest.raises(ValueError, match="control character"):
        impl.writer.Writer(server)


def test_constants(impl: Any) -> None:
    assert (impl.writer.NO_LENGTH, impl.writer.CHUNKED, impl.writer.FROM_FIELDS) == (-1, -2, -3)
