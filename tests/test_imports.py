"""Every module imports alone without a warning, and importing Armature is light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "armature"
PURE = os.environ.get("ARMATURE_PURE", "") not in ("", "0")

#: What `import armature` may load beside the standard library.
FACADE = frozenset({"armature"})
#: What a first `App` may load: the rooms below it, none of the packages that serve a choice.
HEAVY = frozenset(
    {
        "aiohttp", "anyio", "attr", "attrs", "click", "h11", "http.server", "httptools", "jinja2",
        "multiprocessing", "numpy", "pandas", "pydantic", "sqlalchemy", "starlette", "tomllib", "unittest",
        "urllib.request", "uvicorn", "uvloop", "watchfiles", "xml",
    }
)  # fmt: skip


def modules() -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["armature", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts[-1] == "__main__":
            continue  # runs the command when imported
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    if not PURE:
        found += [f"armature._speedups.{path.stem}" for path in sorted((PACKAGE / "_speedups").glob("*.pyx"))]
    return found


def python(code: str, *options: str) -> str:
    result = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads into a fresh interpreter."""
    code = f"import sys, json; old = set(sys.modules)\n{statement}\nprint(json.dumps(sorted(set(sys.modules) - old)))"
    return set(json.loads(python(code)))


@pytest.mark.parametrize("module", modules())
def test_imports_alone_without_a_warning(module: str) -> None:
    python(f"import {module}", "-W", "error")


def test_import_of_the_facade_loads_nothing_else() -> None:
    loaded = loaded_by("import armature")
    foreign = {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names}
    assert foreign <= FACADE


def test_an_app_loads_nothing_that_serves_a_choice() -> None:
    loaded = loaded_by("from armature import App, HttpRequest, HttpResponse, Router; app = App()")
    assert {name for name in loaded if name in HEAVY} == set()


def test_type_hints_of_the_facade_do_not_load_the_server() -> None:
    loaded = loaded_by("from armature import App, HttpRequest, HttpResponse, Router")
    assert not any(name.startswith("armature.server") for name in loaded)


@pytest.mark.parametrize(
    ("statement", "budget"),
    [("import armature", 0.060), ("from armature import App, HttpRequest, HttpResponse, Router", 0.150)],
)
def test_import_stays_within_its_budget(statement: str, budget: float) -> None:
    code = f"from time import process_time as clock; start = clock()\n{statement}\nprint(clock() - start)"
    best = min(float(python(code)) for _ in range(5))  # a busy machine only ever adds
    assert best < budget
