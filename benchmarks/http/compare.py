"""`python -m benchmarks compare`: every peer under every load, in interleaved rounds.

The unit is CPU microseconds per request: user and system time of the server's process tree, divided by the requests
that wrk saw answered. Requests per second would mislead, because wrk's one core is busy before a good server is.
A server waits its turn stopped (SIGSTOP), so that the timers of eighteen idle servers do not disturb the one measured.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.http import wrk
from benchmarks.http.check import check
from benchmarks.http.install import missing, versions
from benchmarks.http.loads import LOADS, Load
from benchmarks.http.registry import Peer
from benchmarks.http.serve import Server, ServerError, hold_idle, raise_descriptor_limit

#: More failed requests than this share remove a peer from a load.
FAILURES_ALLOWED = 0.001
#: A round in which other programs used more than this share of the server's core is made again, so many times at most.
DISTURBANCE_ALLOWED = 0.2
REPEATS = 2


@dataclass
class Settings:
    """How a run is made."""

    peers: list[Peer]
    loads: list[Load]
    rounds: int = 5
    duration: int = 2
    connections: int = 64
    warm_up: int = 1
    server_core: int = 0
    load_core: int = 1
    seed: int = 1


@dataclass
class Series:
    """What was measured of one peer under one load: one entry per round.

    `values` are CPU µs per request, milliseconds to the first answer, or resident MB, by the load's kind.
    """

    values: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    proportional: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    #: Largest share of the server's core that anything else used during a round.
    disturbed: float = 0.0

    def median(self) -> float:
        """Return the median of the values."""
        return statistics.median(self.values)


Say = Callable[[str], None]


def say(text: str) -> None:
    """Print progress where it does not get into the tables."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Describe the machine as far as it matters to the figures."""
    model = platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "wrk": wrk.version(),
    }


def _core_busy(core: int) -> float:
    """Return the seconds that a core has been busy since boot."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith(f"cpu{core} "):
                parts = [int(part) for part in line.split()[1:9]]
                return (sum(parts) - parts[3] - parts[4]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def measure_round(server: Server, load: Load, settings: Settings, series: Series, seconds: int) -> str | None:
    """Measure one round and return what went wrong, or None."""
    for repeat in range(REPEATS + 1):
        wrong, disturbed = _measure_once(server, load, settings, series, seconds, repeat == REPEATS)
        if wrong or disturbed <= DISTURBANCE_ALLOWED:
            return wrong
    return None


def _measure_once(
    server: Server, load: Load, settings: Settings, series: Series, seconds: int, last: bool
) -> tuple[str | None, float]:
    """Measure once; keep the figures if the round was quiet enough, or is the last try."""
    busy, cpu = _core_busy(settings.server_core), server.cpu()
    sample = wrk.run(server.port, load, load.connections or settings.connections, seconds, settings.load_core)
    used = server.cpu() - cpu
    others = _core_busy(settings.server_core) - busy - used
    if not server.alive():
        return f"the server died: {server.output()}", 0.0
    if sample.requests == 0:
        return "no request was answered", 0.0
    if sample.failed > sample.requests * FAILURES_ALLOWED:
        return f"{sample.failed} of {sample.requests} requests failed", 0.0
    disturbed = others / sample.seconds
    if disturbed > DISTURBANCE_ALLOWED and not last:
        return None, disturbed
    resident, proportional = server.memory()
    series.values.append(used / sample.requests * 1e6)
    series.rates.append(sample.requests / sample.seconds)
    series.p50.append(sample.p50)
    series.p99.append(sample.p99)
    series.resident.append(resident / 1e6)
    series.proportional.append(proportional / 1e6)
    series.requests += sample.requests
    series.failed += sample.failed
    series.disturbed = max(series.disturbed, disturbed)
    return None, disturbed


def shuffled(items: list[Any], seed: int, number: int) -> list[Any]:
    """Return the items in another order for every round, the same in every run."""
    order = list(items)
    random.Random(seed * 1000 + number).shuffle(order)
    return order


def _under_load(
    load: Load, settings: Settings, peers: list[Peer], drop: Callable[[Peer, str], None]
) -> dict[str, Series]:
    """Time one load over all peers in interleaved rounds."""
    result: dict[str, Series] = {}
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for peer in peers:
            try:
                server = stack.enter_context(Server(peer, load.variant, settings.server_core))
            except ServerError as error:
                drop(peer, str(error))
                continue
            wrong = check(server.port, load, peer.fixed)
            if wrong:
                drop(peer, f"wrong answer: {wrong}")
                server.stop()
                continue
            server.pause()
            servers[peer.name] = server
            result[peer.name] = Series()
        for number in range(settings.rounds):
            for peer in shuffled([peer for peer in peers if peer.name in servers], settings.seed, number):
                server = servers[peer.name]
                server.resume()
                try:
                    wrong = None
                    if number == 0 and settings.warm_up:
                        wrong = measure_round(server, load, settings, Series(), settings.warm_up)
                    if wrong is None:
                        wrong = measure_round(server, load, settings, result[peer.name], settings.duration)
                except wrk.LoadError as error:
                    wrong = str(error)
                if wrong:
                    drop(peer, wrong)
                    del servers[peer.name], result[peer.name]
                    server.stop()
                else:
                    server.pause()
            say(f"  round {number + 1} of {settings.rounds}")
    return result


def _from_start(
    load: Load, settings: Settings, peers: list[Peer], drop: Callable[[Peer, str], None]
) -> dict[str, Series]:
    """Measure what needs a fresh server each round: cold start, idle memory."""
    result: dict[str, Series] = {}
    dropped: set[str] = set()
    # Memory hardly varies, and the first start of all only fills the caches of files and byte code.
    rounds = min(settings.rounds, 3) if load.kind == "memory" else settings.rounds + 1
    for number in range(rounds):
        for peer in shuffled(peers, settings.seed, number):
            if peer.name in dropped:
                continue
            series = result.setdefault(peer.name, Series())
            try:
                with Server(peer, load.variant, settings.server_core) as server:
                    if number == 0:
                        wrong = check(server.port, load, peer.fixed)
                        if wrong:
                            raise ServerError(f"wrong answer: {wrong}")
                    if load.kind == "start":
                        if number:
                            series.values.append(server.start_seconds * 1e3)
                        continue
                    held = hold_idle(server.port, load.idle)
                    time.sleep(0.2)
                    resident, proportional = server.memory()
                    for connection in held:
                        connection.close()
                    series.values.append(resident / 1e6)
                    series.proportional.append(proportional / 1e6)
            except (ServerError, OSError) as error:
                drop(peer, str(error))
                dropped.add(peer.name)
                result.pop(peer.name, None)
        say(f"  round {number + 1} of {rounds}")
    return result


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process off the server's core while it plays the client."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        raise wrk.LoadError(
            f"core {core} cannot be used: {error}; choose others by --server-core and --load-core"
        ) from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(settings: Settings, known: dict[str, Any] | None, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run everything and return the report as plain data.

    Args:
        settings: What to measure, and how.
        known: An earlier report whose other loads are kept.
        save: Called with the report after each load, so that an interrupted run is not lost.
    """
    raise_descriptor_limit()
    gc.disable()
    report: dict[str, Any] = known or {"loads": {}, "left_out": {}}
    report["machine"] = machine()
    report["settings"] = {key: value for key, value in asdict(settings).items() if key not in ("peers", "loads")} | {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]])
    }
    peers = []
    names = report.setdefault("peers", {})
    for peer in settings.peers:
        wrong = missing(peer)
        if wrong:
            report["left_out"].setdefault("all", {})[peer.name] = wrong
            say(f"LEFT OUT  {peer.name}: {wrong}")
            continue
        report["left_out"].get("all", {}).pop(peer.name, None)
        names[peer.name] = {"title": peer.title, "kind": peer.kind, "versions": versions(peer)}
        peers.append(peer)
    with on_core(settings.load_core):
        for load in settings.loads:
            say(f"{load.title} ({load.name})")
            left_out: dict[str, str] = {}

            def drop(peer: Peer, reason: str, left_out: dict[str, str] = left_out, load: Load = load) -> None:
                left_out[peer.name] = reason
                say(f"LEFT OUT  {peer.name} of {load.name}: {reason}")

            able = []
            for peer in peers:
                if load.name in peer.unsupported:
                    drop(peer, peer.unsupported[load.name])
                else:
                    able.append(peer)
            measure = _under_load if load.kind == "requests" else _from_start
            series = measure(load, settings, able, drop)
            report["loads"][load.name] = {
                "title": load.title,
                "kind": load.kind,
                "connections": load.idle or load.connections or settings.connections,
                "rounds": settings.rounds,
                "duration": settings.duration,
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
                "peers": {name: asdict(one) | {"median": one.median()} for name, one in series.items() if one.values},
            }
            report["left_out"][load.name] = left_out
            order = list(LOADS)
            report["loads"] = dict(sorted(report["loads"].items(), key=lambda pair: order.index(pair[0])))
            save(report)
    return report


def load_report(path: Path) -> dict[str, Any]:
    """Read a report back."""
    return dict(json.loads(path.read_text()))
