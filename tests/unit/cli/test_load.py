"""The load generator: where responses end, and what it counts on a server of another make."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from armature.cli.load import LoadError, Reply, cpu_seconds, drive, process_tree, request_bytes

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
ERROR = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length:0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("stream", "statuses"),
    [
        (LENGTH, [200]),
        (LENGTH * 3, [200] * 3),
        (CHUNKED + LENGTH + EMPTY, [200, 200, 204]),
        (INTERIM + CHUNKED + ERROR, [200, 503]),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_responses_end_where_they_end_however_the_stream_is_cut(stream: bytes, statuses: list[int], step: int) -> None:
    reply = Reply()
    found = []
    for at in range(0, len(stream), step):
        reply.feed(stream[at : at + step])
        while reply.complete():
            found.append(reply.status)
    assert found == statuses
    assert reply.closes == stream.endswith(ERROR)


def test_a_response_without_a_length_ends_with_the_connection() -> None:
    reply = Reply()
    reply.feed(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert not reply.complete()
    assert reply.closes
    reply.feed(b"")
    assert reply.complete()


def test_what_is_no_http_is_said() -> None:
    reply = Reply()
    reply.feed(b"SSH-2.0-OpenSSH\r\n\r\n")
    with pytest.raises(LoadError, match="SSH-2.0"):
        reply.complete()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = 404 if self.path == "/none" else 200
        self.send_response(status)
        self.send_header("Content-Length", "5")
        if self.path == "/close":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"hello")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert len(body) == 300_000
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/", "/close"])
def test_as_many_are_asked_as_are_wanted(address: tuple[str, int], path: str) -> None:
    outcome = drive(address, [request_bytes("x", path)], 4, count=21)
    assert 21 <= outcome.requests < 25
    assert outcome.failed == 0
    assert 0 < outcome.p50 <= outcome.p99 <= outcome.seconds


def test_errors_are_counted(address: tuple[str, int]) -> None:
    outcome = drive(address, [request_bytes("x", "/"), request_bytes("x", "/none")], 1, count=10)
    assert (outcome.requests, outcome.failed) == (10, 5)


def test_a_body_larger_than_the_socket_takes_at_once(address: tuple[str, int]) -> None:
    request = request_bytes("x", "/", b"x" * 300_000, [("Content-Type", "application/octet-stream")])
    assert drive(address, [request], 2, count=4).failed == 0


def test_asking_ends_when_the_time_is_over(address: tuple[str, int]) -> None:
    outcome = drive(address, [request_bytes("x", "/")], 2, seconds=0.2)
    assert outcome.requests > 0
    assert outcome.seconds >= 0.2


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(LoadError, match="cannot connect to"):
            drive(probe.getsockname(), [request_bytes("x", "/")], 1, count=1)


def test_a_server_that_hangs_up_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(LoadError, match="closed a connection with 1 requests unanswered"):
            drive(listener.getsockname(), [request_bytes("x", "/")], 1, count=1)
        thread.join()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
def test_the_time_that_a_process_used() -> None:
    before = cpu_seconds(os.getpid())
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert cpu_seconds(os.getpid()) - before > 0.015
    assert process_tree(os.getpid())[0] == os.getpid()


def test_a_chunk_without_a_size_is_no_http() -> None:
    reply = Reply()
    reply.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n")
    with pytest.raises(LoadError, match="chunk of size b'-5'"):
        reply.complete()


def test_the_times_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from armature.cli import load

    monkeypatch.setattr(load, "_MOST_TIMES", 64)
    times = load._Times()
    for number in range(10_000):
        times.add(number / 10_000)
    assert len(times._kept) < 64
    assert times.percentile(50) == pytest.approx(0.5, abs=0.05)
    assert times.percentile(99) == pytest.approx(0.99, abs=0.05)
