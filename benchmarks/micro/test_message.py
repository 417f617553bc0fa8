"""Requests made, bound and read; responses made with and without JSON and fields."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from armature.http import json as codec

FIELDS = [
    (b"host", b"127.0.0.1:8000"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    (b"accept", b"text/html,application/xhtml+xml"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"cookie", b"session=3f2a9c51b7d84e06"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"x-request-id", b"5b1f7a1c-8f0e-4b58-9a0b-0a1f6f0d6f5e"),
]
NAMES, VALUES = ("user_id",), ("1234",)
JSON = {
    "small": {"message": "Hello, World!"},
    "large": [{"id": n, "name": f"user {n}", "tags": ["a", "b"], "score": n / 7, "active": True} for n in range(100)],
}


def test_request(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    request_class = twin("message").Request
    assert benchmark(request_class, None, "GET", b"/", b"", FIELDS, "1.1").method == "GET"


def test_request_with_its_parameter_read(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    request_class = twin("message").Request

    def make() -> str:
        request = request_class(None, "GET", b"/users/1234", b"", FIELDS, "1.1")
        request.bind(NAMES, VALUES)
        return str(request.param("user_id"))

    assert benchmark(make) == "1234"


@pytest.mark.parametrize("name", ["host", "x-request-id", "absent"])
def test_request_header(benchmark: Any, twin: Callable[[str], ModuleType], name: str) -> None:
    request = twin("message").Request(None, "GET", b"/", b"", FIELDS, "1.1")
    assert (benchmark(request.header, name.encode()) is None) == (name == "absent")


def test_response_empty(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    assert benchmark(twin("message").Response).status == 200


def test_response_with_3_fields(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    response_class = twin("message").Response
    fields = {"cache-control": "no-store", "x-request-id": "5b1f7a1c", "vary": "accept-encoding"}
    assert len(benchmark(response_class, b"ok", 200, fields, "text/plain").fields()) == 4


@pytest.mark.parametrize("size", JSON)
def test_response_json(benchmark: Any, twin: Callable[[str], ModuleType], size: str) -> None:
    message = twin("message")
    message.set_json_encoder(codec.dumps)
    assert benchmark(message.Response.json, JSON[size]).body
