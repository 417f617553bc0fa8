"""From http to https: whoever asks for a page in the clear is sent to the same page over TLS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from armature.exceptions import ConfigurationError
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

__all__ = ["HTTPSRedirectMiddleware"]


class HTTPSRedirectMiddleware:
    """Redirects requests that came over plain HTTP to HTTPS.

    Behind a proxy that ends TLS the server must trust it (option `trusted_proxies`), or every request seems to be plain
    and is redirected for ever.

    Args:
        port: The port of the HTTPS address. Default: 443, which is not written.
        status_code: 307 keeps method and body; 308 is remembered by browsers as well.

    Raises:
        ConfigurationError: The status is no redirect that keeps the method, or the port is none.
    """

    def __init__(self, port: int = 443, status_code: int = 307) -> None:
        if status_code not in (307, 308):
            raise ConfigurationError(f"status_code must be 307 or 308, not {status_code!r}")
        if not 0 < port < 65536:
            raise ConfigurationError(f"port must be a number from 1 to 65535, not {port!r}")
        self.port = port
        self.status_code = status_code

    async def __call__(
        self, request: HttpRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponse]]
    ) -> HttpResponse:
        """Redirect the request, or let it pass."""
        if request.scheme != "http":
            return await call_next(request)
        port = None if self.port == 443 else self.port
        return HttpResponse.redirect(str(request.url.replace(scheme="https", port=port)), self.status_code)
