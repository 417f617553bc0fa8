"""What an operator can choose about a server, in one place, checked when it is made."""

from __future__ import annotations

import difflib
import math
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from armature.exceptions import ConfigurationError
from armature.server.tcp import TcpConfig

if TYPE_CHECKING:
    from armature.server.tls import Certificates

__all__ = ["ServerConfig"]

LOOPS = ("auto", "uvloop", "asyncio")
FEEDERS = ("auto", "reactor", "asyncio")
ENGINES = ("auto", "armature", "httptools")
INTERFACES = ("auto", "armature", "asgi")
LEVELS = ("critical", "error", "warning", "info", "debug")
DEADLINES = (
    "head_timeout",
    "body_timeout",
    "idle_timeout",
    "write_timeout",
    "handler_timeout",
    "keep_alive_age",
)
START_METHODS = ("auto", "spawn", "forkserver", "fork")

#: Where Linux says how much memory a process uses.
MEMORY_FILE = "/proc/self/statm"

#: More than any machine has processors; what is above is a slip of the pen.
MOST_WORKERS = 1024


@dataclass(slots=True)
class ServerConfig:
    """Options of a server.

    Args:
        host: Address to listen on.
        port: TCP port, 0 for any free one.
        uds: Path of a Unix socket to listen on instead of TCP.
        fd: File descriptor of a socket that already listens, or several of them, instead of TCP; `"systemd"` for those
            that systemd passes to the service.
        loop: `"uvloop"`, `"asyncio"`, or `"auto"` for uvloop where it is installed.
        io: `"reactor"` for our own epoll loop inside the event loop, `"asyncio"` for the event loop's transports;
            `"auto"` is the reactor where it can run: Linux, the compiled twins, no TLS.
        http: `"armature"` for our own parser, `"httptools"` for llhttp's; `"auto"` is our own.
        access_log: Whether to log each request.
        access_log_format: `"default"`, `"common"`, `"combined"`, or a text with places such as `%(status)s`.
        log_format: `"text"`, or `"json"` for a JSON object per line, of the access log and of everything else.
        metrics_port: TCP port on which metrics for Prometheus are served, None for none.
        metrics_host: Address of this port.
        metrics_path: Path of the metrics there.
        log_level: Level of the `armature` logger.
        ssl_certfile: PEM file with the certificate chain; switches TLS on.
        ssl_keyfile: PEM file with the key, if it is not in `ssl_certfile`.
        ssl_keyfile_password: Password of the key.
        ssl_context: A ready TLS context, instead of files.
        ssl_sni: Certificates for the names that clients ask for, besides the one of `ssl_certfile`: PEM files, or pairs
            of the certificate's and the key's, by names such as `a.example` and `*.example`.
        ssl_ca_certs: PEM file with the authorities of client certificates.
        ssl_client_auth: Whether clients are asked for a certificate: `"none"`, `"optional"` or `"required"`.
        ssl_ciphers: Ciphers for TLS 1.2 in OpenSSL's notation, None for those with forward secrecy.
        ssl_groups: Group for the key exchange, such as `prime256v1`; from Python 3.15 on several, separated by colons.
            None for OpenSSL's own choice, which every client finds one of its own in.
        ssl_handshake_timeout: Seconds that a TLS handshake may take.
        trusted_proxies: Proxies that are believed what they say of the client: addresses, networks such as
            `10.0.0.0/8`, `"unix"` for Unix sockets, `"*"` for whoever connects.
        forwarded_headers: Fields that these proxies set, and do not pass on as they came: `"forwarded"`, or some of
            `"x-forwarded-for"`, `"x-forwarded-proto"`, `"x-forwarded-host"`, `"x-forwarded-port"`,
            `"x-forwarded-prefix"`.
        proxy_protocol: Whether every connection begins with a header of the PROXY protocol; only trusted proxies may
            connect then.
        root_path: Path below which clients see the app, if a proxy takes it off.
        tcp_nodelay: Whether small writes are sent at once (`TCP_NODELAY`).
        tcp_quickack: Whether new connections acknowledge at once (`TCP_QUICKACK`), None for the system's own way.
        tcp_defer_accept: Seconds that a connection without data stays with the kernel, 0 for none.
        tcp_keepalive: Seconds without traffic until a peer is probed, seconds between probes, and how many may go
            unanswered; None for no probes.
        tcp_user_timeout: Seconds that sent data may stay unacknowledged, 0 for the system's own limit.
        tcp_fastopen: Connections that may send data with their first packet, 0 for none.
        tcp_send_buffer: Bytes of the kernel's send buffer, None for the system's own.
        tcp_receive_buffer: Bytes of the kernel's receive buffer, None for the system's own.
        body_limit: Largest request body in bytes, for routes that name none of their own; replaces the app's own
            default. None leaves that as it is.
        backlog: Connections that may wait to be accepted.
        reuse_port: Whether several processes may listen on the same TCP port, between which the system then divides
            the connections (`SO_REUSEPORT`).
        workers: How many processes serve, or `"auto"` for one per processor that this process may use, by its affinity
            and its container's quota.
        worker_affinity: Whether each worker stays on a processor of its own, where the system allows to choose.
        start_method: How workers are made: `"spawn"` starts new interpreters, `"forkserver"` and `"fork"` share memory;
            `"auto"` is `"spawn"`, but for an app that no import string can name.
        max_requests: Requests after which a worker is replaced by a new one, None for never.
        max_requests_jitter: Up to how many requests more a worker may serve, by chance, so that not all are replaced at
            once.
        max_memory: Bytes of memory (resident set) above which a worker is replaced, None for any.
        head_timeout: Seconds that a request's head may take from its first byte on, None for any.
        body_timeout: Seconds that a request's body may take, and as many more as its bytes would take at
            `minimum_rate`; time in which nobody here reads it does not count. None for any.
        idle_timeout: Seconds that a connection may be without a request; fewer when connections get scarce. None for
            any.
        write_timeout: Seconds in which a client that has not taken all that was sent must take `minimum_rate` bytes for
            each, or it is cut off. None for any.
        handler_timeout: Seconds after which a handler is cancelled and answered for with 503, None for never.
        minimum_rate: Bytes a second; what a client that is not too slow sends or takes.
        max_connections: Connections above which new ones are answered with 503, None for no limit.
        keep_alive_requests: Requests after which a connection ends, None for any number.
        keep_alive_age: Seconds after which a connection ends, once it is idle or has been told so in an answer; None
            for never.
        keep_memory: Bytes of freed memory that the process keeps for the next large bodies, where the C library is
            glibc; 0 leaves it to the C library.
        server_header: Value of the Server field, None for none.
        date_header: Whether to send Date.
        shutdown_delay: Seconds between the moment that a stop is asked for, when readiness fails, and the end of
            accepting connections; as long as a load balancer takes to notice.
        shutdown_timeout: Seconds that requests in flight may take after that.
        lifespan: Whether to run the app's start-up and shut-down: `"on"`, `"off"`, or `"auto"`, which differs from
            `"on"` for ASGI apps only, of which some have none.
        interface: What the app is: `"armature"` for an App, a Router or a service, `"asgi"` for a callable that is
            called with scope, receive and send, or `"auto"` to find out.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | Sequence[int] | Literal["systemd"] | None = None
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    io: Literal["auto", "reactor", "asyncio"] = "auto"
    http: Literal["auto", "armature", "httptools"] = "auto"
    access_log: bool = False
    access_log_format: str = "default"
    log_format: Literal["text", "json"] = "text"
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_path: str = "/metrics"
    log_level: str = "info"
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    ssl_sni: Mapping[str, Any] = field(default_factory=dict)
    ssl_ca_certs: str | None = None
    ssl_client_auth: Literal["none", "optional", "required"] = "none"
    ssl_ciphers: str | None = None
    ssl_groups: str | None = None
    ssl_handshake_timeout: float = 10.0
    trusted_proxies: Sequence[str] | str = ()
    forwarded_headers: Sequence[str] | str = ("x-forwarded-for", "x-forwarded-proto")
    proxy_protocol: bool = False
    root_path: str = ""
    tcp_nodelay: bool = True
    tcp_quickack: bool | None = None
    tcp_defer_accept: int = 0
    tcp_keepalive: tuple[int, int, int] | None = (120, 30, 4)
    tcp_user_timeout: float = 0
    tcp_fastopen: int = 0
    tcp_send_buffer: int | None = None
    tcp_receive_buffer: int | None = None
    body_limit: int | None = None
    backlog: int = 2048
    reuse_port: bool = False
    workers: int | Literal["auto"] = 1
    worker_affinity: bool = False
    start_method: Literal["auto", "spawn", "forkserver", "fork"] = "auto"
    max_requests: int | None = None
    max_requests_jitter: int = 0
    max_memory: int | None = None
    head_timeout: float | None = 10.0
    body_timeout: float | None = 60.0
    idle_timeout: float | None = 60.0
    write_timeout: float | None = 60.0
    handler_timeout: float | None = None
    minimum_rate: int = 4096
    max_connections: int | None = 10_000
    keep_alive_requests: int | None = 10_000
    keep_alive_age: float | None = 3600.0
    keep_memory: int = 64 * 1024 * 1024
    server_header: str | None = "armature"
    date_header: bool = True
    shutdown_delay: float = 0.0
    shutdown_timeout: float = 30.0
    lifespan: Literal["auto", "on", "off"] = "auto"
    interface: Literal["auto", "armature", "asgi"] = "auto"

    def __post_init__(self) -> None:
        _one_of("loop", self.loop, LOOPS)
        _one_of("io", self.io, FEEDERS)
        _one_of("http", self.http, ENGINES)
        _one_of("lifespan", self.lifespan, ("auto", "on", "off"))
        _one_of("interface", self.interface, INTERFACES)
        _whole("port", self.port, 0, 65535)
        _whole("backlog", self.backlog, 1, 1 << 31)
        if self.body_limit is not None:
            _whole("body_limit", self.body_limit, 0, 1 << 62)
        self.log_level = str(self.log_level).lower()
        _one_of("log_level", self.log_level, LEVELS)
        self._check_workers()
        self._check_limits()
        if self.uds is not None and self.fd is not None:
            raise ConfigurationError("uds and fd exclude each other; choose one")
        if self.reuse_port and (self.uds is not None or self.fd is not None):
            raise ConfigurationError("reuse_port is for TCP ports, not for uds or fd")
        if self.reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ConfigurationError("reuse_port is not available on this system")
        self._check_tls()
        self._check_proxies()
        self._check_fd()
        self.tcp()
        self._check_reporting()
        if not 0 <= self.shutdown_delay < math.inf:
            raise ConfigurationError(f"shutdown_delay must be a number of seconds, not {self.shutdown_delay!r}")
        if not self.shutdown_timeout >= 0:
            raise ConfigurationError(f"shutdown_timeout must not be negative, but is {self.shutdown_timeout}")
        if self.server_header is not None and not (
            self.server_header.isascii() and self.server_header.isprintable() and self.server_header.strip()
        ):
            raise ConfigurationError(f"server_header must be printable ASCII, or None, not {self.server_header!r}")

    def _check_reporting(self) -> None:
        _one_of("log_format", self.log_format, ("text", "json"))
        if self.access_log_format != "default":
            from armature.logs import access_parts

            access_parts(self.access_log_format, self.log_format)
        if self.metrics_port is not None:
            _whole("metrics_port", self.metrics_port, 0, 65535)
            if self.metrics_port == self.port != 0 and self.uds is None and self.fd is None:
                raise ConfigurationError(
                    f"port and metrics_port are both {self.port}; to serve metrics on the app's own port give the app "
                    'a route: app.add_route("/metrics", armature.server.metrics.metrics)'
                )
        if not self.metrics_path.startswith("/") or set(self.metrics_path) & set("{}*:?# "):
            raise ConfigurationError(f"metrics_path must be a path such as /metrics, not {self.metrics_path!r}")

    def _check_tls(self) -> None:
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigurationError("ssl_keyfile needs ssl_certfile")
        if self.ssl_sni:
            from armature.server.tls import check_sni

            self.ssl_sni = check_sni(self.ssl_sni)
        _one_of("ssl_client_auth", self.ssl_client_auth, ("none", "optional", "required"))
        if (self.ssl_client_auth == "none") != (self.ssl_ca_certs is None):
            raise ConfigurationError(
                "ssl_ca_certs and ssl_client_auth need each other: the authorities of client certificates, and whether "
                "such a certificate is 'optional' or 'required'"
            )
        for name in ("ssl_certfile", "ssl_sni", "ssl_ca_certs", "ssl_ciphers", "ssl_groups"):
            if self.ssl_context is not None and getattr(self, name):
                raise ConfigurationError(f"ssl_context and {name} exclude each other; choose one")
        for name in ("ssl_ca_certs", "ssl_ciphers", "ssl_groups"):
            if getattr(self, name) and self.ssl_certfile is None and not self.ssl_sni:
                raise ConfigurationError(f"{name} needs ssl_certfile or ssl_sni, which switch TLS on")
        if not self.ssl_handshake_timeout > 0:
            raise ConfigurationError(f"ssl_handshake_timeout must be positive, but is {self.ssl_handshake_timeout}")

    def _check_fd(self) -> None:
        if self.fd is None or self.fd == "systemd":
            return
        if isinstance(self.fd, (list, tuple)):
            self.fd = tuple(self.fd)
            if not self.fd:
                raise ConfigurationError("fd names no socket")
        descriptors: Sequence[Any] = self.fd if isinstance(self.fd, tuple) else (self.fd,)
        for descriptor in descriptors:
            _whole("fd", descriptor, 0, 1 << 31)

    def _check_proxies(self) -> None:
        if self.trusted_proxies or self.root_path:
            from armature.http.forwarded import ForwardedReader, TrustedProxies, parse_root_path

            # Made for what they say of a wrong option.
            ForwardedReader(TrustedProxies(self.trusted_proxies), self.forwarded_headers)
            root_path = parse_root_path(self.root_path)
            if root_path is None:
                raise ConfigurationError(
                    f"root_path must be a path such as '/shop', of letters, digits and -._~!$&'()*+,;=:@, not "
                    f"{self.root_path!r}"
                )
            self.root_path = root_path
        if self.proxy_protocol and not self.trusted_proxies:
            raise ConfigurationError(
                "proxy_protocol needs trusted_proxies: the addresses of the proxies, which may say whose connections "
                "they pass on"
            )

    def _check_limits(self) -> None:
        for name in DEADLINES:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and value > 0):
                raise ConfigurationError(f"{name} must be a number of seconds above 0, or None, not {value!r}")
        _whole("keep_memory", self.keep_memory, 0, (1 << 31) - 1)
        _whole("minimum_rate", self.minimum_rate, 0, 1 << 62)
        for name in ("max_connections", "keep_alive_requests"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1, 1 << 62)

    def _check_workers(self) -> None:
        workers: Any = self.workers
        if workers != "auto" and not (
            isinstance(workers, int) and not isinstance(workers, bool) and 1 <= workers <= MOST_WORKERS
        ):
            raise ConfigurationError(f"workers must be a number from 1 to {MOST_WORKERS}, or 'auto', not {workers!r}")
        _one_of("start_method", self.start_method, START_METHODS)
        if self.start_method in ("fork", "forkserver") and not hasattr(os, "fork"):
            raise ConfigurationError(f"start_method {self.start_method!r} is not available on this system; use 'spawn'")
        if self.max_requests is not None:
            _whole("max_requests", self.max_requests, 1, 1 << 62)
        _whole("max_requests_jitter", self.max_requests_jitter, 0, 1 << 62)
        if self.max_requests_jitter and self.max_requests is None:
            raise ConfigurationError("max_requests_jitter needs max_requests")
        if self.max_memory is not None:
            _whole("max_memory", self.max_memory, 1, 1 << 62)
            if not os.path.exists(MEMORY_FILE):
                raise ConfigurationError(f"max_memory is not available on this system, which has no {MEMORY_FILE}")

    @property
    def behind_proxies(self) -> bool:
        """Whether requests have to be seen with the eyes of a proxy's clients."""
        return bool(self.trusted_proxies or self.root_path)

    @property
    def supervised(self) -> bool:
        """Whether `run` starts worker processes, instead of serving in its own."""
        return self.workers != 1 or self.max_requests is not None or self.max_memory is not None

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

    def certificates(self) -> Certificates | None:
        """Load the certificates that the options name; None if they name none.

        Raises:
            ConfigurationError: A file cannot be loaded.
        """
        if self.ssl_certfile is None and not self.ssl_sni:
            return None
        from armature.server.tls import Certificates

        return Certificates(self)

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that the options describe, or None for plain TCP.

        Raises:
            ConfigurationError: A file cannot be loaded.
        """
        certificates = self.certificates()
        return self.ssl_context if certificates is None else certificates.context

    def tcp(self) -> TcpConfig:
        """Return the options of TCP sockets.

        Raises:
            ConfigurationError: One is out of range.
        """
        return TcpConfig(
            nodelay=self.tcp_nodelay,
            quickack=self.tcp_quickack,
            defer_accept=self.tcp_defer_accept,
            keepalive=self.tcp_keepalive,
            user_timeout=self.tcp_user_timeout,
            fastopen=self.tcp_fastopen,
            send_buffer=self.tcp_send_buffer,
            receive_buffer=self.tcp_receive_buffer,
        )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{name} must be a number from {least} to {most}, not {value!r}")
