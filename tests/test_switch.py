"""The choice between the twins: one subprocess for every combination of flags and of what is installed."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "armature"
SUFFIXES = tuple(importlib.machinery.EXTENSION_SUFFIXES)
#: The compiled modules that have a twin.
TWINS = sorted(path.stem for path in (PACKAGE / "_pure").glob("*.py") if path.stem != "__init__")
TELL = "import armature._impl as i; print(i.IMPL, i.PURE, i.connection.__name__.split('.')[1])"


def extensions() -> list[Path]:
    return sorted(path for path in (PACKAGE / "_speedups").iterdir() if path.name.endswith(SUFFIXES))


def is_compiled() -> bool:
    stems = {path.name.split(".")[0] for path in extensions()}
    wanted = {path.stem for path in (PACKAGE / "_speedups").glob("*.pyx")}
    return bool(wanted) and stems >= wanted


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A copy of the package without its compiled room."""
    ignore = shutil.ignore_patterns("__pycache__", *("*" + suffix for suffix in SUFFIXES))
    shutil.copytree(PACKAGE, tmp_path / "armature", ignore=ignore)
    return tmp_path


@pytest.fixture
def compiled_installation(installation: Path) -> Path:
    if not is_compiled():
        if os.environ.get("ARMATURE_PURE", "") not in ("", "0"):
            pytest.skip("nothing is compiled here, and the pure twins were asked for")
        pytest.fail("the compiled twins are not built: python setup.py build_ext --inplace")
    for path in extensions():
        shutil.copy2(path, installation / "armature" / "_speedups")
    return installation


def run(where: Path, code: str = TELL, **flags: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARMATURE_")}
    environment.pop("PYTHONPATH", None)
    # -I would hide the copy; -P and the path set by hand keep the checkout out.
    prelude = f"import sys; sys.path.insert(0, {str(where)!r})\n"
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", prelude + code],
        env={**environment, **flags},
        cwd=where,
        capture_output=True,
        text=True,
        timeout=60,
    )


def chosen(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


PY = "py True _pure"
C = "c False _speedups"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, C),
        ({"ARMATURE_PURE": ""}, C),
        ({"ARMATURE_PURE": "0"}, C),
        ({"ARMATURE_REQUIRE_SPEEDUPS": "1"}, C),
        ({"ARMATURE_REQUIRE_SPEEDUPS": "1", "ARMATURE_PURE": "0"}, C),
        ({"ARMATURE_REQUIRE_SPEEDUPS": "0"}, C),
        ({"ARMATURE_PURE": "1"}, PY),
        ({"ARMATURE_PURE": "yes"}, PY),
        ({"ARMATURE_PURE": "1", "ARMATURE_REQUIRE_SPEEDUPS": "0"}, PY),
    ],
    ids=str,
)
def test_flags_choose_where_both_rooms_are_there(
    compiled_installation: Path, flags: dict[str, str], expected: str
) -> None:
    assert chosen(run(compiled_installation, **flags)) == expected


@pytest.mark.parametrize("flags", [{}, {"ARMATURE_PURE": "1"}, {"ARMATURE_REQUIRE_SPEEDUPS": "0"}], ids=str)
def test_an_absent_compiled_room_falls_back(installation: Path, flags: dict[str, str]) -> None:
    assert chosen(run(installation, **flags)) == PY


def test_the_reason_of_a_fallback_is_kept(installation: Path) -> None:
    result = run(installation, "import armature._impl as i; print(i.REASON)")
    assert "not installed" in chosen(result)


def test_a_required_room_that_is_absent_is_an_error(installation: Path) -> None:
    result = run(installation, ARMATURE_REQUIRE_SPEEDUPS="1")
    assert result.returncode != 0
    assert "ImportError: ARMATURE_REQUIRE_SPEEDUPS is set, but the compiled twins are not installed" in result.stderr


@pytest.mark.parametrize("compiled", [False, True])
def test_contradicting_flags_are_an_error(request: pytest.FixtureRequest, compiled: bool) -> None:
    where = request.getfixturevalue("compiled_installation" if compiled else "installation")
    result = run(where, ARMATURE_PURE="1", ARMATURE_REQUIRE_SPEEDUPS="1")
    assert result.returncode != 0
    assert "contradict each other" in result.stderr


@pytest.mark.parametrize("flags", [{}, {"ARMATURE_REQUIRE_SPEEDUPS": "1"}], ids=str)
@pytest.mark.parametrize("stem", TWINS)
def test_a_broken_extension_is_an_error_and_never_a_fallback(
    installation: Path, flags: dict[str, str], stem: str
) -> None:
    for path in (PACKAGE / "_speedups").glob("*.pyx"):
        broken = installation / "armature" / "_speedups" / (path.stem + SUFFIXES[0])
        if path.stem == stem or not is_compiled():
            broken.write_bytes(b"this is no library")
        else:
            shutil.copy2(next(each for each in extensions() if each.name.startswith(stem_prefix(path))), broken)
    result = run(installation, **flags)
    assert result.returncode != 0
    assert "ImportError" in result.stderr


def stem_prefix(path: Path) -> str:
    return path.stem + "."


@pytest.mark.parametrize("stem", TWINS)
def test_a_partial_compiled_room_is_an_error(compiled_installation: Path, stem: str) -> None:
    for path in (compiled_installation / "armature" / "_speedups").glob(stem + ".*"):
        if path.name.endswith(SUFFIXES):
            path.unlink()
    result = run(compiled_installation)
    assert result.returncode != 0
    assert "ImportError" in result.stderr or "ModuleNotFoundError" in result.stderr


def test_a_missing_reactor_is_an_error_where_it_is_asked_for(compiled_installation: Path) -> None:
    """It has no twin, and is imported by the first server; a server without it would be another one than was built."""
    for path in (compiled_installation / "armature" / "_speedups").glob("reactor.*"):
        if path.name.endswith(SUFFIXES):
            path.unlink()
    result = run(compiled_installation, "from armature._impl import load_reactor; load_reactor()")
    assert result.returncode != 0
    assert "ModuleNotFoundError" in result.stderr


def test_a_missing_dependency_of_the_compiled_room_is_not_taken_for_its_absence(installation: Path) -> None:
    (installation / "armature" / "_speedups" / "connection.py").write_text("import a_module_that_nobody_has\n")
    result = run(installation)
    assert result.returncode != 0
    assert "ModuleNotFoundError: No module named 'a_module_that_nobody_has'" in result.stderr


def test_an_interpreter_other_than_cpython_runs_the_pure_twins(compiled_installation: Path) -> None:
    elsewhere = "import platform; platform.python_implementation = lambda: 'PyPy'\n"
    assert chosen(run(compiled_installation, elsewhere + TELL)) == PY
    result = run(compiled_installation, elsewhere + TELL, ARMATURE_REQUIRE_SPEEDUPS="1")
    assert result.returncode != 0
    assert "need CPython" in result.stderr


def test_an_answer_is_the_same_from_both(compiled_installation: Path) -> None:
    code = (
        "from armature.testing import TestClient\n"
        "from armature import App\n"
        "app = App()\n"
        "@app.get('/items/{n}')\n"
        "def item(n: int, q: str = '-'): return {'n': n, 'q': q}\n"
        "with TestClient(app) as client:\n"
        "    for target in ('/items/7?q=a%20b', '/items/x', '/nothing'):\n"
        "        answer = client.get(target)\n"
        "        print(answer.status_code, answer.content)\n"
    )
    answers = {chosen(run(compiled_installation, code, ARMATURE_PURE=pure)) for pure in ("0", "1")}
    assert len(answers) == 1
    assert "200" in answers.pop()
