"""What a test client raises on its own account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armature.exceptions import ArmatureError

if TYPE_CHECKING:
    from armature.testing.response import ClientResponse

__all__ = [
    "ClientClosed",
    "ClientError",
    "ConnectionClosed",
    "HTTPStatusError",
    "InvalidResponse",
    "RequestTimeout",
    "TooManyRedirects",
]


class ClientError(ArmatureError):
    """The base of the errors that a test client raises."""


class ClientClosed(ClientError):
    """The client that a response came from was closed before the response was read."""


class InvalidResponse(ClientError):
    """The server sent bytes that are not a valid HTTP/1.1 response."""


class ConnectionClosed(ClientError):
    """The server closed the connection before its response was complete."""


class RequestTimeout(ClientError, TimeoutError):
    """The response was not complete in time."""


class TooManyRedirects(ClientError):
    """A redirect was followed more often than the client allows."""


class HTTPStatusError(ClientError):
    """The response has an error status; raised by `raise_for_status()`.

    Args:
        message: What is wrong.
        response: The response, whole.
    """

    def __init__(self, message: str, response: ClientResponse) -> None:
        self.response = response
        super().__init__(message)
