"""What an operator can choose about a server, in one place, checked when it is made."""

from __future__ import annotations

import difflib
import socket
import ssl
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from armature.exceptions import ConfigurationError

__all__ = ["ServerConfig"]

LOOPS = ("auto", "uvloop", "asyncio")
ENGINES = ("auto", "armature", "httptools")
LEVELS = ("critical", "error", "warning", "info", "debug")


@dataclass(slots=True)
class ServerConfig:
    """Options of a server.

    Args:
        host: Address to listen on.
        port: TCP port, 0 for any free one.
        uds: Path of a Unix socket to listen on instead of TCP.
        fd: File descriptor of a socket that already listens, instead of TCP.
        loop: `"uvloop"`, `"asyncio"`, or `"auto"` for uvloop where it is installed.
        http: `"armature"` for our own parser, `"httptools"` for llhttp's; `"auto"` is our own.
        access_log: Whether to log each request.
        log_level: Level of the `armature` logger.
        ssl_certfile: PEM file with the certificate chain; switches TLS on.
        ssl_keyfile: PEM file with the key, if it is not in `ssl_certfile`.
        ssl_keyfile_password: Password of the key.
        ssl_context: A ready TLS context, instead of files.
        body_limit: Largest request body in bytes, for routes that name none of their own; replaces the app's own
            default. None leaves that as it is.
        backlog: Connections that may wait to be accepted.
        reuse_port: Whether several processes may listen on the same TCP port, between which the system then divides
            the connections (`SO_REUSEPORT`).
        workers: How many processes serve; this release serves with one, see `reuse_port`.
        server_header: Value of the Server field, None for none.
        date_header: Whether to send Date.
        shutdown_timeout: Seconds that requests in flight may take after a stop was asked for.
        lifespan: Whether to run the app's start-up and shut-down.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | None = None
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    http: Literal["auto", "armature", "httptools"] = "auto"
    access_log: bool = False
    log_level: str = "info"
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    body_limit: int | None = None
    backlog: int = 2048
    reuse_port: bool = False
    workers: int = 1
    server_header: str | None = "armature"
    date_header: bool = True
    shutdown_timeout: float = 30.0
    lifespan: Literal["on", "off"] = "on"

    def __post_init__(self) -> None:
        _one_of("loop", self.loop, LOOPS)
        _one_of("http", self.http, ENGINES)
        _one_of("lifespan", self.lifespan, ("on", "off"))
        _whole("port", self.port, 0, 65535)
        _whole("backlog", self.backlog, 1, 1 << 31)
        if self.body_limit is not None:
            _whole("body_limit", self.body_limit, 0, 1 << 62)
        self.log_level = str(self.log_level).lower()
        _one_of("log_level", self.log_level, LEVELS)
        if self.workers != 1:
            raise ConfigurationError(
                f"this release serves with one worker per process, so workers must be 1, not {self.workers!r}; to use "
                "more cores start as many processes, each with reuse_port=True, on the same port"
            )
        if self.uds is not None and self.fd is not None:
            raise ConfigurationError("uds and fd exclude each other; choose one")
        if self.reuse_port and (self.uds is not None or self.fd is not None):
            raise ConfigurationError("reuse_port is for TCP ports, not for uds or fd")
        if self.reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigurationError("reuse_port is not available on this system")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigurationError("ssl_keyfile needs ssl_certfile")
        if self.ssl_context is not None and self.ssl_certfile is not None:
            raise ConfigurationError("ssl_context and ssl_certfile exclude each other; choose one")
        if not self.shutdown_timeout >= 0:
            raise ConfigurationError(f"shutdown_timeout must not be negative, but is {self.shutdown_timeout}")
        if self.server_header is not None and not (
            self.server_header.isascii() and self.server_header.isprintable() and self.server_header.strip()
        ):
            raise ConfigurationError(f"server_header must be printable ASCII, or None, not {self.server_header!r}")

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Make a configuration of options, with a hint for a misspelt one.

        Raises:
            ConfigurationError: There is no such option, or its value is wrong.
        """
        known = [one.name for one in fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
                raise ConfigurationError(f"the server has no option {name!r}{hint}")
        return cls(**options)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that the options describe, or None for plain TCP."""
        if self.ssl_context is not None or self.ssl_certfile is None:
            return self.ssl_context
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self.ssl_keyfile_password)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the certificate {self.ssl_certfile} or its key cannot be loaded: {error}"
            ) from error
        return context


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{name} must be a number from {least} to {most}, not {value!r}")
