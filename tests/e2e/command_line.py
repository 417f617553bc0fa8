"""The `armature` command as a process of its own, and a client that waits for it no longer than it must."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Command", "command", "environment", "eventually", "fetch", "run_command"]

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0


def environment() -> dict[str, str]:
    """Return the environment of a command: this checkout is importable, output is not held back."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: value for name, value in os.environ.items() if name != "ARMATURE_APP"},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        # A module that is written again within a second, and keeps its size, would be taken from the cache.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Warnings of the framework in a served process are errors as well.
        "PYTHONWARNINGS": "error",
    }


def run_command(*arguments: str, cwd: Path, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "armature", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class Command:
    """A command that serves.

    Args:
        arguments: What follows `armature`.
        cwd: Its working directory.
        pass_fds: Descriptors that it inherits.
        process_group: 0 for a process group of its own, as a terminal's job has.
        program: What the interpreter runs, instead of the command: a script of its own.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        pass_fds: Sequence[int] = (),
        process_group: int | None = None,
        program: Sequence[str] = ("-m", "armature"),
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=tuple(pass_fds),
            process_group=process_group,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def output(self) -> str:
        """What the command, and its worker, have written so far."""
        return "".join(list(self._lines))

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until the output matches a pattern so many times; return the last match."""

        def found() -> re.Match[str] | None:
            matches = list(re.finditer(pattern, self.output))
            return matches[count - 1] if len(matches) >= count else None

        return eventually(found, lambda: f"{pattern!r} is not in the output:\n{self.output}")  # type: ignore[no-any-return]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.wait_for(r" on https?://\S+:(\d+)")[1])

    def worker(self) -> int:
        """The process id of the reloader's worker."""

        def found() -> int | None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return int(children[0]) if children else None

        return eventually(found, lambda: "there is no worker")  # type: ignore[no-any-return]

    def stop(self, number: int = signal.SIGINT, timeout: float = DEADLINE) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = DEADLINE) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code


@contextlib.contextmanager
def command(
    *arguments: str,
    cwd: Path,
    pass_fds: Sequence[int] = (),
    process_group: int | None = None,
    program: Sequence[str] = ("-m", "armature"),
) -> Iterator[Command]:
    """Run a command for the time of a block; nothing of it is left afterwards."""
    running = Command(arguments, cwd, pass_fds, process_group, program)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            # Its worker goes with it: that is what the pipe between them is for.
            running.process.kill()
            running.process.wait()
        running._reader.join(DEADLINE)
        assert running.process.stdout is not None
        running.process.stdout.close()


def eventually(probe: Any, complaint: Any = lambda: "it did not happen in time", seconds: float = DEADLINE) -> Any:
    """Return what `probe` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        if value := probe():
            return value
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.01)


def fetch(
    port: int, path: str = "/", headers: dict[str, str] | None = None, timeout: float = DEADLINE
) -> tuple[int, str]:
    """Send one GET on a new connection; return status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def refused(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0
