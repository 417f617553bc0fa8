"""What both test clients do: make requests from a test's arguments, follow redirects, keep cookies."""

from __future__ import annotations

import asyncio
import base64
import json as jsonlib
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, TypeAlias, TypedDict
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

from armature.http.headers import Headers, MutableHeaders
from armature.http.url import URL
from armature.server.config import ServerConfig
from armature.testing.cookies import Cookie, CookieJar
from armature.testing.errors import RequestTimeout, TooManyRedirects
from armature.testing.multipart import Pairs, encode_form, encode_multipart, encode_pairs
from armature.testing.response import ClientRequest, ClientResponse, Runner
from armature.testing.session import Body, Exchange, Session, raise_from_app
from armature.testing.wire import encode_head

__all__ = ["BaseClient", "RequestOptions", "StreamOptions"]

HeadersInput: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
Content: TypeAlias = str | bytes | bytearray | memoryview | Iterable[bytes] | AsyncIterable[bytes]

REDIRECT_LIMIT = 20

#: What may stand in a path and in a query as it is (RFC 3986 sections 3.3 and 3.4).
PATH_SAFE = "/%:@!$&'()*+,;=~"
QUERY_SAFE = PATH_SAFE + "?[]"


class Unset:
    """Stands for "as the client was told"."""


UNSET = Unset()


class StreamOptions(TypedDict, total=False):
    """The keyword arguments of a request."""

    #: Query parameters, added to those of the URL; a list gives one pair per item.
    params: Pairs | str | None
    #: Field lines; they take the place of the client's own of the same names.
    headers: HeadersInput | None
    #: Cookies for this request, besides the client's.
    cookies: Mapping[str, str] | None
    #: The body as it is; an iterable is sent chunked.
    content: Content | None
    #: A form; bytes, str and iterables of bytes are sent like `content`.
    data: Pairs | Content | None
    #: The body as JSON.
    json: Any
    #: Files for a multipart form: by field name, bytes, str, an open file, or (filename, content[, type[, headers]]).
    files: Pairs | None
    #: User and password for Basic authentication.
    auth: tuple[str, str] | None
    #: Whether to follow redirects; the client's setting by default.
    follow_redirects: bool
    #: Seconds until `RequestTimeout`; None waits for ever; the client's setting by default.
    timeout: float | None


RequestOptions = StreamOptions


class BaseClient:
    """What both clients have in common.

    Args:
        app: An `App`, a `Router`, or anything with `build()`; also the service that it builds.
        base_url: What relative URLs are relative to; an `https` URL makes `request.scheme` be `https`.
        raise_server_exceptions: Whether an exception that nobody handles is raised in the test, not answered with 500.
        follow_redirects: Whether redirects are followed.
        headers: Field lines of every request.
        cookies: Cookies of every request.
        timeout: Seconds that a request may take; None for no bound.
        client: What `request.client` is.
        server: Options of the server.

    Raises:
        ValueError: `base_url` is no http or https URL.
    """

    #: Test runners collect classes by their names; this one is no test.
    __test__ = False

    def __init__(
        self,
        app: Any,
        base_url: str = "http://testserver",
        *,
        raise_server_exceptions: bool = True,
        follow_redirects: bool = True,
        headers: HeadersInput | None = None,
        cookies: Mapping[str, str] | None = None,
        timeout: float | None = 30.0,
        client: tuple[str, int] = ("testclient", 50000),
        server: ServerConfig | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"base_url must be such as http://testserver, not {base_url!r}")
        self.app = app
        self.base_url = URL(base_url)
        self.raise_server_exceptions = raise_server_exceptions
        self.follow_redirects = follow_redirects
        self.headers = MutableHeaders({"user-agent": "armature-testing", "accept": "*/*"})
        for name, value in _header_pairs(headers):
            self.headers[name] = value
        self._cookies = CookieJar(cookies)
        self.timeout = timeout
        self._client = client
        self._server = server or ServerConfig()

    @property
    def cookies(self) -> CookieJar:
        """The cookies that go with every request they belong to."""
        return self._cookies

    @cookies.setter
    def cookies(self, cookies: Mapping[str, str]) -> None:
        self._cookies = CookieJar(cookies)

    def _runner(self) -> Runner | None:
        """What runs a coroutine from outside the loop, for clients that are outside."""
        return None

    async def _session_now(self) -> Session:
        raise TypeError(f"{type(self).__name__} has no session; use TestClient or AsyncTestClient")

    # Making a request.

    def _request(
        self,
        method: str,
        url: str | URL,
        *,
        params: Pairs | str | None = None,
        headers: HeadersInput | None = None,
        cookies: Mapping[str, str] | None = None,
        content: Content | None = None,
        data: Pairs | Content | None = None,
        json: Any = UNSET,
        files: Pairs | None = None,
        auth: tuple[str, str] | None = None,
    ) -> tuple[ClientRequest, Body, CookieJar]:
        target = self._url(url, params)
        body, content_type = _encode_body(content, data, json, files)
        fields = MutableHeaders()
        fields["host"] = target.netloc.rpartition("@")[2]
        for name, value in self.headers.multi_items():
            fields.add(name, value)
        given = list(_header_pairs(headers))
        for name in {name.lower() for name, _ in given}:
            if name in fields:
                del fields[name]
        for name, value in given:
            fields.add(name, value)
        if content_type is not None:
            fields.setdefault("content-type", content_type)
        if auth is not None:
            token = base64.b64encode(f"{auth[0]}:{auth[1]}".encode()).decode("ascii")
            fields.setdefault("authorization", f"Basic {token}")
        if "content-length" not in fields and "transfer-encoding" not in fields:
            if not isinstance(body, bytes):
                fields["transfer-encoding"] = "chunked"
            elif body or method in ("POST", "PUT", "PATCH"):
                fields["content-length"] = str(len(body))
        jar = CookieJar(cookies)
        sent = body if isinstance(body, bytes) else None
        return ClientRequest(method, target, Headers(fields.multi_items()), sent), body, jar

    def _url(self, url: str | URL, params: Pairs | str | None) -> URL:
        parts = urlsplit(str(url))
        if parts.scheme and parts.netloc:
            if parts.scheme not in ("http", "https"):
                raise ValueError(f"a test client speaks http and https, not {parts.scheme!r}")
            scheme, netloc, path = parts.scheme, parts.netloc, parts.path
        else:
            base = self.base_url
            scheme, netloc = base.scheme, parts.netloc or base.netloc
            path = parts.path if parts.netloc else base.path.rstrip("/") + "/" + parts.path.removeprefix("/")
            if not parts.path:
                path = base.path
        query = quote(parts.query, safe=QUERY_SAFE)
        if params is not None:
            added = quote(params, safe=QUERY_SAFE) if isinstance(params, str) else urlencode(encode_pairs(params))
            query = "&".join(filter(None, (query, added)))
        return URL(urlunsplit((scheme, _ascii_host(netloc), quote(path, safe=PATH_SAFE) or "/", query, "")))

    async def _send(
        self,
        method: str,
        url: str | URL,
        stream: bool,
        *,
        follow_redirects: bool | Unset = UNSET,
        timeout: float | Unset | None = UNSET,
        **options: Any,
    ) -> ClientResponse:
        follow = self.follow_redirects if isinstance(follow_redirects, Unset) else follow_redirects
        seconds = self.timeout if isinstance(timeout, Unset) else timeout
        request, body, extra_cookies = self._request(method.upper(), url, **options)
        session = await self._session_now()
        history: list[ClientResponse] = []
        try:
            async with asyncio.timeout(seconds) as clock:
                while True:
                    response = await self._exchange(session, request, body, extra_cookies, history)
                    follows = follow and response.has_redirect_location
                    if follows or not stream:
                        await response.aread()
                    if not follows:
                        break
                    if len(history) == REDIRECT_LIMIT:
                        raise TooManyRedirects(
                            f"more than {REDIRECT_LIMIT} redirects; the last one came from {request.url}"
                        )
                    history.append(response)
                    request, body = _redirected(request, body, response)
        except TimeoutError:
            # The app may have raised a TimeoutError of its own.
            if not clock.expired():
                raise
            raise RequestTimeout(f"{request.method} {request.url} was not answered within {seconds} s") from None
        if stream:
            response.set_timeout(seconds)
        return response

    async def _exchange(
        self,
        session: Session,
        request: ClientRequest,
        body: Body,
        extra_cookies: CookieJar,
        history: list[ClientResponse],
    ) -> ClientResponse:
        url = request.url
        host, path = url.hostname or "", url.path or "/"
        fields = list(request.headers.raw)
        if "cookie" not in request.headers:
            lines = [jar.header(host, path, url.is_secure) for jar in (self._cookies, extra_cookies)]
            if cookie := "; ".join(filter(None, lines)):
                fields.append((b"cookie", cookie.encode("utf-8")))
        target = path + ("?" + url.query if url.query else "")
        if request.method == "OPTIONS" and path == "/*":
            target = "*"
        elif request.method == "CONNECT":
            target = url.netloc
        expects = request.headers.get("expect", "").lower() == "100-continue"
        head = encode_head(request.method, target, fields)
        channel = session.connect(url.is_secure, url.netloc.rpartition("@")[2])
        exchange = Exchange(channel, request.method, self.raise_server_exceptions)
        exchange.send(head, body, "chunked" in request.headers.get("transfer-encoding", ""), expects)
        answer = await exchange.head()
        return ClientResponse(
            ClientRequest(request.method, url, Headers.from_raw(fields), request.content),
            answer,
            exchange,
            interim=exchange.interim,
            cookies=self._take_cookies(answer.values(b"set-cookie"), host, path),
            history=history,
            run=self._runner(),
        )

    def _take_cookies(self, lines: list[bytes], host: str, path: str) -> list[Cookie]:
        found = (self._cookies.extract(line.decode("utf-8", "replace"), host, path) for line in lines)
        return [cookie for cookie in found if cookie is not None]

    async def _raw(self, data: bytes | Iterable[bytes], timeout: float | Unset | None) -> bytes:
        session = await self._session_now()
        seconds = self.timeout if isinstance(timeout, Unset) else timeout
        channel = session.open(self.base_url.is_secure, self.base_url.netloc)
        received = bytearray()
        try:
            async with asyncio.timeout(seconds):
                for piece in (data,) if isinstance(data, (bytes, bytearray)) else data:
                    channel.transport.send(bytes(piece))
                    # Each piece is received by itself, and what it causes happens before the next one.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                channel.transport.send_eof()
                while more := await channel.receive():
                    received += more
        except TimeoutError:
            raise RequestTimeout(
                f"the server neither answered nor closed within {seconds} s; so far it sent {bytes(received)!r}"
            ) from None
        finally:
            raised = channel.protocol.raised
            channel.reset()
        if raised and self.raise_server_exceptions:
            raise_from_app(raised[0])
        return bytes(received)


def _header_pairs(headers: HeadersInput | None) -> Iterable[tuple[str, str]]:
    if headers is None:
        return ()
    if isinstance(headers, Headers):
        return headers.multi_items()
    return headers.items() if isinstance(headers, Mapping) else headers


def _encode_body(
    content: Content | None, data: Pairs | Content | None, json: Any, files: Pairs | None
) -> tuple[Body, str | None]:
    """Return the body and the content type that goes with it."""
    given = [name for name, value in (("content", content), ("json", json)) if value is not None and value is not UNSET]
    if data is not None or files is not None:
        given.append("data" if files is None else "files")
    if len(given) > 1:
        raise TypeError(f"{' and '.join(given)} exclude each other; a request has one body")
    if json is not UNSET:
        text = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode("utf-8", "surrogatepass"), "application/json"
    if files is not None:
        if data is not None and not _is_pairs(data):
            raise TypeError("with files, data must be a mapping or a list of pairs")
        return encode_multipart(data or {}, files)  # type: ignore[arg-type]
    if data is not None and _is_pairs(data):
        return encode_form(data), "application/x-www-form-urlencoded"  # type: ignore[arg-type]
    body: Any = content if data is None else data
    if body is None:
        return b"", None
    if isinstance(body, str):
        return body.encode("utf-8"), None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), None
    if not isinstance(body, (Iterable, AsyncIterable)):
        raise TypeError(f"a request's body must be bytes, str or an iterable of bytes, not {type(body).__name__}")
    return body, None


def _is_pairs(data: Any) -> bool:
    if isinstance(data, Mapping):
        return True
    return isinstance(data, (list, tuple)) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in data)


def _ascii_host(netloc: str) -> str:
    if netloc.isascii():
        return netloc
    user, at, host = netloc.rpartition("@")
    return user + at + host.encode("idna").decode("ascii")


def _redirected(request: ClientRequest, body: Body, response: ClientResponse) -> tuple[ClientRequest, Body]:
    """The request that a redirect asks for (RFC 9110 section 15.4)."""
    location = urlsplit(urljoin(str(request.url), response.headers["location"]))
    path = quote(location.path, safe=PATH_SAFE) or "/"
    url = URL(urlunsplit((location.scheme, location.netloc, path, quote(location.query, safe=QUERY_SAFE), "")))
    if url.scheme not in ("http", "https"):
        raise ValueError(f"the redirect to {response.headers['location']!r} leads out of http")
    fields = MutableHeaders(request.headers.multi_items())
    fields["host"] = url.netloc.rpartition("@")[2]
    # The jar gives the next request the cookies that belong to it.
    dropped = ["cookie"]
    if (url.scheme, url.netloc) != (request.url.scheme, request.url.netloc):
        dropped.append("authorization")
    method, status = request.method, response.status_code
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", b""
        dropped += ["content-length", "content-type", "transfer-encoding", "expect"]
    elif not isinstance(body, bytes):
        raise TypeError(f"the body of {request.method} {request.url} is an iterable and cannot be sent a second time")
    for name in dropped:
        if name in fields:
            del fields[name]
    return ClientRequest(method, url, Headers(fields.multi_items()), body), body
