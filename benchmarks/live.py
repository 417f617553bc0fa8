"""A running server on real sockets, watched from outside while it answers a fixed number of requests.

`counted` has callgrind count the server's instructions: what the kernel does is not among them, and the clock plays no
part. `traced` has strace write down its system calls. Both count between two requests of ours that mark the span.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from armature.cli import load as generator
from benchmarks import callgrind
from benchmarks.http import peers
from benchmarks.http.loads import ID_COUNT, Load, request_bytes
from benchmarks.http.registry import ROOT, find
from benchmarks.http.serve import free_port
from benchmarks.probe import ProbeError
from benchmarks.probe import load as load_probe
from benchmarks.variants import environ as importing

WARM_UP = 300
#: Ids of one length, so that the work is the same for each.
_IDS = range(1000, ID_COUNT)
#: Larger requests do not fit into the socket of a server that is stopped.
_SENT_AT_ONCE = 16 * 1024
_START_SECONDS = 90.0
_STOP_SECONDS = 60.0
BEGIN, END = "/probe/begin", "/probe/end"


def requests_of(load: Load) -> list[bytes]:
    """Return what is sent in turn under a load."""
    return [request_bytes(load, number) for number in _IDS[:64]] if load.rotate else [request_bytes(load)]


def connections_of(load: Load) -> int:
    """Return how many connections ask at once: enough that one turn of the loop serves several, as a busy one does."""
    return min(load.connections or 16, 16)


def _mark(port: int, path: str) -> None:
    request = generator.request_bytes(peers.HOST, path, fields=[("Connection", "close")])
    if generator.drive((peers.HOST, port), [request], 1, count=1).failed:
        raise ProbeError(f"the server does not answer {path}")


@contextlib.contextmanager
def _server(tool: list[str], variant: str, variables: dict[str, str], folder: Path) -> Iterator[tuple[int, int]]:
    """Run the server under a tool, and end it by the signal that lets the tool write down what it has.

    Gives its port, and its process group.
    """
    port = free_port()
    environ = find("armature").environ(port, variant) | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*tool, sys.executable, "-m", "benchmarks.live"],
            cwd=folder,
            env=environ | variables | importing(folder),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )

        def failure(what: str) -> ProbeError:
            errors.seek(0)
            return ProbeError(f"{what}: {errors.read().decode(errors='replace').strip()[-500:]}")

        try:
            deadline = time.monotonic() + _START_SECONDS
            while True:
                if process.poll() is not None:
                    raise failure(f"the server ended with status {process.returncode}")
                with contextlib.suppress(OSError), socket.create_connection((peers.HOST, port), timeout=1.0):
                    break
                if time.monotonic() > deadline:
                    raise failure("the server did not start")
                time.sleep(0.05)
            try:
                yield port, process.pid
            except generator.LoadError as error:
                raise failure(str(error)) from None
            # strace ends with the program that it started; a signal to itself would leave that behind.
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise failure("the server did not stop") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _drive(port: int, load: Load, requests: int, group: int | None) -> None:
    """Warm up, and then ask as often as is counted, between the two marks."""
    for count, marked in ((WARM_UP * load.depth, False), (requests, True)):
        if marked:
            _mark(port, BEGIN)
        if group is None or load.close or len(requests_of(load)[0]) > _SENT_AT_ONCE:
            outcome = generator.drive(
                (peers.HOST, port), requests_of(load), connections_of(load), count=count, depth=load.depth
            )
            failed = outcome.failed
        else:
            failed = _drive_in_step(port, load, count, group)
        if failed:
            raise ProbeError(f"{failed} of {count} requests of the load {load.name} failed")
        if marked:
            _mark(port, END)


def _drive_in_step(port: int, load: Load, count: int, group: int) -> int:
    """Ask on all connections while the server is stopped, so that every turn of its loop finds all of them ready.

    How many it finds would otherwise depend on what else the machine does, and so would the instructions that a turn
    takes by itself. Returns how many requests failed.
    """
    turns = itertools.cycle(requests_of(load))
    failed = 0
    with contextlib.ExitStack() as stack:
        clients = [
            (stack.enter_context(socket.create_connection((peers.HOST, port), timeout=30.0)), generator.Reply())
            for _ in range(connections_of(load))
        ]
        for _ in range(count // (load.depth * len(clients))):
            os.killpg(group, signal.SIGSTOP)
            for client, _ in clients:
                client.sendall(next(turns))
            os.killpg(group, signal.SIGCONT)
            for client, reply in clients:
                for _ in range(load.depth):
                    while not reply.complete():
                        reply.feed(client.recv(1 << 18))
                        if reply.closes:
                            raise ProbeError("the server closed a connection")
                    failed += reply.status >= 400
    return failed


def counted(load: Load, requests: int, variables: dict[str, str], profile: Path, folder: Path = ROOT) -> None:
    """Write callgrind's profile of a server that answers `requests` requests of a load.

    Args:
        load: What is asked.
        requests: How often; a multiple of the load's depth.
        variables: Environment variables of the server.
        profile: Where the profile is written.
        folder: What the server is imported from.

    Raises:
        ProbeError: valgrind is missing, or the run failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise ProbeError("valgrind is missing: install it first (Debian, Ubuntu: `apt-get install valgrind`)")
    if not load_probe().probe_has_callgrind():
        raise ProbeError("the header valgrind/callgrind.h is missing: install valgrind's development files")
    tool = [valgrind, "--tool=callgrind", "--instr-atstart=no", "--quiet", f"--callgrind-out-file={profile}"]
    with _server(tool, load.variant, variables | callgrind.ENVIRON | {"BENCH_PROBE": "1"}, folder) as (port, group):
        _drive(port, load, requests, group)
    if not profile.exists():
        raise ProbeError("callgrind wrote no profile")


_CALL = re.compile(r"^(?:\d+ +)?(?:<\.\.\. )?(\w+)(?:\(| resumed>)")


def traced(load: Load, requests: int, variables: dict[str, str], folder: Path = ROOT) -> Counter[str]:
    """Return how often a server made each system call while it answered `requests` requests of a load.

    Args:
        load: What is asked.
        requests: How often; a multiple of the load's depth.
        variables: Environment variables of the server.
        folder: What the server is imported from.

    Raises:
        ProbeError: strace is missing or not permitted, or the run failed.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise ProbeError("strace is missing: install it first (Debian, Ubuntu: `apt-get install strace`)")
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with _server([strace, "-f", "-qq", "-o", str(log)], load.variant, variables, folder) as (port, _):
            _drive(port, load, requests, None)
        calls: Counter[str] = Counter()
        counting = False
        for line in log.read_text(errors="replace").splitlines():
            if f"GET {END}" in line:
                return calls
            match = _CALL.match(line)
            if counting and match is not None and "resumed>" not in line:
                calls[match[1]] += 1
            counting = counting or f"GET {BEGIN}" in line
    raise ProbeError("the marks of the measurement are not in strace's log")


def main() -> None:
    """Serve the peer's app with the two marks; runs under the tool."""
    from benchmarks.http.peers import armature as peer

    probe = load_probe() if os.environ.get("BENCH_PROBE") else None

    @peer.app.get("/probe/{what}")
    async def mark(what: str) -> str:
        if probe is not None:
            probe.probe_callgrind(1 if what == "begin" else 0)
        return what

    peer.serve()


if __name__ == "__main__":
    main()
