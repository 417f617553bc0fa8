"""`python -m benchmarks ablate`: each optimisation left out, beside the same server with all of them.

Two measures: CPU time in interleaved rounds under wrk, which needs a quiet machine, and instructions under callgrind,
which does not, but leaves out what the kernel does. The answers of both sides are checked before anything is measured.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import stages, syscalls, variants
from benchmarks.http import wrk
from benchmarks.http.check import check
from benchmarks.http.compare import Series, Settings, measure_round, on_core, say, shuffled
from benchmarks.http.loads import LOADS, MORE_LOADS, Load
from benchmarks.http.registry import find
from benchmarks.http.report import number
from benchmarks.http.serve import Server, ServerError, raise_descriptor_limit
from benchmarks.http.switches import SWITCHES, Switch
from benchmarks.probe import ProbeError

TIME, INSTRUCTIONS, CALLS = "CPU µs", "instructions", "system calls"
#: What is counted differs by less than this share between two runs of the same server.
NOISE = {INSTRUCTIONS: 0.003, CALLS: 0.05}
ALL_LOADS = LOADS | MORE_LOADS


@dataclass
class Delta:
    """What one switch brings under one load, per request: CPU µs by round, or instructions, or system calls."""

    switch: str
    load: str
    unit: str
    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    failure: str | None = None

    def interval(self) -> tuple[float, float, float]:
        """Return the median difference of the rounds and the bounds of its 95 % bootstrap interval.

        What is counted is counted once; its bounds are what two runs of the same server differ by.
        """
        pairs = [off - on for on, off in zip(self.on, self.off, strict=True)]
        middle = statistics.median(pairs)
        if self.unit in NOISE:
            noise = NOISE[self.unit] * self.on[0]
            return middle, middle - noise, middle + noise
        rng = random.Random(1)
        medians = sorted(statistics.median(rng.choices(pairs, k=len(pairs))) for _ in range(2000))
        return middle, medians[50], medians[-51]

    def verdict(self) -> str:
        """Say in a word what the figures say."""
        _, low, high = self.interval()
        return "saves" if low > 0 else "costs" if high < 0 else "nothing shown"


def _sides(switch: Switch) -> dict[str, tuple[Path, dict[str, str]]]:
    """Return where each side is started, and with which environment."""
    base = variants.normal()
    return {"on": (base, switch.on()), "off": (variants.without(switch) if switch.compiled else base, switch.off())}


def _timed(delta: Delta, switch: Switch, load: Load, settings: Settings) -> None:
    peer = find("armature")
    sides: dict[str, tuple[Server, Series]] = {}
    with contextlib.ExitStack() as stack:
        for side, (folder, variables) in _sides(switch).items():
            server = stack.enter_context(Server(peer, load.variant, settings.server_core, variables, folder))
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
    delta.on, delta.off = sides["on"][1].values, sides["off"][1].values


class _Counts:
    """What is counted per request, once each: many switches are compared with the same ordinary server."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, str], float] = {}

    def of(self, unit: str, load: Load, folder: Path, variables: dict[str, str], core: int) -> float:
        key = unit, load.name, str(folder), json.dumps(variables, sort_keys=True)
        if key not in self._known:
            peer = find("armature")
            with Server(peer, load.variant, core, variables, folder) as server:
                wrong = check(server.port, load, peer.fixed)
                if wrong:
                    raise ServerError(f"wrong answer: {wrong}")
            if unit == CALLS:
                self._known[key] = sum(syscalls.measure(load, variables, folder).values())
            else:
                # The lesser of two: what disturbs a run adds to it.
                total = min(stages.measure(load, variables, folder).total for _ in range(2))
                self._known[key] = total / stages.requests_of(load)
        return self._known[key]


def _counted(delta: Delta, switch: Switch, load: Load, settings: Settings, counts: _Counts) -> None:
    found = {
        side: counts.of(delta.unit, load, folder, variables, settings.server_core)
        for side, (folder, variables) in _sides(switch).items()
    }
    delta.on, delta.off = [found["on"]], [found["off"]]


def _units(switch: Switch, instructions: bool) -> tuple[str, ...]:
    if not instructions:
        return (TIME,)
    return (INSTRUCTIONS, CALLS) if switch.saves_calls else (INSTRUCTIONS,)


def run(switches: list[Switch], settings: Settings, instructions: bool) -> list[Delta]:
    """Measure the switches one after the other.

    Args:
        switches: Which ones.
        settings: Rounds, duration, connections and cores; its loads, if any, narrow those of the switches.
        instructions: Whether to count instructions instead of taking the time.
    """
    raise_descriptor_limit()
    wanted = {load.name for load in settings.loads}
    found = []
    counts = _Counts()
    with contextlib.nullcontext() if instructions else on_core(settings.load_core):
        for switch in switches:
            for name in switch.loads:
                if wanted and name not in wanted:
                    continue
                for unit in _units(switch, instructions):
                    delta = Delta(switch.name, name, unit)
                    try:
                        if instructions:
                            _counted(delta, switch, ALL_LOADS[name], settings, counts)
                        else:
                            _timed(delta, switch, ALL_LOADS[name], settings)
                    except (ServerError, wrk.LoadError, ProbeError, variants.BuildError) as error:
                        delta.failure = str(error)
                        say(f"LEFT OUT  {switch.name} {name}: {delta.failure}")
                    else:
                        say(f"{switch.name} {name}: {delta.interval()[0]:+,.2f} {unit}, {delta.verdict()}")
                    found.append(delta)
    return found


def merged(known: list[Delta], found: list[Delta]) -> list[Delta]:
    """Return what is known with the new figures in the places of the old ones, in the order of the switches."""
    table = {(delta.switch, delta.load, delta.unit): delta for delta in [*known, *found]}
    order = list(SWITCHES)
    kept = [
        delta for delta in table.values() if delta.switch in SWITCHES and delta.load in SWITCHES[delta.switch].loads
    ]
    return sorted(kept, key=lambda delta: (order.index(delta.switch), SWITCHES[delta.switch].loads.index(delta.load)))


def silent(deltas: list[Delta]) -> list[str]:
    """Return the switches that save nothing under any load, in any unit: what they stand for is to be removed."""
    measured = [delta for delta in deltas if not delta.failure]
    saving = {delta.switch for delta in measured if delta.verdict() == "saves"}
    return sorted({delta.switch for delta in measured} - saving)


def table(deltas: list[Delta]) -> str:
    """Return the deltas as a Markdown table, and the names of the switches that show nothing anywhere."""
    lines = [
        "| switch | what is there (and what takes its place) | load | per request | with | without | difference | |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for delta in deltas:
        start = f"| {delta.switch} | {SWITCHES[delta.switch].title} | {ALL_LOADS[delta.load].title} | {delta.unit} "
        if delta.failure:
            lines.append(f"{start}| - | - | - | not measured: {delta.failure.replace('|', ';')} |")
            continue
        middle, low, high = delta.interval()
        on, off = statistics.median(delta.on), statistics.median(delta.off)
        if delta.unit == INSTRUCTIONS:
            figures = f"{on:,.0f} | {off:,.0f} | {middle:+,.0f} ({middle / on:+.1%})"
        elif delta.unit == CALLS:
            figures = f"{on:.2f} | {off:.2f} | {middle:+.2f}"
        else:
            figures = f"{number(on)} | {number(off)} | {middle:+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(f"{start}| {figures} | {delta.verdict()} |")
    names = silent(deltas)
    if names:
        lines += ["", f"Nothing gained is shown for: {', '.join(names)}."]
    return "\n".join(lines) + "\n"


def load_deltas(path: Path) -> list[Delta]:
    """Read back what `plain` has written; nothing if the file is not there."""
    if not path.exists():
        return []
    entries = json.loads(path.read_text())["deltas"]
    return [Delta(*(entry[name] for name in ("switch", "load", "unit", "on", "off", "failure"))) for entry in entries]


def plain(deltas: list[Delta]) -> list[dict[str, Any]]:
    """Return the deltas as plain data."""
    result = []
    for delta in deltas:
        entry: dict[str, Any] = asdict(delta)
        if not delta.failure:
            entry["median"], entry["low"], entry["high"] = delta.interval()
        result.append(entry)
    return result
