"""`python -m benchmarks memory`: allocations, bytes and leftovers per request, pinned to the last one in memory.json.

A request is fed to the connection core of either twin, without a socket, until it is warm; then blocks of requests are
counted. The smallest block counts: the others may hold the second in which the Date line was made anew. Per request:

- `allocations`: calls of malloc, calloc and realloc (free-lists of the interpreter and of the twins are none),
- `bytes`: what they asked for,
- `peak`: how far the traced heap rose above its level between requests (tracemalloc),
- `kept`: blocks that stayed behind, over a thousand requests; anything but 0 is a leak.

A number that differs from memory.json fails, whichever way: an improvement is written down too, with `--write`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from benchmarks.probe import Counter, ProbeError
from benchmarks.twins import REQUESTS, ROOMS, Core, in_loop

PINNED = Path(__file__).with_name("memory.json")
WARM_UP, BLOCK, BLOCKS, SOAK = 300, 100, 20, 1000


def _count(core: Core, data: bytes, counter: Counter) -> dict[str, float]:
    feed = core.feed
    for _ in range(WARM_UP):
        feed(data)
    blocks = []
    for _ in range(BLOCKS):
        counter.start()
        for _ in range(BLOCK):
            feed(data)
        blocks.append(counter.stop())
    # What the loop itself needs is counted once without a request, and taken off.
    counter.start()
    for _ in range(BLOCK):
        pass
    own = counter.stop()
    allocations = min(block[0] for block in blocks) - own[0]
    size = min(block[1] for block in blocks) - own[1]

    before = sys.getallocatedblocks()
    for _ in range(SOAK):
        feed(data)
    kept = sys.getallocatedblocks() - before

    tracemalloc.start()
    feed(data)
    peaks = []
    for _ in range(BLOCKS):
        tracemalloc.reset_peak()
        current = tracemalloc.get_traced_memory()[0]
        feed(data)
        peaks.append(tracemalloc.get_traced_memory()[1] - current)
    tracemalloc.stop()
    return {"allocations": allocations / BLOCK, "bytes": size / BLOCK, "peak": min(peaks), "kept": kept // SOAK}


def measure(impl: str) -> dict[str, dict[str, float]]:
    """Return the numbers of every request for one twin."""
    counter = Counter()

    def run(loop: asyncio.AbstractEventLoop) -> dict[str, dict[str, float]]:
        result = {}
        for name, data in REQUESTS.items():
            core = Core(impl, loop)
            core.check(name)
            result[name] = _count(core, data, counter)
        return result

    gc.collect()
    gc.disable()
    try:
        return in_loop(run)
    finally:
        gc.enable()


def compare(found: dict[str, Any], pinned: dict[str, Any]) -> list[str]:
    """Return one line per number that differs from what is pinned."""
    lines = []
    for impl, requests in found.items():
        for name, numbers in requests.items():
            for what, value in numbers.items():
                before = pinned.get(impl, {}).get(name, {}).get(what)
                if before != value:
                    lines.append(f"{impl} {name}: {what} {before} -> {value}")
    return lines


def main(write: bool) -> int:
    """Count, print, and compare with memory.json or write it.

    Args:
        write: Whether to pin the numbers counted now.

    Returns:
        1 if a number differs from the pinned one, else 0.
    """
    version = ".".join(platform.python_version_tuple()[:2])
    try:
        found = {impl: measure(impl) for impl in ROOMS}
    except ProbeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"CPython {platform.python_version()}, per request")
    print("| request | pure: allocations | bytes | peak | kept | compiled: allocations | bytes | peak | kept |")
    print("| --- |" + " ---: |" * 8)
    for name in REQUESTS:
        cells = [f"{value:g}" for impl in ("py", "c") for value in found[impl][name].values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    pinned = json.loads(PINNED.read_text()) if PINNED.exists() else {}
    if write:
        pinned[version] = found
        PINNED.write_text(json.dumps(dict(sorted(pinned.items())), indent=1) + "\n")
        return 0
    if version not in pinned:
        print(f"nothing is pinned for CPython {version}; pin it with --write")
        return 0
    changed = compare(found, pinned[version])
    print("\n".join(changed) if changed else "as pinned")
    return 1 if changed else 0
