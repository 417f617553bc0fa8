"""Streamed responses over real sockets: framing, backpressure, and an end to the work when the peer goes away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import logging
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature.app import App
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from counterparts import require
from wire_client import REQUEST, Running, eventually, sockets_in

Serve = Callable[..., Running]

PIECE = b"0123456789abcdef" * 64  # 1 KiB


class Producer:
    """Counts what its generators do."""

    def __init__(self) -> None:
        self.started = 0
        self.produced = 0
        self.ended = 0
        self.cancelled = 0
        self.lock = threading.Lock()

    def endless(self, pause: float | None = None, piece: bytes = PIECE) -> AsyncIterator[bytes]:
        async def generate() -> AsyncIterator[bytes]:
            self.started += 1
            try:
                while True:
                    yield piece
                    self.produced += 1
                    if pause is not None:
                        await asyncio.sleep(pause)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.ended += 1

        return generate()

    def once_and_wait(self) -> AsyncIterator[bytes]:
        async def generate() -> AsyncIterator[bytes]:
            self.started += 1
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                self.ended += 1

        return generate()

    def in_thread(self, pause: float = 0.0, count: int = 1 << 30) -> Iterator[bytes]:
        with self.lock:
            self.started += 1
        try:
            for _ in range(count):
                yield PIECE
                with self.lock:
                    self.produced += 1
                if pause:
                    time.sleep(pause)
        finally:
            with self.lock:
                self.ended += 1


def make_app(producer: Producer, files: Path | None = None) -> App:
    app = App()

    @app.get("/")
    async def index() -> str:
        return "Hello, World!"

    @app.get("/letters")
    async def letters() -> HttpResponse:
        async def generate() -> AsyncIterator[str]:
            for letter in "abcäöü":
                yield letter
                await asyncio.sleep(0)

        return HttpResponse.stream(generate(), content_type="text/plain; charset=utf-8")

    @app.get("/kinds/{kind}")
    async def kinds(kind: str) -> HttpResponse:
        async def generate() -> AsyncIterator[Any]:
            for piece in (b"bytes,", bytearray(b"bytearray,"), memoryview(b"memoryview,"), "", b"", "str"):
                yield piece

        pieces = [b"bytes,", bytearray(b"bytearray,"), memoryview(b"memoryview,"), "", b"", "str"]
        sources: dict[str, Any] = {
            "async": generate(),
            "list": pieces,
            "tuple": tuple(pieces),
            "generator": (piece for piece in pieces),
            "map": map(bytes, [b"bytes,", b"bytearray,", b"memoryview,", b"str"]),
        }
        for name, source in sources.items():
            if name != kind and name == "async":
                await source.aclose()
        return HttpResponse.stream(sources[kind])

    @app.get("/many/{count}")
    async def many(count: int) -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield PIECE

        return HttpResponse.stream(generate())

    @app.get("/many-in-thread/{count}")
    async def many_in_thread(count: int) -> HttpResponse:
        return HttpResponse.stream(producer.in_thread(count=count))

    @app.get("/ticks")
    async def ticks() -> HttpResponse:
        return HttpResponse.stream(producer.in_thread(pause=0.25, count=4))

    @app.get("/sized/{announced}/{sent}")
    async def sized(announced: int, sent: int) -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            for _ in range(sent):
                yield b"x"

        return HttpResponse.stream(generate(), headers={"content-length": str(announced)})

    @app.get("/malformed-length")
    async def malformed() -> HttpResponse:
        return HttpResponse.stream(producer.endless(), headers={"content-length": "many"})

    @app.get("/breaks")
    async def breaks() -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            yield b"so far"
            await asyncio.sleep(0)
            raise ValueError("on purpose")

        return HttpResponse.stream(generate())

    @app.get("/breaks-in-thread")
    async def breaks_in_thread() -> HttpResponse:
        def generate() -> Iterator[bytes]:
            yield b"so far"
            raise ValueError("on purpose")

        return HttpResponse.stream(generate())

    @app.get("/wrong-type")
    async def wrong_type() -> HttpResponse:
        return HttpResponse.stream([b"right", 1])  # type: ignore[list-item]

    @app.get("/endless")
    async def endless() -> HttpResponse:
        return HttpResponse.stream(producer.endless())

    @app.get("/endless/{pause}")
    async def endless_with_pause(pause: float) -> HttpResponse:
        return HttpResponse.stream(producer.endless(pause))

    @app.get("/large-pieces")
    async def large_pieces() -> HttpResponse:
        return HttpResponse.stream(producer.endless(piece=PIECE * 1024))

    @app.get("/waits")
    async def waits() -> HttpResponse:
        return HttpResponse.stream(producer.once_and_wait())

    @app.get("/thread")
    async def thread() -> HttpResponse:
        return HttpResponse.stream(producer.in_thread())

    @app.get("/slow-thread")
    async def slow_thread() -> HttpResponse:
        return HttpResponse.stream(producer.in_thread(pause=0.05))

    @app.get("/late/{pause}")
    async def late(pause: float) -> HttpResponse:
        await asyncio.sleep(pause)
        return HttpResponse.stream(producer.endless(0.01))

    @app.post("/double")
    async def double(req: HttpRequest) -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            try:
                async for piece in req.stream():
                    yield piece + piece
            finally:
                producer.ended += 1

        return HttpResponse.stream(generate())

    @app.post("/deaf")
    async def deaf() -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            yield b"not "
            await asyncio.sleep(0)
            yield b"listening"

        return HttpResponse.stream(generate())

    @app.get("/file/{name}")
    async def file(name: str) -> HttpResponse:
        assert files is not None
        return HttpResponse.file(files / name)

    return app


@pytest.fixture
def producer() -> Producer:
    return Producer()


@pytest.fixture
def running(serve: Serve, producer: Producer) -> Running:
    return serve(make_app(producer))


# ---- framing


def test_chunks(running: Running) -> None:
    with running.connect() as peer:
        peer.request("GET", "/letters")
        head = peer.head()
        assert head.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in head.headers
        pieces = []
        while piece := peer.chunk():
            pieces.append(piece.decode())
        assert "".join(pieces) == "abcäöü"
        assert pieces[0] == "a"
        assert peer.get("/").text == "Hello, World!"


@pytest.mark.parametrize("rest", [b"\n", b"\r\n", b"5\r\nhello\r\n0\r\n\r\n"], ids=repr)
def test_an_unread_chunked_body_may_end_after_the_stream(running: Running, rest: bytes) -> None:
    body = b"3\r\nabc\r\n" + (rest if len(rest) > 2 else b"0\r\n\r\n")
    with running.connect() as peer:
        peer.send(b"POST /deaf HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body[: -len(rest)])
        peer.head()
        pieces = []
        while piece := peer.chunk():
            pieces.append(piece)
        assert b"".join(pieces) == b"not listening"
        # What is left of the body is no request.
        peer.send(rest)
        assert peer.get("/").text == "Hello, World!"


@pytest.mark.parametrize("kind", ["async", "list", "tuple", "generator", "map"])
def test_what_a_stream_may_be(running: Running, kind: str) -> None:
    with running.connect() as peer:
        assert peer.get(f"/kinds/{kind}").text == "bytes,bytearray,memoryview,str"
        assert peer.get("/").status == 200


def test_small_pieces_share_packets(running: Running) -> None:
    with running.connect() as peer:
        peer.request("GET", "/many/1000")
        peer.head()
        sizes = []
        while piece := peer.chunk():
            sizes.append(len(piece))
        assert sizes == [1024] * 1000
        assert peer.get("/").status == 200


def test_a_stream_from_a_thread(running: Running, producer: Producer) -> None:
    with running.connect() as peer:
        assert peer.get("/many-in-thread/800").body == PIECE * 800
        assert peer.get("/many-in-thread/0").body == b""
        assert producer.ended == 2
        assert peer.get("/").status == 200


def test_pieces_from_a_thread_leave_as_they_come(running: Running) -> None:
    """A producer that blocks between two pieces holds the next one back, not the last one."""
    with running.connect() as peer:
        start = time.monotonic()
        peer.request("GET", "/ticks").head()
        assert peer.chunk() == PIECE
        assert time.monotonic() - start < 0.2
        for _ in range(3):
            assert peer.chunk() == PIECE
        assert peer.chunk() == b""


def test_http_1_0_gets_a_body_up_to_the_end_of_the_connection(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"GET /letters HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = peer.answer()
        assert "transfer-encoding" not in answer.headers
        assert "content-length" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert answer.text == "abcäöü"


def test_http_1_0_with_a_length_may_stay(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"GET /sized/3/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = peer.answer()
        assert answer.headers["connection"] == "keep-alive"
        assert answer.text == "xxx"
        assert peer.get("/").status == 200


def test_head_of_a_stream(running: Running, producer: Producer) -> None:
    with running.connect() as peer:
        answer = peer.request("HEAD", "/endless").answer("HEAD")
        assert answer.headers["transfer-encoding"] == "chunked"
        answer = peer.request("HEAD", "/sized/100/1").answer("HEAD")
        assert answer.headers["content-length"] == "100"
        assert peer.get("/").status == 200
    assert (producer.started, producer.produced) == (0, 0)


def test_a_stream_of_the_length_announced(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.get("/sized/10/10")
        assert answer.headers["content-length"] == "10"
        assert "transfer-encoding" not in answer.headers
        assert answer.text == "x" * 10
        assert peer.get("/").status == 200


@pytest.mark.parametrize("sent", [9, 11])
def test_a_stream_of_another_length_is_cut_off(running: Running, sent: int, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as peer:
        peer.request("GET", f"/sized/10/{sent}")
        assert peer.head().headers["content-length"] == "10"
        with contextlib.suppress(ConnectionResetError):
            assert len(peer.rest()) <= 10
    eventually(lambda: "was cut off" in caplog.text)
    assert ("longer" if sent > 10 else "shorter") in caplog.text


def test_a_malformed_length_is_a_fault_of_the_app(running: Running, producer: Producer) -> None:
    with running.connect() as peer:
        assert peer.get("/malformed-length").status == 500
        assert peer.get("/").status == 200
    assert producer.produced == 0


@pytest.mark.parametrize("path", ["/breaks", "/breaks-in-thread", "/wrong-type"])
def test_a_stream_that_fails_is_not_ended_as_if_it_were_whole(
    running: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running.connect() as peer:
        peer.request("GET", path)
        peer.head()
        with contextlib.suppress(ConnectionResetError):
            assert not peer.rest().endswith(b"0\r\n\r\n")
    eventually(lambda: "was cut off" in caplog.text)
    assert running.get("/").status == 200


def test_a_stream_between_pipelined_requests(running: Running) -> None:
    with running.connect() as peer:
        stream = b"GET /letters HTTP/1.1\r\nHost: test\r\n\r\n"
        peer.send(REQUEST + stream + REQUEST + stream + stream + REQUEST)
        texts = [peer.answer().text for _ in range(6)]
        assert texts == ["Hello, World!", "abcäöü", "Hello, World!", "abcäöü", "abcäöü", "Hello, World!"]


def test_a_stream_of_the_request(running: Running, producer: Producer) -> None:
    """Both directions at once: the answer begins before the request has ended."""
    with running.connect() as peer:
        peer.send(b"POST /double HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(50):
            piece = str(number).encode()
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            if number == 0:
                assert peer.head().status == 200
            assert peer.chunk() == piece + piece
        peer.send(b"0\r\n\r\n")
        assert peer.chunk() == b""
        assert peer.get("/").status == 200


def test_curl_sees_the_first_piece_at_once(running: Running) -> None:
    command = [require("curl"), "--silent", "--no-buffer", f"http://127.0.0.1:{running.port}/waits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        assert curl.stdout.read(5) == b"first"
        curl.kill()


def test_http_client_reads_a_stream(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    try:
        for _ in range(3):
            connection.request("GET", "/many/300")
            assert connection.getresponse().read() == PIECE * 300
    finally:
        connection.close()


# ---- disconnects


def leave_by_closing(peer: Any) -> None:
    peer.close()


def leave_by_reset(peer: Any) -> None:
    peer.reset()


@pytest.mark.parametrize("leave", [leave_by_closing, leave_by_reset])
@pytest.mark.parametrize("path", ["/endless", "/endless/0.01", "/waits", "/thread", "/slow-thread", "/large-pieces"])
def test_a_disconnect_ends_the_work(
    running: Running, producer: Producer, path: str, leave: Callable[[Any], None]
) -> None:
    peer = running.connect()
    peer.request("GET", path).head()
    peer.chunk()
    assert producer.ended == 0
    leave(peer)
    eventually(lambda: producer.ended == 1, 5.0)
    eventually(lambda: not running.state.connections)
    eventually(lambda: not running.call(running.state.handlers))
    produced = producer.produced
    assert running.get("/").status == 200
    assert producer.produced == produced
    eventually(lambda: sockets_in("CLOSE_WAIT", running.port) == 0)


def test_a_disconnect_while_the_peer_does_not_read(running: Running, producer: Producer) -> None:
    peer = running.connect(receive_buffer=4096)
    peer.request("GET", "/endless").head()
    connection = next(iter(running.state.connections))
    eventually(lambda: connection.write_paused)
    peer.close()
    eventually(lambda: producer.ended == 1, 5.0)
    eventually(lambda: not running.state.connections)


def test_a_disconnect_before_the_stream_began(running: Running, producer: Producer) -> None:
    peer = running.connect()
    peer.request("GET", "/late/0.05")
    peer.reset()
    eventually(lambda: not running.state.connections)
    eventually(lambda: not running.call(running.state.handlers))
    assert producer.started == producer.ended
    assert producer.produced < 100


def test_a_disconnect_in_the_request_ends_the_stream(running: Running, producer: Producer) -> None:
    peer = running.connect()
    peer.send(b"POST /double HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    peer.head()
    assert peer.chunk() == b"abab"
    peer.close()
    eventually(lambda: producer.ended == 1, 5.0)
    eventually(lambda: not running.state.connections)


def test_a_broken_request_ends_the_stream(running: Running, producer: Producer) -> None:
    with running.connect() as peer:
        peer.send(b"POST /double HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        peer.head()
        assert peer.chunk() == b"abab"
        peer.send(b"no chunk size\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert not peer.rest().endswith(b"0\r\n\r\n")
    eventually(lambda: producer.ended == 1, 5.0)
    eventually(lambda: not running.state.connections)


def test_a_finite_stream_to_a_half_closed_peer(running: Running) -> None:
    with running.connect() as peer:
        peer.request("GET", "/ticks").shut()
        assert peer.answer().body == PIECE * 4
        assert peer.ended()
    eventually(lambda: not running.state.connections)


def test_an_endless_stream_to_a_half_closed_peer(running: Running, producer: Producer) -> None:
    with running.connect() as peer:
        peer.request("GET", "/endless/0.05").shut()
        peer.head()
        # Well beyond the time after which a silent stream is given up.
        for _ in range(30):
            assert peer.chunk() == PIECE
        assert producer.ended == 0
    eventually(lambda: producer.ended == 1, 5.0)
    assert sockets_in("CLOSE_WAIT", running.port) == 0


@pytest.mark.parametrize("path", ["/endless/0.005", "/endless", "/waits", "/slow-thread"])
def test_as_many_ends_as_aborts(running: Running, producer: Producer, path: str) -> None:
    count = 100
    for start in range(0, count, 20):
        peers = [running.connect() for _ in range(20)]
        for peer in peers:
            peer.request("GET", path)
        for number, peer in enumerate(peers):
            if number % 2:
                peer.head()
            if number % 4 == 3:
                peer.chunk()
        for number, peer in enumerate(peers):
            if number % 3:
                peer.close()
            else:
                peer.reset()
        eventually(lambda start=start: producer.started == start + 20 or not running.state.connections)
    eventually(lambda: not running.state.connections)
    eventually(lambda: not running.call(running.state.handlers))
    # A peer may be gone before its stream began, which then has nothing to end.
    eventually(lambda: producer.started == producer.ended)
    assert producer.started > 0
    assert sockets_in("CLOSE_WAIT", running.port) == 0
    assert sockets_in("ESTABLISHED", running.port) == 0


@pytest.mark.slow
def test_four_thousand_aborts(running: Running, producer: Producer) -> None:
    for _ in range(40):
        peers = [running.connect() for _ in range(100)]
        for peer in peers:
            peer.request("GET", "/endless/0.01")
        for peer in peers:
            peer.head()
            peer.chunk()
        for peer in peers:
            peer.close()
    eventually(lambda: producer.ended == 4000)
    assert producer.started == 4000
    eventually(lambda: not running.state.connections)
    assert sockets_in("CLOSE_WAIT", running.port) == 0


def test_aborted_curls(running: Running, producer: Producer) -> None:
    curl = require("curl")
    url = f"http://127.0.0.1:{running.port}/endless/0.01"
    with contextlib.ExitStack() as stack:
        curls = [stack.enter_context(subprocess.Popen([curl, "-sN", url], stdout=subprocess.PIPE)) for _ in range(8)]
        for curl in curls:
            assert curl.stdout is not None
            curl.stdout.read(2000)
            curl.kill()
    eventually(lambda: producer.ended == 8, 5.0)
    eventually(lambda: not running.state.connections)
    assert sockets_in("CLOSE_WAIT", running.port) == 0


# ---- backpressure


def resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("path", ["/endless", "/large-pieces", "/thread"])
def test_a_slow_reader_slows_the_producer(running: Running, producer: Producer, path: str) -> None:
    with running.connect(receive_buffer=8192) as peer:
        peer.request("GET", path).head()
        connection = next(iter(running.state.connections))
        eventually(lambda: connection.write_paused)
        settled = eventually(lambda: (producer.produced, connection.transport.get_write_buffer_size()))
        before = resident()
        for _ in range(50):
            peer.exactly(2000)
            time.sleep(0.002)
        assert resident() - before < 20_000_000
        piece = PIECE * 1024 if path == "/large-pieces" else PIECE
        # What the kernel and the transport may hold, and not one stream's worth more.
        assert producer.produced * len(piece) < 12_000_000, settled
        assert producer.ended == 0
    eventually(lambda: producer.ended == 1, 5.0)


def test_streams_of_slow_readers_do_not_hold_threads(running: Running, producer: Producer) -> None:
    """More streams from threads than the pool has threads, all stuck: the next one is served all the same."""
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            peer = stack.enter_context(running.connect(receive_buffer=4096))
            peer.request("GET", "/thread").head()
        eventually(lambda: all(connection.write_paused for connection in list(running.state.connections)))
        assert running.get("/many-in-thread/10").body == PIECE * 10
    eventually(lambda: producer.started == producer.ended)


# ---- files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files")
    block = bytes(range(256)) * 4096  # 1 MiB
    with (directory / "large.bin").open("wb") as file:
        for number in range(24):
            file.write(number.to_bytes(4, "big") + block)
    (directory / "small.txt").write_text("small")
    (directory / "medium.bin").write_bytes(block)
    (directory / "empty.txt").write_bytes(b"")
    return directory


@pytest.fixture
def file_server(serve: Serve, producer: Producer, files: Path) -> Running:
    return serve(make_app(producer, files))


@pytest.mark.parametrize("name", ["large.bin", "medium.bin", "small.txt", "empty.txt"])
def test_files(file_server: Running, files: Path, name: str) -> None:
    content = (files / name).read_bytes()
    with file_server.connect() as peer:
        answer = peer.get(f"/file/{name}")
        assert answer.status == 200
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()
        answer = peer.request("HEAD", f"/file/{name}").answer("HEAD")
        assert answer.headers["content-length"] == str(len(content))
        assert peer.get(f"/file/{name}", If_None_Match=answer.headers["etag"]).status == 304
        if content:
            answer = peer.get(f"/file/{name}", Range=f"bytes={len(content) - 3}-")
            assert (answer.status, answer.body) == (206, content[-3:])
        if len(content) > 10_000_000:
            answer = peer.get(f"/file/{name}", Range="bytes=1000000-9000000")
            assert (answer.status, answer.body) == (206, content[1_000_000:9_000_001])
        assert peer.get("/").text == "Hello, World!"


def test_files_between_pipelined_requests(file_server: Running, files: Path) -> None:
    with file_server.connect() as peer:
        wanted = ["/file/medium.bin", "/", "/file/small.txt", "/file/medium.bin", "/letters", "/file/absent", "/"]
        peer.send(b"".join(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() for path in wanted))
        answers = [peer.answer() for _ in wanted]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 200, 404, 200]
        assert answers[0].body == answers[3].body == (files / "medium.bin").read_bytes()
        assert answers[2].text == "small"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_to_a_slow_reader(file_server: Running, files: Path) -> None:
    content = (files / "large.bin").read_bytes()
    with file_server.connect(receive_buffer=16384) as peer:
        peer.request("GET", "/file/large.bin")
        assert peer.head().headers["content-length"] == str(len(content))
        before = resident()
        for start in range(0, 400_000, 20_000):
            assert peer.exactly(20_000) == content[start : start + 20_000]
            time.sleep(0.002)
        assert resident() - before < 10_000_000
        with file_server.connect() as other:
            assert other.get("/").status == 200
        assert peer.exactly(len(content) - 400_000) == content[400_000:]
        assert peer.get("/").status == 200


@pytest.mark.parametrize("leave", [leave_by_closing, leave_by_reset])
def test_a_disconnect_ends_a_file(
    file_server: Running, leave: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    peer = file_server.connect(receive_buffer=4096)
    peer.request("GET", "/file/large.bin").head()
    connection = next(iter(file_server.state.connections))
    eventually(lambda: connection.write_paused)
    leave(peer)
    eventually(lambda: not file_server.state.connections)
    eventually(lambda: not file_server.call(file_server.state.handlers))
    assert sockets_in("CLOSE_WAIT", file_server.port) == 0
    assert "cut off" not in caplog.text


def test_a_file_that_becomes_shorter(
    serve: Serve, producer: Producer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shrinks.bin"
    path.write_bytes(b"x" * 30_000_000)
    running = serve(make_app(producer, tmp_path))
    with running.connect(receive_buffer=4096) as peer:
        peer.request("GET", "/file/shrinks.bin").head()
        connection = next(iter(running.state.connections))
        eventually(lambda: connection.write_paused)
        with path.open("r+b") as file:
            file.truncate(1000)
        with contextlib.suppress(ConnectionResetError):
            assert len(peer.rest()) < 30_000_000
    eventually(lambda: "was cut off" in caplog.text)


def test_files_and_streams_over_tls(serve: Serve, producer: Producer, files: Path, pem: tuple[Path, Path]) -> None:
    running = serve(make_app(producer, files), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]))
    context = ssl.create_default_context(cafile=str(pem[0]))
    content = (files / "large.bin").read_bytes()
    with running.connect(context=context) as peer:
        assert peer.get("/file/large.bin").body == content
        assert peer.get("/many/3000").body == PIECE * 3000
        assert peer.get("/many-in-thread/3000").body == PIECE * 3000
        assert peer.get("/file/large.bin", Range="bytes=5-9").body == content[5:10]
        peer.request("GET", "/endless").head()
        peer.chunk()
    eventually(lambda: producer.ended == 2, 5.0)
    peer = running.connect(context=context)
    peer.request("GET", "/waits").head()
    peer.reset()
    eventually(lambda: producer.ended == 3, 5.0)
    eventually(lambda: not running.state.connections)
