"""What repeats itself leaves nothing behind: memory, objects and descriptors stay where they were.

`ARMATURE_SOAK_REQUESTS` says how many requests; the default is short.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from armature.app import App
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from e2e.command_line import command
from wire_client import PATIENCE, Peer, Running, eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

REQUESTS = int(os.environ.get("ARMATURE_SOAK_REQUESTS", "20000"))

#: What a run may leave behind, in KiB; the allocator's own arenas are this coarse.
SLACK = 1536

PROGRAM = """
import asyncio
import gc

from armature import App, HttpRequest, HttpResponse

app = App()


@app.get("/")
async def index() -> str:
    return "Hello, World!"


@app.get("/users/{user_id}")
async def user(user_id: int) -> dict[str, int]:
    return {"id": user_id}


@app.post("/echo")
async def echo(req: HttpRequest) -> bytes:
    return await req.body()


@app.get("/suspend")
async def suspend() -> str:
    await asyncio.sleep(0)
    return "later"


@app.get("/fail")
async def fail() -> str:
    raise ValueError("broken")


@app.get("/stream")
async def stream() -> HttpResponse:
    async def generate():
        for number in range(20):
            yield b"%d" % number
            await asyncio.sleep(0)

    return HttpResponse.stream(generate())


@app.get("/thread")
def thread() -> str:
    return "from a thread"


@app.get("/objects")
async def objects() -> int:
    gc.collect()
    return len(gc.get_objects())
"""

SCENE = b"".join(
    (
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /users/%d HTTP/1.1\r\nHost: test\r\nX-Number: %d\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /suspend?%d HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /absent/%d HTTP/1.1\r\nHost: test\r\n\r\n",
        b"DELETE / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n",
    )
)
STATUSES = [200, 200, 200, 200, 200, 404, 405, 200]


def resident(process: int) -> int:
    """The process's memory in KiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def play(port: int, count: int, first: int) -> None:
    """Ask `count` times, over connections that end now and then."""
    number = first
    while number < first + count:
        with Peer(("127.0.0.1", port)) as peer:
            for _ in range(50):
                peer.send(SCENE % (number, number, number, number))
                assert [peer.answer().status for _ in STATUSES] == STATUSES
                number += len(STATUSES)
        with Peer(("127.0.0.1", port)) as peer:
            # One that goes away in the middle of what it asked for.
            peer.send(SCENE % (number, number, number, number) + b"GET / HTTP/1.1\r\nHo")


def test_requests_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    with command("run", "main:app", "--port", "0", cwd=tmp_path) as running:
        port = running.port
        process = running.process.pid

        def objects() -> int:
            with Peer(("127.0.0.1", port)) as peer:
                return int(peer.get("/objects").text)

        play(port, max(REQUESTS // 4, 2000), 0)
        objects()
        objects_before, memory_before = objects(), resident(process)
        descriptors_before = len(os.listdir(f"/proc/{process}/fd"))
        play(port, REQUESTS, 1_000_000)
        objects_after, memory_after = objects(), resident(process)
        eventually(lambda: len(os.listdir(f"/proc/{process}/fd")) <= descriptors_before)
    assert objects_after - objects_before < 100, (objects_before, objects_after)
    assert memory_after - memory_before < SLACK, (memory_before, memory_after)


def test_a_slow_reader_costs_little(serve: Callable[..., Running]) -> None:
    """Two hundred megabytes to a client that hardly reads: the generator waits, and memory does not grow."""
    produced = [0]
    ended = threading.Event()
    app = App()

    @app.get("/stream")
    async def stream() -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            try:
                for _ in range(200 * 16):
                    produced[0] += 65536
                    yield bytes(65536)
            finally:
                ended.set()

        return HttpResponse.stream(generate())

    running = serve(app, write_timeout=2.0)
    with Peer(running.address, receive_buffer=4096) as peer:
        peer.request("GET", "/stream")
        peer.more()
        gc.collect()
        before = resident(os.getpid())
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not ended.is_set() and time.monotonic() - begun < PATIENCE:
                peer.socket.recv(50)
                time.sleep(0.05)
        assert ended.is_set()
        # What the kernel holds for a client is not ours, but it is bounded as well.
        assert produced[0] < 16 * 1024 * 1024
        assert resident(os.getpid()) - before < 5 * 1024
    eventually(lambda: not running.state.connections)


def test_blocked_threads_stop_no_async_handler(serve: Callable[..., Running]) -> None:
    """Every thread of the pool is taken, and more wait for one; async handlers do not notice."""
    gate = threading.Event()
    entered = []
    app = App()

    @app.get("/blocking")
    def blocking() -> str:
        entered.append(1)
        assert gate.wait(PATIENCE)
        return "unblocked"

    @app.get("/")
    async def index() -> str:
        return "Hello, World!"

    @app.post("/body")
    async def body(req: HttpRequest) -> Any:
        return len(await req.body())

    running = serve(app)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(running.connect()) for _ in range(100)]
        stack.callback(gate.set)
        for peer in peers:
            peer.request("GET", "/blocking")
        eventually(lambda: entered)
        for _ in range(50):
            assert running.get("/").text == "Hello, World!"
        with running.connect() as peer:
            assert peer.request("POST", "/body", bytes(300_000)).answer().text == "300000"
        assert len(entered) < 100
        gate.set()
        assert [peer.answer().text for peer in peers] == ["unblocked"] * 100
