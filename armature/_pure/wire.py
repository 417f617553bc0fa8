"""The sending side of a connection: its state, and the bytes on their way out.

What is answered during one read is gathered and leaves in one write. The transport's own rules (buffering, errors,
closing) stay in force: bytes pass it by only where it holds none back and the socket takes them at once.
"""

from __future__ import annotations

from typing import Any, NoReturn

from armature._spec.states import Event, State, table

__all__ = ["Wire", "stats"]

_TRANSITIONS = table()
_EVENTS = len(Event)

_counters = {"opened": 0, "closed": 0, "direct_sends": 0, "partial_sends": 0, "transport_writes": 0, "bytes_sent": 0}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


class Wire:
    """A connection's state and its output."""

    __slots__ = ("__weakref__", "_out", "_out_size", "_state", "transport", "written")

    def __init__(self) -> None:
        self._state: int = State.IDLE
        self._out: list[bytes] = []
        self._out_size = 0
        #: The asyncio transport, or whatever has its `write`.
        self.transport: Any = None
        #: Bytes that went to the transport so far.
        self.written = 0

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Wire' object")

    @property
    def state(self) -> int:
        """The connection's state, a number of `armature._spec.states.State`."""
        return self._state

    def event(self, event: int) -> None:
        """Move to the state that `event` leads to."""
        self._state = _TRANSITIONS[self._state * _EVENTS + event]

    def is_disconnected(self) -> bool:
        """Whether the peer is gone, so that no answer can reach it."""
        return self._state == State.CLOSED

    def attach(self, transport: Any) -> None:
        """Begin: from now on what is written goes to `transport`."""
        self.transport = transport
        self.event(Event.ACCEPT)
        _counters["opened"] += 1

    def detach(self) -> None:
        """The transport is gone."""
        if self.transport is not None:
            _counters["closed"] += 1
        self.transport = None
        self._out.clear()
        self._out_size = 0

    def write(self, data: bytes) -> None:
        """Add bytes to what the next `flush` sends."""
        self._out.append(data)
        self._out_size += len(data)

    def take_output(self) -> bytes:
        """Return what is to be sent and forget it; for feeders without a transport."""
        data = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        return data

    def flush(self) -> None:
        """Hand what is to be sent to the transport."""
        if self._out and self.transport is not None and self._state != State.CLOSED:
            _counters["transport_writes"] += 1
            _counters["bytes_sent"] += self._out_size
            self.written += self._out_size
            self.transport.write(self.take_output())
        if self._state == State.CLOSING:
            self.finish_closing()

    # The cold half, in the subclass.

    def finish_closing(self) -> None:
        """Close the transport; everything has been handed to it."""

    def abort(self) -> None:
        """Close the transport at once."""
        self.event(Event.CLOSE)
