"""Headers: case-insensitive, multi-value, and closed to injection."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.http import Headers, HttpResponse, MutableHeaders

#: Everything that could end a field line, or hide behind an encoding that ends one (response splitting).
INJECTIONS = [
    "a\r\nset-cookie: x=1",
    "a\nset-cookie: x=1",
    "a\rset-cookie: x=1",
    "a\r\n\r\n<script>",
    "\r\n",
    "\n",
    "\r",
    "a\0b",
    "\x0b",
    "\x0c",
    "\x1b[2J",
    "\x7f",
    "trailing\r",
    "trailing\n",
    "\nleading",
    "a\r\n folded",
]
#: Characters whose low byte, or whose normal form, is a line end: they must be encoded or refused, never cut down.
DISGUISED = ["\u010a", "\u010d", "\u2028", "\u2029", "\x85", "\uff0a", "嘊嘍"]
BAD_NAMES = ["", " ", "a b", "a:", "a\r\n", "a\n", "a\0", "é", "a(", "a,", 'a"', "\u017f", "\u212a", "\u010a"]


def mutable() -> MutableHeaders:
    return HttpResponse().headers


@pytest.mark.parametrize("value", INJECTIONS)
def test_every_write_refuses_a_value_that_ends_the_line(value: str) -> None:
    headers = mutable()
    writes: list[Any] = [
        lambda: headers.__setitem__("x-a", value),
        lambda: headers.add("x-a", value),
        lambda: headers.append("x-a", value),
        lambda: headers.setdefault("x-a", value),
        lambda: headers.update({"x-a": value}),
        lambda: headers.add_vary(value + "x"),
        lambda: Headers({"x-a": value}),
        lambda: HttpResponse(headers={"x-a": value}),
        lambda: HttpResponse(headers=[("x-a", value)]),
        lambda: HttpResponse(content_type=value),
        lambda: HttpResponse.json({}, headers={"x-a": value}),
        lambda: HttpResponse.redirect("/" + value),
        lambda: HttpResponse.created(location="/" + value),
        lambda: HttpResponse().set_cookie("a", value),
        lambda: HttpResponse().set_cookie("a", path="/" + value),
        lambda: HttpResponse().set_cookie("a", domain=value),
        lambda: HttpResponse().set_cookie("a", expires=value),
        lambda: HttpResponse().set_cookie("a" + value),
        lambda: HttpResponse().with_etag(value),
        lambda: HttpResponse.unauthorized(challenge=value),
        lambda: HttpResponse.method_not_allowed([value]),
        lambda: HttpResponse.file("x", filename=value),
        lambda: HttpResponse.file("x", content_type=value),
    ]
    response = HttpResponse()
    writes.append(lambda: setattr(response, "content_type", value))
    for write in writes:
        with pytest.raises(ValueError, match=r"control|invalid"):
            write()
    assert headers.raw == []


@pytest.mark.parametrize("value", DISGUISED)
def test_a_disguised_line_end_never_becomes_one(value: str) -> None:
    headers = mutable()
    headers["x-a"] = value
    raw = headers.raw[0][1]
    assert not set(raw) & set(b"\r\n\0")
    assert raw.decode("utf-8" if len(raw) > 1 else "latin-1") == value


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_a_token(name: str) -> None:
    headers = mutable()
    for write in (headers.add, headers.__setitem__, headers.setdefault):
        with pytest.raises(ValueError, match="invalid header name"):
            write(name, "v")
    assert name not in headers
    assert headers.get(name) is None
    assert headers.getall(name) == []


def test_a_letter_that_lowers_to_ascii_is_another_name() -> None:
    # KELVIN SIGN becomes "k" in lower case.
    assert "\u212aey" not in Headers({"key": "1"})


def test_wrong_types_are_named() -> None:
    headers: Any = mutable()
    with pytest.raises(TypeError, match="must be str or bytes, not int"):
        headers["x-a"] = 1
    with pytest.raises(TypeError, match="must be str or bytes, not int"):
        headers[1] = "a"
    assert 1 not in headers


def test_first_value_and_all_values() -> None:
    headers = Headers.from_raw([(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")])
    assert headers["Cookie"] == "a=1"
    assert headers.get("COOKIE") == "a=1"
    assert headers.getall("cookie") == headers.getlist("cookie") == ["a=1", "b=2"]
    assert headers.joined("cookie") == "a=1, b=2"
    assert headers.joined("x") is None
    assert list(headers) == ["cookie", "accept"]
    assert list(headers.keys()) == ["cookie", "accept"]
    assert list(headers.items()) == [("cookie", "a=1"), ("accept", "*/*")]
    assert headers.multi_items() == [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]
    assert len(headers) == 2
    assert "Accept" in headers
    assert "x" not in headers
    assert headers.get("x", 5) == 5
    with pytest.raises(KeyError, match="x-none"):
        headers["x-none"]


def test_immutable_headers_have_no_writes() -> None:
    headers: Any = Headers({"a": "1"})
    with pytest.raises(TypeError):
        headers["a"] = "2"
    assert not hasattr(headers, "add")


def test_headers_compare_without_order_and_case() -> None:
    assert Headers({"A": "1", "b": "2"}) == Headers([("B", "2"), ("a", "1")])
    assert Headers({"a": "1"}) != Headers({"a": "2"})
    assert Headers({"a": "1"}) != {"a": "1"}
    assert repr(Headers({"A": "1"})) == "Headers([('a', '1')])"


def test_copies_keep_repeated_lines() -> None:
    first = Headers([("set-cookie", "a=1"), ("set-cookie", "b=2")])
    assert Headers(first).multi_items() == first.multi_items()


def test_set_replaces_every_line_in_place() -> None:
    headers = mutable()
    for value in ("1", "2"):
        headers.add("x-a", value)
    headers.add("x-b", "b")
    headers.add("X-A", "3")
    headers["X-a"] = "new"
    assert headers.multi_items() == [("x-a", "new"), ("x-b", "b")]
    del headers["x-A"]
    assert headers.multi_items() == [("x-b", "b")]
    with pytest.raises(KeyError):
        del headers["x-a"]
    assert headers.setdefault("x-b", "c") == "b"
    assert headers.setdefault("x-c", "c") == "c"
    assert headers.pop("x-c") == "c"
    assert headers.pop("x-c", None) is None
    headers.update({"x-b": "d"}, x="1")
    assert dict(headers) == {"x-b": "d", "x": "1"}


def test_the_view_and_the_response_are_one() -> None:
    response = HttpResponse("a", headers={"x-a": "1"})
    view = response.headers
    assert view is response.headers
    view["x-a"] = "2"
    response.fields().append((b"x-b", b"3"))
    assert view["x-b"] == "3"
    assert (b"x-a", b"2") in response.fields()


def test_vary_is_merged() -> None:
    headers = mutable()
    headers.add_vary("Accept-Encoding", "accept")
    headers.add_vary("ACCEPT", "Origin, cookie")
    assert headers.getall("vary") == ["Accept-Encoding, accept, Origin, cookie"]
    headers.add("vary", "*")
    headers.add_vary("x")
    assert headers.getall("vary") == ["*"]
    other = mutable()
    other.add_vary()
    assert "vary" not in other


TOKENS = st.text("abcXYZ-!09", min_size=1, max_size=5)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10)


@given(st.lists(st.tuples(st.sampled_from(["set", "add", "del"]), TOKENS, VALUES), max_size=20))
def test_behaves_like_a_list_of_lines(steps: list[tuple[str, str, str]]) -> None:
    headers = mutable()
    model: list[tuple[str, str]] = []
    for step, name, value in steps:
        key = name.lower()
        if step == "add":
            headers.add(name, value)
            model.append((key, value))
        elif step == "set":
            headers[name] = value
            places = [place for place, line in enumerate(model) if line[0] == key]
            if places:
                model[places[0]] = (key, value)
                model = [line for place, line in enumerate(model) if line[0] != key or place == places[0]]
            else:
                model.append((key, value))
        else:
            headers.pop(name, None)
            model = [line for line in model if line[0] != key]
    assert headers.multi_items() == model
    assert len(headers) == len({name for name, _ in model}) == len(list(headers))


@given(st.binary(max_size=30))
def test_any_octets_of_a_request_can_be_read(value: bytes) -> None:
    headers = Headers.from_raw([(b"x", value)])
    assert headers["x"].encode("latin-1") == value
