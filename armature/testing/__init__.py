"""Testing an app in its own process, over the real connection core; nothing here is imported before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armature.testing.client import AsyncTestClient, TestClient
    from armature.testing.cookies import Cookie, CookieJar
    from armature.testing.errors import (
        ClientClosed,
        ClientError,
        ConnectionClosed,
        HTTPStatusError,
        InvalidResponse,
        RequestTimeout,
        TooManyRedirects,
    )
    from armature.testing.response import ClientRequest, ClientResponse
    from armature.testing.wire import ResponseHead, ResponseParser

__all__ = [
    "AsyncTestClient",
    "ClientClosed",
    "ClientError",
    "ClientRequest",
    "ClientResponse",
    "ConnectionClosed",
    "Cookie",
    "CookieJar",
    "HTTPStatusError",
    "InvalidResponse",
    "RequestTimeout",
    "ResponseHead",
    "ResponseParser",
    "TestClient",
    "TooManyRedirects",
]

_HOMES = {
    "client": ("AsyncTestClient", "TestClient"),
    "cookies": ("Cookie", "CookieJar"),
    "errors": (
        "ClientClosed",
        "ClientError",
        "ConnectionClosed",
        "HTTPStatusError",
        "InvalidResponse",
        "RequestTimeout",
        "TooManyRedirects",
    ),
    "response": ("ClientRequest", "ClientResponse"),
    "wire": ("ResponseHead", "ResponseParser"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
