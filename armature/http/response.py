"""The response as a handler makes it: constructors for every kind of body, headers, cookies."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Self, overload

from armature._impl import message
from armature.http.cookies import Priority, SameSite, format_set_cookie
from armature.http.headers import HeadersInput, MutableHeaders
from armature.http.json import dumps
from armature.http.problem import PROBLEM_JSON, problem_details
from armature.http.streams import mapped
from armature.http.url import quote_url

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from armature.http.files import FileResponse
    from armature.http.request import HttpRequest
    from armature.http.sse import EventInput

__all__ = ["HttpResponse"]


def _stream(
    cls: type[Any],
    iterator: AsyncIterable[bytes | str] | Iterable[bytes | str],
    status: int = 200,
    headers: HeadersInput | None = None,
    content_type: str | None = "application/octet-stream",
) -> Any:
    if not hasattr(iterator, "__aiter__") and (
        not hasattr(iterator, "__iter__") or isinstance(iterator, (str, bytes, bytearray, dict))
    ):
        raise TypeError(
            f"HttpResponse.stream needs an iterator or an asynchronous iterator, not {type(iterator).__name__}"
        )
    response = cls(b"", status, headers, content_type)
    response.stream = iterator
    return response


class ResponseType(type):
    """The class of response classes: gives `stream` to the class as a constructor.

    An instance's `stream` is the slot of the hot half, read for every response; a class attribute of the same name
    would hide it.
    """

    @property
    def stream(cls) -> _StreamConstructor:
        """Answer with what an iterator yields; see `HttpResponse`."""
        return partial(_stream, cls)  # type: ignore[return-value]


if TYPE_CHECKING:

    class _Stream:
        @overload
        def __get__(self, instance: None, owner: type[HttpResponse]) -> _StreamConstructor: ...
        @overload
        def __get__(
            self, instance: HttpResponse, owner: type[HttpResponse]
        ) -> AsyncIterable[bytes | str] | Iterable[bytes | str] | None: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(
            self, instance: HttpResponse, value: AsyncIterable[bytes | str] | Iterable[bytes | str] | None
        ) -> None: ...

    class _StreamConstructor:
        def __call__(
            self,
            iterator: AsyncIterable[bytes | str] | Iterable[bytes | str],
            status: int = 200,
            headers: HeadersInput | None = None,
            content_type: str | None = "application/octet-stream",
        ) -> HttpResponse: ...


class HttpResponse(message.Response, metaclass=ResponseType):
    """One HTTP response.

    `HttpResponse.stream(iterator, status=200, headers=None, content_type="application/octet-stream")` answers with
    what a synchronous or asynchronous iterator of bytes or str yields, as it yields; when the client goes away the
    iterator is closed. On an instance, `stream` is that iterator, or None.

    Args:
        body: The whole body; `str` is encoded as UTF-8. For anything else use a constructor such as `json`.
        status: The status code, 200 to 599.
        headers: Field lines to send; values are checked here.
        content_type: The media type, or None for none.

    Raises:
        ValueError: The status is out of range, or a header is malformed.
        TypeError: The body is neither `str` nor bytes-like.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        stream = _Stream()

    # ---- what can be changed after it was made

    @property
    def headers(self) -> MutableHeaders:
        """The header fields: `headers["x-a"] = "1"` sets, `headers.add("x-a", "2")` adds; checked at the call."""
        view = self._view
        if view is None:
            view = self._view = MutableHeaders.from_raw(self.fields())
        return view  # type: ignore[no-any-return]

    @property
    def content_type(self) -> str | None:
        """The media type with its parameters, or None."""
        return self.headers.get("content-type")

    @content_type.setter
    def content_type(self, value: str | None) -> None:
        if value is None:
            self.headers.pop("content-type", None)
        else:
            self.headers["content-type"] = value

    media_type = content_type

    @property
    def status_code(self) -> int:
        """The status code; the same as `status`."""
        return self.status

    @status_code.setter
    def status_code(self, value: int) -> None:
        self.status = value

    def set_cookie(
        self,
        name: str,
        value: str = "",
        max_age: int | timedelta | None = None,
        expires: datetime | timedelta | float | str | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: SameSite | None = "lax",
        partitioned: bool = False,
        priority: Priority | None = None,
    ) -> None:
        """Add a `Set-Cookie` field.

        Args:
            name: A token.
            value: Any text without control characters.
            max_age: Seconds to live.
            expires: When it expires: a datetime (a naive one is UTC), a time from now, a timestamp, or an HTTP date.
            path: The path it is sent for, and below; None leaves it to the browser.
            domain: The domain it is sent for, and below; None: this host only.
            secure: Sent over TLS only.
            httponly: Hidden from scripts.
            samesite: `"lax"`, `"strict"`, `"none"`, or None for the browser's default.
            partitioned: Kept apart for each top-level site.
            priority: `"low"`, `"medium"` or `"high"`.

        Raises:
            ValueError: The name or an attribute is malformed, or browsers would drop such a cookie.
        """
        cookie = format_set_cookie(
            name,
            value,
            max_age=max_age,
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
            partitioned=partitioned,
            priority=priority,
        )
        self.headers.add("set-cookie", cookie)

    def delete_cookie(
        self,
        name: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: SameSite | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Tell the browser to drop a cookie; path, domain and partitioned must be those it was set with.

        Args:
            name: The cookie's name; one with the prefix `__Host-` or `__Secure-` is sent with `Secure` in any case.
            path: Its path.
            domain: Its domain.
            secure: Whether it was set so.
            httponly: Whether it was set so.
            samesite: As it was set.
            partitioned: Whether it was set so.
        """
        secure = secure or name.lower().startswith(("__host-", "__secure-"))
        self.set_cookie(
            name, "", 0, 0, path, domain, secure=secure, httponly=httponly, samesite=samesite, partitioned=partitioned
        )

    def with_etag(self, etag: str | None = None, weak: bool = False) -> Self:
        """Set an `ETag`, so that `conditional` can answer 304 later; return the response itself.

        Args:
            etag: The opaque tag without quotes; by default a digest of the body.
            weak: Whether two bodies of the same tag may differ in bytes (RFC 9110 section 8.8.1).

        Raises:
            ValueError: The tag holds a double quote or a control character, or a stream was given no tag.
        """
        from armature.http.conditional import format_etag

        if etag is None:
            if self.stream is not None:
                raise ValueError("a streamed body has no digest; give with_etag the tag")
            from hashlib import blake2b

            etag = blake2b(self.body, digest_size=16).hexdigest()
        self.headers["etag"] = format_etag(etag, weak)
        return self

    def conditional(self, request: HttpRequest) -> HttpResponse:
        """Return 304 or 412 in place of this response if the request's preconditions say so, else the response itself.

        Args:
            request: The request that this response answers; only `ETag` and `Last-Modified` set here are compared.
        """
        from armature.http.conditional import conditional

        return conditional(request, self)

    # ---- constructors: success

    @classmethod
    def _of(cls, body: Any, status: int, headers: HeadersInput | None, content_type: str | None = None) -> Self:
        if body is None:
            return cls(b"", status, headers, content_type)
        if isinstance(body, (str, bytes, bytearray, memoryview)):
            if content_type is None and not isinstance(body, str):
                content_type = "application/octet-stream"
            return cls(body, status, headers, content_type)
        return cls(dumps(body), status, headers, "application/json" if content_type is None else content_type)

    @classmethod
    def ok(
        cls, body: Any = None, status: int = 200, headers: HeadersInput | None = None, content_type: str | None = None
    ) -> Self:
        """Answer 200 with nothing, with text (`str`), with `bytes`, or with anything else as JSON.

        Args:
            body: The body.
            status: The status code.
            headers: Field lines to add.
            content_type: The media type, if it is not the body's usual one.
        """
        return cls._of(body, status, headers, content_type)

    @classmethod
    def created(
        cls, body: Any = None, location: str | None = None, headers: HeadersInput | None = None, status: int = 201
    ) -> Self:
        """Answer 201: something was created (RFC 9110 section 15.3.2).

        Args:
            body: Nothing, text, bytes, or anything else as JSON.
            location: The URL of what was created.
            headers: Field lines to add.
            status: The status code.
        """
        response = cls._of(body, status, headers)
        if location is not None:
            response.headers["location"] = quote_url(str(location))
        return response

    @classmethod
    def accepted(cls, body: Any = None, headers: HeadersInput | None = None, status: int = 202) -> Self:
        """Answer 202: the work will be done later; the body is nothing, text, bytes, or anything else as JSON."""
        return cls._of(body, status, headers)

    @classmethod
    def no_content(cls, headers: HeadersInput | None = None, status: int = 204) -> Self:
        """Answer 204, without a body."""
        return cls(b"", status, headers)

    @classmethod
    def empty(cls, status: int = 200, headers: HeadersInput | None = None) -> Self:
        """Answer without a body, 200 by default."""
        return cls(b"", status, headers)

    @classmethod
    def html(cls, body: str | bytes, status: int = 200, headers: HeadersInput | None = None) -> Self:
        """Answer with HTML, UTF-8."""
        return cls(body, status, headers, "text/html; charset=utf-8")

    @classmethod
    def redirect(cls, url: Any, status: int = 307, headers: HeadersInput | None = None) -> Self:
        """Send the client to another URL.

        Args:
            url: A `str` or a `URL`, absolute or relative; what may not stand in a URL is percent-encoded.
            status: 307 keeps the method; 301, 302, 303 and 308 have their meaning.
            headers: Field lines to add.

        Raises:
            ValueError: The status is no redirection, or the URL holds a control character.
        """
        if not 300 <= status <= 399 or status == 304:
            raise ValueError(f"a redirect needs a status of 301, 302, 303, 307 or 308, not {status}")
        response = cls(b"", status, headers)
        response.headers["location"] = quote_url(str(url))
        return response

    # ---- constructors: errors

    @classmethod
    def problem(
        cls,
        status: int = 500,
        title: str | None = None,
        detail: Any = None,
        type: str | None = None,
        instance: str | None = None,
        headers: HeadersInput | None = None,
        **extensions: Any,
    ) -> Self:
        """Answer with problem details (RFC 9457), `application/problem+json`.

        Args:
            status: The status code.
            title: A summary of the kind of problem; the reason phrase of the status by default.
            detail: What is wrong this time.
            type: A URI that identifies the kind of problem.
            instance: A URI that identifies this occurrence.
            headers: Field lines to add.
            extensions: Further members of the object.
        """
        members = problem_details(status, title, detail, type, instance, **extensions)
        return cls(dumps(members), status, headers, PROBLEM_JSON)

    @classmethod
    def error(cls, status: int, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer with an error status.

        Args:
            status: The status code.
            body: Nothing or a `str` becomes problem details, the `str` as their detail; anything else is sent as JSON.
            headers: Field lines to add.
        """
        if body is None or isinstance(body, str):
            return cls.problem(status, detail=body, headers=headers)
        return cls._of(body, status, headers)

    @classmethod
    def bad_request(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 400: the request is malformed; a `str` becomes the detail of a problem."""
        return cls.error(400, body, headers)

    @classmethod
    def unauthorized(cls, body: Any = None, headers: HeadersInput | None = None, challenge: str | None = None) -> Self:
        """Answer 401: credentials are needed or were wrong.

        Args:
            body: A `str` becomes the detail of a problem.
            headers: Field lines to add.
            challenge: The value of `WWW-Authenticate`, such as `Bearer`, which a 401 should carry.
        """
        response = cls.error(401, body, headers)
        if challenge is not None:
            response.headers["www-authenticate"] = challenge
        return response

    @classmethod
    def forbidden(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 403: these credentials do not suffice; a `str` becomes the detail of a problem."""
        return cls.error(403, body, headers)

    @classmethod
    def not_found(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 404: there is no such thing; a `str` becomes the detail of a problem."""
        return cls.error(404, body, headers)

    @classmethod
    def method_not_allowed(
        cls, allowed: Iterable[str] = (), body: Any = None, headers: HeadersInput | None = None
    ) -> Self:
        """Answer 405 with `Allow` (RFC 9110 section 15.5.6); a `str` body becomes the detail of a problem."""
        response = cls.error(405, body, headers)
        response.headers["allow"] = ", ".join(allowed)
        return response

    @classmethod
    def conflict(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 409: the request does not fit the state of the resource; a `str` becomes the detail of a problem."""
        return cls.error(409, body, headers)

    @classmethod
    def gone(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 410: it was here and will not come back; a `str` becomes the detail of a problem."""
        return cls.error(410, body, headers)

    @classmethod
    def unprocessable(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 422: well-formed, but not to be accepted; a `str` becomes the detail of a problem."""
        return cls.error(422, body, headers)

    @classmethod
    def too_many_requests(
        cls, body: Any = None, headers: HeadersInput | None = None, retry_after: int | None = None
    ) -> Self:
        """Answer 429, with `Retry-After` in seconds if it is given; a `str` body becomes the detail of a problem."""
        response = cls.error(429, body, headers)
        if retry_after is not None:
            response.headers["retry-after"] = str(int(retry_after))
        return response

    @classmethod
    def server_error(cls, body: Any = None, headers: HeadersInput | None = None) -> Self:
        """Answer 500; a `str` becomes the detail of a problem."""
        return cls.error(500, body, headers)

    @classmethod
    def unavailable(cls, body: Any = None, headers: HeadersInput | None = None, retry_after: int | None = None) -> Self:
        """Answer 503, with `Retry-After` in seconds if it is given; a `str` body becomes the detail of a problem."""
        response = cls.error(503, body, headers)
        if retry_after is not None:
            response.headers["retry-after"] = str(int(retry_after))
        return response

    # ---- constructors: streams and files

    @classmethod
    def ndjson(
        cls, items: AsyncIterable[Any] | Iterable[Any], status: int = 200, headers: HeadersInput | None = None
    ) -> HttpResponse:
        """Answer with one JSON document a line, as the iterator yields them.

        Args:
            items: A synchronous or asynchronous iterator; it is closed when the client goes away.
            status: The status code.
            headers: Field lines to add.
        """
        return cls.stream(mapped(_line, items), status, headers, "application/x-ndjson")

    @classmethod
    def sse(
        cls,
        events: AsyncIterable[EventInput] | Iterable[EventInput],
        status: int = 200,
        headers: HeadersInput | None = None,
    ) -> HttpResponse:
        """Answer with a stream of server-sent events, as the iterator yields them.

        Args:
            events: Each a `str`, a mapping or a `ServerSentEvent`; the iterator is closed when the client goes away.
            status: The status code.
            headers: Field lines to add.
        """
        from armature.http.sse import encode_event

        response = cls.stream(mapped(encode_event, events), status, headers, "text/event-stream; charset=utf-8")
        response.headers.setdefault("cache-control", "no-cache")
        # nginx would hold events back until its buffer is full.
        response.headers.setdefault("x-accel-buffering", "no")
        return response

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        *,
        filename: str | None = None,
        content_type: str | None = None,
        status: int = 200,
        headers: HeadersInput | None = None,
        attachment: bool | None = None,
        chunk_size: int | None = None,
    ) -> FileResponse:
        """Answer with a file: conditional requests and ranges are answered, the bytes go out by `sendfile` if possible.

        Args:
            path: The file; it is looked at when the response is sent, and 404 is answered if it is not there.
            filename: The name under which a browser saves it; sends `Content-Disposition`.
            content_type: The media type; guessed from the name by default.
            status: The status code.
            headers: Field lines to add.
            attachment: Whether a browser saves it rather than showing it; True by default if `filename` is given.
            chunk_size: Bytes of one read where `sendfile` is not possible.
        """
        from armature.http.files import FileResponse

        return FileResponse(
            path,
            status,
            headers,
            content_type=content_type,
            filename=filename,
            attachment=attachment,
            chunk_size=chunk_size,
        )

    def __repr__(self) -> str:
        body = f"{len(self.body)} bytes" if self.stream is None else "stream"
        return f"<{type(self).__name__} {self.status} {self.content_type or 'no content type'}, {body}>"


def _line(item: Any) -> bytes:
    return dumps(item) + b"\n"
