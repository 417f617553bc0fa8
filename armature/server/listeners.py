"""The sockets that a server listens on: TCP over IPv4 and IPv6, Unix sockets, inherited descriptors."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import inspect
import os
import selectors
import socket
import ssl
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from armature.exceptions import ArmatureError, ConfigurationError
from armature.server.config import ServerConfig

__all__ = ["ListenError", "Listeners", "tls_options", "url_of"]

#: How long the packets of a handshake may be under way when the server stops.
HANDSHAKE_SECONDS = 0.1

#: Turns of the loop that it is given to accept those who wait when the server stops.
ACCEPT_TURNS = 100

#: Other ports tried where port 0 must be free on several addresses at once.
PORT_ATTEMPTS = 16


#: How long a TLS connection that is being closed waits for the peer to agree. Asyncio's half a minute would be added
#: to every shutdown with an idle client.
TLS_SHUTDOWN_SECONDS = 1.0


class ListenError(ArmatureError, OSError):
    """The server cannot listen where it was told to.

    Args:
        message: What is wrong and how to mend it.
        number: The system's error number.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        self.message = message
        super().__init__(number, message)

    def __str__(self) -> str:
        return self.message


class Listeners:
    """The listening sockets of one server.

    Binding and listening are two steps: an address that is taken is found out before the app starts, and no client
    gets in before it has started.

    Args:
        config: The server's options.
        sockets: Bound sockets to serve on, instead of those that the options describe.
    """

    def __init__(self, config: ServerConfig, sockets: Sequence[socket.socket] = ()) -> None:
        self._config = config
        self._given = list(sockets)
        self._servers: dict[socket.socket, asyncio.AbstractServer] = {}
        self._factory: Callable[[], Any] | None = None
        self._context: ssl.SSLContext | None = None
        self._reactor: Any = None
        self._path: tuple[str, tuple[int, int]] | None = None
        #: The bound sockets.
        self.sockets: list[socket.socket] = []

    async def bind(self) -> None:
        """Bind the sockets, without listening on them.

        Raises:
            ListenError: The address is taken, unknown or not ours to use.
            ConfigurationError: The descriptor is not that of a socket.
        """
        config = self._config
        if self._given:
            self.sockets = self._given
            return
        if config.fd is not None:
            self.sockets = _inherited(config.fd)
        elif config.uds is not None:
            self.sockets = [self._bind_path(config.uds)]
        else:
            self.sockets = await _bind_host(config.host, config.port, config.reuse_port)
        self._prepare()

    def sibling(self) -> Listeners:
        """Bind further sockets to the same addresses; the kernel divides connections between those that listen (Linux).

        Raises:
            ListenError: Somebody else was quicker.
        """
        # Set only now: a first bind with it would not have found out that the address is taken.
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other = Listeners(self._config)
        addresses: list[tuple[int, Any]] = [(sock.family, sock.getsockname()) for sock in self.sockets]
        other.sockets = _bind_all(addresses, self._config.host, addresses[0][1][1], True)
        other._prepare()
        return other

    def _prepare(self) -> None:
        tcp = self._config.tcp()
        for sock in self.sockets:
            tcp.prepare(sock)

    async def listen(self, factory: Callable[[], Any], context: ssl.SSLContext | None, reactor: Any = None) -> None:
        """Accept connections from now on.

        Args:
            factory: Makes the protocol of a connection.
            context: Switches TLS on.
            reactor: What accepts them, instead of the loop.

        Raises:
            ListenError: Somebody else was quicker.
        """
        self._factory, self._context, self._reactor = factory, context, reactor
        for sock in self.sockets:
            await self._listen(sock)

    async def add(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections from further sockets as well.

        Args:
            sockets: They belong to this object from now on.
        """
        for sock in sockets:
            self.sockets.append(sock)
            await self._listen(sock)

    async def remove(self, sockets: Iterable[socket.socket]) -> None:
        """Accept no more from some of the sockets, and close them; what waits in them is left to others who have them.

        Args:
            sockets: Some of `self.sockets`.
        """
        given = [sock for sock in sockets if sock in self.sockets]
        await self._quiesce(given)
        for sock in given:
            self.sockets.remove(sock)
            self._release(sock)

    async def _listen(self, sock: socket.socket) -> None:
        if self._reactor is not None:
            try:
                sock.listen(self._config.backlog)
            except OSError as error:
                raise _explained(error, _name(sock)) from error
            self._reactor.listen(sock)
            return
        loop = asyncio.get_running_loop()
        create: Any = loop.create_server
        options: dict[str, Any] = {} if self._context is None else tls_options(self._config)
        if sock.family == getattr(socket, "AF_UNIX", None):
            create = loop.create_unix_server
            # From 3.13 on loops would unlink the path themselves, even that of an inherited socket.
            if "cleanup_socket" in inspect.signature(create).parameters:
                options["cleanup_socket"] = False
        try:
            self._servers[sock] = await create(
                self._factory, sock=sock, backlog=self._config.backlog, ssl=self._context, **options
            )
        except OSError as error:
            raise _explained(error, _name(sock)) from error

    async def close(self) -> None:
        """Accept what has connected already, and no more; remove the path of a Unix socket."""
        self.turn_away()
        try:
            if self._factory is not None:
                await self._take_waiting()
            await self._quiesce(self.sockets)
        finally:
            self._close()

    def turn_away(self) -> None:
        """Let nobody connect any more, as far as that can be done before the sockets are closed.

        A socket that is closed resets the connections that wait in it, although their clients have been let in and may
        have sent their requests. So first nobody new comes in, then those are served, then it is closed.
        """
        if not self._given and self._config.fd is None:
            for sock in self.sockets:
                _drop_handshakes(sock)
        self._remove_path()

    async def _take_waiting(self) -> None:
        if not all(map(_is_local, self.sockets)):
            # The last packet of a handshake is still under way.
            await asyncio.sleep(HANDSHAKE_SECONDS)
        with selectors.DefaultSelector() as selector:
            for sock in self.sockets:
                selector.register(sock, selectors.EVENT_READ)
            for _ in range(ACCEPT_TURNS):
                if not selector.select(0):
                    return
                await asyncio.sleep(0)

    async def _quiesce(self, sockets: Iterable[socket.socket]) -> None:
        """Let the loop hand over what it has accepted.

        Asyncio makes a connection in a task of its own, which fails, and leaves the socket open, if the server was
        closed between the two steps.
        """
        if self._reactor is not None:
            for sock in sockets:
                self._reactor.ignore(sock)
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):
            for sock in sockets:
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0)

    def _release(self, sock: socket.socket) -> None:
        server = self._servers.pop(sock, None)
        if server is not None:
            server.close()
        sock.close()

    def _close(self) -> None:
        for sock in self.sockets:
            self._release(sock)
        self._remove_path()

    def _remove_path(self) -> None:
        if self._path is not None:
            path, identity = self._path
            self._path = None
            # Another server may have put its own socket there meanwhile.
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if (status.st_dev, status.st_ino) == identity:
                    os.unlink(path)

    def _bind_path(self, path: str) -> socket.socket:
        if not hasattr(socket, "AF_UNIX"):
            raise ConfigurationError("uds is not available on this system")
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            status = os.stat(path)
        except OSError as error:
            sock.close()
            if "too long" in str(error):
                raise ListenError(f"the path of the Unix socket {path} is too long", error.errno) from None
            raise _explained(error, path) from error
        sock.setblocking(False)
        self._path = path, (status.st_dev, status.st_ino)
        return sock


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone; refuse to take over anything else."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _explained(error, path) from error
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"{path} exists and is not a socket; remove it, or choose another path", errno.EADDRINUSE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # A full backlog (EAGAIN) is a living server too.
            if error.errno not in (errno.EAGAIN, None):
                raise _explained(error, path) from error
    raise _explained(OSError(errno.EADDRINUSE, ""), path)


#: A filter in the kernel's notation (code, jump if true, jump if false, operand): drop SYN without ACK, pass the rest.
_NO_SYN = (
    # ldb [13]: the flags of the TCP header (RFC 9293 section 3.1)
    (0x30, 0, 0, 13),
    # and #(SYN | ACK)
    (0x54, 0, 0, 0x12),
    # jeq #SYN
    (0x15, 0, 1, 0x02),
    # ret #0
    (0x06, 0, 0, 0),
    # ret #-1
    (0x06, 0, 0, 0xFFFFFFFF),
)

#: Linux's `SO_ATTACH_FILTER`, which Python does not name.
_SO_ATTACH_FILTER = 26


def _drop_handshakes(sock: socket.socket) -> None:
    """Let the kernel ignore who wants to connect; a client tries again after a second, and is refused then."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = array.array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), program.buffer_info()[0]))


def _is_local(sock: socket.socket) -> bool:
    """Whether only programs on this machine can connect, whose handshakes take no time."""
    name = sock.getsockname()
    return not isinstance(name, tuple) or name[0].startswith("127.") or name[0] == "::1"


def tls_options(config: ServerConfig) -> dict[str, Any]:
    """Return what a loop is told about the TLS of a connection, besides the context."""
    return {
        "ssl_handshake_timeout": config.ssl_handshake_timeout,
        "ssl_shutdown_timeout": TLS_SHUTDOWN_SECONDS,
    }


def _inherited(given: int | Sequence[int] | Literal["systemd"]) -> list[socket.socket]:
    if isinstance(given, str):
        from armature.server.systemd import inherited_descriptors

        descriptors = list(inherited_descriptors())
        if not descriptors:
            raise ConfigurationError(
                "systemd has passed no socket to this process; start it by a .socket unit, and without a shell between"
            )
    else:
        descriptors = [given] if isinstance(given, int) else list(given)
    sockets: list[socket.socket] = []
    try:
        sockets.extend(_opened(descriptor) for descriptor in descriptors)
    except BaseException:
        for sock in sockets:
            sock.detach()
        raise
    return sockets


def _opened(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"fd {descriptor} is not a socket: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise ConfigurationError(f"fd {descriptor} is not a stream socket")
    # What handlers start must not keep the port.
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


async def _bind_host(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    try:
        try:
            # An address is looked up here: the loop would start a thread for it, and keep that.
            found = socket.getaddrinfo(
                host or None, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_PASSIVE | socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            found = await loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE, proto=socket.IPPROTO_TCP
            )
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(f"there is no address named {host!r} to listen on: {error}") from error
    addresses: list[tuple[int, Any]] = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for attempt in range(PORT_ATTEMPTS):
        try:
            return _bind_all(addresses, host, port, reuse_port)
        except ListenError as error:
            # With port 0 the first address decides; if that port is taken on another one, begin again.
            if port or len(addresses) == 1 or error.errno != errno.EADDRINUSE or attempt == PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _bind_all(addresses: list[tuple[int, Any]], host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                # The name has an IPv6 address, the kernel has no IPv6.
                absent = error
                continue
            try:
                if os.name == "posix":
                    # On Windows the option would let two servers share a port.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setblocking(False)
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                sock.close()
                if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    absent = error
                    continue
                raise _explained(error, f"{_bracketed(address[0])}:{port}") from error
            bound.append(sock)
            port = sock.getsockname()[1]
        if not bound:
            assert absent is not None
            raise _explained(absent, f"{_bracketed(host)}:{port}") from absent
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _explained(error: OSError, where: str) -> ListenError:
    number = error.errno
    if number == errno.EADDRINUSE:
        text = f"{where} is in use: another program listens there; stop it, or choose another port"
        if ":" not in where:
            text = f"{where} is in use: another program listens there; stop it, or choose another path"
    elif number in (errno.EACCES, errno.EPERM):
        text = f"{where} is not allowed: {error.strerror}; ports below 1024 and foreign directories need privileges"
    elif number == errno.EADDRNOTAVAIL:
        text = f"{where} is not an address of this machine; 127.0.0.1 is, and 0.0.0.0 stands for all of them"
    else:
        text = f"cannot listen on {where}: {error.strerror or error}"
    return ListenError(text, number)


def url_of(sock: socket.socket, scheme: str) -> str:
    """Return where a listening socket is found, such as `http://127.0.0.1:8000` or `unix:/run/shop.sock`.

    Args:
        sock: The socket.
        scheme: `"http"` or `"https"`.
    """
    return f"{scheme}://{_name(sock)}" if isinstance(sock.getsockname(), tuple) else f"unix:{_name(sock)}"


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"{_bracketed(name[0])}:{name[1]}"
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
