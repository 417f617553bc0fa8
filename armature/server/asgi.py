"""Hosting: any ASGI app as a service of this server, on the same connections as the native path (ASGI 3.0, HTTP 2.4).

A request becomes a `RequestCycle`, whose hot half is `armature._impl.asgi`; its `receive` and `send` are what the app
is given. Limits, backpressure, pipelining, keep-alive and shutdown are the connection's, so that they are the same for
every kind of app. What the specification leaves open is decided here:

- The head of a response leaves with its first piece of body, so an error before that is answered with 500. After it the
  connection is cut: a response that ends early must not look complete.
- Once the client is gone `send` raises `Disconnected`, an `OSError`, and `receive` returns `http.disconnect`. A client
  that closes its sending side counts as gone for `receive`, and is still answered.
- Messages after the end of a response, of an unknown type or in the wrong order are errors.
- Trailers are sent to clients that say `TE: trailers`; early hints to those that speak HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal

from armature._impl import asgi, dispatch, message, router
from armature._spec.asgi import EXTENSIONS, Phase
from armature._spec.limits import STREAM_TURN
from armature._spec.routes import Node, RouteTree
from armature._spec.states import State
from armature.exceptions import ClientDisconnect, PayloadTooLarge
from armature.http.body import BodyReceiver
from armature.server.asgi_lifespan import run_lifespan

if TYPE_CHECKING:
    from armature.server.protocol import HTTPProtocol
    from armature.server.state import ServerState
    from armature.types import ASGIApp, Message

__all__ = ["NO_BODY_LIMIT", "ASGIService", "BodyPieces", "Disconnected", "RequestCycle"]

logger = logging.getLogger("armature.server")

#: Foreign apps have limits of their own: unless the operator names one, bodies of any size reach them, piece by piece.
NO_BODY_LIMIT = 1 << 62

#: What frames or routes a message, and so must not come behind its body (RFC 9110 section 6.5.1).
_NO_TRAILERS = frozenset(
    {b"connection", b"content-length", b"host", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)

# Members of an enumeration take long to look up (until Python 3.12).
WAITING, STARTED, STREAMING, FILE, TRAILERS, ENDED = map(int, Phase)
PROCESSING, WRITING = int(State.PROCESSING), int(State.WRITING)

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Disconnected(ClientDisconnect, OSError):
    """The app sent something to a client that is gone."""


class Unanswered(RuntimeError):
    """The app returned, and its response is missing or incomplete."""


class BodyPieces(BodyReceiver):
    """The body of a request, taken in pieces as large as what has arrived."""

    __slots__ = ()

    def take(self) -> bytes | None:
        """Return what has arrived since the last time; None if there is nothing yet.

        Raises:
            ClientDisconnect: The rest will not come.
            PayloadTooLarge: The body is larger than the limit.
        """
        if not self._taken:
            self._taken = True
            self._want()
        chunks = self._usable()
        if not chunks:
            return b"" if self.complete else None
        piece = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        self._resume()
        return piece

    async def arrival(self) -> None:
        """Wait until there is something to take, or an end."""
        await self._wait()


class _Cold:
    """What only some requests need: those that wait, stream or use extensions."""

    __slots__ = ("gone", "lock", "silent", "trailer_fields", "trailers", "turn", "waiters")

    def __init__(self) -> None:
        #: The app was told that its client is gone.
        self.gone = False
        #: One `send` at a time waits for the transport.
        self.lock: asyncio.Lock | None = None
        #: The response has no body: it answers HEAD, or its status allows none.
        self.silent = False
        #: Trailers were announced and can be sent.
        self.trailers = False
        self.trailer_fields: list[tuple[bytes, bytes]] | None = None
        self.turn = STREAM_TURN
        self.waiters: list[asyncio.Future[None]] = []


class RequestCycle(asgi.Cycle):
    """One request of an ASGI app: `scope`, `receive` and `send`."""

    __slots__ = ()

    connection: HTTPProtocol

    def _cold(self) -> _Cold:
        cold: _Cold | None = self.cold
        if cold is None:
            cold = self.cold = _Cold()
        return cold

    def __repr__(self) -> str:
        return f"{self.scope['method']} {self.scope['path']!a}"

    # The request.

    async def receive_more(self) -> dict[str, Any]:
        """Wait for more of the body, or for the end of the exchange."""
        connection = self.connection
        while self.phase != ENDED:
            if self.body_taken:
                if connection.is_disconnected() or not self._open():
                    break
                await self._changed()
                continue
            assert self.request is not None
            body: BodyPieces = self.request.receiver
            try:
                piece = body.take()
            except PayloadTooLarge as error:
                self._refuse(error)
                break
            except ClientDisconnect:
                break
            if piece is not None:
                self.body_taken = body.drained
                return {"type": "http.request", "body": piece, "more_body": not self.body_taken}
            await body.arrival()
        if self.phase != ENDED:
            self._cold().gone = True
        return {"type": "http.disconnect"}

    def _open(self) -> bool:
        """Whether the response can still reach the client."""
        return self.connection.state in (PROCESSING, WRITING)

    async def _changed(self) -> None:
        waiters = self._cold().waiters
        # One future for each that waits: cancelling one of them must not cancel the others.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        self.watched = True
        self.connection.cycle = self  # type: ignore[attr-defined]
        try:
            await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    def ended(self) -> None:
        """Wake up whoever waits: the response is complete, or the client is gone."""
        for waiter in self._cold().waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self.phase == ENDED and self.connection.cycle is self:  # type: ignore[attr-defined]
            self.connection.cycle = None

    def _refuse(self, error: PayloadTooLarge) -> None:
        """Answer a body that is too large; the app learns only that nothing more comes."""
        if self.connection.state == PROCESSING:
            # For the app that is the same as a client that has gone.
            self._cold().gone = True
            self._end()
            self.connection.respond(_text(413, error.detail))

    # The response.

    def send_other(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Take a message: a piece of a stream, an extension, or a mistake."""
        try:
            kind = message["type"]
        except (TypeError, KeyError, IndexError):
            raise TypeError(f"an ASGI message is a dict with a type, not {message!r}") from None
        if self.phase == ENDED and not self._cold().gone:
            raise RuntimeError(f"the app sent {kind!r} after the end of its response")
        if self.phase == ENDED or not self._open():
            self._cold().gone = True
            self._end()
            raise Disconnected("the client is gone")
        take = _TAKEN.get(kind)
        if take is None:
            raise RuntimeError(
                f"the app sent {kind!r}, which is no message of an HTTP response; there are {', '.join(_TAKEN)}"
            )
        return take(self, message)

    def _take_start(self, message: Message) -> Coroutine[Any, Any, None] | None:
        if self.phase != WAITING:
            raise RuntimeError("the app sent http.response.start twice")
        request = self.request
        assert request is not None
        self.start(dict(message))
        if message.get("trailers", False):
            cold = self._cold()
            cold.trailer_fields = []
            # A chunked body alone has a place for them, and a client must have asked (RFC 9110 section 6.5.1).
            cold.trailers = request.http_version == "1.1" and self.declared < 0 and _accepts_trailers(request)
        return None

    def _take_body(self, message: Message) -> Coroutine[Any, Any, None] | None:
        if self.phase == WAITING:
            raise RuntimeError("the app sent http.response.body before http.response.start")
        if self.phase != STARTED and self.phase != STREAMING:
            raise RuntimeError("the app sent http.response.body after the end of the body")
        body = message.get("body", b"")
        if type(body) is not bytes:
            if not isinstance(body, (bytes, bytearray, memoryview)):
                raise TypeError(f"the body of http.response.body must be bytes, not {type(body).__name__}")
            body = bytes(body)
        more = message.get("more_body", False)
        cold = self._cold()
        if self.phase == STARTED:
            if not more and cold.trailer_fields is None:
                self.answer(body)
                return None
            self._stream()
        connection = self.connection
        if body and not cold.silent:
            connection.send_piece(body)
        elif more:
            # Whoever sends a piece without bytes wants the head to leave.
            connection.flush()
        if not more:
            if cold.trailer_fields is not None:
                self.phase = TRAILERS
                return None
            if not cold.silent:
                connection.end_stream()
            self._complete()
            return None
        cold.turn -= 1 + (len(body) >> 10)
        if connection.write_paused or cold.turn <= 0:
            cold.turn = STREAM_TURN
            return self._drain(cold)
        return None

    def _take_early_hint(self, message: Message) -> Coroutine[Any, Any, None] | None:
        links = [asgi.check_fields([(b"link", link)])[0][0][1] for link in message.get("links", ())]
        if links and self.phase <= STARTED and self.scope["http_version"] == "1.1":
            lines = b"".join([b"link: %b\r\n" % link for link in links])
            self.connection.write(b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % lines)
            self.connection.flush()
        return None

    def _take_path(self, message: Message) -> Coroutine[Any, Any, None] | None:
        if self.phase != STARTED:
            raise RuntimeError(
                "the app sent http.response.pathsend "
                + ("before http.response.start" if self.phase == WAITING else "after a part of the body")
            )
        path = message.get("path")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise ValueError(f"the path of http.response.pathsend must be an absolute path, not {path!r}")
        self.phase = FILE
        return self._send_file(path)

    def _take_trailers(self, message: Message) -> Coroutine[Any, Any, None] | None:
        cold = self._cold()
        if self.phase != TRAILERS or cold.trailer_fields is None:
            raise RuntimeError(
                "the app sent http.response.trailers "
                + ("without announcing them" if cold.trailer_fields is None else "before the end of the body")
            )
        fields, _ = asgi.check_fields(message.get("headers", ()))
        for name, _ in fields:
            if name in _NO_TRAILERS:
                raise ValueError(f"{name.decode()} must not be a trailer")
        cold.trailer_fields += fields
        if not message.get("more_trailers", False):
            if cold.trailers and not cold.silent:
                lines = b"".join([b"%b: %b\r\n" % field for field in cold.trailer_fields])
                self.connection.write(b"0\r\n%b\r\n" % lines)
            elif not cold.silent:
                self.connection.end_stream()
            self._complete()
        return None

    def _stream(self) -> None:
        """Send the head of a response whose body is still to come."""
        response = message.Response(b"", self.status)
        response._fields, self.fields = self.fields, None
        self.phase = STREAMING
        self._cold().silent = not self.connection.start_stream(response)

    def _complete(self) -> None:
        """The last byte of a streamed response has been written."""
        self._end()
        self.connection.complete()

    def _end(self) -> None:
        """Nothing more is sent; called at the end of the response, and of the client."""
        connection = self.connection
        if STARTED < self.phase < ENDED and self.fields is None and connection.report is not None:
            # The head has left. Also of an answer that was cut off: what was sent of it.
            connection.report(connection, self.status, connection.stream_size)
        self.phase = ENDED
        # A request that nobody keeps is not copied out of the receive buffer.
        self.request = None
        if self.watched:
            self.ended()

    async def _drain(self, cold: _Cold) -> None:
        """Wait until the client has read enough, or let the other connections have their turn."""
        if cold.lock is None:
            cold.lock = asyncio.Lock()
        async with cold.lock:
            try:
                await self.connection.drain()
            except ClientDisconnect as error:
                cold.gone = True
                raise Disconnected(str(error)) from None

    async def _send_file(self, path: str) -> None:
        from armature.http.files import FileBody
        from armature.server.sendfile import send_file

        connection = self.connection
        file: FileBody | None = None
        try:
            descriptor, size = await asyncio.to_thread(_open_file, path)
            file = FileBody(descriptor, 0, size)
            if not self._open():
                raise ClientDisconnect("the client is gone")
            assert self.fields is not None
            if self.declared < 0:
                self.fields.append((b"content-length", b"%d" % size))
            elif self.declared != size:
                raise RuntimeError(f"{path!r} has {size} bytes, and the content-length says {self.declared}")
            self._stream()
            self.phase = FILE
            if not self._cold().silent:
                await send_file(connection, file)
                connection.end_stream()
        except ClientDisconnect as error:
            self._cold().gone = True
            raise Disconnected(str(error)) from None
        finally:
            if file is not None:
                file.close()
            if connection.state == PROCESSING:
                # Nothing has left, so the app may still answer otherwise.
                self.phase = STARTED
        self._complete()

    # The end of the app.

    @property
    def server_state(self) -> ServerState:
        """The state of the server, as every owner of a Task has it."""
        return self.connection.server_state

    def _due(self) -> bool:
        """Whether an answer is due, or the rest of one, now that the app has come to its end."""
        if not self._open():
            return False
        if self.cold is not None and self.cold.gone:
            # The app was told that its client is gone and has drawn the conclusion, which holds for one that closed its
            # sending side, too.
            self.connection.abort()
            return False
        return True

    def unanswered(self) -> None:
        """The app has returned: if a response is due, that is an error.

        Raises:
            Unanswered: Nothing, or not all of it, was sent.
        """
        phase = self.phase
        due = self._due()
        self._end()
        if due:
            raise Unanswered(
                "the ASGI app returned without sending a response"
                if phase == WAITING
                else "the ASGI app returned before its response was complete"
            )

    def failed(self, error: BaseException) -> bool:
        """Say what the app raised; return whether the connection is not to be told, because it waits for no answer."""
        complete = self.phase == ENDED
        due = not complete and self._due()
        self._end()
        if due:
            return False
        self.release()
        if isinstance(error, Exception):
            if self._cold().gone:
                logger.debug("%r: the ASGI app ended with its client: %r", self, error)
            else:
                when = "its response was complete" if complete else "its client had gone"
                logger.error("%r: the ASGI app failed after %s", self, when, exc_info=error)
            return True
        if not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self.connection.handler_failed(None, error)
        return False


_TAKEN: dict[str, Callable[[RequestCycle, Message], Coroutine[Any, Any, None] | None]] = {
    "http.response.start": RequestCycle._take_start,
    "http.response.body": RequestCycle._take_body,
    "http.response.early_hint": RequestCycle._take_early_hint,
    "http.response.pathsend": RequestCycle._take_path,
    "http.response.trailers": RequestCycle._take_trailers,
}


async def _run(app: ASGIApp, cycle: RequestCycle) -> None:
    try:
        await app(cycle.scope, cycle.receive, cycle.send)
    except BaseException as error:
        if cycle.failed(error):
            return
        raise
    if cycle.phase != ENDED:
        cycle.unanswered()
    cycle.release()


class ASGIService:
    """An ASGI app as a server serves it.

    Args:
        app: A single callable, `app(scope, receive, send)`.
        lifespan: `"on"`, `"off"` or `"auto"`, as in `ServerConfig`.
        body_limit: Largest request body, None for any.
        root_path: What a proxy in front has taken from the path.
        adapt: Called with a request and its scope, to say there what proxies say of the client.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        lifespan: Literal["auto", "on", "off"] = "auto",
        body_limit: int | None = None,
        root_path: str = "",
        adapt: Callable[[Any, dict[str, Any]], object] | None = None,
    ) -> None:
        self.app: Any = app
        self.request_class = message.Request
        #: What the app's start-up left for its requests.
        self.state: dict[str, Any] = {}
        self._strict = lifespan == "on"
        state = self.state
        extensions: dict[str, Any] = {name: {} for name in EXTENSIONS}

        def call(request: message.Request) -> Coroutine[Any, Any, None]:
            return _run(app, RequestCycle(request, root_path, state, extensions))

        def call_adapted(request: message.Request) -> Coroutine[Any, Any, None]:
            assert adapt is not None
            cycle = RequestCycle(request, root_path, state, extensions)
            adapt(request, cycle.scope)
            return _run(app, cycle)

        endpoint = dispatch.Endpoint(
            call if adapt is None else call_adapted,
            native=False,
            encode=_no_response,
            dumps=_no_response,
            on_error=_on_error,
            body_limit=NO_BODY_LIMIT if body_limit is None else body_limit,
        )
        # Every path is "not found", and what is not found is served by the app.
        self.router = router.RadixRouter(RouteTree(Node({}, (), None, None), {}), endpoint, lambda methods: endpoint)

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Run the app's own life around the block."""
        return run_lifespan(self.app, self.state, self._strict)

    def connection_class(self, base: type[HTTPProtocol]) -> type[HTTPProtocol]:
        """Return the class of the connections, made of the one that the server would use."""
        return type("ASGIProtocol", (_Hosting, base), {"__slots__": ("addresses", "cycle")})


class _Hosting:
    """What a connection tells the request in flight: that nothing more comes.

    The class that is made of this one has the slots: `addresses`, what every scope says of the connection, and `cycle`,
    the request that waits for its end, or was the last to do so.
    """

    __slots__ = ()

    def __init__(self: Any, server: ServerState) -> None:
        super().__init__(server)  # type: ignore[call-arg]
        self.cycle = None

    def connection_made(self: Any, transport: Any) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self.addresses = (self.scheme, self.client, self.server)

    def connection_lost(self: Any, exc: Exception | None) -> None:
        cycle, self.cycle = self.cycle, None
        super().connection_lost(exc)  # type: ignore[misc]
        if cycle is not None:
            cycle.ended()

    def eof_received(self: Any) -> bool:
        answer: bool = super().eof_received()  # type: ignore[misc]
        receiver = self._receiver
        if receiver is not None:
            receiver.set_exception(ClientDisconnect("the client stopped sending in the middle of the body"))
        if self.cycle is not None:
            self.cycle.ended()
        return answer

    def open_body(self: Any, request: message.Request, limit: int, length: int | None) -> BodyPieces:
        return BodyPieces(self, limit, length)


def _open_file(path: str) -> tuple[int, int]:
    """Open a file and return its descriptor and size; runs in a thread."""
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path!r} is no regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def _accepts_trailers(request: message.Request) -> bool:
    offered: Iterable[bytes] = (value for name, value in request.raw_headers if name == b"te")
    return any(
        option.partition(b";")[0].strip().lower() == b"trailers" for value in offered for option in value.split(b",")
    )


def _text(status: int, text: str) -> message.Response:
    return message.Response(text + "\n", status, None, "text/plain; charset=utf-8")


def _no_response(value: Any) -> Any:
    raise TypeError(f"an ASGI app answers by messages, not by returning {value!r}")


def _on_error(request: message.Request, error: BaseException) -> message.Response:
    """Answer for an app that failed before its response began."""
    if isinstance(error, PayloadTooLarge):
        return _text(413, error.detail)
    name = f"{request.method} {request.path!a}"
    if isinstance(error, Unanswered):
        logger.error("%s: %s", name, error)
    else:
        logger.error("%s: the ASGI app failed", name, exc_info=error)
    return _text(500, "Internal Server Error")
