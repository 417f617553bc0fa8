"""Runs `wrk` on a core of its own and reads what it measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass

from benchmarks.http.loads import LUA, Load, settings
from benchmarks.http.peers import HOST


class LoadError(Exception):
    """wrk is missing, or did not finish."""


@dataclass(frozen=True)
class Sample:
    """What one run of wrk saw: latencies are in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    failed: int


def program() -> str:
    """Return the path of wrk.

    Raises:
        LoadError: It is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise LoadError(
            "wrk is missing: install it first (Debian, Ubuntu: `apt-get install wrk`; macOS: `brew install wrk`)"
        )
    return found


def version() -> str:
    """Return wrk's version line."""
    done = subprocess.run([program(), "--version"], text=True, capture_output=True)
    return (done.stdout + done.stderr).splitlines()[0].partition(" [")[0]


def run(port: int, load: Load, connections: int, seconds: int, core: int) -> Sample:
    """Put one load on a server of this machine.

    Args:
        port: Where it listens.
        load: What to ask.
        connections: Connections kept open.
        seconds: How long, in whole seconds.
        core: The CPU core that wrk is pinned to.

    Raises:
        LoadError: wrk failed, or answered nothing readable.
    """
    command = [
        program(),
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "-s",
        str(LUA),
        f"http://{HOST}:{port}",
    ]
    try:
        done = subprocess.run(
            command,
            env={"PATH": os.environ.get("PATH", "")} | settings(load),
            text=True,
            capture_output=True,
            timeout=seconds + 30,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"wrk did not end {error.timeout - seconds:.0f} s after its time") from error
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            seen = json.loads(line.removeprefix("RESULT "))
            # A server that closes without announcing it is read on by wrk, which then counts an answered request's
            # end of file as a read error.
            failed = seen["failed"] + (0 if load.close else seen["read"])
            return Sample(seen["requests"], seen["seconds"], seen["p50"], seen["p99"], failed)
    raise LoadError(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
