"""Starts, pins, pauses, weighs and stops the servers; stops only what it started, by process id."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

from armature.cli.load import cpu_seconds, process_tree
from benchmarks.http.peers import HOST
from benchmarks.http.registry import ROOT, Peer
from benchmarks.variants import environ as importing

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
_PROBE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class ServerError(Exception):
    """A server did not start, or died."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def raise_descriptor_limit() -> None:
    """Allow as many open descriptors as the system lets us: idle connections need thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _resident(pid: int) -> tuple[int, int]:
    """Return resident and proportional bytes; shared pages count once in the second."""
    resident = proportional = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                resident = int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                proportional = int(line.split()[1]) * 1024
    return resident, proportional


class Server:
    """One running peer, in a process group of its own.

    Args:
        peer: What to run.
        variant: Which variant of the application.
        core: The CPU core it is pinned to, with all it starts.
        variables: Environment variables on top of the peer's own.
        folder: Where it is started, and so which `armature` and `benchmarks` it imports.
    """

    def __init__(
        self, peer: Peer, variant: str, core: int, variables: dict[str, str] | None = None, folder: Path = ROOT
    ) -> None:
        self.peer = peer
        self.port = free_port()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        started = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                self._command(variant),
                cwd=folder,
                env=peer.environ(self.port, variant) | (variables or {}) | importing(folder),
                stdin=subprocess.DEVNULL,
                stdout=self.errors,
                stderr=self.errors,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        except OSError as error:
            self.errors.close()
            raise ServerError(f"{peer.name} did not start: {error}") from error
        self.pid = self.process.pid
        try:
            self._await_answer(started + START_TIMEOUT)
        except BaseException:
            self.stop()
            raise
        #: Seconds from the start of the process to the last byte of its first answer.
        self.start_seconds = time.perf_counter() - started

    def _command(self, variant: str) -> list[str]:
        return self.peer.command(self.port, variant)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_answer(self, deadline: float) -> None:
        while True:
            if self.process.poll() is not None:
                raise ServerError(f"{self.peer.name} ended with status {self.process.returncode}: {self.output()}")
            try:
                with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                    connection.settimeout(5.0)
                    connection.sendall(_PROBE)
                    answer = b""
                    while b"Hello, World!" not in answer:
                        data = connection.recv(65536)
                        if not data:
                            raise ServerError(f"{self.peer.name} answered its first request with {answer[:200]!r}")
                        answer += data
                    return
            except (ConnectionError, TimeoutError):
                pass
            if time.perf_counter() > deadline:
                raise ServerError(f"{self.peer.name} did not answer within {START_TIMEOUT:.0f} s: {self.output()}")
            time.sleep(0.001)

    def output(self) -> str:
        """Return the last lines that it printed."""
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        # Reports are published: where things lie on this machine is nobody's business.
        return (
            "; ".join(line.strip() for line in lines[-2:]).replace(f"{ROOT}/", "").replace(f"{sys.prefix}/", "")
            or "it printed nothing"
        )

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self.process.poll() is None

    def pause(self) -> None:
        """Stop its clock: a server that waits its turn must not use the core that another is measured on."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def cpu(self) -> float:
        """Return the CPU seconds used so far by its process tree."""
        return sum(cpu_seconds(pid) for pid in process_tree(self.pid))

    def memory(self) -> tuple[int, int]:
        """Return the resident and the proportional bytes of its process tree."""
        pairs = [_resident(pid) for pid in process_tree(self.pid)]
        return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)

    def stop(self) -> None:
        """End it and its children: asked first, killed after a while."""
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT)
        # Children that outlived it are still in its process group, which is ours alone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self.errors.close()


def hold_idle(port: int, count: int) -> list[socket.socket]:
    """Open connections that each have had one request answered, and return them open.

    Raises:
        OSError: One could not be opened, or was not answered.
    """
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection((HOST, port), timeout=10.0)
            held.append(connection)
            connection.sendall(_PROBE)
            answer = b""
            while b"Hello, World!" not in answer:
                data = connection.recv(4096)
                if not data:
                    raise ConnectionError(f"connection {len(held)} was closed without an answer")
                answer += data
    except BaseException:
        for connection in held:
            connection.close()
        raise
    return held
