"""Requests that came through proxies: client, scheme and host are what a trusted proxy says they are.

A server without trusted proxies does not know of this module. With them the requests are of a subclass, chosen when
the server starts, that looks at the fields when it is first asked: it is the request and not the connection that
knows its client, because a proxy sends requests of many clients over one connection.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from armature.http.forwarded import Forwarded, ForwardedReader, TrustedProxies
from armature.http.request import HttpRequest
from armature.http.url import URL

if TYPE_CHECKING:
    from armature._impl import message
    from armature.server.config import ServerConfig
    from armature.types import Service

__all__ = ["ForwardedRequest", "ForwardedService", "adapt_scope"]


class ForwardedRequest:
    """What replaces the properties of a request; mixed into the class that the service wants its requests to be."""

    __slots__ = ()

    reader: ForwardedReader | None
    default_root_path: str

    def forwarded(self) -> Forwarded:
        """What trusted proxies say of this request."""
        request: Any = self
        try:
            # A slot of the class that is made of this one.
            return request._forwarded  # type: ignore[no-any-return]
        except AttributeError:
            pass
        connection = request.connection
        if self.reader is None:
            said = Forwarded()
        else:
            said = self.reader.read(
                connection.client,
                getattr(connection, "is_local", False),
                request.raw_headers,
                getattr(connection, "announced", False),
            )
        request._forwarded = said
        return said

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the client, if it is known; port 0 if that is not."""
        said = self.forwarded()
        if said.client_known:
            return said.client
        client: tuple[str, int] | None = self.connection.client  # type: ignore[attr-defined]
        return client

    @property
    def scheme(self) -> str:
        """`"http"` or `"https"`, as the client used it."""
        scheme: str = self.forwarded().scheme or self.connection.scheme  # type: ignore[attr-defined]
        return scheme

    @property
    def host(self) -> str:
        """Host and port the client asked for."""
        said = self.forwarded()
        own: str = HttpRequest.host.fget(self)  # type: ignore[attr-defined]
        return said.authority(own, self.scheme)

    @property
    def root_path(self) -> str:
        """The path below which clients see the app, and which a proxy took off."""
        prefix = self.forwarded().prefix
        return self.default_root_path if prefix is None else prefix

    @property
    def url(self) -> URL:
        """The URL the client asked for."""
        url: URL = super().url  # type: ignore[misc]
        root = self.root_path
        return url.replace(path=root + url.path) if root else url

    @property
    def base_url(self) -> URL:
        """Scheme and host of the URL, with the path that the app stands at."""
        url: URL = super().base_url  # type: ignore[misc]
        return url.replace(path=self.root_path + url.path)

    def url_for(self, name: str, /, **params: Any) -> URL:
        """Return the absolute URL of a route."""
        url: URL = super().url_for(name, **params)  # type: ignore[misc]
        return url.replace(path=self.root_path + url.path)


class ForwardedService:
    """A service whose requests know what proxies say of them.

    Args:
        service: What is served.
        config: The server's options: who is trusted, and what with.
    """

    def __init__(self, service: Service, config: ServerConfig) -> None:
        self.service = service
        self.router = service.router
        self.app = service.app
        trusted, fields = TrustedProxies(config.trusted_proxies), config.forwarded_headers
        base = service.request_class
        self.request_class: type[message.Request] = type(
            base.__name__,
            (ForwardedRequest, base),
            {
                "__slots__": ("_forwarded",),
                "reader": ForwardedReader(trusted, fields) if trusted and fields else None,
                "default_root_path": config.root_path,
            },
        )

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """The life of the service."""
        return self.service.lifespan()


def adapt_scope(request: ForwardedRequest, scope: dict[str, Any]) -> None:
    """Say in the scope of an ASGI app what proxies say of a request.

    Args:
        request: The request.
        scope: Its connection scope (ASGI HTTP 2.4), which is changed.
    """
    said = request.forwarded()
    scope["client"] = request.client
    scope["scheme"] = request.scheme
    if said.host is not None or said.port is not None:
        host = request.host.encode("latin-1")
        scope["headers"] = [(b"host", host), *(field for field in scope["headers"] if field[0] != b"host")]
    if said.prefix is not None:
        before: str = scope["root_path"]
        scope["root_path"] = said.prefix
        scope["path"] = said.prefix + scope["path"][len(before) :]
        scope["raw_path"] = said.prefix.encode("ascii") + scope["raw_path"][len(before) :]
