"""Protocols and aliases that several rooms share; `Service` is where `server` and `app` meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from armature._pure.message import Request, Response
    from armature._pure.router import RadixRouter

__all__ = ["ASGIApp", "Carrier", "ErrorHandler", "Message", "Receive", "Scope", "Send", "Service"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Turns an exception into a response, at once or after awaiting.
ErrorHandler: TypeAlias = "Callable[[Request, BaseException], Response | Coroutine[Any, Any, Response]]"


class Carrier(Protocol):
    """What brings a request: a connection of the server, an ASGI scope, a test.

    A carrier may also have `unhandled(request, error)`; it is told of every exception that nothing in the app handled.
    And it may have `ready`, which is False from the moment that its server is told to stop.
    """

    @property
    def scheme(self) -> str: ...
    @property
    def client(self) -> tuple[str, int] | None: ...
    @property
    def server(self) -> tuple[str, int] | None: ...
    @property
    def app(self) -> Any: ...
    def is_disconnected(self) -> bool: ...


class Service(Protocol):
    """What a server serves: a frozen router whose leaves are endpoints, and the life around it."""

    router: RadixRouter
    request_class: type[Request]
    app: Any

    def lifespan(self) -> AbstractAsyncContextManager[None]: ...
