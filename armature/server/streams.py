"""Sending a response piece by piece: async and sync iterators, files, with backpressure (RFC 9112 section 7.1).

The first piece leaves at once. Later ones are gathered until they are worth a write or until the producer waits,
so that a stream costs neither a packet per line nor a delay. A sync iterator may block, so it runs in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from armature.http.files import FileBody
from armature.server.sendfile import send_file

if TYPE_CHECKING:
    from armature._impl import message
    from armature.server.protocol import HTTPProtocol

__all__ = ["send"]

#: Gathered bytes that are worth a write.
GATHER = 16 * 1024

#: What a thread takes from a sync iterator before it hands over: bytes, and seconds.
BATCH_BYTES = 64 * 1024
BATCH_SECONDS = 0.01


async def send(protocol: HTTPProtocol, request: message.Request, response: message.Response) -> None:
    """Send `response`, whose body is a stream, over `protocol`.

    Raises:
        TypeError: The stream is not iterable, or produces something that is neither bytes nor str.
        RuntimeError: It is longer or shorter than the Content-Length it was announced with.
    """
    prepare = getattr(response, "prepare", None)
    if prepare is not None:
        response = await prepare(request)
        if response.stream is None:
            protocol.respond(response)
            return
    source = response.stream
    try:
        if protocol.start_stream(response):
            if isinstance(source, FileBody):
                await send_file(protocol, source)
            elif isinstance(source, AsyncIterable):
                await _send_async(protocol, source)
            else:
                await _send_sync(protocol, source)
            protocol.end_stream()
    finally:
        await _close(source)
    if protocol.report:
        protocol.answered(response.status, 0)
    protocol.complete()


async def _send_async(protocol: HTTPProtocol, source: AsyncIterable[bytes | str]) -> None:
    gatherer = _Gatherer(protocol)
    iterator: AsyncIterator[bytes | str] = source.__aiter__()
    async for piece in iterator:
        gatherer.add(piece)
        if protocol.write_paused:
            await protocol.drain()


async def _send_sync(protocol: HTTPProtocol, source: Any) -> None:
    gatherer = _Gatherer(protocol)
    if isinstance(source, (list, tuple)):
        for piece in source:
            gatherer.add(piece)
            if protocol.write_paused:
                await protocol.drain()
        return
    iterator = iter(source)
    more = True
    while more:
        pieces, more = await asyncio.to_thread(_take, iterator)
        for piece in pieces:
            gatherer.add(piece)
        if protocol.write_paused:
            await protocol.drain()


def _take(iterator: Iterator[bytes | str]) -> tuple[list[bytes | str], bool]:
    pieces: list[bytes | str] = []
    size = 0
    deadline = time.monotonic() + BATCH_SECONDS
    for piece in iterator:
        pieces.append(piece)
        size += len(piece)
        if size >= BATCH_BYTES or time.monotonic() >= deadline:
            return pieces, True
    return pieces, False


class _Gatherer:
    """Writes the first piece at once, and later ones together."""

    __slots__ = ("_gathered", "_handle", "_protocol", "_started")

    def __init__(self, protocol: HTTPProtocol) -> None:
        self._protocol = protocol
        self._gathered = 0
        self._started = False
        self._handle: asyncio.Handle | None = None

    def add(self, piece: bytes | str) -> None:
        if isinstance(piece, str):
            piece = piece.encode("utf-8")
        elif not isinstance(piece, bytes):
            if not isinstance(piece, (bytearray, memoryview)):
                raise TypeError(f"a streamed body is made of bytes or str, not {type(piece).__name__}")
            piece = bytes(piece)
        if not piece:
            return
        self._protocol.send_chunk(piece)
        self._gathered += len(piece)
        if not self._started or self._gathered >= GATHER:
            self._started = True
            self._flush()
        elif self._handle is None:
            self._handle = self._protocol.server_state.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._gathered = 0
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._protocol.flush()


async def _close(source: Any) -> None:
    """Run the producer's `finally` now, not when it is collected."""
    close = getattr(source, "aclose", None)
    if close is None:
        close = getattr(source, "close", None)
    if close is not None:
        result = close()
        if inspect.isawaitable(result):
            await result
