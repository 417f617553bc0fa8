"""`App`: the face of the framework that FastAPI's users know, and the builder for those who like chains."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from armature._impl import message
from armature._spec.limits import BODY_LIMIT
from armature.app.assembly import AppService, BoundRoute, assemble
from armature.exceptions import ConfigurationError
from armature.http.state import State
from armature.pipeline.errors import ValidationShape
from armature.pipeline.threads import WorkerPool
from armature.routing.route import callers_place
from armature.routing.router import MiddlewareEntry, Router

__all__ = ["App", "DebugResponder", "parse_address", "run"]

#: Shows an unhandled exception to the developer; the development server sets one.
DebugResponder = Callable[[Any, BaseException], message.Response]


class App(Router):
    """A web application.

    Routes, middleware and the rest are registered with decorators or in a chain (`App.new().wrap(...).route(...)`).
    `build()` compiles and freezes everything; `run()` serves it; an ASGI server can serve it as well.

    Args:
        title: The name of the API, for the schema.
        version: The version of the API, for the schema.
        summary: A short summary, for the schema.
        description: A description in Markdown, for the schema.
        debug: Whether unhandled exceptions are shown to the client; never in production.
        middleware: Middleware, the outermost first.
        exception_handlers: Exception handlers by class or status.
        lifespan: An asynchronous context manager, called with the app and entered while it runs; a mapping that it
            yields is put into `app.state`.
        on_startup: Functions called when the app starts.
        on_shutdown: Functions called when the app stops.
        redirect_slashes: Whether a path without a route is redirected (307) if it has one with, or without, a slash
            at its end.
        validation_errors: The shape of a 422: `"problem"` (RFC 9457) or `"fastapi"`.
        thread_pool_size: The largest number of threads for `def` handlers. Default: four more than processors, at
            most 32.
        body_limit: The largest request body in bytes, for routes that name none.
        **router_options: As of `Router`: `tags`, `responses`, `default_response_class`, `deprecated`,
            `include_in_schema`.

    Raises:
        ConfigurationError: An option is wrong.
    """

    def __init__(
        self,
        *,
        title: str = "Armature",
        version: str = "0.1.0",
        summary: str | None = None,
        description: str = "",
        debug: bool = False,
        middleware: Sequence[Any] | None = None,
        exception_handlers: Mapping[type[BaseException] | int, Callable[[Any, Any], Any]] | None = None,
        lifespan: Callable[[Any], Any] | None = None,
        on_startup: Sequence[Callable[[], Any]] | None = None,
        on_shutdown: Sequence[Callable[[], Any]] | None = None,
        redirect_slashes: bool = True,
        validation_errors: ValidationShape = "problem",
        thread_pool_size: int | None = None,
        body_limit: int = BODY_LIMIT,
        **router_options: Any,
    ) -> None:
        super().__init__(
            redirect_slashes=redirect_slashes,
            lifespan=lifespan,
            on_startup=on_startup,
            on_shutdown=on_shutdown,
            **router_options,
        )
        if validation_errors not in ("problem", "fastapi"):
            raise ConfigurationError(f"validation_errors must be 'problem' or 'fastapi', not {validation_errors!r}")
        if body_limit < 0:
            raise ConfigurationError(f"body_limit must be a number of bytes, not {body_limit!r}")
        self.title = title
        self.version = version
        self.summary = summary
        self.description = description
        self.debug = debug
        self.validation_errors: ValidationShape = validation_errors
        self.body_limit = body_limit
        self.pool = WorkerPool(thread_pool_size)
        #: For whatever handlers share; filled by the lifespan or by hand.
        self.state = State()
        #: What answers an unhandled exception if `debug` is set; None for plain text.
        self.debug_responder: DebugResponder | None = None
        for one in middleware or ():
            self.middleware_entries.append(MiddlewareEntry(one, place=callers_place()))
        for error, handler in (exception_handlers or {}).items():
            self.add_exception_handler(error, handler)

    @classmethod
    def new(cls, **options: Any) -> Self:
        """Make an app, to go on in a chain: `App.new().wrap(...).route("/", get(index))`.

        Args:
            **options: As of `App`.
        """
        return cls(**options)

    @classmethod
    def of(cls, router: Router) -> App:
        """Make an app of a router alone; an app is returned as it is."""
        if isinstance(router, App):
            return router
        app = cls(redirect_slashes=router.redirect_slashes)
        app.include_router(router)
        return app

    @property
    def is_app(self) -> bool:
        return True

    def build(self) -> AppService:
        """Compile every route and freeze the app; what is registered afterwards is refused.

        Returns:
            What a server serves; the same object every time.

        Raises:
            RouteError: A route is wrong; says which one, where it stands and how to mend it.
            ConfigurationError: Something else is.
        """
        service = self._service
        if service is None:
            service = assemble(self)
            self._service = service
            self.freeze(callers_place())
        assert isinstance(service, AppService)
        return service

    @property
    def routes(self) -> list[BoundRoute]:
        """All routes with their whole paths, in the order of registration; builds the app."""
        return list(self.build().routes)

    def url_path_for(self, name: str, /, **params: Any) -> str:
        """Return the path of a route, percent-encoded.

        Args:
            name: The route's name, that of its handler by default; `mount:name` for a route of a named mount.
            **params: Its path parameters.

        Raises:
            LookupError: There is no route of this name that takes these parameters.
            ValueError: A parameter's value does not fit.
        """
        candidates = self.build().named.get(name, [])
        wanted = set(params)
        for route in candidates:
            if route.pattern is not None and set(route.pattern.names) == wanted:
                return route.pattern.url_path_for(**params)
        if not candidates:
            raise LookupError(f"there is no route named {name!r}")
        takes = " or ".join("{" + ", ".join(route.pattern.names) + "}" for route in candidates if route.pattern)
        raise LookupError(f"the route {name!r} takes {takes}, not {{{', '.join(params)}}}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.title!r}>"


def parse_address(host: str | None, port: int | None) -> tuple[str | None, int | None]:
    """Split `"0.0.0.0:8000"`, `"[::1]:8000"` or `":8000"` into host and port.

    Args:
        host: An address, perhaps with a port.
        port: The port, if it is given apart.

    Raises:
        ConfigurationError: The port is no number from 0 to 65535, or is given twice.
    """
    if host is None:
        return None, _check_port(port)
    name, found = host, ""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigurationError(f"{host!r} is no address; write '[::1]:8000'")
        found = rest[1:]
    elif host.count(":") == 1:
        name, _, found = host.partition(":")
    if not found:
        return name, _check_port(port)
    if port is not None:
        raise ConfigurationError(f"the port is given twice, in {host!r} and as {port}")
    if not found.isascii() or not found.isdigit():
        raise ConfigurationError(f"{host!r} is no address: the port must be a number")
    return name or "0.0.0.0", _check_port(int(found))


def _check_port(port: int | None) -> int | None:
    if port is not None and not 0 <= port <= 65535:
        raise ConfigurationError(f"a port must be a number from 0 to 65535, not {port!r}")
    return port


def run(target: Router, host: str | None = None, port: int | None = None, **options: Any) -> None:
    """Serve a router or an app until stopped.

    Args:
        target: What is served.
        host: The address, or address and port.
        port: The port.
        **options: As of `armature.server.run`.
    """
    name, number = parse_address(host, port)
    if name is not None:
        options["host"] = name
    if number is not None:
        options["port"] = number
    # Which server there is, is chosen here and nowhere else; the two rooms do not know each other.
    importlib.import_module("armature.server").run(target, **options)
