"""Cross-origin resource sharing: who may call this app from a page of another origin (Fetch standard, section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Self

from armature._impl import message
from armature.exceptions import ConfigurationError
from armature.http.negotiation import add_vary
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

__all__ = ["CORSMiddleware"]

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
#: Request fields that need no permission (Fetch standard, section 2.2.2).
_SAFELISTED = ("accept", "accept-language", "content-language", "content-type")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


class CORSMiddleware:
    """Answers preflight requests and adds the CORS fields to responses.

    Args:
        allow_origins: Origins such as `"https://example.org"`, or `["*"]` for all.
        allow_methods: Methods, or `["*"]` for all common ones.
        allow_headers: Request fields beyond the safelisted ones, or `["*"]` for whatever is asked for.
        allow_credentials: Whether cookies and authorization may be sent; the origins must then be named.
        allow_origin_regex: A regular expression that a whole origin must match.
        expose_headers: Response fields that a page may read.
        max_age: Seconds for which a browser may remember the answer to a preflight request.

    Raises:
        ConfigurationError: Credentials are allowed for every origin, or an origin, method or field is malformed.
    """

    def __init__(
        self,
        allow_origins: Sequence[str] = (),
        allow_methods: Sequence[str] = ("GET",),
        allow_headers: Sequence[str] = (),
        allow_credentials: bool = False,
        allow_origin_regex: str | re.Pattern[str] | None = None,
        expose_headers: Sequence[str] = (),
        max_age: int = 600,
    ) -> None:
        for name, value in (
            ("allow_origins", allow_origins),
            ("allow_methods", allow_methods),
            ("allow_headers", allow_headers),
            ("expose_headers", expose_headers),
        ):
            if isinstance(value, str):
                raise ConfigurationError(f"{name} must be a list, not the str {value!r}; write [{value!r}]")
        self.any_origin = "*" in allow_origins
        if self.any_origin and allow_credentials:
            raise ConfigurationError(
                "allow_credentials=True with allow_origins=['*'] would let every site act for your users; "
                "name the origins, or give allow_origin_regex"
            )
        self.origins = frozenset(_origin(origin) for origin in allow_origins if origin != "*")
        self.pattern = None if allow_origin_regex is None else re.compile(allow_origin_regex)
        self.methods = frozenset(_METHODS if "*" in allow_methods else map(str.upper, allow_methods))
        self.any_header = "*" in allow_headers
        self.allowed = frozenset([*_SAFELISTED, *(_field(name) for name in allow_headers if name != "*")])
        self.credentials = allow_credentials
        self._check_tokens(self.methods, "method")
        # With a fixed set of one answer, caches need not tell origins apart.
        self.varies = not self.any_origin
        common: list[tuple[bytes, bytes]] = []
        if self.any_origin:
            common.append((b"access-control-allow-origin", b"*"))
        if allow_credentials:
            common.append((b"access-control-allow-credentials", b"true"))
        exposed = ", ".join(name if name == "*" else _field(name) for name in expose_headers)
        self._simple = [*common]
        if exposed:
            self._simple.append(message.check_field("access-control-expose-headers", exposed))
        self._preflight = [
            *common,
            (b"access-control-allow-methods", ", ".join(sorted(self.methods)).encode()),
            (b"access-control-max-age", str(int(max_age)).encode()),
        ]
        self._allowed_line = ", ".join(sorted(self.allowed)).encode()

    @classmethod
    def permissive(cls) -> Self:
        """Allow every origin, method and field, without credentials."""
        return cls(allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["*"])

    @staticmethod
    def _check_tokens(values: Iterable[str], what: str) -> None:
        for value in values:
            if not _TOKEN(value):
                raise ConfigurationError(f"{value!r} is no {what}")

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may call."""
        return (
            self.any_origin
            or origin in self.origins
            or (self.pattern is not None and bool(self.pattern.fullmatch(origin)))
        )

    async def __call__(
        self, request: HttpRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponse]]
    ) -> HttpResponse:
        """Answer a preflight request, or let the request pass and mark its response."""
        raw_origin = request.header(b"origin")
        if raw_origin is None:
            response = await call_next(request)
            if self.varies:
                add_vary(response, (b"origin",))
            return response
        origin = raw_origin.decode("latin-1")
        if request.method == "OPTIONS" and request.header(b"access-control-request-method") is not None:
            return self._answer_preflight(request, origin, raw_origin)
        response = await call_next(request)
        if self.allows(origin):
            self._mark(response, self._simple, raw_origin)
        if self.varies:
            add_vary(response, (b"origin",))
        return response

    def _mark(self, response: message.Response, wanted: list[tuple[bytes, bytes]], origin: bytes) -> None:
        fields = response.fields()
        if self.varies:
            wanted = [(b"access-control-allow-origin", origin), *wanted]
        names = {name for name, _ in wanted}
        # Two lines of Access-Control-Allow-Origin make a browser refuse both.
        fields[:] = [field for field in fields if field[0] not in names]
        fields.extend(wanted)

    def _answer_preflight(self, request: HttpRequest, origin: str, raw_origin: bytes) -> HttpResponse:
        wanted = (request.header(b"access-control-request-method") or b"").decode("latin-1")
        named = ",".join(request.headers.getall("access-control-request-headers"))
        asked = [name.strip().lower() for name in named.split(",") if name.strip()]
        refused: str | None = None
        if not self.allows(origin):
            refused = "origin"
        elif wanted not in self.methods:
            refused = "method"
        elif not all(_TOKEN(name) and (self.any_header or name in self.allowed) for name in asked):
            refused = "headers"
        vary = (b"origin",) if self.varies else ()
        if self.any_header:
            vary = (*vary, b"access-control-request-headers")
        if refused is not None:
            response = HttpResponse.text(f"Disallowed CORS {refused}", 400)
            # The page may know which of the three it was, but only if its origin is allowed at all.
            if refused != "origin":
                self._mark(response, self._simple, raw_origin)
            add_vary(response, vary)
            return response
        response = HttpResponse(b"", 204)
        self._mark(response, self._preflight, raw_origin)
        line = ", ".join(asked).encode() if self.any_header else self._allowed_line
        if line:
            response.fields().append((b"access-control-allow-headers", line))
        add_vary(response, vary)
        return response


def _origin(origin: str) -> str:
    if origin == "null":
        return origin
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\s]+)(/?)", origin)
    if match is None:
        raise ConfigurationError(
            f"{origin!r} is no origin; an origin is a scheme and a host, such as 'https://example.org'"
        )
    # Browsers send scheme and host in lower case and never a slash at the end.
    return f"{match[1]}://{match[2]}".lower()


def _field(name: str) -> str:
    if not _TOKEN(name):
        raise ConfigurationError(f"{name!r} is no name of a header field")
    return name.lower()
