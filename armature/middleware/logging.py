"""One line of log per request, with what it took."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

from armature.exceptions import ConfigurationError
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

__all__ = ["LoggerMiddleware"]

_DEFAULT = '%(client)s "%(method)s %(target)s HTTP/%(version)s" %(status)d %(ms).1f ms'
_FIELDS = (
    "client",
    "method",
    "path",
    "target",
    "query",
    "version",
    "scheme",
    "status",
    "ms",
    "length",
    "user_agent",
    "referer",
)


class LoggerMiddleware:
    """Logs each request when its response is ready; a streamed body may still be on its way.

    Args:
        format: A `%`-format over `client`, `method`, `path`, `target`, `query`, `version`, `scheme`, `status`, `ms`,
            `length`, `user_agent` and `referer`.
        logger: The logger, or its name.
        level: The level of a request that went well; 5xx are logged as errors, and exceptions that pass through too.
        skip: Paths that are not logged, such as `("/health",)`.

    Raises:
        ConfigurationError: The format names something else.
    """

    def __init__(
        self,
        format: str = _DEFAULT,
        *,
        logger: str | logging.Logger = "armature.access",
        level: int = logging.INFO,
        skip: tuple[str, ...] = (),
    ) -> None:
        try:
            format % dict.fromkeys(_FIELDS, 0)
        except KeyError as error:
            raise ConfigurationError(f"LoggerMiddleware knows no {error}; it knows {', '.join(_FIELDS)}") from None
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"LoggerMiddleware cannot use the format {format!r}: {error}") from None
        self.format = format
        self.logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self.level = level
        self.skip = frozenset(skip)

    @classmethod
    def default(cls) -> Self:
        """The middleware with its default format."""
        return cls()

    async def __call__(
        self, request: HttpRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponse]]
    ) -> HttpResponse:
        """Log one request."""
        if not self.logger.isEnabledFor(logging.ERROR) or (self.skip and request.path in self.skip):
            return await call_next(request)
        started = time.perf_counter()
        try:
            response = await call_next(request)
        except Exception:
            self._log(logging.ERROR, request, 500, None, started)
            raise
        level = logging.ERROR if response.status >= 500 else self.level
        if self.logger.isEnabledFor(level):
            length = None if response.stream is not None else len(response.body)
            self._log(level, request, response.status, length, started)
        return response

    def _log(self, level: int, request: HttpRequest, status: int, length: int | None, started: float) -> None:
        client = request.client
        query = _printable(request.query_string)
        path = _printable(request.raw_path)
        self.logger.log(
            level,
            self.format,
            {
                "client": "-" if client is None else client[0],
                "method": request.method,
                "path": path,
                "target": f"{path}?{query}" if query else path,
                "query": query,
                "version": request.http_version,
                "scheme": request.scheme,
                "status": status,
                "ms": (time.perf_counter() - started) * 1000,
                "length": -1 if length is None else length,
                "user_agent": _printable(request.header(b"user-agent")),
                "referer": _printable(request.header(b"referer")),
            },
        )


def _printable(raw: bytes | None) -> Any:
    # A field value may hold tabs and any octet above 0x7F; a line of log holds neither, and no quote of the client's.
    if raw is None:
        return "-"
    return raw.decode("ascii", "backslashreplace").replace("\t", "\\t").replace('"', "\\x22")
