"""The HTTP/1.1 server: `run` serves an app until stopped, `Server` does so on a loop that runs already."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armature.server.config import ServerConfig
    from armature.server.listeners import ListenError
    from armature.server.runner import Server, run

__all__ = ["ListenError", "Server", "ServerConfig", "run"]

_MODULES = {"ListenError": "listeners", "Server": "runner", "ServerConfig": "config", "run": "runner"}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"armature.server.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
