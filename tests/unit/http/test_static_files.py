"""StaticFiles: what is served, and everything that must not be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from armature.exceptions import ConfigurationError, HTTPException
from armature.http import HttpResponse, StaticFiles

Get = Callable[..., HttpResponse]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "static"
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_text("a")
    (root / "with space é.txt").write_text("s")
    (root / "index.html").write_text("<home>")
    (root / "sub" / "index.html").write_text("<sub>")
    (root / "sub" / "b.css").write_text("b")
    (root / ".env").write_text("SECRET")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("SECRET")
    (tmp_path / "secret.txt").write_text("SECRET")
    (tmp_path / "static-other").mkdir()
    (tmp_path / "static-other" / "x").write_text("SECRET")
    return root


@pytest.fixture
def get(make_request: Any) -> Get:
    def get(
        files: StaticFiles,
        path: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        target: str | None = None,
    ) -> HttpResponse:
        async def main() -> HttpResponse:
            raw = f"/static/{quote(path, errors='replace')}" if target is None else target
            request = make_request(method, raw, headers=headers)
            request.bind(("path",), (path,))
            response = await files(request)
            prepare = getattr(response, "prepare", None)
            return response if prepare is None else await prepare(request)

        return asyncio.run(asyncio.wait_for(main(), 10))

    return get


def status_of(get: Get, *arguments: Any, **options: Any) -> int:
    try:
        return get(*arguments, **options).status
    except HTTPException as error:
        return error.status_code


def test_files(root: Path, get: Get) -> None:
    files = StaticFiles(root)
    response = get(files, "a.txt")
    assert (response.status, response.body, response.content_type) == (200, b"a", "text/plain; charset=utf-8")
    assert get(files, "sub/b.css").content_type == "text/css; charset=utf-8"
    assert get(files, "with space é.txt").body == b"s"
    assert get(files, "a.txt", {"range": "bytes=0-0"}).status == 206
    assert get(files, "a.txt", {"if-none-match": response.headers["etag"]}).status == 304
    assert get(files, "a.txt", method="HEAD").status == 200
    assert "vary" not in response.headers
    assert "cache-control" not in response.headers


#: Paths as the router hands them over, percent-decoded once.
TRAVERSAL = [
    "../secret.txt",
    "sub/../../secret.txt",
    "sub/../a.txt",
    "..",
    ".",
    "./a.txt",
    "sub/./b.css",
    "/etc/passwd",
    "//etc/passwd",
    "sub//b.css",
    "..\\secret.txt",
    "sub\\b.css",
    "\\etc\\passwd",
    "C:\\windows\\win.ini",
    "a.txt\0",
    "a.txt\0.html",
    "\0",
    "%2e%2e/secret.txt",
    "..%2fsecret.txt",
    "..;/secret.txt",
    ".../secret.txt",
    "\uff0e\uff0e/secret.txt",
    "..\u2215secret.txt",
    "../static-other/x",
    "sub/..",
    ".env",
    ".git/config",
    "sub/.hidden",
    "a.txt/",
    "a.txt/x",
    "\ud800",
    "x" * 5000,
    "a/" * 3000,
    "*",
    "~",
    "~root",
    "$HOME",
    "file:///etc/passwd",
    "",
    "sub",
    "empty",
]


@pytest.mark.parametrize("path", TRAVERSAL, ids=lambda path: ascii(path)[:30])
def test_nothing_else_is_served(root: Path, get: Get, path: str) -> None:
    assert status_of(get, StaticFiles(root), path) == 404


@pytest.mark.parametrize(
    "path", [path for path in TRAVERSAL if path not in ("", "sub")], ids=lambda path: ascii(path)[:30]
)
def test_nothing_else_is_served_as_html_either(root: Path, get: Get, path: str) -> None:
    assert status_of(get, StaticFiles(root, html=True), path) == 404


def test_dotfiles_if_wanted(root: Path, get: Get) -> None:
    files = StaticFiles(root, dotfiles=True)
    assert get(files, ".env").body == b"SECRET"
    assert status_of(get, files, "../secret.txt") == 404
    assert status_of(get, files, ".") == 404


def test_links_stay_inside(root: Path, get: Get, tmp_path: Path) -> None:
    (root / "inside.txt").symlink_to(root / "a.txt")
    (root / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (root / "outside").symlink_to(tmp_path, target_is_directory=True)
    (root / "sibling").symlink_to(tmp_path / "static-other", target_is_directory=True)
    (root / "broken").symlink_to(root / "nothing")
    (root / "loop").symlink_to(root / "loop")
    files = StaticFiles(root)
    assert get(files, "inside.txt").body == b"a"
    for path in ("outside.txt", "outside/secret.txt", "sibling/x", "broken", "loop"):
        assert status_of(get, files, path) == 404, path
    following = StaticFiles(root, follow_symlinks=True)
    assert get(following, "outside.txt").body == b"SECRET"
    assert get(following, "outside/secret.txt").body == b"SECRET"
    assert status_of(get, following, "loop") == 404


def test_a_directory_that_is_a_link_itself(root: Path, get: Get, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root, target_is_directory=True)
    assert get(StaticFiles(tmp_path / "current"), "a.txt").body == b"a"


def test_html(root: Path, get: Get) -> None:
    files = StaticFiles(root, html=True)
    assert get(files, "").body == b"<home>"
    assert get(files, "sub/").body == b"<sub>"
    assert get(files, "sub/").content_type == "text/html; charset=utf-8"
    assert status_of(get, files, "empty/") == 404
    redirect = get(files, "sub", target="/static/sub?x=1")
    assert (redirect.status, redirect.headers["location"]) == (307, "/static/sub/?x=1")


def test_a_redirect_stays_on_this_host(root: Path, get: Get) -> None:
    (root / "evil.example").mkdir()
    (root / "evil.example" / "index.html").write_text("x")
    files = StaticFiles(root, html=True)
    for target in ("//evil.example", "/\\evil.example", "///evil.example"):
        location = get(files, "evil.example", target=target).headers["location"]
        assert location == "/evil.example/"


def test_a_page_for_what_is_missing(root: Path, get: Get) -> None:
    (root / "404.html").write_text("<gone>")
    files = StaticFiles(root, html=True, cache_control="max-age=60")
    response = get(files, "nothing.txt", {"range": "bytes=0-1"})
    assert (response.status, response.body) == (404, b"<gone>")
    assert "cache-control" not in response.headers
    assert get(files, "a.txt").headers["cache-control"] == "max-age=60"
    assert status_of(get, StaticFiles(root), "nothing.txt") == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(root: Path, get: Get, method: str) -> None:
    with pytest.raises(HTTPException) as caught:
        get(StaticFiles(root), "a.txt", method=method)
    assert caught.value.status_code == 405
    assert caught.value.headers == {"allow": "GET, HEAD"}


def test_precompressed(root: Path, get: Get) -> None:
    for suffix, content in (("", "plain"), (".gz", "GZ"), (".br", "BR")):
        (root / f"app.js{suffix}").write_text(content)
        os.utime(root / f"app.js{suffix}", (1000, 1000))
    files = StaticFiles(root)
    for accept, coding, body in (
        (None, None, b"plain"),
        ("gzip", "gzip", b"GZ"),
        ("gzip, br", "br", b"BR"),
        ("zstd", None, b"plain"),
        ("br;q=0, gzip", "gzip", b"GZ"),
        ("identity", None, b"plain"),
        ("*;q=0", None, b"plain"),
    ):
        response = get(files, "app.js", None if accept is None else {"accept-encoding": accept})
        assert response.body == body, accept
        assert response.headers.get("content-encoding") == coding
        assert response.content_type == "text/javascript; charset=utf-8"
        assert response.headers["vary"] == "accept-encoding"
    tags = {get(files, "app.js", {"accept-encoding": coding}).headers["etag"] for coding in ("gzip", "br", "identity")}
    assert len(tags) == 3, "representations that differ in bytes have different tags"
    hit = get(files, "app.js", {"accept-encoding": "br", "if-none-match": ", ".join(tags)})
    assert hit.status == 304
    assert hit.headers["vary"] == "accept-encoding"
    ranged = get(files, "app.js", {"accept-encoding": "br", "range": "bytes=0-0"})
    assert (ranged.status, ranged.body, ranged.headers["content-encoding"]) == (206, b"B", "br")
    assert get(files, "app.js.gz").content_type == "application/gzip"
    assert get(StaticFiles(root, precompressed=False), "app.js", {"accept-encoding": "br"}).body == b"plain"


def test_a_stale_or_linked_sibling_is_not_sent(root: Path, get: Get, tmp_path: Path) -> None:
    (root / "old.js").write_text("plain")
    (root / "old.js.gz").write_text("GZ")
    os.utime(root / "old.js.gz", (1000, 1000))
    (root / "linked.js").write_text("plain")
    (root / "linked.js.gz").symlink_to(tmp_path / "secret.txt")
    (root / "dir.js").write_text("plain")
    (root / "dir.js.gz").mkdir()
    for name in ("old.js", "linked.js", "dir.js"):
        assert get(StaticFiles(root), name, {"accept-encoding": "gzip"}).body == b"plain"


def test_the_directory_is_checked_when_it_is_named(tmp_path: Path, get: Get) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        StaticFiles(tmp_path / "absent")
    later = StaticFiles(tmp_path / "absent", check_directory=False)
    assert status_of(get, later, "a.txt") == 404
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "a.txt").write_text("a")
    assert get(later, "a.txt").body == b"a"


def test_a_later_chdir_changes_nothing(root: Path, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    files = StaticFiles("static")
    monkeypatch.chdir("/")
    assert get(files, "a.txt").body == b"a"
    assert repr(files) == "StaticFiles('static')"
