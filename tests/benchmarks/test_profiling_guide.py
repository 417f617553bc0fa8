"""The commands of docs/guides/profiling.md that need a profiler, run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterparts import require
from documents import ROOT, blocks

PAGE = ROOT / "docs" / "guides" / "profiling.md"
COMMANDS = [
    block for block in blocks(PAGE) if block.directive == "skip" and __name__.rpartition(".")[2] in block.argument
]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere profilers need root, or are not there")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for block in blocks(PAGE):
        if block.directive == "file":
            (tmp_path / block.argument).write_text(block.text)
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        ["sh", "-e", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=100,
    )


def command_of(program: str) -> str:
    (found,) = [block.text for block in COMMANDS if block.text.startswith(program)]
    return found


def test_every_command_has_its_test() -> None:
    assert sorted(block.text.split()[0] for block in COMMANDS) == ["armature", "memray", "py-spy"]


def test_armature_bench_draws(folder: Path) -> None:
    result = run(command_of("armature").replace("armature", f"{sys.executable} -m armature", 1), folder)
    if result.returncode and "no flame graph: " in result.stderr:
        pytest.skip(f"profiling is not possible here: {result.stderr.strip()[:200]}")
    assert result.returncode == 0, result.stderr
    assert (folder / "flame.svg").read_text().startswith("<svg")


def test_py_spy_draws(folder: Path) -> None:
    require("py-spy")
    result = run(command_of("py-spy"), folder)
    if "Permission" in result.stderr or "permitted" in result.stderr:
        pytest.skip(f"profiling is not permitted here: {result.stderr.strip()[:200]}")
    assert result.returncode == 0, result.stderr
    assert "prices" in (folder / "profile.svg").read_text()


def test_memray_counts(folder: Path) -> None:
    require("memray")
    result = run(command_of("memray"), folder)
    assert result.returncode == 0, result.stderr
    assert "Total allocations" in result.stdout
    assert (folder / "memory.html").stat().st_size > 1000
