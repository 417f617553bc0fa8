"""FastAPI on uvicorn, written the way its documentation writes it, with plain ASGI middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from benchmarks.http import peers
from benchmarks.http.peers import _uvicorn
from benchmarks.http.peers._asgi import HeaderMiddleware

app = FastAPI()


@app.get("/", response_class=PlainTextResponse)
async def plaintext() -> str:
    return peers.HELLO


@app.get("/json")
async def json() -> dict[str, str]:
    return peers.MESSAGE


@app.get("/users/{user_id}")
async def user(user_id: int) -> dict[str, int]:
    return {"id": user_id}


@app.post("/items")
async def items(item: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    return peers.item_answer(item)


@app.get("/suspend/sleep", response_class=PlainTextResponse)
async def suspend_sleep() -> str:
    await asyncio.sleep(0)
    return peers.HELLO


@app.get("/suspend/future", response_class=PlainTextResponse)
async def suspend_future() -> str:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return peers.HELLO


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(peers.CHUNK_COUNT):
            yield peers.CHUNK

    return StreamingResponse(chunks(), media_type="application/octet-stream")


@app.post("/upload", response_class=PlainTextResponse)
async def upload(request: Request) -> str:
    return str(len(await request.body()))


@app.get("/download")
async def download() -> Response:
    return Response(peers.MEBIBYTE, media_type="application/octet-stream")


def add_resource(index: int) -> None:
    @app.get(peers.route_path(index), response_class=PlainTextResponse)
    async def resource() -> str:
        return peers.route_answer(index)


if peers.VARIANT == "routes":
    for number in range(peers.ROUTE_COUNT):
        add_resource(number)
if peers.VARIANT == "middleware":
    for number in range(peers.MIDDLEWARE_COUNT):
        app.add_middleware(HeaderMiddleware, index=number)

if __name__ == "__main__":
    _uvicorn.run(app)
