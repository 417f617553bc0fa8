"""Response heads: what a plain answer needs, and one with many fields; the frame of a chunk."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

FIELDS = [
    (b"cache-control", b"no-store"),
    (b"content-language", b"en"),
    (b"etag", b'"33a64df551425fcc55e4d42a148795d9f25f89d4"'),
    (b"set-cookie", b"session=3f2a9c51b7d84e06; Path=/; HttpOnly; Secure; SameSite=Lax"),
    (b"strict-transport-security", b"max-age=63072000"),
    (b"vary", b"Accept-Encoding"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-request-id", b"5b1f7a1c-8f0e-4b58-9a0b-0a1f6f0d6f5e"),
]
CHUNK = b"x" * 1024


def test_head(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    head = twin("writer").Writer().head
    assert b"content-length: 13" in benchmark(head, 200, None, b"text/plain; charset=utf-8", 13, 0)


def test_head_with_8_fields(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    head = twin("writer").Writer().head
    assert b"nosniff" in benchmark(head, 200, FIELDS, b"text/html", 5000, 0)


def test_chunk(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    assert benchmark(twin("writer").chunk, CHUNK).startswith(b"400\r\n")
