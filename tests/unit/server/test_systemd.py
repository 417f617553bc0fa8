"""What systemd passes to a service, and what it is told."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from armature.exceptions import ConfigurationError
from armature.server.systemd import Notifier, inherited_descriptors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

ME = str(os.getpid())


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, {}),
        ({"LISTEN_FDS": "2"}, {}),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "1"}, {}),
        ({"LISTEN_FDS": "2", "LISTEN_PID": ME}, {3: "unknown", 4: "unknown"}),
        ({"LISTEN_FDS": "2", "LISTEN_PID": ME, "LISTEN_FDNAMES": "http:https"}, {3: "http", 4: "https"}),
    ],
)
def test_inherited_descriptors(environment: dict[str, str], found: dict[int, str]) -> None:
    assert inherited_descriptors(environment) == found


@pytest.mark.parametrize("count", ["", "0", "-1", "x", "\u0663", "99999"])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(ConfigurationError, match="LISTEN_FDS must be a number of sockets"):
        inherited_descriptors({"LISTEN_FDS": count, "LISTEN_PID": ME})


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="says 1 sockets, but LISTEN_FDNAMES names 2"):
        inherited_descriptors({"LISTEN_FDS": "1", "LISTEN_PID": ME, "LISTEN_FDNAMES": "a:b"})


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What plays systemd's part."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def test_the_messages(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    assert notifier.listening
    notifier.ready("serves\non http://127.0.0.1")
    assert manager.recv(1000) == b"READY=1\nSTATUS=serves on http://127.0.0.1"
    notifier.reloading()
    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0
    notifier.stopping()
    assert manager.recv(1000) == b"STOPPING=1\nSTATUS=shutting down"


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace")
def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0armature-{os.getpid()}")
        sock.settimeout(20)
        Notifier({"NOTIFY_SOCKET": f"@armature-{os.getpid()}"}).ready()
        assert sock.recv(1000).startswith(b"READY=1")


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/nowhere/at/all"])
def test_nobody_listens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier.listening is (address == "/nowhere/at/all")
    notifier.ready()
    notifier.stopping()


def test_signs_of_life(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000", "WATCHDOG_PID": ME})

    async def live() -> None:
        notifier.start_watchdog(asyncio.get_running_loop())
        notifier.start_watchdog(asyncio.get_running_loop())
        for _ in range(3):
            assert await asyncio.to_thread(manager.recv, 1000) == b"WATCHDOG=1"
        notifier.stop_watchdog()
        notifier.stop_watchdog()

    asyncio.run(live())


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
def test_no_signs_of_life_for_nobody(manager: socket.socket, environment: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), **environment})

    async def live() -> None:
        notifier.start_watchdog(asyncio.get_running_loop())

    asyncio.run(live())
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
