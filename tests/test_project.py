"""The project's own files: no generated sources, sound workflows, the wheels that are promised, true metadata."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

import armature

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
IGNORED = {".git", ".venv", "build", "dist", "wheelhouse", "site", ".peers", "target", "__pycache__", ".ruff_cache"}
IGNORED |= {".mypy_cache", ".pytest_cache", ".hypothesis", ".benchmarks"}


def files(folder: Path = ROOT) -> Iterator[Path]:
    """The files of the project, without what builds and tests leave behind."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in IGNORED and not entry.name.endswith(".egg-info"):
                    yield from files(Path(entry.path))
            else:
                yield Path(entry.path)


def load_tool(name: str) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_generated_c_lies_among_the_sources() -> None:
    generated = [path for path in files(ROOT / "armature") if path.suffix in (".c", ".cpp", ".h")]
    annotated = [path for path in files(ROOT / "armature" / "_speedups") if path.suffix == ".html"]
    assert generated + annotated == []


def test_no_file_names_a_machine() -> None:
    """Paths of somebody's home, of a container, or of a package index are not the project's."""
    pattern = re.compile(rb"/(?:home|Users|root|workspace)/\w|/opt/\w+/|pypi\.[a-z]+\.(?:internal|local|corp)")
    text = {".py", ".pyx", ".pxd", ".md", ".toml", ".yml", ".cfg", ".sh", ".in", ""}
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in files()
        if path.suffix in text and path.name != Path(__file__).name
        for match in pattern.finditer(path.read_bytes())
    ]
    assert found == []


def test_no_file_puts_work_off() -> None:
    pattern = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in files()
        if path.suffix in {".py", ".pyx", ".pxd", ".md", ".sh", ".yml", ".toml"}
        and path.name != Path(__file__).name
        and pattern.search(path.read_text("utf-8"))
    ]
    assert found == []


# ------------------------------------------------------------------------------------------------ news fragments


def test_news_fragments_are_well_formed() -> None:
    tool = load_tool("check_changes")
    assert [fault for path in tool.fragments(ROOT / "changes") for fault in tool.faults(path)] == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("feature.md", "Added it.", "is not named"),
        ("7.feat.md", "Added it.", "is none of"),
        ("7.feature.md", "", "is empty"),
        ("7.feature.md", "Adds it.", "past tense"),
        ("7.feature.md", "Added it", "full stop"),
        ("7.feature.md", "Added it.\n\n# More\n\nWords.", "heading"),
    ],
)
def test_a_bad_news_fragment_is_refused(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert any(fault in found for found in load_tool("check_changes").faults(path))


def test_fragments_make_a_section_of_the_changelog(tmp_path: Path) -> None:
    import datetime

    (tmp_path / "9.bugfix.md").write_text("Fixed that.\n")
    (tmp_path / "10.feature.md").write_text("Added this.\n")
    (tmp_path / "8.feature.md").write_text("Added it.\nIn two lines.\n")
    tool = load_tool("check_changes")
    assert tool.section(tool.fragments(tmp_path), "1.2.0", datetime.date(2026, 1, 2)) == (
        "## 1.2.0 (2026-01-02)\n\n### Features\n\n- Added it.\n  In two lines. (#8)\n- Added this. (#10)\n\n"
        "### Bug fixes\n\n- Fixed that. (#9)\n"
    )


def test_the_changelog_has_its_mark() -> None:
    assert load_tool("check_changes").MARK in (ROOT / "CHANGELOG.md").read_text("utf-8")


# ------------------------------------------------------------------------------------------------------ workflows


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflow_is_sound(path: Path) -> None:
    loaded = workflow(path.name)
    assert loaded["permissions"] == {"contents": "read"}
    jobs = loaded["jobs"]
    for name, job in jobs.items():
        assert set(job) >= {"runs-on", "steps"}, name
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs)
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
        for script in re.findall(r"(?:^|\s)((?:\.ci|tools)/[\w./-]+)", str(job["steps"])):
            assert (ROOT / script.rstrip(".")).exists(), script


PYTHONS = ["cp311", "cp312", "cp313", "cp314", "cp314t"]
PROMISED = {
    "linux": {
        "x86_64": ["manylinux_x86_64", "musllinux_x86_64"],
        "aarch64": ["manylinux_aarch64", "musllinux_aarch64"],
    },
    "macos": {"x86_64": ["macosx_x86_64"], "arm64": ["macosx_arm64"]},
    "windows": {"AMD64": ["win_amd64"], "ARM64": ["win_arm64"]},
}


@pytest.mark.parametrize("platform", PROMISED)
def test_cibuildwheel_builds_what_is_promised(platform: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    tags = [tag for tags in PROMISED[platform].values() for tag in tags]
    assert set(result.stdout.split()) == {f"{python}-{tag}" for python, tag in product(PYTHONS, tags)}


def test_the_wheels_workflow_covers_every_platform() -> None:
    rows = workflow("wheels.yml")["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    assert {(row["platform"], row["archs"]) for row in rows} == {
        (platform, arch) for platform, archs in PROMISED.items() for arch in archs
    }


# -------------------------------------------------------------------------------------------------------- metadata


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "armature.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+|\.dev\d+)?", armature.__version__)
    literals = [
        path.relative_to(ROOT).as_posix()
        for path in files(ROOT / "armature")
        if path.suffix == ".py" and re.search(r'^__version__\b.*= "', path.read_text("utf-8"), re.MULTILINE)
    ]
    assert literals == ["armature/__init__.py"]


def test_full_brings_every_extra_of_the_running_program() -> None:
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    inner = re.fullmatch(r"armature-framework\[([\w,-]+)\]", extras["full"][0])
    assert inner is not None
    assert set(inner[1].split(",")) == set(extras) - {"full", "test", "lint", "docs", "bench"}


def test_a_missing_dependency_names_an_extra_that_brings_it() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    core = " ".join(PROJECT["project"]["dependencies"])
    for path in files(ROOT / "armature"):
        if path.suffix != ".py":
            continue
        for package, extra in re.findall(r'MissingDependencyError\("([\w.-]+)", "([\w-]+)"\)', path.read_text("utf-8")):
            brought = " ".join(extras[extra])
            assert package in brought or package in core, f"{path.name}: {package} is not in the extra {extra}"


def test_supported_pythons_agree() -> None:
    classifiers = PROJECT["project"]["classifiers"]
    versions = {name.rsplit(" ", 1)[1] for name in classifiers if re.search(r":: 3\.\d+$", name)}
    assert versions == {f"3.{name[3:]}" for name in PYTHONS if not name.endswith("t")}
    assert set(workflow("test.yml")["jobs"]["suite"]["strategy"]["matrix"]["python"]) == versions


def test_the_drawing_of_the_state_table_is_up_to_date() -> None:
    tool = load_tool("draw_states")
    text = tool.PAGE.read_text("utf-8")
    assert text == tool.page_with_drawing(text), "run: python tools/draw_states.py"


@pytest.mark.parametrize("name", ["tools/run", "tools/test", "tools/check-twins", "tools/prepare.sh", ".ci/run"])
def test_script_is_sound_shell(name: str) -> None:
    path = ROOT / name
    subprocess.run(["sh", "-n", str(path)], check=True, timeout=30)
    assert name.endswith(".sh") or os.access(path, os.X_OK)


@pytest.mark.parametrize("name", ["importtime.py"])
def test_tool_runs(name: str) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / name)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "armature" in result.stdout
