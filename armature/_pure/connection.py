"""The hot half of an HTTP/1.1 connection: bytes in, requests dispatched, answers out (RFC 9112).

It does no I/O. A feeder gives it what was received (`feed_data`, or `get_buffer` and `buffer_updated`) and takes
what is to be sent through `transport.write`. `armature.server.protocol.HTTPProtocol` is the subclass with the cold
half: streams, timeouts, disconnects, shutdown. One request is in flight at a time; what the peer sends behind it
waits, so that answers leave in order whatever the handlers do (RFC 9112 section 9.3.2).
"""

from __future__ import annotations

import re
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from armature._pure.buffers import BodyBuffer, Buffer
from armature._pure.chunked import ChunkedParser
from armature._pure.exchange import Exchange
from armature._pure.parser import HeadParser
from armature._spec.deadlines import Wait
from armature._spec.limits import (
    PIPELINE_HIGH_WATER,
    UNREAD_BODY_LIMIT,
    WHOLE_BODY_MAXIMUM,
    WHOLE_BODY_MINIMUM,
    WRITE_HIGH_WATER,
)
from armature._spec.plan import CALL_BARE, CALL_PARAMS, KIND_INT
from armature._spec.states import Event, State
from armature.exceptions import ClientDisconnect, PayloadTooLarge, ProtocolError

if TYPE_CHECKING:
    from armature._pure.dispatch import Dispatcher
    from armature._pure.message import Request
    from armature._pure.writer import Writer
    from armature.types import Service

__all__ = ["Connection", "stats"]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_integer = re.compile("-?[0-9]{1,18}", re.ASCII).fullmatch

_counters = {
    "requests": 0,
    "pipelined": 0,
    "refused": 0,
    "materialised": 0,
    "reads": 0,
    "bytes_received": 0,
    "heads_in_pieces": 0,
    "bodies_in_place": 0,
    "bodies_in_pieces": 0,
    "bodies_whole": 0,
    "continues": 0,
}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


def _raise(error: BaseException) -> None:
    raise error


class Connection(Exchange):
    """One connection of an HTTP/1.1 server, without its I/O.

    Args:
        service: What is served.
        dispatcher: What runs the handlers of this loop.
        writer: What writes the heads of this server's responses.
    """

    __slots__ = (
        "_body_limit",
        "_body_size",
        "_carry",
        "_chunks",
        "_feeding",
        "_parser",
        "_receiver",
        "_router",
        "_service",
        "_unread",
        "_whole",
        "allowance",
        "reading_paused",
        "since",
        "write_paused",
    )

    def __init__(self, service: Service, dispatcher: Dispatcher, writer: Writer) -> None:
        super().__init__(dispatcher, writer)
        self._service = service
        self._router = service.router
        self._parser = HeadParser()
        self._carry = Buffer()
        self._receiver: Any = None
        self._chunks: ChunkedParser | None = None
        self._body_size = 0
        self._body_limit = 0
        self._whole: BodyBuffer | None = None
        self._feeding = False
        self._unread = False
        self.reading_paused = False
        self.write_paused = False
        #: How many more requests are answered; below zero, any number.
        self.allowance = -1
        #: When the present wait began, by the dispatcher's `now`.
        self.since = dispatcher.now

    # What the connection is.

    @property
    def app(self) -> Any:
        """The app that is served."""
        return self._service.app

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return State.PROCESSING <= self._state <= State.DRAINING

    @property
    def carried(self) -> int:
        """How many received bytes wait behind the request in flight."""
        return len(self._carry)

    @property
    def must_linger(self) -> bool:
        """Whether the peer may still be sending what will never be read."""
        return self._unread

    def overdue(self, now: float, idle: float, head: float, body: float, rate: float) -> int:
        """Say what the connection has been waiting for longer than it may; a `Wait`.

        Args:
            now: The time, by the loop's clock.
            idle: Seconds that it may be without a request.
            head: Seconds for a whole head, from its first byte.
            body: Seconds for a whole body, and for as many more as its bytes would take at `rate`.
            rate: The slowest that a peer may be, in bytes a second.
        """
        state = self._state
        waited = now - self.since
        if state == State.CONNECTED:
            return Wait.IDLE if waited > idle else Wait.NOTHING
        if state == State.READING:
            return Wait.HEAD if waited > head else Wait.NOTHING
        if (
            self._body_left
            and not self.reading_paused
            and not self._continue
            and State.PROCESSING <= state <= State.DRAINING
            and waited > body + self._body_size / rate
        ):
            return Wait.BODY
        return Wait.UNSENT if self.unsent() else Wait.NOTHING

    def unsent(self) -> bool:
        """Whether bytes wait for the peer to take them."""
        if self.write_paused:
            return True
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def timed_out(self) -> None:
        """Refuse what has not arrived in time: a head, or a body (RFC 9110 section 15.5.9)."""
        if self._state == State.READING:
            self.refuse(ProtocolError(408, "the request did not arrive in time"))
        else:
            self._body_failed(ProtocolError(408, "the body of the request did not arrive in time"))
        if self._state == State.CLOSING:
            self.flush()

    # Bytes in.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return memory to receive into; the connections of a loop share it, but for large bodies."""
        if self._whole is not None:
            return self._whole.view()
        return self._dispatcher.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` bytes that were received into the buffer."""
        if self._whole is not None:
            self._whole.advance(nbytes)
            self._body_grown(nbytes)
            return
        self.data_received(bytes(self._dispatcher.read_buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take received bytes, answer every request that is complete, and send the answers together."""
        if self._state == State.CLOSING:
            self.discarded(len(data))
            return
        self.feed_data(data)
        if self._out or self._state == State.CLOSING:
            self.flush()

    def feed_data(self, data: bytes) -> None:
        """Take received bytes; what is to be sent waits for `flush`."""
        _counters["reads"] += 1
        _counters["bytes_received"] += len(data)
        state = self._state
        if state == State.CONNECTED:
            self.since = self._dispatcher.now
        if state == State.CONNECTED or state == State.READING:
            if self._dispatcher.entered or self.write_paused:
                # A handler of this loop feeds us from inside its own step, or the peer does not read: later.
                self._keep(data)
                if not self.write_paused:
                    self._dispatcher.loop.call_soon(self.resume)
                return
            if len(self._carry):
                self._carry.append(data)
                data = self._carry.take()
            self._feed(data)
        elif state == State.PROCESSING or state == State.WRITING or state == State.DRAINING:
            position = self._feed_body(data, 0) if self._body_left else 0
            if self._state == State.CONNECTED:
                self.feed_data(data[position:])
            elif position < len(data) and self._state != State.CLOSING:
                self._keep(data[position:])
        # In any other state the bytes have no reader: they are dropped.

    def resume(self) -> None:
        """Go on with the bytes that waited; called when a request that had suspended is answered."""
        if self._dispatcher.entered:
            self._dispatcher.loop.call_soon(self.resume)
        elif (self._state == State.CONNECTED or self._state == State.READING) and not self.write_paused:
            if len(self._carry):
                self._feed(self._carry.take())
            elif self.reading_paused:
                self.resume_reading()
            if self._out or self._state == State.CLOSING:
                self.flush()

    def _keep(self, data: bytes) -> None:
        self._carry.append(data)
        if len(self._carry) > PIPELINE_HIGH_WATER and not self.reading_paused:
            self.pause_reading()

    def _feed(self, data: bytes) -> None:
        self._feeding = True
        try:
            self._feed_heads(data)
        finally:
            self._feeding = False
            self._dispatcher.leave()
        if self.reading_paused and self._state <= State.READING and not self.write_paused:
            self.resume_reading()

    def _feed_heads(self, data: bytes) -> None:
        position = 0
        size = len(data)
        parser = self._parser
        while position < size:
            self.event(Event.DATA_READY)
            try:
                end = parser.parse(data, position)
            except ProtocolError as error:
                parser.reset()
                self.refuse(error)
                return
            if end < 0:
                _counters["heads_in_pieces"] += 1
                self._carry.append(data[position:] if position else data)
                return
            position = self._begin(data, end)
            if self._state != State.CONNECTED:
                if position < size and State.PROCESSING <= self._state <= State.DRAINING:
                    self._keep(data[position:])
                return
            if self._out_size >= WRITE_HIGH_WATER:
                self.flush()
            if self.write_paused:
                if position < size:
                    self._keep(data[position:])
                return
            if position < size:
                _counters["pipelined"] += 1

    def _begin(self, data: bytes, position: int) -> int:
        """Dispatch the request whose head was just parsed; return where its body ends in `data`."""
        parser = self._parser
        _counters["requests"] += 1
        _counters["materialised"] += 1
        self.event(Event.REQUEST_COMPLETE)
        match = self._router.find(parser.method, parser.raw_path)
        endpoint = self._endpoint = match.endpoint
        request = self._request = self._service.request_class(
            self, parser.method, parser.raw_path, parser.query_string, parser.headers, "1.1" if parser.minor else "1.0"
        )
        request.bind(match.names, match.values)
        request.endpoint = endpoint
        self._minor = parser.minor
        self.allowance -= 1
        if self.allowance == 0:
            self.closing = True
        self._keep_alive = parser.keep_alive and not self.closing
        self._head_only = parser.method_id == 1
        self._continue = parser.expect_continue
        self._failed = self._streaming = False
        self._receiver = None
        length = parser.content_length
        chunked = parser.chunked
        connect = parser.method_id == 5
        parser.reset()
        self._body_left = 0
        if self.report is not None:
            self.started = monotonic_ns()
        if connect:
            # What follows the head of a CONNECT is no HTTP (RFC 9110 section 9.3.6).
            self.refuse(ProtocolError(501, "CONNECT is not supported"))
            return len(data)
        if length > 0 or chunked:
            limit = self._body_limit = endpoint.body_limit
            self._body_size = 0
            if length > limit:
                self._keep_alive = False
                self._body_left = length
                request.body_bytes = None
                self._receiver = request.receiver = self.open_body(request, limit, length)
                self._receiver.set_exception(PayloadTooLarge(limit))
                self._dispatcher.run(self, _raise, (PayloadTooLarge(limit),))
                return len(data)
            position = self._begin_body(request, data, position, length, limit)
            if self._state != State.PROCESSING:
                return position
        if endpoint.mode == CALL_BARE:
            self._dispatcher.run(self, endpoint.call, ())
        elif endpoint.mode == CALL_PARAMS:
            arguments = self._arguments(endpoint.kinds, match.values)
            if arguments is None:
                self._dispatcher.run(self, endpoint.plan, (request,))
            else:
                self._dispatcher.run(self, endpoint.call, arguments)
        else:
            self._dispatcher.run(self, endpoint.call, (request,))
        return position

    @staticmethod
    def _arguments(kinds: bytes, values: tuple[str, ...]) -> tuple[Any, ...] | None:
        if KIND_INT not in kinds:
            return values
        arguments: list[Any] = []
        for kind, value in zip(kinds, values, strict=True):
            if kind == KIND_INT:
                if not _integer(value):
                    return None
                arguments.append(int(value))
            else:
                arguments.append(value)
        return tuple(arguments)

    # The request's body.

    def _begin_body(self, request: Request, data: bytes, position: int, length: int, limit: int) -> int:
        if length > 0:
            if len(data) - position >= length:
                request.body_bytes = data[position : position + length]
                _counters["bodies_in_place"] += 1
                return position + length
            self._body_left = length
            self._chunks = None
        else:
            self._body_left = -1
            self._chunks = ChunkedParser()
        _counters["bodies_in_pieces"] += 1
        self.since = self._dispatcher.now
        request.body_bytes = None
        self._receiver = request.receiver = self.open_body(request, limit, length if length > 0 else None)
        return self._feed_body(data, position)

    def _feed_body(self, data: bytes, position: int) -> int:
        """Give body bytes to the receiver; return where they end in `data`."""
        if self._whole is not None:
            count = self._whole.add(data[position:] if position else data)
            self._body_grown(count)
            return position + count
        chunks = self._chunks
        if chunks is None:
            piece = data[position : position + self._body_left] if position else data[: self._body_left]
            position += len(piece)
            self._body_left -= len(piece)
            pieces = [piece]
            complete = self._body_left == 0
        else:
            try:
                position, pieces = chunks.parse(data, position)
            except ProtocolError as error:
                self._body_failed(error)
                return len(data)
            complete = chunks.done
        room = True
        for piece in pieces:
            if piece:
                self._continue = False
                self._body_size += len(piece)
                if self._body_size > self._body_limit:
                    self._body_overrun()
                    return len(data)
                if self._state != State.DRAINING:
                    room = self._receiver.feed_data(piece)
        if complete:
            self._body_left = 0
            self._continue = False
            self._receiver.feed_eof()
            self._chunks = None
            if self._state == State.DRAINING:
                self._next()
        elif self._state == State.DRAINING:
            if self._body_size > UNREAD_BODY_LIMIT:
                self.close()
        elif not room and not self.reading_paused:
            self.pause_reading()
        return position

    def _receive_whole(self) -> None:
        """From here on the body goes straight into the memory that it will have as a whole."""
        _counters["bodies_whole"] += 1
        whole = self._whole = BodyBuffer(self._body_size + self._body_left)
        for chunk in self._receiver.hand_back():
            whole.add(chunk)

    def _body_grown(self, count: int) -> None:
        self._body_left -= count
        self._body_size += count
        if self._body_left == 0:
            whole, self._whole = self._whole, None
            self._receiver.feed_whole(whole.take())  # type: ignore[union-attr]

    def _body_failed(self, error: ProtocolError) -> None:
        """The framing of the body is broken: nothing after it can be understood."""
        self._body_left = 0
        self._keep_alive = False
        self._receiver.set_exception(ClientDisconnect(str(error)))
        if self._state == State.PROCESSING:
            self.refuse(error)
        else:
            self.close()

    def _body_overrun(self) -> None:
        self._keep_alive = False
        self._receiver.set_exception(PayloadTooLarge(self._body_limit))
        self._body_size = 0
        self._body_limit = 1 << 62
        if self._state == State.DRAINING:
            self.close()

    def resume_body(self) -> None:
        """The receiver has room, or somebody began to read: let the peer send."""
        self.since = self._dispatcher.now
        if self._continue and self._state == State.PROCESSING:
            # RFC 9110 section 10.1.1
            self._continue = False
            _counters["continues"] += 1
            self.write(_CONTINUE)
            if not self._feeding:
                self.flush()
        if (
            WHOLE_BODY_MINIMUM <= self._body_left <= WHOLE_BODY_MAXIMUM
            and self._whole is None
            and self._receiver.reads_whole
        ):
            self._receive_whole()
        if self.reading_paused and len(self._carry) <= PIPELINE_HIGH_WATER:
            self.resume_reading()

    # The end of a request, and of the connection.

    def complete(self) -> None:
        """The answer is complete: go on to the next request, or close."""
        self._streaming = False
        if self._state != State.WRITING:
            return
        self.event(Event.WRITE_COMPLETE)
        if self.closing or not self._keep_alive:
            self.close()
        elif self._body_left == 0:
            self._next()
        else:
            self._request = None
            self._whole = None
            self._receiver.discard()
            self.since = self._dispatcher.now
            if self.reading_paused:
                self.resume_reading()
        if not self._feeding:
            self.since = self._dispatcher.now
            self.flush()
            if self._state == State.CONNECTED and (len(self._carry) or self.reading_paused):
                self._dispatcher.loop.call_soon(self.resume)

    def _next(self) -> None:
        self.event(Event.KEEP_ALIVE)
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._receiver = self._chunks = self._whole = None

    def refuse(self, error: ProtocolError) -> None:
        """Answer a peer that broke the protocol, and close."""
        _counters["refused"] += 1
        self.event(Event.ERROR)
        self._keep_alive = False
        self._unread = True
        self.event(Event.RESPONSE_READY)
        body = error.message.encode("ascii") + b"\n"
        if self._head_only and self._request is not None:
            body = b""
        length = len(error.message) + 1
        self.write(self._writer.head(error.status, None, b"text/plain; charset=utf-8", length, 1) + body)
        self.refused(error)
        if not self._feeding:
            self.flush()

    def close(self) -> None:
        """Stop reading; close once everything is sent."""
        if self._body_left:
            self._unread = True
        self.event(Event.CLOSE)
        self._carry.clear()

    # The cold half, in the subclass.

    def open_body(self, request: Request, limit: int, length: int | None) -> Any:
        """Make what receives a body that has not arrived whole."""
        raise TypeError("a Connection without a cold half cannot receive a body in pieces; use HTTPProtocol")

    def pause_reading(self) -> None:
        """Ask the feeder for no more bytes."""
        self.reading_paused = True

    def resume_reading(self) -> None:
        """Ask the feeder for bytes again."""
        self.reading_paused = False

    def discarded(self, count: int) -> None:
        """The peer still sends to a connection that is closing; `count` bytes were thrown away."""

    def refused(self, error: ProtocolError) -> None:
        """A peer that broke the protocol was answered."""
