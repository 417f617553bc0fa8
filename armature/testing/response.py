"""The response that a test sees: whole, or read piece by piece."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from http.cookies import SimpleCookie
from typing import Any, Protocol, Self

from armature.http.headers import Headers
from armature.http.url import URL
from armature.testing.cookies import Cookie
from armature.testing.errors import ClientClosed, ClientError, HTTPStatusError, InvalidResponse, RequestTimeout
from armature.testing.wire import ResponseHead

__all__ = ["ClientRequest", "ClientResponse"]

Runner = Callable[[Coroutine[Any, Any, Any]], Any]


class BodySource(Protocol):
    """Where a response's body comes from."""

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """Field lines after a chunked body."""

    async def piece(self) -> bytes:
        """Return the next bytes of the body; empty at its end."""

    async def finish(self) -> None:
        """Note that the body was read, or will not be."""


class ClientRequest:
    """What a test client sent.

    Args:
        method: The method.
        url: The whole URL.
        headers: The field lines as they were sent.
        content: The body; None if it was an iterable.
    """

    __slots__ = ("content", "headers", "method", "url")

    def __init__(self, method: str, url: URL, headers: Headers, content: bytes | None) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.content = content

    def __repr__(self) -> str:
        return f"<ClientRequest {self.method} {self.url}>"


class ClientResponse:
    """A response of the app under test; made by a test client.

    Args:
        request: What was sent.
        head: The response's head.
        source: Where the body comes from.
        interim: Interim (1xx) responses that came before.
        cookies: Cookies that this response sets.
        history: The redirects that led here.
        run: Runs a coroutine from outside the loop; None for an asynchronous client.
    """

    def __init__(
        self,
        request: ClientRequest,
        head: ResponseHead,
        source: BodySource,
        *,
        interim: list[ResponseHead] | None = None,
        cookies: list[Cookie] | None = None,
        history: list[ClientResponse] | None = None,
        run: Runner | None = None,
    ) -> None:
        #: What was sent.
        self.request = request
        #: The URL that answered, after redirects.
        self.url = request.url
        self.status_code = head.status
        #: The reason phrase as it was sent, which may be empty.
        self.reason_phrase = head.reason.decode("latin-1")
        #: `HTTP/1.1` or `HTTP/1.0`.
        self.http_version = f"HTTP/{head.http_version}"
        self.headers = Headers.from_raw(head.fields)
        #: The cookies that this response sets, by name; the client's own jar is `client.cookies`.
        self.cookies = {cookie.name: cookie.value for cookie in cookies or ()}
        #: The redirects that were followed to come here, oldest first.
        self.history = list(history or ())
        #: Status codes of the interim (1xx) responses that came before.
        self.interim = [early.status for early in interim or ()]
        self._source = source
        self._run = run
        self._content: bytes | None = None
        self._raw = bytearray()
        self._finished = False
        self._timeout: float | None = None
        self._decoder = _decoder(self.headers.get("content-encoding"))

    def set_timeout(self, seconds: float | None) -> None:
        """Bound the wait for each further piece of the body.

        Args:
            seconds: The bound; None for none.
        """
        self._timeout = seconds

    # The body, whole.

    @property
    def content(self) -> bytes:
        """The body, with gzip and deflate content codings removed.

        Raises:
            ClientError: The response is streamed and was not read.
        """
        if self._content is None:
            raise ClientError("the body was not read; call read() (await aread()) first")
        return self._content

    @property
    def raw(self) -> bytes:
        """The body as it was sent, content codings included."""
        return bytes(self._raw) if self._content is not None else self.content

    @property
    def text(self) -> str:
        """The body as text, in the charset of the content type, else UTF-8."""
        return self.content.decode(self.encoding, "replace")

    @property
    def encoding(self) -> str:
        """The charset that the content type names, `utf-8` if it names none that is known."""
        _, _, parameters = self.headers.get("content-type", "").partition(";")
        for parameter in parameters.split(";"):
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                try:
                    return codecs.lookup(value.strip().strip("\"'")).name
                except LookupError:
                    break
        return "utf-8"

    def json(self, **options: Any) -> Any:
        """Return the body, parsed as JSON.

        Args:
            options: Passed on to `json.loads`.

        Raises:
            ValueError: It is no JSON.
        """
        return json.loads(self.content, **options)

    @property
    def trailers(self) -> Headers:
        """Field lines that came after a chunked body."""
        return Headers.from_raw(self._source.trailers)

    # The status.

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def is_redirect(self) -> bool:
        """Whether the status is 3xx."""
        return 300 <= self.status_code < 400

    @property
    def has_redirect_location(self) -> bool:
        """Whether the response tells where to go."""
        return self.status_code in (301, 302, 303, 307, 308) and "location" in self.headers

    @property
    def is_client_error(self) -> bool:
        """Whether the status is 4xx."""
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        """Whether the status is 5xx."""
        return 500 <= self.status_code < 600

    @property
    def is_error(self) -> bool:
        """Whether the status is 4xx or 5xx."""
        return 400 <= self.status_code < 600

    def raise_for_status(self) -> Self:
        """Return the response itself if its status is below 400.

        Raises:
            HTTPStatusError: The status is 4xx or 5xx.
        """
        if self.is_error:
            body = (self._content or b"")[:500].decode("utf-8", "replace")
            raise HTTPStatusError(
                f"{self.request.method} {self.url} was answered with {self.status_code} {self.reason_phrase}"
                + (f": {body}" if body else ""),
                self,
            )
        return self

    def cookie(self, name: str) -> dict[str, str]:
        """Return the attributes of a cookie that this response sets, by lower-case name, and its `value`.

        Args:
            name: The cookie's name.

        Raises:
            KeyError: This response sets no such cookie.
        """
        for line in reversed(self.headers.getall("set-cookie")):
            parsed: SimpleCookie = SimpleCookie()
            parsed.load(line)
            if name in parsed:
                morsel = parsed[name]
                return {"value": morsel.value, **{key: str(value) for key, value in morsel.items() if value}}
        raise KeyError(name)

    # The body, piece by piece, for asynchronous clients.

    async def aread(self) -> bytes:
        """Read what is left of the body and return it; from then on it is `content`."""
        if self._content is None:
            self._content = b"".join([piece async for piece in self.aiter_bytes()])
        return self._content

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives, with content codings removed.

        Args:
            chunk_size: Give pieces of this many bytes, the last one excepted. Default: as they arrive.
        """
        held = b""
        pieces = self._pieces() if self._content is None else _once(self._content)
        async for piece in pieces:
            if chunk_size is None:
                yield piece
                continue
            held += piece
            while len(held) >= chunk_size:
                yield held[:chunk_size]
                held = held[chunk_size:]
        if held:
            yield held

    async def aiter_text(self) -> AsyncIterator[str]:
        """Iterate over the body as text, as it arrives."""
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        async for piece in self.aiter_bytes():
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", True):
            yield text

    async def aiter_lines(self) -> AsyncIterator[str]:
        """Iterate over the lines of the body as they arrive, without their ends (LF, CRLF or CR)."""
        splitter = _LineSplitter()
        async for text in self.aiter_text():
            for line in splitter.feed(text):
                yield line
        for line in splitter.end():
            yield line

    async def aclose(self) -> None:
        """Be done with the response: what was not read of it is abandoned, and the server sees a disconnect."""
        if not self._finished:
            self._finished = True
            await self._source.finish()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self._next()) is not None:
            yield piece

    async def _next(self) -> bytes | None:
        """The next piece of the decoded body, which is not empty; None at the end."""
        while not self._finished:
            try:
                async with asyncio.timeout(self._timeout) as clock:
                    piece = await self._source.piece()
            except TimeoutError:
                if not clock.expired():
                    raise
                raise RequestTimeout(f"nothing more of {self.url} arrived within {self._timeout} s") from None
            if not piece:
                await self.aclose()
                return self._decoded(b"", True) or None
            self._raw += piece
            if decoded := self._decoded(piece, False):
                return decoded
        return None

    def _decoded(self, data: bytes, last: bool) -> bytes:
        if self._decoder is None:
            return data
        try:
            return self._decoder(data, last)
        except zlib.error as error:
            raise InvalidResponse(f"the body is no {self.headers['content-encoding']} data: {error}") from None

    # The same for synchronous clients.

    def read(self) -> bytes:
        """Read what is left of the body and return it; from then on it is `content`."""
        return self._content if self._content is not None else self._wait(self.aread())

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Iterate over the body as it arrives, with content codings removed.

        Args:
            chunk_size: Give pieces of this many bytes, the last one excepted. Default: as they arrive.
        """
        return self._iterate(self.aiter_bytes(chunk_size))

    def iter_text(self) -> Iterator[str]:
        """Iterate over the body as text, as it arrives."""
        return self._iterate(self.aiter_text())

    def iter_lines(self) -> Iterator[str]:
        """Iterate over the lines of the body as they arrive, without their ends (LF, CRLF or CR)."""
        return self._iterate(self.aiter_lines())

    def close(self) -> None:
        """Be done with the response: what was not read of it is abandoned, and the server sees a disconnect."""
        if not self._finished:
            # A client that is closed has abandoned its responses.
            with contextlib.suppress(ClientClosed):
                self._wait(self.aclose())

    def _iterate(self, pieces: Any) -> Iterator[Any]:
        async def advance() -> Any:
            # StopAsyncIteration cannot leave a coroutine, so the end is a value of its own.
            async for piece in pieces:
                return piece
            return _END

        try:
            while (piece := self._wait(advance())) is not _END:
                yield piece
        finally:
            with contextlib.suppress(ClientClosed):
                self._wait(pieces.aclose())

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._run is None:
            coroutine.close()
            raise ClientError("this response belongs to an asynchronous client; use the methods that begin with `a`")
        return self._run(coroutine)

    def __repr__(self) -> str:
        return f"<ClientResponse [{self.status_code} {self.reason_phrase}]>"


_END: Any = object()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content


class _LineSplitter:
    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> list[str]:
        text = self._held + text
        # A CR at the end may be the first half of a CRLF.
        held_cr = text.endswith("\r")
        lines = (text[:-1] if held_cr else text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._held = lines.pop() + ("\r" if held_cr else "")
        return lines

    def end(self) -> list[str]:
        held, self._held = self._held.removesuffix("\r"), ""
        return [held] if held else []


def _decoder(coding: str | None) -> Callable[[bytes, bool], bytes] | None:
    coding = (coding or "").strip().lower()
    if coding in ("gzip", "x-gzip"):
        return _Inflater(16 + zlib.MAX_WBITS)
    if coding == "deflate":
        return _Inflater(zlib.MAX_WBITS)
    return None


class _Inflater:
    __slots__ = ("_fresh", "_inflater", "_wbits")

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._inflater = zlib.decompressobj(wbits)
        self._fresh = True

    def __call__(self, data: bytes, last: bool) -> bytes:
        if last:
            if not self._fresh and not self._inflater.eof:
                raise zlib.error("it ends too early")
            return self._inflater.flush()
        try:
            out = self._inflater.decompress(data)
        except zlib.error:
            # `deflate` without the zlib wrapper is as common as it is wrong (RFC 9110 section 8.4.1.2).
            if not self._fresh or self._wbits != zlib.MAX_WBITS:
                raise
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            out = self._inflater.decompress(data)
        self._fresh = False
        return out
