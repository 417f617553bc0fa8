"""How many processors there are, on machines and in containers that are made up of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from armature.server import cpus

V2 = "0::/pods/one\n"
V1 = "7:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)


def tree(root: Path, contents: dict[str, str]) -> str:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("contents", "count"),
    [
        ({}, 8),
        ({"proc/self/cgroup": V2}, 8),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/pods/one/cpu.max": "300000 100000\n"}, 3),
        # One more would be throttled half of the time.
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/pods/one/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/pods/one/cpu.max": "50000 100000\n"}, 1),
        # A group above may be the narrower one; and inside of a container only the top is to be seen.
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/pods/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "500000 100000\n"}, 5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "350000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({"proc/self/cgroup": "nonsense\n0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, 8),
    ],
)
def test_the_narrowest_bound_counts(tmp_path: Path, contents: dict[str, str], count: int) -> None:
    assert cpus.available_cpus(tree(tmp_path, contents)) == count


def test_the_affinity_mask_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 2, 7}, raising=False)
    assert cpus.allowed_cpus() == [2, 5, 7]
    assert cpus.available_cpus(str(tmp_path)) == 3


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.allowed_cpus() == []
    assert cpus.available_cpus(str(tmp_path)) == 1
