"""The message twins: what is refused in a header, and how requests and responses behave as objects."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

#: Everything with which a value could end its line, or a name its name (CWE-113).
INJECTIONS = [
    "a\r\nb: c",
    "a\rb",
    "a\nb",
    "\r\n",
    "a\x00b",
    "\x00",
    "a\x0bb",
    "a\x0cb",
    "a\x1b[0m",
    "\x7f",
    "\x01",
    "a\r\n b",
]
INNOCENT = ["", " ", "\t", "a b\tc", "\xe9", "\u20ac", "\U0001f600", "\x80", "\x85", "\u2028", "\u0130", "a" * 5000]


class Text(str):
    __slots__ = ()


class Octets(bytes):
    pass


def outcome(call: Any, *arguments: Any, **options: Any) -> Any:
    try:
        value = call(*arguments, **options)
    except Exception as error:
        # How many values there were to unpack is told by the interpreter and by Cython in words of their own.
        return type(error), "" if "unpack" in str(error) else str(error)
    return value


# ---------------------------------------------------------------------------------------------------------- check_field


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_cannot_end_its_line(impl: Any, value: str) -> None:
    for form in (value, value.encode("latin-1"), Text(value)):
        with pytest.raises(
            ValueError, match="^invalid value for header X-Name: it holds a control character such as CR, LF or NUL$"
        ):
            impl.message.check_field("X-Name", form)
        with pytest.raises(ValueError):
            impl.message.Response(b"", 200, [("X-Name", form)])
        with pytest.raises(ValueError):
            impl.message.Response(b"", 200, {"X-Name": form})
    with pytest.raises(ValueError):
        impl.message.Response(b"", 200, None, value)
    with pytest.raises(ValueError):
        impl.message.Response.text("", 200, {"x": value})


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":", "a\r\n", "a\x00", "\xe9", "a\u0131", "\udc80", "a(b)", '"a"', "a\t", "\u212a"]
)
def test_a_name_is_a_token(impl: Any, name: str) -> None:
    with pytest.raises(ValueError) as caught:
        impl.message.check_field(name, "value")
    assert str(caught.value) == f"invalid header name {name!r}: a name is made of letters, digits and !#$%&'*+-.^_`|~"


@pytest.mark.parametrize("value", INNOCENT)
def test_innocent_values(impl: Any, value: str) -> None:
    name, raw = impl.message.check_field("X-Name", value)
    assert (type(name), type(raw)) == (bytes, bytes)
    assert raw.decode("latin-1" if all(char < "\u0100" for char in value) else "utf-8") == value


def test_lone_surrogates(impl: Any) -> None:
    for value in ("\ud800", "a\udfffb", "\udc80"):
        with pytest.raises(ValueError, match="^invalid value for header x: it holds a lone surrogate$"):
            impl.message.check_field("x", value)
    with pytest.raises(UnicodeEncodeError):
        impl.message.Response("\ud800")


@pytest.mark.parametrize("wrong", [None, 5, True, bytearray(b"x"), memoryview(b"x"), ["x"], object])
def test_other_types_are_refused(impl: Any, wrong: Any) -> None:
    kind = type(wrong).__name__
    assert outcome(impl.message.check_field, wrong, "x") == (
        TypeError,
        f"a header name must be str or bytes, not {kind}",
    )
    assert outcome(impl.message.check_field, "X", wrong) == (
        TypeError,
        f"the value of header X must be str or bytes, not {kind}",
    )


any_text = st.text(st.characters(), max_size=12) | st.text(st.characters(max_codepoint=255), max_size=12)
anything = (
    any_text
    | st.binary(max_size=12)
    | any_text.map(Text)
    | st.binary(max_size=12).map(Octets)
    | st.none()
    | st.integers()
)


@given(anything, anything)
@settings(max_examples=600, deadline=None)
@example(Octets(b"Name"), Octets(b"value"))
def test_check_field_is_equal(both: Any, name: Any, value: Any) -> None:
    results = [outcome(room.message.check_field, name, value) for room in both]
    assert results[0] == results[1]
    if isinstance(results[0][0], bytes):
        assert [type(part) for part in results[0]] == [type(part) for part in results[1]] == [bytes, bytes]


# ------------------------------------------------------------------------------------------------------------- Response


def show(response: Any) -> Any:
    if not hasattr(response, "fields"):
        return response
    return (
        response.status,
        response.body,
        type(response.body),
        response.stream,
        response._content_type,
        response.fields(),
    )


bodies = st.one_of(
    st.binary(max_size=20),
    any_text,
    st.binary(max_size=20).map(bytearray),
    st.binary(max_size=20).map(memoryview),
    st.binary(max_size=20).map(Octets),
    any_text.map(Text),
    st.sampled_from([None, 5, [], object, {"a": 1}, 1.5]),
)
statuses = st.one_of(
    st.integers(200, 599),
    st.sampled_from([0, 100, 199, 600, 999, -1, 2**31, 2**63, 2**200, True, False, None, "200", 200.0, b"200"]),
)
header_sets = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["X-A", "x-a", "Content-Type", "content-type", "Set-Cookie"]),
        st.sampled_from(["1", "text/x"]),
        max_size=3,
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["X-A", "Content-Type", b"B", "bad name", ""]), st.sampled_from(["1", b"2", "\r", None])
        ),
        max_size=3,
    ),
    st.sampled_from([5, "text", [("a",)], [("a", "b", "c")], [5], {"a": None}]),
)
content_types = st.sampled_from(
    [None, "text/html", "", "text/html\r\n", b"text/html", 5, "\u20ac", Text("text/html"), [], {}]
)


@given(bodies, statuses, header_sets, content_types)
@settings(max_examples=800, deadline=None)
def test_responses_are_equal(both: Any, body: Any, status: Any, headers: Any, content_type: Any) -> None:
    results = [show(outcome(room.message.Response, body, status, headers, content_type)) for room in both]
    assert results[0] == results[1]


@given(bodies, statuses)
@settings(max_examples=200, deadline=None)
def test_assignment_is_checked_alike(both: Any, body: Any, status: Any) -> None:
    results = []
    for room in both:
        response = room.message.Response(b"before", 201)
        results.append(
            (outcome(setattr, response, "body", body), outcome(setattr, response, "status", status), show(response))
        )
    assert results[0] == results[1]


def test_a_response_is_never_half_changed(impl: Any) -> None:
    response = impl.message.Response(b"before", 201)
    with pytest.raises(TypeError):
        response.body = 5
    with pytest.raises(ValueError):
        response.status = 99
    with pytest.raises(TypeError):
        response.status = "200"
    assert (response.body, response.status) == (b"before", 201)


def test_content_type_stands_once(impl: Any) -> None:
    Response = impl.message.Response
    response = Response("text", headers=[("X-A", "1"), ("Content-Type", "text/html"), ("content-type", "text/css")])
    assert response.fields() == [(b"x-a", b"1"), (b"content-type", b"text/css")]
    response = Response("text")
    assert response._content_type == b"text/plain; charset=utf-8"
    assert response.fields() == [(b"content-type", b"text/plain; charset=utf-8")]
    assert response._content_type is None
    assert response.fields() is response.fields()
    assert Response(b"octets").fields() == []


def test_a_mutable_body_is_copied(impl: Any) -> None:
    source = bytearray(b"abc")
    response, other = impl.message.Response(source), impl.message.Response(memoryview(source))
    source[:] = b"xyz"
    assert (response.body, other.body) == (b"abc", b"abc")


def test_memoryviews_of_other_shapes(impl: Any) -> None:
    import array

    view = memoryview(array.array("H", [1, 2, 3]))
    assert impl.message.Response(view).body == bytes(view)
    assert impl.message.Response(memoryview(b"abcdef")[::2]).body == b"ace"


@pytest.fixture
def json_as_repr(impl: Any) -> Iterator[None]:
    # One of the rooms is the one that the rest of the suite runs on.
    from armature.http.json import dumps

    impl.message.set_json_encoder(lambda value: repr(value).encode())
    yield
    impl.message.set_json_encoder(dumps)


@pytest.mark.usefixtures("json_as_repr")
def test_json(impl: Any) -> None:
    response = impl.message.Response.json({"a": 1}, 201, {"x": "y"})
    assert (response.status, response.body) == (201, b"{'a': 1}")
    assert response.fields() == [(b"content-type", b"application/json"), (b"x", b"y")]
    with pytest.raises(ValueError):
        impl.message.Response.json(None, content_type="a\nb")

    class Own(impl.message.Response):  # type: ignore[misc, name-defined]
        __slots__ = ()

    assert type(Own.json(None)) is Own
    assert type(Own.text("x")) is Own
    assert Own.text("x").body == b"x"


def test_responses_are_copied_and_pickled(impl: Any) -> None:
    response = impl.message.Response(b"body", 404, {"a": "b"}, "text/html")
    for copied in (pickle.loads(pickle.dumps(response)), copy.copy(response), copy.deepcopy(response)):
        assert show(copied) == show(response)
        copied.fields().append((b"c", b"d"))
        assert response.fields() == [(b"content-type", b"text/html"), (b"a", b"b")]
    response.stream = iter(())
    with pytest.raises(TypeError, match="^a streamed response cannot be pickled or copied$"):
        pickle.dumps(response)


# -------------------------------------------------------------------------------------------------------------- Request


def test_requests_are_not_copied(impl: Any) -> None:
    request = impl.message.Request(None, "GET", b"/")
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="^a request cannot be pickled or copied: it belongs to its connection$"):
            call(request)


class Carrier:
    app, scheme, client, server = "the app", "https", ("1.2.3.4", 5), None


def test_attributes_of_a_request(impl: Any) -> None:
    headers = [(b"host", b"h"), (b"a", b"1"), (b"a", b"2")]
    request = impl.message.Request(Carrier, "POST", b"/a%20%FFb", b"c=d", headers, "1.0", b"body", "receiver")
    assert (request.method, request.raw_path, request.query_string) == ("POST", b"/a%20%FFb", b"c=d")
    assert (request.http_version, request.body_bytes, request.receiver) == ("1.0", b"body", "receiver")
    assert request.path == "/a \ufffdb"
    assert request.raw_headers is headers
    assert (request.header(b"a"), request.header(b"A"), request.header(b"b")) == (b"1", None, None)
    assert (request.app, request.scheme, request.client, request.server) == ("the app", "https", ("1.2.3.4", 5), None)
    assert (request.params, request.endpoint, request._state, request._view) == ({}, None, None, None)
    request.bind(("x", "y"), ("1", "2"))
    assert request.params == {"x": "1", "y": "2"}
    assert request.params is not request.params
    assert request.param("y") == "2"
    assert outcome(request.param, "z") == (KeyError, "'z'")
    assert outcome(request.param, 5) == (KeyError, "5")


@pytest.mark.parametrize(
    "name",
    [
        "method",
        "raw_path",
        "query_string",
        "http_version",
        "body_bytes",
        "receiver",
        "endpoint",
        "connection",
        "_state",
        "_view",
    ],
)
def test_attributes_that_may_be_assigned(impl: Any, name: str) -> None:
    request = impl.message.Request(None, "GET", b"/")
    for value in (None, "other", b"other", 5):
        setattr(request, name, value)
        assert getattr(request, name) == value


@pytest.mark.parametrize("name", ["raw_headers", "path", "params", "app", "scheme", "client", "server"])
def test_attributes_that_may_not_be_assigned(impl: Any, name: str) -> None:
    request = impl.message.Request(Carrier, "GET", b"/")
    with pytest.raises(AttributeError):
        setattr(request, name, 1)


@pytest.mark.parametrize(
    "name",
    [b"host", "host", bytearray(b"host"), memoryview(b"host"), Octets(b"host"), None, 5, b"", b"HOST", b"h\xd6st"],
)
def test_what_is_asked_for_as_a_header(both: Any, name: Any) -> None:
    results = [room.message.Request(None, "GET", b"/", b"", [(b"host", b"h")]).header(name) for room in both]
    assert results[0] == results[1]


@given(st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_paths_are_decoded_alike(both: Any, raw: bytes) -> None:
    paths = [room.message.Request(None, "GET", raw).path for room in both]
    assert paths[0] == paths[1]


def test_parameters_that_do_not_fit_their_names(both: Any) -> None:
    for names, values in ((("a",), ()), ((), ("x",)), (("a", "b"), ("x",))):
        results = []
        for room in both:
            request = room.message.Request(None, "GET", b"/")
            request.bind(names, values)
            results.append(outcome(lambda request=request: request.params)[0])
        assert results[0] is results[1] is ValueError


def test_arguments_by_name(impl: Any) -> None:
    request = impl.message.Request(
        connection=1,
        method="M",
        raw_path=b"p",
        query_string=b"q",
        raw_headers=None,
        http_version="2",
        body=None,
        receiver=2,
    )
    assert (request.connection, request.method, request.raw_headers, request.body_bytes) == (1, "M", [], None)
    with pytest.raises(TypeError):
        impl.message.Request(None, "GET")
    with pytest.raises(TypeError):
        impl.message.Request(None, "GET", b"/", wrong=1)
