"""From an exception to a response: the handlers that the app registered, and what happens without one."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeAlias

from armature._impl import message
from armature._spec.status import REASONS
from armature.exceptions import ClientDisconnect, ConfigurationError, HTTPException, RequestValidationError
from armature.http.response import HttpResponse
from armature.pipeline.encode import encoder

__all__ = ["ErrorPolicy", "ExceptionHandler", "ValidationShape", "encode_answer", "finish"]

logger = logging.getLogger("armature.app")

#: Takes the request and the exception; returns a response, or anything a handler may return, or awaits first.
ExceptionHandler: TypeAlias = Callable[[Any, Any], Any]

#: How a 422 spells its errors: problem details (RFC 9457), or FastAPI's `{"detail": [...]}`.
ValidationShape: TypeAlias = Literal["problem", "fastapi"]


async def finish(value: Any) -> Any:
    """Await a value that is to be awaited, and return it."""
    return await value if inspect.isawaitable(value) else value


def http_problem(request: Any, error: HTTPException) -> message.Response:
    """Answer an `HTTPException` with problem details (RFC 9457)."""
    headers = None if error.headers is None else dict(error.headers)
    if error.status_code in (204, 304):
        return HttpResponse(b"", error.status_code, headers)
    # The title is the reason phrase already.
    detail = None if error.detail == REASONS.get(error.status_code) else error.detail
    return HttpResponse.problem(status=error.status_code, detail=detail, headers=headers)


def validation_problem(request: Any, error: RequestValidationError) -> message.Response:
    """Answer a request whose parameters do not fit, with problem details and the member `errors`."""
    return HttpResponse.problem(status=422, detail=_summary(error.errors), errors=error.errors)


def validation_detail(request: Any, error: RequestValidationError) -> message.Response:
    """Answer a request whose parameters do not fit, in FastAPI's shape."""
    return HttpResponse.json({"detail": error.errors}, 422)


def _summary(errors: list[dict[str, Any]]) -> str:
    parts = []
    for error in errors:
        place, *rest = error["loc"]
        name = ".".join(str(part) for part in rest)
        value = "" if error["type"] == "missing" else f" (got {_shortened(error['input'])})"
        parts.append(f"{place} parameter {name!r}: {error['msg']}{value}")
    return "; ".join(parts)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class ErrorPolicy:
    """The exception handlers of one scope, and of the scopes around it.

    Args:
        parent: The policy of the scope around this one.
        by_type: Handlers by exception class; the nearest class of an exception's MRO wins, then the innermost scope.
        by_status: Handlers by the status of an `HTTPException`; 500 also answers whatever nobody handles.
        debug: Whether an unhandled exception may be shown to the client.
        validation_errors: The shape of a 422.
        debug_responder: Gives the function that shows an unhandled exception, if there is one.
    """

    def __init__(
        self,
        parent: ErrorPolicy | None = None,
        *,
        by_type: dict[type[BaseException], ExceptionHandler] | None = None,
        by_status: dict[int, ExceptionHandler] | None = None,
        debug: bool = False,
        validation_errors: ValidationShape = "problem",
        debug_responder: Callable[[], Callable[[Any, BaseException], message.Response] | None] = lambda: None,
    ) -> None:
        if validation_errors not in ("problem", "fastapi"):
            raise ConfigurationError(f"validation_errors must be 'problem' or 'fastapi', not {validation_errors!r}")
        self.parent = parent
        self.by_type = dict(by_type or {})
        self.by_status = dict(by_status or {})
        self.debug = debug
        self.debug_responder = debug_responder
        if parent is None:
            self.by_type.setdefault(HTTPException, http_problem)
            shape = validation_detail if validation_errors == "fastapi" else validation_problem
            if by_type is None or HTTPException not in by_type:
                self.by_type.setdefault(RequestValidationError, shape)
            self.by_type.setdefault(ClientDisconnect, _client_gone)
        self._found: dict[type[BaseException], ExceptionHandler | None] = {}

    def handler_of(self, error: BaseException) -> ExceptionHandler | None:
        """Find the handler of an exception; None if nobody handles it."""
        if isinstance(error, HTTPException):
            policy: ErrorPolicy | None = self
            while policy is not None:
                handler = policy.by_status.get(error.status_code)
                if handler is not None:
                    return handler
                policy = policy.parent
        kind = type(error)
        try:
            return self._found[kind]
        except KeyError:
            found = self._found[kind] = self._search(kind)
            return found

    def _search(self, kind: type[BaseException]) -> ExceptionHandler | None:
        for base in kind.__mro__:
            policy: ErrorPolicy | None = self
            while policy is not None:
                if base in policy.by_type:
                    return policy.by_type[base]
                policy = policy.parent
        return None

    def _fallback(self) -> ExceptionHandler | None:
        policy: ErrorPolicy | None = self
        while policy is not None:
            if 500 in policy.by_status:
                return policy.by_status[500]
            policy = policy.parent
        return None

    def answer(self, request: Any, error: BaseException) -> message.Response | Coroutine[Any, Any, message.Response]:
        """Answer an exception that left the route: the `on_error` of every endpoint.

        Args:
            request: The request.
            error: What was raised.

        Raises:
            BaseException: `error` is one that ends the program, such as `SystemExit`.
        """
        if not isinstance(error, (Exception, asyncio.CancelledError)):
            raise error
        handler = self.handler_of(error)
        if handler is None:
            return self._unhandled(request, error)
        try:
            value = handler(request, error)
            if inspect.isawaitable(value):
                return self._await(request, error, value)
            return encode_answer(error, value)
        except Exception as raised:
            return self._unhandled(request, raised)

    async def _await(self, request: Any, error: BaseException, value: Any) -> message.Response:
        try:
            return encode_answer(error, await value)
        except Exception as raised:
            return await finish(self._unhandled(request, raised))  # type: ignore[no-any-return]

    def _unhandled(
        self, request: Any, error: BaseException
    ) -> message.Response | Coroutine[Any, Any, message.Response]:
        self.log(request, error)
        # A carrier may want to know: a test client raises it in the test.
        observe = getattr(request.connection, "unhandled", None)
        if observe is not None:
            observe(request, error)
        handler = self._fallback()
        if handler is not None:
            try:
                value = handler(request, error)
                if inspect.isawaitable(value):
                    return self._await_fallback(request, error, value)
                return encode_answer(error, value)
            except Exception as raised:
                self.log(request, raised)
                error = raised
        return self._server_error(request, error)

    async def _await_fallback(self, request: Any, error: BaseException, value: Any) -> message.Response:
        try:
            return encode_answer(error, await value)
        except Exception as raised:
            self.log(request, raised)
            return self._server_error(request, raised)

    def _server_error(self, request: Any, error: BaseException) -> message.Response:
        policy = self
        while policy.parent is not None:
            policy = policy.parent
        if policy.debug:
            responder = policy.debug_responder()
            if responder is not None:
                return responder(request, error)
            import traceback

            return HttpResponse.text("".join(traceback.format_exception(error)), 500)
        return HttpResponse.problem(status=500)

    def log(self, request: Any, error: BaseException) -> None:
        """Log an exception that nobody handled, once, with the route and the handler's place."""
        route = getattr(request.endpoint, "route", None)
        where = "" if route is None else f" in {route.described} ({route.location})"
        logger.error(
            "%s %s: unhandled %s%s",
            request.method,
            request.raw_path.decode("ascii", "backslashreplace"),
            type(error).__name__,
            where,
            exc_info=(type(error), error, error.__traceback__),
        )


def _client_gone(request: Any, error: ClientDisconnect) -> message.Response:
    # Nobody reads this; the status only shows in the access log.
    return HttpResponse(b"", 400)


_encode_error = encoder(500, at_once=True)


def encode_answer(error: BaseException, value: Any) -> message.Response:
    """Turn what an exception handler returned into a response: an `HTTPException` keeps its status, others are 500."""
    if isinstance(value, message.Response):
        return value
    if isinstance(error, HTTPException) and error.status_code != 500:
        return encoder(error.status_code, at_once=True)(value)
    return _encode_error(value)
