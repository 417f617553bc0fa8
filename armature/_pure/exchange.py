"""One request and its answer: what a handler returns or raises becomes bytes (RFC 9112 sections 6, 7 and 9.3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from armature._pure.message import Response
from armature._pure.weight import weigh
from armature._pure.wire import Wire
from armature._pure.writer import CHUNKED, FROM_FIELDS, NO_LENGTH, Writer, chunk
from armature._spec.limits import JOIN_LIMIT, JSON_LARGE, STREAM_GATHER, UNREAD_BODY_LIMIT
from armature._spec.states import Event, State

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from armature._pure.dispatch import Dispatcher, Endpoint
    from armature._pure.message import Request

__all__ = ["Exchange", "stats"]

_digits = re.compile(rb"[0-9]{1,18}").fullmatch

_counters = {"responses_joined": 0, "large_bodies": 0, "streams": 0, "stream_pieces": 0}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


class Exchange(Wire):
    """The request in flight on a connection, and its answer.

    Args:
        dispatcher: What runs the handlers of this loop.
        writer: What writes the heads of this server's responses.
    """

    __slots__ = (
        "_body_left",
        "_continue",
        "_dispatcher",
        "_endpoint",
        "_failed",
        "_flush_due",
        "_gathering",
        "_head_only",
        "_keep_alive",
        "_minor",
        "_request",
        "_stream_chunked",
        "_stream_left",
        "_streaming",
        "_writer",
        "closing",
        "late",
        "progress",
        "report",
        "started",
        "stream_size",
    )

    def __init__(self, dispatcher: Dispatcher, writer: Writer) -> None:
        super().__init__()
        self._dispatcher = dispatcher
        self._writer = writer
        self._request: Request | None = None
        self._endpoint: Endpoint | None = None
        self._body_left = 0
        self._minor = 1
        self._keep_alive = False
        self._head_only = False
        self._continue = False
        self._failed = False
        self._streaming = False
        self._stream_left = -1
        self._stream_chunked = False
        self._gathering = False
        self._flush_due = False
        #: Bytes of the streamed body so far, without its framing.
        self.stream_size = 0
        #: Set whenever a piece of a stream is sent; for whoever watches that streams go on.
        self.progress = False
        #: Called for every answer with the connection, the status and the size of the body; None for nobody.
        self.report: Callable[[Any, int, int], object] | None = None
        #: When the request in flight began, in nanoseconds of a clock that only grows; kept only for `report`.
        self.started = 0
        #: The handler was cancelled because it took too long.
        self.late = False
        #: No further request is to be answered on this connection.
        self.closing = False

    @property
    def request(self) -> Request | None:
        """The request in flight."""
        return self._request

    # The answer. The dispatcher calls `resolve` with what a handler returned and `reject` with what it raised.

    def resolve(self, value: Any) -> Coroutine[Any, Any, Any] | None:
        """Answer with what the handler returned; return a coroutine if the answer needs one."""
        if self._streaming and self._state == State.WRITING:
            self.complete()
            return None
        if self._state != State.PROCESSING:
            # It has been answered, or nobody is there to answer: the peer broke the request's body, or went away.
            if self._state > State.DRAINING:
                self._forget()
            return None
        endpoint = self._endpoint
        assert endpoint is not None
        try:
            if isinstance(value, Response):
                if value.stream is not None:
                    self._streaming = True
                    return self.send_stream(self._request, value)  # type: ignore[arg-type]
                self.respond(value)
                return None
            if endpoint.native:
                kind = type(value)
                if (kind is dict or kind is list) and weigh(value, JSON_LARGE) < JSON_LARGE:
                    self._answer(endpoint.status, None, b"application/json", endpoint.dumps(value))
                    return None
                if kind is str:
                    self._answer(endpoint.status, None, b"text/plain; charset=utf-8", value.encode("utf-8"))
                    return None
                if kind is bytes:
                    self._answer(endpoint.status, None, b"application/octet-stream", value)
                    return None
                if value is None:
                    self._answer(204 if endpoint.status == 200 else endpoint.status, None, None, b"")
                    return None
            if hasattr(type(value), "__await__"):
                return _await(value)
            answer = endpoint.encode(value)
            if isinstance(answer, Response):
                return self.resolve(answer)
            if hasattr(type(answer), "__await__"):
                # JSON that is large is encoded in slices.
                return _await(answer)
            raise TypeError(f"the encoder returned {type(answer).__name__}, not a response")
        except Exception as error:
            return self.reject(error)

    def reject(self, error: BaseException) -> Coroutine[Any, Any, Any] | None:
        """Answer for a handler that raised; return a coroutine if the error handler is one."""
        if self._state != State.PROCESSING:
            if self._state == State.WRITING:
                # The head is out: the only honest answer is a body that does not end.
                self.stream_failed(error)
                self.abort()
            if self._state > State.DRAINING:
                self._forget()
            return None
        self._streaming = False
        if self._failed or not isinstance(error, Exception):
            self.handler_failed(self._request, error)
            self._keep_alive = False
            if self.late:
                self._answer(503, None, b"text/plain; charset=utf-8", b"Service Unavailable")
            else:
                self._answer(500, None, b"text/plain; charset=utf-8", b"Internal Server Error")
            return None
        self._failed = True
        endpoint = self._endpoint
        assert endpoint is not None
        try:
            answer = endpoint.on_error(self._request, error)  # type: ignore[arg-type]
        except Exception as second:
            return self.reject(second)
        if isinstance(answer, Response):
            return self.resolve(answer)
        return answer

    def respond(self, response: Response) -> None:
        """Answer with a response whose body is complete."""
        self._answer(response.status, response._fields, response._content_type, response.body)

    def _answer(
        self, status: int, fields: list[tuple[bytes, bytes]] | None, content_type: bytes | None, body: bytes
    ) -> None:
        if type(body) is not bytes:
            raise TypeError(f"Expected bytes, got {type(body).__name__}")
        if status == 204 or status == 304:
            length, body = NO_LENGTH, b""
        else:
            if status == 205:
                body = b""
            length = len(body)
            if self._head_only:
                if not body and _declared_length(fields) >= 0:
                    length = FROM_FIELDS
                body = b""
        if self._out:
            _counters["responses_joined"] += 1
        head = self._writer.head(status, fields, content_type, length, self._persistence(fields))
        # From here on nothing can fail: what cannot be written was an error of the handler.
        self.event(Event.RESPONSE_READY)
        self.write(head)
        if body:
            if len(body) >= JOIN_LIMIT:
                _counters["large_bodies"] += 1
            self.write(body)
        if self.report is not None:
            self.report(self, status, len(body))
        self.complete()

    def _persistence(self, fields: list[tuple[bytes, bytes]] | None) -> int:
        """Decide whether the connection outlives this answer (RFC 9112 section 9.3), and how to say so."""
        if fields is not None:
            for name, value in fields:
                if name == b"connection" and b"close" in value.lower():
                    self._keep_alive = False
        if self._body_left and (self._continue or self._body_left > UNREAD_BODY_LIMIT):
            # The unread body is too long to be thrown away, or may never come.
            self._keep_alive = False
        if self.closing or not self._keep_alive:
            self._keep_alive = False
            return 1
        return 0 if self._minor else 2

    # Streams: called by the cold half.

    def start_stream(self, response: Response) -> bool:
        """Send the head of a streamed response; return whether a body is to follow."""
        fields = response._fields
        status = response.status
        self._stream_left = -1
        self._stream_chunked = False
        self._gathering = False
        self.stream_size = 0
        _counters["streams"] += 1
        if status == 204 or status == 304:
            length = NO_LENGTH
        else:
            length = CHUNKED
            self._stream_left = _declared_length(fields)
            if self._stream_left >= 0:
                length = FROM_FIELDS
            else:
                if self._minor:
                    self._stream_chunked = True
                else:
                    length = NO_LENGTH
                    if not self._head_only:
                        self._keep_alive = False
        head = self._writer.head(status, fields, response._content_type, length, self._persistence(fields))
        self.event(Event.RESPONSE_READY)
        if self._out:
            _counters["responses_joined"] += 1
        self.write(head)
        return not self._head_only and status not in (204, 304)

    def send_chunk(self, data: bytes) -> None:
        """Send a piece of a streamed body.

        Raises:
            RuntimeError: The body is longer than its Content-Length.
        """
        if self._stream_chunked:
            if data:
                self.write(chunk(data))
        else:
            if self._stream_left >= 0:
                self._stream_left -= len(data)
                if self._stream_left < 0:
                    raise RuntimeError("the streamed body is longer than its content-length")
            if data:
                self.write(data)

    def send_piece(self, piece: Any) -> None:
        """Send a piece of a streamed body: the first one at once, later ones together.

        Raises:
            TypeError: The piece is neither `str` nor bytes-like.
            RuntimeError: The body is longer than its Content-Length.
        """
        if isinstance(piece, str):
            piece = piece.encode("utf-8")
        elif type(piece) is not bytes:
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise TypeError(f"a streamed body is made of bytes or str, not {type(piece).__name__}")
            piece = bytes(piece)
        if not piece:
            return
        self.send_chunk(piece)
        _counters["stream_pieces"] += 1
        self.stream_size += len(piece)
        if not self._gathering or self._out_size >= STREAM_GATHER:
            self._gathering = True
            self.progress = True
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self._dispatcher.loop.call_soon(self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._flush_due = False
        self.progress = True
        self.flush()

    def end_stream(self) -> None:
        """Send the end of a streamed body.

        Raises:
            RuntimeError: The body is shorter than its Content-Length.
        """
        if self._stream_left > 0:
            raise RuntimeError("the streamed body is shorter than its content-length")
        if self._stream_chunked:
            self.write(chunk(b""))

    def sent_outside(self, count: int) -> None:
        """Note that `count` bytes of the streamed body were sent by other means, such as `sendfile`."""
        self._stream_left -= count
        self.stream_size += count
        self.written += count

    # What the connection does next.

    def complete(self) -> None:
        """The answer is complete: go on to the next request, or close."""
        raise TypeError("an Exchange without a connection cannot go on; use Connection")

    def _forget(self) -> None:
        self._request = self._endpoint = None
        self._streaming = False

    # The cold half, in the subclass.

    def send_stream(self, request: Request, response: Response) -> Coroutine[Any, Any, None]:
        """Send a streamed response."""
        raise TypeError("a Connection without a cold half cannot stream; use HTTPProtocol")

    def handler_failed(self, request: Request | None, error: BaseException) -> None:
        """A handler and its error handler both failed."""

    def stream_failed(self, error: BaseException) -> None:
        """A stream failed after its head was sent."""


async def _await(value: Any) -> Any:
    return await value


def _declared_length(fields: list[tuple[bytes, bytes]] | None) -> int:
    """The Content-Length that the application set, or -1 without one."""
    declared = -1
    for name, value in fields or ():
        if name == b"content-length":
            if not _digits(value) or 0 <= declared != int(value):
                raise ValueError(f"the content-length of the response is malformed: {value!r}")
            declared = int(value)
    return declared
