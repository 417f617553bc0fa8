"""`python -m benchmarks syscalls`: system calls per request of a running server, counted by strace.

A keep-alive request costs one call to receive it and one to send its answer. Waiting costs calls as well, which a busy
server divides among all the requests that one wait brings.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from benchmarks import live
from benchmarks.http.loads import Load
from benchmarks.http.registry import ROOT
from benchmarks.probe import ProbeError
from benchmarks.stages import find_loads

_REQUESTS = {"stream": 160, "upload": 64, "download": 160, "connect": 640, "pipelined": 12800}


def requests_of(load: Load) -> int:
    """Return how many requests of a load are traced."""
    return _REQUESTS.get(load.name, 3200)


def measure(load: Load, variables: dict[str, str], folder: Path = ROOT) -> dict[str, float]:
    """Return the calls per request under one load, by name, the most frequent first.

    Args:
        load: What is asked.
        variables: Environment variables of the server.
        folder: What the server is imported from.

    Raises:
        ProbeError: strace is missing or not permitted, or the run failed.
    """
    calls: Counter[str] = live.traced(load, requests_of(load), variables, folder)
    return {name: count / requests_of(load) for name, count in calls.most_common()}


def main(options: argparse.Namespace) -> int:
    """Count, and print a row per load.

    Args:
        options: `loads`, `io`.
    """
    print("| load | calls per request | of which |\n| --- | ---: | --- |")
    for load in find_loads(options.loads):
        try:
            found = measure(load, {"BENCH_OPTIONS": f'{{"io": "{options.io}"}}'})
        except ProbeError as error:
            print(error, file=sys.stderr)
            return 1
        names = ", ".join(f"{name} {calls:.2f}" for name, calls in found.items() if calls >= 0.01)
        print(f"| {load.title} | {sum(found.values()):.2f} | {names} |", flush=True)
    return 0
