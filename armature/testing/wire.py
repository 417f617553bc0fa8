"""The client's side of HTTP/1.1: requests as bytes, and a strict incremental parser of responses (RFC 9112).

The parser is a test's eye: what it lets pass, no test will see. So it takes nothing that the RFC calls invalid,
even where clients in the field are lenient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from armature.testing.errors import ConnectionClosed, InvalidResponse

__all__ = ["ResponseHead", "ResponseParser", "encode_chunk", "encode_head"]

#: Bounds on what a test server may send; far above what any real one does.
HEAD_LIMIT = 1024 * 1024
CHUNK_LINE_LIMIT = 4096

_status_line = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)").fullmatch
_field_line = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*"
    rb"((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[\t ]*"
).fullmatch
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})[\t ]*((?:;[\t\x20-\x7e\x80-\xff]*)?)").fullmatch
_digits = re.compile(rb"[0-9]{1,18}").fullmatch

Fields = list[tuple[bytes, bytes]]


class ResponseHead:
    """The head of one response.

    Args:
        http_version: `"1.0"` or `"1.1"`.
        status: The status code.
        reason: The reason phrase, which may be empty.
        fields: The field lines in order, names in lower case.
    """

    __slots__ = ("fields", "http_version", "reason", "status")

    def __init__(self, http_version: str, status: int, reason: bytes, fields: Fields) -> None:
        self.http_version = http_version
        self.status = status
        self.reason = reason
        self.fields = fields

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of every field line of this (lower-case) name."""
        return [value for key, value in self.fields if key == name]


class ResponseParser:
    """Reads one response, and the interim ones before it, from bytes that arrive in any pieces.

    Args:
        method: The request's method; it decides whether a body follows (RFC 9112 section 6.3).

    The parser never guesses: after `InvalidResponse` it takes no more data.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_left",
        "_method",
        "_searched",
        "_state",
        "complete",
        "framing",
        "head",
        "interim",
        "trailers",
    )

    def __init__(self, method: str = "GET") -> None:
        self._method = method
        self._buffer = bytearray()
        self._searched = 0
        self._state = "head"
        self._left = 0
        self._body: list[bytes] = []
        #: The head of the final response, once it is there.
        self.head: ResponseHead | None = None
        #: The heads of interim (1xx) responses before it.
        self.interim: list[ResponseHead] = []
        #: How the end of the body is found: `none`, `length`, `chunked`, `close` or `upgrade`.
        self.framing = ""
        #: Field lines after a chunked body.
        self.trailers: Fields = []
        #: Whether the response has ended.
        self.complete = False

    @property
    def rest(self) -> bytes:
        """Bytes that came after the end of the response."""
        return bytes(self._buffer) if self.complete else b""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection can be used again after this response (RFC 9112 section 9.3)."""
        head = self.head
        if not self.complete or head is None or self.framing in ("close", "upgrade"):
            return False
        options = [option.strip().lower() for value in head.values(b"connection") for option in value.split(b",")]
        if b"close" in options:
            return False
        return head.http_version == "1.1" or b"keep-alive" in options

    def take(self) -> bytes:
        """Return the body bytes that arrived since the last call."""
        if not self._body:
            return b""
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return data

    def feed_data(self, data: bytes) -> None:
        """Take received bytes.

        Raises:
            InvalidResponse: They are not a valid response.
        """
        if self._state == "broken":
            raise InvalidResponse("more data after an invalid response")
        self._buffer += data
        try:
            while not self.complete and self._step():
                pass
        except InvalidResponse:
            self._state = "broken"
            raise

    def feed_eof(self) -> None:
        """Note that nothing more will arrive.

        Raises:
            ConnectionClosed: The response is not complete.
        """
        if self.complete:
            return
        if self._state == "close":
            self._flush_rest()
            self.complete = True
            return
        if self.head is not None:
            raise ConnectionClosed("the server closed the connection in the middle of the response's body")
        if self._buffer:
            raise ConnectionClosed("the server closed the connection in the middle of the response's head")
        raise ConnectionClosed("the server closed the connection without a response")

    def _step(self) -> bool:
        """Make one step; return whether another one may be possible with what is there."""
        state = self._state
        if state == "head":
            return self._read_head()
        if state == "length":
            return self._read_length()
        if state == "chunk-size":
            return self._read_chunk_size()
        if state == "chunk-data":
            return self._read_chunk_data()
        if state == "chunk-end":
            return self._read_chunk_end()
        if state == "trailers":
            return self._read_trailers()
        self._flush_rest()
        return False

    def _flush_rest(self) -> None:
        if self._buffer:
            self._body.append(bytes(self._buffer))
            self._buffer.clear()

    # Heads.

    def _take_block(self) -> list[bytes] | None:
        """Return the lines of a head or trailer section once its empty line is there (RFC 9112 section 2.1)."""
        buffer = self._buffer
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            return []
        end = buffer.find(b"\r\n\r\n", self._searched)
        # A bare LF is refused at once, for the empty line that would end the section may never come.
        limit = len(buffer) if end < 0 else end + 4
        at = buffer.find(b"\n", max(self._searched - 1, 0), limit)
        while at >= 0:
            if at == 0 or buffer[at - 1] != 13:
                raise InvalidResponse(f"a line of the head ends with a bare LF: {bytes(buffer[:at])[-80:]!r}")
            at = buffer.find(b"\n", at + 1, limit)
        if end < 0:
            self._searched = max(len(buffer) - 3, 0)
            if len(buffer) > HEAD_LIMIT:
                raise InvalidResponse(f"the head is longer than {HEAD_LIMIT} bytes")
            return None
        lines = bytes(buffer[:end]).split(b"\r\n")
        del buffer[: end + 4]
        self._searched = 0
        return lines

    def _read_head(self) -> bool:
        lines = self._take_block()
        if lines is None:
            return False
        if not lines:
            raise InvalidResponse("an empty line stands before the status line")
        match = _status_line(lines[0])
        if match is None:
            raise InvalidResponse(f"invalid status line {lines[0]!r}")
        head = ResponseHead(match[1].decode(), int(match[2]), match[3], _fields(lines[1:]))
        if 100 <= head.status < 200 and head.status != 101:
            _check_no_framing(head)
            self.interim.append(head)
            return True
        self.head = head
        self._begin_body(head)
        return True

    def _begin_body(self, head: ResponseHead) -> None:
        codings = head.values(b"transfer-encoding")
        lengths = head.values(b"content-length")
        if codings and lengths:
            raise InvalidResponse("both Transfer-Encoding and Content-Length (RFC 9112 section 6.2)")
        if len(lengths) > 1:
            raise InvalidResponse(f"Content-Length stands {len(lengths)} times")
        if lengths and not _digits(lengths[0]):
            raise InvalidResponse(f"invalid Content-Length {lengths[0]!r}")
        if codings:
            if [coding.lower() for coding in codings] != [b"chunked"]:
                raise InvalidResponse(f"unexpected Transfer-Encoding {b', '.join(codings)!r}")
            if head.http_version == "1.0":
                raise InvalidResponse("Transfer-Encoding in an HTTP/1.0 response")
        if head.status in (101, 204):
            _check_no_framing(head)
        if head.status == 101 or (self._method == "CONNECT" and 200 <= head.status < 300):
            self.framing = "upgrade"
            self.complete = True
        elif self._method == "HEAD" or head.status in (204, 304):
            self.framing = "none"
            self.complete = True
        elif codings:
            self.framing = "chunked"
            self._state = "chunk-size"
        elif lengths:
            self.framing = "length"
            self._state = "length"
            self._left = int(lengths[0])
            self.complete = self._left == 0
        else:
            self.framing = self._state = "close"

    # Bodies.

    def _read_length(self) -> bool:
        self._move()
        self.complete = self._left == 0
        return False

    def _move(self) -> None:
        buffer = self._buffer
        if len(buffer) <= self._left:
            self._left -= len(buffer)
            self._flush_rest()
        elif self._left:
            self._body.append(bytes(buffer[: self._left]))
            del buffer[: self._left]
            self._left = 0

    def _read_chunk_size(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        match = _chunk_line(line)
        if match is None:
            raise InvalidResponse(f"invalid chunk size line {line!r}")
        self._left = int(match[1], 16)
        self._state = "chunk-data" if self._left else "trailers"
        return True

    def _read_chunk_data(self) -> bool:
        self._move()
        if self._left:
            return False
        self._state = "chunk-end"
        return True

    def _read_chunk_end(self) -> bool:
        if len(self._buffer) < 2 and b"\r\n".startswith(self._buffer):
            return False
        if self._buffer[:2] != b"\r\n":
            raise InvalidResponse(f"a chunk's data is followed by {bytes(self._buffer[:2])!r}, not by CRLF")
        del self._buffer[:2]
        self._state = "chunk-size"
        return True

    def _read_trailers(self) -> bool:
        lines = self._take_block()
        if lines is None:
            return False
        self.trailers = _fields(lines)
        self.complete = True
        return False

    def _take_line(self) -> bytes | None:
        buffer = self._buffer
        end = buffer.find(b"\n")
        if end < 0:
            if len(buffer) > CHUNK_LINE_LIMIT:
                raise InvalidResponse(f"a chunk size line is longer than {CHUNK_LINE_LIMIT} bytes")
            return None
        if end == 0 or buffer[end - 1] != 13:
            raise InvalidResponse(f"a chunk size line ends with a bare LF: {bytes(buffer[:end])[-80:]!r}")
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        return line


def _fields(lines: Sequence[bytes]) -> Fields:
    fields: Fields = []
    for line in lines:
        match = _field_line(line)
        if match is None:
            raise InvalidResponse(f"invalid field line {line!r}")
        fields.append((match[1].lower(), match[2]))
    return fields


def _check_no_framing(head: ResponseHead) -> None:
    # RFC 9112 section 6.1 and RFC 9110 section 8.6: 1xx and 204 carry neither field.
    for name in (b"transfer-encoding", b"content-length"):
        if head.values(name):
            raise InvalidResponse(f"a {head.status} response carries {name.decode().title()}")


def encode_head(method: str, target: str, fields: Fields, http_version: str = "1.1") -> bytes:
    """Return the head of a request.

    Args:
        method: A token.
        target: The request target, encoded as RFC 9112 section 3.2 wants it.
        fields: Field lines, checked already.
        http_version: `"1.0"` or `"1.1"`.

    Raises:
        ValueError: The method or the target cannot stand in a request line.
    """
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", method):
        raise ValueError(f"invalid method {method!r}")
    if not re.fullmatch(r"[\x21-\x7e]+", target):
        raise ValueError(f"invalid request target {target!r}")
    lines = [f"{method} {target} HTTP/{http_version}".encode("ascii")]
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def encode_chunk(data: bytes) -> bytes:
    """Return `data` as one chunk; empty data gives the last chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
