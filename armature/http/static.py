"""A directory of files behind a path: the endpoint that `app.mount("/static", StaticFiles("static"))` serves."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING

from armature.exceptions import ConfigurationError, HTTPException
from armature.http.files import FileResponse
from armature.http.media_types import guess_media_type
from armature.http.negotiation import accepts_encoding
from armature.http.response import HttpResponse
from armature.http.url import quote_url

if TYPE_CHECKING:
    from armature.http.request import HttpRequest

__all__ = ["StaticFiles"]

#: Suffixes of precompressed siblings and their content codings, the preferred one first.
_CODINGS = (("br", ".br"), ("zstd", ".zst"), ("gzip", ".gz"))


class _Found:
    __slots__ = ("directory", "encodings", "path")

    def __init__(self, path: str, directory: bool = False, encodings: tuple[str, ...] = ()) -> None:
        self.path = path
        self.directory = directory
        self.encodings = encodings


class StaticFiles:
    """Serves the files of a directory, with conditional requests, ranges and precompressed siblings.

    The path below the mount comes as the path parameter `path`. What leads out of the directory, by `..`, by a
    backslash, by NUL or by a symbolic link, is answered 404, as is every name that begins with a dot.

    Args:
        directory: The directory.
        html: Whether a directory is answered with its `index.html`, and a missing file with `404.html`, if there are.
        follow_symlinks: Whether symbolic links may lead out of the directory.
        dotfiles: Whether names that begin with a dot are served.
        precompressed: Whether `app.js.br`, `app.js.zst` or `app.js.gz` goes out for `app.js` where it is accepted.
        cache_control: The value of `Cache-Control`, such as `"public, max-age=3600"`.
        check_directory: Whether a directory that does not exist is an error now; False lets it appear later.

    Raises:
        ConfigurationError: The directory does not exist.
    """

    __slots__ = (
        "_root",
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
        self.cache_control = cache_control

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request for the file that the path parameter `path` names.

        Args:
            request: The request.

        Raises:
            HTTPException: There is no such file (404), it may not be read (403), or the method is another than GET
                and HEAD (405).
        """
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"allow": "GET, HEAD"})
        path = request.param("path")
        found = await self._look_up(path)
        status = 200
        if found is None and self.html:
            found = await self._look_up("404.html")
            status = 404
        if found is None or (found.directory and not self.html):
            raise HTTPException(404)
        if found.directory:
            return self._redirect(request)
        headers: dict[str, str] = {}
        if self.cache_control is not None and status == 200:
            headers["cache-control"] = self.cache_control
        file = found.path
        content_type = guess_media_type(file)
        if found.encodings:
            # Also where the file itself is sent: a cache must know that another client gets something else.
            headers["vary"] = "accept-encoding"
            coding = accepts_encoding(request.headers.joined("accept-encoding"), found.encodings)
            if coding is not None and coding != "identity":
                headers["content-encoding"] = coding
                file += dict(_CODINGS)[coding]
        return FileResponse(file, status, headers, content_type)

    def _redirect(self, request: HttpRequest) -> HttpResponse:
        # Relative links of the page need the slash. A path of two slashes at its start would name another host.
        path = "/" + request.raw_path.decode("latin-1").lstrip("/\\") + "/"
        query = request.query_string.decode("latin-1")
        return HttpResponse.redirect(quote_url(f"{path}?{query}" if query else path))

    async def _look_up(self, path: str) -> _Found | None:
        segments = self._segments(path)
        if segments is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(None, self._find, segments, path.endswith("/"))

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

    def _find(self, segments: list[str], slash: bool) -> _Found | None:
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
                return _Found(path, directory=True)
            path, slash = index, False
        # `name.html/` is not `name.html`: relative links would mean something else.
        if status is None or slash or not stat.S_ISREG(status.st_mode):
            return None
        encodings: list[str] = []
        if self.precompressed:
            for coding, suffix in _CODINGS:
                sibling = self._stat(path + suffix)
                # One that is older than its source was made from an earlier version.
                if sibling is not None and stat.S_ISREG(sibling.st_mode) and sibling.st_mtime >= status.st_mtime:
                    encodings.append(coding)
        return _Found(path, encodings=tuple(encodings))

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            if not self.follow_symlinks:
                root = os.path.realpath(self._root)
                real = os.path.realpath(path)
                if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
                    return None
            return os.stat(path)
        except (OSError, ValueError):
            return None

    def __repr__(self) -> str:
        return f"StaticFiles({self.directory!r})"
