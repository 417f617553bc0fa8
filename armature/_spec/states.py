"""The life of an HTTP/1.1 connection, as a table (RFC 9112 sections 7 to 9).

A connection is in exactly one state, one byte. Nothing but an event moves it, and every event is looked up in
`TRANSITIONS`; a pair that is not there is a fault of the server, not of the peer, and moves to `ERROR`.

    IDLE        no socket yet
    CONNECTED   between requests: the peer may send one, nobody waits for anything
    READING     bytes of a head have arrived, the head is not complete
    PROCESSING  a handler owns the request; its body may still be arriving
    WRITING     the answer is on its way; its head has been handed to the transport
    DRAINING    the answer is complete, the unread rest of the request's body is thrown away
    CLOSING     nothing more will be read; what is queued is written, then the socket closes
    CLOSED      the socket is gone
    ERROR       the peer broke the protocol: one answer, then the socket closes
    UPGRADED    another protocol owns the socket
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["TRANSITIONS", "Event", "State", "table"]


class State(IntEnum):
    IDLE = 0
    CONNECTED = 1
    READING = 2
    PROCESSING = 3
    WRITING = 4
    DRAINING = 5
    CLOSING = 6
    CLOSED = 7
    ERROR = 8
    UPGRADED = 9


class Event(IntEnum):
    ACCEPT = 0
    DATA_READY = 1
    REQUEST_COMPLETE = 2
    RESPONSE_READY = 3
    WRITE_COMPLETE = 4
    KEEP_ALIVE = 5
    TIMEOUT = 6
    ERROR = 7
    CLOSE = 8
    UPGRADE = 9


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.ACCEPT): State.CONNECTED,
    (State.IDLE, Event.CLOSE): State.CLOSED,
    (State.CONNECTED, Event.DATA_READY): State.READING,
    (State.CONNECTED, Event.TIMEOUT): State.CLOSING,
    (State.CONNECTED, Event.ERROR): State.ERROR,
    (State.CONNECTED, Event.CLOSE): State.CLOSING,
    (State.READING, Event.DATA_READY): State.READING,
    (State.READING, Event.REQUEST_COMPLETE): State.PROCESSING,
    (State.READING, Event.TIMEOUT): State.ERROR,
    (State.READING, Event.ERROR): State.ERROR,
    (State.READING, Event.CLOSE): State.CLOSING,
    (State.PROCESSING, Event.DATA_READY): State.PROCESSING,
    (State.PROCESSING, Event.RESPONSE_READY): State.WRITING,
    (State.PROCESSING, Event.TIMEOUT): State.ERROR,
    (State.PROCESSING, Event.ERROR): State.ERROR,
    (State.PROCESSING, Event.CLOSE): State.CLOSING,
    (State.PROCESSING, Event.UPGRADE): State.UPGRADED,
    (State.WRITING, Event.DATA_READY): State.WRITING,
    (State.WRITING, Event.WRITE_COMPLETE): State.DRAINING,
    (State.WRITING, Event.TIMEOUT): State.CLOSING,
    (State.WRITING, Event.ERROR): State.CLOSING,
    (State.WRITING, Event.CLOSE): State.CLOSING,
    (State.DRAINING, Event.DATA_READY): State.DRAINING,
    (State.DRAINING, Event.KEEP_ALIVE): State.CONNECTED,
    (State.DRAINING, Event.TIMEOUT): State.CLOSING,
    (State.DRAINING, Event.ERROR): State.CLOSING,
    (State.DRAINING, Event.CLOSE): State.CLOSING,
    (State.ERROR, Event.DATA_READY): State.ERROR,
    (State.ERROR, Event.RESPONSE_READY): State.CLOSING,
    (State.ERROR, Event.TIMEOUT): State.CLOSING,
    (State.ERROR, Event.ERROR): State.ERROR,
    (State.ERROR, Event.CLOSE): State.CLOSING,
    (State.CLOSING, Event.DATA_READY): State.CLOSING,
    (State.CLOSING, Event.WRITE_COMPLETE): State.CLOSING,
    (State.CLOSING, Event.TIMEOUT): State.CLOSING,
    (State.CLOSING, Event.ERROR): State.CLOSING,
    (State.CLOSING, Event.CLOSE): State.CLOSED,
    (State.CLOSED, Event.CLOSE): State.CLOSED,
    (State.UPGRADED, Event.CLOSE): State.CLOSED,
}


def table() -> bytes:
    """The transitions as one byte string, indexed by `state * len(Event) + event`; absent pairs lead to ERROR."""
    return bytes(TRANSITIONS.get((state, event), State.ERROR) for state in State for event in Event)
