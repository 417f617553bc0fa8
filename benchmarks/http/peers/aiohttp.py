"""aiohttp's own server, with its compiled parser."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from benchmarks.http import peers


async def plaintext(request: web.Request) -> web.Response:
    return web.Response(text=peers.HELLO)


async def json(request: web.Request) -> web.Response:
    return web.json_response(peers.MESSAGE)


async def user(request: web.Request) -> web.Response:
    return web.json_response({"id": int(request.match_info["user_id"])})


async def items(request: web.Request) -> web.Response:
    return web.json_response(peers.item_answer(await request.json()))


async def suspend_sleep(request: web.Request) -> web.Response:
    await asyncio.sleep(0)
    return web.Response(text=peers.HELLO)


async def suspend_future(request: web.Request) -> web.Response:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    return web.Response(text=peers.HELLO)


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
    await response.prepare(request)
    for _ in range(peers.CHUNK_COUNT):
        await response.write(peers.CHUNK)
    await response.write_eof()
    return response


async def upload(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def download(request: web.Request) -> web.Response:
    return web.Response(body=peers.MEBIBYTE, content_type="application/octet-stream")


def resource(index: int) -> Any:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=peers.route_answer(index))

    return answer


def header_middleware(index: int) -> Any:
    name, value = peers.middleware_header(index)

    @web.middleware
    async def add_header(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        response.headers[name] = value
        return response

    return add_header


def main() -> None:
    if peers.LOOP == "uvloop":
        import uvloop

        loop: Any = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    middlewares = []
    if peers.VARIANT == "middleware":
        middlewares = [header_middleware(index) for index in range(peers.MIDDLEWARE_COUNT)]
    app = web.Application(middlewares=middlewares, client_max_size=peers.BODY_LIMIT)
    app.add_routes(
        [
            web.get("/", plaintext),
            web.get("/json", json),
            web.get(r"/users/{user_id:\d+}", user),
            web.post("/items", items),
            web.get("/suspend/sleep", suspend_sleep),
            web.get("/suspend/future", suspend_future),
            web.get("/stream", stream),
            web.post("/upload", upload),
            web.get("/download", download),
        ]
    )
    if peers.VARIANT == "routes":
        app.add_routes([web.get(peers.route_path(index), resource(index)) for index in range(peers.ROUTE_COUNT)])
    web.run_app(app, host=peers.HOST, port=peers.PORT, loop=loop, access_log=None, print=None)


if __name__ == "__main__":
    main()
