"""The guard of instruction counts: what it takes for worse, and that it sees a slowed copy of the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from armature._impl import PURE
from benchmarks import guard
from counterparts import require

#: Encodes everything twice.
SLOW = """

_use = use


def use(name=None):
    engine = _use(name)

    def twice(obj):
        engine.dumps(obj)
        return engine.dumps(obj)

    return engine._replace(dumps=twice)
"""
ROOT = Path(__file__).parent.parent.parent


def numbers(relative: float, own: float) -> guard.Numbers:
    return {"plaintext": {"total": 6000.0, "relative": relative, "own": own}}


def test_a_sixth_more_is_worse_and_a_tenth_is_not() -> None:
    assert guard.compare(numbers(1.1, 2750.0), numbers(1.0, 2500.0)) == ([], [])
    worse, better = guard.compare(numbers(1.0, 2950.0), numbers(1.0, 2500.0))
    assert worse == ["plaintext: own 2500 -> 2950, +18%"]
    assert better == []
    assert guard.compare(numbers(1.2, 2500.0), numbers(1.0, 2500.0))[0] == ["plaintext: relative 1 -> 1.2, +20%"]


def test_what_got_better_is_said_and_is_no_failure() -> None:
    assert guard.compare(numbers(0.8, 2000.0), numbers(1.0, 2500.0)) == (
        [],
        ["plaintext: relative 1 -> 0.8, -20%", "plaintext: own 2500 -> 2000, -20%"],
    )


def test_a_load_that_is_not_pinned_is_a_failure() -> None:
    assert len(guard.compare(numbers(1.0, 2500.0), {})[0]) == 2


def test_numbers_are_pinned_for_every_load_and_both_twins() -> None:
    pinned = json.loads(guard.PINNED.read_text("utf-8"))
    assert {f"CPython 3.{minor} x86_64" for minor in (11, 12, 13)} <= set(pinned)
    for version, twins in pinned.items():
        assert set(twins) == {"c", "py"}, version
        for loads in twins.values():
            assert set(loads) == set(guard.LOADS)
            assert all(set(found) == {"total", "relative", "own"} for found in loads.values())
        assert all(found["own"] > 0 for found in twins["c"].values())
        assert all(found["own"] == 0 for found in twins["py"].values())


@pytest.mark.slow
@pytest.mark.skipif(PURE, reason="it measures both twins itself")
def test_a_slowed_copy_is_caught_and_a_repeat_is_not(tmp_path: Path) -> None:
    require("valgrind")
    shutil.copytree(ROOT / "armature", tmp_path / "armature", ignore=shutil.ignore_patterns("__pycache__"))
    before = guard.measure("c", tmp_path)
    # Another layout of memory, another seed of hashes: what two runs of the same code differ by.
    again = guard.measure("c", tmp_path, PYTHONHASHSEED="7", PADDING="x" * 4000)
    assert guard.compare(again, before) == ([], [])
    for name, found in again.items():
        assert found["relative"] == pytest.approx(before[name]["relative"], rel=0.05), name
    path = tmp_path / "armature" / "http" / "json.py"
    path.write_text(path.read_text("utf-8") + SLOW)
    worse, _ = guard.compare(guard.measure("c", tmp_path), before)
    assert [line.partition(":")[0] for line in worse] == ["json", "param"]
