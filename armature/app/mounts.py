"""Run any ASGI app as a route: what it sends becomes an `HttpResponse`, what it receives comes from the request.

The app runs in a task of its own, one step ahead of the client at most: its `send` waits until the chunk before has
been taken, so that a slow client slows it down. When the response is closed early, it sees `http.disconnect`, its
`send` raises `OSError` (ASGI 2.4), and after a grace period it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from armature._impl import message
from armature.exceptions import ConfigurationError
from armature.http.response import HttpResponse
from armature.types import ASGIApp, Message

__all__ = ["ASGIMount"]

logger = logging.getLogger("armature.app")

#: Seconds that an app has to notice that its client is gone, before it is cancelled.
GRACE = 1.0


class ASGIMount:
    """An ASGI app below a path.

    Args:
        app: The ASGI app.
        path: The path template below which it stands.
        owner: The `App` that it is mounted in.
    """

    def __init__(self, app: ASGIApp, path: str, owner: Any) -> None:
        self.app = app
        self.path = path
        self.depth = len([part for part in path.split("/") if part])
        self.owner = owner
        #: What the app put into its lifespan state; every scope gets a copy.
        self.state: dict[str, Any] = {}

    def scope(self, request: Any) -> dict[str, Any]:
        """Make the connection scope of a request (ASGI HTTP 2.4)."""
        raw_path: bytes = request.raw_path
        outer = getattr(request.connection, "root_path", "")
        # The prefix may have parameters, so that it is taken from the request: as many segments as the template has.
        own = b"/".join(raw_path[len(outer.encode()) :].split(b"/")[: self.depth + 1])
        # What a proxy took off the path, which the request was told of (RFC 3875 calls it SCRIPT_NAME).
        seen = getattr(request, "root_path", "")
        root_path = seen + outer + message.Request(None, "GET", own).path
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version,
            "method": request.method,
            "scheme": request.scheme,
            "path": seen + request.path,
            "raw_path": seen.encode() + raw_path,
            "query_string": request.query_string,
            "root_path": root_path,
            "headers": list(request.raw_headers),
            "client": request.client,
            "server": request.server,
            "state": dict(self.state),
            "extensions": {},
        }

    async def handle(self, request: Any) -> message.Response:
        """Run the app for one request, up to the beginning of its response."""
        exchange = _Exchange(request)
        task = asyncio.ensure_future(self.app(self.scope(request), exchange.receive, exchange.send))
        exchange.task = task
        task.add_done_callback(exchange.done)
        try:
            await exchange.wait()
        except BaseException:
            exchange.close()
            task.cancel()
            raise
        if exchange.chunk is None:
            # It ended without an answer; its exception, if there was one, goes through the middleware around here.
            error = None if task.cancelled() else task.exception()
            if error is not None:
                raise error
            raise RuntimeError(f"the ASGI app mounted at {self.path} ended without sending a response")
        return exchange.response()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run the app's own life around the block; an app that knows no lifespan is left alone."""
        life = _Life(self.app, self.state)
        await life.startup()
        try:
            yield
        finally:
            await life.shutdown()

    def __repr__(self) -> str:
        return f"<ASGIMount {self.path} {self.app!r}>"


class _Exchange:
    """One request and response of a mounted app."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.body: AsyncIterator[bytes] | None = None
        self.body_complete = False
        self.start: Message | None = None
        self.chunk: bytes | None = None
        self.complete = False
        self.closed = asyncio.Event()
        self.changed = asyncio.Event()
        self.taken = asyncio.Event()
        self.task: asyncio.Future[None] | None = None

    # ---- the app's side

    async def receive(self) -> Message:
        if not self.body_complete:
            if self.body is None:
                self.body = aiter(self.request.stream())
            try:
                chunk = await anext(self.body)
            except StopAsyncIteration:
                self.body_complete = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self.request.body_bytes is not None:
                self.body_complete = True
            return {"type": "http.request", "body": chunk, "more_body": not self.body_complete}
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Message) -> None:
        kind = event["type"]
        if kind == "http.response.start":
            if self.start is not None:
                raise RuntimeError("the mounted ASGI app sent http.response.start twice")
            self.start = event
            return
        if kind != "http.response.body":
            raise RuntimeError(f"the mounted ASGI app sent {kind!r}, which is no message of an HTTP response")
        if self.start is None:
            raise RuntimeError("the mounted ASGI app sent http.response.body before http.response.start")
        if self.complete:
            raise RuntimeError("the mounted ASGI app sent http.response.body after the end of the response")
        if self.closed.is_set():
            raise OSError("the client has gone away")
        body = bytes(event.get("body", b""))
        more = event.get("more_body", False)
        if more and not body:
            return
        self.taken.clear()
        self.chunk = body
        self.complete = not more
        self.changed.set()
        if more:
            await self.taken.wait()
            if self.chunk is not None:
                raise OSError("the client has gone away")

    # ---- the response's side

    def done(self, task: asyncio.Future[None]) -> None:
        """Note that the app has ended; nobody asks for an exception once the response is complete, so log it."""
        self.changed.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self.complete:
            logger.error("the mounted ASGI app failed after its response", exc_info=error)

    async def wait(self) -> None:
        """Wait for a chunk, or for the end of the app."""
        await self.changed.wait()

    def response(self) -> message.Response:
        assert self.start is not None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.start.get("headers", ())]
        status = self.start["status"]
        if self.complete:
            chunk = self.chunk or b""
            self.close()
            if self.request.method != "HEAD" or chunk:
                # The length of a HEAD response is that of the body GET would have, which only the app knows.
                headers = [pair for pair in headers if pair[0].lower() != "content-length"]
            return HttpResponse(chunk, status, headers)
        return HttpResponse.stream(_Chunks(self), status, headers, None)

    async def next_chunk(self) -> bytes | None:
        """Wait for the next chunk and let the app go on; None at the end.

        Raises:
            RuntimeError: The app ended in the middle of its response.
        """
        while self.chunk is None:
            if self.complete:
                return None
            assert self.task is not None
            if self.task.done():
                error = None if self.task.cancelled() else self.task.exception()
                raise error or RuntimeError("the mounted ASGI app ended in the middle of its response")
            self.changed.clear()
            await self.changed.wait()
        chunk, self.chunk = self.chunk, None
        self.taken.set()
        return chunk

    def close(self) -> None:
        """Tell the app that nobody takes any more."""
        self.closed.set()
        self.taken.set()


class _Chunks:
    """The body of a streamed response; closing it early lets the app know."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.next_chunk()
        if chunk is None:
            self._exchange.close()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        exchange = self._exchange
        exchange.close()
        task = exchange.task
        if task is not None and not task.done() and not exchange.complete:
            await asyncio.wait((task,), timeout=GRACE)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
            if not task.cancelled():
                # Whatever it raised on being told that the client is gone is nobody's fault.
                task.exception()


class _Life:
    """The lifespan protocol, from the server's side (ASGI lifespan 2.0)."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self.app = app
        self.state = state
        self.events: asyncio.Queue[Message] = asyncio.Queue()
        self.answers: asyncio.Queue[Message | None] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.task = asyncio.ensure_future(self._run(scope))
        self.events.put_nowait({"type": "lifespan.startup"})
        answer = await self.answers.get()
        if answer is None:
            # It raised, or returned: an app is free not to know the protocol.
            self.task = None
        elif answer["type"] == "lifespan.startup.failed":
            raise ConfigurationError(f"a mounted ASGI app did not start: {answer.get('message', '')}")

    async def shutdown(self) -> None:
        if self.task is None:
            return
        self.events.put_nowait({"type": "lifespan.shutdown"})
        answer = await self.answers.get()
        await asyncio.wait((self.task,))
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            logger.error("a mounted ASGI app did not stop as it should: %s", answer.get("message", ""))

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self.app(scope, self.events.get, self.answers.put)
        except Exception as error:
            logger.debug("a mounted ASGI app knows no lifespan: %r", error)
        finally:
            self.answers.put_nowait(None)
