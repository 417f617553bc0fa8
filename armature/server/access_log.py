"""The access log of a server: lines gathered in memory, written together by a thread of their own.

A line costs the loop its formatting and nothing else: no record, no lock, no system call. A reader of the log that is
slow, or has stopped, stops the log and not the server: what may wait has a bound, and what exceeds it is dropped and
counted. A program that has set up handlers of its own for `armature.access` gets ordinary records instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import select
import stat
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from armature import _stats
from armature._impl import report
from armature._spec.access import TEXT_ESCAPES
from armature.logs import ACCESS_LOGGER, ACCESS_MESSAGE, access_parts, has_foreign_handlers, json_parts

if TYPE_CHECKING:
    from armature.server.config import ServerConfig

__all__ = ["AccessLog"]

access = logging.getLogger(ACCESS_LOGGER)
logger = logging.getLogger("armature.server")

#: Seconds that a line may wait before it is written.
GATHER_SECONDS = 0.1

#: Seconds that the last lines may take at the end.
CLOSE_SECONDS = 5.0

#: Writes of at most so much to a pipe are not mixed with those of other processes (POSIX's PIPE_BUF, at least 512).
PIPE_BYTES = getattr(select, "PIPE_BUF", 512)


class AccessLog:
    """Writes the access log of one server, on its loop.

    Args:
        config: The server's options.
        loop: The loop that the answers are reported on.
        descriptor: Where lines are written. Default: stderr.
    """

    def __init__(self, config: ServerConfig, loop: asyncio.AbstractEventLoop, descriptor: int | None = None) -> None:
        self._loop = loop
        #: What is given to a `Reporter`: one of the two, or neither where the log is switched off.
        self.lines: report.AccessLines | None = None
        self.call: Callable[[Any, int, int, int, int], object] | None = None
        self._writer: LineWriter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handed = 0
        self._told = 0
        if not access.isEnabledFor(logging.INFO):
            return
        # Behind proxies the request knows whom it comes from.
        by_request = bool(config.trusted_proxies)
        if descriptor is None:
            descriptor = None if has_foreign_handlers(ACCESS_LOGGER) else _descriptor(sys.stderr)
        if descriptor is None:
            self.call = _Records(config.access_log_format, by_request)
            return
        parts, _ = access_parts(config.access_log_format, config.log_format)
        self._writer = LineWriter(descriptor)
        self.lines = report.AccessLines(
            parts, config.log_format == "json", on_first=self._first, on_full=self._flush, by_request=by_request
        )

    def _first(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._due)

    def _due(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        """Hand what waits to the thread."""
        lines, writer = self.lines, self._writer
        assert lines is not None
        assert writer is not None
        data = lines.take()
        if data:
            self._handed += len(data)
            writer.put(data)
        lines.held = self._handed - writer.done
        if lines.held:
            # Until that is written nothing else may ask for a look at how far it is.
            self._first()
        elif lines.dropped > self._told:
            missing, self._told = lines.dropped - self._told, lines.dropped
            logger.warning("%d lines of the access log were dropped: they are not read fast enough", missing)

    async def close(self) -> None:
        """Write what is left; a reader that has stopped cannot hold this up for more than some seconds."""
        if self._writer is None:
            return
        self._flush()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        ended = asyncio.Event()

        def end() -> None:
            # The loop may be gone, if whoever waits has given up.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(ended.set)

        if self._writer.end(end):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), CLOSE_SECONDS)


class LineWriter:
    """Writes lines to a file descriptor in a thread, which starts with the first of them.

    Args:
        descriptor: The file descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Bounded by whoever puts: it counts what is not done.
        self._queue: queue.SimpleQueue[bytes | Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: Bytes that were written, or given up because they could not be.
        self.done = 0

    def put(self, data: bytes) -> None:
        """Write whole lines, soon."""
        self._queue.put(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="armature-access-log", daemon=True)
            self._thread.start()

    def end(self, callback: Callable[[], None]) -> bool:
        """End the thread once everything is written; return False if there is none.

        Args:
            callback: Called in the thread, as the last thing.
        """
        if self._thread is None:
            return False
        self._thread = None
        self._queue.put(callback)
        return True

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if not isinstance(item, bytes):
                item()
                return
            try:
                self._write(item)
            except OSError:
                # Nobody reads any more, or the disk is full. There is no better place to say so than the counter.
                _stats.count("access_log.lines_lost", item.count(b"\n"))
            self.done += len(item)

    def _write(self, data: bytes) -> None:
        mode = os.fstat(self._descriptor).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            self._write_all(memoryview(data))
            return
        # Other workers write to the same pipe: pieces of whole lines that the system does not tear apart.
        start = 0
        while start < len(data):
            end = start + PIPE_BYTES
            if end < len(data):
                end = data.rfind(b"\n", start, end) + 1 or data.find(b"\n", start) + 1
            self._write_all(memoryview(data)[start:end])
            start = end

    def _write_all(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # Somebody made it non-blocking.
                select.select([], [self._descriptor], [])


class _Records:
    """Makes a record of the logging module of every answer, with the fields as `extra`."""

    def __init__(self, template: str, by_request: bool) -> None:
        # The record and its formatter tell the time.
        self._parts, fields = access_parts(ACCESS_MESSAGE if template == "default" else template, "text")
        self._fields = tuple(name for name in fields if not name.startswith("time"))
        # Through the same eyes as a line that is written directly, so that both tell the same.
        self._lines = report.AccessLines(json_parts(fields), True, by_request=by_request)

    def __call__(self, exchange: Any, status: int, size: int, now: int, duration: int) -> None:
        self._lines.add(exchange, status, size, now, duration)
        values = {name: _escaped(value) for name, value in json.loads(self._lines.take()).items()}
        message = "".join(
            [literal.decode() + ("" if name is None else str(values[name])) for literal, name in self._parts]
        )
        access.info("%s", message, extra={name: values[name] for name in self._fields})


def _escaped(value: Any) -> Any:
    # Also a formatter that is not ours must not be made to forge a line.
    if value is None:
        return "-"
    if isinstance(value, str):
        return b"".join([TEXT_ESCAPES[byte] for byte in value.encode("latin-1")]).decode("ascii")
    return value


def _descriptor(stream: Any) -> int | None:
    """The file descriptor of a stream; None if it has none, as where output is captured."""
    try:
        descriptor: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor
