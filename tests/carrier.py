"""Carry requests to a built app, as the server does and as an ASGI server does, without either."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from armature._impl import message
from armature._spec.plan import CALL_BARE, CALL_PARAMS, KIND_INT

Headers = Iterable[tuple[str, str]]


class Carrier:
    """What stands where the connection would stand."""

    scheme = "http"
    client = ("127.0.0.1", 50000)
    server = ("127.0.0.1", 8000)

    def __init__(self, app: Any) -> None:
        self.app = app

    def is_disconnected(self) -> bool:
        return False


class Answer:
    """A response, complete."""

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key == name.encode()]
        return found[0].decode("latin-1") if found else None

    def headers(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.fields if key == name.encode()]

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body!r}>"


def split(target: str) -> tuple[bytes, bytes]:
    path, _, query = target.partition("?")
    return path.encode("latin-1"), query.encode("latin-1")


def lowered(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class Reader:
    """A body that is not complete when the handler is called."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.body

    async def __aiter__(self) -> Any:
        for start in range(0, len(self.body), 4):
            await asyncio.sleep(0)
            yield self.body[start : start + 4]


async def collect(stream: Any) -> bytes:
    if hasattr(stream, "__aiter__"):
        pieces = [piece.encode() if isinstance(piece, str) else piece async for piece in stream]
    else:
        pieces = [piece.encode() if isinstance(piece, str) else piece for piece in stream]
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if close is not None:
        result = close()
        if inspect.isawaitable(result):
            await result
    return b"".join(pieces)


async def settle(endpoint: Any, value: Any) -> message.Response:
    while inspect.isawaitable(value):
        value = await value
    if isinstance(value, message.Response):
        return value
    if endpoint.native:
        if type(value) in (dict, list):
            return message.Response(endpoint.dumps(value), endpoint.status, None, "application/json")
        if type(value) is str:
            return message.Response(value, endpoint.status)
        if type(value) is bytes:
            return message.Response(value, endpoint.status, None, "application/octet-stream")
        if value is None:
            return message.Response(b"", 204 if endpoint.status == 200 else endpoint.status)
    response = endpoint.encode(value)
    if inspect.isawaitable(response):
        response = await response
    assert isinstance(response, message.Response)
    return response


def called(endpoint: Any, request: Any, values: tuple[str, ...]) -> Any:
    if endpoint.mode == CALL_BARE:
        return endpoint.call()
    if endpoint.mode == CALL_PARAMS:
        arguments: list[Any] = []
        for kind, value in zip(endpoint.kinds, values, strict=True):
            if kind == KIND_INT:
                if not re.fullmatch("-?[0-9]{1,18}", value, re.ASCII):
                    return endpoint.plan(request)
                arguments.append(int(value))
            else:
                arguments.append(value)
        return endpoint.call(*arguments)
    return endpoint.call(request)


async def native_ask(target: Any, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
    """Do what the connection does: find, call by mode, encode, and let `on_error` answer exceptions."""
    service = target.build()
    raw_path, query = split(path)
    match = service.router.find(method, raw_path)
    endpoint = match.endpoint
    request = service.request_class(
        Carrier(service.app), method, raw_path, query, lowered(headers), "1.1", None if body else b"", Reader(body)
    )
    request.endpoint = endpoint
    request.bind(match.names, match.values)
    try:
        response = await settle(endpoint, called(endpoint, request, match.values))
        content = response.body if response.stream is None else await collect(response.stream)
    except Exception as error:
        response = await settle(endpoint, endpoint.on_error(request, error))
        content = response.body
    if method == "HEAD" or response.status in (204, 304):
        content = b""
    return Answer(response.status, response.fields(), content)


async def asgi_ask(app: Any, method: str, path: str, headers: Headers = (), body: bytes = b"", **scope: Any) -> Answer:
    """Call an ASGI app with one request."""
    raw_path, query = split(path)
    events = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []
    ended = asyncio.Event()

    async def receive() -> Any:
        if events:
            return events.pop(0)
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)

    connection = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": message.Request(None, method, raw_path).path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": lowered(headers),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        **scope,
    }
    await app(connection, receive, send)
    ended.set()
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert [event.get("more_body", False) for event in rest] == [True] * (len(rest) - 1) + [False]
    fields = [(bytes(name), bytes(value)) for name, value in start["headers"]]
    return Answer(start["status"], fields, b"".join(event.get("body", b"") for event in rest))


def asker(way: str) -> Callable[..., Answer]:
    """Make a function that asks synchronously, natively or through ASGI."""
    ask = native_ask if way == "native" else asgi_ask

    def run(target: Any, path: str, method: str = "GET", headers: Headers = (), body: bytes = b"") -> Answer:
        return asyncio.run(ask(target, method, path, headers, body))

    return run
