"""A load for a server of this machine: keep-alive connections in a closed loop, from one thread; and what it costs."""

from __future__ import annotations

import contextlib
import itertools
import re
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LoadError", "Outcome", "Reply", "cpu_seconds", "drive", "process_tree", "request_bytes"]

#: A server that answers nothing for so long is taken for dead.
SILENCE_SECONDS = 30.0
_READ = 256 * 1024
#: How many samples of the time to an answer are kept.
_MOST_TIMES = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked[ \t]*\r\n")
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*close")


class LoadError(Exception):
    """The server cannot be reached, or does not answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load has seen.

    Args:
        requests: How many were answered.
        failed: How many of these with a status of 400 or more.
        seconds: How long it took.
        p50: The median of the seconds to an answer.
        p99: The 99th percentile of it.
    """

    requests: int
    failed: int
    seconds: float
    p50: float
    p99: float


class Reply:
    """Takes responses apart as far as their end and their status (RFC 9112 section 6.3)."""

    __slots__ = ("_buffer", "_chunked", "_ended", "_in_body", "_left", "_until_end", "closes", "status")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._in_body = self._chunked = self._until_end = self._ended = False
        self._left = 0
        #: Of the response that is complete, or being read.
        self.status = 0
        #: Whether the server closes the connection behind it.
        self.closes = False

    def feed(self, data: bytes) -> None:
        """Take received bytes; `b""` is the end of the connection."""
        self._buffer += data
        self._ended = not data

    def complete(self) -> bool:
        """Say whether one more response is complete, and go on to the next."""
        while True:
            if not self._in_body and not self._read_head():
                return False
            if self._until_end:
                if not self._ended:
                    return False
                self._buffer.clear()
            elif self._chunked:
                if not self._read_chunks():
                    return False
            elif len(self._buffer) < self._left:
                return False
            else:
                del self._buffer[: self._left]
            self._in_body = False
            return True

    def _read_head(self) -> bool:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self._buffer[: end + 2])
            del self._buffer[: end + 4]
            if not re.match(rb"HTTP/1\.[01] [1-5][0-9][0-9][ \r]", head):
                raise LoadError(f"the server answered {head[:60]!r}, which is no HTTP/1.1")
            head = head.lower()
            self.status = int(head[9:12])
            if self.status >= 200:
                break
        length = _LENGTH.search(head)
        self._in_body = True
        self._chunked = _CHUNKED.search(head) is not None
        self._left = 0 if length is None else int(length[1])
        empty = self.status in (204, 304) or length is not None
        self._until_end = not self._chunked and not empty
        self.closes = self._until_end or _CLOSE.search(head) is not None
        return True

    def _read_chunks(self) -> bool:
        while True:
            if len(self._buffer) < self._left:
                return False
            line = self._buffer.find(b"\r\n", self._left)
            if line < 0:
                return False
            text = bytes(self._buffer[self._left : line]).partition(b";")[0]
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", text):
                raise LoadError(f"the server sent a chunk of size {text[:20]!r}")
            size = int(text, 16)
            if size == 0:
                # A trailer section is not expected here: the end is one empty line.
                if len(self._buffer) < line + 4:
                    return False
                del self._buffer[: line + 4]
                self._left = 0
                return True
            del self._buffer[: line + 2]
            self._left = size + 2


class _Client:
    """One connection: sends a request, reads its answers, sends the next."""

    __slots__ = ("begun", "pending", "reply", "sock", "waiting")

    def __init__(self, address: tuple[str, int]) -> None:
        try:
            self.sock = socket.create_connection(address, timeout=SILENCE_SECONDS)
        except OSError as error:
            raise LoadError(f"cannot connect to {address}: {error}") from error
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.reply = Reply()
        self.pending = memoryview(b"")
        self.waiting = 0
        self.begun = 0.0

    def send(self) -> bool:
        """Send what is pending; return whether all of it is out."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self.pending:
                self.pending = self.pending[self.sock.send(self.pending) :]
        return not self.pending


def request_bytes(host: str, path: str, body: bytes | None = None, fields: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return the bytes of a GET request, or of a POST if there is a body.

    Args:
        host: The value of the Host field.
        path: The target, in ASCII.
        body: The body.
        fields: More field lines.
    """
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + (body or b"")


def drive(
    address: tuple[str, int],
    requests: Sequence[bytes],
    connections: int,
    *,
    seconds: float | None = None,
    count: int | None = None,
    depth: int = 1,
) -> Outcome:
    """Ask a server for as long, or as often, as is wanted; each connection waits for its answer before it asks again.

    Args:
        address: Host and port.
        requests: What is sent, in turn.
        connections: How many connections are kept open.
        seconds: How long to ask.
        count: How often to ask instead.
        depth: How many requests, and so answers, each item of `requests` holds.

    Raises:
        LoadError: The server cannot be reached, stops answering, or does not speak HTTP/1.1.
    """
    turns = itertools.cycle([memoryview(request) for request in requests])
    started = time.perf_counter()
    deadline = None if seconds is None else started + seconds
    allowed = float("inf") if count is None else count
    asked = answered = failed = 0
    times = _Times()
    open_clients: set[_Client] = set()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:

        @stack.callback
        def close_all() -> None:
            for client in open_clients:
                client.sock.close()

        def connect() -> _Client:
            client = _Client(address)
            open_clients.add(client)
            selector.register(client.sock, selectors.EVENT_READ, client)
            return client

        def leave(client: _Client) -> None:
            selector.unregister(client.sock)
            open_clients.discard(client)
            client.sock.close()

        def ask(client: _Client) -> None:
            nonlocal asked
            asked += depth
            client.pending, client.waiting, client.begun = next(turns), depth, time.perf_counter()
            if not client.send():
                selector.modify(client.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, client)

        def goes_on() -> bool:
            return asked < allowed and (deadline is None or time.perf_counter() < deadline)

        for client in [connect() for _ in range(connections)]:
            if goes_on():
                ask(client)
            else:
                leave(client)
        while open_clients:
            events = selector.select(SILENCE_SECONDS)
            if not events:
                raise LoadError(f"the server has not answered for {SILENCE_SECONDS:.0f} seconds")
            for key, mask in events:
                client = key.data
                if mask & selectors.EVENT_WRITE and client.send():
                    selector.modify(client.sock, selectors.EVENT_READ, client)
                if not mask & selectors.EVENT_READ:
                    continue
                try:
                    data = client.sock.recv(_READ)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    data = b""
                client.reply.feed(data)
                while client.waiting and client.reply.complete():
                    client.waiting -= 1
                    answered += 1
                    failed += client.reply.status >= 400
                if client.waiting:
                    if not data:
                        raise LoadError(f"the server closed a connection with {client.waiting} requests unanswered")
                    continue
                times.add(time.perf_counter() - client.begun)
                if not goes_on():
                    leave(client)
                elif client.reply.closes or not data:
                    leave(client)
                    ask(connect())
                else:
                    ask(client)
        spent = time.perf_counter() - started
    if not answered:
        raise LoadError("nothing was asked: give a duration or a count above zero")
    return Outcome(answered, failed, spent, times.percentile(50), times.percentile(99))


class _Times:
    """Samples of how long answers took: all of them, or every second, fourth, eighth one, if there are many."""

    __slots__ = ("_kept", "_seen", "_step")

    def __init__(self) -> None:
        self._kept: list[float] = []
        self._seen = 0
        self._step = 1

    def add(self, seconds: float) -> None:
        self._seen += 1
        if self._seen % self._step == 0:
            self._kept.append(seconds)
            if len(self._kept) >= _MOST_TIMES:
                del self._kept[::2]
                self._step *= 2

    def percentile(self, percent: int) -> float:
        ordered = sorted(self._kept)
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, user and system, at the clock's own resolution.

    `/proc/<pid>/stat` counts the same time in ticks of 10 ms; this is the process's CPU clock (clock_getcpuclockid(3)).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def process_tree(pid: int) -> list[int]:
    """Return a process and everything below it."""
    pids = [pid]
    for parent in pids:
        pids += [child for child in _children(parent) if child not in pids]
    return pids
