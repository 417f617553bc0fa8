"""A whole small request through the connection core: bytes in, handler called, bytes out; no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from benchmarks.twins import REQUESTS, Core, in_loop


@pytest.mark.parametrize("name", REQUESTS)
def test_feed(benchmark: Any, twin: Callable[[str], ModuleType], impl: str, name: str) -> None:
    def run(loop: asyncio.AbstractEventLoop) -> None:
        core = Core(impl, loop)
        core.check(name)
        benchmark(core.feed, REQUESTS[name])

    in_loop(run)
