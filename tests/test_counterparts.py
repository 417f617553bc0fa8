"""A test whose counterpart is missing: skipped on a developer's machine, failed where it has to run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import counterparts
from counterparts import require, require_module

ABSENT = "no-program-of-this-name"


@pytest.fixture(autouse=True)
def _plain_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("ARMATURE_REQUIRE_TOOLS", raising=False)
    monkeypatch.setattr(counterparts, "_on_linux", lambda: True)


def ends(call: object, *arguments: str) -> str:
    try:
        call(*arguments)  # type: ignore[operator]
    except pytest.skip.Exception:
        return "skipped"
    except pytest.fail.Exception as failure:
        assert "tools/test" in str(failure)
        return "failed"
    return "ran"


def test_a_program_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARMATURE_REQUIRE_TOOLS", "1")
    program = tmp_path / ("present.exe" if sys.platform == "win32" else "present")
    shutil.copy(sys.executable, program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert require("present") == str(program)
    assert require(ABSENT, "present") == str(program)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such folder")
def test_a_server_that_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    daemon = tmp_path / "present"
    daemon.write_text("#!/bin/sh\n")
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(counterparts, "ADMINISTRATION", (str(tmp_path),))
    assert require("present") == str(daemon)


@pytest.mark.parametrize(
    ("environment", "program", "package"),
    [
        ({}, "skipped", "skipped"),
        ({"CI": ""}, "skipped", "skipped"),
        ({"CI": "true"}, "failed", "skipped"),
        ({"ARMATURE_REQUIRE_TOOLS": "1"}, "failed", "failed"),
        ({"ARMATURE_REQUIRE_TOOLS": "1", "CI": "true"}, "failed", "failed"),
        ({"ARMATURE_REQUIRE_TOOLS": "0", "CI": "true"}, "skipped", "skipped"),
        ({"ARMATURE_REQUIRE_TOOLS": "", "CI": "true"}, "failed", "skipped"),
    ],
)
def test_one_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], program: str, package: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ends(require, ABSENT) == program
    assert ends(require, ABSENT, ABSENT + "-either") == program
    assert ends(require_module, "no_package_of_this_name") == package


def test_ci_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counterparts, "_on_linux", lambda: False)
    monkeypatch.setenv("CI", "true")
    assert ends(require, ABSENT) == "skipped"
    monkeypatch.setenv("ARMATURE_REQUIRE_TOOLS", "1")
    assert ends(require, ABSENT) == "failed"


def test_packages() -> None:
    assert require_module("pytest") is pytest


def test_no_test_decides_for_itself() -> None:
    """Every look for a program, and every optional package, goes through the helper."""
    here = Path(__file__).parent
    own = {Path(__file__).name, "counterparts.py"}
    found = [
        f"{path.relative_to(here)}: {line.strip()}"
        for path in sorted(here.rglob("*.py"))
        if path.name not in own
        for line in path.read_text("utf-8").splitlines()
        if "importorskip" in line or ("which(" in line and "skip" in line)
    ]
    assert found == []
