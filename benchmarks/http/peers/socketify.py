"""socketify: Python handlers on the C++ server uWebSockets."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from socketify import App

from benchmarks.http import peers

TEXT, JSON, BYTES = "text/plain; charset=utf-8", "application/json", "application/octet-stream"

app = App()


def send_text(res: Any, body: str) -> None:
    res.write_header("content-type", TEXT)
    res.end(body)


def send_json(res: Any, value: Any) -> None:
    res.write_header("content-type", JSON)
    res.end(orjson.dumps(value))


def plaintext(res: Any, req: Any) -> None:
    send_text(res, peers.HELLO)


def json(res: Any, req: Any) -> None:
    send_json(res, peers.MESSAGE)


def user(res: Any, req: Any) -> None:
    user_id = req.get_parameter(0)
    if user_id.isdecimal():
        send_json(res, {"id": int(user_id)})
    else:
        res.write_status(404).end("")


def read_body(res: Any, answer: Any) -> None:
    # `await res.get_data()` would read better; under load the process dies in it, as of 0.0.31.
    chunks: list[bytes] = []

    def on_data(res: Any, chunk: bytes | None, is_end: bool) -> None:
        if chunk:
            chunks.append(bytes(chunk))
        if is_end:
            answer(res, b"".join(chunks))

    res.on_data(on_data)


def items(res: Any, req: Any) -> None:
    read_body(res, lambda res, body: send_json(res, peers.item_answer(orjson.loads(body))))


async def suspend_sleep(res: Any, req: Any) -> None:
    await asyncio.sleep(0)
    send_text(res, peers.HELLO)


async def suspend_future(res: Any, req: Any) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future
    send_text(res, peers.HELLO)


def stream(res: Any, req: Any) -> None:
    res.write_header("content-type", BYTES)
    for _ in range(peers.CHUNK_COUNT):
        res.write(peers.CHUNK)
    res.end("")


def upload(res: Any, req: Any) -> None:
    read_body(res, lambda res, body: send_text(res, str(len(body))))


def download(res: Any, req: Any) -> None:
    res.write_header("content-type", BYTES)
    res.end(peers.MEBIBYTE)


def resource(index: int) -> Any:
    def answer(res: Any, req: Any) -> None:
        send_text(res, peers.route_answer(index))

    return answer


app.get("/", plaintext)
app.get("/json", json)
app.get("/users/:user_id", user)
app.post("/items", items)
app.get("/suspend/sleep", suspend_sleep)
app.get("/suspend/future", suspend_future)
app.get("/stream", stream)
app.post("/upload", upload)
app.get("/download", download)
if peers.VARIANT == "routes":
    for number in range(peers.ROUTE_COUNT):
        app.get(peers.route_path(number), resource(number))
if peers.VARIANT == "middleware":
    raise SystemExit("socketify's middleware runs before the handler and cannot change its response")

if __name__ == "__main__":
    app.listen({"port": peers.PORT, "host": peers.HOST}, lambda config: None)
    app.run()
