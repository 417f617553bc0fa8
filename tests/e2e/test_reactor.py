"""The reactor's transports behave as the loop's do, and what goes wrong on one connection stays there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from armature._impl import PURE, dispatch
from armature.app import App
from armature.exceptions import ConfigurationError
from armature.server import Server
from counterparts import LOOPS, loop_factory
from wire_client import PATIENCE, REQUEST, Peer, eventually, serving

needs_reactor = pytest.mark.skipif(
    PURE or not sys.platform.startswith("linux"), reason="the reactor is compiled, and for Linux"
)


def run(loop: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Feeder:
    """A listening socket whose connections are carried by the reactor or by the loop itself."""

    def __init__(self, kind: str, factory: Callable[[], Any], family: socket.AddressFamily, path: str) -> None:
        self.kind, self.factory = kind, factory
        self.sock = socket.socket(family)
        self.sock.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.reactor: Any = None
        self.server: Any = None

    async def __aenter__(self) -> Feeder:
        loop = asyncio.get_running_loop()
        if self.kind == "reactor":
            from armature._speedups.reactor import Reactor

            self.sock.listen(100)
            self.reactor = Reactor(loop, dispatch.Dispatcher(loop), self.factory)
            self.reactor.listen(self.sock)
        elif self.sock.family == socket.AF_UNIX:
            self.server = await loop.create_unix_server(self.factory, sock=self.sock)
        else:
            self.server = await loop.create_server(self.factory, sock=self.sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.reactor is not None:
            self.reactor.ignore(self.sock)
            self.reactor.close()
        else:
            self.server.close()
        self.sock.close()
        await asyncio.sleep(0)

    def connect(self) -> socket.socket:
        peer = socket.socket(self.sock.family)
        peer.settimeout(PATIENCE)
        peer.connect(self.sock.getsockname())
        return peer


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def feeder(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, Callable[[], Any]], Feeder]:
    def make(kind: str, factory: Callable[[], Any]) -> Feeder:
        return Feeder(kind, factory, request.param, str(tmp_path / f"{kind}.sock"))

    return make


class Recorder(asyncio.Protocol):
    """Writes down what happens to it; `then` does something in answer."""

    def __init__(self, then: Callable[[Recorder, str, Any], Any] = lambda protocol, event, data: None) -> None:
        self.events: list[Any] = []
        self.then = then
        self.received = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, event: str, data: Any = None) -> Any:
        # How often a socket is full, depends on the kernel.
        if event not in ("data", "pause", "resume"):
            self.events.append(event if data is None else (event, data))
        return self.then(self, event, data)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.received += data
        self.note("data", data)

    def eof_received(self) -> Any:
        return self.note("eof")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost", type(exc).__name__)
        self.lost.set_result(None)


def compare(
    loop: str,
    feeder: Callable[[str, Callable[[], Any]], Feeder],
    then: Callable[[Recorder, str, Any], Any],
    client: Callable[[socket.socket], Any],
) -> Any:
    """Play the same scene on both kinds of transports; everything that can be seen must be the same."""

    async def play(kind: str) -> Any:
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder(then))
            return made[0]

        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        async with feeder(kind, factory) as fed:
            seen = await asyncio.to_thread(lambda: client(fed.connect()))
            while not made:
                await asyncio.sleep(0.001)
            await made[0].lost
        return seen, made[0].events, bytes(made[0].received), bool(complaints)

    seen: list[Any] = []

    async def main() -> None:
        seen.extend([await play("reactor"), await play("loop")])

    run(loop, main)
    assert seen[0] == seen[1]
    return seen[0]


def everything(peer: socket.socket) -> bytes:
    with peer:
        found = b""
        try:
            while data := peer.recv(1 << 16):
                found += data
        except ConnectionResetError:
            found += b"<reset>"
        return found


@needs_reactor
class TestTransports:
    def test_echo_and_end(self, loop: str, feeder: Any) -> None:
        def then(protocol: Recorder, event: str, data: Any) -> None:
            if event == "data":
                protocol.transport.write(data)

        def client(peer: socket.socket) -> bytes:
            peer.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            peer.sendall(b"again")
            peer.shutdown(socket.SHUT_WR)
            return everything(peer)

        seen, events, received, complained = compare(loop, feeder, then, client)
        assert seen == b"again"
        assert events == ["made", "eof", ("lost", "NoneType")]
        assert received == b"helloagain"
        assert not complained

    def test_a_half_closed_peer_still_gets_its_answer(self, loop: str, feeder: Any) -> None:
        def then(protocol: Recorder, event: str, data: Any) -> bool | None:
            if event == "eof":
                asyncio.get_running_loop().call_later(0.05, protocol.transport.write, b"answer")
                asyncio.get_running_loop().call_later(0.1, protocol.transport.close)
                return True
            return None

        def client(peer: socket.socket) -> bytes:
            peer.sendall(b"question")
            peer.shutdown(socket.SHUT_WR)
            return everything(peer)

        assert compare(loop, feeder, then, client)[0] == b"answer"

    def test_writing_more_than_the_socket_takes(self, loop: str, feeder: Any) -> None:
        body = os.urandom(1 << 16) * 100

        def then(protocol: Recorder, event: str, data: Any) -> None:
            if event == "made":
                protocol.transport.set_write_buffer_limits(high=10_000, low=100)
                assert protocol.transport.get_write_buffer_limits() == (100, 10_000)
                protocol.transport.write(body)
                assert protocol.transport.get_write_buffer_size() > 0
                protocol.transport.write(bytearray(b"and "))
                protocol.transport.write(memoryview(b"a tail"))
                protocol.transport.writelines([b" of", b" lines"])
                protocol.transport.write(b"")
            elif event == "resume":
                assert protocol.transport.get_write_buffer_size() <= 100
                # Not at once: the selector loop's own transport cannot bear that.
                asyncio.get_running_loop().call_soon(protocol.transport.close)

        def client(peer: socket.socket) -> bool:
            return everything(peer) == body + b"and a tail of lines"

        assert compare(loop, feeder, then, client)[0]

    def test_closing_sends_what_is_left_and_drops_what_comes(self, loop: str, feeder: Any) -> None:
        body = bytes(1 << 22)

        def then(protocol: Recorder, event: str, data: Any) -> None:
            if event == "data":
                transport = protocol.transport
                transport.write(body)
                transport.close()
                assert transport.is_closing()
                assert not transport.is_reading()
                transport.close()

        def client(peer: socket.socket) -> int:
            peer.sendall(b"go")
            return len(everything(peer))

        assert compare(loop, feeder, then, client)[0] == len(body)

    def test_aborting_loses_what_is_left(self, loop: str, feeder: Any) -> None:
        def then(protocol: Recorder, event: str, data: Any) -> None:
            if event == "data":
                protocol.transport.write(bytes(1 << 24))
                protocol.transport.abort()
                protocol.transport.abort()
                assert protocol.transport.is_closing()
                assert protocol.events == ["made"], "the protocol is told later"

        def client(peer: socket.socket) -> bool:
            peer.sendall(b"go")
            return len(everything(peer)) < 1 << 24

        seen, events, _, _ = compare(loop, feeder, then, client)
        assert seen
        assert events[-1] == ("lost", "NoneType")

    def test_ending_the_sending_side(self, loop: str, feeder: Any) -> None:
        def then(protocol: Recorder, event: str, data: Any) -> None:
            if event == "made":
                assert protocol.transport.can_write_eof()
                protocol.transport.write(b"x" * 3_000_000)
                protocol.transport.write_eof()
                protocol.transport.write_eof()
                with pytest.raises(RuntimeError):
                    protocol.transport.write(b"more")

        def client(peer: socket.socket) -> int:
            count = 0
            while data := peer.recv(1 << 16):
                count += len(data)
            peer.sendall(b"thanks")
            peer.close()
            return count

        seen, _, received, _ = compare(loop, feeder, then, client)
        assert seen == 3_000_000
        assert received == b"thanks"

    def test_pausing_reading(self, loop: str, feeder: Any) -> None:
        def then(protocol: Recorder, event: str, data: Any) -> None:
            transport = protocol.transport
            if event == "made":
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                asyncio.get_running_loop().call_later(0.1, go_on, protocol)

        def go_on(protocol: Recorder) -> None:
            assert not protocol.received
            protocol.transport.resume_reading()
            protocol.transport.resume_reading()
            assert protocol.transport.is_reading()

        def client(peer: socket.socket) -> bytes:
            peer.sendall(b"early")
            peer.shutdown(socket.SHUT_WR)
            return everything(peer)

        assert compare(loop, feeder, then, client)[2] == b"early"

    def test_a_peer_that_resets(self, loop: str, feeder: Any) -> None:
        def client(peer: socket.socket) -> None:
            peer.sendall(b"x")
            if peer.family == socket.AF_INET:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            peer.close()

        def then(protocol: Recorder, event: str, data: Any) -> None:
            pass

        compare(loop, feeder, then, client)

    def test_a_protocol_that_fails(self, loop: str, feeder: Any) -> None:
        def then(protocol: Recorder, event: str, data: Any) -> None:
            if event == "data":
                raise ValueError("broken")

        def client(peer: socket.socket) -> bytes:
            peer.sendall(b"x")
            return everything(peer).replace(b"<reset>", b"")

        seen, events, _, complained = compare(loop, feeder, then, client)
        assert seen == b""
        assert events == ["made", ("lost", "ValueError")]
        assert complained

    def test_a_buffered_protocol(self, loop: str, feeder: Any) -> None:
        class Buffered(asyncio.BufferedProtocol):
            def __init__(self) -> None:
                self.memory = bytearray(7)
                self.received = b""
                self.lost = asyncio.get_running_loop().create_future()

            def get_buffer(self, sizehint: int) -> bytearray:
                return self.memory

            def buffer_updated(self, nbytes: int) -> None:
                self.received += self.memory[:nbytes]

            def connection_lost(self, exc: Exception | None) -> None:
                self.lost.set_result(None)

        async def main() -> None:
            made: list[Buffered] = []

            def factory() -> Buffered:
                made.append(Buffered())
                return made[0]

            async with feeder("reactor", factory) as fed:
                with fed.connect() as peer:
                    peer.sendall(b"more than seven bytes")
                await asyncio.sleep(0.05)
                await made[0].lost
                assert made[0].received == b"more than seven bytes"

        run(loop, main)

    def test_another_protocol_takes_over(self, loop: str, feeder: Any) -> None:
        async def main() -> None:
            second: list[Recorder] = []

            def then(protocol: Recorder, event: str, data: Any) -> None:
                if event == "data":
                    second.append(Recorder())
                    second[0].transport = protocol.transport
                    protocol.transport.set_protocol(second[0])
                    assert protocol.transport.get_protocol() is second[0]
                    protocol.transport.write(b"switched")

            async with feeder("reactor", lambda: Recorder(then)) as fed:
                with fed.connect() as peer:
                    peer.sendall(b"switch")
                    assert await asyncio.to_thread(peer.recv, 100) == b"switched"
                    peer.sendall(b"to the second")
                await second[0].lost
                assert second[0].received == b"to the second"

        run(loop, main)

    def test_asyncio_streams_work_on_it(self, loop: str, feeder: Any) -> None:
        async def main() -> None:
            served = asyncio.get_running_loop().create_future()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                line = await reader.readline()
                writer.write(line.upper() * 100_000)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                served.set_result(None)

            def factory() -> asyncio.StreamReaderProtocol:
                return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

            async with feeder("reactor", factory) as fed:
                with fed.connect() as peer:
                    peer.sendall(b"line\n")
                    found = await asyncio.to_thread(everything, peer)
                assert found == b"LINE\n" * 100_000
                await served

        run(loop, main)

    def test_what_is_known_of_the_socket(self, loop: str, feeder: Any) -> None:
        async def main() -> None:
            made = asyncio.get_running_loop().create_future()

            def then(protocol: Recorder, event: str, data: Any) -> None:
                if event == "made":
                    made.set_result(protocol.transport)

            async with feeder("reactor", lambda: Recorder(then)) as fed:
                with fed.connect() as peer:
                    transport = await made
                    sock = transport.get_extra_info("socket")
                    assert sock.fileno() == transport.direct_fd
                    assert transport.get_extra_info("peername") == peer.getsockname()
                    assert transport.get_extra_info("sockname") == fed.sock.getsockname()
                    assert transport.get_extra_info("sslcontext") is None
                    assert transport.get_extra_info("nonsense", 5) == 5
                    assert "open" in repr(transport)
                    transport.close()
                    assert "closing" in repr(transport)
                    await asyncio.sleep(0.01)
                    assert "closed" in repr(transport)
                    assert transport.get_extra_info("socket") is None
                    transport.write(b"into the void")
                    transport.abort()
                    with pytest.raises(TypeError):
                        transport.write("text")
                    with pytest.raises(ValueError, match="high"):
                        transport.set_write_buffer_limits(high=1, low=2)

        run(loop, main)


@needs_reactor
class TestHazards:
    def test_a_transport_cannot_be_made_by_hand(self) -> None:
        from armature._speedups.reactor import SocketTransport

        with pytest.raises(TypeError, match="makes its transports itself"):
            SocketTransport()

    def test_a_copy_of_a_closed_socket_stays_silent(self, loop: str, feeder: Any) -> None:
        """As after a fork: somebody else holds the socket open, and the number is given to the next connection."""

        async def main() -> None:
            from armature._speedups.reactor import stats

            made: list[Recorder] = []

            def factory() -> Recorder:
                made.append(Recorder())
                return made[-1]

            async with feeder("reactor", factory) as fed:
                with fed.connect() as first:
                    while not made:
                        await asyncio.sleep(0.001)
                    number = made[0].transport.direct_fd
                    copy = os.dup(number)
                    # So that the number is free for what the reactor accepts next.
                    second = socket.socket(fed.sock.family)
                    made[0].transport.close()
                    await made[0].lost
                    with second:
                        second.connect(fed.sock.getsockname())
                        while len(made) < 2:
                            await asyncio.sleep(0.001)
                        assert made[1].transport.direct_fd == number
                        before = stats()["stale"]
                        first.sendall(b"for nobody")
                        second.sendall(b"for the second")
                        while not made[1].received:
                            await asyncio.sleep(0.001)
                        assert made[1].received == b"for the second"
                        assert not made[0].received
                        assert stats()["stale"] == before
                    os.close(copy)

        run(loop, main)

    def test_one_connection_ends_another_in_the_same_batch(self, loop: str, feeder: Any) -> None:
        async def main() -> None:
            made: list[Recorder] = []

            def then(protocol: Recorder, event: str, data: Any) -> None:
                if event == "data":
                    for other in made:
                        if other is not protocol:
                            other.transport.abort()

            def factory() -> Recorder:
                made.append(Recorder(then))
                return made[-1]

            async with feeder("reactor", factory) as fed:
                with contextlib.ExitStack() as stack:
                    peers = [stack.enter_context(fed.connect()) for _ in range(20)]
                    while len(made) < 20:
                        await asyncio.sleep(0.001)
                    # All are ready by the time that the loop looks again.
                    for peer in peers:
                        peer.sendall(b"me")
                    await asyncio.sleep(0.05)
                    assert sum(bool(one.received) for one in made) == 1
                    assert sum(one.lost.done() for one in made) == 19

        run(loop, main)

    def test_the_rest_of_the_loop_gets_its_turns(self, loop: str, feeder: Any) -> None:
        """However busy the sockets are, between two turns of the loop lie a bounded number of events."""

        async def main() -> None:
            from armature._speedups.reactor import stats

            def then(protocol: Recorder, event: str, data: Any) -> None:
                if event == "data":
                    protocol.transport.write(data)

            async with feeder("reactor", lambda: Recorder(then)) as fed:
                ended = threading.Event()

                def flood() -> None:
                    with contextlib.ExitStack() as stack:
                        peers = [stack.enter_context(fed.connect()) for _ in range(100)]
                        while not ended.is_set():
                            for peer in peers:
                                peer.sendall(b"x")
                            for peer in peers:
                                peer.recv(10)

                flooding = asyncio.ensure_future(asyncio.to_thread(flood))
                steps, turns, begun = [], 0, stats()["events"]
                while stats()["events"] - begun < 5000:
                    before = stats()["events"]
                    await asyncio.sleep(0)
                    steps.append(stats()["events"] - before)
                    turns += 1
                ended.set()
                await flooding
                assert max(steps) <= 256 + 64
                assert turns > 5000 // 320

        run(loop, main)

    def test_a_burst_of_connections(self, loop: str, feeder: Any) -> None:
        async def main() -> None:
            made: list[Recorder] = []

            def then(protocol: Recorder, event: str, data: Any) -> None:
                if event == "data":
                    protocol.transport.write(b"%d" % protocol.transport.direct_fd)
                    protocol.transport.close()

            def factory() -> Recorder:
                made.append(Recorder(then))
                return made[-1]

            async with feeder("reactor", factory) as fed:

                def client() -> int:
                    count = 0
                    for _ in range(4):
                        with contextlib.ExitStack() as stack:
                            peers = [stack.enter_context(fed.connect()) for _ in range(90)]
                            for peer in peers:
                                peer.sendall(b"x")
                            count += sum(everything(peer).isdigit() for peer in peers)
                    return count

                assert await asyncio.to_thread(client) == 360
                await asyncio.gather(*(one.lost for one in made))
                assert fed.reactor.connections == 0

        run(loop, main)

    def test_closing_ends_everything_and_leaves_no_descriptor(self, loop: str, feeder: Any) -> None:
        async def main() -> None:
            made: list[Recorder] = []

            def factory() -> Recorder:
                made.append(Recorder())
                return made[-1]

            before = set(os.listdir("/proc/self/fd"))
            with contextlib.ExitStack() as stack:
                async with feeder("reactor", factory) as fed:
                    peers = [stack.enter_context(fed.connect()) for _ in range(5)]
                    while len(made) < 5:
                        await asyncio.sleep(0.001)
                    reactor = fed.reactor
                assert all(one.lost.done() for one in made)
                assert all(peer.recv(1) == b"" for peer in peers)
                reactor.close()
            assert set(os.listdir("/proc/self/fd")) <= before

        run(loop, main)


# ---- the option


def make_app() -> App:
    app = App()

    @app.get("/")
    async def index() -> str:
        return "Hello, World!"

    return app


@needs_reactor
@pytest.mark.parametrize("io", ["auto", "reactor"])
def test_it_is_taken_where_it_can_run(loop: str, io: str) -> None:
    from armature._speedups.reactor import stats

    before = stats()["accepted"]
    with serving(make_app(), loop, io=io) as running:
        assert running.get("/").text == "Hello, World!"
        assert running.state.reactor is not None
    assert stats()["accepted"] > before


def test_it_can_be_switched_off(loop: str) -> None:
    with serving(make_app(), loop, io="asyncio") as running:
        assert running.get("/").text == "Hello, World!"
        assert running.state.reactor is None


@pytest.fixture
def pem_files(tmp_path: Path) -> tuple[str, str]:
    from wire_client import certificate

    one, two = certificate(tmp_path)
    return str(one), str(two)


def test_tls_stays_with_the_loop(loop: str, pem_files: tuple[str, str]) -> None:
    with serving(make_app(), loop, ssl_certfile=pem_files[0], ssl_keyfile=pem_files[1]) as running:
        assert running.state.reactor is None


@pytest.mark.skipif(not PURE, reason="where the compiled twins run it can be had")
def test_it_is_compiled() -> None:
    async def main() -> None:
        async with Server(make_app(), port=0, io="reactor"):
            pass

    with pytest.raises(ConfigurationError, match=r'io="reactor" is not possible here: it is compiled code'):
        asyncio.run(main())


@needs_reactor
def test_it_cannot_do_tls(pem_files: tuple[str, str]) -> None:
    async def main() -> None:
        async with Server(make_app(), port=0, io="reactor", ssl_certfile=pem_files[0], ssl_keyfile=pem_files[1]):
            pass

    with pytest.raises(ConfigurationError, match=r'io="reactor" is not possible here: TLS needs'):
        asyncio.run(main())


@needs_reactor
def test_connections_dropped_by_the_thousand_leave_nothing_behind(loop: str) -> None:
    with serving(make_app(), loop) as running:
        assert running.get("/").status == 200
        before = len(os.listdir("/proc/self/fd"))
        for number in range(2000):
            peer = Peer(running.address)
            if number % 3 == 1:
                peer.send(REQUEST[:20])
            elif number % 3 == 2:
                peer.send(REQUEST)
            if number % 2:
                peer.reset()
            else:
                peer.close()
        eventually(lambda: running.state.reactor.connections == 0)
        assert not running.state.connections
        assert len(os.listdir("/proc/self/fd")) <= before
        assert running.get("/").status == 200
