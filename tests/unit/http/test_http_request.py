"""HttpRequest: what a handler sees, made when asked for, kept afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from armature.exceptions import ClientDisconnect, HTTPException
from armature.http import BodyReceiver, HttpRequest, State


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 10))


class Source:
    def resume_body(self) -> None:
        pass


def status_of(coroutine: Coroutine[Any, Any, Any]) -> int:
    with pytest.raises(HTTPException) as caught:
        run(coroutine)
    return caught.value.status_code


def test_a_request_has_no_dict() -> None:
    assert not hasattr(HttpRequest(None, "GET", b"/"), "__dict__")


def test_head(make_request: Any) -> None:
    request = make_request("POST", "/a%2Fb?x=1", {"Accept": "*/*", "Content-Length": "5"})
    assert (request.method, request.path, request.raw_path, request.query_string) == ("POST", "/a/b", b"/a%2Fb", b"x=1")
    assert request.headers is request.headers
    assert request.headers["ACCEPT"] == "*/*"
    assert request.content_length == 5
    assert request.client == ("127.0.0.1", 5000)
    assert request.scheme == "http"
    assert request.http_version == "1.1"
    assert repr(request) == "<HttpRequest POST /a/b>"


def test_nothing_is_shared_between_requests(make_request: Any) -> None:
    first, second = make_request(target="/?a=1", headers={"x": "1"}), make_request(target="/?a=2", headers={"x": "2"})
    first.state.user = "ada"
    assert first.query["a"] != second.query["a"]
    assert first.headers["x"] != second.headers["x"]
    assert "user" not in second.state


def test_path_parameters(make_request: Any) -> None:
    request = make_request()
    request.bind(("user_id",), ("5",))
    assert request.param("user_id") == "5"
    assert request.path_params == request.params == {"user_id": "5"}
    with pytest.raises(KeyError, match="nothing"):
        request.param("nothing")


@pytest.mark.parametrize(
    ("header", "media_type", "charset"),
    [
        ("application/json", "application/json", None),
        ("Application/JSON; Charset=UTF-8", "application/json", "UTF-8"),
        ('text/plain; charset="utf-8"', "text/plain", "utf-8"),
        ('multipart/form-data; boundary="a;b\\"c"; charset=x', "multipart/form-data", "x"),
        ("text/html;charset=a;charset=b", "text/html", "a"),
        (";charset=a", "", "a"),
        ("text/plain;;;", "text/plain", None),
        ("", "", None),
    ],
)
def test_content_type(make_request: Any, header: str, media_type: str, charset: str | None) -> None:
    request = make_request(headers={"content-type": header})
    assert request.content_type == media_type
    assert request.charset == charset


def test_absent_fields(make_request: Any) -> None:
    request = make_request()
    assert request.content_type is None
    assert request.charset is None
    assert request.content_length is None
    assert make_request(headers={"content-length": "x"}).content_length is None


def test_state_is_a_bag() -> None:
    state = State()
    state.a = 1
    state["b"] = 2
    assert (state["a"], state.b) == (1, 2)
    assert list(state) == ["a", "b"]
    assert "a" in state
    assert len(state) == 2
    assert bool(State())
    del state.a
    del state["b"]
    assert state == State()
    assert repr(state) == "State({})"
    for name in ("a", "_values_", "__html__"):
        with pytest.raises(AttributeError, match=name):
            getattr(state, name)
    with pytest.raises(AttributeError):
        del state.a
    with pytest.raises(KeyError):
        state["a"]


def test_state_copies_and_pickles() -> None:
    import copy
    import pickle

    state = State({"a": [1]})
    shallow, deep, pickled = copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))
    assert shallow == deep == pickled == state
    shallow.b = 1
    assert "b" not in state
    deep.a.append(2)
    assert state.a == [1]


def test_request_state_is_made_once(make_request: Any) -> None:
    request = make_request()
    assert request.state is request.state


def test_url_for(make_request: Any) -> None:
    class Named:
        def url_path_for(self, name: str, /, **params: Any) -> str:
            return f"/{name}/{params['id']}"

    request = make_request(headers={"host": "h.example"})
    request.connection.app = Named()
    assert request.url_for("users", id=5) == "http://h.example/users/5"


@pytest.mark.parametrize(
    ("server", "scheme", "host"),
    [
        (("127.0.0.1", 80), "http", "127.0.0.1"),
        (("::1", 8000), "http", "[::1]:8000"),
        (("127.0.0.1", 443), "https", "127.0.0.1"),
        (None, "http", ""),
    ],
)
def test_host_without_a_host_field(make_request: Any, server: Any, scheme: str, host: str) -> None:
    request = make_request()
    request.connection.server = server
    request.connection.scheme = scheme
    assert request.host == host


# ---- bodies


def test_complete_body(make_request: Any) -> None:
    async def main() -> None:
        request = make_request("POST", body=b'{"a": null}')
        assert await request.body() == b'{"a": null}'
        assert await request.text() == '{"a": null}'
        assert await request.json() == {"a": None}
        assert await request.json() is await request.json()
        assert [chunk async for chunk in request.stream()] == [b'{"a": null}']
        assert [chunk async for chunk in request.stream()] == [b'{"a": null}']
        empty = make_request("POST")
        assert await empty.body() == b""
        assert [chunk async for chunk in empty.stream()] == []

    run(main())


def test_null_is_decoded_once(make_request: Any) -> None:
    async def main() -> None:
        request = make_request("POST", body=b"null")
        assert await request.json() is None
        assert await request.json() is None

    run(main())


def test_arriving_body(make_request: Any) -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        request = make_request("POST", body=None, receiver=receiver)
        task = asyncio.ensure_future(request.json())
        await asyncio.sleep(0)
        receiver.feed_data(b'{"a"')
        receiver.feed_data(b": 1}")
        receiver.feed_eof()
        assert await task == {"a": 1}
        assert await request.body() == b'{"a": 1}'
        assert [chunk async for chunk in request.stream()] == [b'{"a": 1}']

        streamed = BodyReceiver(Source(), 100)
        request = make_request("POST", body=None, receiver=streamed)
        streamed.feed_data(b"a")
        streamed.feed_data(b"b")
        streamed.feed_eof()
        assert [chunk async for chunk in request.stream()] == [b"a", b"b"]
        with pytest.raises(RuntimeError, match="as a stream"):
            await request.body()

    run(main())


def test_disconnect_reaches_the_reader(make_request: Any) -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        request = make_request("POST", body=None, receiver=receiver)
        receiver.set_exception(ClientDisconnect())
        with pytest.raises(ClientDisconnect):
            await request.json()
        assert await request.is_disconnected() is False
        request.connection.gone = True
        assert await request.is_disconnected() is True

    run(main())


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("é".encode(), None, "é"),
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        ("é".encode("utf-16"), "UTF-16", "é"),
        ("é".encode("cp1252"), '"windows-1252"', "é"),
    ],
)
def test_text_follows_the_charset(make_request: Any, body: bytes, charset: str | None, text: str) -> None:
    header = "text/plain" + (f"; charset={charset}" if charset else "")
    assert run(make_request("POST", headers={"content-type": header}, body=body).text()) == text


@pytest.mark.parametrize(
    ("charset", "status"),
    [
        ("utf-8", 400),
        ("ascii", 400),
        ("nonsense", 415),
        ("base64", 415),
        ("zlib", 415),
        ("rot13", 415),
        ("idna", 415),
        ("punycode", 415),
        ("unicode_escape", 415),
        ("raw-unicode-escape", 415),
        ("undefined", 415),
        ("../../x", 415),
        ("x" * 5000, 415),
    ],
)
def test_text_that_is_not_in_its_charset(make_request: Any, charset: str, status: int) -> None:
    request = make_request("POST", headers={"content-type": f"text/plain; charset={charset}"}, body=b"\xff\xfe\xfd")
    assert status_of(request.text()) == status


def test_malformed_json_says_where(make_request: Any) -> None:
    with pytest.raises(HTTPException) as caught:
        run(make_request("POST", body=b'{"a":\n 1 x}').json())
    assert caught.value.status_code == 400
    assert "line 2 column 4" in caught.value.detail
    for body in (b"", b"\xff", b"[" * 100_000):
        assert status_of(make_request("POST", body=body).json()) == 400


# ---- forms

FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_form(make_request: Any) -> None:
    async def main() -> None:
        request = make_request("POST", headers=FORM, body=b"name=Ada+L&tag=a&tag=b&empty=&caf%C3%A9=1")
        form = await request.form()
        assert form is await request.form()
        assert form["name"] == "Ada L"
        assert form.getall("tag") == ["a", "b"]
        assert form["tag"] == "b"
        assert form["empty"] == ""
        assert form["café"] == "1"

    run(main())


def test_form_of_nothing(make_request: Any) -> None:
    assert dict(run(make_request("POST").form())) == {}
    assert dict(run(make_request("POST", headers=FORM).form())) == {}


def test_form_bounds(make_request: Any) -> None:
    assert status_of(make_request("POST", headers=FORM, body=b"&" * 5000).form()) == 400


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_a_body_that_is_no_form(make_request: Any, media_type: str) -> None:
    assert status_of(make_request("POST", headers={"content-type": media_type}, body=b"a=1").form()) == 415


def test_a_large_body_without_a_type_is_no_form(make_request: Any) -> None:
    assert status_of(make_request("POST", body=b"a=1").form()) == 415


def test_reading_the_views_is_cheap_after_the_first_time(make_request: Any) -> None:
    request = make_request(target="/?" + "&".join(f"k{n}={n}" for n in range(900)))
    start = time.perf_counter()
    assert request.query["k1"] == "1"
    first = time.perf_counter() - start
    start = time.perf_counter()
    assert request.query["k1"] == "1"
    assert time.perf_counter() - start < first
