"""Public names are sorted, exist, are documented, and resolve lazily from the facade."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import armature

PACKAGE = Path(armature.__file__).parent


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def declared(path: Path) -> list[str] | None:
    """The literal `__all__` of a source file."""
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = node.value  # type: ignore[union-attr]
            try:
                return list(ast.literal_eval(value))
            except ValueError:
                return None
    return None


def by_kind(name: str) -> tuple[int, str]:
    """The order of linters: constants, classes, functions."""
    bare = name.lstrip("_")
    return (0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2), name


DECLARING = [path for path in sources() if declared(path) is not None]


def name_of(path: Path) -> str:
    parts = ["armature", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", DECLARING, ids=name_of)
def test_all_is_sorted_and_true(path: Path) -> None:
    names = declared(path)
    assert names is not None
    assert names in (sorted(set(names)), sorted(set(names), key=by_kind))
    module = importlib.import_module(name_of(path))
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_module_says_what_it_is_for_and_annotates_lazily(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "a module opens with a docstring"
    statements = [node for node in tree.body if not isinstance(node, ast.Expr)]
    if statements:
        first = statements[0]
        assert isinstance(first, ast.ImportFrom)
        assert first.module == "__future__"


@pytest.mark.parametrize("name", armature.__all__)
def test_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(armature, name)
    assert name in dir(armature)
    if inspect.isclass(value) or inspect.isroutine(value):
        documentation = inspect.getdoc(value)
        assert documentation, f"armature.{name} has no docstring"
        first = documentation.split("\n\n")[0].strip()
        assert first.endswith((".", ":")), f"the docstring of armature.{name} opens with one sentence"


def test_star_import_gives_exactly_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from armature import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(armature.__all__)


def test_a_name_that_is_not_there_raises_as_any_module_does() -> None:
    with pytest.raises(AttributeError, match="module 'armature' has no attribute 'nonsense'"):
        armature.nonsense
    with pytest.raises(ImportError, match="nonsense"):
        exec("from armature import nonsense")


def test_the_facade_caches_what_it_resolved() -> None:
    code = "import armature; armature.App; assert 'App' in vars(armature)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_impl_says_which_twins_run() -> None:
    from armature import _impl

    assert armature.IMPL == _impl.IMPL
    assert armature.IMPL in ("c", "py")
