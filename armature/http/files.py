"""Files as responses: conditional requests, ranges, and bodies that a server can hand to `sendfile`."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from binascii import hexlify
from collections.abc import AsyncIterator
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import quote

from armature._spec.dates import format_http_date, parse_http_date
from armature._spec.limits import SMALL_FILE_LIMIT
from armature.exceptions import HTTPException
from armature.http.conditional import evaluate, matches_if_range, not_modified
from armature.http.headers import HeadersInput
from armature.http.media_types import guess_media_type
from armature.http.ranges import content_range, parse_range
from armature.http.response import HttpResponse

if TYPE_CHECKING:
    from armature.http.request import HttpRequest

__all__ = ["CHUNK_SIZE", "FileBody", "FileResponse", "MultipartFileBody", "content_disposition"]

#: Bytes of one read where `sendfile` is not possible.
CHUNK_SIZE = 128 * 1024

# Files up to this size are read with the same hop to a thread that opens them, and sent with their head.
_INLINE_LIMIT = SMALL_FILE_LIMIT

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


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


class _File:
    """An open file that may be closed while a thread is still reading from it."""

    __slots__ = ("_closing", "_fd", "_lock")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._closing = False
        self._lock = Lock()

    def fileno(self) -> int:
        if self._fd < 0:
            raise ValueError("the file is closed")
        return self._fd

    def read(self, count: int, offset: int) -> bytes:
        with self._lock:
            fd = self.fileno()
            if hasattr(os, "pread"):
                data = os.pread(fd, count, offset)
            else:
                os.lseek(fd, offset, os.SEEK_SET)
                data = os.read(fd, count)
        if self._closing:
            self.close()
        return data

    def close(self) -> None:
        # A descriptor closed under a running read could be another file by the time the kernel looks at it, so the
        # last one out closes: this call if nobody reads, the reader otherwise.
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)
            finally:
                self._lock.release()

    def __del__(self) -> None:
        self.close()


class FileBody:
    """The bytes of one part of an open file, as a response's `stream`.

    A server that can use `sendfile` takes `fileno()`, `offset` and `count` and calls `close()` when it is done;
    any other one iterates, which reads in a thread and closes at the end.

    Args:
        fd: An open file descriptor; it belongs to this object from now on.
        offset: Where to begin.
        count: How many bytes to send.
        chunk_size: Bytes of one read.
    """

    __slots__ = ("_file", "_started", "chunk_size", "count", "offset")

    def __init__(self, fd: int, offset: int, count: int, chunk_size: int = CHUNK_SIZE) -> None:
        self._file = _File(fd)
        self._started = False
        self.offset = offset
        self.count = count
        self.chunk_size = chunk_size

    def fileno(self) -> int:
        """The file descriptor.

        Raises:
            ValueError: It is closed.
        """
        return self._file.fileno()

    def close(self) -> None:
        """Close the file; a read that is under way in a thread ends first."""
        self._file.close()

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._started:
            raise RuntimeError("the file has been sent already")
        self._started = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in _read(self._file, self.offset, self.count, self.chunk_size):
                yield chunk
        finally:
            self._file.close()


class MultipartFileBody:
    """Several parts of an open file as `multipart/byteranges`, as a response's `stream` (RFC 9110 section 14.6).

    Args:
        fd: An open file descriptor; it belongs to this object from now on.
        ranges: First position and the position after the last one, of each part.
        size: The length of the whole file.
        content_type: The media type of the file.
        boundary: What separates the parts.
        chunk_size: Bytes of one read.
    """

    __slots__ = ("_end", "_file", "_heads", "_ranges", "_started", "chunk_size", "length")

    def __init__(
        self,
        fd: int,
        ranges: list[tuple[int, int]],
        size: int,
        content_type: str | None,
        boundary: str,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        self._file = _File(fd)
        self._ranges = ranges
        self._started = False
        self.chunk_size = chunk_size
        type_line = "" if content_type is None else f"Content-Type: {content_type}\r\n"
        self._heads = [
            f"--{boundary}\r\n{type_line}Content-Range: {content_range(start, stop, size)}\r\n\r\n".encode("latin-1")
            for start, stop in ranges
        ]
        self._end = f"--{boundary}--\r\n".encode("ascii")
        #: The length of the whole body in bytes.
        self.length = sum(
            len(head) + stop - start + 2 for head, (start, stop) in zip(self._heads, ranges, strict=True)
        ) + len(self._end)

    def close(self) -> None:
        """Close the file; a read that is under way in a thread ends first."""
        self._file.close()

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._started:
            raise RuntimeError("the file has been sent already")
        self._started = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[bytes]:
        try:
            for head, (start, stop) in zip(self._heads, self._ranges, strict=True):
                yield head
                async for chunk in _read(self._file, start, stop - start, self.chunk_size):
                    yield chunk
                yield b"\r\n"
            yield self._end
        finally:
            self._file.close()


async def _read(file: _File, offset: int, count: int, chunk_size: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while count > 0:
        chunk = await loop.run_in_executor(None, file.read, min(chunk_size, count), offset)
        if not chunk:
            # The length has been promised already: only breaking off tells the client that bytes are missing.
            raise OSError("the file became shorter while it was sent")
        offset += len(chunk)
        count -= len(chunk)
        yield chunk


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"'


def _open(path: str) -> tuple[int, os.stat_result, bytes | None]:
    """Open a regular file; a small one is read at once and comes with descriptor -1."""
    # Looking before opening: to open a device or a pipe may do something.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise IsADirectoryError(path)
    fd = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise IsADirectoryError(path)
        if status.st_size <= _INLINE_LIMIT:
            content = b""
            while len(content) < status.st_size:
                piece = os.read(fd, status.st_size - len(content))
                if not piece:
                    raise OSError("the file became shorter while it was read")
                content += piece
            os.close(fd)
            return -1, status, content
    except BaseException:
        os.close(fd)
        raise
    return fd, status, None


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
        super().__init__(b"", status, headers, None)
        self.path = name
        self.chunk_size = CHUNK_SIZE if chunk_size is None else chunk_size
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be positive, not {self.chunk_size}")
        own = self.headers
        if content_type is not None:
            own["content-type"] = content_type
        elif "content-type" not in own:
            own["content-type"] = guess_media_type(name if filename is None else filename)
        if filename is not None or attachment:
            base = os.path.basename(name) if filename is None else filename
            own["content-disposition"] = content_disposition(base, attachment is not False)
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
        try:
            fd, status, content = await asyncio.get_running_loop().run_in_executor(None, _open, self.path)
        except PermissionError:
            raise HTTPException(403) from None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise HTTPException(404) from None
        except OSError as error:
            import errno

            # A name that no file system takes names no file; anything else is a fault of the server.
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
                raise HTTPException(404) from None
            raise
        file = None if content is not None else fd
        try:
            answer = self._answer(request, status, file, content)
        except BaseException:
            if file is not None:
                os.close(file)
            raise
        if file is not None and not isinstance(answer.stream, (FileBody, MultipartFileBody)):
            os.close(file)
        return answer

    def _answer(
        self, request: HttpRequest, status: os.stat_result, fd: int | None, content: bytes | None
    ) -> HttpResponse:
        own = self.headers
        if "etag" not in own:
            own["etag"] = _etag(status)
        if "last-modified" not in own:
            own["last-modified"] = format_http_date(status.st_mtime)
        size = status.st_size
        method = request.method
        if self.status == 200:
            own["accept-ranges"] = "bytes"
            headers = request.headers
            etag, modified = own.get("etag"), parse_http_date(own["last-modified"])
            verdict = evaluate(method, headers, etag, modified)
            if verdict == 304:
                return not_modified(self)
            if verdict == 412:
                return HttpResponse.problem(412)
            # Other methods than GET have no ranges, HEAD included (RFC 9110 section 14.2).
            ranges = headers.getall("range") if method == "GET" else []
            if len(ranges) == 1 and matches_if_range(headers, etag, modified):
                parts = parse_range(ranges[0], size)
                if parts is not None:
                    return self._partial(parts, size, fd, content)
        answer = self._like(self.status)
        self._fill(answer, method, 0, size, fd, content)
        return answer

    def _like(self, status: int) -> HttpResponse:
        answer = HttpResponse(b"", status)
        answer.fields().extend(self.fields())
        return answer

    def _fill(
        self, answer: HttpResponse, method: str, start: int, stop: int, fd: int | None, content: bytes | None
    ) -> None:
        if content is not None:
            answer.body = content[start:stop]
        elif method == "HEAD":
            answer.headers["content-length"] = str(stop - start)
            answer.stream = ()
        else:
            assert fd is not None
            answer.headers["content-length"] = str(stop - start)
            answer.stream = FileBody(fd, start, stop - start, self.chunk_size)

    def _partial(self, parts: list[tuple[int, int]], size: int, fd: int | None, content: bytes | None) -> HttpResponse:
        if not parts:
            refusal = HttpResponse.problem(416)
            refusal.headers["content-range"] = f"bytes */{size}"
            refusal.headers["accept-ranges"] = "bytes"
            return refusal
        answer = self._like(206)
        if len(parts) == 1:
            start, stop = parts[0]
            answer.headers["content-range"] = content_range(start, stop, size)
            self._fill(answer, "GET", start, stop, fd, content)
            return answer
        boundary = hexlify(os.urandom(16)).decode("ascii")
        content_type = self.content_type
        answer.headers["content-type"] = f"multipart/byteranges; boundary={boundary}"
        if content is not None:
            answer.body = _joined(content, parts, content_type, boundary)
        else:
            assert fd is not None
            body = MultipartFileBody(fd, parts, size, content_type, boundary, self.chunk_size)
            answer.headers["content-length"] = str(body.length)
            answer.stream = body
        return answer


def _joined(content: bytes, parts: list[tuple[int, int]], content_type: str | None, boundary: str) -> bytes:
    pieces: list[bytes] = []
    type_line = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    for start, stop in parts:
        head = f"--{boundary}\r\n{type_line}Content-Range: {content_range(start, stop, len(content))}\r\n\r\n"
        pieces += (head.encode("latin-1"), content[start:stop], b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(pieces)
