"""`python -m benchmarks ablate`: each optimisation switched off beside the same server with it on."""

from __future__ import annotations

import contextlib
import random
import statistics
from dataclasses import dataclass, field
from typing import Any

from benchmarks.http import wrk
from benchmarks.http.check import check
from benchmarks.http.compare import Series, Settings, measure_round, on_core, say, shuffled
from benchmarks.http.loads import LOADS, Load
from benchmarks.http.registry import find
from benchmarks.http.report import number
from benchmarks.http.serve import Server, ServerError, raise_descriptor_limit
from benchmarks.http.switches import Switch


@dataclass
class Delta:
    """What one switch brings under one load, in CPU µs per request; positive means that the optimisation saves time."""

    switch: str
    title: str
    load: str
    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    failure: str | None = None

    def interval(self) -> tuple[float, float, float]:
        """Return the median difference of the rounds and the bounds of its 95 % bootstrap interval."""
        pairs = [off - on for on, off in zip(self.on, self.off, strict=True)]
        rng = random.Random(1)
        medians = sorted(statistics.median(rng.choices(pairs, k=len(pairs))) for _ in range(2000))
        return statistics.median(pairs), medians[50], medians[-51]


def _one(switch: Switch, load: Load, settings: Settings) -> Delta:
    delta = Delta(switch.name, switch.title, load.name)
    peer = find(switch.peer)
    sides: dict[str, tuple[Server, Series]] = {}
    with contextlib.ExitStack() as stack:
        try:
            for side, variables in (("on", {}), ("off", switch.off())):
                server = stack.enter_context(Server(peer, load.variant, settings.server_core, variables))
                wrong = check(server.port, load, peer.fixed)
                if wrong:
                    raise ServerError(f"{side}: wrong answer: {wrong}")
                server.pause()
                sides[side] = server, Series()
            for turn in range(settings.rounds):
                for side in shuffled(["on", "off"], settings.seed, turn):
                    server, series = sides[side]
                    server.resume()
                    wrong = None
                    if turn == 0 and settings.warm_up:
                        wrong = measure_round(server, load, settings, Series(), settings.warm_up)
                    wrong = wrong or measure_round(server, load, settings, series, settings.duration)
                    if wrong:
                        raise ServerError(f"{side}: {wrong}")
                    server.pause()
        except (ServerError, wrk.LoadError) as error:
            delta.failure = str(error)
            return delta
    delta.on, delta.off = sides["on"][1].values, sides["off"][1].values
    return delta


def run(switches: list[Switch], settings: Settings) -> list[Delta]:
    """Measure the switches one after the other.

    Args:
        switches: Which ones.
        settings: Rounds, duration, connections and cores; its loads, if any, narrow those of the switches.
    """
    raise_descriptor_limit()
    wanted = {load.name for load in settings.loads}
    found = []
    with on_core(settings.load_core):
        for switch in switches:
            for name in switch.loads:
                if wanted and name not in wanted:
                    continue
                say(f"{switch.name} {name}")
                delta = _one(switch, LOADS[name], settings)
                if delta.failure:
                    say(f"LEFT OUT  {switch.name} {name}: {delta.failure}")
                found.append(delta)
    return found


def table(deltas: list[Delta]) -> str:
    """Return the deltas as a Markdown table."""
    lines = [
        "| switch | load | on, µs | off, µs | off - on, µs | 95 % interval | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for delta in deltas:
        title = f"{delta.switch} {delta.title}"
        load = LOADS[delta.load].title
        if delta.failure:
            lines.append(f"| {title} | {load} | - | - | - | - | not measured: {delta.failure.replace('|', ';')} |")
            continue
        middle, low, high = delta.interval()
        verdict = "saves" if low > 0 else "costs" if high < 0 else "no difference shown"
        on, off = statistics.median(delta.on), statistics.median(delta.off)
        figures = f"{number(on)} | {number(off)} | {middle:+.2f} | {low:+.2f} to {high:+.2f}"
        lines.append(f"| {title} | {load} | {figures} | {verdict} |")
    return "\n".join(lines) + "\n"


def plain(deltas: list[Delta]) -> list[dict[str, Any]]:
    """Return the deltas as plain data."""
    result = []
    for delta in deltas:
        entry: dict[str, Any] = dict(vars(delta))
        if not delta.failure:
            entry["median"], entry["low"], entry["high"] = delta.interval()
        result.append(entry)
    return result
