"""The request as a handler sees it: everything is made from the wire's bytes when it is first asked for."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from armature._impl import message
from armature.exceptions import HTTPException
from armature.http.cookies import parse_cookies
from armature.http.headers import Headers
from armature.http.json import loads
from armature.http.media import parse_media_type
from armature.http.state import State
from armature.http.url import URL, QueryParams

if TYPE_CHECKING:
    from armature.http.forms import FormData

__all__ = ["HttpRequest"]

# Codecs that are no charsets; idna and punycode take quadratic time, which a client must not choose.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
# What may stand in a URL's path or query unencoded, and the percent sign of what is encoded already.
_RAW_SAFE = bytes(range(0x21, 0x7F))


class RequestViews:
    """The objects made from a request when they were asked for, kept in its one spare slot."""

    __slots__ = ("body", "cookies", "form", "headers", "json", "query", "url")

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.cookies: dict[str, str] | None = None
        self.form: FormData | None = None
        self.headers: Headers | None = None
        # A document may be null, and so is wrapped.
        self.json: tuple[Any] | None = None
        self.query: QueryParams | None = None
        self.url: URL | None = None


def _ascii(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        # The parser lets octets above 0x7F through, as browsers once sent them; a URL holds them encoded.
        return "".join(chr(byte) if byte in _RAW_SAFE else f"%{byte:02X}" for byte in raw)


class HttpRequest(message.Request):
    """One HTTP request.

    Its constructor is that of the hot half: a carrier, the method, the raw path, the raw query, field lines, the
    version, and the body or what it is read from.
    """

    __slots__ = ()

    def _views(self) -> RequestViews:
        views = self._view
        if views is None:
            views = self._view = RequestViews()
        return views  # type: ignore[no-any-return]

    # ---- the head

    @property
    def headers(self) -> Headers:
        """The header fields: case-insensitive, `headers["accept"]` is the first value, `headers.getall` all of them."""
        views = self._views()
        if views.headers is None:
            views.headers = Headers.from_raw(self.raw_headers)
        return views.headers

    @property
    def query(self) -> QueryParams:
        """The parameters of the query string.

        Raises:
            HTTPException: There are too many; status 400.
        """
        views = self._views()
        if views.query is None:
            views.query = QueryParams(self.query_string)
        return views.query

    query_params = query

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name.

        Raises:
            HTTPException: There are too many; status 400.
        """
        views = self._views()
        if views.cookies is None:
            views.cookies = parse_cookies([value for name, value in self.raw_headers if name == b"cookie"])
        return views.cookies

    @property
    def path_params(self) -> dict[str, str]:
        """The path parameters, percent-decoded; the same as `params`."""
        return self.params

    @property
    def url(self) -> URL:
        """The URL the client asked for, as far as the request tells."""
        views = self._views()
        if views.url is None:
            views.url = URL.from_parts(self.scheme, self.host, _ascii(self.raw_path), _ascii(self.query_string))
        return views.url

    @property
    def base_url(self) -> URL:
        """Scheme and host of the URL, with the path `/`."""
        return URL.from_parts(self.scheme, self.host, "/")

    @property
    def host(self) -> str:
        """Host and port the client asked for; without a `Host` field, the address it connected to."""
        host = self.header(b"host")
        if host:
            return host.decode("latin-1")
        server = self.server
        if server is None:
            return ""
        name, port = server[0], server[1]
        if ":" in name:
            name = f"[{name}]"
        return name if port == (443 if self.scheme == "https" else 80) else f"{name}:{port}"

    @property
    def content_type(self) -> str | None:
        """The media type of the body in lower case, without parameters; None if it is not said."""
        value = self.header(b"content-type")
        return None if value is None else parse_media_type(value.decode("latin-1"))[0]

    @property
    def charset(self) -> str | None:
        """The `charset` of the body's media type, if it is said."""
        value = self.header(b"content-type")
        return None if value is None else parse_media_type(value.decode("latin-1"))[1].get("charset")

    @property
    def content_length(self) -> int | None:
        """The declared length of the body in bytes; None if it is not said."""
        value = self.header(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def state(self) -> State:
        """A bag for whatever middleware and handlers want to keep with this request, as attributes or as items."""
        state = self._state
        if state is None:
            state = self._state = State()
        return state  # type: ignore[no-any-return]

    def url_for(self, name: str, /, **params: Any) -> URL:
        """Return the absolute URL of a route.

        Args:
            name: The route's name.
            params: Its path parameters.
        """
        path = str(self.app.url_path_for(name, **params))
        return URL.from_parts(self.scheme, self.host, path)

    # ---- the body

    async def body(self) -> bytes:
        """Return the whole body; it is kept and may be asked for again.

        Raises:
            PayloadTooLarge: It is larger than the route's limit.
            ClientDisconnect: The client went away before it was complete.
            RuntimeError: It has been read as a stream already.
        """
        body = self.body_bytes
        if body is not None:
            return body
        views = self._views()
        if views.body is None:
            views.body = await self.receiver.read()
        return views.body

    async def stream(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives; nothing is kept unless it was read whole before.

        Raises:
            PayloadTooLarge: It is larger than the route's limit.
            ClientDisconnect: The client went away before it was complete.
            RuntimeError: It has been read as a stream already.
        """
        body = self.body_bytes
        if body is not None:
            if body:
                yield body
            return
        async for chunk in self.receiver:
            yield chunk

    async def text(self) -> str:
        """Return the body as text, in the charset of its media type or else UTF-8.

        Raises:
            HTTPException: The charset is unknown (415), or the body is not in it (400).
        """
        body = await self.body()
        charset = self.charset or "utf-8"
        try:
            if codecs.lookup(charset).name in _NO_CHARSETS:
                raise LookupError(charset)
            # Codecs such as base64 or zlib do not decode to text; decode() refuses them as it does unknown ones.
            return body.decode(charset)
        except LookupError:
            raise HTTPException(415, f"The charset {charset!r} of the request body is not known.") from None
        except UnicodeError:
            raise HTTPException(400, f"The request body is not valid {charset}.") from None

    async def json(self) -> Any:
        """Return the body decoded as JSON; it is kept and may be asked for again.

        Raises:
            HTTPException: The body is no JSON; status 400, the detail says where.
        """
        views = self._views()
        if views.json is None:
            body = await self.body()
            try:
                views.json = (loads(body),)
            except ValueError as error:
                raise HTTPException(400, f"The request body is not valid JSON: {error}") from None
        return views.json[0]

    async def form(self) -> FormData:
        """Return the fields of a submitted form; they are kept and may be asked for again.

        Raises:
            HTTPException: The body is no form (415), or it is malformed or has too many fields (400).
        """
        views = self._views()
        if views.form is None:
            from armature.http.forms import read_form

            views.form = await read_form(self)
        return views.form

    async def is_disconnected(self) -> bool:
        """Say whether the client has gone away."""
        return bool(self.connection.is_disconnected())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path}>"
