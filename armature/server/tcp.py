"""Options of TCP sockets: set once on the listener wherever connections take them over from there.

On Linux an accepted socket is a copy of its listener, NODELAY, keep-alive, timeouts and buffer sizes included, so that
a connection costs no system call for them. What a system does not have is left out, with a line of log.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import Any

from armature.exceptions import ConfigurationError

__all__ = ["TcpConfig", "tuned"]

logger = logging.getLogger("armature.server")

#: macOS calls the idle time by another name.
_KEEPALIVE_IDLE = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"

#: Largest values that every kernel takes.
_MOST_SECONDS = 32767
_MOST_PROBES = 127
_MOST_BYTES = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class TcpConfig:
    """Options of the TCP sockets of a server.

    Args:
        nodelay: Whether small writes are sent at once, instead of waiting for the acknowledgement of what was sent
            before (Nagle's algorithm).
        quickack: Whether a new connection acknowledges at once (True) or together with an answer (False). None leaves
            that to the system, which decides by itself later on in any case. Costs a system call per connection.
        defer_accept: Seconds that a connection without data stays with the kernel instead of the server; 0 for none.
        keepalive: Seconds without traffic until the peer is probed, seconds between probes, and how many may go
            unanswered until the connection is given up. None for no probes.
        user_timeout: Seconds that sent data may stay unacknowledged until the connection is given up; 0 for the
            system's own.
        fastopen: How many connections may send data with their first packet while it is not yet certain that the
            client is who it says (RFC 7413); 0 for none.
        send_buffer: Bytes of the kernel's send buffer, None for the system's own, which adapts.
        receive_buffer: Bytes of the kernel's receive buffer, None for the system's own, which adapts.

    Raises:
        ConfigurationError: A value is out of range.
    """

    nodelay: bool = True
    quickack: bool | None = None
    defer_accept: int = 0
    keepalive: tuple[int, int, int] | None = (120, 30, 4)
    user_timeout: float = 0
    fastopen: int = 0
    send_buffer: int | None = None
    receive_buffer: int | None = None

    def __post_init__(self) -> None:
        _whole("tcp_defer_accept", self.defer_accept, 0, _MOST_SECONDS)
        _whole("tcp_fastopen", self.fastopen, 0, 65535)
        if not 0 <= self.user_timeout <= _MOST_SECONDS:
            raise ConfigurationError(
                f"tcp_user_timeout must be seconds from 0 to {_MOST_SECONDS}, not {self.user_timeout!r}"
            )
        if self.keepalive is not None:
            try:
                idle, interval, count = self.keepalive
            except (TypeError, ValueError):
                raise ConfigurationError(
                    "tcp_keepalive must be three numbers, the seconds of idleness, the seconds between probes and the "
                    f"number of probes, or None, not {self.keepalive!r}"
                ) from None
            _whole("the first number of tcp_keepalive", idle, 1, _MOST_SECONDS)
            _whole("the second number of tcp_keepalive", interval, 1, _MOST_SECONDS)
            _whole("the third number of tcp_keepalive", count, 1, _MOST_PROBES)
        for name, size in (("tcp_send_buffer", self.send_buffer), ("tcp_receive_buffer", self.receive_buffer)):
            if size is not None:
                _whole(name, size, 1, _MOST_BYTES)

    @property
    def per_connection(self) -> bool:
        """Whether something has to be set on every connection: what asyncio overrides, or the kernel does not copy."""
        return not self.nodelay or self.quickack is not None

    def prepare(self, listener: socket.socket) -> None:
        """Set what connections take over from the socket that they are accepted on.

        Args:
            listener: A stream socket, preferably one that does not listen yet. One that is not TCP is left as it is.
        """
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            return
        _set(listener, socket.IPPROTO_TCP, "TCP_NODELAY", int(self.nodelay))
        if self.keepalive is not None:
            idle, interval, count = self.keepalive
            _set(listener, socket.SOL_SOCKET, "SO_KEEPALIVE", 1)
            _set(listener, socket.IPPROTO_TCP, _KEEPALIVE_IDLE, idle)
            _set(listener, socket.IPPROTO_TCP, "TCP_KEEPINTVL", interval)
            _set(listener, socket.IPPROTO_TCP, "TCP_KEEPCNT", count)
        if self.user_timeout:
            _set(listener, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", max(1, round(self.user_timeout * 1000)))
        if self.defer_accept:
            _set(listener, socket.IPPROTO_TCP, "TCP_DEFER_ACCEPT", self.defer_accept)
        if self.fastopen:
            _set(listener, socket.IPPROTO_TCP, "TCP_FASTOPEN", self.fastopen)
        if self.send_buffer is not None:
            _set(listener, socket.SOL_SOCKET, "SO_SNDBUF", self.send_buffer)
        if self.receive_buffer is not None:
            _set(listener, socket.SOL_SOCKET, "SO_RCVBUF", self.receive_buffer)

    def tune(self, connection: Any) -> None:
        """Set the rest, on one connection; needed only if `per_connection` says so.

        Args:
            connection: A socket, or what a transport gives out as its socket.
        """
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        # The peer may have gone already.
        with contextlib.suppress(OSError):
            if not self.nodelay:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            if self.quickack is not None and hasattr(socket, "TCP_QUICKACK"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int(self.quickack))


def tuned(base: Any, options: TcpConfig) -> Any:
    """Return the class of the connections, which is the one given unless each of them needs a setting.

    Args:
        base: The class.
        options: The settings.
    """
    if not options.per_connection:
        return base
    return type("TunedProtocol", (_Tuned, base), {"__slots__": (), "tcp": options})


class _Tuned:
    """Sets, on a connection that begins, what it has not taken over from its listener."""

    __slots__ = ()

    tcp: TcpConfig

    def connection_made(self, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self.tcp.tune(sock)
        super().connection_made(transport)  # type: ignore[misc]


def _set(sock: socket.socket, level: int, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is None:
        logger.debug("%s is not available on this system", name)
        return
    try:
        sock.setsockopt(level, option, value)
    except OSError as error:
        logger.debug("%s=%d was refused by the system: %s", name, value, error)


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{name} must be a number from {least} to {most}, not {value!r}")
