"""What the twins' own ways with memory are held against: plain bytearrays, plain objects, and many at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


class Plain:
    """A Python object of a response's size, as one would write it without a thought."""

    __slots__ = ("__weakref__", "body", "content_type", "fields", "status", "stream", "view")

    def __init__(self, body: bytes, status: int, content_type: bytes) -> None:
        self.body = body
        self.status = status
        self.content_type = content_type
        self.fields = self.stream = self.view = None


@pytest.mark.parametrize("size", [64, 4096, 65536])
def test_plain_bytearray(benchmark: Any, size: int) -> None:
    benchmark.extra_info["impl"] = "py"
    half = b"x" * (size // 2)

    def exchange() -> bytes:
        buffer = bytearray()
        buffer += half
        buffer += half
        return bytes(buffer)

    assert len(benchmark(exchange)) == size


def test_plain_object(benchmark: Any) -> None:
    benchmark.extra_info["impl"] = "py"
    assert benchmark(Plain, b"ok", 200, b"text/plain").status == 200


def test_response_object(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    assert benchmark(twin("message").Response, b"ok", 200, None, "text/plain").status == 200


def test_weak_reference(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    response_class = twin("message").Response

    def make() -> bool:
        response = response_class()
        return weakref.ref(response)() is response

    assert benchmark(make)


def test_drop_1000_responses(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    response_class = twin("message").Response

    def setup() -> tuple[tuple[list[Any]], dict[str, Any]]:
        return ([response_class(b"ok", 200, None, "text/plain") for _ in range(1000)],), {}

    benchmark.pedantic(lambda responses: responses.clear(), setup=setup, rounds=50)
