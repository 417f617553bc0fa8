"""A directory of files behind a path: the endpoint that `app.mount("/static", StaticFiles("static"))` serves."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, TypeAlias

from armature._impl import message
from armature._spec.dates import format_http_date
from armature.exceptions import ConfigurationError, HTTPException
from armature.http.file_cache import FileCache, FileVersion, Signature, open_version, signature_of
from armature.http.files import CHUNK_SIZE, answer_file, refusal_of
from armature.http.media_types import guess_media_type
from armature.http.negotiation import accepts_encoding
from armature.http.response import HttpResponse
from armature.http.url import quote_url

if TYPE_CHECKING:
    from armature.http.request import HttpRequest

__all__ = ["StaticFiles"]

#: Suffixes of precompressed siblings and their content codings, the preferred one first.
_CODINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

#: Seconds that looking at a name again may take.
_GRACE = 0.1

_REQUESTS = frozenset({"GET", "HEAD"})

#: A file, and the signatures of it and of the siblings that may go out in its place, by coding.
_Place: TypeAlias = tuple[str, dict[str, Signature]]
#: Stands for a directory that was asked for without the slash.
_NEEDS_SLASH: _Place = ("", {})


class _Representation:
    """A file, or its precompressed sibling, ready to be sent."""

    __slots__ = ("fields", "status", "version")

    def __init__(self, version: FileVersion, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.version = version
        self.status = status
        self.fields = fields

    def answer(self, request: HttpRequest) -> HttpResponse:
        response = HttpResponse(b"", self.status)
        response.fields().extend(self.fields)
        return answer_file(request, response, self.version, CHUNK_SIZE)


class _Entry:
    """What is known of one path: which files stand for it, and those of them that were asked for; a user of these."""

    __slots__ = ("codings", "expires", "found", "placed", "ready", "used")

    def __init__(self, found: dict[str, Signature], ready: dict[str, _Representation], expires: float) -> None:
        self.found = found
        self.codings = tuple(coding for coding in found if coding != "identity")
        self.ready = ready
        self.expires = expires
        self.used = self.placed = time.monotonic()

    @property
    def memory(self) -> int:
        return sum(len(one.version.content or b"") for one in self.ready.values())

    @property
    def descriptors(self) -> int:
        return sum(one.version.file is not None for one in self.ready.values())

    def close(self) -> None:
        for one in self.ready.values():
            one.version.close()


class StaticFiles:
    """Serves the files of a directory, with conditional requests, ranges and precompressed siblings.

    The path below the mount comes as the path parameter `path`. What leads out of the directory, by `..`, by a
    backslash, by NUL or by a symbolic link, is answered 404, as is every name that begins with a dot.

    A file that was served a moment ago is served again without asking the operating system about its name; `cache` says
    for how long, and how much is kept.

    Args:
        directory: The directory.
        html: Whether a directory is answered with its `index.html`, and a missing file with `404.html`, if there are.
        follow_symlinks: Whether symbolic links may lead out of the directory.
        dotfiles: Whether names that begin with a dot are served.
        precompressed: Whether `app.js.br`, `app.js.zst` or `app.js.gz` goes out for `app.js` where it is accepted.
        cache_control: The value of `Cache-Control`, such as `"public, max-age=3600"`.
        check_directory: Whether a directory that does not exist is an error now; False lets it appear later.
        max_age: Seconds for which a client may use its copy without asking: `Cache-Control: max-age=...`.
        immutable: Whether it need not ask even when it reloads the page, since a new version has a new name; goes with
            `max_age`.
        cache: Keeps open files and the content of small ones; several directories may share one. Default: one of its
            own, `FileCache()`.

    Raises:
        ConfigurationError: The directory does not exist, or two options contradict each other.
    """

    __slots__ = (
        "_root",
        "cache",
        "cache_control",
        "directory",
        "dotfiles",
        "follow_symlinks",
        "html",
        "precompressed",
    )

    def __init__(
        self,
        directory: str | os.PathLike[str],
        html: bool = False,
        *,
        follow_symlinks: bool = False,
        dotfiles: bool = False,
        precompressed: bool = True,
        cache_control: str | None = None,
        check_directory: bool = True,
        max_age: int | None = None,
        immutable: bool = False,
        cache: FileCache | None = None,
    ) -> None:
        self.directory = os.fspath(directory)
        if check_directory and not os.path.isdir(self.directory):
            raise ConfigurationError(f"the directory of StaticFiles does not exist: {os.path.abspath(self.directory)}")
        # Absolute now: a later chdir must not serve another directory.
        self._root = os.path.abspath(self.directory)
        self.html = html
        self.follow_symlinks = follow_symlinks
        self.dotfiles = dotfiles
        self.precompressed = precompressed
        self.cache_control = _cache_control(cache_control, max_age, immutable)
        self.cache = FileCache() if cache is None else cache

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request for the file that the path parameter `path` names.

        Args:
            request: The request.

        Raises:
            HTTPException: There is no such file (404), it may not be read (403), or the method is another than GET
                and HEAD (405).
        """
        if request.method not in _REQUESTS:
            raise HTTPException(405, headers={"allow": "GET, HEAD"})
        path = request.param("path")
        entry: _Entry | None = self.cache.get((self, path))
        if entry is not None:
            now = time.monotonic()
            entry.used = now
            if now < entry.expires:
                coding = _choose(request, entry.codings) if entry.codings else "identity"
                ready = entry.ready.get(coding)
                if ready is not None and ready.version.unchanged():
                    try:
                        return ready.answer(request)
                    except ValueError:
                        # A loop in another thread has just closed the file to make room; it is opened again.
                        entry = None
            else:
                # While this request looks at the name again, others that come go on with what there is.
                entry.expires = now + min(self.cache.ttl, _GRACE)
        return await self._fetch(request, path, entry)

    async def _fetch(self, request: HttpRequest, path: str, known: _Entry | None) -> HttpResponse:
        """Answer with a file that is not ready, or that has to be looked at again."""
        segments = self._segments(path)
        if segments is None and not self.html:
            raise HTTPException(404)
        accepted = request.headers.joined("accept-encoding")
        work = asyncio.get_running_loop().run_in_executor(None, self._look_up, path, segments, accepted, known)
        kept = False
        entry = None
        try:
            entry, coding = await work
            if entry is None:
                return self._redirect(request)
            ready = entry.ready[coding]
            response = ready.answer(request)
            # The page for what is missing does not stand for this path.
            kept = ready.status == 200
            if kept:
                self.cache.put((self, path), entry)
            return response
        except OSError as error:
            raise refusal_of(error) from None
        finally:
            if not kept:
                if entry is not None:
                    entry.close()
                if known is not None:
                    self.cache.remove((self, path), known)

    def _redirect(self, request: HttpRequest) -> HttpResponse:
        # Relative links of the page need the slash. A path of two slashes at its start would name another host.
        path = "/" + request.raw_path.decode("latin-1").lstrip("/\\") + "/"
        query = request.query_string.decode("latin-1")
        return HttpResponse.redirect(quote_url(f"{path}?{query}" if query else path))

    def _segments(self, path: str) -> list[str] | None:
        """Split the path into names, or return None if it must not be looked at."""
        if "\0" in path or "\\" in path or (os.name == "nt" and ":" in path):
            return None
        segments = path.split("/")
        if segments and segments[-1] == "":
            segments.pop()
        for segment in segments:
            # Empty: two slashes in a row, or an absolute path, which would replace the directory.
            if segment in ("", ".", "..") or (segment.startswith(".") and not self.dotfiles):
                return None
            try:
                os.fsencode(segment)
            except UnicodeEncodeError:
                return None
        return segments

    # What may wait for a disk, in a thread.

    def _look_up(
        self, path: str, segments: list[str] | None, accepted: str | None, known: _Entry | None
    ) -> tuple[_Entry | None, str]:
        """Find the file of a path and open what is to be sent of it; no entry stands for a redirect.

        Raises:
            OSError: There is no such file, or it cannot be opened.
        """
        place, status = None, 200
        if segments is not None:
            place = self._find(segments, path.endswith("/"))
            if place == _NEEDS_SLASH:
                return None, ""
        if place is None and self.html:
            place, status = self._find(["404.html"], False), 404
        if place is None:
            raise FileNotFoundError(path)
        name, found = place
        ready: dict[str, _Representation] = {}
        if known is not None and known.found == found:
            ready = {
                coding: one
                for coding, one in known.ready.items()
                if one.version.settled and one.version.signature == found[coding] and one.version.acquire()
            }
        entry = _Entry(found, ready, time.monotonic() + self.cache.ttl)
        try:
            coding = _negotiate(accepted, entry.codings)
            if coding not in ready:
                ready[coding] = self._open(name, coding, status, varies=bool(entry.codings))
        except BaseException:
            entry.close()
            raise
        return entry, coding

    def _find(self, segments: list[str], slash: bool) -> _Place | None:
        """Return the file of a path, or None if there is none."""
        path = os.path.join(self._root, *segments)
        status = self._stat(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            if not self.html:
                return None
            index = os.path.join(path, "index.html")
            status = self._stat(index)
            if status is None or not stat.S_ISREG(status.st_mode):
                return None
            if segments and not slash:
                return _NEEDS_SLASH
            path, slash = index, False
        # `name.html/` is not `name.html`: relative links would mean something else.
        if status is None or slash or not stat.S_ISREG(status.st_mode):
            return None
        found = {"identity": signature_of(status)}
        if self.precompressed:
            for coding, suffix in _CODINGS.items():
                sibling = self._stat(path + suffix)
                # One that is older than its source was made from an earlier version.
                if sibling is not None and stat.S_ISREG(sibling.st_mode) and sibling.st_mtime >= status.st_mtime:
                    found[coding] = signature_of(sibling)
        return path, found

    def _open(self, path: str, coding: str, status: int, varies: bool) -> _Representation:
        file = path + _CODINGS.get(coding, "")
        try:
            version = open_version(file)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # Files that are only kept must not be what keeps one from being served.
            self.cache.clear()
            version = open_version(file)
        # What the name stood for when it was looked at may have been replaced by a link before it was opened.
        if not self.follow_symlinks and not self._is_inside(file, version):
            version.close()
            raise FileNotFoundError(file)
        given = {
            "content-type": guess_media_type(path),
            "etag": version.etag,
            "last-modified": format_http_date(version.mtime),
        }
        if status == 200:
            given["accept-ranges"] = "bytes"
            if self.cache_control is not None:
                given["cache-control"] = self.cache_control
        if varies:
            # Also where the file itself is sent: a cache must know that another client gets something else.
            given["vary"] = "accept-encoding"
        if coding != "identity":
            given["content-encoding"] = coding
        return _Representation(version, status, [message.check_field(*pair) for pair in given.items()])

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            status = os.stat(path)
            return status if self.follow_symlinks or self._resolved(path) is not None else None
        except (OSError, ValueError):
            return None

    def _resolved(self, path: str) -> str | None:
        root, real = os.path.realpath(self._root), os.path.realpath(path)
        return real if real == root or real.startswith(root.rstrip(os.sep) + os.sep) else None

    def _is_inside(self, path: str, version: FileVersion) -> bool:
        real = self._resolved(path)
        if real is None or os.name == "nt":
            # To make a symbolic link takes a privilege there, and what an open file says of itself is another matter.
            return real is not None
        try:
            return signature_of(os.lstat(real))[:2] == version.signature[:2]
        except OSError:
            return False

    def __repr__(self) -> str:
        return f"StaticFiles({self.directory!r})"


def _choose(request: HttpRequest, codings: tuple[str, ...]) -> str:
    return _negotiate(request.headers.joined("accept-encoding"), codings)


def _negotiate(accepted: str | None, codings: tuple[str, ...]) -> str:
    # Where nothing is acceptable, the file itself is better than nothing (RFC 9110 section 12.5.3 leaves it open).
    return accepts_encoding(accepted, codings) or "identity"


def _cache_control(given: str | None, max_age: int | None, immutable: bool) -> str | None:
    if max_age is None:
        if immutable:
            raise ConfigurationError("immutable=True needs max_age: say for how many seconds, such as 31536000")
        return given
    if given is not None:
        raise ConfigurationError(f"max_age={max_age!r} and cache_control={given!r} both say Cache-Control; give one")
    if max_age < 0:
        raise ConfigurationError(f"max_age must be a number of seconds from 0 on, not {max_age!r}")
    return f"max-age={int(max_age)}, immutable" if immutable else f"max-age={int(max_age)}"
