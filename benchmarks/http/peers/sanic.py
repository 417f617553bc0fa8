"""Sanic's own server, single process."""

from __future__ import annotations

import asyncio
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import json, raw, text

from benchmarks.http import peers

app = Sanic("benchmark", configure_logging=False)
app.config.ACCESS_LOG = False
app.config.REQUEST_MAX_SIZE = peers.BODY_LIMIT
app.config.USE_UVLOOP = peers.LOOP == "uvloop"


@app.get("/")
async def plaintext(request: Request) -> HTTPResponse:
    return text(peers.HELLO)


@app.get("/json")
async def message(request: Request) -> HTTPResponse:
    return json(peers.MESSAGE)


@app.get("/users/<user_id:int>")
async def user(request: Request, user_id: int) -> HTTPResponse:
    return json({"id": user_id})


@app.post("/items")
async def items(request: Request) -> HTTPResponse:
    return json(peers.item_answer(request.json))


@app.get("/suspend/sleep")
async def suspend_sleep(request: Request) -> HTTPResponse:
    await asyncio.sleep(0)
    return text(peers.HELLO)


@app.get("/suspend/future")
async def suspend_future(request: Request) -> HTTPResponse:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return text(peers.HELLO)


@app.get("/stream")
async def stream(request: Request) -> None:
    response: Any = await request.respond(content_type="application/octet-stream")
    for _ in range(peers.CHUNK_COUNT):
        await response.send(peers.CHUNK)
    await response.eof()


@app.post("/upload")
async def upload(request: Request) -> HTTPResponse:
    return text(str(len(request.body)))


@app.get("/download")
async def download(request: Request) -> HTTPResponse:
    return raw(peers.MEBIBYTE, content_type="application/octet-stream")


def add_resource(index: int) -> None:
    async def resource(request: Request) -> HTTPResponse:
        return text(peers.route_answer(index))

    app.add_route(resource, peers.route_path(index), name=f"resource{index}")


def add_middleware(index: int) -> None:
    name, value = peers.middleware_header(index)

    @app.on_response
    async def add_header(request: Request, response: HTTPResponse) -> None:
        response.headers[name] = value


if peers.VARIANT == "routes":
    for number in range(peers.ROUTE_COUNT):
        add_resource(number)
if peers.VARIANT == "middleware":
    for number in range(peers.MIDDLEWARE_COUNT):
        add_middleware(number)

if __name__ == "__main__":
    app.run(host=peers.HOST, port=peers.PORT, single_process=True, access_log=False, motd=False, debug=False)
