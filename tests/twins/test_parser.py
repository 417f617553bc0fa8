"""The parser twins: equal on every byte and every cut, and beside them httptools."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from armature.exceptions import ProtocolError
from twins import messages

HEAD_ATTRIBUTES = (
    "method",
    "method_id",
    "raw_path",
    "query_string",
    "minor",
    "headers",
    "content_length",
    "chunked",
    "keep_alive",
    "expect_continue",
    "upgrade",
)


def describe(parser: Any) -> dict[str, Any]:
    return {name: getattr(parser, name) for name in HEAD_ATTRIBUTES}


def parse_head(parser: Any, data: bytes, cuts: list[int], start: int = 0) -> tuple[Any, ...]:
    """Give the parser ever more of `data`, as a connection does; tell what came of it."""
    for cut in [*cuts, len(data)]:
        try:
            end = parser.parse(data[:cut], start)
        except ProtocolError as error:
            return "refused", error.status, error.message
        if end >= 0:
            return "head", end - start, describe(parser)
    return ("more",)


def parse_chunked(parser: Any, data: bytes, cuts: list[int]) -> tuple[Any, ...]:
    body = bytearray()
    at = 0
    for cut in [*cuts, len(data)]:
        try:
            end, pieces = parser.parse(data[at:cut])
        except ProtocolError as error:
            return "refused", error.status, error.message
        body += b"".join(pieces)
        if parser.done:
            return "body", at + end, bytes(body), parser.trailers
        assert end == cut - at
        at = cut
    return "more", bytes(body)


def with_cuts(source: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, list[int]]]:
    return messages.mutated(source).flatmap(lambda data: st.tuples(st.just(data), messages.cuts(data)))


SMALL = {"line_limit": 40, "head_limit": 160, "count_limit": 4}


@given(with_cuts(messages.head), st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_head_means_the_same_however_it_is_cut(impl: Any, given_data: tuple[bytes, list[int]], small: bool) -> None:
    data, cuts = given_data
    limits = SMALL if small else {}
    whole = parse_head(impl.parser.HeadParser(**limits), data, [])
    assert parse_head(impl.parser.HeadParser(**limits), data, cuts) == whole
    # From the middle of a buffer, and with a parser that was used before.
    parser = impl.parser.HeadParser(**limits)
    parse_head(
        parser,
        b"\r\nPOST http://h/p?q HTTP/1.0\r\nHost: y\r\nUpgrade: a\r\nConnection: close\r\n" + b"A: b\r\n" * 20,
        [],
    )
    parser.reset()
    assert parse_head(parser, b"G" * 7 + data, [7 + cut for cut in cuts], 7) == whole


@given(with_cuts(messages.head), st.booleans())
@settings(max_examples=800, deadline=None)
def test_heads_are_equal(both: Any, given_data: tuple[bytes, list[int]], small: bool) -> None:
    data, cuts = given_data
    limits = SMALL if small else {}
    py, c = both.py.parser.HeadParser(**limits), both.c.parser.HeadParser(**limits)
    assert parse_head(py, data, cuts) == parse_head(c, data, cuts)
    py.reset()
    c.reset()
    assert describe(py) == describe(c)


@given(with_cuts(messages.chunked_body), st.booleans())
@settings(max_examples=400, deadline=None)
@example((b"0\r\nA: b\r\n\r\n", [9]), True)
@example((b"0\r\n1234: 7890123456\r\n\r\n", list(range(1, 23))), True)
@example((b"1\r\nx\rx\n", [5]), False)
@example((b"1\r\nxx\n", [5]), False)
@example((b"x" * 50 + b"\n", [45]), True)
def test_a_chunked_body_means_the_same_however_it_is_cut(
    impl: Any, given_data: tuple[bytes, list[int]], small: bool
) -> None:
    data, cuts = given_data
    limits = {"extension_limit": 8, "trailer_limit": 20} if small else {}
    whole = parse_chunked(impl.chunked.ChunkedParser(**limits), data, [])
    assert parse_chunked(impl.chunked.ChunkedParser(**limits), data, cuts) == whole


@given(with_cuts(messages.chunked_body), st.booleans())
@settings(max_examples=800, deadline=None)
def test_chunked_bodies_are_equal(both: Any, given_data: tuple[bytes, list[int]], small: bool) -> None:
    data, cuts = given_data
    limits = {"extension_limit": 8, "trailer_limit": 20} if small else {}
    outcomes = []
    for room in both:
        parser = room.chunked.ChunkedParser(**limits)
        first = parse_chunked(parser, data, cuts)
        parser.reset()
        outcomes.append((first, parser.done, parser.trailers, parse_chunked(parser, b"1\r\nx\r\n0\r\n\r\n", [])))
    assert outcomes[0] == outcomes[1]


@given(st.binary(max_size=40), st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_pieces_of_a_chunked_body_are_equal(both: Any, first: bytes, second: bytes) -> None:
    """Not only the joined body: the pieces themselves, and where the parser stops."""
    data = b"%x\r\n%b\r\n" % (len(first), first) if first else b""
    data += b"%x;e=f\r\n%b\r\n0\r\nT: v\r\n\r\nGET" % (len(second), second) if second else b"0\r\n\r\nGET"
    results = [room.chunked.ChunkedParser().parse(data, 0) for room in both]
    assert results[0] == results[1]
    assert type(results[1]) is tuple
    assert data[results[0][0] :] == b"GET"


# ------------------------------------------------------------------------------------------------ the third oracle


class Oracle:
    """What httptools makes of a stream."""

    def __init__(self, data: bytes) -> None:
        self.messages: list[list[Any]] = []
        self.parser = httptools.HttpRequestParser(self)
        self.failed = False
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.failed = True

    def on_message_begin(self) -> None:
        self.url, self.headers, self.body, self.trailers = b"", [], b"", False
        self.head: Any = None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.head = (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version(),
            self.headers,
            self.parser.should_keep_alive(),
        )

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages.append([*self.head, self.body])


def read_messages(room: Any, data: bytes) -> tuple[list[list[Any]], bool]:
    """What our parsers make of a stream: messages, and whether they accepted all of it."""
    found = []
    at = 0
    while at < len(data):
        head = room.parser.HeadParser()
        try:
            end = head.parse(data, at)
            if end < 0:
                return found, True
            if head.method == "CONNECT" or head.upgrade:
                return found, False
            if head.chunked:
                chunks = room.chunked.ChunkedParser()
                at, pieces = chunks.parse(data, end)
                if not chunks.done:
                    return found, True
                body = b"".join(pieces)
            else:
                length = max(head.content_length, 0)
                if len(data) - end < length:
                    return found, True
                body = data[end : end + length]
                at = end + length
        except ProtocolError:
            return found, False
        target = head.raw_path + (b"?" + head.query_string if head.query_string else b"")
        found.append([head.method.encode(), target, f"1.{head.minor}", head.headers, head.keep_alive, body])
        if not head.keep_alive:
            return found, True
    return found, True


def same(ours: list[list[Any]], theirs: list[list[Any]]) -> bool:
    """Compare messages; of a target in absolute form, which we take apart, only the rest."""
    for mine, other in zip(ours, theirs, strict=True):
        target = other[1].partition(b"#")[0]
        mine, other = list(mine), list(other)
        if target.startswith(b"/"):
            path, _, query = target.partition(b"?")
            other[1] = path + b"?" + query if query else path
        else:
            mine[1] = other[1] = mine[3] = other[3] = None
        if mine != other:
            return False
    return True


@given(st.lists(messages.right_request(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_right_requests_are_read_as_httptools_reads_them(impl: Any, requests: list[bytes]) -> None:
    data = b"".join(requests)
    oracle = Oracle(data)
    found, accepted = read_messages(impl, data)
    assert accepted
    assert not oracle.failed
    assert len(found) == len(requests)
    assert same(found, oracle.messages), (found, oracle.messages)


@given(
    messages.mutated(
        st.builds(
            lambda heads, body: b"".join(heads) + body,
            st.lists(messages.head | messages.right_request(), min_size=1, max_size=2),
            st.sampled_from([b""]) | messages.chunked_body,
        )
    )
)
@settings(max_examples=600, deadline=None)
def test_what_both_accept_both_read_alike(impl: Any, data: bytes) -> None:
    """A message that we and httptools accept has one meaning and one end: a difference here is a way to smuggle."""
    oracle = Oracle(data)
    found, accepted = read_messages(impl, data)
    common = min(len(found), len(oracle.messages))
    if not oracle.failed and accepted:
        assert len(found) <= len(oracle.messages) or not found[-1][5]
    assert same(found[:common], oracle.messages[:common]), (found, oracle.messages)


# ---------------------------------------------------------------------------------------------- arguments and types


def make(impl: Any, name: str) -> Any:
    module, _, cls = name.partition(".")
    return getattr(getattr(impl, module), cls)()


@pytest.mark.parametrize(
    "wrong", [None, "GET", bytearray(b"GET"), memoryview(b"GET"), 5, [b"GET"], type("B", (bytes,), {})(b"G")]
)
@pytest.mark.parametrize("name", ["parser.HeadParser", "chunked.ChunkedParser"])
def test_only_bytes_are_parsed(impl: Any, name: str, wrong: Any) -> None:
    parser = make(impl, name)
    with pytest.raises(TypeError, match=f"^Expected bytes, got {type(wrong).__name__}$"):
        parser.parse(wrong)


@pytest.mark.parametrize("start", [-1, 4, 2**31, 2**70, -(2**70)])
@pytest.mark.parametrize("name", ["parser.HeadParser", "chunked.ChunkedParser"])
def test_the_start_must_be_within_the_data(impl: Any, name: str, start: int) -> None:
    with pytest.raises(ValueError, match=f"^start {start} is outside of the data$"):
        make(impl, name).parse(b"GET", start)


@pytest.mark.parametrize("name", ["parser.HeadParser", "chunked.ChunkedParser"])
def test_keyword_names_and_end_of_data(impl: Any, name: str) -> None:
    assert make(impl, name).parse(data=b"GET", start=3) in (-1, (3, []))


def test_known_names_are_one_object(impl: Any) -> None:
    """HOT-09: a known field name is the same object for every request."""
    heads = [
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Type: a\r\nX-Unknown: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHOST: h\r\ncontent-type: a\r\n\r\n",
    ]
    found = []
    for data in heads:
        parser = impl.parser.HeadParser()
        parser.parse(data)
        found.append(parser.headers)
    assert found[0][0][0] is found[1][0][0]
    assert found[0][1][0] is found[1][1][0]
    assert [name for name, _ in found[0]] == [b"host", b"content-type", b"x-unknown"]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 31, 33, 127])
def test_any_number_of_fields_in_order(impl: Any, count: int) -> None:
    """HOT-10: the 16 inline places overflow to the heap; repeats are kept in order."""
    fields = [(b"x-%d" % (number % 5), b"v%d" % number) for number in range(count)]
    data = b"GET / HTTP/1.1\r\nhost: h\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in fields) + b"\r\n"
    parser = impl.parser.HeadParser()
    for _ in range(3):
        assert parser.parse(data) == len(data)
        assert parser.headers == [(b"host", b"h"), *fields]
        parser.reset()


def test_every_spelling_of_every_known_name(both: Any) -> None:
    from armature._spec.fields import FIELDS

    for name in FIELDS:
        for spelled in (name, name.title(), name.upper(), name.swapcase()):
            line = f"{spelled}: 1\r\n".encode()
            data = b"GET / HTTP/1.1\r\n" + line + b"\r\n"
            assert parse_head(both.py.parser.HeadParser(), data, []) == parse_head(both.c.parser.HeadParser(), data, [])


def test_every_byte_in_every_place(both: Any) -> None:
    """Each of the 256 bytes in the method, target, version, name, value, Host, chunk size, extension and trailer."""
    templates = [
        b"G%bT / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.%b\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1%b\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n%bHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost%b: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo%bt: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h%b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:%b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: %b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: %bx%b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: 0123456789abcde%bf\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1%b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %b1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked%b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: %bchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer%bEncoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: clos%b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep%balive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 100%bcontinue\r\n\r\n",
        b"CONNECT h%b:1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h%b/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET htt%b://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
    bodies = [
        b"%b\r\n",
        b"1%b\r\nx\r\n0\r\n\r\n",
        b"1;%b\r\nx\r\n",
        b"1;a=%b\r\nx\r\n",
        b'1;a="%b"\r\nx\r\n',
        b'1;a="\\%b"\r\nx\r\n',
    ]
    bodies += [b"1\r\nx%b\r\n", b"0\r\n%b: x\r\n\r\n", b"0\r\na: x%by\r\n\r\n", b"0\r\n%b\r\n"]
    for byte in range(256):
        one = bytes([byte])
        for template in templates:
            data = template.replace(b"%b", one)
            assert parse_head(both.py.parser.HeadParser(), data, []) == parse_head(
                both.c.parser.HeadParser(), data, []
            ), data
        for template in bodies:
            data = template.replace(b"%b", one)
            outcome = parse_chunked(both.py.chunked.ChunkedParser(), data, [])
            assert outcome == parse_chunked(both.c.chunked.ChunkedParser(), data, []), data


LIMITED = [
    ("line_limit", b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n", 414),
    ("head_limit", b"GET / HTTP/1.1\r\nHost: h\r\nA: %b\r\n\r\n", 431),
]


@pytest.mark.parametrize(("limit", "template", "status"), LIMITED)
def test_limits_hold_to_the_byte(impl: Any, limit: str, template: bytes, status: int) -> None:
    for extra in range(8):
        data = template.replace(b"%b", b"x" * extra)
        line = data.index(b"\r\n") + 1
        measured = line if limit == "line_limit" else len(data)
        for bound in range(measured - 2, measured + 3):
            for cuts in ([], list(range(1, len(data)))):
                outcome = parse_head(impl.parser.HeadParser(**{limit: bound}), data, cuts)
                assert outcome[:2] == (("head", len(data)) if measured <= bound else ("refused", status)), (
                    extra,
                    bound,
                    cuts,
                )


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 128])
def test_field_limit(impl: Any, count: int) -> None:
    head = b"GET / HTTP/1.0\r\n"
    assert parse_head(impl.parser.HeadParser(count_limit=count), head + b"a: b\r\n" * count + b"\r\n", [])[0] == "head"
    outcome = parse_head(impl.parser.HeadParser(count_limit=count), head + b"a: b\r\n" * (count + 1) + b"\r\n", [])
    assert outcome[:2] == ("refused", 431)
