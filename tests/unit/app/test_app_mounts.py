"""Apps within apps: our own, flattened; any other, through ASGI."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from armature import App, CORSMiddleware, HTTPException, HttpRequest, HttpResponse, RouteError, Router, StaticFiles, get
from carrier import Answer, asgi_ask, native_ask

Ask = Callable[..., Answer]


# ---- our own


def test_a_mounted_app_keeps_its_own_ways(ask: Ask) -> None:
    log: list[str] = []

    def noting(name: str) -> Any:
        async def middleware(request: HttpRequest, call_next: Any) -> HttpResponse:
            log.append(name)
            response: HttpResponse = await call_next(request)
            return response

        return middleware

    class Shared:
        pass

    sub, app = App(), App()
    app.state.name, sub.state.name = "outer", "inner"
    app.wrap(noting("outer"))
    sub.wrap(noting("inner"))
    sub.data(Shared())

    @sub.exception_handler(ValueError)
    async def value_error(request: HttpRequest, error: ValueError) -> HttpResponse:
        return HttpResponse.text(f"inner {error}", 418)

    @app.exception_handler(KeyError)
    async def key_error(request: HttpRequest, error: KeyError) -> HttpResponse:
        return HttpResponse.text("outer", 419)

    @sub.exception_handler(404)
    async def not_found(request: HttpRequest, error: HTTPException) -> HttpResponse:
        return HttpResponse.text(f"none in {request.app.state.name}", 404)

    @sub.get("/name/{n}")
    async def name(request: HttpRequest, shared: Shared, n: int, own: App) -> list[Any]:
        return [request.app.state.name, request.app is sub, own is sub, n, request.path]

    @app.get("/name")
    async def outer_name(request: HttpRequest) -> str:
        return str(request.app.state.name)

    @sub.get("/value")
    async def value() -> None:
        raise ValueError("v")

    @sub.get("/key")
    async def key() -> None:
        raise KeyError("k")

    app.mount("/sub", sub, name="sub")
    assert ask(app, "/sub/name/5").json() == ["inner", True, True, 5, "/sub/name/5"]
    assert log == ["outer", "inner"]
    assert ask(app, "/name").text == "outer"
    assert ask(app, "/sub/value").text == "inner v"
    assert ask(app, "/sub/key").status == 419
    log.clear()
    assert ask(app, "/sub/none").text == "none in inner"
    assert log == ["outer", "inner"]
    assert ask(app, "/none").json() == {"title": "Not Found", "status": 404}
    assert ask(app, "/sub/value", "POST").status == 405
    # The same app alone.
    assert ask(sub, "/name/5").json()[0] == "inner"


def test_cors_of_a_mounted_app_answers_its_preflights(ask: Ask) -> None:
    sub, app = App(), App()
    sub.add_middleware(CORSMiddleware, allow_origins=["https://example.org"])
    sub.route("/x", get(lambda: "x"))
    app.route("/x", get(lambda: "x"))
    app.mount("/sub", sub)
    headers = [("origin", "https://example.org"), ("access-control-request-method", "GET")]
    assert ask(app, "/sub/x", "OPTIONS", headers).header("access-control-allow-origin") == "https://example.org"
    assert ask(app, "/x", "OPTIONS", headers).header("access-control-allow-origin") is None


def test_mounted_routers_are_included(ask: Ask) -> None:
    router = Router()
    router.route("/x", get(lambda: "x", name="ex"))
    app = App().mount("/r", router, name="r")
    assert ask(app, "/r/x").text == "x"
    assert app.url_path_for("r:ex") == "/r/x"


def test_apps_in_apps_in_apps(ask: Ask) -> None:
    one, two, three = App(), App(), App()
    three.route("/x", get(lambda request: str(request.app is three)))
    two.mount("/three", three)
    one.mount("/{tenant}/two", two)
    assert ask(one, "/acme/two/three/x").text == "True"


def test_static_files(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    app = App().mount("/static", StaticFiles(tmp_path))
    assert asyncio.run(asgi_ask(app, "GET", "/static/a.txt")).text == "hello"
    assert ask(app, "/static/none.txt").status == 404
    assert ask(app, "/static/../secret").status == 404
    assert ask(app, "/static").header("location") == "/static/"


# ---- any ASGI app


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "path": request.url.path,
            "root_path": request.scope["root_path"],
            "raw_path": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "method": request.method,
            "body": body.decode(),
            "x": request.headers.get("x-a"),
            "client": list(request.client or ()),
            "url": str(request.url_for("echo")),
        },
        status_code=201,
        headers={"x-b": "2"},
    )


async def streaming(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(5):
            await asyncio.sleep(0)
            yield str(number).encode()

    return StreamingResponse(chunks(), media_type="text/plain")


async def failing(request: Request) -> Response:
    raise RuntimeError("inside")


def legacy(**options: Any) -> Starlette:
    routes = [
        Route("/echo", echo, methods=["GET", "POST"], name="echo"),
        Route("/streaming", streaming),
        Route("/failing", failing),
        Mount("/deeper", routes=[Route("/echo", echo)]),
    ]
    return Starlette(routes=routes, **options)


def test_starlette_is_served_below_its_path(ask: Ask) -> None:
    app = App().mount("/legacy", legacy())
    app.route("/legacy/own", get(lambda: "own"))
    answer = ask(app, "/legacy/echo?a=%20b", "POST", [("X-A", "1"), ("host", "example.org")], b"some body")
    assert answer.status == 201
    assert answer.json() == {
        "path": "/legacy/echo", "root_path": "/legacy", "raw_path": "/legacy/echo", "query": "a=%20b",
        "method": "POST", "body": "some body", "x": "1", "client": ["127.0.0.1", 50000],
        "url": "http://example.org/legacy/echo",
    }  # fmt: skip
    assert answer.header("x-b") == "2"
    assert answer.headers("content-length") in ([], [str(len(answer.body))])
    assert ask(app, "/legacy/deeper/echo").json()["root_path"] == "/legacy/deeper"
    assert ask(app, "/legacy/streaming").text == "01234"
    assert ask(app, "/legacy/none").text == "Not Found"
    assert ask(app, "/legacy/echo", "DELETE").status == 405
    assert ask(app, "/legacy/own").text == "own"
    assert ask(app, "/legacy").header("location") == "/legacy/"
    head = ask(app, "/legacy/echo", "HEAD")
    assert (head.status, head.body) == (201, b"")


def test_a_mount_at_the_root_takes_what_no_route_takes(ask: Ask) -> None:
    app = App().mount("/", legacy())
    app.route("/own", get(lambda: "own"))
    assert ask(app, "/own").text == "own"
    assert ask(app, "/echo").json()["root_path"] == ""
    assert ask(app, "/none").text == "Not Found"


def test_a_mount_under_a_parameter(ask: Ask) -> None:
    app = App().mount("/{tenant}/legacy", legacy())
    assert ask(app, "/a%20b/legacy/echo").json()["root_path"] == "/a b/legacy"


def test_middleware_and_errors_around_a_mount(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    app = App().mount("/legacy", legacy())
    seen: list[int] = []

    @app.middleware
    async def outer(request: HttpRequest, call_next: Any) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        seen.append(response.status)
        response.headers["x-outer"] = "1"
        return response

    assert ask(app, "/legacy/streaming").header("x-outer") == "1"
    # Starlette answers 500 itself, and raises for the server to log.
    assert ask(app, "/legacy/failing").status == 500
    assert seen == [200, 500]
    assert "the mounted ASGI app failed after its response" in caplog.text


def test_an_app_that_raises_or_ends_without_an_answer(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    async def raises(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        raise LookupError("nothing sent")

    async def silent(scope: Any, receive: Any, send: Any) -> None: ...

    app = App().mount("/raises", raises).mount("/silent", silent)

    @app.exception_handler(LookupError)
    async def lookup(request: HttpRequest, error: LookupError) -> HttpResponse:
        return HttpResponse.text(str(error), 410)

    assert ask(app, "/raises/").text == "nothing sent"
    assert ask(app, "/silent/").status == 500
    assert "the ASGI app mounted at /silent ended without sending a response" in caplog.text


def test_pure_asgi_messages_out_of_order_are_refused(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    async def body_first(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"x"})

    async def twice(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.start", "status": 200})

    async def unknown(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def too_long(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.body", "body": b"y"})

    app = App()
    for name, inner in (("first", body_first), ("twice", twice), ("unknown", unknown), ("long", too_long)):
        app.mount(f"/{name}", inner)
    assert [ask(app, f"/{name}/").status for name in ("first", "twice", "unknown")] == [500, 500, 500]
    assert ask(app, "/long/").text == "x"
    for text in ("body before http.response.start", "start twice", "'websocket.accept'", "after the end"):
        assert text in caplog.text


def test_a_large_upload_and_download_go_through(ask: Ask) -> None:
    async def lengths(request: Request) -> Response:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
        return PlainTextResponse("x" * total)

    app = App().mount("/m", Starlette(routes=[Route("/", lengths, methods=["POST"])]))
    assert len(ask(app, "/m/", "POST", body=b"x" * 10_001).body) == 10_001


def test_the_app_is_one_chunk_ahead_of_the_client_at_most() -> None:
    sent: list[int] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            sent.append(number)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})

    async def run() -> None:
        app = App().mount("/m", inner)
        service = app.build()
        request = service.request_class(None, "GET", b"/m/")
        response = await service.mounts[0].handle(_carried(request, app))
        for _ in range(20):
            await asyncio.sleep(0)
        assert sent == [0]
        stream = response.stream
        assert stream is not None
        iterator = aiter(stream)  # type: ignore[arg-type]
        await anext(iterator)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sent == [0, 1]
        assert b"".join([chunk async for chunk in iterator]) == b"xxxx"

    asyncio.run(run())


def _carried(request: Any, app: Any) -> Any:
    from carrier import Carrier

    request.connection = Carrier(app)
    return request


def test_closing_the_response_early_tells_the_app_and_runs_its_finally() -> None:
    log: list[str] = []

    async def endless(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0)
            finally:
                log.append("closed")

        return StreamingResponse(chunks(), background=BackgroundTask(log.append, "background"))

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        log.append((await receive())["type"])

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError:
            log.append("told")
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async def take_one(inner: Any) -> None:
        app = App().mount("/m", inner)
        service = app.build()
        request = _carried(service.request_class(None, "GET", b"/m/"), app)
        response = await service.mounts[0].handle(request)
        stream: Any = response.stream
        await anext(aiter(stream))
        await stream.aclose()

    asyncio.run(take_one(Starlette(routes=[Route("/", endless)])))
    assert log == ["closed"]
    log.clear()
    asyncio.run(take_one(waits))
    assert log == ["http.disconnect"]
    log.clear()
    from armature.app import mounts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mounts, "GRACE", 0.001)
        asyncio.run(take_one(stubborn))
    assert log == ["cancelled"] or log == ["told", "cancelled"]


def test_a_cancelled_request_cancels_the_app() -> None:
    log: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    async def run() -> None:
        app = App().mount("/m", inner)
        task = asyncio.ensure_future(native_ask(app, "GET", "/m/"))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(run())
    assert log == ["cancelled"]


def test_background_tasks_of_a_mounted_app_do_not_hold_up_the_response() -> None:
    order: list[str] = []
    release = threading.Event()

    async def background() -> None:
        await asyncio.to_thread(release.wait)
        order.append("background")

    async def handler(request: Request) -> Response:
        return PlainTextResponse("x", background=BackgroundTask(background))

    async def run() -> None:
        app = App().mount("/m", Starlette(routes=[Route("/", handler)]))
        answer = await native_ask(app, "GET", "/m/")
        order.append(answer.text)
        release.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others)

    asyncio.run(run())
    assert order == ["x", "background"]


def test_starlette_middleware_and_disconnect_checks_work_inside(ask: Ask) -> None:
    class Adding(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-added"] = str(await request.is_disconnected())
            return response

    app = App().mount("/legacy", legacy(middleware=[Middleware(Adding)]))
    assert ask(app, "/legacy/streaming").header("x-added") == "False"


def test_lifespan_state_reaches_the_mounted_apps_requests() -> None:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        yield {"database": "db"}

    async def handler(request: Request) -> Response:
        return PlainTextResponse(request.state.database)

    app = App().mount("/m", Starlette(routes=[Route("/", handler)], lifespan=lifespan))

    async def run() -> str:
        async with app.build().lifespan():
            return (await native_ask(app, "GET", "/m/")).text

    assert asyncio.run(run()) == "db"


def test_an_armature_app_can_be_mounted_in_starlette() -> None:
    app = App()
    app.route("/x/{n}", get(lambda request: f"{request.path} {request.connection.root_path}"))
    outer = Starlette(routes=[Mount("/inner", app=app)])
    assert asyncio.run(asgi_ask(outer, "GET", "/inner/x/1")).text == "/inner/x/1 /inner"
    assert asyncio.run(asgi_ask(outer, "GET", "/inner/none")).status == 404
    assert asyncio.run(asgi_ask(outer, "GET", "/inner/x/1/")).header("location") == "/inner/x/1"


def test_two_mounts_at_one_path() -> None:
    app = App().mount("/m", legacy()).mount("/m", legacy())
    with pytest.raises(RouteError, match="any method is registered twice"):
        app.build()


def test_disconnect_while_the_body_is_being_read(ask: Ask) -> None:
    async def reads(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            return PlainTextResponse("gone")
        return PlainTextResponse("there")

    app = App().mount("/m", Starlette(routes=[Route("/", reads, methods=["POST"])]))
    assert ask(app, "/m/", "POST", body=b"x").text == "there"
