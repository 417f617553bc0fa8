"""Taking chunked bodies apart (RFC 9112 section 7.1), as strictly as heads are parsed.

A line of the framing is judged as soon as it is complete, so that what is refused, and when, does not depend on how
the stream was cut. Nothing that grows with what the peer sends is without a limit: extensions and trailers have one.
"""

from __future__ import annotations

import re
from typing import NoReturn

from armature._pure.parser import KNOWN_NAMES, NOT_IN_VALUE, check_data, is_token
from armature._spec.abnf import LOWER, QUOTED_TEXT, TOKEN, char_class
from armature._spec.limits import CHUNK_EXTENSION_LIMIT, TRAILER_LIMIT
from armature.exceptions import ProtocolError

__all__ = ["ChunkedParser"]

_hex = re.compile(rb"[0-9A-Fa-f]{1,15}").match
_extensions = re.compile(
    rb"(?:;[%(t)b]+(?:=(?:[%(t)b]+|\"(?:[%(q)b]|\\[\t\x20-\x7e\x80-\xff])*\"))?)*"
    % {b"t": char_class(TOKEN), b"q": char_class(QUOTED_TEXT)}
).fullmatch

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class ChunkedParser:
    """Takes a chunked body apart (RFC 9112 section 7.1).

    `trailers` holds the trailer fields once `done` is true.

    Args:
        extension_limit: Most bytes of chunk extensions in one body.
        trailer_limit: Most bytes of the trailer section.
    """

    __slots__ = (
        "_extension_limit",
        "_extensions",
        "_left",
        "_line",
        "_state",
        "_trailer_limit",
        "_trailer_size",
        "done",
        "trailers",
    )

    def __init__(self, extension_limit: int = CHUNK_EXTENSION_LIMIT, trailer_limit: int = TRAILER_LIMIT) -> None:
        self._extension_limit = extension_limit
        self._trailer_limit = trailer_limit
        self.reset()

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'ChunkedParser' object")

    def reset(self) -> None:
        """Forget everything; the next bytes begin a new body."""
        self._state = _SIZE
        self._left = 0
        self._extensions = 0
        self._trailer_size = 0
        self._line = b""
        self.done = False
        self.trailers: list[tuple[bytes, bytes]] = []

    def parse(self, data: bytes, start: int = 0) -> tuple[int, list[bytes]]:
        """Take body bytes out of `data`, from `start` on.

        Returns:
            Where the parser stopped (the end of `data`, unless the body ended before it), and the pieces found.

        Raises:
            ProtocolError: The framing is malformed or over a limit. The parser must be reset before it is used again.
        """
        check_data(data, start)
        pieces: list[bytes] = []
        end = len(data)
        position = start
        while position < end and not self.done:
            if self._state == _DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            newline = data.find(b"\n", position)
            if newline < 0:
                self._line += data[position:]
                self._check_partial()
                return end, pieces
            line = self._line + data[position : newline + 1]
            self._line = b""
            position = newline + 1
            self._judge(line)
        return position, pieces

    def _judge(self, line: bytes) -> None:
        # Whatever `_check_partial` could have refused of a part of the line comes first.
        if self._state == _SIZE:
            if self._extensions + len(line) - 1 > self._extension_limit + 16:
                raise ProtocolError(400, "the chunk extensions are too long")
        elif self._state == _DATA_END:
            if line != b"\r\n" and line != b"\n":
                raise ProtocolError(400, "a chunk is longer than its size")
        elif line != b"\r\n" and self._trailer_size + len(line) > self._trailer_limit:
            raise ProtocolError(431, "the trailer section is too large")
        if len(line) < 2 or line[-2] != 13:
            raise ProtocolError(400, "a line of the chunked body ends in a bare LF")
        line = line[:-2]
        if self._state == _SIZE:
            self._size(line)
        elif self._state == _DATA_END:
            self._state = _SIZE
        elif line:
            self._trailer(line)
        else:
            self._state = _DONE
            self.done = True

    def _check_partial(self) -> None:
        # A line that does not end must not grow without bound.
        size = len(self._line)
        if self._state == _SIZE:
            if self._extensions + size > self._extension_limit + 16:
                raise ProtocolError(400, "the chunk extensions are too long")
        elif self._state == _DATA_END:
            if self._line != b"\r":
                raise ProtocolError(400, "a chunk is longer than its size")
        elif self._line != b"\r" and self._trailer_size + size + 1 > self._trailer_limit:
            raise ProtocolError(431, "the trailer section is too large")

    def _size(self, line: bytes) -> None:
        match = _hex(line)
        if match is None:
            raise ProtocolError(400, "a chunk size is malformed")
        digits = match.group()
        extensions = line[len(digits) :]
        self._extensions += len(extensions)
        if self._extensions > self._extension_limit:
            raise ProtocolError(400, "the chunk extensions are too long")
        if extensions and not _extensions(extensions):
            raise ProtocolError(400, "a chunk size or extension is malformed")
        self._left = int(digits, 16)
        self._state = _DATA if self._left else _TRAILER

    def _trailer(self, line: bytes) -> None:
        self._trailer_size += len(line) + 2
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not is_token(raw_name):
            raise ProtocolError(400, "a trailer field is malformed")
        value = raw_value.strip(b" \t")
        if value.translate(None, NOT_IN_VALUE) != value:
            raise ProtocolError(400, "a trailer field holds a control character")
        name = raw_name.translate(LOWER)
        self.trailers.append((KNOWN_NAMES.get(name, name), value))
