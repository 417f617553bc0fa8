"""Put an app together: walk its routers once, compile every route, freeze the result into a service.

A mounted `App` is flattened into the outer router, so that its routes cost what routes cost; it keeps its own
middleware (inside that of the outer app), its exception handlers, its shared objects and its life.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from armature._impl import dispatch, message, router
from armature._spec.methods import METHOD_IDS
from armature._spec.plan import CALL_REQUEST
from armature._spec.routes import ANY_METHOD
from armature.app.lifespan import run_lifespan
from armature.app.mounts import ASGIMount
from armature.app.paths import own_path
from armature.binding.signature import describe, is_async, locate, read_hints
from armature.exceptions import ConfigurationError, HTTPException, RouteError
from armature.http import json
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from armature.pipeline.compile import Middleware, RoutePlanInput, check_middleware, compile_route, fold
from armature.pipeline.encode import encoder
from armature.pipeline.errors import ErrorPolicy, encode_answer, finish
from armature.pipeline.threads import WorkerPool
from armature.routing.patterns import Pattern, parse_pattern
from armature.routing.plan import RoutePlan
from armature.routing.route import Route
from armature.routing.router import Include, MiddlewareEntry, Mounted, Router

if TYPE_CHECKING:
    from armature.app.application import App

__all__ = ["AppService", "BoundRoute", "assemble"]


@dataclass(eq=False, repr=False, kw_only=True)
class BoundRoute:
    """A route in its place: what `request.endpoint.route` is, what the commands list and the schema describes.

    Args:
        path: The whole path template.
        methods: The methods, or `("*",)`.
        handler: The user's function, or the app mounted there.
        app: The `App` whose route it is.
        name: For `url_path_for`, with the names of the mounts before it.
        options: The route's options, with what its routers add.
        pattern: The template, read.
        mounted: Whether another ASGI app serves the path and what is below it.
    """

    path: str
    methods: tuple[str, ...]
    handler: Any
    app: Any
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pattern: Pattern | None = None
    mounted: bool = False

    @property
    def described(self) -> str:
        """The qualified name of the handler."""
        return describe(self.handler)

    @property
    def location(self) -> str | None:
        """Where the handler stands, as `file:line`."""
        return locate(self.handler)

    def __repr__(self) -> str:
        return f"<BoundRoute {'/'.join(self.methods)} {self.path} {self.described}>"


@dataclass(eq=False, repr=False, kw_only=True)
class _Scope:
    """What holds for all routes at one place of the tree."""

    prefix: str
    app: App
    errors: ErrorPolicy
    pool: WorkerPool
    middleware: tuple[Middleware, ...] = ()
    data: Mapping[type, Any] = field(default_factory=dict)
    default: Route | None = None
    default_prefix: str = ""
    names: str = ""
    tags: tuple[str | Enum, ...] = ()
    responses: Mapping[int | str, Any] = field(default_factory=dict)
    response_class: Any = None
    deprecated: bool | None = None
    include_in_schema: bool = True


class MountedRequest(HttpRequest):
    """The request class of an app with other apps in it: `app` is the one whose route was found."""

    __slots__ = ()

    @property
    def app(self) -> Any:
        """The app that serves the request; for a route of a mounted `App`, that one."""
        endpoint = self.endpoint
        route = None if endpoint is None else endpoint.route
        return self.connection.app if route is None else route.app


class AppService:
    """A frozen app, as a server or an ASGI adapter serves it.

    Args:
        router: Finds the endpoint of a request.
        request_class: The class of the requests.
        app: The app.
        routes: All routes, in the order of registration.
        mounts: The mounted ASGI apps.
        pools: The thread pools of the app and of the apps mounted in it.
    """

    def __init__(
        self,
        router: Any,
        request_class: type[message.Request],
        app: App,
        routes: list[BoundRoute],
        mounts: list[ASGIMount],
        pools: list[WorkerPool],
    ) -> None:
        self.router = router
        self.request_class = request_class
        self.app = app
        self.routes = routes
        self.mounts = mounts
        self.pools = pools
        self.named: dict[str, list[BoundRoute]] = {}
        for route in routes:
            self.named.setdefault(route.name, []).append(route)

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Start the app and everything in it on entry, stop it in reverse order on exit."""
        return run_lifespan(self.app, self.mounts, self.pools)

    def __repr__(self) -> str:
        return f"<AppService of {len(self.routes)} routes>"


class _Assembly:
    def __init__(self, app: App) -> None:
        self.app = app
        self.plan = RoutePlan()
        #: The same prefixes as the plan's defaults, each leading to the scope there.
        self.scopes = RoutePlan()
        self.routes: list[BoundRoute] = []
        self.mounts: list[ASGIMount] = []
        self.pools: list[WorkerPool] = []
        self.has_apps = False
        self.has_scopes = False
        self.router: Any = None
        self.scope_router: Any = None

    def build(self) -> AppService:
        root = self.app_scope(self.app, None, "", "")
        self.walk(self.app, root)
        not_found = self.not_found(root)
        if self.has_scopes:
            self.scope_router = self.scopes.build(not_found=root, method_not_allowed=lambda methods: root)
        self.router = self.plan.build(
            not_found=not_found,
            method_not_allowed=lambda methods: self.refusal(root, methods),
            options=lambda methods: self.refusal(root, methods),
        )
        request_class = MountedRequest if self.has_apps else HttpRequest
        return AppService(self.router, request_class, self.app, self.routes, self.mounts, self.pools)

    # ---- the walk

    def app_scope(self, app: App, outer: _Scope | None, prefix: str, names: str) -> _Scope:
        by_type, by_status = _split_handlers(app.exception_handlers)
        errors = ErrorPolicy(
            None if outer is None else outer.errors,
            by_type=by_type,
            by_status=by_status,
            debug=app.debug,
            validation_errors=app.validation_errors,
            debug_responder=lambda: app.debug_responder,
        )
        self.pools.append(app.pool)
        return _Scope(
            prefix=prefix + app.prefix,
            app=app,
            errors=errors,
            pool=app.pool,
            middleware=(() if outer is None else outer.middleware) + _chain(app),
            data={**({} if outer is None else outer.data), type(app): app, **app.shared},
            default=app.default_handler,
            default_prefix=prefix + app.prefix,
            names=names,
            tags=app.tags,
            responses=app.responses,
            response_class=app.default_response_class,
            deprecated=app.deprecated,
            include_in_schema=app.include_in_schema,
        )

    def walk(self, router: Router, scope: _Scope) -> None:
        for entry in router.entries:
            if isinstance(entry, Route):
                self.add_route(entry, scope)
            elif isinstance(entry, Include):
                self.enter(entry.router, _included(entry, scope))
            elif isinstance(entry.app, Router) and entry.app.is_app:
                self.mount_app(entry, scope)
            elif isinstance(entry.app, Router):
                include = Include(entry.app, entry.path, place=entry.place)
                names = scope.names if entry.name is None else f"{scope.names}{entry.name}:"
                self.enter(entry.app, replace(_included(include, scope), names=names))
            else:
                self.mount_asgi(entry, scope)

    def enter(self, router: Router, scope: _Scope) -> None:
        if router.default_handler is not None:
            scope = replace(scope, default=router.default_handler, default_prefix=scope.prefix)
        by_type, by_status = _split_handlers(router.exception_handlers)
        if by_type or by_status:
            scope = replace(scope, errors=ErrorPolicy(scope.errors, by_type=by_type, by_status=by_status))
        own = _chain(router)
        scope = replace(scope, middleware=scope.middleware + own, data={**scope.data, **router.shared})
        if own or by_type or by_status or router.default_handler is not None:
            self.add_scope(scope)
        self.walk(router, scope)

    def mount_app(self, entry: Mounted, scope: _Scope) -> None:
        self.has_apps = True
        names = scope.names if entry.name is None else f"{scope.names}{entry.name}:"
        inner = self.app_scope(entry.app, scope, scope.prefix + entry.path, names)
        self.add_scope(inner)
        self.walk(entry.app, inner)

    def add_scope(self, scope: _Scope) -> None:
        """Give a prefix its own answers for whatever it has no route for."""
        if not scope.prefix:
            # Nothing tells its requests from those of the routers around it.
            return
        self.has_scopes = True
        pattern = parse_pattern(scope.prefix)
        self.plan.add_default(pattern, self.not_found(scope))
        self.scopes.add_default(pattern, scope)

    # ---- routes

    def add_route(self, route: Route, scope: _Scope) -> None:
        handler, options = route.handler, route.options
        path = (scope.prefix + route.path) or "/"
        described, location = describe(handler), locate(handler)
        pattern = parse_pattern(path, handler=described, location=location)
        bound = BoundRoute(
            path=path,
            methods=route.methods,
            handler=handler,
            app=scope.app,
            name=scope.names + route.name,
            options=_merged(options, scope),
            pattern=pattern,
        )
        endpoint = compile_route(self.plan_input(route, scope, path, pattern, bound))
        self.plan.add(pattern, dict.fromkeys(route.methods, endpoint), handler=described, location=location)
        self.routes.append(bound)

    def plan_input(self, route: Route, scope: _Scope, path: str, pattern: Pattern, bound: BoundRoute) -> RoutePlanInput:
        options = route.options
        limit = options.get("body_limit")
        return RoutePlanInput(
            handler=route.handler,
            label=f"{'/'.join(route.methods)} {path} of {describe(route.handler)}",
            pattern=path,
            errors=scope.errors,
            pool=scope.pool,
            path={param.name: param.convertor for param in pattern.params},
            middleware=scope.middleware,
            data=scope.data,
            hints=_hints(route, path),
            status=options.get("status_code"),
            response_class=options.get("response_class") or scope.response_class,
            blocking=options.get("blocking", True),
            body_limit=(scope.app.body_limit if limit is None else limit),
            route=bound,
        )

    def mount_asgi(self, entry: Mounted, scope: _Scope) -> None:
        path = scope.prefix + entry.path
        pattern = parse_pattern(path + "/{path:path}", location=entry.place)
        handle: Callable[[Any], Any] = entry.app
        if not _takes_request(entry.app):
            mount = ASGIMount(entry.app, path, scope.app)
            self.mounts.append(mount)
            handle = mount.handle
        bound = BoundRoute(
            path=path,
            methods=(ANY_METHOD,),
            handler=entry.app,
            app=scope.app,
            name=scope.names + (entry.name or ""),
            pattern=pattern,
            mounted=True,
        )
        call = handle
        if scope.middleware:
            call = fold(scope.middleware, _core(handle, scope.errors), scope.errors)
        endpoint = self.endpoint(call, scope, bound)
        # What the mounted app takes is its own affair, so that it counts the bytes itself.
        endpoint.body_limit = 2**62
        self.plan.add(pattern, {ANY_METHOD: endpoint}, handler=describe(entry.app), location=entry.place)
        self.routes.append(bound)

    def endpoint(self, call: Callable[..., Any], scope: _Scope, bound: BoundRoute) -> dispatch.Endpoint:
        return dispatch.Endpoint(
            call,
            CALL_REQUEST,
            encode=encoder(),
            native=False,
            on_error=scope.errors.answer,
            dumps=json.use().dumps,
            body_limit=scope.app.body_limit,
            route=bound,
        )

    # ---- requests that no route serves

    def not_found(self, scope: _Scope) -> dispatch.Endpoint:
        """The endpoint of a scope for paths that match nothing."""
        default = scope.default
        bound = BoundRoute(
            path=scope.prefix + "/*",
            methods=(ANY_METHOD,),
            handler=_no_route if default is None else default.handler,
            app=scope.app,
            name="",
        )
        fallback: Callable[[Any], Any] = _no_route
        if default is not None:
            pattern = parse_pattern(scope.default_prefix or "/")
            inner = replace(scope, middleware=())
            plan = self.plan_input(default, inner, (scope.default_prefix or "") + "/*", pattern, bound)
            compiled = compile_route(plan)
            fallback = _general(compiled)
            if not scope.middleware and not scope.app.redirect_slashes and compiled.mode == CALL_REQUEST:
                return compiled

        redirect = self.redirect if scope.app.redirect_slashes else None

        async def answer(request: Any) -> Any:
            if redirect is not None:
                response = redirect(request)
                if response is not None:
                    return response
            return await finish(fallback(request))

        encode = encoder() if default is None else compiled.encode
        call = fold(scope.middleware, _core(answer, scope.errors, encode), scope.errors) if scope.middleware else answer
        endpoint = self.endpoint(call, scope, bound)
        endpoint.encode = encode
        return endpoint

    def redirect(self, request: Any) -> HttpResponse | None:
        """Send the client to the same path with, or without, a slash at its end, if there is a route."""
        raw: bytes = request.raw_path
        # A browser would take what follows two slashes (or one and a backslash) for a host.
        if len(raw) < 2 or raw[1:2] in (b"/", b"\\"):
            return None
        own = own_path(request)
        other = own.rstrip(b"/") if own.endswith(b"/") else own + b"/"
        if not other or self.router.find(request.method, other).outcome == router.NOT_FOUND:
            return None
        seen = getattr(request, "root_path", "").encode()
        query = b"?" + request.query_string if request.query_string else b""
        target = seen + raw[: len(raw) - len(own)] + other + query
        return HttpResponse.redirect(target.decode("latin-1"), 307)

    def refusal(self, root: _Scope, methods: tuple[str, ...]) -> dispatch.Endpoint:
        """The endpoint for a path that has routes, but none for the method; also answers OPTIONS."""
        allow = ", ".join(methods)

        async def answer(request: Any) -> Any:
            if request.method == "OPTIONS":
                return HttpResponse(b"", 204, {"allow": allow})
            if request.method not in METHOD_IDS and not any(request.method in route.methods for route in self.routes):
                # RFC 9110 section 9.1: a method that nothing here recognizes is not the resource's business.
                raise HTTPException(501, f"the method {request.method} is not implemented here")
            raise HTTPException(405, headers={"allow": allow})

        bound = BoundRoute(path="*", methods=(ANY_METHOD,), handler=_no_route, app=root.app, name="")
        if not self.has_scopes:
            call = fold(root.middleware, _core(answer, root.errors), root.errors) if root.middleware else answer
            return self.endpoint(call, root, bound)

        async def scoped(request: Any) -> Any:
            scope: _Scope = self.scope_router.find("", own_path(request)).endpoint
            return await fold(scope.middleware, _core(answer, scope.errors), scope.errors)(request)

        return self.endpoint(scoped, root, bound)


def _takes_request(app: Any) -> bool:
    """Whether a mounted object is called with a request, as `StaticFiles` is, and not with an ASGI scope."""
    try:
        inspect.signature(app).bind(None)
    except TypeError:
        return False
    return is_async(app)


async def _no_route(request: Any) -> Any:
    if request.method == "OPTIONS" and request.raw_path == b"*":
        # RFC 9110 section 9.3.7: a question about the server itself.
        return HttpResponse(b"", 204, {"allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"})
    raise HTTPException(404)


def _core(
    call: Callable[[Any], Any], errors: ErrorPolicy, encode: Callable[[Any], Any] | None = None
) -> Callable[[Any], Awaitable[Any]]:
    """Make a function the innermost `call_next`: it returns a response, also for exceptions that have a handler."""
    to_response = encoder() if encode is None else encode

    async def core(request: Any) -> Any:
        try:
            value = await finish(call(request))
        except Exception as error:
            handler = errors.handler_of(error)
            if handler is None:
                raise
            return encode_answer(error, await finish(handler(request, error)))
        return await finish(to_response(value))

    return core


def _general(endpoint: dispatch.Endpoint) -> Callable[[Any], Any]:
    if endpoint.mode == CALL_REQUEST:
        return endpoint.call
    if endpoint.plan is not None:
        return endpoint.plan
    call = endpoint.call
    return lambda request: call()


def _included(entry: Include, scope: _Scope) -> _Scope:
    router = entry.router
    return replace(
        scope,
        prefix=scope.prefix + entry.prefix + router.prefix,
        tags=scope.tags + entry.tags + router.tags,
        responses={**scope.responses, **entry.responses, **router.responses},
        response_class=router.default_response_class or entry.default_response_class or scope.response_class,
        deprecated=router.deprecated or entry.deprecated or scope.deprecated,
        include_in_schema=router.include_in_schema and entry.include_in_schema and scope.include_in_schema,
    )


def _merged(options: Mapping[str, Any], scope: _Scope) -> dict[str, Any]:
    merged = dict(options)
    merged["tags"] = [*scope.tags, *(options.get("tags") or ())]
    merged["responses"] = {**scope.responses, **(options.get("responses") or {})}
    merged["deprecated"] = options.get("deprecated") or scope.deprecated
    merged["include_in_schema"] = options.get("include_in_schema", True) and scope.include_in_schema
    return merged


def _hints(route: Route, path: str) -> tuple[inspect.Signature, dict[str, Any]]:
    if route.hints is not None:
        return route.hints
    try:
        hints = read_hints(route.handler, route.local_names)
    except (TypeError, ValueError) as error:
        raise RouteError(
            f"the handler's signature cannot be read: {error}",
            pattern=path,
            handler=describe(route.handler),
            location=route.place,
            hint="wrap it in a function of your own",
        ) from None
    if not any(isinstance(hint, str) for hint in hints[1].values()):
        # Everything is resolved: let go of the names of the function that registered it.
        route.hints, route.local_names = hints, None
    return hints


def _chain(router: Router) -> tuple[Middleware, ...]:
    return tuple(_instance(entry) for entry in router.middleware_entries)


def _instance(entry: MiddlewareEntry) -> Middleware:
    target = entry.target
    if isinstance(target, type):
        try:
            target = target(*entry.args, **entry.kwargs)
        except TypeError as error:
            raise ConfigurationError(
                f"middleware {target.__qualname__}, added at {entry.place}, cannot be made: {error}; "
                "ASGI middleware, which takes the app, is put around the whole app instead: `asgi = Middleware(app)`"
            ) from error
    return check_middleware(target)


def _split_handlers(
    handlers: Mapping[Any, Callable[[Any, Any], Any]],
) -> tuple[dict[type[BaseException], Any], dict[int, Any]]:
    by_type = {key: handler for key, handler in handlers.items() if isinstance(key, type)}
    by_status = {key: handler for key, handler in handlers.items() if isinstance(key, int)}
    return by_type, by_status


def assemble(app: App) -> AppService:
    """Compile an app.

    Args:
        app: The app; it is not changed.

    Raises:
        ConfigurationError: Something that was registered is wrong.
    """
    return _Assembly(app).build()
