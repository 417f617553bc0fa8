"""Loads `probe.c`, compiled on first use into benchmarks/.peers."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


class ProbeError(Exception):
    """The probe cannot be built here."""


def load() -> ctypes.PyDLL:
    """Return the probe as a library.

    Raises:
        ProbeError: There is no C compiler, or it refuses the source.
    """
    source, library = HERE / "probe.c", HERE / ".peers" / "probe.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        compiler = os.environ.get("CC") or shutil.which("cc")
        if compiler is None:
            raise ProbeError("there is no C compiler: install one (Debian: `apt-get install gcc`) or set CC")
        library.parent.mkdir(exist_ok=True)
        # Under a name of its own first: another process may be loading the old one.
        fresh = library.with_suffix(f".{os.getpid()}")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(fresh), str(source)]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            raise ProbeError(f"{compiler}: {done.stderr.strip()[-300:]}")
        fresh.replace(library)
    return ctypes.PyDLL(str(library))


class Counter:
    """Counts allocations between `start` and `stop`: calls of malloc, calloc and realloc in Python's two GIL domains.

    What comes from a free-list of the interpreter or of an extension type is no allocation.
    """

    def __init__(self) -> None:
        self._library = load()
        self._result = (ctypes.c_ulonglong * 2)()

    def start(self) -> None:
        """Begin to count."""
        self._library.probe_count()

    def stop(self) -> tuple[int, int]:
        """Return how many allocations there were since `start`, and of how many bytes."""
        self._library.probe_stop(self._result)
        return self._result[0], self._result[1]
