"""A route as it was registered: what the app compiles, and what the schema and the commands read later."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypedDict

from armature._spec.routes import ANY_METHOD
from armature.exceptions import ConfigurationError, RouteError

__all__ = [
    "MARKED",
    "Mark",
    "Route",
    "RouteOptions",
    "callers_names",
    "callers_place",
    "default_name",
    "normal_methods",
]

#: The attribute of a function under which `@get("/path")` keeps its marks for the module layer.
MARKED = "__armature_routes__"


class RouteOptions(TypedDict, total=False):
    """What a route takes besides path and handler, under FastAPI's names; `blocking` and `body_limit` are ours.

    Those that change how a request is served take effect; the others are kept for the OpenAPI schema.
    """

    name: str | None
    status_code: int | None
    response_class: Any
    include_in_schema: bool
    blocking: bool
    body_limit: int | None
    tags: list[str | Enum] | None
    summary: str | None
    description: str | None
    response_description: str
    responses: Mapping[int | str, Mapping[str, Any]] | None
    response_model: Any
    response_model_include: Any
    response_model_exclude: Any
    response_model_by_alias: bool
    response_model_exclude_unset: bool
    response_model_exclude_defaults: bool
    response_model_exclude_none: bool
    deprecated: bool | None
    operation_id: str | None
    dependencies: Sequence[Any] | None
    callbacks: Sequence[Any] | None
    openapi_extra: Mapping[str, Any] | None
    generate_unique_id_function: Callable[[Any], str] | None


@dataclass(eq=False, repr=False, kw_only=True)
class Route:
    """One handler under one path, with its options.

    Args:
        path: The path template, relative to the router that it was registered on.
        methods: Upper-case methods, or `("*",)` for all.
        handler: The user's function.
        options: As registered.
        place: `file:line` of the registration.
        local_names: Names of the function in which it was registered, for annotations that need them.
        hints: The handler's signature and resolved annotations, once they have been read.
    """

    path: str
    methods: tuple[str, ...]
    handler: Callable[..., Any]
    options: RouteOptions = field(default_factory=RouteOptions)
    place: str | None = None
    local_names: Mapping[str, Any] | None = None
    hints: tuple[inspect.Signature, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not callable(self.handler):
            raise RouteError(
                f"a handler must be callable, not {type(self.handler).__name__}",
                pattern=self.path,
                location=self.place,
                hint="write @router.get(path) above a function, or router.add_route(path, function)",
            )
        unknown = sorted(self.options.keys() - RouteOptions.__annotations__.keys())
        if unknown:
            raise RouteError(
                f"a route has no option {', '.join(unknown)}",
                pattern=self.path,
                handler=default_name(self.handler),
                location=self.place,
                hint="it takes " + ", ".join(sorted(RouteOptions.__annotations__)),
            )
        if self.options.get("dependencies"):
            raise RouteError(
                "a route cannot have dependencies yet",
                pattern=self.path,
                handler=default_name(self.handler),
                location=self.place,
                hint="check the request in a middleware of the router (`router.wrap(...)`), or in the handler",
            )
        status = self.options.get("status_code")
        if status is not None and not 200 <= status <= 599:
            raise RouteError(
                f"status_code must be a status from 200 to 599, not {status!r}",
                pattern=self.path,
                handler=default_name(self.handler),
                location=self.place,
                hint="such as status_code=201",
            )

    @property
    def name(self) -> str:
        """The name for `url_path_for`: as given, or that of the handler."""
        return self.options.get("name") or default_name(self.handler)


@dataclass(frozen=True)
class Mark:
    """What `@get("/path")` leaves on a controller's method."""

    methods: tuple[str, ...]
    path: str
    options: RouteOptions


def default_name(handler: Any) -> str:
    """The name of a handler: that of the function, or of the class of a callable object."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isroutine(handler) or inspect.isclass(handler):
        return handler.__name__
    return type(handler).__name__


def normal_methods(methods: str | Sequence[str], path: str, place: str | None) -> tuple[str, ...]:
    """Check a list of methods and write them in upper case, each once.

    Raises:
        RouteError: It is empty, or holds something that is no method.
    """
    given = [methods] if isinstance(methods, str) else list(methods)
    if not given or not all(given):
        raise RouteError(
            f"methods must name at least one method, not {methods!r}",
            pattern=path,
            location=place,
            hint='such as methods=["GET", "POST"]',
        )
    if ANY_METHOD in given:
        return (ANY_METHOD,)
    return tuple(dict.fromkeys(method.upper() for method in given))


#: Where the standard library lies, and what is installed besides.
_LIBRARY = os.path.join(os.path.dirname(os.__file__), "")
_INSTALLED = os.path.join(_LIBRARY, "site-packages", "")


def _outside() -> Any:
    """The frame of whoever uses this package; the loop that a test client runs stands between the two, for one."""
    frame = sys._getframe(1)
    while frame is not None:
        module, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        ours = module == "armature" or module.startswith("armature.")
        if not ours and (not file.startswith((_LIBRARY, "<frozen ")) or file.startswith(_INSTALLED)):
            return frame
        frame = frame.f_back  # type: ignore[assignment]
    return None


def callers_place() -> str | None:
    """Where, outside this package and the standard library, the present call comes from: `file:line`."""
    frame = _outside()
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def callers_names() -> Mapping[str, Any] | None:
    """The local names of the function that the present call comes from; None at module level."""
    frame = _outside()
    if frame is None or frame.f_locals is frame.f_globals:
        return None
    # A copy: a frame kept alive would keep alive everything that called it.
    return dict(frame.f_locals)


def frozen_error(what: str, built_at: str | None) -> ConfigurationError:
    """The error of a change that comes after `build()`."""
    place = callers_place()
    return ConfigurationError(
        what
        + (f" at {place}" if place else "")
        + " comes too late: the app was built"
        + (f" at {built_at}" if built_at else "")
        + "; register everything before build(), run() or the first request"
    )
