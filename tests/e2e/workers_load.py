"""Clients that keep servers with workers busy, and note what became of every request."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from wire_client import PATIENCE

__all__ = ["Load", "ask"]


def opened(address: Any, request: bytes, patience: float = PATIENCE) -> socket.socket:
    """Connect to a port, or to the path of a Unix socket, and send a request.

    Over TCP the system sends it with the end of the handshake, however long this thread waits for its turn then: a
    server that stops need not wait for connections that bring nothing.
    """
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        if isinstance(address, str):
            sock.connect(address)
            sock.sendall(request)
        else:
            sock.sendto(request, socket.MSG_FASTOPEN, ("127.0.0.1", address))
        sock.settimeout(patience)
    except BaseException:
        sock.close()
        raise
    return sock


def asked(path: str, close: bool) -> bytes:
    fields = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n".encode()


def answer(sock: socket.socket) -> tuple[int, str, bool]:
    """Return status and text of an answer, and whether the connection goes on.

    Raises:
        EOFError: The connection ended; without arguments if nothing of the answer had come.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := sock.recv(65536)):
            raise EOFError(*([data] if data else []))
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:])
    while len(body) < int(fields["content-length"]):
        if not (more := sock.recv(65536)):
            raise EOFError(data)
        body += more
    return int(lines[0].split()[1]), body.decode(), fields.get("connection") != "close"


def ask(address: Any, path: str = "/", patience: float = PATIENCE) -> str:
    """Send one request on a connection of its own; return the text of the answer."""
    with opened(address, asked(path, close=True), patience) as sock:
        status, text, _ = answer(sock)
        assert status == 200, text
        return text


class Load:
    """Threads that send one request after the other until they are stopped, or nobody listens any more.

    Args:
        address: A port, or the path of a Unix socket.
        path: What is asked for.
        threads: How many there are.
        keep: Whether a connection is used for more than one request.
    """

    def __init__(self, address: Any, path: str = "/pid", threads: int = 8, keep: bool = False) -> None:
        self.address = address
        self.request = asked(path, close=not keep)
        #: How often each text was answered.
        self.answers: Counter[str] = Counter()
        #: What went wrong on a connection that had been accepted.
        self.lost: list[str] = []
        #: What went wrong when connecting.
        self.refused: list[str] = []
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()

    def join(self) -> None:
        """Wait until all threads have ended."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def seen(self, texts: Sequence[str]) -> bool:
        """Whether each of these was an answer."""
        return all(text in self.answers for text in texts)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                sock = opened(self.address, self.request)
            except ConnectionResetError as error:
                # It was let in, and sent away before it could send.
                self.lost.append(repr(error))
                continue
            except OSError as error:
                self.refused.append(repr(error))
                return
            with sock:
                self._use(sock)

    def _use(self, sock: socket.socket) -> None:
        used = False
        while True:
            try:
                status, text, goes_on = answer(sock)
            except (OSError, EOFError) as error:
                # A server may close a connection that is idle just when it is used again; a client asks once more then
                # (RFC 9112 section 9.3.1).
                if not used or (isinstance(error, EOFError) and error.args):
                    self.lost.append(repr(error))
                return
            with self._lock:
                self.answers[text] += 1
            if status != 200:
                self.lost.append(text)
            used = True
            if not goes_on or self._stopped.is_set():
                return
            try:
                sock.sendall(self.request)
            except OSError:
                return
