"""Armature's whole App on its own server; `ARMATURE_PURE` chooses the twins, `BENCH_LOOP` the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from json import loads
from typing import Any

from armature import App, HttpRequest, HttpResponse
from benchmarks.http import peers

if peers.WITHOUT:
    from benchmarks.http.switches import SWITCHES

    SWITCHES[peers.WITHOUT].take_out()

app = App()


@app.get("/")
async def plaintext() -> str:
    return peers.HELLO


@app.get("/json")
async def json() -> dict[str, str]:
    return peers.MESSAGE


@app.get("/users/{user_id}")
async def user(user_id: int) -> dict[str, int]:
    return {"id": user_id}


@app.post("/items")
async def items(req: HttpRequest) -> HttpResponse:
    return HttpResponse.json(peers.item_answer(await req.json()))


@app.get("/suspend/sleep")
async def suspend_sleep() -> str:
    await asyncio.sleep(0)
    return peers.HELLO


@app.get("/suspend/future")
async def suspend_future() -> str:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return peers.HELLO


@app.get("/stream")
async def stream() -> HttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(peers.CHUNK_COUNT):
            yield peers.CHUNK

    return HttpResponse.stream(chunks(), content_type="application/octet-stream")


@app.post("/upload")
async def upload(req: HttpRequest) -> str:
    return str(len(await req.body()))


@app.get("/download")
async def download() -> bytes:
    return peers.MEBIBYTE


def add_resource(index: int) -> None:
    @app.get(peers.route_path(index))
    async def resource() -> str:
        return peers.route_answer(index)


def add_middleware(index: int) -> None:
    name, value = peers.middleware_header(index)

    @app.middleware
    async def add_header(req: HttpRequest, call_next: Any) -> HttpResponse:
        response: HttpResponse = await call_next(req)
        response.headers[name] = value
        return response


if peers.VARIANT == "more":

    @app.get("/headers")
    async def headers(req: HttpRequest) -> str:
        return str(len(req.raw_headers))

    @app.get("/search")
    async def search(q: str = "", limit: int = 10) -> dict[str, Any]:
        return {"q": q, "limit": limit}

    @app.get("/api/v1/shops/{shop}/items/{item}")
    async def deep(shop: int, item: int) -> dict[str, int]:
        return {"item": item}


if peers.VARIANT == "routes":
    for number in range(peers.ROUTE_COUNT):
        add_resource(number)
if peers.VARIANT == "middleware":
    for number in range(peers.MIDDLEWARE_COUNT):
        add_middleware(number)


def serve() -> None:
    # Options of the server, as JSON: how `python -m benchmarks ablate` switches things off.
    app.run(peers.HOST, peers.PORT, loop=peers.LOOP, **loads(os.environ.get("BENCH_OPTIONS", "{}")))


if __name__ == "__main__":
    serve()
