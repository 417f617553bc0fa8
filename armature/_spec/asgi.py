"""ASGI as data: the versions that are spoken, and the life of one response (ASGI 3.0, HTTP 2.4).

A response is in exactly one phase. The app's messages move it forward, never back; the end of the connection moves
it to `ENDED`.

    WAITING     nothing was sent
    STARTED     `http.response.start` was sent; nothing has left yet, so that an error can still become a 500
    STREAMING   the head and a part of the body have left
    FILE        a file is on its way (`http.response.pathsend`)
    TRAILERS    the body is complete, and trailers were announced
    ENDED       the response is complete, or nobody is there to take the rest
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["EXTENSIONS", "SPEC_VERSION", "VERSION", "Phase"]

VERSION = "3.0"

#: Of the HTTP messages. Since 2.4 `send` raises an `OSError` once the client is gone.
SPEC_VERSION = "2.4"

#: What is offered in `scope["extensions"]`.
EXTENSIONS = ("http.response.early_hint", "http.response.pathsend", "http.response.trailers")


class Phase(IntEnum):
    WAITING = 0
    STARTED = 1
    STREAMING = 2
    FILE = 3
    TRAILERS = 4
    ENDED = 5
