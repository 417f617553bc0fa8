"""Deadlines and limits: who is too slow or too many is cut, while everybody else is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from armature.app import App
from armature.exceptions import ConfigurationError
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from armature.server import ServerConfig
from armature.server.sweep import CULL_IDLE_SECONDS, Sweep, stats
from wire_client import PATIENCE, Peer, Running, eventually

Serve = Callable[..., Running]


def make_app() -> App:
    app = App()

    @app.get("/")
    async def index() -> str:
        return "Hello, World!"

    @app.post("/body")
    async def body(req: HttpRequest) -> str:
        return str(len(await req.body()))

    @app.post("/ignore")
    async def ignore() -> str:
        return "ignored"

    @app.post("/late")
    async def late(req: HttpRequest) -> str:
        """Begins to read the body when the client has long sent it."""
        await asyncio.sleep(0.6)
        return str(len(await req.body()))

    @app.get("/stuck")
    async def stuck() -> str:
        await asyncio.sleep(3600)
        return "never"

    @app.get("/stubborn")
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return "all the same"

    @app.get("/stream")
    async def stream() -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                produced.set()

        return HttpResponse.stream(generate())

    @app.get("/endless")
    async def endless() -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.sleep(3600)

        return HttpResponse.stream(generate())

    produced = threading.Event()
    app.state.produced = produced
    return app


def moved(before: dict[str, int], name: str) -> Callable[[], bool]:
    return lambda: stats()[name] > before[name]


@contextlib.contextmanager
def others(running: Running) -> Iterator[list[int]]:
    """Somebody else goes on asking meanwhile, and is answered."""
    statuses: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            statuses.append(running.get("/").status)
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join()
        assert statuses
        assert set(statuses) == {200}


# ---- heads


def test_a_head_that_trickles_is_cut_at_the_deadline(serve: Serve) -> None:
    """Bytes buy no time: the deadline is one for the whole head."""
    running = serve(make_app(), head_timeout=0.4)
    before = stats()
    with others(running), running.connect() as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: test\r\n")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < PATIENCE and not moved(before, "heads_timed_out")():
                peer.send(b"X: y\r\n")
                time.sleep(0.02)
        answer = peer.answer()
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert answer.text == "the request did not arrive in time\n"
        with contextlib.suppress(ConnectionError):
            assert peer.rest() == b""


def test_a_head_may_begin_late(serve: Serve) -> None:
    """What is waited for is the head, not the client's decision to send one."""
    running = serve(make_app(), head_timeout=0.2)
    with running.connect() as peer:
        time.sleep(0.5)
        assert peer.get("/").status == 200
        time.sleep(0.5)
        assert peer.get("/").status == 200


def test_every_head_has_a_deadline_of_its_own(serve: Serve) -> None:
    running = serve(make_app(), head_timeout=0.5)
    with running.connect() as peer:
        for _ in range(4):
            peer.send(b"GET / HTTP/1.1\r\nHo")
            time.sleep(0.2)
            peer.send(b"st: test\r\n\r\n")
            assert peer.answer().status == 200


def test_a_pipelined_head_that_never_ends(serve: Serve) -> None:
    running = serve(make_app(), head_timeout=0.2)
    with running.connect() as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHo")
        assert peer.answer().status == 200
        assert peer.answer().status == 408


# ---- bodies


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_body_that_trickles_is_cut_at_the_deadline(serve: Serve, framing: str) -> None:
    running = serve(make_app(), body_timeout=0.4, minimum_rate=1000)
    before = stats()
    with others(running), running.connect() as peer:
        peer.send(f"POST /body HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n".encode())
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < PATIENCE and not moved(before, "bodies_timed_out")():
                peer.send(b"1\r\nx\r\n")
                time.sleep(0.02)
        answer = peer.answer()
        assert answer.status == 408
        assert answer.text == "the body of the request did not arrive in time\n"


def test_a_body_that_arrives_fast_enough_may_take_longer(serve: Serve) -> None:
    running = serve(make_app(), body_timeout=0.2, minimum_rate=1000)
    with running.connect() as peer:
        peer.send(b"POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n")
        for _ in range(5):
            peer.send(b"x" * 1000)
            time.sleep(0.15)
        assert peer.answer().text == "5000"


def test_the_rest_of_a_body_that_nobody_reads_has_a_deadline(serve: Serve) -> None:
    running = serve(make_app(), body_timeout=0.2)
    before = stats()
    with running.connect() as peer:
        peer.send(b"POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\nx")
        assert peer.answer().text == "ignored"
        assert peer.ended()
    assert moved(before, "bodies_timed_out")()


def test_a_handler_that_reads_late_is_not_the_clients_fault(serve: Serve) -> None:
    running = serve(make_app(), body_timeout=0.2, minimum_rate=100_000_000)
    size = 4 * 1024 * 1024
    with running.connect() as peer:
        sender = threading.Thread(
            target=peer.send,
            args=(b"POST /late HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size + bytes(size),),
        )
        sender.start()
        assert peer.answer().text == str(size)
        sender.join()


def test_a_client_that_waits_for_100_continue_is_not_late(serve: Serve) -> None:
    running = serve(make_app(), body_timeout=0.2)
    with running.connect() as peer:
        peer.send(b"POST /late HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert peer.head().status == 100
        peer.send(b"ab")
        assert peer.answer().text == "2"


# ---- idle connections


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    running = serve(make_app(), idle_timeout=0.3)
    before = stats()
    with running.connect() as fresh, running.connect() as used:
        assert used.get("/").status == 200
        assert fresh.ended()
        assert used.ended()
    assert stats()["idle_closed"] - before["idle_closed"] == 2


def test_requests_keep_a_connection_open(serve: Serve) -> None:
    running = serve(make_app(), idle_timeout=0.4)
    with running.connect() as peer:
        for _ in range(5):
            assert peer.get("/").status == 200
            time.sleep(0.2)


def test_a_handler_that_takes_its_time_is_not_idle(serve: Serve) -> None:
    running = serve(make_app(), idle_timeout=0.1, head_timeout=0.1, body_timeout=0.1, write_timeout=0.1)
    with running.connect() as peer, running.connect() as streaming:
        streaming.request("GET", "/endless").head()
        assert streaming.chunk() == b"begun"
        assert peer.request("POST", "/late", b"x").answer().text == "1"
        streaming.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            streaming.more()


def test_without_deadlines_nobody_is_cut(serve: Serve) -> None:
    running = serve(
        make_app(), head_timeout=None, body_timeout=None, idle_timeout=None, write_timeout=None, keep_alive_age=None
    )
    with running.connect() as peer:
        peer.send(b"GET / HT")
        time.sleep(0.3)
        assert peer.send(b"TP/1.1\r\nHost: test\r\n\r\n").answer().status == 200


def test_a_connection_ends_after_so_many_requests(serve: Serve) -> None:
    running = serve(make_app(), keep_alive_requests=3)
    with running.connect() as peer:
        assert [peer.get("/").headers.get("connection") for _ in range(3)] == [None, None, "close"]
        assert peer.ended()
    with running.connect() as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 5)
        answers = [peer.answer() for _ in range(3)]
        assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]


def test_an_old_connection_ends(serve: Serve) -> None:
    running = serve(make_app(), keep_alive_age=0.3, idle_timeout=60)
    with running.connect() as idle, running.connect() as busy, running.connect() as reading:
        busy.request("POST", "/late", b"x")
        reading.send(b"GET / HTTP/1.1\r\nHo")
        assert idle.ended()
        answer = busy.answer()
        assert answer.text == "1"
        assert answer.headers["connection"] == "close"
        assert busy.ended()
        answer = reading.send(b"st: test\r\n\r\n").answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"


# ---- slow readers


def test_a_client_that_does_not_read_is_cut(serve: Serve) -> None:
    app = make_app()
    running = serve(app, write_timeout=0.4)
    before = stats()
    with others(running), Peer(running.address, receive_buffer=4096) as peer:
        peer.request("GET", "/stream")
        eventually(moved(before, "slow_readers_cut"))
        assert app.state.produced.wait(PATIENCE)
    eventually(lambda: not running.state.connections)


def test_a_client_that_reads_too_slowly_is_cut(serve: Serve) -> None:
    """Progress alone does not help: it must be as much as `minimum_rate` asks for."""
    app = make_app()
    running = serve(app, write_timeout=0.5, minimum_rate=100_000_000)
    before = stats()
    with Peer(running.address, receive_buffer=4096) as peer:
        peer.request("GET", "/stream")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not moved(before, "slow_readers_cut")() and time.monotonic() - begun < PATIENCE:
                peer.socket.recv(1000)
                time.sleep(0.01)
    assert moved(before, "slow_readers_cut")()


def test_a_client_that_reads_fast_enough_is_not_cut(serve: Serve) -> None:
    running = serve(make_app(), write_timeout=0.2, minimum_rate=1000)
    before = stats()
    with Peer(running.address, receive_buffer=4096) as peer:
        peer.request("GET", "/stream")
        begun = time.monotonic()
        while time.monotonic() - begun < 1:
            assert peer.socket.recv(65536)
            time.sleep(0.001)
    assert not moved(before, "slow_readers_cut")()


# ---- handlers


def test_a_handler_that_takes_too_long_is_cancelled(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(make_app(), handler_timeout=0.2)
    with running.connect() as peer:
        answer = peer.get("/stuck")
        assert answer.status == 503
        assert answer.text == "Service Unavailable"
        assert answer.headers["connection"] == "close"
        assert peer.ended()
    assert "GET /stuck took longer than handler_timeout" in caplog.text
    with running.connect() as peer:
        assert peer.get("/stubborn").text == "all the same"
        assert peer.get("/").status == 200


def test_a_stream_that_takes_too_long_is_broken_off(serve: Serve) -> None:
    running = serve(make_app(), handler_timeout=0.2)
    with running.connect() as peer:
        peer.request("GET", "/endless").head()
        assert peer.chunk() == b"begun"
        with contextlib.suppress(ConnectionResetError):
            assert not peer.more()


def test_handlers_are_not_timed_unless_asked_for(serve: Serve) -> None:
    running = serve(make_app())
    with running.connect() as peer:
        assert peer.request("POST", "/late", b"x").answer().text == "1"


# ---- too many connections


def test_more_connections_than_allowed_are_turned_away(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(make_app(), max_connections=3)
    before = stats()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(running.connect()) for _ in range(3)]
        assert [peer.get("/").status for peer in peers] == [200] * 3
        with running.connect() as further:
            answer = further.answer()
            assert answer.status == 503
            assert answer.headers["connection"] == "close"
            assert answer.text == "the server has as many connections as it takes\n"
        assert [peer.get("/").status for peer in peers] == [200] * 3
        peers[0].close()
        eventually(lambda: len(running.state.connections) < 3)
        assert running.get("/").status == 200
    assert stats()["turned_away"] - before["turned_away"] == 1


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Any) -> Any:
        return self

    def cancel(self) -> None:
        pass


class Held:
    """A connection, as the sweep sees it."""

    closing = False

    def __init__(self, since: float, waits: bool = True) -> None:
        self.since = self.accepted = since
        self.waits = waits
        self.ended = False

    def overdue(self, now: float, idle: float, head: float, body: float, rate: float) -> int:
        return int(self.waits and now - self.since > idle)

    def shutdown(self) -> None:
        self.ended = True


class State:
    def __init__(self, **options: Any) -> None:
        self.config = ServerConfig(**options)
        self.loop = self.dispatcher = Clock()
        self.connections: set[Any] = set()

    def handlers(self) -> list[Any]:
        return []


def test_the_idle_limit_falls_with_the_load() -> None:
    state = State(max_connections=100)
    sweep = Sweep(state)  # type: ignore[arg-type]
    limits = []
    for count in (0, 50, 70, 80, 90, 100):
        state.connections = set(range(count))
        limits.append(round(sweep.idle_limit(), 1))
    assert limits == [60.0, 60.0, 60.0, 41.7, 23.3, 5.0]
    state = State(max_connections=None)
    assert Sweep(state).idle_limit() == 60.0  # type: ignore[arg-type]


def test_under_pressure_the_oldest_idle_connections_go_first() -> None:
    """At most 100 a sweep, never one that is busy, never one that has just been used."""
    state = State(max_connections=1000, idle_timeout=3600, keep_alive_age=None)
    sweep = Sweep(state)  # type: ignore[arg-type]
    old = [Held(900 - number) for number in range(150)]
    busy = [Held(100, waits=False) for _ in range(500)]
    fresh = [Held(1000 - CULL_IDLE_SECONDS / 2) for _ in range(200)]
    state.connections = {*old, *busy, *fresh}
    sweep._sweep()
    assert sum(one.ended for one in old) == 100
    assert all(one.ended for one in sorted(old, key=lambda one: one.since)[:100])
    assert not any(one.ended for one in (*busy, *fresh))
    state.connections -= {one for one in old if one.ended}
    before = sum(one.ended for one in old)
    sweep._sweep()
    assert sum(one.ended for one in old) == before, "the pressure is gone"


def test_idle_connections_are_kept_while_there_are_few() -> None:
    state = State(max_connections=100, idle_timeout=3600, keep_alive_age=None)
    sweep = Sweep(state)  # type: ignore[arg-type]
    state.connections = {Held(950) for _ in range(95)}
    sweep._sweep()
    assert not any(one.ended for one in state.connections)


def test_the_sweep_sleeps_while_nobody_is_connected(serve: Serve) -> None:
    running = serve(make_app(), idle_timeout=0.1)
    assert running.get("/").status == 200
    eventually(lambda: running.state.sweep._timer is None)
    with running.connect() as peer:
        assert peer.get("/").status == 200
        assert running.state.sweep._timer is not None
        assert peer.ended()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"head_timeout": 0}, "head_timeout must be a number of seconds above 0, or None, not 0"),
        ({"body_timeout": -1}, "body_timeout must be a number of seconds above 0"),
        ({"idle_timeout": "5"}, "idle_timeout must be a number of seconds above 0, or None, not '5'"),
        ({"write_timeout": float("nan")}, "write_timeout must be a number of seconds above 0"),
        ({"handler_timeout": 0.0}, "handler_timeout must be a number of seconds above 0"),
        ({"minimum_rate": -1}, "minimum_rate must be a number from 0"),
        ({"max_connections": 0}, "max_connections must be a number from 1"),
        ({"keep_alive_requests": 0}, "keep_alive_requests must be a number from 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerConfig(**options)
    assert text in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="the limit of descriptors")
def test_descriptors_that_run_out_come_back(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """While the process has no descriptor for a connection it waits in the kernel's queue, and is served later."""
    import resource

    running = serve(make_app())
    assert running.get("/").status == 200
    caplog.set_level(logging.CRITICAL, "asyncio")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        waiting = socket.socket()
        stack.callback(waiting.close)
        waiting.settimeout(PATIENCE)
        held = []
        try:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            waiting.connect(running.address)
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            time.sleep(0.3)
        finally:
            for one in held:
                one.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        answer = b""
        try:
            while data := waiting.recv(4096):
                answer += data
        except ConnectionResetError:
            # libuv keeps a descriptor in reserve, to turn such a client away.
            assert running.loop_name == "uvloop"
            assert running.state.reactor is None
        else:
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert running.get("/").status == 200
