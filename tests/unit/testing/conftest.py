"""A sample app, and the loops that asynchronous tests run on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from armature import App, HTTPException, HttpRequest, HttpResponse
from armature.testing import TestClient
from counterparts import LOOPS, loop_factory

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def events() -> list[str]:
    """What happened in the sample app."""
    return []


@pytest.fixture
def app(events: list[str]) -> App:
    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        events.append("start")
        app.state.loop = asyncio.get_running_loop()
        yield
        events.append("stop")

    app = App(lifespan=lifespan)

    @app.get("/")
    async def index() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/items/{item_id}")
    async def item(item_id: int, q: str | None = None, tag: list[str] | None = None) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"id": item_id, "q": q, "tag": tag}

    @app.get("/sync")
    def sync() -> str:
        return "from a thread"

    @app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def echo(req: HttpRequest) -> HttpResponse:
        body = await req.body()
        return HttpResponse.json(
            {
                "method": req.method,
                "path": req.path,
                "query": req.query_string.decode(),
                "headers": [list(pair) for pair in req.headers.multi_items()],
                "body": body.decode("latin-1"),
                "scheme": req.scheme,
                "client": list(req.client or ()),
                "server": list(req.server or ()),
            }
        )

    @app.get("/boom")
    async def boom() -> None:
        events.append("boom")
        raise ZeroDivisionError("on purpose")

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    @app.get("/lines")
    async def lines() -> HttpResponse:
        async def produce() -> AsyncIterator[str]:
            try:
                for number in range(100):
                    events.append(f"line {number}")
                    yield f"line {number}\n"
                    await asyncio.sleep(0)
            finally:
                events.append("closed")

        return HttpResponse.stream(produce(), content_type="text/plain; charset=utf-8")

    @app.get("/forever")
    async def forever() -> HttpResponse:
        async def produce() -> AsyncIterator[bytes]:
            try:
                yield b"first\n"
                await asyncio.Event().wait()
            finally:
                events.append("closed")

        return HttpResponse.stream(produce())

    @app.get("/breaks")
    async def breaks() -> HttpResponse:
        async def produce() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.sleep(0)
            raise ZeroDivisionError("in the middle")

        return HttpResponse.stream(produce())

    return app


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on a fresh loop of each kind."""
    factory = loop_factory(request.param)

    def start(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return start
