"""Raw ASGI: no framework, a dictionary of paths; what is left is the server (`BENCH_SERVER` chooses which)."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from benchmarks.http import peers

TEXT = (b"content-type", b"text/plain; charset=utf-8")
JSON = (b"content-type", b"application/json")
BYTES = (b"content-type", b"application/octet-stream")


async def answer(send: Any, kind: tuple[bytes, bytes], body: bytes) -> None:
    # With its length, as frameworks send it: without one uvicorn would frame it in chunks.
    headers = [kind, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    pieces = []
    more = True
    while more:
        event = await receive()
        pieces.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(pieces)


async def plaintext(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, TEXT, peers.HELLO_BYTES)


async def json(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, JSON, orjson.dumps(peers.MESSAGE))


async def items(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, JSON, orjson.dumps(peers.item_answer(orjson.loads(await read(receive)))))


async def suspend_sleep(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0)
    await answer(send, TEXT, peers.HELLO_BYTES)


async def suspend_future(scope: Any, receive: Any, send: Any) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    await answer(send, TEXT, peers.HELLO_BYTES)


async def stream(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [BYTES]})
    for _ in range(peers.CHUNK_COUNT):
        await send({"type": "http.response.body", "body": peers.CHUNK, "more_body": True})
    await send({"type": "http.response.body"})


async def upload(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, TEXT, b"%d" % len(await read(receive)))


async def download(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, BYTES, peers.MEBIBYTE)


def resource(index: int) -> Any:
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, TEXT, peers.route_answer(index).encode())

    return handler


handlers: dict[tuple[str, str], Any] = {
    ("GET", "/"): plaintext,
    ("GET", "/json"): json,
    ("POST", "/items"): items,
    ("GET", "/suspend/sleep"): suspend_sleep,
    ("GET", "/suspend/future"): suspend_future,
    ("GET", "/stream"): stream,
    ("POST", "/upload"): upload,
    ("GET", "/download"): download,
}
if peers.VARIANT == "routes":
    handlers |= {("GET", peers.route_path(index)): resource(index) for index in range(peers.ROUTE_COUNT)}


async def app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    handler = handlers.get((scope["method"], path))
    if handler is not None:
        await handler(scope, receive, send)
    elif path.startswith("/users/") and path[7:].isdecimal():
        await answer(send, JSON, orjson.dumps({"id": int(path[7:])}))
    else:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


if __name__ == "__main__":
    if peers.SERVER == "armature":
        from benchmarks.http.peers._hosting import run
    else:
        from benchmarks.http.peers._uvicorn import run
    run(app)
