"""Fold one route into an `Endpoint`: the only place that knows all stages of a request, and their order.

    middleware, outermost first -> parameters -> handler -> returned value -> response

A stage that a route does not have leaves no trace: a handler without middleware whose parameters the connection can
fill is called by the connection itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from armature._impl import dispatch, message
from armature._spec.limits import BODY_LIMIT
from armature._spec.plan import CALL_BARE, CALL_PARAMS, CALL_REQUEST
from armature.binding.plan import compile_core, compile_plan, path_kinds
from armature.binding.signature import REQUEST, Signature, describe, is_async, locate, read_signature
from armature.exceptions import ConfigurationError
from armature.http import json
from armature.http.response import HttpResponse
from armature.pipeline.encode import encoder
from armature.pipeline.errors import ErrorPolicy, encode_answer, finish
from armature.pipeline.threads import WorkerPool
from armature.routing.convertors import Convertor

__all__ = ["CallNext", "Middleware", "RoutePlanInput", "check_middleware", "compile_route"]

CallNext: TypeAlias = Callable[[Any], Awaitable[Any]]
#: Takes the request and `call_next`, returns the response.
Middleware: TypeAlias = Callable[[Any, CallNext], Awaitable[Any]]


@dataclass(eq=False, repr=False, kw_only=True)
class RoutePlanInput:
    """Everything that one endpoint is made of.

    Args:
        handler: The user's function.
        label: The route, for tracebacks.
        pattern: The path template, for messages.
        path: The template's parameters and their convertors, in order.
        errors: What becomes of exceptions.
        pool: Where a `def` handler runs.
        middleware: The chain, outermost first.
        data: Objects to inject, by type.
        hints: The handler's signature and resolved annotations, if they were read when it was registered.
        status: The status of a returned value.
        response_class: The class of the response made from a returned value.
        blocking: Whether a `def` handler may block, and so runs in a thread.
        body_limit: The largest request body, in bytes.
        route: What `request.endpoint.route` is.
    """

    handler: Callable[..., Any]
    label: str
    pattern: str
    errors: ErrorPolicy
    pool: WorkerPool
    path: Mapping[str, Convertor[Any]] = field(default_factory=dict)
    middleware: Sequence[Middleware] = ()
    data: Mapping[type, Any] = field(default_factory=dict)
    hints: tuple[inspect.Signature, dict[str, Any]] | None = None
    status: int | None = None
    response_class: Any = None
    blocking: bool = True
    body_limit: int = BODY_LIMIT
    route: Any = None


def compile_route(plan: RoutePlanInput) -> dispatch.Endpoint:
    """Compile one route.

    Args:
        plan: What it is made of.

    Raises:
        RouteError: A parameter of the handler cannot be filled.
        ConfigurationError: An option of the route is wrong.
    """
    signature = read_signature(
        plan.handler, pattern=plan.pattern, path_types=plan.path, data=plan.data, hints=plan.hints
    )
    awaits = is_async(plan.handler)
    target = plan.handler
    if not awaits and plan.blocking:
        target, awaits = functools.partial(plan.pool.run, plan.handler), True
    status = 200 if plan.status is None else int(plan.status)
    dumps = json.use().dumps
    encode = encoder(
        status,
        nullable=signature.nullable,
        response_class=plan.response_class,
        handler=describe(plan.handler),
        dumps=dumps,
    )
    common: dict[str, Any] = {
        "encode": encode,
        "on_error": plan.errors.answer,
        "dumps": dumps,
        "status": status,
        "body_limit": plan.body_limit,
        "route": plan.route,
    }
    if plan.middleware:
        core = compile_core(
            target,
            signature,
            plan.label,
            awaits=awaits,
            encode=encode,
            handler_of=plan.errors.handler_of,
            encode_answer=encode_answer,
            finish=finish,
        )
        return dispatch.Endpoint(fold(plan.middleware, core, plan.errors), CALL_REQUEST, native=False, **common)
    native = not signature.nullable and plan.response_class in (None, HttpResponse, message.Response)
    call, mode, kinds, general = _shape(target, signature, plan)
    return dispatch.Endpoint(call, mode, kinds=kinds, plan=general, native=native, **common)


def _shape(
    target: Callable[..., Any], signature: Signature, plan: RoutePlanInput
) -> tuple[Callable[..., Any], int, bytes, Callable[[Any], Any] | None]:
    arguments = signature.arguments
    if not arguments:
        return target, CALL_BARE, b"", None
    if len(arguments) == 1 and arguments[0].source is REQUEST and not arguments[0].keyword:
        return target, CALL_REQUEST, b"", None
    general = compile_plan(target, signature, plan.label)
    kinds = path_kinds(signature, tuple(plan.path))
    if kinds is not None:
        return target, CALL_PARAMS, kinds, general
    return general, CALL_REQUEST, b"", None


def fold(middleware: Sequence[Middleware], core: CallNext, errors: ErrorPolicy) -> CallNext:
    """Fold a chain of middleware around a core; the first one is the outermost.

    Args:
        middleware: The chain.
        core: The innermost `call_next`.
        errors: What becomes of exceptions: those that have a handler become responses where they are raised.
    """
    call_next = core
    for one in reversed(middleware):
        call_next = _link(one, call_next, errors)
    return call_next


def _link(middleware: Middleware, call_next: CallNext, errors: ErrorPolicy) -> CallNext:
    handler_of = errors.handler_of
    response_type = message.Response

    async def link(request: Any) -> Any:
        try:
            response = await middleware(request, call_next)
        except Exception as error:
            handler = handler_of(error)
            if handler is None:
                raise
            response = encode_answer(error, await finish(handler(request, error)))
        if not isinstance(response, response_type):
            raise TypeError(_no_response(middleware, response))
        return response

    return link


def _no_response(middleware: Middleware, value: Any) -> str:
    return (
        f"middleware {describe(middleware)} at {locate(middleware)} returned {type(value).__name__}, not a response; "
        "it must return what `await call_next(request)` returned, or an HttpResponse of its own"
    )


def check_middleware(middleware: Any) -> Middleware:
    """Check that something can be called as `await middleware(request, call_next)`, and return it.

    Raises:
        ConfigurationError: It cannot; says what it is and how to mend it.
    """
    where = f"middleware {describe(middleware)} at {locate(middleware)}"
    if not callable(middleware):
        raise ConfigurationError(f"{middleware!r} is no middleware: it cannot be called as (request, call_next)")
    if not is_async(middleware):
        raise ConfigurationError(f"{where} must be `async def (request, call_next)`: it awaits call_next(request)")
    try:
        inspect.signature(middleware).bind(None, None)
    except TypeError:
        raise ConfigurationError(
            f"{where} must take two arguments, the request and call_next; ASGI middleware, which takes "
            "(scope, receive, send), is put around the whole app instead: `asgi = Middleware(app)`"
        ) from None
    return middleware  # type: ignore[no-any-return]
