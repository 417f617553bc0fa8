"""Litestar on uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, MediaType, Request, get, post
from litestar.response import Response, Stream

from benchmarks.http import peers
from benchmarks.http.peers import _uvicorn
from benchmarks.http.peers._asgi import HeaderMiddleware


@get("/", media_type=MediaType.TEXT)
async def plaintext() -> str:
    return peers.HELLO


@get("/json")
async def json() -> dict[str, str]:
    return peers.MESSAGE


@get("/users/{user_id:int}")
async def user(user_id: int) -> dict[str, int]:
    return {"id": user_id}


@post("/items", status_code=200)
async def items(data: dict[str, Any]) -> dict[str, Any]:
    return peers.item_answer(data)


@get("/suspend/sleep", media_type=MediaType.TEXT)
async def suspend_sleep() -> str:
    await asyncio.sleep(0)
    return peers.HELLO


@get("/suspend/future", media_type=MediaType.TEXT)
async def suspend_future() -> str:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return peers.HELLO


@get("/stream")
async def stream() -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(peers.CHUNK_COUNT):
            yield peers.CHUNK

    return Stream(chunks(), media_type="application/octet-stream")


@post("/upload", status_code=200, media_type=MediaType.TEXT)
async def upload(request: Request[Any, Any, Any]) -> str:
    return str(len(await request.body()))


@get("/download")
async def download() -> Response[bytes]:
    return Response(peers.MEBIBYTE, media_type="application/octet-stream")


def resource(index: int) -> Any:
    @get(peers.route_path(index), media_type=MediaType.TEXT)
    async def answer() -> str:
        return peers.route_answer(index)

    return answer


def header_middleware(index: int) -> Any:
    def create(app: Any) -> Any:
        return HeaderMiddleware(app, index)

    return create


handlers: list[Any] = [plaintext, json, user, items, suspend_sleep, suspend_future, stream, upload, download]
middleware: list[Any] = []
if peers.VARIANT == "routes":
    handlers += [resource(index) for index in range(peers.ROUTE_COUNT)]
if peers.VARIANT == "middleware":
    middleware = [header_middleware(index) for index in range(peers.MIDDLEWARE_COUNT)]

app = Litestar(
    handlers, middleware=middleware, openapi_config=None, logging_config=None, request_max_body_size=peers.BODY_LIMIT
)

if __name__ == "__main__":
    _uvicorn.run(app)
