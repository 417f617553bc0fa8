"""Compressed responses on the wire: curl takes them apart, increments arrive one by one, and producers are closed."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature import App, CompressionMiddleware, HttpResponse, StaticFiles
from counterparts import require, require_module
from wire_client import PATIENCE, Peer, Running

Serve = Callable[..., Running]
CODINGS = ["gzip", "deflate", "br", "zstd"]
TEXT = "".join(f"{number}: all work and no play makes Jack a dull boy\n" for number in range(8000))


class Producer:
    """A stream that goes on when the test says so, and says itself when it has ended."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.closed = threading.Event()

    async def steps(self) -> AsyncIterator[str]:
        try:
            for number in range(1000):
                yield f"step {number}\n\n"
                await asyncio.to_thread(self.gate.acquire, timeout=PATIENCE)
        finally:
            self.closed.set()

    def blocking_steps(self) -> Iterator[str]:
        try:
            for number in range(1000):
                yield f"step {number}\n\n"
                self.gate.acquire(timeout=PATIENCE)
        finally:
            self.closed.set()

    def go_on(self) -> None:
        for _ in range(2000):
            self.gate.release()


@pytest.fixture
def producer() -> Iterator[Producer]:
    producer = Producer()
    yield producer
    # A thread that waits would keep the server from stopping.
    producer.go_on()


def make_app(producer: Producer, files: Path | None = None, **options: Any) -> App:
    app = App().wrap(CompressionMiddleware(**options))

    @app.get("/text")
    async def text() -> str:
        return TEXT

    @app.get("/async")
    async def numbers() -> HttpResponse:
        async def pieces() -> AsyncIterator[str]:
            for line in TEXT.splitlines(keepends=True):
                yield line

        return HttpResponse.stream(pieces(), content_type="text/plain")

    @app.get("/sync")
    async def lines() -> HttpResponse:
        return HttpResponse.stream((line for line in TEXT.splitlines(keepends=True)), content_type="text/plain")

    @app.get("/events")
    async def events() -> HttpResponse:
        return HttpResponse.stream(producer.steps(), content_type="text/event-stream")

    @app.get("/events-in-thread")
    async def events_in_thread() -> HttpResponse:
        return HttpResponse.stream(producer.blocking_steps(), content_type="text/event-stream")

    @app.get("/failing")
    async def failing() -> HttpResponse:
        async def pieces() -> AsyncIterator[str]:
            yield TEXT
            raise LookupError("of the producer")

        return HttpResponse.stream(pieces(), content_type="text/plain")

    if files is not None:
        app.mount("/files", StaticFiles(files))
    return app


def decoder(coding: str) -> Callable[[bytes], bytes]:
    if coding == "br":
        return require_module("brotli").Decompressor().process  # type: ignore[no-any-return]
    if coding == "zstd":
        return require_module("zstandard").ZstdDecompressor().decompressobj().decompress  # type: ignore[no-any-return]
    return zlib.decompressobj(31 if coding == "gzip" else 15).decompress


def curl(url: str, *options: str) -> tuple[dict[str, str], bytes]:
    """Fetch; return the fields and the body."""
    command = [require("curl"), "-sS", "-D", "-", *options, url]
    head, _, body = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout.partition(b"\r\n\r\n")
    pairs = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
    return {name.lower(): value for name, _, value in pairs}, body


@pytest.mark.parametrize("coding", CODINGS)
def test_curl_gets_what_it_gets_without(serve: Serve, producer: Producer, tmp_path: Path, coding: str) -> None:
    (tmp_path / "large.txt").write_text(TEXT)
    (tmp_path / "small.txt").write_text(TEXT[:5000])
    decoder(coding)
    version = subprocess.run([require("curl"), "-V"], capture_output=True, text=True, check=True).stdout
    running = serve(make_app(producer, tmp_path, codings=[coding]))
    for path in ("/text", "/async", "/sync", "/files/large.txt", "/files/small.txt"):
        url = f"http://127.0.0.1:{running.port}{path}"
        plain_head, plain = curl(url)
        coded_head, coded = curl(url, "-H", f"Accept-Encoding: {coding}")
        assert "content-encoding" not in plain_head
        assert (coded_head["content-encoding"], coded_head["vary"]) == (coding, "accept-encoding")
        assert plain.decode() == (TEXT[:5000] if "small" in path else TEXT)
        assert decoder(coding)(coded) == plain
        assert coded_head.get("content-length", str(len(coded))) == str(len(coded))
        if coding in ("gzip", "deflate") or {"br": "brotli", "zstd": "zstd"}[coding] in version:
            assert curl(url, "--compressed", "-H", f"Accept-Encoding: {coding}")[1] == plain


@pytest.mark.parametrize("path", ["/events", "/events-in-thread"])
@pytest.mark.parametrize("coding", CODINGS)
def test_increments_arrive_one_by_one(serve: Serve, producer: Producer, coding: str, path: str) -> None:
    decode = decoder(coding)
    running = serve(make_app(producer, codings=[coding]))
    with running.connect() as peer:
        head = peer.request("GET", path, accept_encoding=coding).head()
        assert (head.headers["content-encoding"], head.headers["transfer-encoding"]) == (coding, "chunked")
        for number in range(20):
            # The producer is held until its piece has been read and decoded.
            expected = f"step {number}\n\n".encode()
            found = b""
            while len(found) < len(expected):
                found += decode(peer.chunk())
            assert found == expected
            producer.gate.release()


@pytest.mark.parametrize("path", ["/events", "/events-in-thread"])
def test_a_client_that_leaves_closes_the_producer(serve: Serve, producer: Producer, path: str) -> None:
    running = serve(make_app(producer, codings=["gzip"]))
    with running.connect() as peer:
        peer.request("GET", path, accept_encoding="gzip").head()
        peer.chunk()
        peer.reset()
    producer.go_on()
    assert producer.closed.wait(PATIENCE)
    assert running.get("/text").text == TEXT


def test_a_producer_that_fails_breaks_the_body_off(serve: Serve, producer: Producer) -> None:
    running = serve(make_app(producer, codings=["gzip"]))
    with running.connect() as peer:
        peer.request("GET", "/failing", accept_encoding="gzip").head()
        with pytest.raises((EOFError, ConnectionResetError)):
            while peer.chunk():
                pass
    assert running.get("/text").text == TEXT


def test_head_says_what_get_says(serve: Serve, producer: Producer) -> None:
    running = serve(make_app(producer, codings=["gzip"]))
    with running.connect() as peer:
        for path in ("/text", "/async", "/events"):
            head = peer.request("HEAD", path, accept_encoding="gzip").answer("HEAD")
            with running.connect() as other:
                whole = other.request("GET", path, accept_encoding="gzip").head()
            same = ("content-encoding", "vary", "content-type", "content-length", "transfer-encoding")
            assert [head.headers.get(name) for name in same] == [whole.headers.get(name) for name in same]


def test_many_at_once(serve: Serve, producer: Producer) -> None:
    """Large bodies are compressed in threads: the answers do not mix."""
    running = serve(make_app(producer, codings=["gzip", "deflate"]))

    def fetch(number: int) -> None:
        coding = ("gzip", "deflate")[number % 2]
        with Peer(running.address) as peer:
            for path in ("/text", "/sync", "/async"):
                answer = peer.get(path, accept_encoding=coding)
                assert answer.headers["content-encoding"] == coding
                if zlib.decompress(answer.body, 31 if coding == "gzip" else 15).decode() != TEXT:
                    wrong.append(path)

    wrong: list[str] = []
    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []


def test_under_uvicorn(producer: Producer) -> None:
    uvicorn = require_module("uvicorn")
    app = make_app(producer, codings=["gzip"])

    def check(address: tuple[str, int]) -> None:
        with Peer(address) as peer:
            for path in ("/text", "/async", "/sync"):
                answer = peer.get(path, accept_encoding="gzip")
                assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "accept-encoding")
                assert zlib.decompress(answer.body, 31).decode() == TEXT
                assert peer.get(path).text == TEXT
            decode = decoder("gzip")
            peer.request("GET", "/events", accept_encoding="gzip").head()
            for number in range(5):
                expected = f"step {number}\n\n".encode()
                found = b""
                while len(found) < len(expected):
                    found += decode(peer.chunk())
                assert found == expected
                producer.gate.release()
        producer.go_on()
        assert producer.closed.wait(PATIENCE)

    async def main() -> None:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                while not server.started:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(check, listener.getsockname())
            finally:
                server.should_exit = True
                await serving

    asyncio.run(main())
