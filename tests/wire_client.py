"""Clients for tests against real sockets: a raw peer that sees every byte, and a server in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from armature.server.runner import Server, loop_factory
from counterparts import require

T = TypeVar("T")

#: Long enough for a busy machine, short enough for a test that hangs.
PATIENCE = 20.0

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@dataclass
class Answer:
    status: int
    version: str
    headers: dict[str, str]
    body: bytes = b""
    #: What came behind this answer.
    fields: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.body.decode()


class Peer:
    """A socket that speaks HTTP as the test tells it to, byte by byte."""

    def __init__(self, address: Any, *, context: Any = None, receive_buffer: int | None = None) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(address)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = context.wrap_socket(sock, server_hostname="localhost") if context is not None else sock
        except BaseException:
            sock.close()
            raise
        self.buffer = b""

    def send(self, data: bytes) -> Peer:
        self.socket.sendall(data)
        return self

    def request(self, method: str = "GET", path: str = "/", body: bytes = b"", **fields: str) -> Peer:
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def get(self, path: str = "/", **fields: str) -> Answer:
        return self.request("GET", path, **fields).answer()

    def more(self) -> bool:
        """Receive something; False at the end."""
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if not self.more():
                raise EOFError(f"the connection ended before {mark!r}: {self.buffer!r}")
        at = self.buffer.index(mark) + len(mark)
        found, self.buffer = self.buffer[:at], self.buffer[at:]
        return found

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self.more():
                raise EOFError(f"the connection ended after {len(self.buffer)} of {count} bytes")
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def head(self) -> Answer:
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        version, status, _ = lines[0].split(" ", 2)
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Answer(int(status), version, dict(fields), fields=fields)

    def chunk(self) -> bytes:
        """Return one chunk; empty for the last."""
        size = int(self.until(b"\r\n"), 16)
        data = self.exactly(size)
        assert self.until(b"\r\n") == b"\r\n"
        return data

    def answer(self, method: str = "GET") -> Answer:
        answer = self.head()
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.headers.get("transfer-encoding") == "chunked":
            while piece := self.chunk():
                answer.body += piece
        elif "content-length" in answer.headers:
            answer.body = self.exactly(int(answer.headers["content-length"]))
        else:
            answer.body = self.rest()
        return answer

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        while self.more():
            pass
        found, self.buffer = self.buffer, b""
        return found

    def ended(self) -> bool:
        """Wait for the end; False if something else came."""
        try:
            return not self.buffer and not self.more()
        except ConnectionResetError:
            return True

    def shut(self) -> Peer:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Go away as a process does that is killed with unread data."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Running:
    """A server in a thread of its own, on a loop of its own."""

    def __init__(self, app: Any, loop: str, **options: Any) -> None:
        self.loop_name, _, io = loop.partition("/")
        self.server = Server(app, **{"host": "127.0.0.1", "port": 0, "io": io or "auto", **options})
        self._started: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._end: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"server on {loop}", daemon=True)
        self._thread.start()
        self._started.result(PATIENCE)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(self.loop_name)) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        serving = asyncio.ensure_future(self.server.serve())
        while not self.server.ready and not serving.done():
            await asyncio.sleep(0.001)
        if self.server.ready:
            self._started.set_result(None)
        await serving

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def state(self) -> Any:
        return self.server.state

    def connect(self, **options: Any) -> Peer:
        return Peer(self.address, **options)

    def get(self, path: str = "/", **fields: str) -> Answer:
        with self.connect() as peer:
            return peer.get(path, **fields)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the server's thread."""

        async def call() -> T:
            return function(*arguments)

        return self.wait(call())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def stop(self, wait: bool = True) -> None:
        self.server.stop()
        if wait:
            self.join()

    def join(self, seconds: float = PATIENCE) -> None:
        self._ended.result(seconds)
        self._thread.join(seconds)

    @property
    def ended(self) -> bool:
        return self._ended.done()


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until something becomes true."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("it did not come true in time")
        time.sleep(0.005)


def sockets_in(state: str, port: int) -> int:
    """How many of the server's TCP sockets on `port` are in a state, as the kernel counts."""
    number = {"ESTABLISHED": "01", "CLOSE_WAIT": "08", "LISTEN": "0A"}[state]
    count = 0
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(name).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == number and int(columns[1].rpartition(":")[2], 16) == port:
                    count += 1
    return count


def certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost; return it and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    subprocess.run(
        [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key


@contextlib.contextmanager
def serving(app: Any, loop: str, **options: Any) -> Iterator[Running]:
    running = Running(app, loop, **options)
    try:
        yield running
    finally:
        if not running.ended:
            running.server.stop()
            running.server.stop()
        running.join()
