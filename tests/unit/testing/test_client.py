"""TestClient speaks to an app through its real connection core, with the names that httpx's users know."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import gzip
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from armature import App, HttpRequest, HttpResponse, Router
from armature.http.url import URL
from armature.testing import (
    ClientClosed,
    ClientError,
    ConnectionClosed,
    CookieJar,
    HTTPStatusError,
    InvalidResponse,
    RequestTimeout,
    TestClient,
    TooManyRedirects,
)
from counterparts import require_module

# Requests.


def test_a_response_has_what_httpx_users_expect(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.json() == {"hello": "world"}
    assert response.text == '{"hello":"world"}'
    assert response.content == response.read() == response.raw == b'{"hello":"world"}'
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["content-length"] == "17"
    assert response.reason_phrase == "OK"
    assert response.http_version == "HTTP/1.1"
    assert response.url == "http://testserver/"
    assert isinstance(response.url, URL)
    assert response.is_success
    assert not (response.is_redirect or response.is_error or response.is_client_error or response.is_server_error)
    assert response.raise_for_status() is response
    assert response.history == []
    assert response.cookies == {}
    assert repr(response) == "<ClientResponse [200 OK]>"
    assert repr(response.request) == "<ClientRequest GET http://testserver/>"


def test_parameters_by_url_and_by_argument(client: TestClient) -> None:
    assert client.get("/items/7").json() == {"id": 7, "q": None, "tag": None}
    assert client.get("/items/7?q=a", params={"tag": ["x", "y"]}).json() == {"id": 7, "q": "a", "tag": ["x", "y"]}
    assert client.get("/items/7", params=[("q", "a&b=c d")]).json()["q"] == "a&b=c d"
    assert client.get("/echo", params="raw=1&raw=2").json()["query"] == "raw=1&raw=2"
    assert client.get("/echo", params={"t": True, "n": None, "f": 1.5}).json()["query"] == "t=true&n=&f=1.5"
    assert client.get("/items/x").status_code == 422


def test_a_url_is_encoded_where_it_must_be(client: TestClient) -> None:
    app = App()

    @app.get("/files/{name}")
    async def show(name: str) -> dict[str, str]:
        return {"name": name}

    with TestClient(app) as client:
        assert client.get("/files/a b").json() == {"name": "a b"}
        assert client.get("/files/ä%20ü").json() == {"name": "ä ü"}
        assert client.get("/files/a#fragment").json() == {"name": "a"}


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
def test_every_method(client: TestClient, method: str) -> None:
    assert getattr(client, method)("/echo").json()["method"] == method.upper()
    assert client.request(method, "/echo").json()["method"] == method.upper()


def test_head_has_the_headers_and_no_body(client: TestClient) -> None:
    response = client.head("/")
    assert response.content == b""
    assert response.headers["content-length"] == "17"
    assert client.get("/").status_code == 200


def test_a_sync_handler(client: TestClient) -> None:
    assert client.get("/sync").text == "from a thread"


def test_bodies_of_every_kind(client: TestClient) -> None:
    def sent(**options: Any) -> tuple[str, str | None]:
        echo = client.post("/echo", **options).json()
        return echo["body"], dict(map(tuple, echo["headers"])).get("content-type")

    assert sent(json={"a": [1, None]}) == ('{"a":[1,null]}', "application/json")
    assert sent(json=None) == ("null", "application/json")
    assert sent(data={"a": "1 2", "b": [3, 4]}) == ("a=1+2&b=3&b=4", "application/x-www-form-urlencoded")
    assert sent(data=[("a", "1")]) == ("a=1", "application/x-www-form-urlencoded")
    assert sent(content=b"raw") == ("raw", None)
    assert sent(content="text") == ("text", None)
    assert sent(data=b"raw") == ("raw", None)
    assert sent(content=bytearray(b"x"), headers={"content-type": "a/b"}) == ("x", "a/b")
    body, content_type = sent(files={"f": ("a.txt", b"hello")}, data={"k": "v"})
    assert "hello" in body
    assert 'name="k"' in body
    assert content_type is not None
    assert content_type.startswith("multipart/form-data; boundary=")


def test_a_body_from_an_iterator_is_sent_chunked(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one "
        yield b""
        yield b"two"

    echo = client.post("/echo", content=pieces()).json()
    assert echo["body"] == "one two"
    assert ["transfer-encoding", "chunked"] in echo["headers"]


def test_a_body_from_an_iterator_with_its_length(client: TestClient) -> None:
    echo = client.post("/echo", content=iter([b"on", b"e"]), headers={"content-length": "3"}).json()
    assert echo["body"] == "one"
    assert ["content-length", "3"] in echo["headers"]


def test_an_asynchronous_iterator_as_body(client: TestClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0)
        yield b"two"

    assert client.post("/echo", content=pieces()).json()["body"] == "one two"


def test_an_iterator_that_raises_ends_the_request_with_its_error(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise LookupError("my own")

    with pytest.raises(LookupError, match="my own"):
        client.post("/echo", content=pieces())
    assert client.get("/").status_code == 200


def test_a_large_body_goes_both_ways(client: TestClient) -> None:
    body = bytes(range(256)) * 8192
    assert client.post("/echo", content=body).json()["body"].encode("latin-1") == body


def test_one_body_only(client: TestClient) -> None:
    with pytest.raises(TypeError, match="content and json"):
        client.post("/echo", content=b"a", json=1)
    with pytest.raises(TypeError, match="json and files"):
        client.post("/echo", json=1, files={"f": b""})
    with pytest.raises(TypeError, match="mapping"):
        client.post("/echo", data=b"x", files={"f": b""})
    with pytest.raises(TypeError, match="int"):
        client.post("/echo", content=5)  # type: ignore[arg-type]


def test_expect_100_continue_waits_for_the_server(client: TestClient) -> None:
    response = client.post("/echo", content=b"big", headers={"expect": "100-continue"})
    assert response.json()["body"] == "big"
    assert response.interim == [100]


def test_headers_of_client_and_request(app: App) -> None:
    with TestClient(app, headers={"x-client": "1", "user-agent": "mine"}) as client:
        client.headers["x-later"] = "2"
        headers = client.get("/echo", headers=[("x-a", "1"), ("x-a", "2"), ("X-Client", "0")]).json()["headers"]
    pairs = [tuple(pair) for pair in headers]
    assert pairs[0] == ("host", "testserver")
    assert ("user-agent", "mine") in pairs
    assert ("x-later", "2") in pairs
    assert [value for name, value in pairs if name == "x-a"] == ["1", "2"]
    assert [value for name, value in pairs if name == "x-client"] == ["0"]


def test_a_header_that_would_split_the_head_is_refused(client: TestClient) -> None:
    with pytest.raises(ValueError, match="x-a"):
        client.get("/", headers={"x-a": "1\r\nx-b: 2"})


def test_basic_authentication(client: TestClient) -> None:
    headers = dict(client.get("/echo", auth=("ada", "pass:word")).json()["headers"])
    assert headers["authorization"] == "Basic YWRhOnBhc3M6d29yZA=="


def test_where_a_request_comes_from_and_goes_to(app: App) -> None:
    with TestClient(app, "https://shop.example:8443/echo", client=("10.0.0.1", 1234)) as client:
        echo = client.get("").json()
        assert (echo["scheme"], echo["client"], echo["server"]) == (
            "https",
            ["10.0.0.1", 1234],
            ["shop.example", 8443],
        )
        assert dict(echo["headers"])["host"] == "shop.example:8443"
        assert client.get("http://other.example/echo").json()["scheme"] == "http"
        assert dict(client.get("//third.example/echo").json()["headers"])["host"] == "third.example"
    with TestClient(app, "http://testserver/items") as client:
        assert client.get("3").json()["id"] == client.get("/3").json()["id"] == 3


@pytest.mark.parametrize("base", ["", "testserver", "ftp://x", "http://"])
def test_a_base_url_without_http_is_refused(app: App, base: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        TestClient(app, base)


def test_a_url_of_another_scheme_is_refused(client: TestClient) -> None:
    with pytest.raises(ValueError, match="ftp"):
        client.get("ftp://testserver/")


def test_options_asterisk_and_own_methods(client: TestClient) -> None:
    assert client.options("/*").status_code in (200, 204, 404)
    assert client.request("brew", "/").status_code in (405, 501)
    with pytest.raises(ValueError, match="method"):
        client.request("GE T", "/")


# Responses.


def test_raise_for_status_tells_what_was_answered(client: TestClient) -> None:
    response = client.get("/teapot")
    assert response.is_error
    assert response.is_client_error
    with pytest.raises(HTTPStatusError, match="GET http://testserver/teapot was answered with 418") as caught:
        response.raise_for_status()
    assert caught.value.response is response
    assert "short and stout" in str(caught.value)


def test_repeated_headers_are_all_there() -> None:
    app = App()

    @app.get("/")
    async def index() -> HttpResponse:
        response = HttpResponse.text("x")
        response.headers.add("x-a", "1")
        response.headers.add("x-a", "2")
        return response

    with TestClient(app) as client:
        headers = client.get("/").headers
        assert headers.getall("X-A") == ["1", "2"]
        assert headers["x-a"] == "1"


def test_content_codings_are_removed() -> None:
    app = App()
    text = b"hello " * 100

    @app.get("/{coding}")
    async def index(coding: str) -> HttpResponse:
        raw = zlib.compressobj(wbits=-15)
        body = {
            "gzip": gzip.compress(text),
            "deflate": zlib.compress(text),
            "raw": raw.compress(text) + raw.flush(),
            "broken": b"no gzip at all",
            "short": gzip.compress(text)[:-9],
            "other": b"\x00\x01",
        }[coding]
        name = {"raw": "deflate", "broken": "gzip", "short": "gzip", "other": "br"}.get(coding, coding)
        return HttpResponse(body, headers={"content-encoding": name})

    with TestClient(app) as client:
        for coding in ("gzip", "deflate", "raw"):
            response = client.get(f"/{coding}")
            assert response.content == text
            assert response.raw != text
        assert client.get("/other").content == b"\x00\x01"
        for coding in ("broken", "short"):
            with pytest.raises(InvalidResponse, match="gzip"):
                client.get(f"/{coding}")
        assert client.head("/gzip").content == b""


def test_the_charset_decides_about_text() -> None:
    app = App()

    @app.get("/")
    async def index(charset: str) -> HttpResponse:
        return HttpResponse("é".encode("latin-1"), content_type=f"text/plain; charset={charset}")

    with TestClient(app) as client:
        assert client.get("/?charset=iso-8859-1").text == "é"
        assert client.get("/?charset=unknown-8").text == "\N{REPLACEMENT CHARACTER}"


def test_json_that_is_none_raises(client: TestClient) -> None:
    with pytest.raises(json.JSONDecodeError):
        client.get("/sync").json()


# Cookies.


@pytest.fixture
def cookie_app() -> App:
    app = App()

    @app.get("/set")
    async def set_cookie() -> HttpResponse:
        response = HttpResponse.text("set")
        response.set_cookie("sid", "abc", httponly=True, samesite="strict")
        response.set_cookie("cart", "full", path="/shop")
        return response

    @app.get("/delete")
    async def delete_cookie() -> HttpResponse:
        response = HttpResponse.text("deleted")
        response.delete_cookie("sid")
        return response

    @app.get("/show")
    @app.get("/shop/show")
    async def show(req: HttpRequest) -> dict[str, str]:
        return dict(req.cookies)

    return app


def test_cookies_persist_by_path_until_they_are_deleted(cookie_app: App) -> None:
    with TestClient(cookie_app) as client:
        response = client.get("/set")
        assert response.cookies == {"sid": "abc", "cart": "full"}
        assert response.cookie("sid") == {"value": "abc", "path": "/", "httponly": "True", "samesite": "Strict"}
        with pytest.raises(KeyError):
            response.cookie("other")
        assert client.cookies["sid"] == "abc"
        assert client.get("/show").json() == {"sid": "abc"}
        assert client.get("/shop/show").json() == {"sid": "abc", "cart": "full"}
        assert client.get("http://other.example/show").json() == {}
        client.get("/delete")
        assert client.get("/show").json() == {}


def test_cookies_of_client_and_request(cookie_app: App) -> None:
    with TestClient(cookie_app, cookies={"a": "1"}) as client:
        assert client.get("/show", cookies={"b": "2"}).json() == {"a": "1", "b": "2"}
        assert client.get("/show").json() == {"a": "1"}
        client.cookies = {"c": "3"}  # type: ignore[assignment]
        assert isinstance(client.cookies, CookieJar)
        assert client.get("/show").json() == {"c": "3"}
        assert client.get("/show", headers={"cookie": "d=4"}).json() == {"d": "4"}


# Redirects.


@pytest.fixture
def redirecting() -> App:
    app = App()

    @app.api_route("/go/{status}", methods=["GET", "POST", "PUT", "HEAD"])
    async def go(status: int) -> HttpResponse:
        response = HttpResponse.redirect("../end?x=1#there", status=status)
        response.set_cookie("via", str(status))
        return response

    @app.api_route("/end", methods=["GET", "POST", "PUT", "HEAD"])
    async def end(req: HttpRequest) -> dict[str, Any]:
        names = ("authorization", "content-type", "content-length", "host", "x-kept")
        return {
            "method": req.method,
            "body": (await req.body()).decode(),
            "query": req.query_string.decode(),
            "cookies": dict(req.cookies),
            "headers": {name: value for name in names if (value := req.headers.get(name)) is not None},
        }

    @app.get("/loop")
    async def loop() -> HttpResponse:
        return HttpResponse.redirect("/loop")

    @app.get("/away")
    async def away() -> HttpResponse:
        return HttpResponse.redirect("https://other.example/end")

    @app.get("/out")
    async def out() -> HttpResponse:
        return HttpResponse.redirect("mailto:ada@example.org")

    return app


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "PUT"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
    ],
)
def test_what_a_redirect_makes_of_the_method(redirecting: App, status: int, method: str, then: str) -> None:
    with TestClient(redirecting) as client:
        content = b"" if method == "GET" else b"data"
        response = client.request(method, f"/go/{status}", content=content, headers={"x-kept": "1"})
        got = response.json()
        assert got["method"] == then
        assert got["body"] == ("data" if then == method and content else "")
        assert got["query"] == "x=1"
        assert got["cookies"] == {"via": str(status)}
        assert got["headers"]["x-kept"] == "1"
        assert response.url == "http://testserver/end?x=1"
        assert [one.status_code for one in response.history] == [status]


def test_head_stays_head(redirecting: App) -> None:
    with TestClient(redirecting) as client:
        assert client.head("/go/303").request.method == "HEAD"


def test_redirects_are_followed_only_if_wanted(redirecting: App) -> None:
    with TestClient(redirecting, follow_redirects=False) as client:
        response = client.get("/go/302")
        assert response.status_code == 302
        assert response.is_redirect
        assert response.has_redirect_location
        assert client.get("/go/302", follow_redirects=True).status_code == 200


def test_a_redirect_loop_ends(redirecting: App) -> None:
    with TestClient(redirecting) as client, pytest.raises(TooManyRedirects, match="/loop"):
        client.get("/loop")


def test_credentials_do_not_follow_to_another_origin(redirecting: App) -> None:
    with TestClient(redirecting) as client:
        headers = client.get("/away", auth=("a", "b")).json()["headers"]
        assert headers == {"host": "other.example"}
        assert "authorization" in client.get("/go/307", auth=("a", "b")).json()["headers"]


def test_a_redirect_out_of_http_is_an_error(redirecting: App) -> None:
    with TestClient(redirecting) as client, pytest.raises(ValueError, match="mailto"):
        client.get("/out")


def test_an_iterator_is_not_sent_twice(redirecting: App) -> None:
    with TestClient(redirecting) as client, pytest.raises(TypeError, match="second time"):
        client.post("/go/307", content=iter([b"x"]))


# Exceptions.


def test_what_nobody_handles_is_raised_in_the_test(client: TestClient, events: list[str]) -> None:
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        client.get("/boom")
    assert [entry.name for entry in caught.traceback][-1] == "boom"
    assert events == ["start", "boom"]
    assert client.get("/").status_code == 200


def test_or_answered_if_the_test_wants_that(app: App) -> None:
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/boom")
        assert response.status_code == 500
        assert response.is_server_error
        assert "on purpose" not in response.text


def test_an_exception_with_a_handler_is_not_raised() -> None:
    app = App()

    @app.exception_handler(LookupError)
    async def handle(request: HttpRequest, error: LookupError) -> HttpResponse:
        return HttpResponse.text("handled", status=409)

    @app.get("/")
    async def index() -> None:
        raise KeyError("x")

    with TestClient(app) as client:
        assert client.get("/").status_code == 409


def test_exceptions_of_middleware_and_threads_are_raised() -> None:
    app = App()

    @app.middleware
    async def failing(req: HttpRequest, call_next: Any) -> Any:
        if req.path == "/middleware":
            raise LookupError("in middleware")
        return await call_next(req)

    @app.get("/thread")
    def thread() -> None:
        raise BufferError("in a thread")

    @app.get("/middleware")
    async def index() -> None: ...

    with TestClient(app) as client:
        with pytest.raises(LookupError, match="in middleware"):
            client.get("/middleware")
        with pytest.raises(BufferError, match="in a thread"):
            client.get("/thread")


def test_a_timeout_of_the_app_is_not_one_of_the_client() -> None:
    app = App()

    @app.get("/")
    async def index() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    with TestClient(app) as client, pytest.raises(TimeoutError) as caught:
        client.get("/")
    assert type(caught.value) is TimeoutError


def test_a_handler_that_never_answers_times_out() -> None:
    app = App()

    @app.get("/")
    async def index() -> None:
        await asyncio.Event().wait()

    @app.get("/quick")
    async def quick() -> str:
        return "ok"

    with TestClient(app, timeout=0.05) as client:
        with pytest.raises(RequestTimeout, match=r"GET http://testserver/ was not answered within 0\.05 s"):
            client.get("/")
        assert client.get("/quick", timeout=None).text == "ok"


def test_an_error_in_a_stream_is_raised(client: TestClient) -> None:
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        client.get("/breaks")


def test_a_stream_cut_off_is_an_error_of_its_own_otherwise(app: App) -> None:
    with TestClient(app, raise_server_exceptions=False) as client, pytest.raises(ConnectionClosed, match="body"):
        client.get("/breaks")


# Life.


def test_the_lifespan_runs_around_the_block(app: App, events: list[str]) -> None:
    with TestClient(app) as client:
        assert events == ["start"]
        client.get("/")
    assert events == ["start", "stop"]


def test_without_a_block_it_starts_with_the_first_request(app: App, events: list[str]) -> None:
    client = TestClient(app)
    assert events == []
    client.get("/")
    assert events == ["start"]
    client.close()
    assert events == ["start", "stop"]
    client.close()


def test_a_forgotten_client_shuts_down_when_it_is_collected(app: App, events: list[str]) -> None:
    client = TestClient(app)
    client.get("/")
    del client
    gc.collect()
    assert events == ["start", "stop"]


def test_a_closed_client_starts_again(app: App, events: list[str]) -> None:
    with TestClient(app) as client:
        assert client.get("/sync").text == "from a thread"
    with client:
        assert client.get("/sync").text == "from a thread"
    assert events == ["start", "stop"] * 2


@pytest.mark.parametrize("where", ["start", "stop"])
def test_an_error_of_the_lifespan_is_raised(where: str) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if where == "start":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    client = TestClient(App(lifespan=lifespan))
    with pytest.raises(LookupError, match="no database"):
        with client:
            assert where == "stop"


def test_context_variables_of_the_lifespan_reach_the_handlers() -> None:
    pool: contextvars.ContextVar[str] = contextvars.ContextVar("pool")

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        pool.set("opened")
        yield

    app = App(lifespan=lifespan)

    @app.get("/")
    async def index() -> str:
        seen = pool.get()
        pool.set("changed by a request")
        return seen

    with TestClient(app) as client:
        assert [client.get("/").text for _ in range(2)] == ["opened"] * 2


def test_handlers_run_in_the_thread_of_the_test() -> None:
    connection = sqlite3.connect(":memory:")
    app = App()

    @app.get("/")
    async def index() -> dict[str, Any]:
        row = connection.execute("select 6 * 7").fetchone()
        return {"answer": row[0], "thread": threading.get_ident()}

    with contextlib.closing(connection), TestClient(app) as client:
        assert client.get("/").json() == {"answer": 42, "thread": threading.get_ident()}


def test_a_coroutine_can_be_run_on_the_apps_loop(app: App) -> None:
    async def loop() -> Any:
        return asyncio.get_running_loop()

    with TestClient(app) as client:
        client.get("/")
        assert client.run(loop()) is app.state.loop


def test_it_works_inside_a_running_loop(app: App, events: list[str]) -> None:
    async def test() -> None:
        with TestClient(app) as client:
            assert client.get("/items/3").json()["id"] == 3
            with client.stream("GET", "/lines") as response:
                assert next(response.iter_lines()) == "line 0"

    asyncio.run(test())
    assert events[0] == "start"
    assert events[-2:] == ["closed", "stop"]


def test_threads_take_turns(client: TestClient) -> None:
    answers: list[int] = []

    def ask(number: int) -> None:
        answers.append(client.get(f"/items/{number}").json()["id"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(8))


def test_another_event_loop(app: App) -> None:
    uvloop = require_module("uvloop")
    with TestClient(app, loop_factory=uvloop.new_event_loop) as client:
        assert client.get("/items/3").json()["id"] == 3
        assert type(app.state.loop).__module__.startswith("uvloop")


def test_a_router_and_a_service_can_be_tested() -> None:
    router = Router()

    @router.get("/")
    async def index(req: HttpRequest) -> HttpResponse:
        return HttpResponse.text("from a router")

    with TestClient(router) as client:
        assert client.get("/").text == "from a router"
    with TestClient(router.build()) as client:
        assert client.get("/").text == "from a router"


def test_connections_are_kept_and_replaced(client: TestClient) -> None:
    app = App()
    seen: list[int] = []

    @app.get("/")
    async def index(req: HttpRequest) -> str:
        seen.append(id(req.connection))
        return "x"

    @app.get("/last")
    async def last() -> HttpResponse:
        return HttpResponse.text("x", headers={"connection": "close"})

    with TestClient(app) as client:
        client.get("/")
        client.get("/")
        assert client.get("/last").status_code == 200
        assert client.get("/").status_code == 200
    assert seen[0] == seen[1]


def test_an_exit_in_a_handler_is_told_and_ends_nothing() -> None:
    app = App()

    @app.get("/")
    async def index() -> None:
        raise SystemExit(3)

    with TestClient(app) as client, pytest.raises(ClientError, match=r"SystemExit\(3\)") as caught:
        client.get("/")
    assert isinstance(caught.value.__cause__, SystemExit)


# Raw bytes.


def test_raw_bytes_and_everything_that_comes_back(client: TestClient) -> None:
    request = b"GET /sync HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = client.raw(request + request)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.count(b"from a thread") == 2


def test_raw_bytes_in_pieces(client: TestClient) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    answer = client.raw(request[start : start + 1] for start in range(len(request)))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"body":"hello"' in answer


def test_raw_bytes_that_are_no_http(client: TestClient) -> None:
    assert client.raw(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert client.raw(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert client.raw(b"GET / HT") == b""


def test_raw_bytes_raise_what_the_app_raised(client: TestClient) -> None:
    with pytest.raises(ZeroDivisionError):
        client.raw(b"GET /boom HTTP/1.1\r\nHost: x\r\n\r\n")


def test_raw_bytes_without_an_answer_time_out() -> None:
    app = App()

    @app.get("/")
    async def index() -> None:
        await asyncio.Event().wait()

    with TestClient(app) as client, pytest.raises(RequestTimeout, match="so far it sent b''"):
        client.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", timeout=0.05)


# Streams.


def test_a_stream_is_read_as_it_is_made(client: TestClient, events: list[str]) -> None:
    with client.stream("GET", "/lines") as response:
        assert response.status_code == 200
        with pytest.raises(ClientError, match="not read"):
            response.content
        lines = response.iter_lines()
        assert [next(lines), next(lines)] == ["line 0", "line 1"]
        assert "line 99" not in events
        assert list(lines) == [f"line {number}" for number in range(2, 100)]
    assert events[-1] == "closed"


def test_leaving_a_stream_disconnects(client: TestClient, events: list[str]) -> None:
    with client.stream("GET", "/forever") as response:
        assert next(response.iter_bytes()) == b"first\n"
        assert events == ["start"]
    client.run(asyncio.sleep(0))
    assert events == ["start", "closed"]
    assert client.get("/").status_code == 200


def test_a_response_that_outlives_its_client_starts_nothing(app: App, events: list[str]) -> None:
    client = TestClient(app)
    with client.stream("GET", "/lines") as response:
        lines = response.iter_lines()
        next(lines)
        client.close()
        with pytest.raises(ClientClosed):
            next(lines)
    lines.close()  # type: ignore[attr-defined]
    with pytest.raises(ClientClosed):
        response.read()
    assert events.count("start") == 1
    assert events[-2:] == ["closed", "stop"]


def test_a_stream_can_be_read_whole(client: TestClient) -> None:
    with client.stream("GET", "/lines") as response:
        assert response.read().count(b"\n") == 100
        assert list(response.iter_bytes()) != []
        assert response.text.startswith("line 0\n")
    assert list(client.get("/lines").iter_lines())[-1] == "line 99"


def test_pieces_of_a_wanted_size(client: TestClient) -> None:
    with client.stream("GET", "/lines") as response:
        pieces = list(response.iter_bytes(100))
    assert {len(piece) for piece in pieces[:-1]} == {100}
    assert b"".join(pieces).endswith(b"line 99\n")


def test_a_slow_reader_holds_the_producer_back() -> None:
    app = App()
    made = 0

    @app.get("/")
    async def index() -> HttpResponse:
        async def produce() -> AsyncIterator[bytes]:
            nonlocal made
            for _ in range(1000):
                made += 1
                yield b"x" * 10_000

        return HttpResponse.stream(produce())

    with TestClient(app) as client, client.stream("GET", "/") as response:
        client.run(asyncio.sleep(0.01))
        assert made < 100
        assert sum(map(len, response.iter_bytes())) == 10_000_000
    assert made == 1000


def test_an_error_in_the_middle_of_a_stream_is_raised_while_reading(client: TestClient) -> None:
    with client.stream("GET", "/breaks") as response:
        pieces = response.iter_bytes()
        assert next(pieces) == b"first"
        with pytest.raises(ZeroDivisionError):
            next(pieces)


def test_a_stream_that_stalls_times_out(client: TestClient) -> None:
    with client.stream("GET", "/forever", timeout=0.05) as response:
        pieces = response.iter_bytes()
        next(pieces)
        with pytest.raises(RequestTimeout, match="nothing more"):
            next(pieces)


def test_lines_of_every_kind() -> None:
    app = App()

    @app.get("/")
    async def index() -> HttpResponse:
        return HttpResponse.stream(iter(["a\r", "\nb\rc\n", "\n", "d\u2028e", "f"]), content_type="text/plain")

    with TestClient(app) as client, client.stream("GET", "/") as response:
        assert list(response.iter_lines()) == ["a", "b", "c", "", "d\u2028ef"]


def test_text_is_decoded_across_pieces() -> None:
    app = App()
    data = "grün€".encode()

    @app.get("/")
    async def index() -> HttpResponse:
        async def produce() -> AsyncIterator[bytes]:
            for byte in data:
                yield bytes([byte])
                await asyncio.sleep(0)

        return HttpResponse.stream(produce(), content_type="text/plain; charset=utf-8")

    with TestClient(app) as client, client.stream("GET", "/") as response:
        assert "".join(response.iter_text()) == "grün€"


def test_an_early_answer_to_a_long_upload() -> None:
    app = App(body_limit=1000)

    @app.post("/")
    async def index(req: HttpRequest) -> int:
        return len(await req.body())

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with TestClient(app) as client:
        assert client.post("/", content=endless()).status_code == 413
        assert client.post("/", content=b"x" * 2000).status_code == 413
        assert client.post("/", content=b"x" * 1000).text == "1000"


def test_a_request_is_quick(client: TestClient) -> None:
    client.get("/")
    started = time.process_time()
    for _ in range(100):
        client.get("/")
    assert time.process_time() - started < 2.0
