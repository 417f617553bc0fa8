"""Writing the head of a response (RFC 9112 sections 4 to 6), and the framing of a chunked body (section 7.1)."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from armature._spec.abnf import FIELD_VALUE
from armature._spec.dates import format_http_date
from armature._spec.limits import SERVER_FIELD_LIMIT
from armature._spec.status import STATUS_LINES

__all__ = ["CHUNKED", "FROM_FIELDS", "NO_LENGTH", "Writer", "chunk"]

#: Values of `length` that are no length: no framing field at all; `transfer-encoding: chunked`; the
#: `content-length` that stands among the fields.
NO_LENGTH = -1
CHUNKED = -2
FROM_FIELDS = -3

_not_value = bytes(byte for byte in range(256) if not FIELD_VALUE[byte])
_CONNECTION = (b"", b"connection: close\r\n", b"connection: keep-alive\r\n")

#: Fields that belong to the connection, whatever the application says (RFC 9110 section 7.6.1).
_OWN = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"content-length"})


class Writer:
    """Writes response heads; `Server` and `Date` are made once a second.

    Args:
        server: Value of the Server field, or None to leave it out.
        date: Whether to send Date (RFC 9110 section 6.6.1 asks an origin server with a clock to do so).
    """

    __slots__ = ("_date", "_second", "_server", "_stamp")

    def __init__(self, server: bytes | None = b"armature", date: bool = True) -> None:
        if server is not None:
            if len(server) > SERVER_FIELD_LIMIT:
                raise ValueError(f"the Server field may be {SERVER_FIELD_LIMIT} bytes long, not {len(server)}")
            if server.translate(None, _not_value) != server:
                raise ValueError("the Server field holds a control character")
        self._server = b"" if server is None else b"server: " + server + b"\r\n"
        self._date = date
        self._second = -1
        self._stamp = b""

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Writer' object")

    def head(
        self,
        status: int,
        fields: list[tuple[bytes, bytes]] | None,
        content_type: bytes | None,
        length: int,
        connection: int = 0,
    ) -> bytes:
        """Return the head of a response, up to and with the empty line.

        Args:
            status: The status code, 100 to 999.
            fields: Checked field lines, names in lower case; those that frame the message are left out.
            content_type: Written before `fields`, or None.
            length: Length of the body in bytes, or `NO_LENGTH`, `CHUNKED`, `FROM_FIELDS`.
            connection: 0 to say nothing, 1 for `close`, 2 for `keep-alive`.
        """
        if not 100 <= status <= 999 or not 0 <= connection <= 2:
            raise IndexError("tuple index out of range")
        parts = [STATUS_LINES[status - 100]]
        if fields is None:
            parts.append(self._server)
            if self._date:
                parts.append(self._date_line())
        else:
            names = set()
            pair: Any
            for pair in fields:
                if (
                    type(pair) is not tuple
                    or len(pair) != 2
                    or type(pair[0]) is not bytes
                    or type(pair[1]) is not bytes
                ):
                    raise TypeError("the fields of a response must be pairs of bytes; use response.headers")
                names.add(pair[0])
            if b"server" not in names:
                parts.append(self._server)
            if self._date and b"date" not in names:
                parts.append(self._date_line())
        if content_type is not None:
            parts.append(b"content-type: %b\r\n" % content_type)
        if length >= 0:
            parts.append(b"content-length: %d\r\n" % length)
        elif length == CHUNKED:
            parts.append(b"transfer-encoding: chunked\r\n")
        if fields is not None:
            for name, value in fields:
                if name not in _OWN or (length == FROM_FIELDS and name == b"content-length"):
                    parts.append(b"%b: %b\r\n" % (name, value))
        parts.append(_CONNECTION[connection])
        parts.append(b"\r\n")
        return b"".join(parts)

    def _date_line(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._stamp = b"date: %b\r\n" % format_http_date(second).encode("ascii")
        return self._stamp


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body; `b""` makes the last one (RFC 9112 section 7.1)."""
    if type(data) is not bytes:
        raise TypeError(f"Expected bytes, got {type(data).__name__}")
    if not data:
        return b"0\r\n\r\n"
    return b"%x\r\n%b\r\n" % (len(data), data)
