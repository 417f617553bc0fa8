"""Starlette on uvicorn or Armature (`BENCH_SERVER` chooses, and the parser); `_granian` runs the same app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.http import peers
from benchmarks.http.peers._asgi import HeaderMiddleware


async def plaintext(request: Request) -> Response:
    return PlainTextResponse(peers.HELLO)


async def json(request: Request) -> Response:
    return JSONResponse(peers.MESSAGE)


async def user(request: Request) -> Response:
    return JSONResponse({"id": request.path_params["user_id"]})


async def items(request: Request) -> Response:
    return JSONResponse(peers.item_answer(await request.json()))


async def suspend_sleep(request: Request) -> Response:
    await asyncio.sleep(0)
    return PlainTextResponse(peers.HELLO)


async def suspend_future(request: Request) -> Response:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return PlainTextResponse(peers.HELLO)


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(peers.CHUNK_COUNT):
            yield peers.CHUNK

    return StreamingResponse(chunks(), media_type="application/octet-stream")


async def upload(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def download(request: Request) -> Response:
    return Response(peers.MEBIBYTE, media_type="application/octet-stream")


def resource(index: int) -> Any:
    async def answer(request: Request) -> Response:
        return PlainTextResponse(peers.route_answer(index))

    return answer


routes = [
    Route("/", plaintext),
    Route("/json", json),
    Route("/users/{user_id:int}", user),
    Route("/items", items, methods=["POST"]),
    Route("/suspend/sleep", suspend_sleep),
    Route("/suspend/future", suspend_future),
    Route("/stream", stream),
    Route("/upload", upload, methods=["POST"]),
    Route("/download", download),
]
if peers.VARIANT == "routes":
    routes += [Route(peers.route_path(index), resource(index)) for index in range(peers.ROUTE_COUNT)]
middleware = []
if peers.VARIANT == "middleware":
    middleware = [Middleware(HeaderMiddleware, index=index) for index in range(peers.MIDDLEWARE_COUNT)]

app = Starlette(routes=routes, middleware=middleware)

if __name__ == "__main__":
    if peers.SERVER == "armature":
        from benchmarks.http.peers._hosting import run
    else:
        from benchmarks.http.peers._uvicorn import run
    run(app)
