"""Files on the wire: whole and in parts, to slow readers and to many at once, while they change, from a cold disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armature import App, CompressionMiddleware, FileCache, HttpResponse, StaticFiles
from armature.exceptions import ClientDisconnect
from armature.http import file_cache, files
from armature.http.file_cache import OpenFile
from armature.http.files import FileBody
from armature.server import sendfile
from counterparts import require
from wire_client import PATIENCE, Peer, Running, eventually

Serve = Callable[..., Running]
LARGE = os.urandom(3_000_000)
SMALL = os.urandom(5000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "served"
    root.mkdir()
    (root / "large").write_bytes(LARGE)
    (root / "small").write_bytes(SMALL)
    return root


def make_app(root: Path, **options: Any) -> App:
    app = App()
    app.mount("/static", StaticFiles(root, **options))

    @app.get("/file/{name}")
    async def file(name: str) -> HttpResponse:
        return HttpResponse.file(root / name)

    return app


def test_files_of_both_kinds_again_and_again(serve: Serve, root: Path) -> None:
    running = serve(make_app(root))
    with running.connect() as peer:
        for _ in range(3):
            for place in ("/static", "/file"):
                for name, content in (("large", LARGE), ("small", SMALL)):
                    answer = peer.get(f"{place}/{name}")
                    assert (answer.status, answer.body) == (200, content)
                    assert answer.headers["content-length"] == str(len(content))
                    head = peer.request("HEAD", f"{place}/{name}").answer("HEAD")
                    assert [field for field in head.fields if field[0] != "date"] == [
                        field for field in answer.fields if field[0] != "date"
                    ]
                    part = peer.get(f"{place}/{name}", range="bytes=1000-1999")
                    assert (part.status, part.body) == (206, content[1000:2000])
                    several = peer.get(f"{place}/{name}", range="bytes=0-9,4000-4009,-3")
                    for piece in (content[:10], content[4000:4010], content[-3:]):
                        assert piece in several.body
                    held = peer.get(f"{place}/{name}", if_none_match=answer.headers["etag"])
                    assert held.status == 304


def test_curl_goes_on_where_it_was_cut_off(serve: Serve, root: Path, tmp_path: Path) -> None:
    running = serve(make_app(root))
    for place in ("static", "file"):
        target = tmp_path / f"fetched from {place}"
        target.write_bytes(LARGE[:1_234_567])
        url = f"http://127.0.0.1:{running.port}/{place}/large"
        subprocess.run([require("curl"), "-sS", "-C", "-", "-o", target, url], check=True, timeout=30)
        assert target.read_bytes() == LARGE


def test_many_share_one_file(serve: Serve, root: Path) -> None:
    files = StaticFiles(root, cache=FileCache(ttl=1000))
    app = App().mount("/static", files)
    running = serve(app)
    digest = hashlib.sha256(LARGE).digest()
    running.get("/static/large")
    wrong: list[int] = []

    def fetch(number: int) -> None:
        with Peer(running.address, receive_buffer=4096 if number % 2 else None) as peer:
            got = [hashlib.sha256(peer.get("/static/large").body).digest() for _ in range(2)]
        if got != [digest] * 2:
            wrong.append(number)

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    assert files.cache.stats() == {"entries": 1, "memory": 0, "descriptors": 1}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors by /proc")
@pytest.mark.parametrize("place", ["static", "file"])
def test_a_client_that_leaves_gives_the_file_back(serve: Serve, root: Path, place: str) -> None:
    running = serve(make_app(root, cache=FileCache(entries=0)))
    # More than the system takes for a client that does not read.
    with (root / "huge").open("wb") as file:
        file.truncate(64 * 1024 * 1024)

    def readers() -> int:
        count = 0
        for entry in os.scandir("/proc/self/fd"):
            try:
                count += os.readlink(entry.path).endswith("/served/huge")
            except FileNotFoundError:
                continue
        return count

    peers = [running.connect(receive_buffer=4096) for _ in range(5)]
    for peer in peers:
        peer.request("GET", f"/{place}/huge").head()
    assert readers() == 5
    for peer in peers:
        peer.reset()
    eventually(lambda: readers() == 0)


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_to_its_end(serve: Serve, root: Path) -> None:
    running = serve(make_app(root, cache=FileCache(ttl=0)))
    with running.connect(receive_buffer=4096) as slow, running.connect() as quick:
        head = slow.request("GET", "/static/large").head()
        (root / "other").write_bytes(LARGE[::-1])
        (root / "other").replace(root / "large")
        new = quick.get("/static/large")
        assert new.body == LARGE[::-1]
        assert slow.exactly(len(LARGE)) == LARGE
        assert new.headers["etag"] != head.headers["etag"]


@pytest.mark.parametrize("place", ["static", "file"])
def test_a_file_that_shrinks_while_it_is_sent_breaks_the_answer_off(serve: Serve, root: Path, place: str) -> None:
    running = serve(make_app(root))
    path = root / "huge"
    path.write_bytes(LARGE)
    os.truncate(path, 64 * 1024 * 1024)
    with running.connect(receive_buffer=4096) as peer:
        assert peer.request("GET", f"/{place}/huge").head().headers["content-length"] == str(64 * 1024 * 1024)
        os.truncate(path, 1000)
        with pytest.raises((EOFError, ConnectionResetError)):
            peer.exactly(64 * 1024 * 1024)
    assert running.get(f"/{place}/huge").body == LARGE[:1000]


# ---- a cold disk


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="needs sendfile")
def test_what_is_not_in_memory_is_read_in_a_thread_first(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[tuple[int, int]] = []
    threads: set[int] = set()
    real = OpenFile.bring_into_memory

    def bring(self: OpenFile, offset: int, count: int, step: int) -> None:
        threads.add(threading.get_ident())
        real(self, offset, count, step)
        warmed.append((offset, count))

    monkeypatch.setattr(OpenFile, "in_memory", lambda self, offset, count: (offset, count) in warmed)
    monkeypatch.setattr(OpenFile, "bring_into_memory", bring)
    running = serve(make_app(root))
    loop_thread = running.call(threading.get_ident)
    with running.connect() as peer:
        assert peer.get("/static/large").body == LARGE
        # Without a gap, whatever the socket took of each piece.
        covered = 0
        for offset, count in warmed:
            assert offset <= covered
            assert count <= sendfile.PIECE
            covered = max(covered, offset + count)
        assert covered == len(LARGE)
        assert threads
        assert loop_thread not in threads
        warmed.clear()
        assert peer.get("/static/large", range="bytes=2000000-").body == LARGE[2_000_000:]
        assert warmed[0] == (2_000_000, 1_000_000)


@pytest.mark.skipif(sys.platform != "linux", reason="drops pages by posix_fadvise")
def test_a_file_whose_pages_were_dropped(serve: Serve, root: Path) -> None:
    fd = os.open(root / "large", os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    running = serve(make_app(root))
    for place in ("static", "file"):
        assert running.get(f"/{place}/large").body == LARGE


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="needs sendfile")
def test_nothing_is_sent_to_whoever_gets_the_descriptor_next(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends while its file is read from the disk: its number may belong to another one already."""
    ours, theirs = socket.socketpair()

    class Transport:
        direct_fd = ours.fileno()

        def get_write_buffer_size(self) -> int:
            return 0

    class Protocol:
        transport: Any = Transport()

        def flush(self) -> None:
            pass

    def ended(self: OpenFile, *arguments: int) -> None:
        protocol.transport = None

    monkeypatch.setattr(OpenFile, "in_memory", lambda *arguments: False)
    monkeypatch.setattr(OpenFile, "bring_into_memory", ended)
    protocol = Protocol()
    body = FileBody(os.open(root / "large", os.O_RDONLY), 0, len(LARGE))
    with ours, theirs:
        with pytest.raises(ClientDisconnect):
            asyncio.run(sendfile.send_file(protocol, body))  # type: ignore[arg-type]
        body.close()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


# ---- opening on the loop


def test_a_file_that_was_opened_a_moment_ago_is_opened_on_the_loop(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    real = file_cache.open_version

    def spy(path: str) -> Any:
        threads.append(threading.get_ident())
        if slow:
            clock[0] += 1.0
        return real(path)

    clock = [1000.0]
    slow: list[bool] = []
    monkeypatch.setattr(files, "open_version", spy)
    monkeypatch.setattr(files, "time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))
    running = serve(make_app(root))
    loop_thread = running.call(threading.get_ident)

    def on_the_loop() -> bool:
        assert running.get("/file/small").body == SMALL
        return threads[-1] == loop_thread

    assert [on_the_loop() for _ in range(3)] == [False, True, True]
    clock[0] += 11
    assert [on_the_loop() for _ in range(2)] == [False, True]
    # One that has kept the loop waiting is left to threads for a while.
    slow.append(True)
    assert on_the_loop()
    slow.clear()
    assert [on_the_loop() for _ in range(3)] == [False, False, False]
    clock[0] += 11
    assert [on_the_loop() for _ in range(2)] == [False, True]


def test_static_files_within_compression(serve: Serve, root: Path) -> None:
    (root / "page.html").write_text("<p>text</p>" * 500)
    (root / "page.html.br").write_bytes(b"ready made")
    app = make_app(root).wrap(CompressionMiddleware(codings=["gzip"]))
    running = serve(app)
    with running.connect() as peer:
        ready = peer.get("/static/page.html", accept_encoding="br, gzip")
        assert (ready.body, ready.headers["content-encoding"]) == (b"ready made", "br")
        assert [value for name, value in ready.fields if name == "vary"] == ["accept-encoding"]
        made = peer.get("/static/page.html", accept_encoding="gzip")
        assert made.headers["content-encoding"] == "gzip"
        plain = peer.get("/static/page.html")
        assert plain.text == "<p>text</p>" * 500
