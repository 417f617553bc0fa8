"""The switches of `python -m benchmarks ablate`: the list, the compiled sources, the build and the docs say the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the benchmarks measure on Unix alone", allow_module_level=True)

from benchmarks.http import ablate
from benchmarks.http.loads import LOADS, MORE_LOADS
from benchmarks.http.switches import SWITCHES, Switch, macros

ROOT = Path(__file__).parent.parent.parent
SPEEDUPS = ROOT / "armature" / "_speedups"
COMPILED = [switch for switch in SWITCHES.values() if switch.compiled and not switch.name.startswith("OPS-")]
DEFINED = SPEEDUPS / "switches.pxd"


def sources() -> dict[Path, str]:
    return {path: path.read_text("utf-8") for path in sorted(SPEEDUPS.glob("*.p[yx][xd]"))}


def test_every_constant_has_its_line_in_the_list_and_the_other_way_round() -> None:
    assert macros() == {switch.macro for switch in COMPILED}


@pytest.mark.parametrize("switch", COMPILED, ids=lambda switch: switch.name)
def test_every_constant_is_asked_where_it_is_imported(switch: Switch) -> None:
    constant = switch.macro.removeprefix("ARMATURE_")
    asking = 0
    for path, text in sources().items():
        if path == DEFINED:
            continue
        body = re.sub(r"^from .* cimport .*$", "", text, flags=re.MULTILINE)
        body = re.sub(rf"#\s*(?:ifndef|define) {switch.macro}\b.*", "", body)
        used = re.search(rf"\b(?:ARMATURE_)?{constant}\b", body) is not None
        imported = re.search(rf"^from armature\._speedups\.switches cimport .*\b{constant}\b", text, re.MULTILINE)
        assert used or not imported, f"{path.name} imports {constant} and does not ask it"
        asking += used
    assert asking, f"no compiled source asks {constant}"


def test_the_constants_are_declared_as_they_are_defined() -> None:
    text = DEFINED.read_text("utf-8")
    declared = re.findall(r'^    const bint (\w+) "ARMATURE_(\w+)"$', text, re.MULTILINE)
    assert all(name == macro for name, macro in declared)
    assert [f"ARMATURE_{name}" for name, _ in declared] == re.findall(r"#ifndef (\w+)", text)
    assert re.findall(r"#ifndef (\w+)", text) == re.findall(r"#define (\w+) 1", text)


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=lambda switch: switch.name)
def test_a_switch_names_a_row_and_loads_that_exist(switch: Switch) -> None:
    assert re.fullmatch(r"(?:HOT|RUN|OPS)-\d\d(?:-[a-z]+)?", switch.name)
    assert switch.loads
    for load in switch.loads:
        assert (LOADS | MORE_LOADS)[load].kind == "requests"
    assert switch.on() == {} or switch.given


def test_the_docs_list_every_switch() -> None:
    page = (ROOT / "docs" / "internals" / "benchmarks.md").read_text("utf-8")
    rows = re.findall(r"^\| `((?:HOT|RUN|OPS)-[\w-]+)` \| (.*?) \|", page, re.MULTILINE)
    assert rows == [(switch.name, switch.title) for switch in SWITCHES.values()]


def build(without: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARMATURE_")}
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env=environ | {"ARMATURE_WITHOUT": without},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_build_knows_the_same_switches() -> None:
    result = build("HOT-99", "--version")
    assert result.returncode != 0
    listed = re.search(r"there is no switch HOT-99; there are (.*)", result.stderr)
    assert listed is not None, result.stderr
    assert set(listed[1].split(", ")) == {switch.name for switch in SWITCHES.values() if switch.compiled}


def test_a_build_with_switches_off_does_not_replace_the_extensions_of_the_checkout(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in SPEEDUPS.iterdir()}
    # The sources are not translated: the refusal comes first, and the copy has none.
    (tmp_path / "armature" / "_speedups").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "armature" / "__init__.py").write_text('__version__ = "0"\n')
    (tmp_path / "armature" / "_speedups" / "switches.pxd").write_bytes(DEFINED.read_bytes())
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=os.environ | {"ARMATURE_WITHOUT": "HOT-02", "ARMATURE_PURE": "0", "ARMATURE_REQUIRE_SPEEDUPS": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode != 0
    assert "must not replace" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in SPEEDUPS.iterdir()} == before


# The figures.


def delta(
    unit: str, on: list[float], off: list[float], switch: str = "HOT-14", load: str = "plaintext"
) -> ablate.Delta:
    return ablate.Delta(switch, load, unit, on, off)


def test_a_difference_beyond_the_noise_is_one() -> None:
    assert delta(ablate.INSTRUCTIONS, [6000.0], [6300.0]).verdict() == "saves"
    assert delta(ablate.INSTRUCTIONS, [6000.0], [6005.0]).verdict() == "nothing shown"
    assert delta(ablate.INSTRUCTIONS, [6000.0], [5000.0]).verdict() == "costs"
    assert delta(ablate.CALLS, [2.1], [3.0]).verdict() == "saves"
    assert delta(ablate.TIME, [4.0, 4.1, 4.2], [5.0, 5.2, 5.1]).verdict() == "saves"
    assert delta(ablate.TIME, [4.0, 5.1, 4.2], [5.0, 4.2, 4.1]).verdict() == "nothing shown"


def test_what_saves_nothing_anywhere_is_named() -> None:
    saving = delta(ablate.INSTRUCTIONS, [10.0], [20.0])
    nothing = delta(ablate.TIME, [4.0], [4.0])
    useless = delta(ablate.INSTRUCTIONS, [10.0], [10.0], "HOT-10", "browser")
    assert ablate.silent([saving, nothing, useless]) == ["HOT-10"]
    assert "Nothing gained is shown for: HOT-10." in ablate.table([saving, nothing, useless])


def test_new_figures_take_the_places_of_old_ones(tmp_path: Path) -> None:
    old = [delta(ablate.TIME, [1.0], [2.0]), delta(ablate.INSTRUCTIONS, [1.0], [2.0])]
    new = [delta(ablate.TIME, [3.0], [4.0])]
    assert ablate.merged(old, new) == [new[0], old[1]]
    path = tmp_path / "ablate.json"
    assert ablate.load_deltas(path) == []
