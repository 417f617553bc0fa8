"""The messages of HTTP: request, response, and what they are made of."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from armature._impl import message
from armature.http.headers import Headers, MutableHeaders
from armature.http.json import dumps, loads
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from armature.http.state import State
from armature.http.url import URL, QueryParams

if TYPE_CHECKING:
    from armature.http.body import BodyReceiver
    from armature.http.conditional import check_preconditions
    from armature.http.files import FileResponse
    from armature.http.forms import FormData
    from armature.http.negotiation import accepts, accepts_encoding
    from armature.http.sse import ServerSentEvent
    from armature.http.static import StaticFiles

__all__ = [
    "URL",
    "BodyReceiver",
    "FileResponse",
    "FormData",
    "Headers",
    "HttpRequest",
    "HttpResponse",
    "MutableHeaders",
    "QueryParams",
    "ServerSentEvent",
    "State",
    "StaticFiles",
    "accepts",
    "accepts_encoding",
    "check_preconditions",
    "dumps",
    "loads",
]

#: Where the names stand that few apps need.
_LAZY = {
    "BodyReceiver": "body",
    "FileResponse": "files",
    "FormData": "forms",
    "ServerSentEvent": "sse",
    "StaticFiles": "static",
    "accepts": "negotiation",
    "accepts_encoding": "negotiation",
    "check_preconditions": "conditional",
}

message.set_json_encoder(dumps)


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"armature.http.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
