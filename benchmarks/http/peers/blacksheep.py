"""BlackSheep on uvicorn; `_granian` runs the same app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from blacksheep import Application, Content, Request, Response, StreamedContent, json, text

from benchmarks.http import peers
from benchmarks.http.peers import _uvicorn

app = Application(show_error_details=False)
get, post = app.router.get, app.router.post


@get("/")
async def plaintext() -> Response:
    return text(peers.HELLO)


@get("/json")
async def message() -> Response:
    return json(peers.MESSAGE)


@get("/users/{int:user_id}")
async def user(user_id: int) -> Response:
    return json({"id": user_id})


@post("/items")
async def items(request: Request) -> Response:
    return json(peers.item_answer(await request.json()))


@get("/suspend/sleep")
async def suspend_sleep() -> Response:
    await asyncio.sleep(0)
    return text(peers.HELLO)


@get("/suspend/future")
async def suspend_future() -> Response:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return text(peers.HELLO)


@get("/stream")
async def stream() -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(peers.CHUNK_COUNT):
            yield peers.CHUNK

    return Response(200, content=StreamedContent(b"application/octet-stream", chunks))


@post("/upload")
async def upload(request: Request) -> Response:
    body = await request.read()
    return text(str(len(body or b"")))


@get("/download")
async def download() -> Response:
    return Response(200, content=Content(b"application/octet-stream", peers.MEBIBYTE))


def add_resource(index: int) -> None:
    @get(peers.route_path(index))
    async def resource() -> Response:
        return text(peers.route_answer(index))


def header_middleware(index: int) -> Any:
    name, value = (part.encode() for part in peers.middleware_header(index))

    async def add_header(request: Request, handler: Any) -> Response:
        response: Response = await handler(request)
        response.add_header(name, value)
        return response

    return add_header


if peers.VARIANT == "routes":
    for number in range(peers.ROUTE_COUNT):
        add_resource(number)
if peers.VARIANT == "middleware":
    for number in range(peers.MIDDLEWARE_COUNT):
        app.middlewares.append(header_middleware(number))

if __name__ == "__main__":
    # BlackSheep starts itself in the lifespan, so unlike for the other ASGI peers that is on.
    _uvicorn.run(app, lifespan="on")
