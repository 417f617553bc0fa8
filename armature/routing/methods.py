"""`get(handler).post(other)` for `route(path, ...)`, and `@get("/path")` on a controller's method.

The two are told apart by the argument: something callable makes a `MethodRoutes`, a path (or nothing) a mark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Unpack, overload

from armature._spec.routes import ANY_METHOD
from armature.exceptions import RouteError
from armature.routing.route import MARKED, Mark, RouteOptions, callers_names, callers_place

__all__ = ["MethodRoutes", "any", "delete", "get", "head", "options", "patch", "post", "put"]

_F = TypeVar("_F", bound=Callable[..., Any])


class MethodRoutes:
    """Handlers by method, for one path; every call adds one and returns the same object."""

    __slots__ = ("entries", "local_names", "place")

    def __init__(self) -> None:
        self.entries: list[tuple[str, Callable[..., Any], RouteOptions]] = []
        self.place = callers_place()
        self.local_names = callers_names()

    def on(self, method: str, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve a method, given by name.

        Args:
            method: Upper case.
            handler: The function.
            **options: As of a route.

        Raises:
            RouteError: The handler is not callable, or the method has one already.
        """
        if not callable(handler):
            raise RouteError(
                f"{method.lower()}(...) takes a handler, not {type(handler).__name__}",
                location=callers_place(),
                hint="such as get(show).post(create)",
            )
        for taken, first, _ in self.entries:
            if taken == method:
                raise RouteError(
                    f"{method} has a handler already",
                    handler=getattr(handler, "__qualname__", repr(handler)),
                    location=callers_place(),
                    hint=f"the first one is {getattr(first, '__qualname__', first)!r}",
                )
        self.entries.append((method, handler, options))
        return self

    def get(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve GET, and HEAD with it."""
        return self.on("GET", handler, **options)

    def post(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve POST."""
        return self.on("POST", handler, **options)

    def put(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve PUT."""
        return self.on("PUT", handler, **options)

    def patch(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve PATCH."""
        return self.on("PATCH", handler, **options)

    def delete(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve DELETE."""
        return self.on("DELETE", handler, **options)

    def head(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve HEAD."""
        return self.on("HEAD", handler, **options)

    def options(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve OPTIONS."""
        return self.on("OPTIONS", handler, **options)

    def any(self, handler: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes:
        """Serve every method that has no handler of its own."""
        return self.on(ANY_METHOD, handler, **options)

    def __repr__(self) -> str:
        parts = (
            f"{'any' if method == ANY_METHOD else method.lower()}({getattr(handler, '__qualname__', handler)})"
            for method, handler, _ in self.entries
        )
        return ".".join(parts)


def _mark(method: str, path: str | None, options: RouteOptions) -> Callable[[_F], _F]:
    mark = Mark((method,), path or "", options)

    def decorate(function: _F) -> _F:
        marks = list(getattr(function, MARKED, ()))
        setattr(function, MARKED, [*marks, mark])
        return function

    return decorate


def _route_or_mark(method: str, target: Any, options: RouteOptions) -> Any:
    if target is None or isinstance(target, str):
        return _mark(method, target, options)
    return MethodRoutes().on(method, target, **options)


@overload
def get(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def get(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def get(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve GET: `get(handler)` for `route(path, ...)`, or `@get("/path")` above a controller's method."""
    return _route_or_mark("GET", target, options)


@overload
def post(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def post(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def post(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve POST; see `get`."""
    return _route_or_mark("POST", target, options)


@overload
def put(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def put(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def put(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve PUT; see `get`."""
    return _route_or_mark("PUT", target, options)


@overload
def patch(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def patch(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def patch(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve PATCH; see `get`."""
    return _route_or_mark("PATCH", target, options)


@overload
def delete(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def delete(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def delete(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve DELETE; see `get`."""
    return _route_or_mark("DELETE", target, options)


@overload
def head(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def head(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def head(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve HEAD; see `get`."""
    return _route_or_mark("HEAD", target, options)


@overload
def options(target: str | None = None, **route_options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def options(target: Callable[..., Any], **route_options: Unpack[RouteOptions]) -> MethodRoutes: ...
def options(target: Any = None, **route_options: Unpack[RouteOptions]) -> Any:
    """Serve OPTIONS; see `get`."""
    return _route_or_mark("OPTIONS", target, route_options)


@overload
def any(target: str | None = None, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]: ...
@overload
def any(target: Callable[..., Any], **options: Unpack[RouteOptions]) -> MethodRoutes: ...
def any(target: Any = None, **options: Unpack[RouteOptions]) -> Any:
    """Serve every method with one handler; see `get`."""
    return _route_or_mark(ANY_METHOD, target, options)
