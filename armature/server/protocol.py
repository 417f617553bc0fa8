"""The cold half of an HTTP/1.1 connection, and its asyncio face: TCP, TLS and Unix sockets, on any loop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from armature._impl import connection
from armature._spec.access import TEXT_ESCAPES
from armature._spec.limits import WRITE_HIGH_WATER, WRITE_LOW_WATER
from armature._spec.states import Event, State
from armature.exceptions import ClientDisconnect, ProtocolError
from armature.http.body import BodyReceiver
from armature.server.streams import send

if TYPE_CHECKING:
    from armature._impl import message
    from armature.server.state import ServerState

__all__ = ["HTTPProtocol", "over_unix_socket"]

logger = logging.getLogger("armature.server")

#: How long, and how many bytes, a peer that was refused may go on sending before the socket closes. Closing at
#: once would make its kernel discard the answer (RFC 9112 section 9.6).
LINGER_SECONDS = 3.0
LINGER_BYTES = 64 * 1024 * 1024

#: How long a stream to a peer that closed its sending side may send nothing. Such a peer has either finished its
#: request or gone away, and only sending tells which: the system of one that is gone resets the connection.
HALF_CLOSED_SECONDS = 0.5

#: How long a connection that came while the server stops may take to send its request.
LATE_SECONDS = 0.5


class HTTPProtocol(connection.Connection, asyncio.BufferedProtocol):
    """One connection of a server.

    Args:
        server: What the server's connections share.
    """

    __slots__ = (
        "_client",
        "_drain",
        "_eof",
        "_lingered",
        "_lingering",
        "_server",
        "_stream_task",
        "_timer",
        "_watcher",
        "accepted",
        "announced",
        "server_state",
    )

    def __init__(self, server: ServerState) -> None:
        super().__init__(server.service, server.dispatcher, server.writer)
        self.server_state = server
        self.report = server.report
        self._client: Any = None
        self._server: Any = None
        #: Whether a proxy has said whose connection this is (PROXY protocol).
        self.announced = False
        self._drain: asyncio.Future[None] | None = None
        self._stream_task: asyncio.Task[Any] | None = None
        self._eof = False
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._lingering = False
        self._lingered = 0
        #: When the connection was made, by the dispatcher's `now`.
        self.accepted = 0.0

    # asyncio's side.

    def connection_made(self, transport: Any) -> None:
        """Begin; called by the loop."""
        server = self.server_state
        if server.closed:
            transport.abort()
            return
        room = server.sweep.begin(self)
        server.connections.add(self)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER, low=WRITE_LOW_WATER)
        self.attach(transport)
        allowance = server.config.keep_alive_requests
        if allowance is not None:
            self.allowance = allowance
        if not room:
            self.refuse(ProtocolError(503, "the server has as many connections as it takes"))
        elif server.stopping:
            # It was in the listener's queue. One request is answered, if it comes at once.
            self.closing = True
            self._start_timer(LATE_SECONDS, self.shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: whoever reads, writes or waits for this connection is told; called by the loop."""
        self._stop_timer()
        self._unwatch()
        receiver = self._receiver
        self.event(Event.CLOSE)
        self.event(Event.CLOSE)
        self.detach()
        if receiver is not None:
            receiver.set_exception(ClientDisconnect("the client went away"))
        drain, self._drain = self._drain, None
        if drain is not None and not drain.done():
            drain.set_result(None)
        task = self._stream_task
        if task is not None:
            task.cancel()
        self.server_state.sweep.end(self)
        self.server_state.forget(self)

    def eof_received(self) -> bool:
        """The peer will send nothing more, but may still read; called by the loop."""
        self._eof = True
        state = self.state
        if state >= State.DRAINING or self.server_state.scheme != "http":
            # Everything has been answered, or it is TLS, which asyncio does not keep half open.
            return False
        if state <= State.READING:
            if not self.carried:
                return False
            self.server_state.loop.call_soon(self.resume)
            return True
        if self._body_left and state == State.PROCESSING:
            self._receiver.set_exception(ClientDisconnect("the client stopped sending in the middle of the body"))
            self.closing = True
        # With requests waiting the connection closes after the last one; else after this one.
        if not self.carried:
            self.closing = True
        if self._stream_task is not None:
            self._watch()
        return True

    def resume(self) -> None:
        """Go on with the bytes that waited."""
        super().resume()
        if self._eof and not self.write_paused and not self.server_state.dispatcher.entered:
            # The peer said that nothing more will come.
            if self.state <= State.READING:
                self.close()
                self.flush()
            elif not self.carried:
                self.closing = True

    def pause_writing(self) -> None:
        """The peer does not read: produce no more; called by the loop."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The peer reads again; called by the loop."""
        self.write_paused = False
        drain, self._drain = self._drain, None
        if drain is not None and not drain.done():
            drain.set_result(None)
        elif self.state <= State.READING and (self.carried or self.reading_paused):
            self.server_state.loop.call_soon(self.resume)

    def _watch(self) -> None:
        """See to it that a stream does not go on for ever to a peer that closed its side and may be gone."""
        if self._watcher is None:
            self.progress = False
            self._watcher = self.server_state.loop.call_later(HALF_CLOSED_SECONDS, self._check)

    def _check(self) -> None:
        self._watcher = None
        if self.progress or self.write_paused:
            # What was sent has not been answered by a reset, so somebody is there.
            self._watch()
        else:
            self.abort()

    def _unwatch(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.server_state.loop.call_later(seconds, callback)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

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
    def ready(self) -> bool:
        """Whether the server welcomes new requests; no longer once a stop was asked for."""
        return self.server_state.ready

    @property
    def server(self) -> tuple[str, int] | None:
        """Address and port that the peer connected to; None on a Unix socket."""
        if self._server is None and self.transport is not None:
            self._server = _address(self.transport.get_extra_info("sockname"))
        return self._server or None

    @property
    def is_local(self) -> bool:
        """Whether the peer came over a Unix socket."""
        return self.transport is not None and not self.announced and over_unix_socket(self.transport)

    def announce(self, client: tuple[str, int] | None, server: tuple[str, int] | None) -> None:
        """Take the addresses that a trusted proxy has said in place of the socket's own."""
        self.announced = True
        self._client, self._server = client or (), server or ()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of the connection, such as `"peercert"` or `"socket"`."""
        return default if self.transport is None else self.transport.get_extra_info(name, default)

    # The cold half of the connection.

    def open_body(self, request: message.Request, limit: int, length: int | None) -> BodyReceiver:
        """Make what receives a body that has not arrived whole."""
        return BodyReceiver(self, limit, length)

    def is_disconnected(self) -> bool:
        """Whether the peer is gone, or has at least said that it will send nothing more."""
        return self._eof or self.state == State.CLOSED

    async def send_stream(self, request: message.Request, response: message.Response) -> None:
        """Send a response that is produced piece by piece; the work stops when the peer goes away."""
        self._stream_task = asyncio.current_task()
        if self._eof:
            self._watch()
        try:
            await send(self, request, response)
        except (asyncio.CancelledError, ClientDisconnect):
            if self.state != State.CLOSED and self.state != State.CLOSING:
                raise
        except Exception as error:
            if self.state != State.CLOSED:
                raise
            self.stream_failed(error)
        finally:
            self._stream_task = None
            self._unwatch()

    async def drain(self) -> None:
        """Wait until the peer has read enough that more may be written, but for one turn of the loop at least.

        Raises:
            ClientDisconnect: It went away.
        """
        if not self.write_paused:
            await asyncio.sleep(0)
        elif self.state != State.CLOSED:
            self._drain = self.server_state.loop.create_future()
            await self._drain
        if self.state == State.CLOSED:
            raise ClientDisconnect("the client went away")

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
        if transport is None or transport.is_closing() or self._lingering:
            return
        if not self.must_linger or self._eof:
            transport.close()
            return
        self._lingering = True
        if transport.can_write_eof():
            transport.write_eof()
        # Without half-closed connections, which TLS does not have, the peer learns from the answer that it is the last.
        if self.reading_paused:
            self.resume_reading()
        self._start_timer(LINGER_SECONDS, self.abort)

    def discarded(self, count: int) -> None:
        """Count what a peer sends to a connection that is closing; called for every read."""
        self._lingered += count
        if self._lingered > LINGER_BYTES:
            self.abort()

    def abort(self) -> None:
        """Close the socket at once and lose what is unsent."""
        if self.state < State.CLOSING:
            self.event(Event.CLOSE)
        if self.transport is not None:
            self.transport.abort()

    def shutdown(self) -> None:
        """Answer nothing after the request in flight, and close."""
        self.closing = True
        if self.state <= State.READING or self.state == State.DRAINING:
            self.close()
        if self.state == State.CLOSING:
            self.flush()

    def shutdown_soon(self) -> None:
        """Answer nothing after the request in flight, and close; one whose first request is arriving may send it."""
        fresh = self.server_state.dispatcher.now - self.accepted < LATE_SECONDS
        if self.state == State.READING and fresh:
            self.closing = True
            self._start_timer(LATE_SECONDS, self.shutdown)
        else:
            self.shutdown()

    def retire(self) -> None:
        """End the connection when it has answered what it has begun to."""
        self.closing = True
        if self.state == State.CONNECTED and not self.carried:
            self.close()
            self.flush()

    # What is worth telling.

    @property
    def peer(self) -> str:
        """The address of the peer, for the log."""
        client = self.client
        return "-" if client is None else f"{client[0]}:{client[1]}"

    def refused(self, error: ProtocolError) -> None:
        """Log what the peer did wrong."""
        logger.info("refused %s: %s", self.peer, error)
        refusals = self.server_state.refusals
        refusals[error.status] = refusals.get(error.status, 0) + 1
        if self.report is not None:
            self.report(self, error.status, 0)

    def handler_failed(self, request: message.Request | None, error: BaseException) -> None:
        """Log what neither the handler nor its error handler could answer."""
        if isinstance(error, asyncio.CancelledError):
            logger.warning(
                "%s %s", _name(request), "took longer than handler_timeout" if self.late else "was cancelled by itself"
            )
        elif isinstance(error, Exception):
            logger.error("%s failed, and so did its error handler", _name(request), exc_info=error)
        else:
            logger.warning("%s ends the server: %s", _name(request), type(error).__name__)
            self.server_state.fail(error)

    def stream_failed(self, error: BaseException) -> None:
        """Log why a response was cut off; that the client went away needs no telling."""
        if not isinstance(error, (asyncio.CancelledError, ClientDisconnect)):
            logger.error("the response of %s was cut off", _name(self.request), exc_info=error)


def over_unix_socket(transport: Any) -> bool:
    """Whether a connection came over a Unix socket; by its socket, because an address may be missing for any reason.

    Args:
        transport: The connection's transport.
    """
    sock = transport.get_extra_info("socket")
    return sock is not None and sock.family == getattr(socket, "AF_UNIX", None)


def _address(name: Any) -> tuple[str, int] | tuple[()]:
    # An empty tuple stands for "asked, and there is none".
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return ()


def _name(request: message.Request | None) -> str:
    if request is None:
        return "a request"
    return f"{request.method} {_printable(request.raw_path)}"


def _printable(path: bytes) -> str:
    # Nothing that a client sends may forge a log line.
    return b"".join([TEXT_ESCAPES[byte] for byte in path]).decode("ascii")
