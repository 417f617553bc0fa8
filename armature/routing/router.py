"""Where routes, middleware and life-cycle hooks are registered; nothing is compiled before the app is built.

A `Router` may hold others to any depth. What is registered on it later, even after it was included, counts: the
tree is walked once, when the app is built, and frozen then.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from armature._spec.routes import ANY_METHOD
from armature.exceptions import ConfigurationError, RouteError
from armature.routing.methods import MethodRoutes
from armature.routing.route import (
    Route,
    RouteOptions,
    callers_names,
    callers_place,
    default_name,
    frozen_error,
    normal_methods,
)

if TYPE_CHECKING:
    from armature.types import Receive, Scope, Send, Service

__all__ = ["APIRouter", "Include", "MiddlewareEntry", "Mounted", "Router", "scope"]

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(eq=False, repr=False)
class MiddlewareEntry:
    """Middleware as it was registered: a function or an object, or a class with its arguments."""

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None


@dataclass(eq=False, repr=False)
class Include:
    """A router inside another one."""

    router: Router
    prefix: str = ""
    tags: tuple[str | Enum, ...] = ()
    responses: Mapping[int | str, Mapping[str, Any]] = field(default_factory=dict)
    default_response_class: Any = None
    deprecated: bool | None = None
    include_in_schema: bool = True
    place: str | None = None


@dataclass(eq=False, repr=False)
class Mounted:
    """Another app below a path."""

    path: str
    app: Any
    name: str | None = None
    place: str | None = None


class Router:
    """A set of routes under a common prefix.

    Args:
        prefix: What every path of this router begins with; begins with a slash and does not end with one.
        tags: Tags of every route, for the schema.
        dependencies: Reserved for dependencies of every route; must be empty for now.
        responses: Further responses of every route, for the schema.
        default_response_class: The response class of routes that name none.
        deprecated: Whether every route is deprecated, for the schema.
        include_in_schema: Whether the routes are in the schema.
        redirect_slashes: For a router that runs alone: see `App`.
        lifespan: An asynchronous context manager that is entered when the app starts; called with the app.
        on_startup: Functions called when the app starts.
        on_shutdown: Functions called when the app stops.

    Raises:
        RouteError: The prefix is malformed.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        tags: Sequence[str | Enum] | None = None,
        dependencies: Sequence[Any] | None = None,
        responses: Mapping[int | str, Mapping[str, Any]] | None = None,
        default_response_class: Any = None,
        deprecated: bool | None = None,
        include_in_schema: bool = True,
        redirect_slashes: bool = True,
        lifespan: Callable[[Any], Any] | None = None,
        on_startup: Sequence[Callable[[], Any]] | None = None,
        on_shutdown: Sequence[Callable[[], Any]] | None = None,
    ) -> None:
        self.prefix = _check_prefix(prefix)
        self.tags = tuple(tags or ())
        _refuse_dependencies(dependencies)
        self.responses = dict(responses or {})
        self.default_response_class = default_response_class
        self.deprecated = deprecated
        self.include_in_schema = include_in_schema
        self.redirect_slashes = redirect_slashes
        self.lifespan_context = lifespan
        self.on_startup: list[Callable[[], Any]] = list(on_startup or ())
        self.on_shutdown: list[Callable[[], Any]] = list(on_shutdown or ())
        #: Routes, included routers and mounted apps, in the order of registration.
        self.entries: list[Route | Include | Mounted] = []
        #: Middleware, the outermost first: what is added later is put around what is there.
        self.middleware_entries: list[MiddlewareEntry] = []
        self.exception_handlers: dict[type[BaseException] | int, Callable[[Any, Any], Any]] = {}
        self.shared: dict[type, Any] = {}
        self.default_handler: Route | None = None
        self._built_at: str | None = None
        self._frozen = False
        self._service: Service | None = None

    # ---- routes

    def add_route(
        self,
        path: str,
        handler: Callable[..., Any],
        methods: str | Sequence[str] = ("GET",),
        **options: Unpack[RouteOptions],
    ) -> None:
        """Register a handler.

        Args:
            path: The path template, below the router's prefix.
            handler: An `async def` or `def` function, or anything callable.
            methods: The methods it serves; `"*"` for all.
            **options: FastAPI's route options; also `blocking` and `body_limit`.

        Raises:
            RouteError: Something about the route is wrong; says what, where it stands and how to mend it.
            ConfigurationError: The app has been built.
        """
        self._change(f"route {path!r}")
        place = callers_place()
        self.entries.append(
            Route(
                path=_check_path(path, self.prefix, handler, place),
                methods=normal_methods(methods, path, place),
                handler=handler,
                options=options,
                place=place,
                local_names=callers_names(),
            )
        )

    add_api_route = add_route

    def api_route(
        self, path: str, *, methods: str | Sequence[str] = ("GET",), **options: Unpack[RouteOptions]
    ) -> Callable[[_F], _F]:
        """Register the function below for several methods; arguments as of `add_route`."""

        def decorate(handler: _F) -> _F:
            self.add_route(path, handler, methods, **options)
            return handler

        return decorate

    @overload
    def route(self, path: str, handlers: MethodRoutes, /) -> Self: ...
    @overload
    def route(
        self,
        path: str,
        handlers: None = None,
        /,
        *,
        methods: str | Sequence[str] = ("GET",),
        **options: Unpack[RouteOptions],
    ) -> Callable[[_F], _F]: ...
    def route(
        self,
        path: str,
        handlers: Any = None,
        /,
        *,
        methods: str | Sequence[str] = ("GET",),
        **options: Unpack[RouteOptions],
    ) -> Any:
        """Register handlers: `route("/", get(index).post(create))` in a chain, or as a decorator with `methods=`.

        Raises:
            RouteError: As of `add_route`, or what was given is no `get(handler)`.
        """
        if handlers is None:
            return self.api_route(path, methods=methods, **options)
        if not isinstance(handlers, MethodRoutes):
            raise RouteError(
                f"route(path, ...) takes get(handler), post(handler) and so on, not {type(handlers).__name__}",
                pattern=path,
                handler=default_name(handlers) if callable(handlers) else None,
                location=callers_place(),
                hint="write .route(path, get(handler)) with `from armature import get`",
            )
        for method, handler, own in handlers.entries:
            self.add_route(path, handler, (method,), **own)
        return self

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve GET, and HEAD with it, by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("GET",), **options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve POST by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("POST",), **options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve PUT by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("PUT",), **options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve PATCH by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("PATCH",), **options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve DELETE by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("DELETE",), **options)

    def head(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve HEAD by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("HEAD",), **options)

    def options(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve OPTIONS by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("OPTIONS",), **options)

    def trace(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve TRACE by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=("TRACE",), **options)

    def any(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[_F], _F]:
        """Serve every method by the function below; arguments as of `add_route`."""
        return self.api_route(path, methods=(ANY_METHOD,), **options)

    def default_service(self, handler: Callable[..., Any] | MethodRoutes) -> Self:
        """Answer requests below this router's prefix that match no route; the handler sees the request as it came.

        Args:
            handler: A handler as of any route, or `any(handler)`.

        Raises:
            RouteError: There is one already, or it is for some methods only.
        """
        self._change("default_service")
        options = RouteOptions()
        place = callers_place()
        if isinstance(handler, MethodRoutes):
            if len(handler.entries) != 1 or handler.entries[0][0] != ANY_METHOD:
                raise RouteError(
                    "default_service serves every method",
                    location=place,
                    hint="write default_service(handler) or default_service(any(handler))",
                )
            _, handler, options = handler.entries[0]
        if self.default_handler is not None:
            raise RouteError(
                "this router has a default_service already",
                handler=default_name(handler),
                location=place,
                hint=f"the first one is {default_name(self.default_handler.handler)}",
            )
        self.default_handler = Route(
            path="",
            methods=(ANY_METHOD,),
            handler=handler,
            options=options,
            place=place,
            local_names=callers_names(),
        )
        return self

    # ---- other routers and apps

    def include_router(
        self,
        router: Router,
        *,
        prefix: str = "",
        tags: Sequence[str | Enum] | None = None,
        dependencies: Sequence[Any] | None = None,
        responses: Mapping[int | str, Mapping[str, Any]] | None = None,
        default_response_class: Any = None,
        deprecated: bool | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """Put the routes of another router below this one.

        Args:
            router: The other router; what is registered on it later counts as well.
            prefix: Put before the other router's own prefix.
            tags: Tags added to its routes.
            dependencies: Reserved; must be empty for now.
            responses: Further responses of its routes.
            default_response_class: The response class of routes that name none, nor their router.
            deprecated: Whether its routes are deprecated.
            include_in_schema: Whether its routes are in the schema.

        Raises:
            RouteError: The prefix is malformed, or the router would contain itself.
            ConfigurationError: The app has been built.
        """
        self._change("include_router")
        place = callers_place()
        if not isinstance(router, Router):
            raise RouteError(
                f"include_router takes a Router, not {type(router).__name__}",
                location=place,
                hint="an ASGI app is mounted: mount(path, app)",
            )
        if router.is_app:
            raise RouteError(
                "an App cannot be included, for it has middleware and a life of its own",
                location=place,
                hint="mount it: app.mount(path, other_app)",
            )
        if router is self or router.contains(self):
            raise RouteError("a router cannot contain itself", location=place, hint="include a router of its own")
        _refuse_dependencies(dependencies)
        self.entries.append(
            Include(
                router,
                _check_prefix(prefix),
                tuple(tags or ()),
                dict(responses or {}),
                default_response_class,
                deprecated,
                include_in_schema,
                place,
            )
        )

    def service(self, *routers: Router) -> Self:
        """Include scopes, in a chain: `.service(scope("/api").route("/users", get(users)))`."""
        for router in routers:
            self.include_router(router)
        return self

    def mount(self, path: str, app: Any, name: str | None = None) -> Self:
        """Put another app below a path: an `App`, a `Router`, or any ASGI app.

        Args:
            path: The path, without a slash at its end; `""` for everything that no route matches.
            app: The app. An `App` keeps its own middleware, exception handlers, state and life; a `Router` is
                included; an ASGI app gets the path as its `root_path`.
            name: The prefix of its routes' names in `url_path_for`, as in `name:route`.

        Raises:
            RouteError: The path is malformed, or the app is none.
            ConfigurationError: The app has been built.
        """
        self._change(f"mount {path!r}")
        place = callers_place()
        prefix = _check_prefix(path)
        if isinstance(app, Router):
            if app is self or app.contains(self):
                raise RouteError("an app cannot be mounted in itself", pattern=path, location=place)
        elif not callable(app):
            raise RouteError(
                f"mount takes an App, a Router or an ASGI app, not {type(app).__name__}",
                pattern=path,
                location=place,
                hint="an ASGI app is called with (scope, receive, send)",
            )
        self.entries.append(Mounted(prefix, app, name, place))
        return self

    @property
    def is_app(self) -> bool:
        """Whether this router has a life of its own: an `App`."""
        return False

    def contains(self, other: Router) -> bool:
        """Whether another router stands somewhere below this one."""
        for entry in self.entries:
            child = entry.router if isinstance(entry, Include) else entry.app if isinstance(entry, Mounted) else None
            if isinstance(child, Router) and (child is other or child.contains(other)):
                return True
        return False

    # ---- middleware, errors, shared objects, life

    def add_middleware(self, middleware: Any, *args: Any, **kwargs: Any) -> None:
        """Put middleware around every route of this router, outside of what was added before.

        Args:
            middleware: `async def (request, call_next)`, an object that can be called so, or a class of such objects.
            *args: For the class.
            **kwargs: For the class.

        Raises:
            ConfigurationError: The app has been built, or arguments were given for something that is no class.
        """
        self._change("add_middleware")
        if not isinstance(middleware, type) and (args or kwargs):
            raise ConfigurationError(
                f"add_middleware at {callers_place()} got arguments for {middleware!r}, which is no class; "
                "give them where it is made"
            )
        self.middleware_entries.insert(0, MiddlewareEntry(middleware, args, kwargs, callers_place()))

    def wrap(self, middleware: Any) -> Self:
        """Put middleware around every route, in a chain; see `add_middleware`."""
        self.add_middleware(middleware)
        return self

    @overload
    def middleware(self, target: _F, /) -> _F: ...
    @overload
    def middleware(self, target: str, /) -> Callable[[_F], _F]: ...
    def middleware(self, target: Any, /) -> Any:
        """Make the function below middleware: `@app.middleware`, or `@app.middleware("http")` as in FastAPI.

        Raises:
            ConfigurationError: The app has been built, or the kind is not `"http"`.
        """
        if not isinstance(target, str):
            self.add_middleware(target)
            return target
        if target != "http":
            raise ConfigurationError(f"there is middleware of kind 'http' only, not {target!r}")

        def decorate(function: _F) -> _F:
            self.add_middleware(function)
            return function

        return decorate

    def exception_handler(self, error: type[BaseException] | int) -> Callable[[_F], _F]:
        """Let the function below answer an exception: `(request, error)`, returns a response.

        Args:
            error: An exception class, subclasses included, or the status of an `HTTPException`. The status 500 also
                answers whatever nobody else handles.
        """

        def decorate(function: _F) -> _F:
            self.add_exception_handler(error, function)
            return function

        return decorate

    def add_exception_handler(self, error: type[BaseException] | int, handler: Callable[[Any, Any], Any]) -> None:
        """Register an exception handler; see `exception_handler`.

        Raises:
            ConfigurationError: The app has been built, or `error` is neither a class of exceptions nor a status.
        """
        self._change("exception_handler")
        is_class = isinstance(error, type) and issubclass(error, BaseException)
        is_status = isinstance(error, int) and not isinstance(error, bool) and 400 <= error <= 599
        if not is_class and not is_status:
            raise ConfigurationError(
                f"exception_handler at {callers_place()} takes an exception class or a status from 400 to 599, "
                f"not {error!r}"
            )
        if not callable(handler):
            raise ConfigurationError(f"an exception handler must be callable, not {type(handler).__name__}")
        self.exception_handlers[int(error) if isinstance(error, int) else error] = handler

    def data(self, value: Any) -> Self:
        """Share an object with the handlers of this router: a parameter annotated with its type is given it.

        Raises:
            ConfigurationError: The app has been built, an object of this type is shared already, or its type is one
                that parameters of the request have.
        """
        self._change("data")
        kind = type(value)
        if kind.__module__ == "builtins":
            raise ConfigurationError(
                f"data at {callers_place()} got a plain {kind.__name__}, which could be any parameter; "
                "share an object of a class of its own"
            )
        if kind in self.shared:
            raise ConfigurationError(
                f"data at {callers_place()} shares a second {kind.__qualname__}; give one of the two a subclass"
            )
        self.shared[kind] = value
        return self

    def on_event(self, event: str) -> Callable[[_F], _F]:
        """Call the function below at `"startup"` or at `"shutdown"`; the older spelling of `lifespan`.

        Raises:
            ConfigurationError: The app has been built, or there is no such event.
        """
        if event not in ("startup", "shutdown"):
            raise ConfigurationError(f"the events are 'startup' and 'shutdown', not {event!r}")

        def decorate(function: _F) -> _F:
            self.add_event_handler(event, function)
            return function

        return decorate

    def add_event_handler(self, event: str, function: Callable[[], Any]) -> None:
        """Call a function at `"startup"` or at `"shutdown"`; see `on_event`."""
        self._change("on_event")
        if event not in ("startup", "shutdown"):
            raise ConfigurationError(f"the events are 'startup' and 'shutdown', not {event!r}")
        (self.on_startup if event == "startup" else self.on_shutdown).append(function)

    # ---- served alone

    def build(self) -> Service:
        """Compile everything and freeze it; what is registered afterwards is refused.

        Returns:
            What a server serves; the same object every time.

        Raises:
            ConfigurationError: Something that was registered is wrong.
        """
        if self._service is None:
            # The app stands above this room; it is named by a string and imported when needed.
            self._service = importlib.import_module("armature.app").App.of(self).build()
        return self._service

    def run(self, host: str | None = None, port: int | None = None, **options: Any) -> None:
        """Serve until stopped: `run("0.0.0.0:8000")`, `run("0.0.0.0", 8000)`, `run(host=..., port=...)`.

        Args:
            host: The address, or address and port.
            port: The port.
            **options: `uds`, `fd`, `workers` and the other options of `armature.server.run`.
        """
        importlib.import_module("armature.app").run(self, host, port, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of an ASGI server (ASGI 3)."""
        await importlib.import_module("armature.app.asgi").serve(self, scope, receive, send)

    # ---- freezing

    def freeze(self, place: str | None) -> None:
        """Refuse changes from now on, here and below; done by `build`."""
        self._frozen = True
        self._built_at = place
        for entry in self.entries:
            if isinstance(entry, Include):
                entry.router.freeze(place)
            elif isinstance(entry, Mounted) and isinstance(entry.app, Router):
                entry.app.freeze(place)

    def _change(self, what: str) -> None:
        if self._frozen:
            raise frozen_error(what, self._built_at)


class APIRouter(Router):
    """A `Router` under the name that FastAPI's users look for."""


def scope(prefix: str, **options: Any) -> Router:
    """Make a router for `service`, in a chain: `scope("/api").route("/users", get(users))`.

    Args:
        prefix: What its paths begin with.
        **options: As of `Router`.
    """
    return Router(prefix, **options)


def _check_prefix(prefix: str) -> str:
    if not isinstance(prefix, str):
        raise RouteError(
            f"a prefix must be a str, not {type(prefix).__name__}", pattern=repr(prefix), location=callers_place()
        )
    if prefix in ("", "/"):
        return ""
    if not prefix.startswith("/"):
        raise RouteError(
            "a prefix must begin with a slash", pattern=prefix, location=callers_place(), hint=f'write "/{prefix}"'
        )
    return prefix.rstrip("/")


def _check_path(path: str, prefix: str, handler: Any, place: str | None) -> str:
    if not isinstance(path, str):
        raise RouteError(
            f"a path must be a str, not {type(path).__name__}",
            pattern=repr(path),
            handler=default_name(handler) if callable(handler) else None,
            location=place,
        )
    if path and not path.startswith("/"):
        raise RouteError(
            "a path must begin with a slash",
            pattern=path,
            handler=default_name(handler) if callable(handler) else None,
            location=place,
            hint=f'write "/{path}"',
        )
    return path


def _refuse_dependencies(dependencies: Sequence[Any] | None) -> None:
    if dependencies:
        raise ConfigurationError(
            f"dependencies at {callers_place()} cannot be used yet; check the request in middleware: router.wrap(...)"
        )
