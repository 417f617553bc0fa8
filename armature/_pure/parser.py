"""Parsing of HTTP/1.1 request heads and chunked bodies (RFC 9112), strictly.

Both parsers work line by line, in place, and can be stopped and continued anywhere: a line is judged as soon
as it is complete, so that what is refused, and when, does not depend on how the stream was cut. Whatever two
readers of the same bytes could understand differently is refused (RFC 9112 sections 2.2, 5.1, 5.2, 6.1, 6.3, 7.1).
"""

from __future__ import annotations

import re
from typing import NoReturn

from armature._spec.abnf import FIELD_VALUE, HOST, LOWER, QUOTED_TEXT, TARGET, TOKEN, char_class
from armature._spec.fields import FIELDS
from armature._spec.limits import (
    CHUNK_EXTENSION_LIMIT,
    EMPTY_LINE_LIMIT,
    HEAD_LIMIT,
    HEADER_COUNT_LIMIT,
    REQUEST_LINE_LIMIT,
    TRAILER_LIMIT,
)
from armature._spec.methods import METHOD_IDS, OTHER
from armature.exceptions import ProtocolError

__all__ = ["ChunkedParser", "HeadParser"]

_token = re.compile(b"[" + char_class(TOKEN) + b"]+").fullmatch
_not_value = bytes(byte for byte in range(256) if not FIELD_VALUE[byte])
_not_target = bytes(byte for byte in range(256) if not TARGET[byte])
_not_host = bytes(byte for byte in range(256) if not HOST[byte])
_digits = re.compile(rb"[0-9]{1,18}").fullmatch
_hex = re.compile(rb"[0-9A-Fa-f]{1,15}").match
_extensions = re.compile(
    rb"(?:;[%(t)b]+(?:=(?:[%(t)b]+|\"(?:[%(q)b]|\\[\t\x20-\x7e\x80-\xff])*\"))?)*"
    % {b"t": char_class(TOKEN), b"q": char_class(QUOTED_TEXT)}
).fullmatch
_host_form = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::[0-9]*)?").fullmatch
_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#]+):[0-9]{1,5}").fullmatch

#: Spellings of known names that clients use, each to the one object that stands for it.
_KNOWN: dict[bytes, bytes] = {}
for _name in FIELDS:
    _lower = _name.encode("ascii")
    _KNOWN[_lower] = _lower
    _KNOWN[_lower.title()] = _lower

_HOST, _LENGTH, _CODING = _KNOWN[b"host"], _KNOWN[b"content-length"], _KNOWN[b"transfer-encoding"]
_CONNECTION, _EXPECT, _UPGRADE = _KNOWN[b"connection"], _KNOWN[b"expect"], _KNOWN[b"upgrade"]


class HeadParser:
    """Parses one request head after another.

    After `parse` has returned an end, the attributes describe the message: `method`, `method_id`, `raw_path`,
    `query_string`, `minor` (the 0 or 1 of HTTP/1.x), `headers`, `content_length` (-1 without one), `chunked`,
    `keep_alive`, `expect_continue`, `upgrade`.

    Args:
        line_limit: Longest request line, in bytes.
        head_limit: Longest head, in bytes.
        count_limit: Most field lines.
    """

    __slots__ = (
        "_at",
        "_codings",
        "_count_limit",
        "_empty",
        "_head_limit",
        "_host_at",
        "_hosts",
        "_line_limit",
        "_options",
        "_scanned",
        "_target_host",
        "chunked",
        "content_length",
        "expect_continue",
        "headers",
        "keep_alive",
        "method",
        "method_id",
        "minor",
        "query_string",
        "raw_path",
        "upgrade",
    )

    def __init__(
        self,
        line_limit: int = REQUEST_LINE_LIMIT,
        head_limit: int = HEAD_LIMIT,
        count_limit: int = HEADER_COUNT_LIMIT,
    ) -> None:
        self._line_limit = line_limit
        self._head_limit = head_limit
        self._count_limit = count_limit
        self.reset()

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'HeadParser' object")

    def reset(self) -> None:
        """Forget everything; the next bytes begin a new head."""
        self._at = 0
        self._scanned = 0
        self._empty = 0
        self._hosts = 0
        self._host_at = -1
        self._target_host: bytes | None = None
        self._codings: bytes | None = None
        self._options: list[bytes] = []
        self.method = ""
        self.method_id = OTHER
        self.raw_path = b""
        self.query_string = b""
        self.minor = -1
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length = -1
        self.chunked = False
        self.keep_alive = False
        self.expect_continue = False
        self.upgrade = False

    def parse(self, data: bytes, start: int = 0) -> int:
        """Go on with the head that begins at `start`.

        The bytes of an unfinished head must be given again, with more behind them; they are not scanned again.

        Args:
            data: The received bytes.
            start: Where the head begins.

        Returns:
            Where the head ends, or -1 if it is not complete.

        Raises:
            ProtocolError: The head is malformed or over a limit. The parser must be reset before it is used again.
        """
        _check(data, start)
        find = data.find
        while True:
            line_start = start + self._at
            newline = find(b"\n", start + self._scanned)
            if newline < 0:
                size = len(data) - start
                self._scanned = size
                if self.minor < 0 and size - self._at > self._line_limit:
                    raise ProtocolError(414, "the request line is too long")
                if size > self._head_limit:
                    raise ProtocolError(431, "the request head is too large")
                return -1
            self._at = self._scanned = newline + 1 - start
            if self.minor < 0 and newline - line_start > self._line_limit:
                raise ProtocolError(414, "the request line is too long")
            if self._at > self._head_limit:
                raise ProtocolError(431, "the request head is too large")
            if newline == line_start or data[newline - 1] != 13:
                raise ProtocolError(400, "a line ends in a bare LF")
            line = data[line_start : newline - 1]
            if self.minor < 0:
                if line:
                    self._request_line(line)
                    continue
                self._empty += 1
                if self._empty > EMPTY_LINE_LIMIT:
                    raise ProtocolError(400, "too many empty lines before the request line")
            elif line:
                self._field_line(line)
            else:
                self._finish()
                return newline + 1

    def _request_line(self, line: bytes) -> None:
        # method SP request-target SP HTTP-version (RFC 9112 section 3)
        method, _, rest = line.partition(b" ")
        if not _token(method):
            raise ProtocolError(400, "the method is malformed")
        target, separator, version = rest.partition(b" ")
        if not target or target.translate(None, _not_target) != target:
            raise ProtocolError(400, "the request target is malformed")
        if not separator:
            raise ProtocolError(400, "the HTTP version is missing")
        if version == b"HTTP/1.1":
            self.minor = 1
        elif version == b"HTTP/1.0":
            self.minor = 0
        elif re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
            raise ProtocolError(505, "the HTTP version is not supported")
        else:
            raise ProtocolError(400, "the HTTP version is malformed")
        self.method = method.decode("ascii")
        self.method_id = METHOD_IDS.get(self.method, OTHER)
        self._target(target)

    def _target(self, target: bytes) -> None:
        # The four forms of RFC 9112 section 3.2.
        if self.method == "CONNECT":
            if not _authority(target) or target.translate(None, _not_host) != target:
                raise ProtocolError(400, "CONNECT needs a target of the form host:port")
            self.raw_path = target
            return
        if target[0] != 0x2F:
            if target == b"*":
                if self.method != "OPTIONS":
                    raise ProtocolError(400, "the request target * is for OPTIONS alone")
                self.raw_path = target
                return
            scheme = target[:8].translate(LOWER)
            skip = 7 if scheme[:7] == b"http://" else 8 if scheme == b"https://" else 0
            if not skip:
                raise ProtocolError(400, "the request target is malformed")
            end = len(target)
            for mark in (b"/", b"?", b"#"):
                found = target.find(mark, skip, end)
                if found >= 0:
                    end = found
            host = target[skip:end]
            if not host or host.translate(None, _not_host) != host or not _host_form(host):
                raise ProtocolError(400, "the host of the request target is malformed")
            self._target_host = host
            target = target[end:]
            if target[:1] != b"/":
                target = b"/" + target
        fragment = target.find(b"#")
        if fragment >= 0:
            target = target[:fragment]
        self.raw_path, _, self.query_string = target.partition(b"?")

    def _field_line(self, line: bytes) -> None:
        # field-name ":" OWS field-value OWS (RFC 9112 section 5)
        if len(self.headers) >= self._count_limit:
            raise ProtocolError(431, "the request has too many header fields")
        raw_name, colon, raw_value = line.partition(b":")
        name = _KNOWN.get(raw_name)
        if name is None:
            if not _token(raw_name) or not colon:
                if line[0] in b" \t":
                    raise ProtocolError(400, "a header line begins with white space (obsolete folding)")
                raise ProtocolError(400, "a header name is malformed")
            name = raw_name.translate(LOWER)
            name = _KNOWN.get(name, name)
        elif not colon:
            raise ProtocolError(400, "a header name is malformed")
        value = raw_value.strip(b" \t")
        if value.translate(None, _not_value) != value:
            raise ProtocolError(400, "a header value holds a control character")
        self.headers.append((name, value))
        if name is _HOST:
            self._host(value)
        elif name is _LENGTH:
            self._length(value)
        elif name is _CODING:
            self._codings = value if self._codings is None else self._codings + b"," + value
        elif name is _CONNECTION:
            self._options += [option.strip(b" \t") for option in value.translate(LOWER).split(b",")]
        elif name is _EXPECT:
            if value.translate(LOWER) != b"100-continue":
                raise ProtocolError(417, "the only expectation supported is 100-continue")
            self.expect_continue = True
        elif name is _UPGRADE:
            self.upgrade = True

    def _host(self, value: bytes) -> None:
        self._hosts += 1
        if self._hosts > 1:
            raise ProtocolError(400, "the request has more than one Host field")
        if value.translate(None, _not_host) != value or not _host_form(value):
            raise ProtocolError(400, "the Host field is malformed")
        self._host_at = len(self.headers) - 1

    def _length(self, value: bytes) -> None:
        if self.content_length >= 0:
            raise ProtocolError(400, "the request has more than one Content-Length field")
        if not _digits(value):
            raise ProtocolError(400, "the Content-Length field is malformed")
        self.content_length = int(value)

    def _finish(self) -> None:
        if self._codings is not None:
            self._transfer_encoding(self._codings)
        if self._hosts == 0 and self.minor == 1:
            raise ProtocolError(400, "the request has no Host field")
        if self._target_host is not None and self._host_at >= 0:
            # RFC 9112 section 3.2.2: the target's host wins over the Host field.
            self.headers[self._host_at] = (_HOST, self._target_host)
        self.keep_alive = self.minor == 1
        if self._options:
            options = self._options
            self.upgrade = self.upgrade and b"upgrade" in options
            if b"close" in options:
                self.keep_alive = False
            elif b"keep-alive" in options:
                self.keep_alive = True
        else:
            self.upgrade = False
        if self.minor == 0:
            # RFC 9110 sections 7.8 and 10.1.1: neither exists for an HTTP/1.0 client.
            self.expect_continue = self.upgrade = False

    def _transfer_encoding(self, value: bytes) -> None:
        # RFC 9112 sections 6.1 and 6.3
        if self.content_length >= 0:
            raise ProtocolError(400, "the request has both Transfer-Encoding and Content-Length")
        if self.minor == 0:
            raise ProtocolError(400, "an HTTP/1.0 request cannot have Transfer-Encoding")
        codings = [coding.strip(b" \t") for coding in value.translate(LOWER).split(b",")]
        if b"chunked" in codings[:-1] or b"" in codings:
            raise ProtocolError(400, "the Transfer-Encoding field is malformed: chunked must be last, and once")
        if codings != [b"chunked"]:
            if codings[-1] != b"chunked":
                # Section 6.3, rule 4: the end of such a body cannot be known.
                raise ProtocolError(400, "the Transfer-Encoding field is malformed: chunked must be last, and once")
            raise ProtocolError(501, "the only transfer coding supported is chunked")
        self.chunked = True


def _check(data: bytes, start: int) -> None:
    if type(data) is not bytes:
        raise TypeError(f"Expected bytes, got {type(data).__name__}")
    if not 0 <= start <= len(data):
        raise ValueError(f"start {start} is outside of the data")


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
        _check(data, start)
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
        if not colon or not _token(raw_name):
            raise ProtocolError(400, "a trailer field is malformed")
        value = raw_value.strip(b" \t")
        if value.translate(None, _not_value) != value:
            raise ProtocolError(400, "a trailer field holds a control character")
        name = raw_name.translate(LOWER)
        self.trailers.append((_KNOWN.get(name, name), value))
