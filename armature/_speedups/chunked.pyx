"""Taking chunked bodies apart (RFC 9112 section 7.1), as strictly as heads are parsed.

A line of the framing is judged as soon as it is complete, so that what is refused, and when, does not depend on how
the stream was cut. Nothing that grows with what the peer sends is without a limit: extensions and trailers have one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr

from armature._speedups.ascii cimport exact_bytes, find_control, find_not_in
from armature._speedups.parser cimport Field, field_id, field_name, refuse
from armature._speedups.switches cimport HOT_08_CHUNK

import re

from armature._spec.abnf import HEX_VALUE, QUOTED_TEXT, TOKEN, char_class
from armature._spec.limits import CHUNK_EXTENSION_LIMIT as _CHUNK_EXTENSION_LIMIT, TRAILER_LIMIT as _TRAILER_LIMIT

__all__ = ["ChunkedParser"]

# The tables of armature/_spec, as C arrays; the bytes objects behind them live as long as the module.
_kept_tables = (TOKEN, HEX_VALUE)
cdef const unsigned char* _token = <const unsigned char*> PyBytes_AS_STRING(TOKEN)
cdef const unsigned char* _hex = <const unsigned char*> PyBytes_AS_STRING(HEX_VALUE)

cdef enum:
    AT_SIZE = 0
    AT_DATA = 1
    AT_DATA_END = 2
    AT_TRAILER = 3
    AT_DONE = 4

_extensions = re.compile(
    rb"(?:;[%(t)b]+(?:=(?:[%(t)b]+|\"(?:[%(q)b]|\\[\t\x20-\x7e\x80-\xff])*\"))?)*"
    % {b"t": char_class(TOKEN), b"q": char_class(QUOTED_TEXT)}
).fullmatch


cdef class ChunkedParser:
    """Takes a chunked body apart (RFC 9112 section 7.1).

    `trailers` holds the trailer fields once `done` is true.

    Args:
        extension_limit: Most bytes of chunk extensions in one body.
        trailer_limit: Most bytes of the trailer section.
    """

    def __init__(self, extension_limit=_CHUNK_EXTENSION_LIMIT, trailer_limit=_TRAILER_LIMIT):
        self._extension_limit = extension_limit
        self._trailer_limit = trailer_limit
        self.reset()

    def reset(self):
        """Forget everything; the next bytes begin a new body."""
        self._state = AT_SIZE
        self._left = 0
        self._extensions = 0
        self._trailer_size = 0
        self._line = None
        self.done = False
        self.trailers = []

    def parse(self, data, start=0):
        """Take body bytes out of `data`, from `start` on.

        Returns:
            Where the parser stopped (the end of `data`, unless the body ended before it), and the pieces found.

        Raises:
            ProtocolError: The framing is malformed or over a limit. The parser must be reset before it is used again.
        """
        cdef bytes raw = exact_bytes(data)
        cdef Py_ssize_t at
        cdef list pieces = []
        if not 0 <= start <= PyBytes_GET_SIZE(raw):
            raise ValueError(f"start {start} is outside of the data")
        at = start
        at += self.run(PyBytes_AS_STRING(raw) + at, PyBytes_GET_SIZE(raw) - at, pieces)
        return at, pieces

    cdef Py_ssize_t run(self, const char* data, Py_ssize_t size, list pieces) except -1:
        """Take body bytes out of `data`; return how many bytes were used."""
        cdef Py_ssize_t at = 0, count
        cdef const char* newline
        cdef const char* p
        cdef int64_t number
        cdef int digits
        while at < size and not self.done:
            if self._state == AT_DATA:
                count = size - at
                if count > self._left:
                    count = self._left
                pieces.append(PyBytes_FromStringAndSize(data + at, count))
                at += count
                self._left -= count
                if self._left == 0:
                    self._state = AT_DATA_END
                continue
            if HOT_08_CHUNK and self._line is None:
                # The usual lines: a bare size, and the CRLF behind a chunk.
                p = data + at
                if self._state == AT_DATA_END:
                    if size - at >= 2 and p[0] == c"\r" and p[1] == c"\n":
                        at += 2
                        self._state = AT_SIZE
                        continue
                elif self._state == AT_SIZE:
                    number = 0
                    digits = 0
                    while at + digits < size and digits < 15 and _hex[<unsigned char> p[digits]] != 255:
                        number = number * 16 + _hex[<unsigned char> p[digits]]
                        digits += 1
                    if digits and size - at - digits >= 2 and p[digits] == c"\r" and p[digits + 1] == c"\n":
                        at += digits + 2
                        self._left = number
                        self._state = AT_DATA if number else AT_TRAILER
                        continue
            newline = <const char*> memchr(data + at, c"\n", size - at)
            if newline == NULL:
                line = PyBytes_FromStringAndSize(data + at, size - at)
                self._line = line if self._line is None else self._line + line
                self._check_partial()
                return size
            line = PyBytes_FromStringAndSize(data + at, newline + 1 - (data + at))
            if self._line is not None:
                line = self._line + line
                self._line = None
            at = newline + 1 - data
            self._judge(line)
        return at

    cdef int _judge(self, bytes line) except -1:
        cdef const char* p = PyBytes_AS_STRING(line)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(line)
        cdef bint empty = size == 2 and p[0] == c"\r"
        # Whatever `_check_partial` could have refused of a part of the line comes first.
        if self._state == AT_SIZE:
            if self._extensions + size - 1 > self._extension_limit + 16:
                refuse(400, "the chunk extensions are too long")
        elif self._state == AT_DATA_END:
            if not empty and size != 1:
                refuse(400, "a chunk is longer than its size")
        elif not empty and self._trailer_size + size > self._trailer_limit:
            refuse(431, "the trailer section is too large")
        if size < 2 or p[size - 2] != c"\r":
            refuse(400, "a line of the chunked body ends in a bare LF")
        if self._state == AT_SIZE:
            self._size(line[:size - 2])
        elif self._state == AT_DATA_END:
            self._state = AT_SIZE
        elif not empty:
            self._trailer(line[:size - 2])
        else:
            self._state = AT_DONE
            self.done = True
        return 0

    cdef int _check_partial(self) except -1:
        # A line that does not end must not grow without bound.
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self._line)
        cdef bint ending = size == 1 and PyBytes_AS_STRING(self._line)[0] == c"\r"
        if self._state == AT_SIZE:
            if self._extensions + size > self._extension_limit + 16:
                refuse(400, "the chunk extensions are too long")
        elif self._state == AT_DATA_END:
            if not ending:
                refuse(400, "a chunk is longer than its size")
        elif not ending and self._trailer_size + size + 1 > self._trailer_limit:
            refuse(431, "the trailer section is too large")
        return 0

    cdef int _size(self, bytes line) except -1:
        cdef const unsigned char* p = <const unsigned char*> PyBytes_AS_STRING(line)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(line)
        cdef Py_ssize_t digits = 0
        cdef int64_t number = 0
        while digits < size and digits < 15 and _hex[p[digits]] != 255:
            number = number * 16 + _hex[p[digits]]
            digits += 1
        if digits == 0:
            refuse(400, "a chunk size is malformed")
        self._extensions += size - digits
        if self._extensions > self._extension_limit:
            refuse(400, "the chunk extensions are too long")
        if digits < size and not _extensions(line[digits:]):
            refuse(400, "a chunk size or extension is malformed")
        self._left = number
        self._state = AT_DATA if number else AT_TRAILER
        return 0

    cdef int _trailer(self, bytes line) except -1:
        cdef const char* p = PyBytes_AS_STRING(line)
        cdef const char* stop = p + PyBytes_GET_SIZE(line)
        cdef const char* colon
        cdef const char* value
        cdef Field field
        self._trailer_size += PyBytes_GET_SIZE(line) + 2
        colon = find_not_in(p, stop, _token)
        if colon == p or colon == stop or colon[0] != c":":
            refuse(400, "a trailer field is malformed")
        value = colon + 1
        while value < stop and (value[0] == c" " or value[0] == c"\t"):
            value += 1
        while stop > value and ((stop - 1)[0] == c" " or (stop - 1)[0] == c"\t"):
            stop -= 1
        if find_control(value, stop) != stop:
            refuse(400, "a trailer field holds a control character")
        field.name = 0
        field.name_size = <uint32_t> (colon - p)
        field.known = field_id(p, colon - p)
        self.trailers.append((field_name(p, &field), PyBytes_FromStringAndSize(value, stop - value)))
        return 0
