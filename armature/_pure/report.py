"""What is told about every answer: a line of the access log, and the figures of its route.

A connection whose `report` is set calls it as `report(connection, status, size)` when an answer is complete; without
one nothing here costs anything.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from armature._spec.access import (
    FIELD_LIMIT,
    FIELD_NUMBERS,
    FIELDS,
    HEADER_OF,
    HISTOGRAM_BOUNDS,
    JSON_ESCAPES,
    LINES_GATHER,
    LINES_LIMIT,
    TEXT_ESCAPES,
    time_texts,
)
from armature._spec.methods import METHOD_IDS, METHODS, OTHER

if TYPE_CHECKING:
    from armature._pure.dispatch import Endpoint
    from armature._pure.exchange import Exchange

__all__ = ["AccessLines", "Reporter", "RouteFigures", "stats"]

_counters = {"lines": 0, "lines_dropped": 0, "answers_timed": 0}

_SECOND = 1_000_000_000

#: Matches what needs no escaping.
_plain = re.compile(rb"[%b]*" % re.escape(bytes(b for b, text in enumerate(TEXT_ESCAPES) if len(text) == 1))).fullmatch


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


class AccessLines:
    """Lines of the access log, gathered until somebody writes them.

    Args:
        parts: What a line is made of: pairs of a literal text and the field that follows it, or None after the last.
        json: Whether values are written as JSON.
        limit: Bytes of lines that may wait; further ones are dropped.
        on_first: Called when a line came and none was waiting.
        on_full: Called when so much waits that it is worth a write.
        by_request: Whether the requests of one connection may come from different clients.

    Raises:
        ValueError: There is no such field.
    """

    __slots__ = (
        "_by_request",
        "_escapes",
        "_json",
        "_limit",
        "_lines",
        "_offset",
        "_on_first",
        "_on_full",
        "_parts",
        "_second",
        "_size",
        "_times",
        "dropped",
        "held",
    )

    def __init__(
        self,
        parts: Sequence[tuple[bytes, str | None]],
        json: bool = False,
        limit: int = LINES_LIMIT,
        on_first: Callable[[], object] | None = None,
        on_full: Callable[[], object] | None = None,
        by_request: bool = False,
    ) -> None:
        for _, name in parts:
            if name is not None and name not in FIELD_NUMBERS:
                raise ValueError(f"an access log has no field {name!r}; it has {', '.join(FIELDS)}")
        self._parts = tuple(parts)
        self._json = json
        self._escapes = JSON_ESCAPES if json else TEXT_ESCAPES
        self._limit = limit
        self._by_request = by_request
        self._on_first = on_first
        self._on_full = on_full
        self._lines: list[bytes] = []
        self._size = 0
        self._second = -1
        self._times = (b"", b"")
        self._offset = time.time_ns() - time.monotonic_ns()
        #: Lines that found no room.
        self.dropped = 0
        #: Bytes that were taken and are not written yet; they count as waiting.
        self.held = 0

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'AccessLines' object")

    def __len__(self) -> int:
        return self._size

    def add(self, exchange: Exchange, status: int, size: int, now: int, duration: int) -> None:
        """Add a line.

        Args:
            exchange: What was answered.
            status: The status.
            size: Bytes of the body that were sent.
            now: The present, in nanoseconds of a clock that only grows.
            duration: What the answer took, in nanoseconds.
        """
        if self._size + self.held >= self._limit:
            self.dropped += 1
            _counters["lines_dropped"] += 1
            return
        request = exchange.request
        pieces = []
        for literal, name in self._parts:
            pieces.append(literal)
            if name == "status":
                pieces.append(b"%d" % status)
            elif name == "bytes":
                pieces.append(b"%d" % size)
            elif name == "duration_us":
                pieces.append(b"%d" % (duration // 1000))
            elif name == "time" or name == "time_common":
                pieces.append(self._time(name, now + self._offset))
            elif name is not None:
                source = request if name != "client" or (self._by_request and request is not None) else exchange
                pieces.append(self._value(_value_of(name, source, exchange)))
        pieces.append(b"\n")
        line = b"".join(pieces)
        first = not self._lines
        self._lines.append(line)
        self._size += len(line)
        _counters["lines"] += 1
        if first:
            if self._on_first is not None:
                self._on_first()
        elif self._size >= LINES_GATHER > self._size - len(line) and self._on_full is not None:
            self._on_full()

    def take(self) -> bytes:
        """Return the lines that wait, and forget them."""
        lines, self._lines = self._lines, []
        self._size = 0
        # The clocks drift apart, and the wall clock may be set.
        self._offset = time.time_ns() - time.monotonic_ns()
        return b"".join(lines)

    def _value(self, raw: bytes | None) -> bytes:
        if raw is None:
            return b"null" if self._json else b"-"
        text = raw
        if len(raw) > FIELD_LIMIT or not _plain(raw):
            escapes = self._escapes
            text = b"".join([escapes[byte] for byte in raw[:FIELD_LIMIT]])
            if len(raw) > FIELD_LIMIT:
                text += b"..."
        return b'"%b"' % text if self._json else text

    def _time(self, name: str, wall: int) -> bytes:
        second, rest = divmod(wall, _SECOND)
        if second != self._second:
            self._second = second
            self._times = time_texts(second)
        text = self._times[1] if name == "time_common" else b"%b.%03dZ" % (self._times[0], rest // 1_000_000)
        return b'"%b"' % text if self._json else text


def _value_of(name: str, source: Any, exchange: Exchange) -> bytes | None:
    """Return the value of a field, from the request or, for a client, the connection."""
    if source is None:
        return None
    if name == "client":
        client = getattr(source, "client", None)
        return None if client is None else str(client[0]).encode("utf-8", "replace")
    if name == "method":
        return source.method.encode("utf-8", "replace")  # type: ignore[no-any-return]
    if name == "path":
        return source.raw_path  # type: ignore[no-any-return]
    if name == "query":
        return source.query_string or None
    if name == "target":
        query = source.query_string
        return b"%b?%b" % (source.raw_path, query) if query else source.raw_path
    if name == "version":
        return source.http_version.encode("ascii")  # type: ignore[no-any-return]
    if name == "route":
        path = getattr(getattr(exchange._endpoint, "route", None), "path", None)
        return None if path is None else str(path).encode("utf-8", "replace")
    return source.header(HEADER_OF[name])  # type: ignore[no-any-return]


class RouteFigures:
    """How many requests each route answered, with which statuses, and how long that took.

    Args:
        bounds: The upper bounds of the histogram's buckets, in seconds, in ascending order, at most 63; one without a
            bound follows them.

    Raises:
        ValueError: There are more.
    """

    __slots__ = ("_bounds", "_figures", "bounds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        if len(self.bounds) > HISTOGRAM_BOUNDS:
            raise ValueError(f"a histogram has at most {HISTOGRAM_BOUNDS} bounds, not {len(self.bounds)}")
        self._bounds = [round(bound * _SECOND) for bound in self.bounds]
        # Bounded by the routes, and by the methods that have a number.
        self._figures: dict[Endpoint | None, dict[int, _Figures]] = {}

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'RouteFigures' object")

    def add(self, endpoint: Endpoint | None, method: int, status: int, size: int, duration: int) -> None:
        """Count one answer.

        Args:
            endpoint: What answered; None for a request that could not be read.
            method: The number of the method, as of `armature._spec.methods`.
            status: The status.
            size: Bytes of the body that were sent.
            duration: What it took, in nanoseconds.
        """
        if not 0 <= method <= OTHER:
            raise IndexError("index out of range")
        methods = self._figures.get(endpoint)
        if methods is None:
            methods = self._figures[endpoint] = {}
        figures = methods.get(method)
        if figures is None:
            figures = methods[method] = _Figures(len(self._bounds) + 1)
        figures.buckets[bisect_left(self._bounds, duration)] += 1
        figures.statuses[status // 100 if 100 <= status < 600 else 0] += 1
        figures.total += duration
        figures.size += size
        _counters["answers_timed"] += 1

    def collect(self) -> list[tuple[Endpoint | None, str, tuple[int, ...], tuple[int, ...], int, int]]:
        """Return the figures so far.

        Returns:
            For every endpoint and method that was asked for: both, the answers by bucket, the answers by the first
            digit of their status, the nanoseconds and the bytes of all together. A method without a number is
            `"_OTHER"`.
        """
        return [
            (
                endpoint,
                METHODS[method] if method < OTHER else "_OTHER",
                tuple(figures.buckets),
                tuple(figures.statuses),
                figures.total,
                figures.size,
            )
            for endpoint, methods in list(self._figures.items())
            for method, figures in sorted(methods.copy().items())
        ]


class _Figures:
    __slots__ = ("buckets", "size", "statuses", "total")

    def __init__(self, buckets: int) -> None:
        self.buckets = [0] * buckets
        self.statuses = [0] * 6
        self.total = 0
        self.size = 0


class Reporter:
    """Passes on what is told about every answer.

    Args:
        lines: Gets a line per answer.
        figures: Counts every answer.
        call: Called for every answer with what `AccessLines.add` takes.
    """

    __slots__ = ("_call", "_figures", "_lines")

    def __init__(
        self,
        lines: AccessLines | None = None,
        figures: RouteFigures | None = None,
        call: Callable[[Any, int, int, int, int], object] | None = None,
    ) -> None:
        self._lines = lines
        self._figures = figures
        self._call = call

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Reporter' object")

    def answered(self, exchange: Exchange, status: int, size: int) -> None:
        """Tell of one answer.

        Args:
            exchange: The connection, with the request that was answered; without one the request could not be read.
            status: The status.
            size: Bytes of the body that were sent.
        """
        now = time.monotonic_ns()
        request = exchange.request
        duration = 0 if request is None else now - exchange.started
        if self._lines is not None:
            self._lines.add(exchange, status, size, now, duration)
        if self._figures is not None:
            endpoint, method = None, OTHER
            if request is not None:
                endpoint, method = exchange._endpoint, METHOD_IDS.get(request.method, OTHER)
            self._figures.add(endpoint, method, status, size, duration)
        if self._call is not None:
            self._call(exchange, status, size, now, duration)
