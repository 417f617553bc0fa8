"""The fuzz targets: shortly with Hypothesis in every run, and for as long as one likes with atheris (`-m fuzz`).

`ARMATURE_FUZZ_SECONDS` says how long atheris fuzzes each target; the default is 10. With `ARMATURE_FUZZ_KEEP=1` what it
finds is added to `tests/fuzz/kept`, which every run of the tests replays.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import CASES
from fuzz.seeds import DICTIONARY, keep, kept
from fuzz.targets import TARGETS
from twins import messages
from twins.conftest import PY, C

SEEDS = [case.data for case in CASES if len(case.data) < 600]
SECONDS = int(os.environ.get("ARMATURE_FUZZ_SECONDS", "10"))

seeded = messages.mutated(st.sampled_from(SEEDS))
woven = st.lists(st.sampled_from(DICTIONARY) | st.binary(max_size=6), max_size=12).map(b"".join)
source = st.builds(lambda seed, data: bytes([seed]) + data, st.integers(0, 255), seeded | woven)


@pytest.fixture(scope="session")
def rooms(request: pytest.FixtureRequest) -> list[Any]:
    """Both rooms, or the pure one where `--pure` was given."""
    return [PY] if request.config.getoption("--pure") else [PY, C]


@pytest.mark.parametrize("name", TARGETS)
@given(data=source)
@settings(max_examples=120, deadline=None)
def test_target(rooms: list[Any], name: str, data: bytes) -> None:
    TARGETS[name](rooms, data)


@pytest.mark.parametrize("name", TARGETS)
def test_target_on_the_corpus(rooms: list[Any], name: str) -> None:
    for data in SEEDS:
        for seed in (0, 5, 9):
            TARGETS[name](rooms, bytes([seed]) + data)


@pytest.mark.parametrize("name", TARGETS)
def test_target_on_what_was_found(rooms: list[Any], name: str) -> None:
    for data in kept(name):
        TARGETS[name](rooms, data)


@pytest.mark.fuzz
@pytest.mark.timeout(SECONDS * 3 + 120)
@pytest.mark.parametrize("name", TARGETS)
def test_atheris(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    command = [sys.executable, str(Path(__file__).parent / "run_atheris.py"), name, str(SECONDS), str(tmp_path)]
    if request.config.getoption("--pure"):
        command.append("--pure")
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * 3 + 100, check=False)
    sys.stdout.write(done.stderr[-2000:])
    found = [path for path in tmp_path.iterdir() if path.name.startswith(("crash-", "leak-", "timeout-", "oom-"))]
    assert not found, f"{found[0].read_bytes()!r}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, done.stderr[-3000:]
    if os.environ.get("ARMATURE_FUZZ_KEEP", "0") not in ("", "0"):
        keep(name, tmp_path / "found")
