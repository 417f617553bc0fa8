"""The carry buffer: a request that comes in two pieces, and bulk."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.mark.parametrize("size", [64, 4096, 65536])
def test_append_and_take(benchmark: Any, twin: Callable[[str], ModuleType], size: int) -> None:
    buffer = twin("buffers").Buffer()
    half = b"x" * (size // 2)

    def exchange() -> bytes:
        buffer.append(half)
        buffer.append(half)
        return buffer.take()

    assert len(benchmark(exchange)) == size


def test_append_and_consume(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    buffer = twin("buffers").Buffer()
    data = b"x" * 512

    def exchange() -> int:
        buffer.append(data)
        buffer.consume(512)
        return len(buffer)

    assert benchmark(exchange) == 0
