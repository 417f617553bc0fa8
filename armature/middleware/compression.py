"""Responses in a content coding that the client accepts: gzip and deflate, br and zstd where they are installed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from armature._impl import message
from armature.exceptions import ConfigurationError
from armature.http.compression import (
    AsyncCompressed,
    Coding,
    Compressed,
    available,
    check_level,
    compress,
    make_encoder,
)
from armature.http.media import parse_media_type
from armature.http.negotiation import accepts_encoding, add_vary
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

__all__ = ["CompressionMiddleware"]

#: The server's order among what a client likes equally: the quickest for what it saves first.
_PREFERENCE: tuple[Coding, ...] = ("zstd", "br", "gzip", "deflate")

#: What shrinks. Images, audio, video, archives and web fonts are compressed already.
_MEDIA_TYPES = (
    "text/*",
    "*+json",
    "*+text",
    "*+xml",
    "*+yaml",
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/jsonl",
    "application/manifest+json",
    "application/toml",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
)

#: Streams whose pieces are waited for one by one.
_FLUSHED = ("text/event-stream", "application/x-ndjson", "application/jsonl", "application/json-seq")

#: Responses without a body.
_EMPTY = frozenset({204, 205})

#: Responses that stand for another one, which may have been compressed: it is not known any more, or not here.
_PARTIAL = frozenset({206, 304})

#: Fields that describe the very bytes of the body: with one of them it must arrive as it is.
_BINDING = frozenset(
    {b"content-encoding", b"content-range", b"content-digest", b"repr-digest", b"digest", b"content-md5"}
)

#: Values of Accept-Encoding, and media types, that are remembered.
_REMEMBERED = 256


class CompressionMiddleware:
    """Compresses responses in the content coding that a client likes best (RFC 9110 section 12.5.3).

    A complete body is compressed if it has at least `minimum_size` bytes; a stream is compressed as it is produced.
    Responses that have a `Content-Encoding`, a `Content-Range` or a digest of their body are left alone, and so are
    those with `Cache-Control: no-transform`, which is how one response opts out.

    Do not compress pages that show a secret beside something that a request can choose: their size would tell the
    secret, letter by letter (the attack is called BREACH).

    Args:
        minimum_size: Bytes from which a complete body is compressed.
        codings: The codings to offer, the favourite first, which wins among those that a client likes equally.
            Default: those of `zstd`, `br`, `gzip` and `deflate` that are installed.
        levels: Levels by coding, such as `{"gzip": 6}`. Default: gzip and deflate 5, br 4, zstd 3.
        media_types: What to compress: `"text/html"`, `"text/*"`, `"*+json"`, or `"*/*"` for everything. Default: text,
            JSON, XML, JavaScript, WebAssembly and the like.
        exclude: Media types that are not compressed all the same.
        flush: Whether every piece of every stream can be decoded as soon as it is sent. Without it this holds for the
            first piece, and for all pieces of server-sent events and newline-delimited JSON; others are gathered.

    Raises:
        ConfigurationError: A coding is unknown, a level out of its range, or a media type malformed.
        MissingDependencyError: A coding was named whose library is not installed.
    """

    def __init__(
        self,
        minimum_size: int = 1000,
        *,
        codings: Sequence[Coding] | None = None,
        levels: Mapping[Coding, int] | None = None,
        media_types: Sequence[str] = _MEDIA_TYPES,
        exclude: Sequence[str] = (),
        flush: bool = False,
    ) -> None:
        if minimum_size < 0:
            raise ConfigurationError(f"minimum_size must be a number of bytes from 0 on, not {minimum_size!r}")
        for name, value in (("codings", codings), ("media_types", media_types), ("exclude", exclude)):
            if isinstance(value, str):
                raise ConfigurationError(f"{name} must be a list, not the str {value!r}; write [{value!r}]")
        self.minimum_size = minimum_size
        self.codings = _offered(codings)
        self.levels = {coding: check_level(coding, level) for coding, level in (levels or {}).items()}
        self.media_types = tuple(map(_pattern, media_types))
        self.exclude = tuple(map(_pattern, exclude))
        self.flush = flush
        # Clients send few different values, and a bound stands against those who send many.
        self._negotiate: Callable[[str], tuple[str | None, bool]] = lru_cache(_REMEMBERED)(self._negotiated)
        self._is_wanted: Callable[[bytes], bool] = lru_cache(_REMEMBERED)(self._wanted)

    async def __call__(
        self, request: HttpRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponse]]
    ) -> HttpResponse:
        """Compress the response of one request, if it is worth it and the client accepts it."""
        response = await call_next(request)
        prepare: Any = getattr(response, "prepare", None)
        if prepare is not None and self._may_change(response):
            # A file that is not open yet: what is sent of it depends on the request.
            response = await prepare(request)
        if response.status in _PARTIAL:
            # The whole response says so, and these must say what it says (RFC 9110 sections 15.3.7 and 15.4.5).
            add_vary(response, (b"accept-encoding",))
            if response.status == 304:
                _weaken(request, response)
            return response
        if not self._may_change(response):
            return response
        size = _size(request, response)
        if size == 0:
            return response
        accepted = request.header(b"accept-encoding")
        coding, required = None, False
        if accepted is not None:
            coding, required = self._negotiate(request.headers.joined("accept-encoding") or "")
        if size is not None and size < self.minimum_size and not required:
            return response
        add_vary(response, (b"accept-encoding",))
        if coding is None:
            return response
        await self._compress(request, response, coding)
        return response

    def _may_change(self, response: message.Response) -> bool:
        """Whether a response may be sent in a coding, as far as its status and its fields tell."""
        content_type = None
        for name, value in response.fields():
            if name == b"content-type":
                content_type = value
            elif name in _BINDING or (name == b"cache-control" and _forbids(value)):
                return False
        return response.status not in _EMPTY and content_type is not None and self._is_wanted(content_type)

    async def _compress(self, request: HttpRequest, response: HttpResponse, coding: str) -> None:
        stream: Any = response.stream
        level = self.levels.get(coding)  # type: ignore[call-overload]
        if stream is None and response.body:
            body = response.body
            response.body = await compress(make_encoder(coding, level, size=len(body)), body)
        elif request.method == "HEAD":
            # What GET would send is not known without making it: the length is left out (RFC 9110 section 9.3.2).
            if stream is None:
                response.stream = ()
        else:
            flush = self.flush or _media_type(response) in _FLUSHED
            encoder = make_encoder(coding, level, lasting=flush)
            if hasattr(stream, "__aiter__"):
                response.stream = AsyncCompressed(stream, encoder, flush)
            else:
                response.stream = Compressed(stream, encoder, flush)
        fields = response.fields()
        # Ranges would be those of the body as it was.
        fields[:] = [
            (name, _weak(value) if name == b"etag" else value)
            for name, value in fields
            if name not in (b"content-length", b"accept-ranges")
        ]
        fields.append((b"content-encoding", coding.encode("ascii")))

    def _negotiated(self, accepted: str) -> tuple[str | None, bool]:
        """Choose a coding, None if there is none to choose; and say whether the body must not go out without one."""
        coding = accepts_encoding(accepted, self.codings)
        # Where nothing is acceptable, the body as it is says more than a refusal.
        return (None if coding == "identity" else coding), accepts_encoding(accepted, ()) is None

    def _wanted(self, content_type: bytes) -> bool:
        name = parse_media_type(content_type.decode("latin-1"))[0]
        return any(_matches(name, pattern) for pattern in self.media_types) and not any(
            _matches(name, pattern) for pattern in self.exclude
        )


def _offered(codings: Sequence[Coding] | None) -> tuple[str, ...]:
    if codings is None:
        return tuple(coding for coding in _PREFERENCE if available(coding))
    if not codings:
        raise ConfigurationError("codings must name one coding at least; leave the middleware out for none")
    for coding in codings:
        if not available(coding):
            # Says what to install.
            make_encoder(coding)
    return tuple(codings)


def _pattern(pattern: str) -> str:
    family, slash, name = pattern.lower().partition("/")
    if slash and family and name and ("*" not in family or pattern == "*/*") and ("*" not in name or name == "*"):
        return pattern.lower()
    if not slash and family.startswith("*+") and "*" not in family[1:] and len(family) > 2:
        return family
    raise ConfigurationError(f"{pattern!r} is no media type; write such as 'text/html', 'text/*', '*+json' or '*/*'")


def _matches(name: str, pattern: str) -> bool:
    if pattern.endswith("/*"):
        return pattern == "*/*" or name.startswith(pattern[:-1])
    return name.endswith(pattern[1:]) if pattern.startswith("*+") else name == pattern


def _forbids(cache_control: bytes) -> bool:
    return b"no-transform" in [directive.strip().lower() for directive in cache_control.split(b",")]


def _size(request: HttpRequest, response: HttpResponse) -> int | None:
    """The length of the body, as GET would have it; None if nobody knows."""
    if response.stream is None and (response.body or request.method != "HEAD"):
        return len(response.body)
    for name, value in response.fields():
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0 if response.stream is None else None


def _media_type(response: message.Response) -> str:
    for name, value in response.fields():
        if name == b"content-type":
            return parse_media_type(value.decode("latin-1"))[0]
    return ""


def _weak(etag: bytes) -> bytes:
    # A strong one promises the same bytes (RFC 9110 section 8.8.1), which another release of a library need not make.
    return etag if etag.startswith(b"W/") else b"W/" + etag


def _weaken(request: HttpRequest, response: message.Response) -> None:
    """Give a 304 the tag that the client has: a strong one would not match its stored response (RFC 9111, 4.3.4)."""
    held = request.headers.joined("if-none-match")
    if held is not None:
        fields = response.fields()
        for i, (name, value) in enumerate(fields):
            if name == b"etag" and _weak(value).decode("latin-1") in held:
                fields[i] = (name, _weak(value))
