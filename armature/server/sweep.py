"""Deadlines and limits of connections: what has been waited for too long ends, and there are never too many of them.

One timer per server serves all connections. A request costs a deadline nothing but a number that is stored when its
first byte arrives; a few times per second a sweep compares these numbers with the clock. Deadlines are absolute: a
byte now and then buys no time (what a body or a slow reader gets on top is in proportion to what it moved).
"""

from __future__ import annotations

import asyncio
import logging
import struct
import sys
from typing import TYPE_CHECKING, Any

from armature._spec.deadlines import Wait

if TYPE_CHECKING:
    from armature.server.protocol import HTTPProtocol
    from armature.server.state import ServerState

__all__ = ["Sweep", "stats"]

logger = logging.getLogger("armature.server")

#: Sweeps per shortest deadline, and the bounds of the time between two, in seconds.
SWEEPS = 8
SHORTEST_TICK = 0.02
LONGEST_TICK = 0.5

#: From this share of the greatest number of connections on, idle ones are closed sooner.
PRESSURE = 0.7
#: And from this one, those that have been idle for some time are closed at once, the oldest first.
CULL_PRESSURE = 0.8
CULL_IDLE_SECONDS = 30.0
CULL_AT_ONCE = 100
CULL_KEEP = 100
#: The least that a connection may be idle, whatever the pressure.
LEAST_IDLE_SECONDS = 5.0

#: Stands for "no deadline" in arithmetic.
NEVER = float("inf")

_counters = {
    "heads_timed_out": 0,
    "bodies_timed_out": 0,
    "idle_closed": 0,
    "slow_readers_cut": 0,
    "handlers_timed_out": 0,
    "aged_out": 0,
    "culled": 0,
    "turned_away": 0,
}


def stats() -> dict[str, int]:
    """Return what the deadlines and limits of this process have done since it began."""
    return dict(_counters)


class Sweep:
    """Ends what takes too long on one server's connections.

    It sleeps while there are no connections.

    Args:
        server: The server.
    """

    def __init__(self, server: ServerState) -> None:
        config = server.config
        self._server = server
        self._head = NEVER if config.head_timeout is None else config.head_timeout
        self._body = NEVER if config.body_timeout is None else config.body_timeout
        self._idle = NEVER if config.idle_timeout is None else config.idle_timeout
        self._write = NEVER if config.write_timeout is None else config.write_timeout
        self._handler = NEVER if config.handler_timeout is None else config.handler_timeout
        self._age = NEVER if config.keep_alive_age is None else config.keep_alive_age
        self._rate = float(config.minimum_rate) or 1e-9
        self._most = config.max_connections
        shortest = min(self._head, self._body, self._idle, self._write, self._handler, self._age)
        #: Seconds between two sweeps, which is how late a deadline may be kept.
        self.tick = min(max(shortest / SWEEPS, SHORTEST_TICK), LONGEST_TICK)
        self._timer: asyncio.TimerHandle | None = None
        #: Connections that hold unsent bytes: since when, and how much they had taken by then.
        self._slow: dict[HTTPProtocol, tuple[float, int]] = {}

    def begin(self, connection: HTTPProtocol) -> bool:
        """A connection was made: begin to watch it; return whether there is room for it."""
        server = self._server
        if self._timer is None:
            server.dispatcher.now = server.loop.time()
            self._timer = server.loop.call_later(self.tick, self._sweep)
        connection.since = connection.accepted = server.dispatcher.now
        if self._most is not None and len(server.connections) >= self._most:
            if not _counters["turned_away"]:
                logger.error(
                    "there are %d connections, as many as max_connections allows; more are answered with 503",
                    self._most,
                )
            _counters["turned_away"] += 1
            return False
        return True

    def end(self, connection: HTTPProtocol) -> None:
        """A connection is over."""
        self._slow.pop(connection, None)

    def stop(self) -> None:
        """Watch no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def idle_limit(self) -> float:
        """Return how long a connection may be idle now: the more connections there are, the shorter."""
        if self._most is None:
            return self._idle
        load = len(self._server.connections) / self._most
        if load <= PRESSURE or self._idle <= LEAST_IDLE_SECONDS:
            return self._idle
        base = min(self._idle, self._age, 3600.0)
        return base - (base - LEAST_IDLE_SECONDS) * min((load - PRESSURE) / (1 - PRESSURE), 1.0)

    def _sweep(self) -> None:
        server = self._server
        now = server.dispatcher.now = server.loop.time()
        if not server.connections and not (self._handler < NEVER and server.handlers()):
            self._timer = None
            return
        self._timer = server.loop.call_later(self.tick, self._sweep)
        # What is stored may be older than what it stands for by one tick.
        tick, rate = self.tick, self._rate
        idle, head, body = self.idle_limit() + tick, self._head + tick, self._body + tick
        oldest = now - self._age - tick
        for connection in list(server.connections):
            wait = connection.overdue(now, idle, head, body, rate)
            if wait:
                self._overdue(connection, wait, now)
            elif self._slow:
                self._slow.pop(connection, None)
            if connection.accepted < oldest:
                self._aged(connection)
        if self._handler < NEVER:
            self._check_handlers(now)
        if self._most is not None and len(server.connections) >= CULL_PRESSURE * self._most:
            self._cull(now)

    def _overdue(self, connection: HTTPProtocol, wait: int, now: float) -> None:
        if wait == Wait.UNSENT:
            self._check_progress(connection, now)
        elif wait == Wait.IDLE:
            _counters["idle_closed"] += 1
            connection.shutdown()
        else:
            _counters["heads_timed_out" if wait == Wait.HEAD else "bodies_timed_out"] += 1
            connection.timed_out()

    def _check_progress(self, connection: HTTPProtocol, now: float) -> None:
        """Cut off a peer that has not read as much as it must, for as long as it may."""
        transport = connection.transport
        if transport is None:
            return
        taken = connection.written - transport.get_write_buffer_size() - _unacknowledged(transport)
        since, before = self._slow.setdefault(connection, (now, taken))
        if now - since > self._write:
            if taken - before < self._rate * self._write:
                _counters["slow_readers_cut"] += 1
                logger.info("%s reads too slowly and is cut off", connection.peer)
                connection.abort()
            else:
                self._slow[connection] = (now, taken)

    def _aged(self, connection: HTTPProtocol) -> None:
        """The connection is old: it ends, at once if it is idle and else by saying so in its next answer."""
        if not connection.closing:
            _counters["aged_out"] += 1
            connection.retire()

    def _check_handlers(self, now: float) -> None:
        for task in self._server.handlers():
            connection = task.get_coro().owner  # type: ignore[union-attr]
            if now - connection.since > self._handler + self.tick and not connection.late:
                _counters["handlers_timed_out"] += 1
                connection.late = True
                task.cancel("the handler took longer than handler_timeout")

    def _cull(self, now: float) -> None:
        """Close those connections that have been idle longest."""
        idle = sorted(
            (one for one in self._server.connections if one.overdue(now, CULL_IDLE_SECONDS, NEVER, NEVER, 1.0) == 1),
            key=lambda one: one.since,
        )
        spare = min(CULL_AT_ONCE, len(self._server.connections) - CULL_KEEP)
        for connection in idle[: max(spare, 0)]:
            _counters["culled"] += 1
            connection.shutdown()


if sys.platform == "linux":
    import fcntl
    import termios

    def _unacknowledged(transport: Any) -> int:
        """Return how many bytes the kernel holds for the peer; it takes megabytes before it refuses any."""
        sock = transport.get_extra_info("socket")
        if sock is None:
            return 0
        try:
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int(struct.unpack("i", answer)[0])

else:

    def _unacknowledged(transport: Any) -> int:
        return 0
