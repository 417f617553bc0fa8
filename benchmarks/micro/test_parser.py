"""Request heads of 1, 9 and 12 field lines, in one piece and in two, and a chunked body."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from benchmarks.http.loads import BROWSER, PROXIED
from benchmarks.twins import HOST, get

HEADS = {
    "1 field": get("/", HOST),
    "9 fields": get("/", HOST + BROWSER),
    "12 fields": get("/", HOST + BROWSER + PROXIED),
}
CHUNKED = (b"400\r\n" + b"x" * 1024 + b"\r\n") * 16 + b"0\r\n\r\n"


@pytest.mark.parametrize("head", HEADS)
def test_head(benchmark: Any, twin: Callable[[str], ModuleType], head: str) -> None:
    parser = twin("parser").HeadParser()
    data = HEADS[head]

    def parse() -> int:
        parser.reset()
        return parser.parse(data)

    assert benchmark(parse) == len(data)


def test_head_with_its_fields_read(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    parser = twin("parser").HeadParser()
    data = HEADS["9 fields"]

    def parse() -> list[tuple[bytes, bytes]]:
        parser.reset()
        parser.parse(data)
        return parser.headers

    assert len(benchmark(parse)) == 9


def test_head_in_two_pieces(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    parser = twin("parser").HeadParser()
    data = HEADS["9 fields"]
    part = data[: len(data) // 2]

    def parse() -> int:
        parser.reset()
        parser.parse(part)
        return parser.parse(data)

    assert benchmark(parse) == len(data)


def test_chunked_body_16_kib(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    parser = twin("chunked").ChunkedParser()

    def parse() -> int:
        parser.reset()
        return len(parser.parse(CHUNKED)[1])

    assert benchmark(parse) == 16
