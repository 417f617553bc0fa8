"""TCP options where they count: on the sockets that a running server has accepted. And sockets that systemd opens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature import App, HttpRequest
from wire_client import PATIENCE, Peer, Running, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's names, and what it copies to connections")

Serve = Callable[..., Running]
TCP = socket.IPPROTO_TCP


def make_app() -> App:
    app = App()

    @app.get("/")
    async def option(request: HttpRequest) -> dict[str, int]:
        """The options of the connection itself, by the numbers in the query."""
        sock = request.connection.get_extra_info("socket")
        # Not every loop lets one ask its own object.
        with socket.socket(fileno=os.dup(sock.fileno())) as own:
            return {
                name: own.getsockopt(*map(int, name.split("-")))
                for name in request.query.get("of", "").split(",")
                if name
            }

    return app


def options_of(running: Running, *wanted: tuple[int, int]) -> list[int]:
    names = [f"{level}-{option}" for level, option in wanted]
    found = json.loads(running.get(f"/?of={','.join(names)}").body)
    return [found[name] for name in names]


IDLE, INTERVAL, COUNT = (TCP, 4), (TCP, 5), (TCP, 6)
NODELAY, USER_TIMEOUT, QUICKACK = (TCP, 1), (TCP, 18), (TCP, 12)
KEEPALIVE, SEND, RECEIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
)


@pytest.mark.parametrize("io", ["auto", "asyncio"])
def test_the_defaults(serve: Serve, io: str) -> None:
    running = serve(make_app(), io=io)
    assert options_of(running, NODELAY, KEEPALIVE, IDLE, INTERVAL, COUNT, USER_TIMEOUT) == [1, 1, 120, 30, 4, 0]


@pytest.mark.parametrize("io", ["auto", "asyncio"])
def test_what_was_chosen(serve: Serve, io: str) -> None:
    running = serve(
        make_app(),
        io=io,
        tcp_nodelay=False,
        tcp_keepalive=(77, 11, 3),
        tcp_user_timeout=1.5,
        tcp_send_buffer=65536,
        tcp_receive_buffer=32768,
    )
    assert options_of(running, NODELAY, KEEPALIVE, IDLE, INTERVAL, COUNT, USER_TIMEOUT) == [0, 1, 77, 11, 3, 1500]
    # The kernel doubles them for its own bookkeeping (socket(7)).
    assert options_of(running, SEND, RECEIVE) == [131072, 65536]


@pytest.mark.parametrize("io", ["auto", "asyncio"])
def test_no_probes(serve: Serve, io: str) -> None:
    assert options_of(serve(make_app(), io=io, tcp_keepalive=None), KEEPALIVE) == [0]


@pytest.mark.parametrize("quickack", [True, False])
def test_acknowledgements(serve: Serve, quickack: bool) -> None:
    # The kernel changes it as it sees fit later on; that it was set at all shows in the first request.
    running = serve(make_app(), tcp_quickack=quickack)
    assert options_of(running, QUICKACK) == [int(quickack)]


def test_connections_without_data_stay_with_the_kernel(serve: Serve) -> None:
    running = serve(make_app(), tcp_defer_accept=5, tcp_fastopen=16)
    [listener] = running.server.sockets
    assert listener.getsockopt(TCP, socket.TCP_DEFER_ACCEPT) >= 5
    assert listener.getsockopt(TCP, socket.TCP_FASTOPEN) == 16
    with running.connect() as silent, running.connect() as talking:
        # The second one arrives, and the first one has not.
        assert talking.get("/").status == 200
        assert len(running.state.connections) == 1
        assert silent.get("/").status == 200
        assert len(running.state.connections) == 2


def test_the_kernel_counts_down_to_the_first_probe(serve: Serve) -> None:
    running = serve(make_app(), tcp_keepalive=(77, 11, 3))
    with running.connect() as peer:
        assert peer.get("/").status == 200
        assert 60 < eventually(lambda: keepalive_timer(running.port)) <= 77


def keepalive_timer(port: int) -> float:
    """Seconds until an accepted connection is probed; 0 if that timer does not run (proc_net_tcp.txt)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        kind, _, ticks = columns[5].partition(":")
        if int(columns[1].rpartition(":")[2], 16) == port and columns[3] == "01" and kind == "02":
            return int(ticks, 16) / os.sysconf("SC_CLK_TCK")
    return 0.0


def test_an_option_costs_no_call_per_connection(serve: Serve) -> None:
    """The protocol of the connections is the same as without."""
    running = serve(make_app(), tcp_keepalive=(77, 11, 3), tcp_user_timeout=3)
    with running.connect() as peer:
        assert peer.get("/").status == 200
        [connection] = running.state.connections
        assert not type(connection).__name__.startswith("Tuned")


# ---- sockets that were opened before


@contextlib.contextmanager
def listening(*hosts: str) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server((host, 0))) for host in hosts]


def test_several_inherited_sockets(serve: Serve) -> None:
    with listening("127.0.0.1", "127.0.0.2") as sockets:
        ports = [sock.getsockname() for sock in sockets]
        running = serve(make_app(), fd=[os.dup(sock.fileno()) for sock in sockets], tcp_keepalive=(77, 11, 3))
        for address in ports:
            with Peer(address) as peer:
                assert json.loads(peer.get("/?of=6-4").body) == {"6-4": 77}
        assert len(running.server.sockets) == 2
        assert not any(os.get_inheritable(sock.fileno()) for sock in running.server.sockets)


APP = """
import os
from armature import App, HttpRequest

app = App()

@app.get("/")
async def index(request: HttpRequest) -> list:
    return [os.getpid(), *request.server]
"""

#: Does what systemd does for a service with a .socket unit: puts the sockets at 3 and up, and names the process.
LAUNCHER = """
import fcntl, os, sys
sockets = [int(number) for number in sys.argv[1].split(",")]
# First out of the way of each other.
moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in sockets]
for place, number in enumerate(moved, 3):
    os.dup2(number, place)
    os.set_inheritable(place, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(moved)), LISTEN_FDNAMES=":".join(["http"] * len(moved)))
os.execv(sys.executable, [sys.executable, "-m", "armature", *sys.argv[2:]])
"""


@contextlib.contextmanager
def activated(tmp_path: Path, sockets: list[socket.socket], *arguments: str, **variables: str) -> Iterator[Any]:
    (tmp_path / "main.py").write_text(APP)
    numbers = ",".join(str(sock.fileno()) for sock in sockets)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    environment.pop("NOTIFY_SOCKET", None) if "NOTIFY_SOCKET" not in variables else None
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, numbers, "run", "main:app", *arguments],
        cwd=tmp_path,
        env=environment,
        pass_fds=[sock.fileno() for sock in sockets],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_systemd_activation(tmp_path: Path) -> None:
    with listening("127.0.0.1", "127.0.0.2") as sockets:
        addresses = [sock.getsockname() for sock in sockets]
        # Nobody serves yet: what comes waits in the queue of the socket.
        with Peer(addresses[1]) as early:
            early.request()
            with activated(tmp_path, sockets) as process:
                assert json.loads(early.answer().body) == [process.pid, *addresses[1]]
                for address in addresses:
                    with Peer(address) as peer:
                        assert json.loads(peer.get("/").body) == [process.pid, *address]
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0


def test_an_address_is_stronger_than_what_systemd_passes(tmp_path: Path) -> None:
    with listening("127.0.0.1") as sockets, activated(tmp_path, sockets, "--port", "0") as process:
        line = next(line for line in process.stderr if "Armature" in line)
        port = int(line.rsplit(":", 1)[1])
        assert port != sockets[0].getsockname()[1]
        with Peer(("127.0.0.1", port)) as peer:
            assert peer.get("/").status == 200


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        with listening("127.0.0.1") as sockets, activated(tmp_path, sockets, **variables) as process:
            assert manager.recv(1000).startswith(b"READY=1\nSTATUS=Armature ")
            for _ in range(3):
                assert manager.recv(1000) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            eventually(lambda: manager.recv(1000).startswith(b"STOPPING=1"))
            assert process.wait(PATIENCE) == 0
