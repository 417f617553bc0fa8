"""The hot halves of request and response: what the connection fills in and reads for every message.

`armature.http.HttpRequest` and `HttpResponse` are plain Python subclasses that add the cold half.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from armature._spec.abnf import FIELD_VALUE, TOKEN

__all__ = ["Request", "Response", "check_field", "set_field", "set_json_encoder"]

_NOT_VALUE = bytes(byte for byte in range(256) if not FIELD_VALUE[byte])
_NOT_TOKEN = bytes(byte for byte in range(256) if not TOKEN[byte])

_dumps: Callable[[Any], bytes]


def set_json_encoder(dumps: Callable[[Any], bytes]) -> None:
    """Choose the function that `Response.json` encodes with; `armature.http` does so when it is imported."""
    global _dumps
    _dumps = dumps


def check_field(name: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    """Check one field line of a response and return it as bytes, the name in lower case (RFC 9110 section 5).

    Args:
        name: A token.
        value: Visible characters, spaces and tabs; `str` is encoded as Latin-1, or as UTF-8 where that fails.

    Raises:
        ValueError: The name is no token, or the value holds CR, LF, NUL or another control character.
        TypeError: One of them is neither `str` nor `bytes`.
    """
    if isinstance(name, str):
        raw_name = name.encode("latin-1", "replace") if name.isascii() else b""
    elif isinstance(name, bytes):
        raw_name = bytes(name)
    else:
        raise TypeError(f"a header name must be str or bytes, not {type(name).__name__}")
    if not raw_name or raw_name.translate(None, _NOT_TOKEN) != raw_name:
        raise ValueError(f"invalid header name {name!r}: a name is made of letters, digits and !#$%&'*+-.^_`|~")
    if isinstance(value, str):
        try:
            raw_value = value.encode("latin-1")
        except UnicodeEncodeError:
            try:
                raw_value = value.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(f"invalid value for header {_spelt(name)}: it holds a lone surrogate") from None
    elif isinstance(value, bytes):
        raw_value = bytes(value)
    else:
        raise TypeError(f"the value of header {_spelt(name)} must be str or bytes, not {type(value).__name__}")
    if raw_value.translate(None, _NOT_VALUE) != raw_value:
        raise ValueError(f"invalid value for header {_spelt(name)}: it holds a control character such as CR, LF or NUL")
    return raw_name.lower(), raw_value


def _spelt(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode()


def set_field(fields: list[tuple[bytes, bytes]], name: str | bytes, value: str | bytes) -> None:
    """Set one field line of a response: it takes the place of the first line of its name, the others go.

    Args:
        fields: The field lines, as `Response.fields` returns them; changed in place.
        name: As for `check_field`.
        value: As for `check_field`.

    Raises:
        ValueError: As `check_field`.
        TypeError: As `check_field`.
    """
    field = check_field(name, value)
    key = field[0]
    for i, line in enumerate(fields):
        if line[0] == key:
            fields[i] = field
            fields[i + 1 :] = [line for line in fields[i + 1 :] if line[0] != key]
            return
    fields.append(field)


class Request:
    """One HTTP request, as it stands on the wire; everything else is made from it when asked for.

    Args:
        connection: What carries the request: has `scheme`, `client`, `server`, `app` and `is_disconnected()`.
        method: The method, upper case as received.
        raw_path: The path of the target, undecoded, without the query.
        query_string: What follows the first `?`, undecoded.
        raw_headers: Field lines in order, names in lower case.
        http_version: `"1.0"`, `"1.1"`, `"2"` or `"3"`.
        body: The body, if it is already complete.
        receiver: What the body is read from, if it is not.
    """

    __slots__ = (
        "__weakref__",
        "_names",
        "_path",
        "_raw_headers",
        "_state",
        "_values",
        "_view",
        "body_bytes",
        "connection",
        "endpoint",
        "http_version",
        "method",
        "query_string",
        "raw_path",
        "receiver",
    )

    def __init__(
        self,
        connection: Any,
        method: str,
        raw_path: bytes,
        query_string: bytes = b"",
        raw_headers: list[tuple[bytes, bytes]] | None = None,
        http_version: str = "1.1",
        body: bytes | None = b"",
        receiver: Any = None,
    ) -> None:
        self.connection = connection
        self.method = method
        self.raw_path = raw_path
        self.query_string = query_string
        self.http_version = http_version
        self.body_bytes: bytes | None = body
        self.receiver = receiver
        self.endpoint: Any = None
        self._raw_headers: list[tuple[bytes, bytes]] = [] if raw_headers is None else raw_headers
        self._names: tuple[str, ...] = ()
        self._values: tuple[str, ...] = ()
        self._path: str | None = None
        self._state: Any = None
        self._view: Any = None

    def __reduce__(self) -> Any:
        raise TypeError("a request cannot be pickled or copied: it belongs to its connection")

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The field lines in the order received: lower-case name and value, undecoded."""
        return self._raw_headers

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first field line of this (lower-case) name, or None."""
        for key, value in self._raw_headers:
            if key == name:
                return value
        return None

    @property
    def path(self) -> str:
        """The path, percent-decoded; octets that are no UTF-8 become U+FFFD."""
        path = self._path
        if path is None:
            path = self._path = unquote_to_bytes(self.raw_path).decode("utf-8", "replace")
        return path

    def bind(self, names: tuple[str, ...], values: tuple[str, ...]) -> None:
        """Set the path parameters that the router found."""
        self._names = names
        self._values = values

    @property
    def params(self) -> dict[str, str]:
        """The path parameters, percent-decoded, as a new dict."""
        return dict(zip(self._names, self._values, strict=True))

    def param(self, name: str) -> str:
        """Return one path parameter, percent-decoded.

        Raises:
            KeyError: The route has no parameter of this name.
        """
        try:
            return self._values[self._names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    @property
    def app(self) -> Any:
        """The app that serves the request."""
        return self.connection.app

    @property
    def scheme(self) -> str:
        """`"http"` or `"https"`."""
        return self.connection.scheme  # type: ignore[no-any-return]

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the peer, if it has one."""
        return self.connection.client  # type: ignore[no-any-return]

    @property
    def server(self) -> tuple[str, int] | None:
        """Address and port that the peer connected to, if there is one."""
        return self.connection.server  # type: ignore[no-any-return]


class Response:
    """One HTTP response: a status, field lines and a body.

    Args:
        body: The whole body; `str` is encoded as UTF-8.
        status: The status code, 200 to 599.
        headers: Field lines to send; values are checked here.
        content_type: The media type, or None for none.

    Raises:
        ValueError: The status is out of range, or a header is malformed.
        TypeError: The body is neither `str` nor bytes-like.
    """

    __slots__ = ("__weakref__", "_body", "_content_type", "_fields", "_status", "_view", "stream")

    def __init__(
        self,
        body: bytes | bytearray | memoryview | str = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        if content_type is None and isinstance(body, str):
            content_type = "text/plain; charset=utf-8"
        self._body = _check_body(body)
        self._status = _check_status(status)
        self.stream: AsyncIterable[bytes | str] | Iterable[bytes | str] | None = None
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._view: Any = None
        self._content_type: bytes | None = None
        if content_type is not None:
            self._content_type = check_field("content-type", content_type)[1]
        if headers is not None:
            self._add(headers)

    def __reduce__(self) -> Any:
        if self.stream is not None:
            raise TypeError("a streamed response cannot be pickled or copied")
        return _restore, (type(self), self._body, self._status, self._content_type, self._fields)

    @property
    def status(self) -> int:
        """The status code, 200 to 599."""
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        self._status = _check_status(status)

    @property
    def body(self) -> bytes:
        """The whole body; `str` may be assigned and is encoded as UTF-8."""
        return self._body

    @body.setter
    def body(self, body: bytes | bytearray | memoryview | str) -> None:
        self._body = _check_body(body)

    def _add(self, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        fields = self.fields()
        pairs: Iterable[Any] = headers.items() if isinstance(headers, Mapping) else headers
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"headers must be a mapping, or pairs of a name and a value, not {pair!r}")
            field = check_field(pair[0], pair[1])
            if field[0] == b"content-type":
                fields[:] = [kept for kept in fields if kept[0] != b"content-type"]
            fields.append(field)

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Return the field lines as a list that may be changed; names are lower case, values are checked bytes."""
        fields = self._fields
        if fields is None:
            fields = self._fields = []
            if self._content_type is not None:
                fields.append((b"content-type", self._content_type))
                self._content_type = None
        return fields

    @classmethod
    def json(
        cls,
        obj: Any,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Self:
        """Answer with `obj` encoded as JSON.

        Args:
            obj: Any JSON value; also dataclasses, models, datetimes, UUIDs, enums.
            status: The status code.
            headers: Field lines to add.
            content_type: The media type.

        Raises:
            TypeError: `obj` cannot be encoded; the message names the path to the culprit.
        """
        return cls(_dumps(obj), status, headers, content_type)

    @classmethod
    def text(cls, body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Answer with plain text, UTF-8."""
        return cls(body, status, headers, "text/plain; charset=utf-8")


def _restore(
    cls: type[Response], body: bytes, status: int, content_type: bytes | None, fields: list[tuple[bytes, bytes]] | None
) -> Response:
    response = cls(body, status)
    response._content_type = content_type
    response._fields = None if fields is None else list(fields)
    return response


def _check_body(body: bytes | bytearray | memoryview | str) -> bytes:
    if isinstance(body, bytes):
        return bytes(body)
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    kind = type(body).__name__
    raise TypeError(f"the body of a response must be str or bytes, not {kind}; use HttpResponse.json(...)")


def _check_status(status: int) -> int:
    if not isinstance(status, int):
        raise TypeError(f"a status must be an int, not {type(status).__name__}")
    if not 200 <= status <= 599:
        raise ValueError(f"a status must be 200 to 599, not {status}")
    return int(status)
