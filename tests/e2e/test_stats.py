"""Every system that a request passes through moves a counter of `armature.stats()`, and no system is there unused."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import armature
from armature import App, HttpRequest, HttpResponse
from armature._stats import COUNTERS
from armature.server.metrics import metrics
from wire_client import REQUEST, Peer, Running, eventually

Serve = Callable[..., Running]

COMPILED = armature.IMPL == "c"

#: Counters of what only compiled code does: the pure twin leaves memory and sockets to Python.
COMPILED_ONLY = {
    "buffers.blocks_allocated",
    "buffers.blocks_reused",
    "wire.direct_sends",
    "wire.partial_sends",
}
#: Counters of what the load and the clock decide, not a request: tests of the reactor and of the deadlines bring them
#: about.
BY_LOAD = {"reactor.rests", "reactor.stale", *(name for name in COUNTERS if name.startswith("sweep."))}

LARGE = b"x" * 8_000_000


def make_app() -> App:
    app = App()
    app.add_route("/metrics", metrics)

    @app.get("/")
    async def index() -> str:
        return "hello"

    @app.get("/users/{number}")
    async def user(number: int) -> dict[str, int]:
        return {"number": number}

    @app.post("/size")
    async def size(request: HttpRequest) -> str:
        return str(len(await request.body()))

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0)
        return "slow"

    @app.get("/callback")
    async def callback() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: None)
        return "callback"

    @app.get("/large")
    async def large() -> bytes:
        return LARGE

    @app.get("/stream")
    async def stream() -> HttpResponse:
        async def pieces() -> Any:
            for _ in range(600):
                yield b"piece"

        return HttpResponse.stream(pieces())

    return app


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Watch:
    """Notes which counters a request moves."""

    def __init__(self) -> None:
        self.moved: set[str] = set()

    def moves(self, names: str, request: Callable[[], object]) -> None:
        """Make a request; its counters must move, with those that move for every request."""
        wanted = set(names.split())
        before = armature.stats()
        request()
        expected = {name for name in wanted if COMPILED or name not in COMPILED_ONLY}

        def still() -> set[str]:
            now = armature.stats()
            return {name for name in expected if now[name] <= before[name]}

        try:
            eventually(lambda: not still(), 5)
        except AssertionError:
            raise AssertionError(f"{sorted(still())} did not move") from None
        self.moved |= wanted


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """An access log that is written directly, to a pipe that nobody reads; the fixture is its reading end."""
    reading, writing = os.pipe()
    # pytest puts handlers of its own everywhere.
    monkeypatch.setattr("armature.server.access_log.has_foreign_handlers", lambda name: False)
    monkeypatch.setattr(logging.getLogger("armature.access"), "level", logging.INFO)
    monkeypatch.setattr("armature.server.access_log._descriptor", lambda stream: writing)
    yield reading
    os.close(writing)


def test_every_counter_moves(serve: Serve, unwatched: int) -> None:
    watch = Watch()
    running = serve(make_app(), access_log=True, body_limit=1_000_000)
    plain = serve(make_app(), io="asyncio")
    foreign = serve(asgi_app)

    with running.connect() as peer, plain.connect() as other, foreign.connect() as third:
        get = peer.get
        watch.moves(
            "connection.requests connection.reads connection.bytes_received router.static_hits dispatch.batches "
            "wire.bytes_sent report.lines report.answers_timed",
            get,
        )
        watch.moves("router.tree_hits buffers.blocks_reused", lambda: get("/users/1"))
        watch.moves("router.misses connection.materialised", lambda: get("/nothing"))
        watch.moves("router.not_allowed", lambda: peer.request("POST").answer())
        watch.moves("wire.direct_sends" if COMPILED else "wire.transport_writes", other.get)
        watch.moves("dispatch.suspended dispatch.tasks", lambda: [get("/slow"), get()])
        watch.moves("dispatch.spares_replaced", lambda: get("/callback"))
        watch.moves("asgi.requests asgi.whole_answers", third.get)
        watch.moves(
            "exchange.streams exchange.stream_pieces pump.pieces pump.drains", lambda: get("/stream").body.count(b"x")
        )

        def pipeline() -> None:
            peer.send(REQUEST * 3)
            assert [peer.answer().text for _ in range(3)] == ["hello"] * 3

        watch.moves("connection.pipelined exchange.responses_joined", pipeline)
        watch.moves("connection.bodies_in_place", lambda: peer.request("POST", "/size", b"body").answer())
        watch.moves("connection.bodies_in_pieces connection.bodies_whole", lambda: send_apart(peer, b"b" * 200_000))
        watch.moves("connection.continues", lambda: expect_continue(peer))
    watch.moves("wire.opened wire.closed", lambda: running.get())
    watch.moves("connection.refused", lambda: refused(running))
    with running.connect(receive_buffer=4096) as peer:
        watch.moves(
            "exchange.large_bodies wire.partial_sends wire.transport_writes", lambda: peer.request("GET", "/large")
        )
    watch.moves("buffers.blocks_allocated connection.heads_in_pieces", lambda: half_heads(running))
    reactor = running.state.reactor is not None
    if reactor:
        watch.moves("reactor.accepted reactor.batches reactor.events", lambda: running.get())
    watch.moves("report.lines_dropped", lambda: flood(running))
    watch.moves("access_log.lines_lost", lambda: os.close(unwatched))

    exempt = BY_LOAD | (set() if reactor else {name for name in COUNTERS if name.startswith("reactor.")})
    assert set(COUNTERS) - exempt - watch.moved - (set() if COMPILED else COMPILED_ONLY) == set()
    assert set(armature.stats()) == set(COUNTERS)


def send_apart(peer: Peer, body: bytes) -> None:
    peer.send(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
    for start in range(0, len(body), 20_000):
        peer.send(body[start : start + 20_000])
    assert peer.answer().text == str(len(body))


def expect_continue(peer: Peer) -> None:
    peer.send(b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
    assert peer.head().status == 100
    peer.send(b"x")
    assert peer.answer().text == "1"


def refused(running: Running) -> None:
    with running.connect() as peer:
        assert peer.send(b"GET / HTTP/1.1\r\n\r\n").answer().status == 400


def half_heads(running: Running) -> None:
    # More of them than blocks are pooled, each of which keeps what it has.
    peers = [running.connect() for _ in range(80)]
    try:
        before = armature.stats()["connection.heads_in_pieces"]
        for peer in peers:
            peer.send(REQUEST[:-4])
        eventually(lambda: armature.stats()["connection.heads_in_pieces"] >= before + len(peers))
    finally:
        for peer in peers:
            peer.close()


def flood(running: Running) -> None:
    # More lines than may wait, while nobody reads the log: the server goes on.
    request = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"long/" * 400)
    with running.connect() as peer:
        for _ in range(60):
            peer.send(request * 10)
            for _ in range(10):
                assert peer.answer().status == 404


def test_counters_are_read_from_any_thread_while_requests_are_served(serve: Serve) -> None:
    import threading

    running = serve(make_app())
    faults: list[str] = []
    stop = threading.Event()

    def read() -> None:
        before = armature.stats()
        while not stop.is_set():
            now = armature.stats()
            faults.extend(name for name, number in now.items() if number < before[name])
            before = now

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with running.connect() as peer:
            for _ in range(50):
                assert peer.get("/users/7").status == 200
                # Routers come and go, as in a program that builds several apps.
                App().build()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
