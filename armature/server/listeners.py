"""The sockets that a server listens on: TCP over IPv4 and IPv6, Unix sockets, inherited descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import socket
import ssl
import stat
from collections.abc import Callable
from typing import Any

from armature.exceptions import ArmatureError, ConfigurationError
from armature.server.config import ServerConfig

__all__ = ["ListenError", "Listeners"]

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
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._servers: list[asyncio.AbstractServer] = []
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
        if config.fd is not None:
            self.sockets = [_inherited(config.fd)]
        elif config.uds is not None:
            self.sockets = [self._bind_path(config.uds)]
        else:
            self.sockets = await _bind_host(config.host, config.port, config.reuse_port)

    async def listen(self, factory: Callable[[], Any], context: ssl.SSLContext | None) -> None:
        """Accept connections from now on.

        Args:
            factory: Makes the protocol of a connection.
            context: Switches TLS on.

        Raises:
            ListenError: Somebody else was quicker.
        """
        loop = asyncio.get_running_loop()
        for sock in self.sockets:
            create: Any = loop.create_server
            options: dict[str, Any] = {} if context is None else {"ssl_shutdown_timeout": TLS_SHUTDOWN_SECONDS}
            if sock.family == getattr(socket, "AF_UNIX", None):
                create = loop.create_unix_server
                # From 3.13 on loops would unlink the path themselves, even that of an inherited socket.
                if "cleanup_socket" in inspect.signature(create).parameters:
                    options["cleanup_socket"] = False
            try:
                server = await create(factory, sock=sock, backlog=self._config.backlog, ssl=context, **options)
            except OSError as error:
                raise _explained(error, _name(sock)) from error
            self._servers.append(server)

    async def close(self) -> None:
        """Accept no more; remove the path of a Unix socket."""
        try:
            await self._quiesce()
        finally:
            self._close()

    async def _quiesce(self) -> None:
        """Let the loop hand over what it has accepted.

        Asyncio makes a connection in a task of its own, which fails, and leaves the socket open, if the server was
        closed between the two steps.
        """
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):
            for sock in self.sockets:
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0)

    def _close(self) -> None:
        for server in self._servers:
            server.close()
        for sock in self.sockets:
            sock.close()
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


def _inherited(descriptor: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"fd {descriptor} is not a socket: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise ConfigurationError(f"fd {descriptor} is not a stream socket")
    sock.setblocking(False)
    return sock


async def _bind_host(host: str, port: int, reuse_port: bool) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    try:
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


def _name(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"{_bracketed(name[0])}:{name[1]}"
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
