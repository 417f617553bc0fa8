"""Freed memory is kept for the next large body, where the C library can be told to."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from armature.exceptions import ConfigurationError
from armature.server import ServerConfig
from armature.server.memory import keep_freed

GLIBC = platform.libc_ver()[0] == "glibc"

#: Makes large blocks and frees them, one after the other; prints how many pages the system had to make.
PROGRAM = """
import resource, sys
from armature.server.memory import keep_freed
if int(sys.argv[1]):
    assert keep_freed(int(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    blocks = [bytearray(1 << 20) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(size: int) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(size)], capture_output=True, text=True, check=True, env=environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="only glibc can be told")
def test_pages_are_used_again() -> None:
    page = os.sysconf("SC_PAGESIZE")
    four_blocks = 4 * (1 << 20) // page
    assert faults(64 * 1024 * 1024) < 3 * four_blocks


def test_who_has_set_it_is_not_overruled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed(64 * 1024 * 1024)


def test_zero_leaves_everything_as_it_is() -> None:
    assert not keep_freed(0)


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed(64 * 1024 * 1024)


def test_the_option_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="keep_memory must be a number from 0"):
        ServerConfig(keep_memory=-1)
