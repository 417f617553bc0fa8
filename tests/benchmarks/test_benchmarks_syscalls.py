"""The budget of system calls: a busy server receives once and sends once for a request, and little else."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import pytest

if sys.platform == "win32":
    pytest.skip("the benchmarks measure on Unix alone", allow_module_level=True)

from armature._impl import PURE
from benchmarks import syscalls
from benchmarks.http.loads import LOADS
from benchmarks.twins import AppCore, Sink, get, in_loop
from counterparts import require

#: RUN-18 allows three calls; two of them are receiving and sending, the third is the share of waiting.
BUDGET = 3.0
TWIN = {"ARMATURE_PURE": "1", "ARMATURE_REQUIRE_SPEEDUPS": "0"} if PURE else {}
RECEIVING = {"read", "recv", "recvfrom", "recvmsg", "readv"}
WAITING = {"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select"}
SENDING = {"write", "send", "sendto", "sendmsg", "writev"}

linux = pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux's")


def counted(load: str, io: str) -> dict[str, float]:
    require("strace")
    return syscalls.measure(LOADS[load], TWIN | {"BENCH_OPTIONS": f'{{"io": "{io}"}}'})


@linux
@pytest.mark.parametrize("io", ["asyncio"] if PURE else ["reactor", "asyncio"])
@pytest.mark.parametrize("load", ["plaintext", "param"])
def test_a_request_costs_no_more_calls_than_the_budget(load: str, io: str) -> None:
    found = counted(load, io)
    waiting = sum(found.get(name, 0.0) for name in WAITING)
    assert sum(found.values()) - waiting <= BUDGET - 1 + 0.1, found
    # How many requests share a wait depends on how fast they come. At worst each has its own: the loop's, and with the
    # reactor one that finds it and one that finds no more.
    assert waiting <= (3.1 if io == "reactor" else 1.1), found
    # Receiving and sending are one call each: the connections that are opened and closed make the rest.
    assert sum(found.get(name, 0.0) for name in RECEIVING) == pytest.approx(1.0, abs=0.1), found
    assert sum(found.get(name, 0.0) for name in SENDING) == pytest.approx(1.0, abs=0.05), found


@linux
def test_pipelined_requests_share_their_calls() -> None:
    found = counted("pipelined", "auto")
    assert sum(found.values()) <= BUDGET / 8, found


@pytest.mark.parametrize("depth", [1, 16])
def test_what_one_read_brings_is_answered_by_one_write(depth: int) -> None:
    """The same without strace: one call of the transport's `write` for each read."""
    writes: Counter[int] = Counter()

    class Counting(Sink):
        def __init__(self) -> None:
            super().__init__()
            self.write = self.counted

        def counted(self, data: bytes) -> None:
            writes[data.count(b"HTTP/1.1 200 ")] += 1

    def run(loop: asyncio.AbstractEventLoop) -> None:
        from armature import App

        app = App()

        @app.get("/")
        async def index() -> str:
            return "Hello"

        core = AppCore(app, loop, Counting())
        for _ in range(10):
            core.feed(get("/") * depth)

    in_loop(run)
    assert writes == {depth: 10}
