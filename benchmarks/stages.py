"""`python -m benchmarks stages`: instructions per request of a running server, by what they are spent on.

The server runs under callgrind on real sockets. The kernel's share is not counted; what it is asked is printed by
`python -m benchmarks syscalls`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import callgrind, live
from benchmarks.http.loads import LOADS, MORE_LOADS, Load
from benchmarks.http.registry import ROOT
from benchmarks.probe import ProbeError

KNOWN = LOADS | MORE_LOADS
_REQUESTS = {"stream": 160, "upload": 64, "download": 160, "pipelined": 6400}


def requests_of(load: Load) -> int:
    """Return how many requests of a load are counted: fewer of the large ones."""
    return _REQUESTS.get(load.name, 1600)


def measure(load: Load, variables: dict[str, str], folder: Path = ROOT) -> callgrind.Profile:
    """Return the profile of a server under one load.

    Args:
        load: What is asked.
        variables: Environment variables of the server.
        folder: What the server is imported from.

    Raises:
        ProbeError: valgrind is missing, or the run failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        profile = Path(scratch) / "profile"
        live.counted(load, requests_of(load), variables, profile, folder)
        with profile.open(errors="replace") as lines:
            return callgrind.read(lines)


def find_loads(text: str) -> list[Load]:
    """Return loads by their names, separated by commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in KNOWN or KNOWN[name].kind != "requests":
            able = ", ".join(load.name for load in KNOWN.values() if load.kind == "requests")
            raise SystemExit(f"there is no load {name!r}; there are {able}")
    return [KNOWN[name] for name in names]


def main(options: argparse.Namespace) -> int:
    """Count, and print a table of stages and the costliest functions of each.

    Args:
        options: `loads`, `top`, `io`.
    """
    for load in find_loads(options.loads):
        try:
            profile = measure(load, {"BENCH_OPTIONS": f'{{"io": "{options.io}"}}'})
        except ProbeError as error:
            print(error, file=sys.stderr)
            return 1
        requests, total = requests_of(load), profile.total
        print(f"## {load.title}: {total / requests:,.0f} instructions per request\n")
        print("| stage | instructions | share | most of them in |\n| --- | ---: | ---: | --- |")
        for stage, functions in callgrind.by_stage(profile).items():
            cost = sum(functions.values())
            costliest = ", ".join(
                f"`{name}` {own / requests:,.0f}"
                for (_, name), own in functions.most_common(options.top)
                if own >= cost / 50
            )
            print(f"| {stage} | {cost / requests:,.0f} | {cost / total:.0%} | {costliest} |")
        print(flush=True)
    return 0
