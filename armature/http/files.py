"""Files as responses: conditional requests, ranges, and bodies that a server can hand to `sendfile`."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from binascii import hexlify
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from armature._spec.dates import format_http_date, parse_http_date
from armature.exceptions import HTTPException
from armature.http.conditional import evaluate, matches_if_range, not_modified
from armature.http.file_cache import FileVersion, OpenFile, open_version
from armature.http.headers import HeadersInput
from armature.http.media_types import guess_media_type
from armature.http.ranges import content_range, parse_range
from armature.http.response import HttpResponse

if TYPE_CHECKING:
    from armature.http.request import HttpRequest

__all__ = [
    "CHUNK_SIZE",
    "FileBody",
    "FileResponse",
    "MultipartFileBody",
    "answer_file",
    "content_disposition",
    "refusal_of",
]

#: Bytes of one read where `sendfile` is not possible.
CHUNK_SIZE = 128 * 1024

# To open a file may wait for a disk or a network, so that a thread does it. But what has just been opened is in the
# kernel's memory, and opening it again costs the loop less than the way to a thread and back: for so many seconds.
_RECENT = 10.0

# A file that took the loop longer than so many seconds all the same is left to threads for the time being.
_SLOW = 0.05
_WARY = 10.0

#: Path -> until when it is opened on the loop, or, negative, until when it is not.
_known: dict[str, float] = {}
_KNOWN_LIMIT = 1024

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def content_disposition(filename: str, attachment: bool = True) -> str:
    """Spell a `Content-Disposition` (RFC 6266), with an ASCII name for old clients and the full one beside it.

    Args:
        filename: The name under which a browser saves the body.
        attachment: Whether it saves it rather than showing it.

    Raises:
        ValueError: The name holds a control character.
    """
    kind = "attachment" if attachment else "inline"
    if _CONTROLS.search(filename):
        raise ValueError(f"invalid filename {filename!r}: it holds a control character")
    ascii_name = filename.encode("ascii", "replace").decode("ascii").replace("?", "_")
    quoted = ascii_name.replace("\\", "\\\\").replace('"', '\\"')
    # Clients decode %41 in a quoted name, although they should not (RFC 6266 appendix D).
    if ascii_name == filename and "%" not in filename:
        return f'{kind}; filename="{quoted}"'
    extended = quote(filename.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
    return f"{kind}; filename=\"{quoted.replace('%', '_')}\"; filename*=UTF-8''{extended}"


class _Body:
    """Parts of an open file, and what stands between them, on their way out."""

    __slots__ = ("_file", "_parts", "_started", "chunk_size")

    def __init__(self, fd: int | OpenFile, parts: list[bytes | tuple[int, int]], chunk_size: int) -> None:
        self._file: OpenFile | None = OpenFile(fd) if isinstance(fd, int) else fd
        self._parts = parts
        self._started = False
        self.chunk_size = chunk_size

    @property
    def file(self) -> OpenFile:
        """The open file.

        Raises:
            ValueError: The body is closed.
        """
        if self._file is None:
            raise ValueError("the file is closed")
        return self._file

    def fileno(self) -> int:
        """The file descriptor.

        Raises:
            ValueError: The body is closed.
        """
        return self.file.fileno()

    def close(self) -> None:
        """Let go of the file; a read that is under way in a thread ends first."""
        file, self._file = self._file, None
        if file is not None:
            file.release()

    async def aclose(self) -> None:
        """Let go of the file."""
        self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._started:
            raise RuntimeError("the file has been sent already")
        self._started = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        file = self.file
        try:
            for part in self._parts:
                if isinstance(part, bytes):
                    yield part
                    continue
                offset, stop = part
                while offset < stop:
                    chunk = await loop.run_in_executor(None, file.read, min(self.chunk_size, stop - offset), offset)
                    if not chunk:
                        # The length has been promised already: only breaking off tells the client what is missing.
                        raise OSError("the file became shorter while it was sent")
                    offset += len(chunk)
                    yield chunk
        finally:
            self.close()


class FileBody(_Body):
    """The bytes of one part of an open file, as a response's `stream`.

    A server that can use `sendfile` takes `fileno()`, `offset` and `count` and calls `close()` when it is done;
    any other one iterates, which reads in a thread and closes at the end.

    Args:
        fd: An open file descriptor, which belongs to this object from now on, or an `OpenFile` that it is a user of.
        offset: Where to begin.
        count: How many bytes to send.
        chunk_size: Bytes of one read.
    """

    __slots__ = ("count", "offset")

    def __init__(self, fd: int | OpenFile, offset: int, count: int, chunk_size: int = CHUNK_SIZE) -> None:
        super().__init__(fd, [(offset, offset + count)], chunk_size)
        self.offset = offset
        self.count = count


class MultipartFileBody(_Body):
    """Several parts of an open file as `multipart/byteranges`, as a response's `stream` (RFC 9110 section 14.6).

    Args:
        fd: As for `FileBody`.
        ranges: First position and the position after the last one, of each part.
        size: The length of the whole file.
        content_type: The media type of the file.
        boundary: What separates the parts.
        chunk_size: Bytes of one read.
    """

    __slots__ = ("length",)

    def __init__(
        self,
        fd: int | OpenFile,
        ranges: list[tuple[int, int]],
        size: int,
        content_type: str | None,
        boundary: str,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        parts: list[bytes | tuple[int, int]] = []
        for part in ranges:
            parts += (_part_head(part, size, content_type, boundary), part, b"\r\n")
        parts.append(_end(boundary))
        super().__init__(fd, parts, chunk_size)
        #: The length of the whole body in bytes.
        self.length = sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in parts)


def _part_head(part: tuple[int, int], size: int, content_type: str | None, boundary: str) -> bytes:
    type_line = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    return f"--{boundary}\r\n{type_line}Content-Range: {content_range(*part, size)}\r\n\r\n".encode("latin-1")


def _end(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode("ascii")


def _open(path: str) -> FileVersion:
    """Open a file on the loop, and note whether it was quick."""
    start = time.monotonic()
    try:
        return open_version(path)
    finally:
        now = time.monotonic()
        if now - start > _SLOW:
            _known[path] = -(now + _WARY)


def _open_in_thread(path: str) -> FileVersion:
    version = open_version(path)
    if _known.get(path, 0.0) >= -time.monotonic():
        if len(_known) >= _KNOWN_LIMIT:
            _known.clear()
        _known[path] = time.monotonic() + _RECENT
    return version


def answer_file(request: HttpRequest, response: HttpResponse, version: FileVersion, chunk_size: int) -> HttpResponse:
    """Answer a request with a file: whole, in parts, or by what its preconditions say.

    Args:
        request: The request.
        response: Status and fields, with `ETag` and `Last-Modified`, and nothing else yet; it is filled in, unless
            another one takes its place. Conditions and ranges count for 200 alone.
        version: The file; its caller remains the user of it that it is.
        chunk_size: Bytes of one read where `sendfile` is not possible.

    Returns:
        A response with status 200, 206, 304, 412 or 416, or the status given.
    """
    header = request.header
    if response.status == 200 and (
        header(b"range") is not None
        or header(b"if-none-match") is not None
        or header(b"if-modified-since") is not None
        or header(b"if-match") is not None
        or header(b"if-unmodified-since") is not None
    ):
        answer = _conditional(request, response, version, chunk_size)
        if answer is not None:
            return answer
    _fill(response, version, 0, version.size, chunk_size, silent=request.method == "HEAD")
    return response


def _conditional(
    request: HttpRequest, response: HttpResponse, version: FileVersion, chunk_size: int
) -> HttpResponse | None:
    """Answer by preconditions and ranges; None if all of the file is to be sent."""
    fields, headers, method = response.headers, request.headers, request.method
    etag, modified = fields.get("etag"), parse_http_date(fields["last-modified"])
    verdict = evaluate(method, headers, etag, modified)
    if verdict == 304:
        return not_modified(response)
    if verdict == 412:
        return HttpResponse.problem(412)
    # Other methods than GET have no ranges, HEAD included (RFC 9110 section 14.2).
    ranges = headers.getall("range") if method == "GET" else []
    if len(ranges) == 1 and matches_if_range(headers, etag, modified):
        parts = parse_range(ranges[0], version.size)
        if parts is not None:
            return _partial(response, version, parts, chunk_size)
    return None


def _fill(
    response: HttpResponse, version: FileVersion, start: int, stop: int, chunk_size: int, silent: bool = False
) -> None:
    content = version.content
    if content is not None:
        response.body = content if stop - start == len(content) else content[start:stop]
        return
    response.fields().append((b"content-length", b"%d" % (stop - start)))
    if silent:
        response.stream = ()
    else:
        assert version.file is not None
        response.stream = FileBody(version.file.acquire(), start, stop - start, chunk_size)


def _partial(
    response: HttpResponse, version: FileVersion, parts: list[tuple[int, int]], chunk_size: int
) -> HttpResponse:
    if not parts:
        refusal = HttpResponse.problem(416)
        refusal.headers["content-range"] = f"bytes */{version.size}"
        refusal.headers["accept-ranges"] = "bytes"
        return refusal
    response.status = 206
    headers = response.headers
    if len(parts) == 1:
        headers["content-range"] = content_range(*parts[0], version.size)
        _fill(response, version, *parts[0], chunk_size)
        return response
    boundary = hexlify(os.urandom(16)).decode("ascii")
    content_type = response.content_type
    headers["content-type"] = f"multipart/byteranges; boundary={boundary}"
    if version.content is not None:
        response.body = _joined(version.content, parts, content_type, boundary)
    else:
        assert version.file is not None
        body = MultipartFileBody(version.file.acquire(), parts, version.size, content_type, boundary, chunk_size)
        headers["content-length"] = str(body.length)
        response.stream = body
    return response


def _joined(content: bytes, parts: list[tuple[int, int]], content_type: str | None, boundary: str) -> bytes:
    pieces: list[bytes] = []
    for part in parts:
        pieces += (_part_head(part, len(content), content_type, boundary), content[slice(*part)], b"\r\n")
    pieces.append(_end(boundary))
    return b"".join(pieces)


class FileResponse(HttpResponse):
    """A file to be sent; it is opened when the connection calls `prepare`.

    Args:
        path: The file.
        status: The status code; ranges and preconditions count for 200 alone.
        headers: Field lines to send; `ETag`, `Last-Modified` and the like given here are not replaced.
        content_type: The media type; guessed from the name by default.
        filename: The name under which a browser saves it.
        attachment: Whether a browser saves it rather than showing it; True by default if `filename` is given.
        chunk_size: Bytes of one read where `sendfile` is not possible.

    Raises:
        ValueError: The path holds NUL, the file name a control character, or a header is malformed.
    """

    __slots__ = ("chunk_size", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        status: int = 200,
        headers: HeadersInput | None = None,
        content_type: str | None = None,
        filename: str | None = None,
        attachment: bool | None = None,
        chunk_size: int | None = None,
    ) -> None:
        name = os.fspath(path)
        if "\0" in name:
            raise ValueError("the path of a file must not hold NUL")
        # A type among the headers comes before the one that the name suggests.
        guessed = guess_media_type(name if filename is None else filename) if content_type is None else None
        super().__init__(b"", status, headers, guessed)
        self.path = name
        self.chunk_size = CHUNK_SIZE if chunk_size is None else chunk_size
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be positive, not {self.chunk_size}")
        if content_type is not None:
            self.headers["content-type"] = content_type
        if filename is not None or attachment:
            base = os.path.basename(name) if filename is None else filename
            self.headers["content-disposition"] = content_disposition(base, attachment is not False)
        # A stream, though an empty one: the connection must not answer before it called `prepare`.
        self.stream = ()

    async def prepare(self, request: HttpRequest) -> HttpResponse:
        """Open the file and answer the request's preconditions and ranges.

        Args:
            request: The request that is answered.

        Returns:
            A response with status 200, 206, 304, 412 or 416, or the status given.

        Raises:
            HTTPException: There is no such file, or it is no regular file (404), or it may not be read (403).
        """
        path = self.path
        try:
            if _known.get(path, 0.0) > time.monotonic():
                version = _open(path)
            else:
                version = await asyncio.get_running_loop().run_in_executor(None, _open_in_thread, path)
        except OSError as error:
            raise refusal_of(error) from None
        try:
            answer = HttpResponse(b"", self.status)
            fields = answer.fields()
            fields.extend(self.fields())
            given = {name for name, _ in fields}
            if b"etag" not in given:
                fields.append((b"etag", version.etag.encode("ascii")))
            if b"last-modified" not in given:
                fields.append((b"last-modified", format_http_date(version.mtime).encode("ascii")))
            if self.status == 200 and b"accept-ranges" not in given:
                fields.append((b"accept-ranges", b"bytes"))
            return answer_file(request, answer, version, self.chunk_size)
        finally:
            version.close()


def refusal_of(error: OSError) -> Exception:
    """Return what to raise for a file that cannot be opened: 403, 404, or the error itself.

    Args:
        error: What opening raised.
    """
    if isinstance(error, PermissionError):
        return HTTPException(403)
    # A name that no file system takes names no file; anything else is a fault of the server.
    if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)) or error.errno in (
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
    ):
        return HTTPException(404)
    return error
