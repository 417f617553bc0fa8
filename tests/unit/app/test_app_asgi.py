"""The app as an ASGI 3 callable: raw messages, then a real server."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from armature import App, ClientDisconnect, HttpRequest, HttpResponse, Router, get, post
from carrier import Answer, asgi_ask


def http_scope(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "query_string": b"", "headers": [], **more,
    }  # fmt: skip


class Wire:
    """The server's side of one connection, by hand."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for event in events:
            self.events.put_nowait(event)
        self.sent: list[dict[str, Any]] = []
        self.gone = False
        self.sending = asyncio.Event()
        self.wanted = 0

    async def receive(self) -> dict[str, Any]:
        return await self.events.get()

    async def send(self, event: Any) -> None:
        if self.gone:
            raise OSError("gone")
        self.sent.append(event)
        if len(self.sent) == self.wanted:
            self.sending.set()
        await asyncio.sleep(0)

    async def reached(self, count: int) -> None:
        """Wait until so many messages have been sent."""
        self.wanted = count
        await self.sending.wait()


DONE = {"type": "http.request", "body": b"", "more_body": False}


def asked(app: Any, **scope: Any) -> Answer:
    path = scope.pop("path", "/")
    return asyncio.run(asgi_ask(app, scope.pop("method", "GET"), path, **scope))


def test_what_a_request_says_about_itself() -> None:
    async def handler(request: HttpRequest) -> dict[str, Any]:
        return {
            "method": request.method, "path": request.path, "query": request.query["a"], "scheme": request.scheme,
            "client": request.client, "server": request.server, "version": request.http_version,
            "url": str(request.url), "gone": await request.is_disconnected(), "app": request.app is app,
        }  # fmt: skip

    app = App()
    app.add_route("/{x:path}", handler)
    answer = asked(app, path="/a%20b?a=1", headers=[("Host", "example.org")], scheme="https", http_version="2")
    assert answer.json() == {
        "method": "GET", "path": "/a b", "query": "1", "scheme": "https", "client": ["127.0.0.1", 50000],
        "server": ["127.0.0.1", 8000], "version": "2", "url": "https://example.org/a%20b?a=1", "gone": False,
        "app": True,
    }  # fmt: skip


def test_a_scope_with_the_least_that_the_specification_asks_for() -> None:
    async def handler(request: HttpRequest, x: str) -> list[Any]:
        return [x, request.client, request.server, request.scheme, request.raw_path.decode()]

    app = App()
    app.add_route("/{x}", handler)

    async def run() -> Any:
        wire = Wire(DONE)
        scope = http_scope("/ü b")
        del scope["scheme"]
        await app(scope, wire.receive, wire.send)
        return wire.sent

    start, body = asyncio.run(run())
    assert body["body"].decode() == '["ü b",null,null,"http","/%C3%BC%20b"]'
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()


@pytest.mark.parametrize("root", ["/api", "/api/"])
def test_root_path_is_taken_off_for_matching_alone(root: str) -> None:
    app = App()
    app.route("/x", get(lambda request: request.path)).route("/", get(lambda: "root"))
    assert asked(app, path="/api/x", root_path=root).text == "/api/x"
    assert asked(app, path="/api", root_path=root).text == "root"
    # Servers that leave it out.
    assert asked(app, path="/x", root_path=root).text == "/x"
    assert asked(app, path="/apix", root_path=root).status == 404
    assert asked(app, path="/api/x/", root_path=root).header("location") == "/api/x"


def test_the_body_arrives_in_pieces() -> None:
    async def whole(request: HttpRequest) -> str:
        first, second = await request.body(), await request.body()
        assert first is second
        return first.decode()

    async def streamed(request: HttpRequest) -> list[str]:
        return [chunk.decode() async for chunk in request.stream()]

    app = App()
    app.route("/whole", post(whole)).route("/streamed", post(streamed))

    async def run(path: str) -> bytes:
        pieces = [{"type": "http.request", "body": piece, "more_body": True} for piece in (b"a", b"", b"b")]
        wire = Wire(*pieces, {"type": "http.request"})
        await app(http_scope(path, "POST"), wire.receive, wire.send)
        body: bytes = wire.sent[-1]["body"]
        return body

    assert asyncio.run(run("/whole")) == b"ab"
    assert asyncio.run(run("/streamed")) == b'["a","b"]'


def test_body_limits() -> None:
    async def whole(request: HttpRequest) -> str:
        return (await request.body()).decode()

    app = App(body_limit=3)
    app.route("/", post(whole)).route("/more", post(whole, body_limit=99))
    assert asked(app, method="POST", body=b"abc").status == 200
    answer = asked(app, method="POST", body=b"abcd")
    assert answer.status == 413
    assert answer.json()["detail"] == "The request body is larger than the limit of 3 bytes."
    assert asked(app, method="POST", path="/more", body=b"abcd").text == "abcd"
    # Refused by its declared length, before anything is read.
    assert asked(app, method="POST", headers=[("content-length", "4")]).status == 413


def test_a_client_that_leaves_while_it_sends() -> None:
    raised: list[BaseException] = []

    async def whole(request: HttpRequest) -> None:
        try:
            await request.body()
        except ClientDisconnect as error:
            raised.append(error)
            assert await request.is_disconnected()
            raise

    app = App()
    app.route("/", post(whole))

    async def run() -> None:
        wire = Wire({"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"})
        await app(http_scope("/", "POST"), wire.receive, wire.send)

    asyncio.run(run())
    assert len(raised) == 1


def test_is_disconnected_is_noticed_while_the_handler_works() -> None:
    started = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        await request.body()
        while not await request.is_disconnected():
            started.set()
            await asyncio.sleep(0)

    app = App()
    app.add_route("/", handler)

    async def run() -> None:
        wire = Wire(DONE)
        task = asyncio.ensure_future(app(http_scope(), wire.receive, wire.send))
        await started.wait()
        wire.events.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(task, 5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_streams_go_out_piece_by_piece() -> None:
    def numbers() -> Iterator[str]:
        yield "1"
        yield ""
        yield "2"

    app = App()
    app.route("/", get(lambda: HttpResponse.stream(numbers(), headers={"transfer-encoding": "chunked"})))

    async def run() -> list[dict[str, Any]]:
        wire = Wire(DONE)
        await app(http_scope(), wire.receive, wire.send)
        return wire.sent

    start, *rest = asyncio.run(run())
    assert start["headers"] == [(b"content-type", b"application/octet-stream")]
    assert [(event["body"], event["more_body"]) for event in rest] == [(b"1", True), (b"2", True), (b"", False)]


@pytest.mark.parametrize("how", ["message", "error"])
def test_a_client_that_leaves_stops_the_stream_at_once(how: str) -> None:
    log: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                log.append("piece")
                yield b"x"
                await asyncio.sleep(0)
        finally:
            log.append("closed")

    async def handler(request: HttpRequest) -> HttpResponse:
        await request.body()
        return HttpResponse.stream(endless())

    app = App()
    app.add_route("/", handler)

    async def run() -> None:
        wire = Wire(DONE)
        task = asyncio.ensure_future(app(http_scope(), wire.receive, wire.send))
        await wire.reached(3)
        if how == "message":
            wire.events.put_nowait({"type": "http.disconnect"})
        else:
            wire.gone = True
        try:
            await asyncio.wait_for(task, 5)
        except OSError:
            assert how == "error"

    asyncio.run(run())
    assert log[-1] == "closed"
    assert log.count("closed") == 1


def test_a_stream_that_fails_is_not_ended_as_if_it_were_complete() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("in the stream")

    app = App()
    app.route("/", get(lambda: HttpResponse.stream(failing())))

    async def run() -> Wire:
        wire = Wire(DONE)
        with pytest.raises(ValueError, match="in the stream"):
            await app(http_scope(), wire.receive, wire.send)
        return wire

    assert asyncio.run(run()).sent[-1] == {"type": "http.response.body", "body": b"x", "more_body": True}


def test_head_and_empty_statuses_have_no_body() -> None:
    app = App()
    closed: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    app.route("/", get(lambda: "four")).route("/stream", get(lambda: HttpResponse.stream(endless())))
    app.route("/own", get(lambda: HttpResponse(b"", headers={"content-length": "99"})))
    app.route("/304", get(lambda: HttpResponse(b"x", 304, {"content-length": "5"})))
    assert asked(app, method="HEAD").headers("content-length") == ["4"]
    assert asked(app, method="HEAD").body == b""
    assert asked(app, method="HEAD", path="/stream").body == b""
    assert asked(app, method="HEAD", path="/own").header("content-length") == "99"
    assert asked(app, path="/own").header("content-length") == "0"
    assert asked(app, path="/304").header("content-length") is None


def test_files_and_ranges(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("hello world")
    app = App()
    app.route("/", get(lambda: HttpResponse.file(file)))
    assert asked(app).text == "hello world"
    part = asked(app, headers=[("range", "bytes=0-4")])
    assert (part.status, part.text, part.header("content-range")) == (206, "hello", "bytes 0-4/11")
    etag = asked(app).header("etag")
    assert etag is not None
    assert asked(app, headers=[("if-none-match", etag)]).status == 304
    file.unlink()
    assert asked(app).status == 404


def test_websockets_are_refused_politely() -> None:
    app = App()

    async def run() -> list[dict[str, Any]]:
        wire = Wire({"type": "websocket.connect"})
        await app({"type": "websocket", "path": "/"}, wire.receive, wire.send)
        return wire.sent

    assert asyncio.run(run()) == [{"type": "websocket.close", "code": 1000, "reason": ""}]


def test_an_unknown_connection_type_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="unknown ASGI connection type 'carrier pigeon'"):
        asyncio.run(App()({"type": "carrier pigeon"}, None, None))  # type: ignore[arg-type]


def lifespan_messages(app: Any) -> list[str]:
    async def run() -> list[str]:
        wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        await app({"type": "lifespan", "state": {}}, wire.receive, wire.send)
        return [event["type"] + (": " + event["message"].splitlines()[-1] if "message" in event else "")
                for event in wire.sent]  # fmt: skip

    return asyncio.run(run())


def test_lifespan() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        log.append("start")
        yield
        log.append("stop")

    def fail() -> None:
        raise RuntimeError("no database")

    assert lifespan_messages(App(lifespan=lifespan)) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert log == ["start", "stop"]
    assert lifespan_messages(App(on_startup=[fail])) == ["lifespan.startup.failed: RuntimeError: no database"]
    assert lifespan_messages(App(on_shutdown=[fail])) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.failed: RuntimeError: no database",
    ]
    broken = App()
    broken.add_route("/", lambda x: None)
    broken.add_route("/", lambda x: None)
    (message,) = lifespan_messages(broken)
    assert message.startswith("lifespan.startup.failed")


def test_a_router_alone_is_an_asgi_app_too() -> None:
    router = Router()
    router.route("/", get(lambda: "alone"))
    assert asked(router).text == "alone"
    assert lifespan_messages(router) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# ---- a real server


@contextmanager
def under_uvicorn(app: Any) -> Iterator[int]:
    config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        ready = threading.Event()
        startup = server.startup

        async def started(sockets: Any = None) -> None:
            await startup(sockets)
            ready.set()

        server.startup = started  # type: ignore[method-assign]
        thread.start()
        try:
            assert ready.wait(20)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def fetched(port: int, path: str, method: str = "GET", body: bytes | None = None, headers: Any = ()) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.getheaders()]
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def test_under_uvicorn_the_answers_are_the_same() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        app.state.name = "state"
        yield
        log.append("stopped")

    app = App(lifespan=lifespan)

    @app.middleware
    async def marked(request: HttpRequest, call_next: Callable[[HttpRequest], Any]) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        response.headers["x-marked"] = "1"
        return response

    @app.get("/users/{user_id}")
    async def show(request: HttpRequest, user_id: int, limit: int = 10) -> dict[str, Any]:
        return {"id": user_id, "limit": limit, "state": request.app.state.name}

    @app.post("/echo")
    async def echo(request: HttpRequest) -> HttpResponse:
        return HttpResponse(await request.body(), content_type="application/x-echo")

    @app.get("/stream")
    async def stream() -> HttpResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(100):
                yield b"%03d" % number

        return HttpResponse.stream(chunks())

    @app.get("/sync")
    def blocking() -> str:
        return threading.current_thread().name

    with under_uvicorn(app) as port:
        assert fetched(port, "/users/7?limit=3").json() == {"id": 7, "limit": 3, "state": "state"}
        assert fetched(port, "/users/x").status == 422
        assert fetched(port, "/none").header("x-marked") == "1"
        assert fetched(port, "/users/7", "POST").header("allow") == "GET, HEAD, OPTIONS"
        assert fetched(port, "/users/7/").status == 307
        head = fetched(port, "/users/7", "HEAD")
        assert (head.body, head.header("content-length")) == (b"", "35")
        body = bytes(range(256)) * 1000
        assert fetched(port, "/echo", "POST", body).body == body
        assert fetched(port, "/stream").body == b"".join(b"%03d" % number for number in range(100))
        assert fetched(port, "/sync").text.startswith("armature-handler")
    assert log == ["stopped"]


def test_under_uvicorn_a_client_that_leaves_stops_the_stream() -> None:
    closed = threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)
        finally:
            closed.set()

    app = App()
    app.route("/", get(lambda: HttpResponse.stream(endless())))
    with under_uvicorn(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert closed.wait(10)
