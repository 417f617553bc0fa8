"""Every error Armature raises on purpose, in one tree.

An error meant for the programmer (`ConfigurationError` and below) is raised while the app is being put
together and says where the mistake stands and how to mend it. An error meant for the client (`HTTPException`)
becomes a response. An error of the wire (`ProtocolError`) is answered by the connection itself and closes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ArmatureError",
    "ClientDisconnect",
    "ConfigurationError",
    "HTTPException",
    "MissingDependencyError",
    "PayloadTooLarge",
    "ProtocolError",
    "RequestValidationError",
    "RouteError",
]


def _phrase(status_code: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return ""


class ArmatureError(Exception):
    """The base of every error that Armature raises on purpose."""


class ConfigurationError(ArmatureError):
    """The app was put together wrongly; raised before the first request is served."""


class RouteError(ConfigurationError):
    """A route cannot be registered.

    Args:
        message: What is wrong, in one sentence.
        pattern: The path pattern of the route, as written.
        handler: Qualified name of the handler.
        location: `file:line` of the handler.
        hint: How to mend it.
    """

    def __init__(
        self,
        message: str,
        *,
        pattern: str | None = None,
        handler: str | None = None,
        location: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.pattern = pattern
        self.handler = handler
        self.location = location
        self.hint = hint
        lines = [message]
        if pattern is not None:
            lines.append(f"  route:   {pattern}")
        if handler is not None:
            lines.append(f"  handler: {handler}")
        if location is not None:
            lines.append(f"  at:      {location}")
        if hint is not None:
            lines.append(f"  mend:    {hint}")
        super().__init__("\n".join(lines))


class MissingDependencyError(ArmatureError, ImportError):
    """An optional package is needed and not installed.

    Args:
        package: The distribution that is missing.
        extra: The extra of `armature-framework` that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed; run: pip install 'armature-framework[{extra}]'")


class HTTPException(ArmatureError):
    """Answer the request with an error status; raise it anywhere below a handler.

    Args:
        status_code: The HTTP status, 400 to 599 (other statuses are allowed but unusual).
        detail: What the client is told; any JSON value. Default: the reason phrase of the status.
        headers: Header fields added to the response.
    """

    def __init__(self, status_code: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status_code
        self.detail = _phrase(status_code) if detail is None else detail
        self.headers = headers
        super().__init__(status_code, self.detail)

    def __str__(self) -> str:
        return f"{self.status_code}: {self.detail}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(status_code={self.status_code!r}, detail={self.detail!r})"


class PayloadTooLarge(HTTPException):
    """The request's body is larger than the route allows (RFC 9110 section 15.5.14).

    Args:
        limit: The limit, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(413, f"The request body is larger than the limit of {limit} bytes.")


class RequestValidationError(HTTPException):
    """Parameters of the request do not fit the handler's signature.

    Args:
        errors: One mapping per error, with `type`, `loc` (a list such as `["query", "limit"]`), `msg`, `input`.
    """

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        self.errors = errors
        super().__init__(422, errors)


class ClientDisconnect(ArmatureError):
    """The client went away while its request was being read or answered."""


class ProtocolError(ArmatureError):
    """The peer broke the protocol; the connection answers with `status` and closes.

    Args:
        status: The HTTP status of the answer: 400, 413, 414, 417, 431, 501 or 505.
        message: What is wrong, for the log and for the body of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(status, message)

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"
