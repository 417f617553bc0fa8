"""Requests without a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from armature.http import HttpRequest


class FakeCarrier:
    """What a request asks its connection for."""

    scheme = "http"
    client = ("127.0.0.1", 5000)
    server = ("127.0.0.1", 8000)
    app: Any = None

    def __init__(self) -> None:
        self.gone = False

    def is_disconnected(self) -> bool:
        return self.gone


@pytest.fixture
def make_request() -> Callable[..., HttpRequest]:
    def make(
        method: str = "GET",
        target: str = "/",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes | None = b"",
        receiver: Any = None,
        carrier: Any = None,
    ) -> HttpRequest:
        path, _, query = target.partition("?")
        pairs = headers.items() if isinstance(headers, dict) else headers or []
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return HttpRequest(
            FakeCarrier() if carrier is None else carrier,
            method,
            path.encode("latin-1"),
            query.encode("latin-1"),
            raw,
            "1.1",
            body,
            receiver,
        )

    return make
