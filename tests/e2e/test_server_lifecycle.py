"""Starting and stopping: addresses, signals, exit codes, the lifespan's place, and an end that always comes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from armature.app import App
from armature.exceptions import ConfigurationError, MissingDependencyError
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from armature.server import ListenError, Server, ServerConfig, run
from armature.server.runner import loop_factory
from wire_client import PATIENCE, REQUEST, Peer, Running, eventually, serving

Serve = Callable[..., Running]


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and Unix sockets")


class Gate:
    """Holds handlers until the test lets them go on."""

    def __init__(self) -> None:
        self.entered = 0
        self.cancelled = 0
        self.open = threading.Event()

    async def wait(self) -> None:
        self.entered += 1
        try:
            while not self.open.is_set():
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def make_app(gate: Gate, **options: Any) -> App:
    app = App(**options)

    @app.get("/")
    async def index() -> str:
        return "Hello, World!"

    @app.get("/gate")
    async def through_the_gate() -> str:
        await gate.wait()
        return "through"

    @app.get("/stream")
    async def stream() -> HttpResponse:
        async def generate() -> AsyncIterator[bytes]:
            yield b"begun "
            await gate.wait()
            yield b"ended"

        return HttpResponse.stream(generate())

    @app.post("/body")
    async def body(req: HttpRequest) -> str:
        return str(len(await req.body()))

    @app.get("/exit")
    async def leave() -> None:
        raise SystemExit(7)

    return app


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


# ---- a graceful stop


def test_idle_connections_close_at_once(serve: Serve, gate: Gate) -> None:
    running = serve(make_app(gate))
    with running.connect() as fresh, running.connect() as used, running.connect() as in_head:
        assert used.get("/").status == 200
        in_head.send(b"GET / HT")
        eventually(lambda: len(running.state.connections) == 3)
        running.stop()
        assert fresh.ended()
        assert used.ended()
        assert in_head.ended()


def test_idle_tls_connections_close_soon(serve: Serve, gate: Gate, pem: tuple[Path, Path]) -> None:
    running = serve(make_app(gate), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]))
    context = ssl.create_default_context(cafile=str(pem[0]))
    with running.connect(context=context) as idle:
        assert idle.get("/").status == 200
        start = time.monotonic()
        # The client does nothing: it does not even agree to the end.
        running.stop()
        assert time.monotonic() - start < 5


def test_requests_in_flight_are_answered_and_their_connections_closed(serve: Serve, gate: Gate) -> None:
    running = serve(make_app(gate))
    port = running.port
    with running.connect() as peer, running.connect() as streaming:
        peer.send(b"GET /gate HTTP/1.1\r\nHost: test\r\n\r\n" + REQUEST)
        streaming.request("GET", "/stream").head()
        assert streaming.chunk() == b"begun "
        eventually(lambda: gate.entered == 2)
        running.stop(wait=False)
        eventually(lambda: refused(port))
        assert not running.ended
        assert not running.server.ready
        gate.open.set()
        answer = peer.answer()
        assert answer.text == "through"
        assert answer.headers["connection"] == "close"
        assert peer.ended()
        assert streaming.chunk() == b"ended"
        assert streaming.chunk() == b""
        assert streaming.ended()
    running.join()


def test_a_request_that_is_arriving_is_still_taken(serve: Serve, gate: Gate) -> None:
    running = serve(make_app(gate))
    with running.connect() as peer:
        peer.send(b"POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nabc")
        eventually(lambda: any(connection.busy for connection in list(running.state.connections)))
        running.stop(wait=False)
        eventually(lambda: running.state.stopping)
        answer = peer.send(b"def").answer()
        assert answer.text == "6"
        assert answer.headers["connection"] == "close"
        assert peer.ended()
    running.join()


def test_what_is_not_done_in_time_is_cut_off(serve: Serve, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(make_app(gate), shutdown_timeout=0.2)
    with running.connect() as peer, running.connect() as streaming:
        peer.request("GET", "/gate")
        streaming.request("GET", "/stream").head()
        eventually(lambda: gate.entered == 2)
        start = time.monotonic()
        running.stop()
        assert 0.15 < time.monotonic() - start < 5
        assert gate.cancelled == 2
        with contextlib.suppress(ConnectionResetError):
            assert b"ended" not in streaming.rest()
    assert "not done after 0.2 seconds; cutting off 2 connections" in caplog.text


def test_a_second_stop_forces(serve: Serve, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(make_app(gate), shutdown_timeout=1000)
    with running.connect() as peer:
        peer.request("GET", "/gate")
        eventually(lambda: gate.entered == 1)
        running.stop(wait=False)
        eventually(lambda: running.state.stopping)
        running.stop()
        assert gate.cancelled == 1
    assert "told to hurry" in caplog.text


def test_a_handler_whose_peer_is_gone_is_waited_for(serve: Serve, gate: Gate) -> None:
    running = serve(make_app(gate))
    with running.connect() as peer:
        peer.request("GET", "/gate")
        eventually(lambda: gate.entered == 1)
        peer.reset()
    eventually(lambda: not running.state.connections)
    running.stop(wait=False)
    eventually(lambda: running.state.stopping)
    assert not running.ended
    gate.open.set()
    running.join()
    assert gate.cancelled == 0


def test_a_handler_that_refuses_to_end_does_not_hold_the_server(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    stubborn = threading.Event()

    @app.get("/")
    async def index() -> str:
        while not stubborn.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return "late"

    running = serve(app, shutdown_timeout=0.1)
    with running.connect() as peer:
        peer.request("GET", "/")
        eventually(lambda: running.call(running.state.handlers))
        start = time.monotonic()
        running.stop(wait=False)
        eventually(lambda: not running.state.connections)
        # One second to clean up; then the loop's end, which asyncio makes wait for it.
        time.sleep(1.2)
        stubborn.set()
        running.join()
        assert time.monotonic() - start < 10


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


# ---- the lifespan


def test_the_lifespan_surrounds_everything(loop_name: str, gate: Gate) -> None:
    events: list[str] = []
    port = free_port()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        events.append("refused before" if refused(port) else "open before")
        yield
        events.append("refused after" if refused(port) else "open after")

    app = make_app(gate, lifespan=lifespan)
    with serving(app, loop_name, port=port) as running:
        assert running.get("/").status == 200
        with running.connect() as peer:
            peer.request("GET", "/gate")
            eventually(lambda: gate.entered == 1)
            running.stop(wait=False)
            eventually(lambda: refused(port))
            assert events == ["refused before"]
            gate.open.set()
            assert peer.answer().text == "through"
    assert events == ["refused before", "refused after"]


def test_a_task_group_may_span_the_lifespan(loop_name: str, gate: Gate) -> None:
    ticks: list[int] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async def tick() -> None:
            while True:
                ticks.append(1)
                await asyncio.sleep(0.001)

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            task = group.create_task(tick())
            yield
            task.cancel()

    with serving(make_app(gate, lifespan=lifespan), loop_name) as running:
        assert running.get("/").status == 200
        eventually(lambda: len(ticks) > 5)
    count = len(ticks)
    assert count == len(ticks)


place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")


def test_requests_see_the_context_of_the_lifespan(loop_name: str) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        place.set("lifespan")
        yield

    app = App(lifespan=lifespan)

    @app.get("/")
    async def index() -> str:
        before = place.get()
        place.set("request")
        return before

    with serving(app, loop_name) as running, running.connect() as peer:
        assert [peer.get("/").text for _ in range(3)] == ["lifespan"] * 3


def test_a_lifespan_may_be_left_out(loop_name: str, gate: Gate) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        raise AssertionError("not to be entered")
        yield

    with serving(make_app(gate, lifespan=lifespan), loop_name, lifespan="off") as running:
        assert running.get("/").status == 200


def test_a_start_up_that_fails(loop_name: str, gate: Gate) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    with pytest.raises(ValueError, match="no database"):
        Running(make_app(gate, lifespan=lifespan), loop_name)


def test_a_shut_down_that_fails(loop_name: str, gate: Gate) -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        raise ValueError("no goodbye")

    running = Running(make_app(gate, lifespan=lifespan), loop_name)
    assert running.get("/").status == 200
    running.stop(wait=False)
    with pytest.raises(ValueError, match="no goodbye"):
        running.join()


def test_a_shut_down_that_hangs_is_cut_short_by_a_second_stop(serve: Serve, gate: Gate) -> None:
    hanging, cancelled = threading.Event(), threading.Event()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        hanging.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = serve(make_app(gate, lifespan=lifespan))
    assert running.get("/").status == 200
    running.stop(wait=False)
    assert hanging.wait(PATIENCE)
    running.stop()
    assert cancelled.is_set()


def test_a_start_up_that_is_interrupted(loop_name: str, gate: Gate) -> None:
    entered, left = threading.Event(), threading.Event()

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        entered.set()
        try:
            await asyncio.sleep(3600)
            yield
        finally:
            left.set()

    async def main() -> None:
        server = Server(make_app(gate, lifespan=lifespan), port=0)
        serving = asyncio.ensure_future(server.serve())
        while not entered.is_set():
            await asyncio.sleep(0.001)
        server.stop()
        await serving

    asyncio.run(main())
    assert left.is_set()


def test_a_server_inside_a_program(gate: Gate) -> None:
    async def main() -> None:
        async with Server(make_app(gate), port=0) as server:
            assert server.url == f"http://127.0.0.1:{server.port}"
            assert len(server.sockets) == 1
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(REQUEST)
            assert (await reader.readuntil(b"Hello, World!")).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
            await writer.wait_closed()
        with pytest.raises(RuntimeError, match="does not listen"):
            server.port

    asyncio.run(main())


def test_two_servers_on_one_loop(gate: Gate) -> None:
    async def main() -> None:
        async with Server(make_app(gate), port=0) as one, Server(make_app(gate), port=0) as two:
            streams = [await asyncio.open_connection("127.0.0.1", server.port) for server in (one, two)]
            for _, writer in streams:
                writer.write(b"GET /gate HTTP/1.1\r\nHost: test\r\n\r\n")
            while gate.entered < 2:
                await asyncio.sleep(0.001)
            assert one.state is not None
            assert two.state is not None
            assert len(one.state.handlers()) == len(two.state.handlers()) == 1
            one.config.shutdown_timeout = 0.0
            await one.shutdown()
            assert gate.cancelled == 1
            gate.open.set()
            await streams[1][0].readuntil(b"through")
            for _, writer in streams:
                writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(5))
def test_no_connection_is_forgotten_between_its_acceptance_and_the_stop(loop_name: str, gate: Gate, turns: int) -> None:
    """Whatever the loop has accepted is answered or closed, however the stop falls between its turns."""

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            async with Server(make_app(gate), port=0, io=loop_name.partition("/")[2] or "auto") as server:
                peers = []
                for _ in range(8):
                    peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                    peer.settimeout(PATIENCE)
                    peer.sendall(REQUEST)
                    peers.append(peer)
                for _ in range(turns):
                    await asyncio.sleep(0)
            for peer in peers:
                answer = b""
                with contextlib.suppress(ConnectionResetError):
                    while data := peer.recv(4096):
                        answer += data
                assert answer == b"" or answer.endswith(b"Hello, World!")

    with asyncio.Runner(loop_factory=loop_factory(loop_name.partition("/")[0])) as runner:
        runner.run(main())


# ---- addresses


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_an_address_in_use(serve: Serve, gate: Gate, loop_name: str) -> None:
    started: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        started.append("started")
        yield

    running = serve(make_app(gate))
    with pytest.raises(ListenError, match=f"127.0.0.1:{running.port} is in use: another program listens there"):
        Running(make_app(gate, lifespan=lifespan), loop_name, port=running.port)
    assert started == []


def test_a_foreign_address(gate: Gate, loop_name: str) -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:\d+ is not an address of this machine"):
        Running(make_app(gate), loop_name, host="192.0.2.1", port=1025)


def test_an_unknown_name(gate: Gate, loop_name: str) -> None:
    with pytest.raises(ListenError, match=r"there is no address named 'no-such-host\.invalid' to listen on"):
        Running(make_app(gate), loop_name, host="no-such-host.invalid")


def test_a_name_with_several_addresses(serve: Serve, gate: Gate) -> None:
    running = serve(make_app(gate), host="localhost")
    for sock in running.server.sockets:
        assert sock.getsockname()[1] == running.port
        with Peer(sock.getsockname()[:2]) as peer:
            assert peer.get("/").status == 200


def test_all_addresses(serve: Serve, gate: Gate) -> None:
    running = serve(make_app(gate), host="")
    with Peer(("127.0.0.1", running.port)) as peer:
        assert peer.get("/").status == 200


def test_a_port_is_free_again_at_once(serve: Serve, gate: Gate, loop_name: str) -> None:
    running = serve(make_app(gate))
    port = running.port
    with running.connect() as peer:
        assert peer.get("/").status == 200
        running.stop()
        with serving(make_app(gate), loop_name, port=port) as again:
            assert again.get("/").status == 200


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT")
def test_servers_that_share_a_port(serve: Serve, gate: Gate) -> None:
    one = serve(make_app(gate), reuse_port=True)
    two = serve(make_app(gate), reuse_port=True, port=one.port)
    for _ in range(200):
        assert one.get("/").status == 200
        if all(_requests_of(running) for running in (one, two)):
            break
    else:
        raise AssertionError("all connections went to one of the two")


def _requests_of(running: Running) -> int:
    return int(running.state.dispatcher.tasks)


def test_a_unix_socket_is_removed_at_the_end(loop_name: str, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with serving(make_app(gate), loop_name, uds=str(path)):
        with Peer(str(path)) as peer:
            assert peer.get("/").status == 200
        with pytest.raises(ListenError, match=r"server\.sock is in use"):
            Running(make_app(gate), loop_name, uds=str(path))
    assert not path.exists()


def test_the_socket_of_a_server_that_died_is_replaced(loop_name: str, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with serving(make_app(gate), loop_name, uds=str(path)), Peer(str(path)) as peer:
        assert peer.get("/").status == 200


def test_a_file_that_is_no_socket_is_left_alone(loop_name: str, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(ListenError, match="exists and is not a socket"):
        Running(make_app(gate), loop_name, uds=str(path))
    assert path.read_text() == "precious"


def test_a_unix_socket_nowhere(loop_name: str, gate: Gate, tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="cannot listen on"):
        Running(make_app(gate), loop_name, uds=str(tmp_path / "absent" / "server.sock"))
    with pytest.raises(ListenError, match="too long"):
        Running(make_app(gate), loop_name, uds=str(tmp_path / ("x" * 200)))


def test_an_inherited_socket(loop_name: str, gate: Gate) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with serving(make_app(gate), loop_name, fd=os.dup(sock.fileno())) as running:
            assert running.port == sock.getsockname()[1]
            assert running.get("/").status == 200


def test_an_inherited_unix_socket_stays(loop_name: str, gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "inherited.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        for _ in range(2):
            with serving(make_app(gate), loop_name, fd=os.dup(sock.fileno())), Peer(str(path)) as peer:
                assert peer.get("/").status == 200
        assert path.exists()


def test_a_descriptor_that_is_no_socket(loop_name: str, gate: Gate, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ConfigurationError, match="is not a socket"):
        Running(make_app(gate), loop_name, fd=file.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(ConfigurationError, match="is not a stream socket"):
            Running(make_app(gate), loop_name, fd=sock.fileno())
        assert sock.getsockname()


# ---- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prot": 1}, "the server has no option 'prot'; did you mean port?"),
        ({"nonsense": 1}, "the server has no option 'nonsense'; there are: host, port"),
        ({"port": 70000}, "port must be a number from 0 to 65535, not 70000"),
        ({"port": "80"}, "port must be a number from 0 to 65535, not '80'"),
        ({"loop": "trio"}, "loop must be one of auto, uvloop, asyncio, not 'trio'"),
        ({"http": "h11"}, "http must be one of auto, armature, httptools, not 'h11'"),
        ({"log_level": "loud"}, "log_level must be one of"),
        ({"lifespan": "maybe"}, "lifespan must be one of auto, on, off"),
        ({"uds": "/a", "fd": 3}, "uds and fd exclude each other"),
        ({"uds": "/a", "reuse_port": True}, "reuse_port is for TCP ports"),
        ({"ssl_keyfile": "/a"}, "ssl_keyfile needs ssl_certfile"),
        ({"body_limit": -1}, "body_limit must be a number from 0"),
        ({"shutdown_timeout": -1}, "shutdown_timeout must not be negative"),
        ({"workers": 0}, "workers must be a number from 1 to 1024, or 'auto', not 0"),
        ({"workers": True}, "workers must be a number from 1 to 1024, or 'auto', not True"),
        ({"start_method": "thread"}, "start_method must be one of auto, spawn, forkserver, fork"),
        ({"max_requests": 0}, "max_requests must be a number from 1"),
        ({"max_requests_jitter": 5}, "max_requests_jitter needs max_requests"),
        ({"max_memory": 0}, "max_memory must be a number from 1"),
        ({"server_header": "a\r\nb"}, "server_header must be printable ASCII"),
    ],
)
def test_options_are_checked(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        ServerConfig.of(**options)


def test_a_certificate_that_is_not_there(gate: Gate, loop_name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.pem or its key cannot be loaded"):
        Running(make_app(gate), loop_name, ssl_certfile=str(tmp_path / "absent.pem"))


def test_the_body_limit_of_the_server_replaces_that_of_the_app(loop_name: str, gate: Gate) -> None:
    app = make_app(gate)

    @app.post("/own", body_limit=100)
    async def own(req: HttpRequest) -> str:
        return str(len(await req.body()))

    with serving(app, loop_name, body_limit=10) as running:
        with running.connect() as peer:
            assert peer.request("POST", "/body", b"x" * 10).answer().text == "10"
            assert peer.request("POST", "/own", b"x" * 11).answer().text == "11"
            assert peer.request("POST", "/body", b"x" * 11).answer().status == 413


def test_the_body_limit_needs_an_app(gate: Gate) -> None:
    with pytest.raises(ConfigurationError, match="a service is built already"):
        Server(make_app(gate).build(), body_limit=10).load()


def test_what_cannot_be_served() -> None:
    with pytest.raises(ConfigurationError, match="neither an App nor a Router nor a service"):
        Server(object()).load()
    with pytest.raises(ConfigurationError, match="a config or single options"):
        Server(App(), ServerConfig(), port=1)
    with pytest.raises(ConfigurationError, match="reload needs an import string"):
        run(App(), reload=True)


def test_run_needs_a_thread_without_a_loop() -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="await Server"):
            run(App())

    asyncio.run(main())


def test_a_loop_or_parser_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    from armature.server.runner import loop_factory, protocol_class

    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setitem(sys.modules, "httptools", None)
    monkeypatch.delitem(sys.modules, "armature.server.httptools", raising=False)
    assert loop_factory("auto") is None
    with pytest.raises(MissingDependencyError, match="uvloop is not installed; run: pip install"):
        loop_factory("uvloop")
    with pytest.raises(MissingDependencyError, match=re.escape("'armature-framework[httptools]'")):
        protocol_class(ServerConfig(http="httptools"))


def test_a_connection_that_comes_after_the_end_is_dropped(serve: Callable[..., Running]) -> None:
    running = serve(App())

    def come_late() -> tuple[bool, int]:
        from armature.server.protocol import HTTPProtocol

        class Transport:
            aborted = False

            def abort(self) -> None:
                self.aborted = True

        transport, state = Transport(), running.state
        state.closed = True
        HTTPProtocol(state).connection_made(transport)
        state.closed = False
        return transport.aborted, len(state.connections)

    assert running.call(come_late) == (True, 0)
