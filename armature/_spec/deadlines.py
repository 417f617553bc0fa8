"""What a connection may be waited for, as both twins tell it to the sweep that enforces deadlines."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Wait"]


class Wait(IntEnum):
    """What a connection waits for longer than it should, or that it has bytes that its peer does not take."""

    NOTHING = 0
    #: No request is there, nor a part of one.
    IDLE = 1
    #: A head has begun to arrive.
    HEAD = 2
    #: The body of the request in flight, or the rest of one that was answered already.
    BODY = 3
    #: Bytes wait to be sent; for how long they may, their progress decides.
    UNSENT = 4
