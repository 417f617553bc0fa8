"""What proxies say of the client, for apps that another server serves; our own server has an option for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from armature.exceptions import ConfigurationError
from armature.http.forwarded import ForwardedReader, TrustedProxies
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

__all__ = ["ProxyHeadersMiddleware"]

_USED = ("forwarded", "x-forwarded-for", "x-forwarded-proto")


class ProxyHeadersMiddleware:
    """Makes `request.client` and `request.scheme` what trusted proxies say they are.

    The server's option `trusted_proxies` does the same for every request and costs less; this is for apps that run
    under an ASGI server which has no such option. Put it outermost.

    Args:
        trusted_proxies: Addresses, networks such as `"10.0.0.0/8"`, `"unix"` for Unix sockets, `"*"` for any peer.
        forwarded_headers: The fields that these proxies set, and do not pass on as they came: `"forwarded"`, or some of
            `"x-forwarded-for"` and `"x-forwarded-proto"`.

    Raises:
        ConfigurationError: Nobody is trusted, or something is malformed.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] | str,
        forwarded_headers: Sequence[str] = ("x-forwarded-for", "x-forwarded-proto"),
    ) -> None:
        trusted = TrustedProxies(trusted_proxies)
        if not trusted:
            raise ConfigurationError("trusted_proxies is empty; name the proxies, such as ['127.0.0.1']")
        self.reader = ForwardedReader(trusted, forwarded_headers)
        others = sorted(name.decode() for name in self.reader.names if name.decode() not in _USED)
        if others:
            raise ConfigurationError(f"the middleware cannot use {', '.join(others)}; the server's option can")

    async def __call__(
        self, request: HttpRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponse]]
    ) -> HttpResponse:
        """Let the request pass, as that of its client."""
        carrier = request.connection
        client = carrier.client
        # An ASGI server names neither end of a connection on a Unix socket, but both ends of any other.
        said = self.reader.read(client, client is None and carrier.server is None, request.raw_headers)
        if said.client_known or said.scheme is not None:
            request.connection = _ForwardedCarrier(
                carrier, said.client if said.client_known else client, said.scheme or carrier.scheme
            )
        return await call_next(request)


class _ForwardedCarrier:
    """The carrier of a request, but for its client and scheme."""

    __slots__ = ("_carrier", "client", "scheme")

    def __init__(self, carrier: Any, client: tuple[str, int] | None, scheme: str) -> None:
        self._carrier = carrier
        self.client = client
        self.scheme = scheme

    def __getattr__(self, name: str) -> Any:
        return getattr(self._carrier, name)
