"""The middleware of the ASGI peers, in the form that costs them least: plain ASGI, no `BaseHTTPMiddleware`."""

from __future__ import annotations

from typing import Any

from benchmarks.http.peers import middleware_header


class HeaderMiddleware:
    """Add one header to every response."""

    def __init__(self, app: Any, index: int) -> None:
        name, value = middleware_header(index)
        self.app = app
        self.header = (name.encode(), value.encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def add_header(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self.header]
            await send(message)

        await self.app(scope, receive, add_header)
