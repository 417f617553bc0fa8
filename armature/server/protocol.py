"""The cold half of an HTTP/1.1 connection, and its asyncio face: TCP, TLS and Unix sockets, on any loop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from armature._impl import connection
from armature._spec.limits import WRITE_HIGH_WATER, WRITE_LOW_WATER
from armature._spec.states import Event, State
from armature.exceptions import ClientDisconnect, ProtocolError
from armature.http.body import BodyReceiver
from armature.server.streams import send

if TYPE_CHECKING:
    from armature._impl import message
    from armature.server.state import ServerState

__all__ = ["HTTPProtocol"]

logger = logging.getLogger("armature.server")
access = logging.getLogger("armature.access")

#: How long, and how many bytes, a peer that was refused may go on sending before the socket closes. Closing at
#: once would make its kernel discard the answer (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024


class HTTPProtocol(connection.Connection, asyncio.BufferedProtocol):
    """One connection of a server.

    Args:
        server: What the server's connections share.
    """

    __slots__ = ("_client", "_drain", "_eof", "_linger", "_lingered", "_server", "_stream_task", "server_state")

    def __init__(self, server: ServerState) -> None:
        super().__init__(server.service, server.dispatcher, server.writer)
        self.server_state = server
        self.report = server.access_log
        self._client: Any = None
        self._server: Any = None
        self._drain: asyncio.Future[None] | None = None
        self._stream_task: asyncio.Task[Any] | None = None
        self._eof = False
        self._linger: asyncio.TimerHandle | None = None
        self._lingered = 0

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        """Begin; called by the loop."""
        self.server_state.connections.add(self)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER, low=WRITE_LOW_WATER)
        self.attach(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: whoever reads, writes or waits for this connection is told; called by the loop."""
        self.server_state.connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        receiver = self._receiver
        self.event(Event.CLOSE)
        self.event(Event.CLOSE)
        self.detach()
        if receiver is not None:
            receiver.set_exception(ClientDisconnect("the client went away"))
        drain = self._drain
        if drain is not None and not drain.done():
            drain.set_exception(ClientDisconnect("the client went away"))
        task = self._stream_task
        if task is not None:
            task.cancel()

    def eof_received(self) -> bool:
        """The peer will send nothing more, but may still read; called by the loop."""
        self._eof = True
        if self.state <= State.READING:
            return False
        if self._body_left and self.state == State.PROCESSING:
            self._receiver.set_exception(ClientDisconnect("the client stopped sending in the middle of the body"))
            self.closing = True
        # With requests waiting the connection closes after the last; else after this one.
        if not self.carried:
            self.closing = True
        return self.server_state.scheme == "http"

    def pause_writing(self) -> None:
        """The peer does not read: produce no more; called by the loop."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The peer reads again; called by the loop."""
        self.write_paused = False
        drain = self._drain
        if drain is not None:
            self._drain = None
            if not drain.done():
                drain.set_result(None)
        elif self.state <= State.READING and self.carried:
            self.server_state.loop.call_soon(self.resume)

    # What a carrier tells its requests.

    @property
    def scheme(self) -> str:
        """`"http"` or `"https"`."""
        return self.server_state.scheme

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the peer; None on a Unix socket."""
        if self._client is None and self.transport is not None:
            self._client = _address(self.transport.get_extra_info("peername"))
        return self._client or None

    @property
    def server(self) -> tuple[str, int] | None:
        """Address and port that the peer connected to; None on a Unix socket."""
        if self._server is None and self.transport is not None:
            self._server = _address(self.transport.get_extra_info("sockname"))
        return self._server or None

    # The cold half of the connection.

    def open_body(self, request: message.Request, limit: int, length: int | None) -> BodyReceiver:
        """Make what receives a body that has not arrived whole."""
        return BodyReceiver(self, limit, length)

    async def send_stream(self, request: message.Request, response: message.Response) -> None:
        """Send a response that is produced piece by piece; the work stops when the peer goes away."""
        self._stream_task = asyncio.current_task()
        try:
            await send(self, request, response)
        except asyncio.CancelledError:
            if self.state != State.CLOSED:
                raise
        except ClientDisconnect:
            if self.state != State.CLOSED:
                raise
        finally:
            self._stream_task = None

    async def drain(self) -> None:
        """Wait until the peer has read enough that more may be written."""
        if self.write_paused and self.state != State.CLOSED:
            self._drain = self.server_state.loop.create_future()
            await self._drain

    def pause_reading(self) -> None:
        """Take no more bytes from the socket."""
        self.reading_paused = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes from the socket again."""
        self.reading_paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def finish_closing(self) -> None:
        """Everything is with the transport: close it, or first let a peer that still sends read its answer."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._linger is not None:
            return
        if not self.must_linger or self._eof or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        if self.reading_paused:
            self.resume_reading()
        self._linger = self.server_state.loop.call_later(LINGER_SECONDS, self.abort)

    def discarded(self, count: int) -> None:
        """Bound what a refused peer may go on sending."""
        self._lingered += count
        if self._lingered > LINGER_BYTES:
            self.abort()

    def abort(self) -> None:
        """Close the socket at once and lose what is unsent."""
        self.event(Event.CLOSE)
        if self.transport is not None:
            self.transport.abort()

    def shutdown(self) -> None:
        """Answer nothing after the request in flight, and close."""
        self.closing = True
        if self.state <= State.READING:
            self.close()
            self.flush()

    # What is worth telling.

    def answered(self, status: int, size: int) -> None:
        """Log the request; called where the access log is on."""
        request = self.request
        if request is not None:
            client = self.client
            access.info(
                '%s "%s %s HTTP/%s" %d %d',
                "-" if client is None else f"{client[0]}:{client[1]}",
                request.method,
                _printable(request.raw_path, request.query_string),
                request.http_version,
                status,
                size,
            )

    def refused(self, error: ProtocolError) -> None:
        """Log what the peer did wrong."""
        client = self.client
        logger.info("refused %s: %s", "-" if client is None else f"{client[0]}:{client[1]}", error)

    def handler_failed(self, request: message.Request | None, error: BaseException) -> None:
        """Log what neither the handler nor its error handler could answer."""
        if isinstance(error, asyncio.CancelledError):
            logger.warning("%s was cancelled by itself", _name(request))
        else:
            logger.error("%s failed, and so did its error handler", _name(request), exc_info=error)

    def stream_failed(self, error: BaseException) -> None:
        """Log why a response was cut off."""
        if not isinstance(error, asyncio.CancelledError):
            logger.error("the response of %s was cut off", _name(self.request), exc_info=error)


def _address(name: Any) -> tuple[str, int] | tuple[()]:
    # An empty tuple stands for "asked, and there is none".
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return ()


def _name(request: message.Request | None) -> str:
    if request is None:
        return "a request"
    return f"{request.method} {_printable(request.raw_path, b'')}"


def _printable(path: bytes, query: bytes) -> str:
    # Nothing that a client sends may forge a log line.
    target = path + b"?" + query if query else path
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}" for byte in target)

