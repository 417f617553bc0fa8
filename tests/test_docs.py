"""Every code block of every page is executed; every page is reachable; every public name has its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import armature
from counterparts import require_module
from documents import ROOT, Page, blocks

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8").replace("!!python/name:", ""))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_of_the_page_run(page: Path, tmp_path: Path) -> None:
    assert (
        Page(page, tmp_path).run()
        == page.read_text("utf-8").count("\n```") // 2 + page.read_text("utf-8").count("\n    ```") // 2
    )


def test_few_blocks_are_skipped() -> None:
    skipped = [f"{name_of(page)}:{block.line}" for page in PAGES for block in blocks(page) if block.directive == "skip"]
    assert len(skipped) <= 12, skipped


def entries(tree: object) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    children = tree.values() if isinstance(tree, dict) else tree
    return [leaf for child in children for leaf in entries(child)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_navigation() -> None:
    listed = entries(CONFIG["nav"])
    assert len(listed) == len(set(listed))
    present = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    unlisted = {page for page in present if page not in listed and not page.startswith("internals/decisions/")}
    assert unlisted == set()
    assert set(listed) <= present


LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    broken = [target for target in LINK.findall(text) if not (page.parent / target).exists()]
    assert broken == []


def test_every_public_name_is_in_the_reference_once() -> None:
    text = "\n".join(path.read_text("utf-8") for path in sorted((DOCS / "reference").glob("*.md")))
    described = re.findall(r"^::: armature\.(\w+)$", text, re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(armature.__all__) - set(described) - {"IMPL", "__version__"} == set()


def test_the_site_builds(tmp_path: Path) -> None:
    require_module("mkdocstrings")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "index.html").exists()
