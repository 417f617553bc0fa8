"""The PROXY protocol, versions 1 and 2: a header in front of the connection that names its real ends.

Proxies that pass on bytes, such as HAProxy in TCP mode or a network load balancer, can say in no other way whom they
speak for. The header comes before everything else, TLS included. It is read byte for byte and never beyond its end, so
that what follows is still in the socket for whoever reads next. (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import re
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from armature.http.forwarded import LogThrottle, TrustedProxies
from armature.server.listeners import tls_options
from armature.server.protocol import over_unix_socket

if TYPE_CHECKING:
    from armature.server.config import ServerConfig

__all__ = ["ProxyHeader", "ProxyHeaderError", "ProxyProtocolGate", "bytes_to_read", "parse_header"]

logger = logging.getLogger("armature.proxy")

#: Seconds that a proxy has for its header; it sends it with the first packet, which may be lost.
HEADER_SECONDS = 5.0

#: Longest line of version 1 (section 2.1).
V1_LIMIT = 107

#: Longest header of version 2. The addresses take 232 bytes at most; extensions such as a client's name may follow.
V2_LIMIT = 4096

#: Seconds that connections which are still announcing themselves get, once the server stops.
DRAIN_SECONDS = 0.5

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
_V1_PREFIX = b"PROXY "
_V1_UNKNOWN = b"PROXY UNKNOWN"
_V1_SPACES = 5
_v1_line = re.compile(
    rb"PROXY TCP(?:4 ([0-9.]{7,15}) ([0-9.]{7,15})|6 ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
).fullmatch

_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
#: Sizes of the addresses by family and transport (section 2.2).
_ADDRESS_SIZE = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}


class ProxyHeaderError(ValueError):
    """What stands in front of a connection is no PROXY header."""


class ProxyHeader(NamedTuple):
    """What a proxy says of a connection.

    Args:
        announced: Whether it says something; otherwise the connection is the proxy's own, or it does not know.
        client: Address and port of the client; None if it has none.
        server: Address and port that the client connected to; None if it has none.
    """

    announced: bool = False
    client: tuple[str, int] | None = None
    server: tuple[str, int] | None = None


def bytes_to_read(data: bytes) -> int:
    """Return how many bytes are certain to belong to the header still; 0 if it is complete.

    Args:
        data: The bytes read so far.

    Raises:
        ProxyHeaderError: They are not the beginning of a header.
    """
    size = len(data)
    if data.startswith(b"\r"):
        if data[:12] != _SIGNATURE[:size]:
            raise ProxyHeaderError("the signature is wrong")
        if size < _V2_FIXED:
            return _V2_FIXED - size
        total = _V2_FIXED + int.from_bytes(data[14:16], "big")
        if total > V2_LIMIT:
            raise ProxyHeaderError(f"it is {total} bytes long, and {V2_LIMIT} are allowed")
        return total - size
    if data[:6] != _V1_PREFIX[:size]:
        raise ProxyHeaderError("there is none")
    shortest = len(_V1_UNKNOWN) + 2
    if size < shortest:
        return shortest - size
    if data.endswith(b"\r\n"):
        return 0
    if b"\n" in data or b"\r" in data[:-1]:
        raise ProxyHeaderError("the line does not end with CR LF")
    if size >= V1_LIMIT:
        raise ProxyHeaderError(f"the line is longer than {V1_LIMIT} bytes")
    if data.endswith(b"\r"):
        return 1
    # Before the CR LF there is a space and a character, at least, for each part that has not begun.
    parts = 0 if data.startswith(_V1_UNKNOWN) else max(_V1_SPACES - data.count(b" "), 0)
    return min(2 * parts + 2, V1_LIMIT - size)


def parse_header(data: bytes) -> ProxyHeader:
    """Read a complete header of either version.

    Args:
        data: The header, no more and no less.

    Raises:
        ProxyHeaderError: It is malformed.
    """
    return _parse_v2(data) if data.startswith(b"\r") else _parse_v1(data)


def _parse_v1(data: bytes) -> ProxyHeader:
    if data.startswith(_V1_UNKNOWN) and data[len(_V1_UNKNOWN) :][:1] in (b" ", b"\r"):
        # Section 2.1: what stands behind it is to be ignored.
        return ProxyHeader()
    match = _v1_line(data)
    if match is None:
        raise ProxyHeaderError(f"the line is malformed: {data!r}")
    try:
        kind: Any = ipaddress.IPv4Address if match[1] else ipaddress.IPv6Address
        client, server = (str(kind((match[i] or match[i + 2]).decode())) for i in (1, 2))
    except ValueError:
        raise ProxyHeaderError(f"the line holds no address: {data!r}") from None
    ports = int(match[5]), int(match[6])
    if max(ports) > 65535:
        raise ProxyHeaderError(f"the line holds no port: {data!r}")
    return ProxyHeader(True, (client, ports[0]), (server, ports[1]))


def _parse_v2(data: bytes) -> ProxyHeader:
    version, command = data[12] >> 4, data[12] & 15
    if version != 2:
        raise ProxyHeaderError(f"its version is {version}")
    if command == _LOCAL:
        # Section 2.2: a connection of the proxy itself, such as a health check; the addresses are to be ignored.
        return ProxyHeader()
    if command != _PROXY:
        raise ProxyHeaderError(f"its command is {command}")
    family = data[13]
    size = _ADDRESS_SIZE.get(family)
    if size is None:
        raise ProxyHeaderError(f"it is not for a stream: family and transport are 0x{family:02x}")
    if len(data) - _V2_FIXED < size:
        raise ProxyHeaderError(f"it ends before its addresses of {size} bytes")
    if family == _UNSPECIFIED:
        return ProxyHeader()
    if family == _UNIX_STREAM:
        return ProxyHeader(True)
    addresses = data[_V2_FIXED : _V2_FIXED + size]
    width = 4 if family == _TCP4 else 16
    client, server = (str(ipaddress.ip_address(addresses[at : at + width])) for at in (0, width))
    ports = addresses[2 * width :]
    return ProxyHeader(
        True,
        (client, int.from_bytes(ports[:2], "big")),
        (server, int.from_bytes(ports[2:], "big")),
    )


class ProxyProtocolGate:
    """Stands before the protocol of a server and lets in connections that announce themselves.

    It is a protocol factory. A peer that is not trusted, or says nothing intelligible in time, is cut off.

    Args:
        factory: Makes the protocol that the connection goes on with.
        config: The server's options; `trusted_proxies` are believed.
        context: Switches TLS on, behind the header.
    """

    def __init__(self, factory: Callable[[], Any], config: ServerConfig, context: ssl.SSLContext | None = None) -> None:
        self.factory = factory
        self.trusted = TrustedProxies(config.trusted_proxies)
        self.context = context
        self.tls_options = tls_options(config)
        self._waiting: set[_Announcement] = set()
        self._empty: asyncio.Event | None = None
        self._refused = LogThrottle()

    def __call__(self) -> asyncio.BufferedProtocol:
        return _Announcement(self)

    async def close(self) -> None:
        """Wait a moment for the connections that are announcing themselves, and cut off what is left."""
        if self._waiting:
            self._empty = asyncio.Event()
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._empty.wait()
            except TimeoutError:
                pass
            finally:
                for announcement in list(self._waiting):
                    announcement.abort()

    def enter(self, announcement: _Announcement) -> None:
        """A connection begins."""
        self._waiting.add(announcement)

    def leave(self, announcement: _Announcement) -> None:
        """A connection has announced itself, or is over."""
        self._waiting.discard(announcement)
        if not self._waiting and self._empty is not None:
            self._empty.set()

    def refuse(self, peer: str, reason: str) -> None:
        """Log why a connection is cut off."""
        more = self._refused.passes()
        if more is not None:
            logger.warning("cut off %s: %s%s", peer, reason, more)


class _Announcement(asyncio.BufferedProtocol):
    """A connection before the end of its header."""

    def __init__(self, gate: ProxyProtocolGate) -> None:
        self._gate = gate
        self._data = b""
        self._buffer = bytearray(bytes_to_read(b""))
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[asyncio.Transport | None] | None = None
        self._peer = ""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        local = over_unix_socket(transport)
        name = transport.get_extra_info("peername")
        client = (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None
        self._peer = "a peer on a Unix socket" if local else f"the peer {'' if client is None else client[0]}".rstrip()
        self._gate.enter(self)
        if not self._gate.trusted.trusts(client, local):
            self._refuse("it is not in trusted_proxies, and only these may speak the PROXY protocol")
            return
        self._timer = self._loop.call_later(HEADER_SECONDS, self._refuse, "its PROXY header did not come in time")

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self._data += self._buffer[:nbytes]
        try:
            missing = bytes_to_read(self._data)
            if missing:
                self._buffer = bytearray(missing)
                return
            header = parse_header(self._data)
        except ProxyHeaderError as error:
            self._refuse(f"its PROXY header cannot be read: {error}")
            return
        if self._gate.context is None:
            self._hand_over(self._transport, header)
        else:
            self._start_tls(self._gate.context, header)

    def eof_received(self) -> bool:
        # Also what looks whether somebody listens, and says nothing.
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()
        self._end()

    def _refuse(self, reason: str) -> None:
        self._gate.refuse(self._peer, reason)
        self.abort()

    def _end(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._gate.leave(self)

    def _hand_over(self, transport: Any, header: ProxyHeader, early: _Early | None = None) -> None:
        protocol = self._gate.factory()
        if header.announced:
            protocol.announce(header.client, header.server)
        transport.set_protocol(protocol)
        self._end()
        protocol.connection_made(transport)
        if early is not None:
            early.pass_on(protocol)

    def _start_tls(self, context: ssl.SSLContext, header: ProxyHeader) -> None:
        # What follows belongs to the handshake, which has a deadline of its own.
        self._transport.pause_reading()
        if self._timer is not None:
            self._timer.cancel()
        early = _Early()
        started = self._loop.start_tls(self._transport, early, context, server_side=True, **self._gate.tls_options)
        self._task = self._loop.create_task(started)
        # Protocols are called by the loop, not in a task: a handler is one itself.
        self._task.add_done_callback(functools.partial(self._tls_started, header, early))

    def _tls_started(self, header: ProxyHeader, early: _Early, task: asyncio.Task[asyncio.Transport | None]) -> None:
        error = None if task.cancelled() else task.exception()
        transport = None if task.cancelled() or error is not None else task.result()
        if error is not None:
            level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
            logger.log(level, "%s: the TLS handshake failed: %r", self._peer, error)
        if transport is None or early.lost:
            self._transport.abort()
            self._end()
        else:
            self._hand_over(transport, header, early)


class _Early(asyncio.Protocol):
    """Takes what comes between the end of the handshake and the moment that `start_tls` returns."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def pass_on(self, protocol: Any) -> None:
        if self.data:
            protocol.data_received(bytes(self.data))
        if self.ended:
            protocol.eof_received()
