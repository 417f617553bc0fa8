"""How many processors there are for this process, by its affinity mask and by the quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["allowed_cpus", "available_cpus"]


def allowed_cpus() -> list[int]:
    """Return the numbers of the processors that this process may run on; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def available_cpus(root: str = "/") -> int:
    """Return how many processors this process may keep busy, at least one.

    Args:
        root: Where the file system begins.
    """
    # From Python 3.13 on; it also knows PYTHON_CPU_COUNT and -X cpu_count.
    counted = getattr(os, "process_cpu_count", None)
    count = (counted() if counted is not None else len(allowed_cpus())) or os.cpu_count() or 1
    # Rounded down: one process more than the quota pays for would have all of them throttled.
    return max(1, min([count, *(int(quota) for quota in _quotas(Path(root)))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the processors that each control group above this process grants."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for directory in _upwards(base, path):
                yield from _quota(_words(directory / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for directory in _upwards(base / controllers, path):
                yield from _quota([*_words(directory / "cpu.cfs_quota_us"), *_words(directory / "cpu.cfs_period_us")])


def _upwards(base: Path, path: str) -> Iterator[Path]:
    # Inside a container the path may be that of the host, of which only the top is mounted.
    inner = PurePosixPath(path.lstrip("/"))
    yield base / inner
    for parent in inner.parents:
        yield base / parent


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _quota(words: list[str]) -> Iterator[float]:
    # "max" in version 2 and -1 in version 1 stand for no quota.
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        yield int(words[0]) / int(words[1])
