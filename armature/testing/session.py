"""An app running in this process, and connections to it that carry real HTTP/1.1 bytes.

A session lives on one event loop: it starts the app's lifespan, gives every connection a protocol of the server's and
the client's end of an in-memory transport, and keeps idle connections for the next request, as a browser does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextvars import Context
from typing import Any, NoReturn

from armature.server.config import ServerConfig
from armature.server.lifespan import Lifespan
from armature.server.protocol import HTTPProtocol
from armature.server.state import ServerState
from armature.testing.errors import ClientError, ConnectionClosed, InvalidResponse
from armature.testing.transport import MemoryTransport
from armature.testing.wire import ResponseHead, ResponseParser, encode_chunk

__all__ = ["Channel", "Exchange", "Session", "raise_from_app"]

#: Turns of the loop that an answered request gets to wind up before the client goes on.
SETTLE_TURNS = 64

Body = bytes | Iterable[bytes] | AsyncIterable[bytes]


class ObservedProtocol(HTTPProtocol):
    """The server's protocol, which also tells the test what went wrong inside the app.

    Args:
        server: What the server's connections share.
    """

    def __init__(self, server: ServerState) -> None:
        super().__init__(server)
        #: What nobody handled, oldest first.
        self.raised: list[BaseException] = []

    def unhandled(self, request: Any, error: BaseException) -> None:
        """Note an exception that left the handler and that no exception handler took."""
        self.raised.append(error)

    def handler_failed(self, request: Any, error: BaseException) -> None:
        super().handler_failed(request, error)
        self.raised.append(error)

    def stream_failed(self, error: BaseException) -> None:
        super().stream_failed(error)
        self.raised.append(error)


class Session:
    """An app that was started on the running loop.

    Args:
        app: What has `build()`, or the service itself.
        client: Address and port that requests seem to come from.
        config: Options of the server.
    """

    def __init__(self, app: Any, *, client: tuple[str, int], config: ServerConfig) -> None:
        self._app = app
        self._client = client
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._service: Any = None
        self._life: Lifespan
        self._states: dict[bool, ServerState] = {}
        self._channels: set[Channel] = set()
        self._idle: dict[tuple[bool, str], list[Channel]] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the app lives on."""
        return self._loop

    async def start(self) -> None:
        """Build the app and run the first half of its lifespan; what that raises is raised here."""
        self._service = self._app.build() if hasattr(self._app, "build") else self._app
        self._life = Lifespan(self._service)
        await self._life.start()

    async def close(self) -> None:
        """End all connections and run the second half of the lifespan; what that raises is raised here."""
        for channel in list(self._channels):
            channel.reset()
        self._idle.clear()
        # Handlers that were cut off get the chance to see it before the app shuts down.
        await asyncio.sleep(0)
        try:
            await self._life.stop()
        finally:
            for state in self._states.values():
                # It ends a Task of the dispatcher, which cannot be done from inside another one.
                self._loop.call_soon(state.close)
            self._states.clear()
            await asyncio.sleep(0)

    # Connections.

    def connect(self, secure: bool, authority: str) -> Channel:
        """Return an idle connection to this origin, or a new one."""
        idle = self._idle.get((secure, authority), [])
        while idle:
            channel = idle.pop()
            if channel.usable:
                return channel
            channel.reset()
        return self.open(secure, authority)

    def open(self, secure: bool, authority: str) -> Channel:
        """Return a new connection."""
        channel = Channel(self, self._state(secure), self._life.context, self._client, secure, authority)
        self._channels.add(channel)
        return channel

    def release(self, channel: Channel) -> None:
        """Keep a connection for the next request."""
        self._idle.setdefault((channel.secure, channel.authority), []).append(channel)

    def forget(self, channel: Channel) -> None:
        """Drop a connection that is over."""
        self._channels.discard(channel)

    def _state(self, secure: bool) -> ServerState:
        state = self._states.get(secure)
        if state is None:
            # Every request gets a copy of the context that the start-up ran in.
            context = self._life.context.copy()
            state = ServerState(self._service, self._config, self._loop, "https" if secure else "http", context)
            self._states[secure] = state
        return state


class Channel:
    """The client's end of one connection.

    Args:
        session: Whose connection it is.
        state: What the server's connections share.
        context: The context that the server's protocol runs in.
        client: Address and port that the connection seems to come from.
        secure: Whether it seems to be a TLS connection.
        authority: Host and port that it was made to.
    """

    def __init__(
        self,
        session: Session,
        state: ServerState,
        context: Context,
        client: tuple[str, int],
        secure: bool,
        authority: str,
    ) -> None:
        self.session = session
        self.secure = secure
        self.authority = authority
        self.protocol = ObservedProtocol(state)
        self._loop = session.loop
        self._waiter: asyncio.Future[None] | None = None
        host, _, port = authority.rpartition(":") if authority.rpartition(":")[2].isdecimal() else (authority, "", "")
        extra = {
            "peername": client,
            "sockname": (host, int(port) if port else (443 if secure else 80)),
            "sslcontext": True if secure else None,
        }
        self.transport = MemoryTransport(self._loop, self.protocol, context, self._notify, extra)

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return not self.transport.ended and self.transport.failure is None

    def _notify(self) -> None:
        if self.transport.lost:
            self.session.forget(self)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> bytes:
        """Return what the server sent; waits for something, and is empty once the server sends nothing more."""
        while True:
            data = self.transport.receive()
            if data:
                return data
            if self.transport.failure is not None:
                raise_from_app(self.transport.failure)
            if self.transport.ended:
                return b""
            self._waiter = self._loop.create_future()
            await self._waiter

    def fail(self, error: BaseException) -> None:
        """Let whoever waits for the server see `error`."""
        self.transport.failure = error
        self._notify()

    async def receive_all(self) -> bytes:
        """Return everything until the server sends nothing more."""
        pieces = []
        while data := await self.receive():
            pieces.append(data)
        return b"".join(pieces)

    async def settle(self) -> None:
        """Let the server wind up the request that was just answered."""
        for _ in range(SETTLE_TURNS):
            if self.transport.lost or not self.protocol.busy:
                break
            await asyncio.sleep(0)

    def reset(self) -> None:
        """End the connection at once."""
        self.transport.reset()
        self.session.forget(self)


class Exchange:
    """One request and its response, on a connection.

    Args:
        channel: The connection.
        method: The request's method.
        raise_server_exceptions: Whether what the app raised and nobody handled is raised here.
    """

    def __init__(self, channel: Channel, method: str, raise_server_exceptions: bool) -> None:
        self._channel = channel
        self._parser = ResponseParser(method)
        self._raise = raise_server_exceptions
        self._sender: asyncio.Task[None] | None = None
        self._go_on: asyncio.Event | None = None
        self._finished = False

    @property
    def interim(self) -> list[ResponseHead]:
        """The interim (1xx) responses so far."""
        return self._parser.interim

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """Field lines after a chunked body."""
        return self._parser.trailers

    def send(self, head: bytes, body: Body, chunked: bool, expect_continue: bool) -> None:
        """Send the request; a body that is produced, or waits for `100 Continue`, follows while the answer is read."""
        transport = self._channel.transport
        if isinstance(body, bytes) and not expect_continue:
            transport.send(head + body)
            return
        transport.send(head)
        if expect_continue:
            self._go_on = asyncio.Event()
        self._sender = asyncio.get_running_loop().create_task(self._send_body(body, chunked))
        self._sender.add_done_callback(self._sent)

    def _sent(self, sender: asyncio.Task[None]) -> None:
        if not sender.cancelled() and (error := sender.exception()) is not None:
            # What the test's own iterator raised ends the wait for a response.
            self._channel.fail(error)

    async def _send_body(self, body: Body, chunked: bool) -> None:
        transport = self._channel.transport
        if self._go_on is not None:
            await self._go_on.wait()
        if isinstance(body, bytes):
            transport.send(body)
            return
        async for piece in _pieces(body):
            if piece:
                transport.send(encode_chunk(piece) if chunked else piece)
            # A producer that never waits still lets the server run, and does not run ahead of it for ever.
            await asyncio.sleep(0)
            await transport.drain()
        if chunked:
            transport.send(encode_chunk(b""))

    async def head(self) -> ResponseHead:
        """Return the head of the final response."""
        try:
            while (head := self._parser.head) is None:
                await self._read()
                if self._go_on is not None and any(early.status == 100 for early in self._parser.interim):
                    self._go_on.set()
            self._check()
        except BaseException:
            await self.abandon()
            raise
        return head

    async def piece(self) -> bytes:
        """Return the next bytes of the body; empty at its end."""
        try:
            while True:
                data = self._parser.take()
                if data or self._parser.complete:
                    return data
                await self._read()
        except BaseException:
            await self.abandon()
            raise

    async def _read(self) -> None:
        data = await self._channel.receive()
        try:
            if data:
                self._parser.feed_data(data)
            else:
                self._parser.feed_eof()
        except ConnectionClosed:
            # The reason is worth more than its effect.
            self._check()
            raise

    def _check(self) -> None:
        raised = self._channel.protocol.raised
        if self._raise and raised:
            error = raised[0]
            raised.clear()
            raise_from_app(error)

    async def finish(self) -> None:
        """End the exchange: the connection is kept if the response was read to its end, else it is reset."""
        if self._finished:
            return
        self._finished = True
        channel, parser = self._channel, self._parser
        sent = await self._stop_sending()
        if not parser.complete or not parser.keep_alive or not sent:
            if parser.complete:
                await channel.settle()
            channel.reset()
            await asyncio.sleep(0)
            self._check()
            return
        await channel.settle()
        self._check()
        if parser.rest or channel.transport.receive():
            channel.reset()
            raise InvalidResponse("the server sent more than one response to one request")
        if channel.usable:
            channel.session.release(channel)

    async def abandon(self) -> None:
        """End the exchange after a failure, quietly."""
        if not self._finished:
            self._finished = True
            await self._stop_sending()
            self._channel.reset()

    async def _stop_sending(self) -> bool:
        """Return whether the request was sent whole; if not, sending ends."""
        sender, self._sender = self._sender, None
        if sender is None:
            return True
        sender.cancel()
        await asyncio.wait([sender])
        return not sender.cancelled() and sender.exception() is None


def raise_from_app(error: BaseException) -> NoReturn:
    """Raise what the app raised; what would end this loop or this task comes wrapped.

    Args:
        error: What the app raised.

    Raises:
        ClientError: It is one of those, such as `SystemExit`.
        BaseException: It is none of them; the error itself.
    """
    if isinstance(error, (Exception, KeyboardInterrupt)):
        raise error
    raise ClientError(f"the app raised {error!r}, at which a server would stop or give up the request") from error


async def _pieces(body: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, AsyncIterable):
        async for piece in body:
            yield _as_bytes(piece)
    else:
        for piece in body:
            yield _as_bytes(piece)


def _as_bytes(piece: Any) -> bytes:
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if not isinstance(piece, (bytes, bytearray, memoryview)):
        raise ClientError(f"a request's body is made of bytes or str, not {type(piece).__name__}")
    return bytes(piece)
