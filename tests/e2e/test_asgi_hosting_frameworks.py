"""Real frameworks on this server: Starlette, FastAPI, Litestar and Django, as their users write them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from counterparts import require_module
from wire_client import Answer, Running, eventually

Serve = Callable[..., Running]

BOUNDARY = "----boundary"
FILE = bytes(range(256)) * 2000


class Log:
    """What an app did that no answer tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.go = threading.Event()


def multipart(name: str, filename: str, data: bytes) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: x/y\r\n\r\n'
    return b"--%b\r\n%b%b\r\n--%b--\r\n" % (BOUNDARY.encode(), head.encode(), data, BOUNDARY.encode())


def annotated(function: Any, **annotations: Any) -> Any:
    """Give a handler annotations that are objects: here they are text, and name what only its app knows."""
    function.__annotations__ = annotations
    return function


def starlette(log: Log, file: Path) -> Any:
    require_module("starlette")
    require_module("python_multipart")
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Mount, Route

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        log.lines.append("startup")
        yield {"answer": 42}
        log.lines.append("shutdown")

    class Header(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["x-middleware"] = "1"
            return response

    async def index(request: Request) -> Response:
        return PlainTextResponse("Hello, World!")

    async def user(request: Request) -> Response:
        query = dict(request.query_params)
        return JSONResponse({"id": request.path_params["id"], "query": query, "state": request.state.answer})

    async def echo(request: Request) -> Response:
        return JSONResponse(await request.json())

    def blocking(request: Request) -> Response:
        return PlainTextResponse(threading.current_thread().name != threading.main_thread().name and "thread")

    async def upload(request: Request) -> Response:
        async with request.form() as form:
            given: Any = form["file"]
            data = await given.read()
        return JSONResponse({"name": given.filename, "size": len(data), "same": data == FILE})

    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(200):
                yield b"%04d" % number * 250

        return StreamingResponse(pieces(), media_type="text/plain")

    async def endless(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.001)
            finally:
                log.lines.append("closed")

        return StreamingResponse(pieces())

    async def waiting(request: Request) -> Response:
        log.lines.append("entered")
        while not await request.is_disconnected():
            await asyncio.sleep(0.001)
        log.lines.append("gone")
        return PlainTextResponse("nobody reads it")

    async def background(request: Request) -> Response:
        async def work() -> None:
            while not log.go.is_set():
                await asyncio.sleep(0.001)
            log.lines.append("worked")

        return PlainTextResponse("done", background=BackgroundTask(work))

    async def download(request: Request) -> Response:
        return FileResponse(file, filename="data.bin")

    async def boom(request: Request) -> Response:
        raise LookupError("a secret of the server")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/users/{id:int}", user),
            Route("/echo", echo, methods=["POST"]),
            Route("/blocking", blocking),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            Route("/endless", endless),
            Route("/waiting", waiting),
            Route("/background", background),
            Route("/download", download),
            Route("/boom", boom),
            Mount("/sub", routes=[Route("/", index)]),
            Mount(
                "/wrapped",
                routes=[Route("/", index), Route("/stream", stream), Route("/echo", echo, methods=["POST"])],
                middleware=[Middleware(Header), Middleware(GZipMiddleware, minimum_size=100)],
            ),
        ],
        lifespan=lifespan,
    )


def fastapi(log: Log, file: Path) -> Any:
    require_module("fastapi")
    require_module("python_multipart")
    from fastapi import BackgroundTasks, Depends, FastAPI, Request, UploadFile
    from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
    from pydantic import BaseModel

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.lines.append("startup")
        yield {"answer": 42}
        log.lines.append("shutdown")

    class Item(BaseModel):
        name: str
        price: float

    async def resource() -> AsyncIterator[int]:
        yield 7
        log.lines.append("released")

    app = FastAPI(lifespan=lifespan)

    @app.get("/", response_class=PlainTextResponse)
    async def index() -> str:
        return "Hello, World!"

    async def user(id: Any, request: Any) -> Any:
        return {"id": id, "query": dict(request.query_params), "state": request.state.answer}

    async def echo(item: Any) -> Any:
        return item

    app.get("/users/{id}")(annotated(user, id=int, request=Request))
    app.post("/echo")(annotated(echo, item=Item))

    @app.get("/blocking", response_class=PlainTextResponse)
    def blocking() -> str:
        return "thread"

    async def upload(file: Any) -> dict[str, Any]:
        data = await file.read()
        return {"name": file.filename, "size": len(data), "same": data == FILE}

    app.post("/upload")(annotated(upload, file=UploadFile))

    async def depends(value: int = Depends(resource)) -> int:
        return value

    app.get("/depends")(depends)

    @app.get("/stream")
    async def stream() -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(200):
                yield b"%04d" % number * 250

        return StreamingResponse(pieces())

    async def background(tasks: Any) -> str:
        async def work() -> None:
            while not log.go.is_set():
                await asyncio.sleep(0.001)
            log.lines.append("worked")

        tasks.add_task(work)
        return "done"

    app.get("/background", response_class=PlainTextResponse)(annotated(background, tasks=BackgroundTasks))

    @app.get("/download")
    async def download() -> Any:
        return FileResponse(file)

    @app.get("/boom")
    async def boom() -> None:
        raise LookupError("a secret of the server")

    return app


def litestar(log: Log, file: Path) -> Any:
    require_module("litestar")
    from litestar import Litestar, Request, Response, get, post
    from litestar.background_tasks import BackgroundTask
    from litestar.datastructures import UploadFile
    from litestar.enums import RequestEncodingType
    from litestar.params import Body
    from litestar.response import File, Stream

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        log.lines.append("startup")
        app.state.answer = 42
        yield
        log.lines.append("shutdown")

    async def index() -> Any:
        return "Hello, World!"

    async def user(id: Any, request: Any) -> Any:
        return {"id": id, "query": dict(request.query_params), "state": request.app.state.answer}

    async def echo(data: Any) -> Any:
        return data

    def blocking() -> Any:
        return "thread"

    async def upload(data: Any) -> Any:
        found = await data.read()
        return {"name": data.filename, "size": len(found), "same": found == FILE}

    async def stream() -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(200):
                yield b"%04d" % number * 250

        return Stream(pieces())

    async def background() -> Any:
        async def work() -> None:
            while not log.go.is_set():
                await asyncio.sleep(0.001)
            log.lines.append("worked")

        return Response("done", media_type="text/plain", background=BackgroundTask(work))

    async def download() -> Any:
        return File(path=file, filename="data.bin")

    async def boom() -> Any:
        raise LookupError("a secret of the server")

    form = Body(media_type=RequestEncodingType.MULTI_PART)
    from typing import Annotated

    return Litestar(
        [
            get("/", media_type="text/plain")(annotated(index, **{"return": str})),
            get("/users/{id:int}")(annotated(user, id=int, request=Request, **{"return": dict[str, Any]})),
            post("/echo", status_code=200)(annotated(echo, data=dict[str, Any], **{"return": dict[str, Any]})),
            get("/blocking", media_type="text/plain", sync_to_thread=True)(annotated(blocking, **{"return": str})),
            post("/upload", status_code=200)(
                annotated(upload, data=Annotated[UploadFile, form], **{"return": dict[str, Any]})
            ),
            get("/stream")(annotated(stream, **{"return": Stream})),
            get("/background")(annotated(background, **{"return": Response[str]})),
            get("/download")(annotated(download, **{"return": File})),
            get("/boom")(annotated(boom, **{"return": str})),
        ],
        lifespan=[lifespan],
        logging_config=None,
    )


def django(log: Log, file: Path) -> Any:
    require_module("django")
    import django as package
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="for tests",
            DATA_UPLOAD_MAX_MEMORY_SIZE=10**8,
            LOGGING_CONFIG=None,
            MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        )
        package.setup()

    async def index(request: Any) -> Any:
        return HttpResponse("Hello, World!", content_type="text/plain")

    async def user(request: Any, id: int) -> Any:
        return JsonResponse({"id": id, "query": dict(request.GET.items()), "state": 42})

    async def echo(request: Any) -> Any:
        return JsonResponse(json.loads(request.body))

    def blocking(request: Any) -> Any:
        return HttpResponse("thread")

    def upload(request: Any) -> Any:
        given = request.FILES["file"]
        data = given.read()
        return JsonResponse({"name": given.name, "size": len(data), "same": data == FILE})

    async def stream(request: Any) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(200):
                yield b"%04d" % number * 250

        return StreamingHttpResponse(pieces())

    async def waiting(request: Any) -> Any:
        log.lines.append("entered")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            log.lines.append("gone")
            raise

    def download(request: Any) -> Any:
        return FileResponse(file.open("rb"))

    async def boom(request: Any) -> Any:
        raise LookupError("a secret of the server")

    urlpatterns[:] = [
        path("", index),
        path("users/<int:id>", user),
        path("echo", echo),
        path("blocking", blocking),
        path("upload", upload),
        path("stream", stream),
        path("waiting", waiting),
        path("download", download),
        path("boom", boom),
    ]
    from django.urls import clear_url_caches

    clear_url_caches()
    return get_asgi_application()


#: Django finds its routes in a module, which is this one.
urlpatterns: list[Any] = []

FRAMEWORKS = {"starlette": starlette, "fastapi": fastapi, "litestar": litestar, "django": django}
#: Ways of writing an app that their frameworks advise against.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* declared using deprecated inferred style"),
    pytest.mark.filterwarnings("ignore:.* Reserved kwarg 'data' declared without a body marker"),
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def running(framework: str, serve: Serve, log: Log, tmp_path: Path) -> Iterator[Running]:
    file = tmp_path / "data.bin"
    file.write_bytes(FILE)
    running = serve(FRAMEWORKS[framework](log, file))
    yield running
    running.stop()
    if framework != "django":
        assert (log.lines[0], log.lines[-1]) == ("startup", "shutdown")


def post(running: Running, path: str, data: bytes, content_type: str) -> Answer:
    with running.connect() as peer:
        return peer.request("POST", path, data, content_type=content_type).answer()


def test_routes(running: Running) -> None:
    with running.connect() as peer:
        for _ in range(3):
            assert peer.get("/").text == "Hello, World!"
            found = json.loads(peer.get("/users/7?x=%C3%A4&y=").text)
            assert found == {"id": 7, "query": {"x": "ä", "y": ""}, "state": 42}
        assert peer.get("/missing").status == 404
        assert peer.get("/users/letters").status in (404, 422)
        answer = peer.request("HEAD", "/missing").answer("HEAD")
        assert answer.status in (404, 405)
        assert peer.get("/blocking").text == "thread"


def test_json(running: Running) -> None:
    item = {"name": "ä" * 1000, "price": 1.5}
    answer = post(running, "/echo", json.dumps(item).encode(), "application/json")
    assert (answer.status, json.loads(answer.text)) == (200, item)


def test_uploads(running: Running) -> None:
    name = "data" if "litestar" in type(running.state.service.app).__module__ else "file"
    data = multipart(name, "a.bin", FILE)
    answer = post(running, "/upload", data, f"multipart/form-data; boundary={BOUNDARY}")
    assert (answer.status, json.loads(answer.text)) == (200, {"name": "a.bin", "size": len(FILE), "same": True})


def test_streams(running: Running) -> None:
    with running.connect() as peer:
        for _ in range(2):
            assert peer.get("/stream").body == b"".join(b"%04d" % number * 250 for number in range(200))


def test_files(running: Running) -> None:
    with running.connect() as peer:
        for _ in range(2):
            answer = peer.get("/download")
            assert answer.body == FILE
            assert answer.headers["content-length"] == str(len(FILE))


def test_errors(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.get("/boom")
        assert answer.status == 500
        assert "secret" not in answer.text
        assert peer.get("/").text == "Hello, World!"


@pytest.mark.parametrize("framework", ["starlette", "fastapi", "litestar"], indirect=True)
def test_background_tasks(running: Running, log: Log) -> None:
    with running.connect() as peer:
        assert peer.get("/background").text == "done"
        # The connection is free while the work goes on.
        assert peer.get("/").text == "Hello, World!"
        assert "worked" not in log.lines
        log.go.set()
        eventually(lambda: "worked" in log.lines)


@pytest.mark.parametrize("framework", ["starlette", "django"], indirect=True)
def test_a_client_that_goes_away(running: Running, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as peer:
        peer.request(path="/waiting")
        eventually(lambda: "entered" in log.lines)
    eventually(lambda: "gone" in log.lines)
    eventually(lambda: not running.call(lambda: len(running.state.connections)))
    # It did what it is expected to do.
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("framework", ["starlette"], indirect=True)
def test_a_client_that_leaves_a_stream(running: Running, log: Log) -> None:
    with running.connect() as peer:
        peer.request(path="/endless")
        assert peer.head().status == 200
        peer.chunk()
    eventually(lambda: "closed" in log.lines)


@pytest.mark.parametrize("framework", ["starlette"], indirect=True)
def test_middleware_that_wraps_send_and_receive(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.get("/wrapped/", accept_encoding="gzip")
        assert (answer.text, answer.headers["x-middleware"]) == ("Hello, World!", "1")
        answer = peer.get("/wrapped/stream", accept_encoding="gzip")
        import gzip

        assert (answer.headers["content-encoding"], len(gzip.decompress(answer.body))) == ("gzip", 200_000)
        item = {"a": 1}
        peer.request("POST", "/wrapped/echo", json.dumps(item).encode(), content_type="application/json")
        assert json.loads(peer.answer().text) == item


@pytest.mark.parametrize("framework", ["fastapi"], indirect=True)
def test_dependencies_are_released(running: Running, log: Log) -> None:
    assert running.get("/depends").text == "7"
    eventually(lambda: "released" in log.lines)


@pytest.mark.parametrize("framework", ["starlette"], indirect=True)
def test_httpx(running: Running) -> None:
    httpx = require_module("httpx")
    with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", trust_env=False, timeout=20) as client:
        assert client.get("/").text == "Hello, World!"
        assert client.post("/echo", json={"a": [1, 2]}).json() == {"a": [1, 2]}
        assert client.post("/upload", files={"file": ("a.bin", FILE)}).json()["same"]
        assert len(client.get("/stream").content) == 200_000
