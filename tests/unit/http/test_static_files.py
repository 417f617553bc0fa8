"""StaticFiles: what is served, and everything that must not be."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from armature.exceptions import ConfigurationError, HTTPException
from armature.http import HttpResponse, StaticFiles, file_cache, static
from armature.http.file_cache import FileCache

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


# ---- caching fields


def test_how_long_clients_may_keep_a_file(root: Path, get: Get) -> None:
    for options, value in (
        ({}, None),
        ({"max_age": 0}, "max-age=0"),
        ({"max_age": 3600}, "max-age=3600"),
        ({"max_age": 31536000, "immutable": True}, "max-age=31536000, immutable"),
        ({"cache_control": "no-store"}, "no-store"),
    ):
        files = StaticFiles(root, **options)  # type: ignore[arg-type]
        response = get(files, "a.txt")
        assert response.headers.get("cache-control") == value
        assert get(files, "a.txt", {"if-none-match": "*"}).headers.get("cache-control") == value
    for options, message in (
        ({"immutable": True}, "immutable=True needs max_age"),
        ({"max_age": -1}, "max_age must be a number of seconds from 0 on, not -1"),
        ({"max_age": 1, "cache_control": "private"}, "both say Cache-Control; give one"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            StaticFiles(root, **options)  # type: ignore[arg-type]


# ---- the cache

LARGE = os.urandom(200_000)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are taken to be old, so that their time stamps tell every change."""
    monkeypatch.setattr(file_cache, "_UNSETTLED", -1)


def content_of(response: HttpResponse) -> bytes:
    async def main() -> bytes:
        if response.stream is None:
            return response.body
        return b"".join([piece async for piece in response.stream])  # type: ignore[misc, union-attr]

    return asyncio.run(main())


def test_a_file_is_looked_at_once_for_many_requests(root: Path, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "large").write_bytes(LARGE)
    files = StaticFiles(root, cache=FileCache(ttl=1000))
    first, large = get(files, "a.txt"), get(files, "large")
    assert content_of(large) == LARGE
    assert files.cache.stats() == {"entries": 2, "memory": 1, "descriptors": 1}

    def refuse(*arguments: object) -> None:
        raise AssertionError("nobody needs to ask for the name again")

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "open", refuse)
    for _ in range(3):
        again = get(files, "a.txt")
        assert (again.body, again.fields()) == (first.body, first.fields())
        again.headers["x-own"] = "does not stay"
        assert content_of(get(files, "large")) == LARGE
    assert get(files, "a.txt", method="HEAD").fields() == first.fields()
    assert get(files, "large", method="HEAD").headers["content-length"] == "200000"
    assert get(files, "a.txt", {"if-none-match": first.headers["etag"]}).status == 304
    assert content_of(get(files, "large", {"range": "bytes=5-9"})) == LARGE[5:10]
    assert files.cache.stats() == {"entries": 2, "memory": 1, "descriptors": 1}


def replace(path: Path, content: bytes) -> None:
    """Put another file in its place, as a deployment does."""
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def test_a_small_file_that_was_replaced_is_seen_after_its_time(root: Path, get: Get) -> None:
    files = StaticFiles(root, cache=FileCache(ttl=1000))
    old = get(files, "a.txt")
    replace(root / "a.txt", b"new")
    kept = get(files, "a.txt")
    assert (kept.body, kept.headers["etag"]) == (b"a", old.headers["etag"])
    assert get(StaticFiles(root, cache=FileCache(ttl=0)), "a.txt").body == b"new"
    files.cache.get((files, "a.txt")).expires = 0.0
    seen = get(files, "a.txt")
    assert (seen.body, seen.headers["etag"] != old.headers["etag"]) == (b"new", True)
    (root / "a.txt").unlink()
    files.cache.get((files, "a.txt")).expires = 0.0
    assert status_of(get, files, "a.txt") == 404
    assert files.cache.stats()["entries"] == 0


def test_one_request_looks_at_the_name_again_and_others_do_not_wait(root: Path, make_request: Any) -> None:
    files = StaticFiles(root, cache=FileCache(ttl=1000))

    async def ask() -> HttpResponse:
        request = make_request("GET", "/static/a.txt")
        request.bind(("path",), ("a.txt",))
        return await files(request)

    async def main() -> None:
        await ask()
        replace(root / "a.txt", b"new")
        files.cache.get((files, "a.txt")).expires = 0.0
        seen = await asyncio.gather(*(ask() for _ in range(5)))
        # The first one has to wait for the thread.
        assert [response.body for response in seen] == [b"new", b"a", b"a", b"a", b"a"]
        assert (await ask()).body == b"new"

    asyncio.run(main())


def test_a_large_file_that_changes_is_seen_at_once(root: Path, get: Get, settled: None) -> None:
    path = root / "large"
    path.write_bytes(LARGE)
    files = StaticFiles(root, cache=FileCache(ttl=1000))
    old = get(files, "large")
    # In place: what the descriptor reads is not what the old fields say.
    path.write_bytes(LARGE[::-1])
    os.utime(path, (1000, 1000))
    new = get(files, "large")
    assert new.headers["etag"] != old.headers["etag"]
    assert content_of(new) == LARGE[::-1]
    path.write_bytes(LARGE + b"more")
    longer = get(files, "large")
    assert (longer.headers["content-length"], content_of(longer)) == ("200004", LARGE + b"more")


def test_a_file_that_is_being_sent_is_sent_to_its_end(root: Path, get: Get) -> None:
    path = root / "large"
    path.write_bytes(LARGE)
    files = StaticFiles(root, cache=FileCache(ttl=0))
    under_way = [get(files, "large") for _ in range(3)]
    replace(path, LARGE[::-1])
    assert content_of(get(files, "large")) == LARGE[::-1]
    files.cache.clear()
    assert [content_of(response) for response in under_way] == [LARGE] * 3


def test_what_did_not_change_is_not_read_again(root: Path, get: Get, settled: None) -> None:
    (root / "large").write_bytes(LARGE)
    files = StaticFiles(root, cache=FileCache(ttl=0))
    opened = []
    for _ in range(3):
        content_of(get(files, "large"))
        opened.append(files.cache.get((files, "large")).ready["identity"].version)
    assert opened[0] is opened[1] is opened[2]
    assert files.cache.stats() == {"entries": 1, "memory": 0, "descriptors": 1}


@pytest.mark.parametrize("age", [0, 3600])
def test_time_stamps_are_not_believed_soon_after_a_change(
    root: Path, get: Get, monkeypatch: pytest.MonkeyPatch, age: int
) -> None:
    """Two changes within one step of the file system's clock leave the same time stamps behind."""
    for module in (file_cache, static):
        monkeypatch.setattr(module, "signature_of", lambda status: (1, 2, 1, 4, 5))
    now = time.time()
    monkeypatch.setattr(file_cache.time, "time", lambda: now + age)
    files = StaticFiles(root, cache=FileCache(ttl=0))
    assert get(files, "a.txt").body == b"a"
    (root / "a.txt").write_text("b")
    assert get(files, "a.txt").body == (b"a" if age else b"b")


def test_every_coding_has_its_place_in_the_cache(root: Path, get: Get) -> None:
    for suffix, content in (("", "plain"), (".gz", "GZ"), (".br", "BR")):
        (root / f"app.js{suffix}").write_text(content)
        os.utime(root / f"app.js{suffix}", (1000, 1000))
    files = StaticFiles(root, cache=FileCache(ttl=1000))
    for _ in range(2):
        for accepted, body in (("gzip", b"GZ"), ("br", b"BR"), ("identity", b"plain"), ("br;q=0.1, gzip", b"GZ")):
            response = get(files, "app.js", {"accept-encoding": accepted})
            assert (response.body, response.headers["vary"]) == (body, "accept-encoding")


def test_a_sibling_that_comes_later_is_seen(root: Path, get: Get) -> None:
    files = StaticFiles(root, cache=FileCache(ttl=0))
    assert "vary" not in get(files, "a.txt", {"accept-encoding": "gzip"}).headers
    (root / "a.txt.gz").write_text("GZ")
    answer = get(files, "a.txt", {"accept-encoding": "gzip"})
    assert (answer.body, answer.headers["content-encoding"]) == (b"GZ", "gzip")
    (root / "a.txt.gz").unlink()
    assert get(files, "a.txt", {"accept-encoding": "gzip"}).body == b"a"


def test_directories_may_share_a_cache(root: Path, get: Get, tmp_path: Path) -> None:
    (tmp_path / "static-other" / "a.txt").write_text("other")
    cache = FileCache(ttl=1000)
    files = [StaticFiles(root, cache=cache), StaticFiles(tmp_path / "static-other", cache=cache)]
    for _ in range(2):
        assert [get(one, "a.txt").body for one in files] == [b"a", b"other"]
    assert cache.stats()["entries"] == 2


def test_the_page_for_what_is_missing_takes_no_place(root: Path, get: Get) -> None:
    (root / "404.html").write_text("<gone>")
    files = StaticFiles(root, html=True)
    for number in range(3):
        assert get(files, f"nothing-{number}").body == b"<gone>"
        assert get(files, "../x").body == b"<gone>"
    assert files.cache.stats()["entries"] == 0
    get(files, "a.txt")
    (root / "a.txt").unlink()
    files.cache.get((files, "a.txt")).expires = 0.0
    assert get(files, "a.txt").body == b"<gone>"
    assert files.cache.stats()["entries"] == 0


def test_without_descriptors_the_cache_lets_go_of_its_own(
    root: Path, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "large").write_bytes(LARGE)
    files = StaticFiles(root)
    get(files, "large").stream.close()  # type: ignore[union-attr]
    assert files.cache.stats()["descriptors"] == 1
    real = os.open

    def exhausted(path: str, *arguments: Any) -> int:
        if files.cache.stats()["descriptors"]:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", exhausted)
    assert get(files, "a.txt").body == b"a"
    assert files.cache.stats()["descriptors"] == 0


def test_a_file_that_may_not_be_read_is_refused(root: Path, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError

    # Not by its mode: the tests may run as a user who may read everything.
    monkeypatch.setattr(os, "open", refuse)
    assert status_of(get, StaticFiles(root), "a.txt") == 403


def test_a_link_that_takes_the_place_of_a_file_before_it_is_opened(
    root: Path, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(LARGE)
    real = static.open_version

    def swapped(path: str) -> Any:
        os.unlink(path)
        os.symlink(tmp_path / "secret", path)
        return real(path)

    monkeypatch.setattr(static, "open_version", swapped)
    files = StaticFiles(root)
    assert status_of(get, files, "a.txt") == 404
    assert files.cache.stats()["entries"] == 0
