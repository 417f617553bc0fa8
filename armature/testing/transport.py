"""A connection without a socket: the transport a server's protocol writes to, with the client at its other end.

It keeps asyncio's promises: the protocol is only called from the loop, never from inside a running task; writing
beyond the high-water mark pauses the writer until the client has read; a closing transport delivers what was
written first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

__all__ = ["MemoryTransport"]

#: Bytes given to the protocol in one call, as a socket's receive would.
READ_SIZE = 64 * 1024

#: Pieces that may wait for the server before `drain` waits.
QUEUE_PIECES = 16


class MemoryTransport(asyncio.Transport):
    """The server's end of an in-memory connection.

    Args:
        loop: The loop that the protocol lives on.
        protocol: The server's protocol.
        context: The context that the protocol is called in.
        received: Called when there is something new for the client: data, the end of it, or a failure.
        extra: What `get_extra_info` answers.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Any,
        context: Context,
        received: Callable[[], None],
        extra: dict[str, Any],
    ) -> None:
        super().__init__(extra)
        self._loop = loop
        self._protocol = protocol
        self._context = context
        self._received = received
        # Towards the server.
        self._inbound: deque[bytes] = deque()
        self._inbound_ended = False
        self._reading = True
        self._pumping = False
        self._room: asyncio.Future[None] | None = None
        # Towards the client.
        self._outbound: deque[bytes] = deque()
        self._outbound_size = 0
        self._high = 64 * 1024
        self._low = 16 * 1024
        self._paused = False
        self._closing = False
        self._lost = False
        #: The server will send nothing more.
        self.ended = False
        #: What broke the connection, if something did.
        self.failure: BaseException | None = None
        self._call(protocol.connection_made, self)

    def _call(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self._loop.call_soon(callback, *arguments, context=self._context)

    # The client's side.

    @property
    def lost(self) -> bool:
        """Whether the connection is over for both sides."""
        return self._lost

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        for start in range(0, len(data), READ_SIZE):
            self._inbound.append(data[start : start + READ_SIZE])
        self._schedule_pump()

    def send_eof(self) -> None:
        """Tell the server that nothing more will be sent; it may still answer."""
        self._inbound_ended = True
        self._schedule_pump()

    async def drain(self) -> None:
        """Wait while the server has more than it takes."""
        while len(self._inbound) > QUEUE_PIECES and not self._lost:
            self._room = self._loop.create_future()
            await self._room

    def receive(self) -> bytes:
        """Return what the server has sent since the last call; empty if there is nothing."""
        if not self._outbound:
            return b""
        data = b"".join(self._outbound)
        self._outbound.clear()
        self._outbound_size = 0
        if self._paused or self._closing:
            self._call(self._drained)
        return data

    def reset(self) -> None:
        """Go away at once, as a client does whose process dies."""
        self._inbound.clear()
        self._lose(None if self._closing else ConnectionResetError("the test client went away"))

    # The way in.

    def _schedule_pump(self) -> None:
        if not self._pumping and not self._lost:
            self._pumping = True
            self._call(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._lost or self._closing or not self._reading:
            return
        protocol = self._protocol
        try:
            if self._inbound:
                data = self._inbound.popleft()
                self._make_room()
                if isinstance(protocol, asyncio.BufferedProtocol):
                    buffer = memoryview(protocol.get_buffer(len(data)))
                    size = min(len(buffer), len(data))
                    buffer[:size] = data[:size]
                    if size < len(data):
                        self._inbound.appendleft(data[size:])
                    protocol.buffer_updated(size)
                else:
                    protocol.data_received(data)
                if self._inbound or self._inbound_ended:
                    self._schedule_pump()
            elif self._inbound_ended:
                self._inbound_ended = False
                if not protocol.eof_received():
                    self.close()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Not even `SystemExit` ends the loop of a test.
            self.failure = error
            self._lose(error if isinstance(error, Exception) else None)

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # The way out.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._lost or self.ended or not data:
            return
        self._outbound.append(bytes(data))
        self._outbound_size += len(data)
        if not self._paused and self._outbound_size > self._high:
            self._paused = True
            self._protocol.pause_writing()
        self._received()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _drained(self) -> None:
        if self._outbound_size > self._low or self._lost:
            return
        if self._paused:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._outbound:
            self._lose(None)

    def can_write_eof(self) -> bool:
        # As with sockets: TLS has no half-closed connections.
        return self.get_extra_info("sslcontext") is None

    def write_eof(self) -> None:
        if not self.can_write_eof():
            raise NotImplementedError("a TLS connection cannot be half closed")
        self.ended = True
        self._received()

    def close(self) -> None:
        if self._closing or self._lost:
            return
        self._closing = True
        self.ended = True
        self._received()
        if not self._outbound:
            self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = self.ended = True
        self._make_room()
        self._received()
        self._call(self._protocol.connection_lost, error)

    # What protocols ask a transport.

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._schedule_pump()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        return self._outbound_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]
