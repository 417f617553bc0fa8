"""The body of a request that is still arriving, with backpressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from armature._spec.limits import BODY_HIGH_WATER, BODY_LIMIT
from armature.exceptions import PayloadTooLarge

__all__ = ["BodyReceiver", "BodySource"]


class BodySource(Protocol):
    """What feeds a receiver: a connection."""

    def resume_body(self) -> None:
        """Go on reading; also called when a handler first asks, so that `100 Continue` can be sent."""


class BodyReceiver:
    """Takes the body from the connection as it arrives and hands it to the handler as it asks.

    The connection calls `feed_data`, `feed_eof` and `set_exception`; the handler's side is `read` and `async for`.
    While nobody reads the whole body, at most `BODY_HIGH_WATER` bytes and one chunk are kept here: then `feed_data`
    returns False, the connection pauses reading, and `resume_body` is called once half of it has been taken.

    Args:
        source: What is told to go on.
        limit: The largest body, in bytes.
        length: The declared length, if there is one.
    """

    __slots__ = (
        "_buffered",
        "_chunks",
        "_error",
        "_paused",
        "_source",
        "_taken",
        "_waiters",
        "_whole",
        "complete",
        "length",
        "limit",
        "size",
        "wanted",
    )

    def __init__(self, source: BodySource, limit: int = BODY_LIMIT, length: int | None = None) -> None:
        self._source = source
        self._chunks: deque[bytes] | None = deque()
        self._buffered = 0
        self._error: BaseException | None = None
        self._paused = False
        self._taken = False
        self._whole: bytes | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.limit = limit
        self.length = length
        #: Bytes received so far.
        self.size = 0
        #: Whether the handler has asked for the body.
        self.wanted = False
        #: Whether the end of the body has been received.
        self.complete = False
        if length is not None and length > limit:
            self._error = PayloadTooLarge(limit)

    # ---- the connection's side

    def feed_data(self, chunk: bytes) -> bool:
        """Take bytes from the connection; False asks it to pause until `resume_body` is called.

        Args:
            chunk: Bytes of the body, without framing.
        """
        self.size += len(chunk)
        chunks = self._chunks
        if chunks is None:
            return True
        if self._error is None and self.size > self.limit:
            self.set_exception(PayloadTooLarge(self.limit))
        if self._error is not None:
            self._paused = True
            return False
        chunks.append(chunk)
        self._buffered += len(chunk)
        if self._waiters and not self.reads_whole:
            self._wake()
        if self._buffered >= BODY_HIGH_WATER and not self.reads_whole:
            self._paused = True
            return False
        return True

    def hand_back(self) -> list[bytes]:
        """Return what is kept, to a connection that will bring the whole body by `feed_whole`."""
        chunks = list(self._chunks or ())
        if self._chunks is not None:
            self._chunks.clear()
        self._buffered = 0
        return chunks

    def feed_whole(self, body: bytes) -> None:
        """Take the whole body at once, and its end.

        Args:
            body: All bytes of the body, those of earlier chunks included.
        """
        self.size = len(body)
        if self._error is None and self._chunks is not None:
            self._whole = body
        self.feed_eof()

    def feed_eof(self) -> None:
        """Say that the body is complete."""
        self.complete = True
        self._wake()

    def set_exception(self, error: BaseException) -> None:
        """Say that the body will never be complete; every reader gets the error.

        Args:
            error: What is raised from `read` and from iteration.
        """
        if self.complete or self._error is not None:
            return
        self._error = error
        if self._chunks is not None:
            self._chunks.clear()
        self._buffered = 0
        self._wake()

    def discard(self) -> None:
        """Drop what is kept and whatever else arrives, and say so to the connection if it had paused."""
        self._chunks = None
        self._buffered = 0
        self._resume()
        self._wake()

    @property
    def drained(self) -> bool:
        """Whether the whole body has been received and none of it is waiting to be read."""
        return self.complete and self._buffered == 0

    @property
    def reads_whole(self) -> bool:
        """Whether somebody waits for the whole body, which is then bounded by the limit alone."""
        return self._whole is not None or (self.wanted and not self._taken)

    # ---- the handler's side

    async def read(self) -> bytes:
        """Return the whole body; it is kept and may be asked for again.

        Raises:
            PayloadTooLarge: It is larger than the limit.
            ClientDisconnect: The client went away before it was complete.
            RuntimeError: It has been read as a stream already.
        """
        whole = self._whole
        if whole is not None:
            return whole
        if self._taken:
            raise RuntimeError("the request's body has already been read as a stream; choose one of the two")
        self._want()
        chunks = self._usable()
        while not self.complete:
            await self._wait()
            chunks = self._usable()
        # Of several readers the first one to wake up joins the chunks.
        if self._whole is None:
            self._whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self._buffered = 0
        return self._whole

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body's bytes as they arrive, once.

        Raises:
            RuntimeError: It is being read, or has been read, as a stream already.
        """
        if self._whole is None:
            if self._taken:
                raise RuntimeError("the request's body has already been read as a stream; it can be read once")
            if self.wanted and not self.complete:
                raise RuntimeError("the request's body is being read whole; read it whole or as a stream, not both")
        self._taken = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        if self._whole is not None:
            if self._whole:
                yield self._whole
            return
        self._want()
        while True:
            chunks = self._usable()
            if chunks:
                chunk = chunks.popleft()
                self._buffered -= len(chunk)
                if self._buffered <= BODY_HIGH_WATER // 2:
                    self._resume()
                if chunk:
                    yield chunk
            elif self.complete:
                return
            else:
                await self._wait()

    def _want(self) -> None:
        if not self.wanted:
            self.wanted = True
            if not self.complete and self._error is None:
                self._paused = False
                self._source.resume_body()
        elif self.reads_whole:
            self._resume()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self.complete:
                self._source.resume_body()

    def _usable(self) -> deque[bytes]:
        if self._error is not None:
            raise self._error
        if self._chunks is None:
            raise RuntimeError("the request's body has been discarded: its response is complete")
        return self._chunks

    async def _wait(self) -> None:
        # One future for each waiter: cancelling one of them must not cancel the others.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
