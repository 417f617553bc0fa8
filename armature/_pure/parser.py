"""Parsing of HTTP/1.1 request heads (RFC 9112), strictly.

The parser works line by line, in place, and can be stopped and continued anywhere: a line is judged as soon as it
is complete, so that what is refused, and when, does not depend on how the stream was cut. Whatever two readers of
the same bytes could understand differently is refused (RFC 9112 sections 2.2, 5.1, 5.2, 6.1, 6.3).
"""

from __future__ import annotations

import re
from typing import NoReturn

from armature._spec.abnf import FIELD_VALUE, HOST, LOWER, TARGET, TOKEN, char_class
from armature._spec.fields import FIELDS
from armature._spec.limits import EMPTY_LINE_LIMIT, HEAD_LIMIT, HEADER_COUNT_LIMIT, REQUEST_LINE_LIMIT
from armature._spec.methods import METHOD_IDS, OTHER
from armature.exceptions import ProtocolError

__all__ = ["HeadParser"]

#: Match bytes that are a token.
is_token = re.compile(b"[" + char_class(TOKEN) + b"]+").fullmatch
#: The bytes that no field value may hold.
NOT_IN_VALUE = bytes(byte for byte in range(256) if not FIELD_VALUE[byte])
_not_target = bytes(byte for byte in range(256) if not TARGET[byte])
_not_host = bytes(byte for byte in range(256) if not HOST[byte])
_digits = re.compile(rb"[0-9]{1,18}").fullmatch
_host_form = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::[0-9]*)?").fullmatch
_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#]+):[0-9]{1,5}").fullmatch

#: Spellings of known names that clients use, each to the one object that stands for it.
KNOWN_NAMES: dict[bytes, bytes] = {}
for _name in FIELDS:
    _lower = _name.encode("ascii")
    KNOWN_NAMES[_lower] = _lower
    KNOWN_NAMES[_lower.title()] = _lower

_HOST, _LENGTH, _CODING = KNOWN_NAMES[b"host"], KNOWN_NAMES[b"content-length"], KNOWN_NAMES[b"transfer-encoding"]
_CONNECTION, _EXPECT, _UPGRADE = KNOWN_NAMES[b"connection"], KNOWN_NAMES[b"expect"], KNOWN_NAMES[b"upgrade"]


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
        check_data(data, start)
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
        if not is_token(method):
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
        name = KNOWN_NAMES.get(raw_name)
        if name is None:
            if not is_token(raw_name) or not colon:
                if line[0] in b" \t":
                    raise ProtocolError(400, "a header line begins with white space (obsolete folding)")
                raise ProtocolError(400, "a header name is malformed")
            name = raw_name.translate(LOWER)
            name = KNOWN_NAMES.get(name, name)
        elif not colon:
            raise ProtocolError(400, "a header name is malformed")
        value = raw_value.strip(b" \t")
        if value.translate(None, NOT_IN_VALUE) != value:
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


def check_data(data: bytes, start: int) -> None:
    """Refuse what cannot be walked as bytes from `start` on."""
    if type(data) is not bytes:
        raise TypeError(f"Expected bytes, got {type(data).__name__}")
    if not 0 <= start <= len(data):
        raise ValueError(f"start {start} is outside of the data")
