"""Sending a response piece by piece: async and sync iterators, files, with backpressure (RFC 9112 section 7.1).

The first piece leaves at once. Later ones are gathered until they are worth a write or until the producer waits,
so that a stream costs neither a packet per line nor a delay. A sync iterator may block, so it runs in a thread,
which hands over each piece as soon as it has one and gives itself back when it has enough.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from armature._impl import pump
from armature._spec.limits import STREAM_TURN
from armature._spec.states import State
from armature.exceptions import ClientDisconnect
from armature.http.files import FileBody
from armature.server.sendfile import send_file

if TYPE_CHECKING:
    from armature._impl import message
    from armature.server.protocol import HTTPProtocol

__all__ = ["send"]

#: What a thread takes from a sync iterator before it gives itself back: bytes, and seconds.
BATCH_BYTES = 64 * 1024
BATCH_SECONDS = 0.01

#: How long pieces from a thread are gathered, once there was one. Waking the loop up for each would cost more.
GATHER_SECONDS = 0.002

_END = object()


async def send(protocol: HTTPProtocol, request: message.Request, response: message.Response) -> None:
    """Send `response`, whose body is a stream, over `protocol`.

    Raises:
        TypeError: The stream is not iterable, or produces something that is neither bytes nor str.
        RuntimeError: It is longer or shorter than the Content-Length it was announced with.
        ClientDisconnect: The client went away, or broke off its request.
    """
    prepare = getattr(response, "prepare", None)
    if prepare is not None:
        response = await prepare(request)
        if response.stream is None:
            if protocol.state == State.PROCESSING:
                protocol.respond(response)
            return
    source: Any = response.stream
    # A sync iterator that is running in a thread cannot be closed from here; the thread sees to it.
    thread: _Thread | None = None
    started = False
    try:
        if protocol.state != State.PROCESSING:
            raise ClientDisconnect("the client went away before the response began")
        wanted = protocol.start_stream(response)
        started = True
        if wanted:
            if isinstance(source, FileBody):
                await send_file(protocol, source)
            elif isinstance(source, AsyncIterable):
                await pump.pump(protocol, source)
            elif isinstance(source, (list, tuple)):
                turn = STREAM_TURN
                for piece in source:
                    protocol.send_piece(piece)
                    turn -= 1 + (len(piece) >> 10)
                    if turn <= 0 or protocol.write_paused:
                        turn = STREAM_TURN
                        await protocol.drain()
            else:
                thread = _Thread(protocol, source)
                await thread.send(protocol)
            protocol.end_stream()
    finally:
        if isinstance(source, FileBody):
            source.close()
        elif thread is None:
            await _close(source)
        else:
            await thread.close()
        if started and protocol.report is not None:
            # Also of an answer that was cut off: what was sent of it.
            protocol.report(protocol, response.status, protocol.stream_size)
    protocol.complete()


class _Thread:
    """Takes pieces from a sync iterator in a thread, without holding the thread while the peer does not read."""

    __slots__ = ("_context", "_iterator", "_loop", "_pieces", "_running", "_source", "_stopped", "_waiter", "_woken")

    def __init__(self, protocol: HTTPProtocol, source: Any) -> None:
        self._loop = protocol.server_state.loop
        self._context = copy_context()
        self._source = source
        self._iterator: Iterator[Any] | None = None
        self._pieces: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self._stopped = False
        self._running: asyncio.Future[bool] | None = None

    async def send(self, protocol: HTTPProtocol) -> None:
        pieces = self._pieces
        more = True
        while more:
            running = self._running = self._loop.run_in_executor(None, self._context.run, self._take)
            running.add_done_callback(self._wake)
            while pieces or not running.done():
                found = bool(pieces)
                while pieces:
                    protocol.send_piece(pieces.popleft())
                    if protocol.write_paused:
                        await protocol.drain()
                if running.done():
                    continue
                # The thread need not wake anybody up who is going to look anyway.
                self._woken = found
                if found:
                    await self._wait(GATHER_SECONDS)
                elif not pieces:
                    await self._wait(None)
            self._running = None
            more = running.result()

    async def _wait(self, seconds: float | None) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def _take(self) -> bool:
        """Take a batch; return whether there may be more. Runs in a thread."""
        if self._iterator is None:
            self._iterator = iter(self._source)
        size = 0
        deadline = time.monotonic() + BATCH_SECONDS
        while not self._stopped:
            piece = next(self._iterator, _END)
            if piece is _END:
                return False
            self._pieces.append(piece)
            if not self._woken:
                self._woken = True
                self._loop.call_soon_threadsafe(self._wake)
            size += len(piece)  # type: ignore[arg-type]
            if size >= BATCH_BYTES or time.monotonic() >= deadline:
                break
        return True

    def _wake(self, _: Any = None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def close(self) -> None:
        """Run the producer's `finally` now, or as soon as the step that a thread is making has ended."""
        close = getattr(self._source, "close", None)
        running = self._running
        self._stopped = True
        if running is None or running.done():
            if close is not None:
                await self._loop.run_in_executor(None, self._context.run, close)
            return

        # Waiting here would keep the request alive for as long as the producer blocks.
        def closing(ended: asyncio.Future[bool]) -> None:
            if not ended.cancelled():
                ended.exception()
            if close is not None and not self._loop.is_closed():
                _ = self._loop.run_in_executor(None, self._context.run, close)

        running.add_done_callback(closing)


async def _close(source: Any) -> None:
    """Run the producer's `finally` now, not when it is collected."""
    close = getattr(source, "aclose", None)
    if close is None:
        close = getattr(source, "close", None)
    if close is not None:
        result = close()
        if inspect.isawaitable(result):
            await result
