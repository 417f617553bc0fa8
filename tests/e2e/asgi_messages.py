"""Apps that send what a test tells them to, and the messages they are made of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["BODY", "START", "App", "body", "collect", "echo", "http_only", "sending", "start"]

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"Hello"}


def start(*headers: tuple[Any, Any], status: Any = 200, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: Any = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sending(*messages: Any) -> App:
    """An app that sends these messages and returns."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            for message in messages:
                await send(message)

    return app


def http_only(handler: App) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await handler(scope, receive, send)

    return app


async def collect(receive: Any) -> tuple[bytes, list[int]]:
    """Return the body of a request, and the sizes of the pieces it came in."""
    pieces = []
    while True:
        event = await receive()
        assert event["type"] == "http.request"
        pieces.append(event["body"])
        if not event["more_body"]:
            return b"".join(pieces), [len(piece) for piece in pieces]


@http_only
async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's body."""
    data, _ = await collect(receive)
    await send(START)
    await send(body(data))
