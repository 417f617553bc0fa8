"""Raw RSGI, run by `_granian`: no framework, a dictionary of paths."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from benchmarks.http import peers

TEXT = [("content-type", "text/plain; charset=utf-8")]
JSON = [("content-type", "application/json")]
BYTES = [("content-type", "application/octet-stream")]


async def plaintext(protocol: Any) -> None:
    protocol.response_str(200, TEXT, peers.HELLO)


async def json(protocol: Any) -> None:
    protocol.response_bytes(200, JSON, orjson.dumps(peers.MESSAGE))


async def items(protocol: Any) -> None:
    protocol.response_bytes(200, JSON, orjson.dumps(peers.item_answer(orjson.loads(await protocol()))))


async def suspend_sleep(protocol: Any) -> None:
    await asyncio.sleep(0)
    protocol.response_str(200, TEXT, peers.HELLO)


async def suspend_future(protocol: Any) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    protocol.response_str(200, TEXT, peers.HELLO)


async def stream(protocol: Any) -> None:
    transport = protocol.response_stream(200, BYTES)
    for _ in range(peers.CHUNK_COUNT):
        await transport.send_bytes(peers.CHUNK)


async def upload(protocol: Any) -> None:
    protocol.response_str(200, TEXT, str(len(await protocol())))


async def download(protocol: Any) -> None:
    protocol.response_bytes(200, BYTES, peers.MEBIBYTE)


def resource(index: int) -> Any:
    async def answer(protocol: Any) -> None:
        protocol.response_str(200, TEXT, peers.route_answer(index))

    return answer


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


async def app(scope: Any, protocol: Any) -> None:
    path = scope.path
    handler = handlers.get((scope.method, path))
    if handler is not None:
        await handler(protocol)
    elif path.startswith("/users/") and path[7:].isdecimal():
        protocol.response_bytes(200, JSON, orjson.dumps({"id": int(path[7:])}))
    else:
        protocol.response_empty(404, [])
