"""Robyn, one process and one worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from robyn import Headers, Request, Response, Robyn, StreamingResponse

from benchmarks.http import peers

BYTES = "application/octet-stream"

app = Robyn(__file__)


def text(body: str) -> Response:
    return Response(200, Headers({"content-type": "text/plain; charset=utf-8"}), body)


def json(value: Any) -> Response:
    return Response(200, Headers({"content-type": "application/json"}), orjson.dumps(value).decode())


@app.get("/")
async def plaintext(request: Request) -> Response:
    return text(peers.HELLO)


@app.get("/json")
async def message(request: Request) -> Response:
    return json(peers.MESSAGE)


@app.get("/users/:user_id")
async def user(request: Request) -> Response:
    try:
        return json({"id": int(request.path_params["user_id"])})
    except ValueError:
        return Response(404, Headers({}), "")


@app.post("/items")
async def items(request: Request) -> Response:
    return json(peers.item_answer(orjson.loads(request.body)))


@app.get("/suspend/sleep")
async def suspend_sleep(request: Request) -> Response:
    await asyncio.sleep(0)
    return text(peers.HELLO)


@app.get("/suspend/future")
async def suspend_future(request: Request) -> Response:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return text(peers.HELLO)


@app.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(peers.CHUNK_COUNT):
            yield peers.CHUNK

    return StreamingResponse(chunks(), headers=Headers({"content-type": BYTES}), media_type=BYTES)


@app.post("/upload")
async def upload(request: Request) -> Response:
    return text(str(len(request.body)))


@app.get("/download")
async def download(request: Request) -> Response:
    return Response(200, Headers({"content-type": BYTES}), peers.MEBIBYTE)


def add_resource(index: int) -> None:
    @app.get(peers.route_path(index))
    async def resource(request: Request) -> Response:
        return text(peers.route_answer(index))


def add_middleware(index: int) -> None:
    name, value = peers.middleware_header(index)

    @app.after_request()
    async def add_header(response: Response) -> Response:
        response.headers.set(name, value)
        return response


if peers.VARIANT == "routes":
    for number in range(peers.ROUTE_COUNT):
        add_resource(number)
if peers.VARIANT == "middleware":
    for number in range(peers.MIDDLEWARE_COUNT):
        add_middleware(number)

if __name__ == "__main__":
    app.start(host=peers.HOST, port=peers.PORT)
