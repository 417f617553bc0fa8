"""Telling apps apart: what calls itself an app may be ASGI 3, ASGI 2, WSGI, or something that is no app at all."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from armature.exceptions import ConfigurationError

if TYPE_CHECKING:
    from armature.types import ASGIApp, Receive, Scope, Send

__all__ = ["Interface", "interface_of", "is_native", "single_callable"]

Interface: TypeAlias = Literal["asgi3", "asgi2", "wsgi"]

#: What the first parameter of a WSGI function is called; two parameters alone say too little.
_ENVIRON = ("environ", "env")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_native(obj: Any) -> bool:
    """Whether `obj` is served without an interface in between: it builds a service, or is one."""
    if isinstance(obj, type):
        return False
    return callable(getattr(obj, "build", None)) or all(
        hasattr(obj, name) for name in ("router", "request_class", "lifespan")
    )


def interface_of(obj: Any) -> Interface | None:
    """Return the interface that `obj` is called by; None if it looks like no app.

    A callable with three parameters is ASGI 3, an instance with `__call__(environ, start_response)` is WSGI, and what
    is called with `scope` alone, class or function, is ASGI 2.

    Args:
        obj: Anything.
    """
    if not callable(obj):
        return None
    parameters = _positional(obj)
    if parameters is None:
        return None
    required, most = parameters
    count = len(required)
    if isinstance(obj, type):
        # Calling an ASGI 2 class makes an instance that is called with `receive` and `send`; some endpoints are classes
        # whose instances are awaited.
        if count == 3 and hasattr(obj, "__await__"):
            return "asgi3"
        return "asgi2" if count == 1 and required[0].name == "scope" else None
    if _is_coroutine_function(obj):
        return "asgi3" if count <= 3 <= most else None
    if count == 3:
        return "asgi3"
    if count == 2 and (_is_instance(obj) or required[0].name in _ENVIRON or required[1].name == "start_response"):
        return "wsgi"
    if count == 1 and required[0].name == "scope":
        return "asgi2"
    return None


def single_callable(app: Any, interface: Interface) -> ASGIApp:
    """Return `app` as ASGI 3.

    Args:
        app: The app.
        interface: What `interface_of` said.

    Raises:
        ConfigurationError: It is WSGI.
    """
    if interface == "asgi2":
        return functools.partial(_call_twice, app)
    if interface == "wsgi":
        raise ConfigurationError(
            f"{_name(app)} is a WSGI app, and this server speaks ASGI; wrap it: pip install a2wsgi, then "
            "app = a2wsgi.WSGIMiddleware(app)"
        )
    found: ASGIApp = app
    return found


async def _call_twice(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    scope["asgi"]["version"] = "2.0"
    await app(scope)(receive, send)


def _positional(obj: Any) -> tuple[list[inspect.Parameter], float] | None:
    """The parameters that must be given by position, and how many may be; None if nobody can tell."""
    try:
        parameters = list(inspect.signature(obj).parameters.values())
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return None
    most = float("inf") if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
    return [p for p in positional if p.default is p.empty], most


def _is_coroutine_function(obj: Any) -> bool:
    while isinstance(obj, functools.partial):
        obj = obj.func
    return inspect.iscoroutinefunction(obj) or (
        not isinstance(obj, type) and inspect.iscoroutinefunction(type(obj).__call__)
    )


def _is_instance(obj: Any) -> bool:
    return not inspect.isroutine(obj) and not isinstance(obj, functools.partial)


def _name(obj: Any) -> str:
    return getattr(obj, "__qualname__", None) or f"the {type(obj).__qualname__}"
