"""What an operator can choose about a server, in one place, checked when it is made."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Literal

from armature._spec.limits import BODY_LIMIT
from armature.exceptions import ConfigurationError

__all__ = ["ServerConfig"]

LOOPS = ("auto", "uvloop", "asyncio")
ENGINES = ("auto", "armature", "httptools")


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
        body_limit: Largest request body for routes that say nothing, in bytes.
        backlog: Connections that may wait to be accepted.
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
    body_limit: int = BODY_LIMIT
    backlog: int = 2048
    server_header: str | None = "armature"
    date_header: bool = True
    shutdown_timeout: float = 30.0
    lifespan: Literal["on", "off"] = "on"

    def __post_init__(self) -> None:
        _one_of("loop", self.loop, LOOPS)
        _one_of("http", self.http, ENGINES)
        _one_of("lifespan", self.lifespan, ("on", "off"))
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port must be 0 to 65535, not {self.port}")
        if self.uds is not None and self.fd is not None:
            raise ConfigurationError("uds and fd exclude each other; choose one")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigurationError("ssl_keyfile needs ssl_certfile")
        if self.body_limit < 0:
            raise ConfigurationError(f"body_limit must not be negative, but is {self.body_limit}")

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that the options describe, or None for plain TCP."""
        if self.ssl_context is not None or self.ssl_certfile is None:
            return self.ssl_context
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self.ssl_keyfile_password)
        except OSError as error:
            raise ConfigurationError(
                f"the certificate {self.ssl_certfile} or its key cannot be loaded: {error}"
            ) from error
        return context


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
