"""Armature: a Python web framework whose hot paths exist twice, in C and in Python.

Every name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armature._impl import IMPL
    from armature._stats import stats
    from armature.app import App
    from armature.binding.markers import Cookie, Header, Path, Query
    from armature.exceptions import (
        ArmatureError,
        ClientDisconnect,
        ConfigurationError,
        HTTPException,
        MissingDependencyError,
        PayloadTooLarge,
        ProtocolError,
        RequestValidationError,
        RouteError,
    )
    from armature.health import HealthRouter
    from armature.http import (
        URL,
        FileResponse,
        Headers,
        HttpRequest,
        HttpResponse,
        MutableHeaders,
        QueryParams,
        ServerSentEvent,
        State,
        StaticFiles,
    )
    from armature.http.file_cache import FileCache
    from armature.middleware.compression import CompressionMiddleware
    from armature.middleware.cors import CORSMiddleware
    from armature.middleware.https_redirect import HTTPSRedirectMiddleware
    from armature.middleware.logging import LoggerMiddleware
    from armature.middleware.proxy_headers import ProxyHeadersMiddleware
    from armature.routing.convertors import Convertor, register_convertor
    from armature.routing.methods import any, delete, get, head, options, patch, post, put
    from armature.routing.router import APIRouter, Router, scope

__version__ = "0.1.0"

__all__ = [
    "APIRouter",
    "App",
    "ArmatureError",
    "CORSMiddleware",
    "ClientDisconnect",
    "CompressionMiddleware",
    "ConfigurationError",
    "Convertor",
    "Cookie",
    "FileCache",
    "FileResponse",
    "HTTPException",
    "HTTPSRedirectMiddleware",
    "Header",
    "Headers",
    "HealthRouter",
    "HttpRequest",
    "HttpResponse",
    "IMPL",
    "LoggerMiddleware",
    "MissingDependencyError",
    "MutableHeaders",
    "Path",
    "PayloadTooLarge",
    "ProtocolError",
    "ProxyHeadersMiddleware",
    "Query",
    "QueryParams",
    "RequestValidationError",
    "RouteError",
    "Router",
    "ServerSentEvent",
    "State",
    "StaticFiles",
    "URL",
    "any",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "register_convertor",
    "scope",
    "stats",
]

#: Module -> the public names that stand there.
_HOMES = {
    "_impl": ("IMPL",),
    "_stats": ("stats",),
    "app": ("App",),
    "binding.markers": ("Cookie", "Header", "Path", "Query"),
    "exceptions": (
        "ArmatureError",
        "ClientDisconnect",
        "ConfigurationError",
        "HTTPException",
        "MissingDependencyError",
        "PayloadTooLarge",
        "ProtocolError",
        "RequestValidationError",
        "RouteError",
    ),
    "http": (
        "FileResponse",
        "Headers",
        "HttpRequest",
        "HttpResponse",
        "MutableHeaders",
        "QueryParams",
        "ServerSentEvent",
        "State",
        "StaticFiles",
        "URL",
    ),
    "health": ("HealthRouter",),
    "http.file_cache": ("FileCache",),
    "middleware.compression": ("CompressionMiddleware",),
    "middleware.cors": ("CORSMiddleware",),
    "middleware.https_redirect": ("HTTPSRedirectMiddleware",),
    "middleware.logging": ("LoggerMiddleware",),
    "middleware.proxy_headers": ("ProxyHeadersMiddleware",),
    "routing.convertors": ("Convertor", "register_convertor"),
    "routing.methods": ("any", "delete", "get", "head", "options", "patch", "post", "put"),
    "routing.router": ("APIRouter", "Router", "scope"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
