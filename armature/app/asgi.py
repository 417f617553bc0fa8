"""The app as an ASGI 3 callable: the same endpoints, driven by somebody else's server.

The server's task is the request's task, so that nothing of `_impl.dispatch` is needed here; what the connection does
with an endpoint's mode, its result and its errors is done again, for messages in place of bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import traceback
from collections.abc import AsyncIterator
from typing import Any

from armature._impl import dispatch, message
from armature._spec.plan import CALL_BARE, CALL_PARAMS, KIND_INT
from armature._spec.status import BODILESS
from armature.app.paths import below_root, quote_path
from armature.exceptions import ClientDisconnect, PayloadTooLarge
from armature.http.json import is_large
from armature.http.response import HttpResponse
from armature.routing.router import Router
from armature.types import Message, Receive, Scope, Send, Service

__all__ = ["ASGICarrier", "serve"]

_integer = re.compile("-?[0-9]{1,18}", re.ASCII).fullmatch

#: Fields that belong to the connection, which is the server's (RFC 9110 section 7.6.1, RFC 9112 section 6.1).
_CONNECTION_FIELDS = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})


async def serve(target: Router, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one ASGI connection.

    Args:
        target: The app, or a router alone.
        scope: The connection.
        receive: Gets its events.
        send: Sends ours.

    Raises:
        RuntimeError: The type of the connection is unknown.
    """
    kind = scope["type"]
    if kind == "http":
        await _Exchange(target.build(), scope, receive, send).run()
    elif kind == "lifespan":
        await _lifespan(target, receive, send)
    elif kind == "websocket":
        await receive()
        # Closing before accepting refuses the handshake with 403 (ASGI WebSocket 2.3).
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
    else:
        raise RuntimeError(f"unknown ASGI connection type {kind!r}")


async def _lifespan(target: Router, receive: Receive, send: Send) -> None:
    await receive()
    stack = contextlib.AsyncExitStack()
    try:
        await stack.enter_async_context(target.build().lifespan())
    except BaseException as error:
        await send({"type": "lifespan.startup.failed", "message": _explain(error)})
        if isinstance(error, Exception):
            return
        raise
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await stack.aclose()
    except BaseException as error:
        await send({"type": "lifespan.shutdown.failed", "message": _explain(error)})
        if isinstance(error, Exception):
            return
        raise
    await send({"type": "lifespan.shutdown.complete"})


def _explain(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class ASGICarrier:
    """What carries a request that came through ASGI.

    Args:
        app: The app that serves it.
        scope: The connection.
        receive: Gets its events.
    """

    __slots__ = ("_ahead", "_closed", "_complete", "_lock", "_receive", "_watcher", "app", "root_path", "scope")

    def __init__(self, app: Any, scope: Scope, receive: Receive) -> None:
        self.app = app
        self.scope = scope
        self.root_path: str = scope.get("root_path", "")
        self._receive = receive
        # ASGI has one queue for the body and for the end of the connection, and two parties that wait for them.
        self._lock = asyncio.Lock()
        self._ahead: Message | None = None
        self._complete = asyncio.Event()
        self._watcher: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def scheme(self) -> str:
        return self.scope.get("scheme", "http")  # type: ignore[no-any-return]

    @property
    def client(self) -> tuple[str, int] | None:
        client = self.scope.get("client")
        return None if client is None else (client[0], client[1])

    @property
    def server(self) -> tuple[str, int] | None:
        server = self.scope.get("server")
        # A Unix socket has a path and no port.
        return None if server is None or server[1] is None else (server[0], server[1])

    def is_disconnected(self) -> bool:
        """Whether the client is known to be gone; the first question starts looking."""
        if not self._closed:
            _ = self.watcher()
        return self._closed

    async def receive_body(self) -> Message:
        """Receive one event of the body.

        Raises:
            ClientDisconnect: The client went away before the body was complete.
        """
        async with self._lock:
            event, self._ahead = self._ahead, None
            if event is None:
                event = await self._next()
        if event["type"] == "http.disconnect":
            raise ClientDisconnect("the client went away before the request's body was complete")
        return event

    async def _next(self) -> Message:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self._closed = True
            self._complete.set()
        elif not event.get("more_body", False):
            self._complete.set()
        return event

    async def _watch(self) -> None:
        # Receive one event ahead: for most requests it says that there is no body. If there is one, whoever reads it
        # is in charge until its end.
        async with self._lock:
            if self._ahead is None and not self._complete.is_set():
                self._ahead = await self._next()
        await self._complete.wait()
        while not self._closed:
            await self._next()

    def watcher(self) -> asyncio.Future[None]:
        """The task that waits for the client to go away."""
        if self._watcher is None:
            self._watcher = asyncio.ensure_future(self._watch())
        return self._watcher

    def close(self) -> None:
        """Stop looking."""
        watcher = self._watcher
        if watcher is not None and not watcher.cancel() and not watcher.cancelled():
            # A server whose `receive` failed has told its own log.
            watcher.exception()


class _Body:
    """The receiver of a request's body."""

    __slots__ = ("_carrier", "_limit", "_size", "_started", "_whole")

    def __init__(self, carrier: ASGICarrier, limit: int) -> None:
        self._carrier = carrier
        self._limit = limit
        self._size = 0
        self._started = False
        self._whole: bytes | None = None

    async def read(self) -> bytes:
        if self._whole is None:
            self._whole = b"".join([chunk async for chunk in self])
        return self._whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._whole is not None:
            if self._whole:
                yield self._whole
            return
        if self._started:
            raise RuntimeError("the request's body has already been read as a stream; it can be read once")
        self._started = True
        more = True
        while more:
            event = await self._carrier.receive_body()
            more = event.get("more_body", False)
            chunk = event.get("body", b"")
            self._size += len(chunk)
            if self._size > self._limit:
                raise PayloadTooLarge(self._limit)
            if chunk:
                yield chunk


class _Exchange:
    """One request and its response."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.service = service
        self.scope = scope
        self.carrier = ASGICarrier(service.app, scope, receive)
        self.send = send
        self.started = False

    async def run(self) -> None:
        try:
            await self._serve()
        finally:
            self.carrier.close()

    async def _serve(self) -> None:
        scope = self.scope
        raw_path = _raw_path(scope)
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        match = self.service.router.find(scope["method"], below_root(raw_path, self.carrier.root_path))
        endpoint: dispatch.Endpoint = match.endpoint
        body = _Body(self.carrier, endpoint.body_limit)
        request = self.service.request_class(
            self.carrier,
            scope["method"],
            raw_path,
            scope.get("query_string", b""),
            headers,
            scope.get("http_version", "1.1"),
            None,
            body,
        )
        request.endpoint = endpoint
        request.bind(match.names, match.values)
        try:
            length = request.header(b"content-length")
            if length is not None and length.isdigit() and int(length) > endpoint.body_limit:
                raise PayloadTooLarge(endpoint.body_limit)
            value = _call(endpoint, request, match.values)
            response = await self._prepared(request, await _settle(endpoint, value))
            await self._respond(request, response)
        except Exception as error:
            if self.started:
                # The head is out; the server must not end the body as if it were complete.
                raise
            response = await _settle(endpoint, endpoint.on_error(request, error))
            await self._respond(request, await self._prepared(request, response))

    async def _prepared(self, request: message.Request, response: message.Response) -> message.Response:
        prepare = getattr(response, "prepare", None)
        return response if prepare is None else await prepare(request)

    async def _respond(self, request: message.Request, response: message.Response) -> None:
        status = response.status
        fields = [field for field in response.fields() if field[0] not in _CONNECTION_FIELDS]
        bodiless = status in BODILESS
        stream = response.stream
        if bodiless:
            fields = [field for field in fields if field[0] != b"content-length"]
        elif stream is None:
            given = any(name == b"content-length" for name, _ in fields)
            # A HEAD response may say the length of a body that it does not have (RFC 9110 section 9.3.2).
            if not (request.method == "HEAD" and given and not response.body):
                fields = [field for field in fields if field[0] != b"content-length"]
                fields.append((b"content-length", str(len(response.body)).encode()))
        start = {"type": "http.response.start", "status": status, "headers": fields}
        silent = bodiless or request.method == "HEAD"
        if stream is None or silent:
            if stream is not None:
                await _close(stream)
            self.started = True
            await self.send(start)
            await self.send({"type": "http.response.body", "body": b"" if silent else response.body})
            return
        try:
            await self._stream(start, stream)
        finally:
            await _close(stream)

    async def _stream(self, start: Message, stream: Any) -> None:
        pump = asyncio.ensure_future(self._pump(start, stream))
        watcher = self.carrier.watcher()
        try:
            await asyncio.wait((pump, watcher), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not pump.done():
                pump.cancel()
                await asyncio.wait((pump,))
        if not pump.cancelled():
            pump.result()

    async def _pump(self, start: Message, stream: Any) -> None:
        self.started = True
        await self.send(start)
        try:
            async for piece in _pieces(stream):
                data = piece.encode("utf-8") if isinstance(piece, str) else bytes(piece)
                if data:
                    await self.send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError as error:
            if self.carrier.is_disconnected() or isinstance(error, ConnectionError):
                return
            raise
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def _raw_path(scope: Scope) -> bytes:
    raw = scope.get("raw_path")
    if raw:
        # Some servers leave the query in it.
        return bytes(raw).partition(b"?")[0]
    return quote_path(scope["path"])


def _call(endpoint: dispatch.Endpoint, request: message.Request, values: tuple[str, ...]) -> Any:
    if endpoint.mode == CALL_BARE:
        return endpoint.call()
    if endpoint.mode != CALL_PARAMS:
        return endpoint.call(request)
    arguments: list[Any] = []
    for kind, value in zip(endpoint.kinds, values, strict=True):
        if kind == KIND_INT:
            if not _integer(value):
                assert endpoint.plan is not None
                return endpoint.plan(request)
            arguments.append(int(value))
        else:
            arguments.append(value)
    return endpoint.call(*arguments)


async def _settle(endpoint: dispatch.Endpoint, value: Any) -> message.Response:
    """Turn what a handler returned into a response, by the rules of `Endpoint.native` and `Endpoint.encode`."""
    while inspect.isawaitable(value):
        value = await value
    if isinstance(value, message.Response):
        return value
    if endpoint.native:
        kind = type(value)
        status = endpoint.status
        if (kind is dict or kind is list) and not is_large(value):
            return HttpResponse(endpoint.dumps(value), status, None, "application/json")
        if kind is str:
            return HttpResponse(value, status)
        if kind is bytes:
            return HttpResponse(value, status, None, "application/octet-stream")
        if value is None:
            return HttpResponse(b"", 204 if status == 200 else status)
    value = endpoint.encode(value)
    return await value if inspect.isawaitable(value) else value  # type: ignore[no-any-return]


async def _pieces(stream: Any) -> AsyncIterator[Any]:
    if hasattr(stream, "__aiter__"):
        async for piece in stream:
            yield piece
        return
    if isinstance(stream, (list, tuple)):
        for piece in stream:
            yield piece
        return
    # A plain iterator may block.
    iterator = iter(stream)
    while True:
        piece = await asyncio.to_thread(next, iterator, _END)
        if piece is _END:
            return
        yield piece


_END = object()


async def _close(stream: Any) -> None:
    close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
    if close is None:
        return
    result = close()
    if inspect.isawaitable(result):
        await result
