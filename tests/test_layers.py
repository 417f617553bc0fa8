"""Which room may import which: the map of docs/internals/architecture.md as data, held against every source file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "armature"

BASE = frozenset({"exceptions", "types", "_deprecate"})
CORE = BASE | {"_spec", "_impl", "_stats", "logs"}
HTTP = CORE | {"http"}

#: Room -> the rooms it may import from, beside itself. A room that is not here has no place yet: give it one.
ALLOWED: dict[str, frozenset[str]] = {
    # 0
    "exceptions": BASE,
    "types": BASE,
    "_deprecate": BASE,
    # 1 .. 3: only the switch sees the two rooms of the twins, and they do not see each other
    "_spec": BASE,
    "_pure": BASE | {"_spec"},
    "_speedups": BASE | {"_spec"},
    "_impl": BASE | {"_pure", "_speedups"},
    "_stats": BASE | {"_impl"},
    "logs": BASE | {"_spec"},
    # 4
    "http": CORE,
    "di": BASE,
    # 5
    "routing": HTTP,
    "websocket": HTTP,
    "stores": HTTP,
    # 6
    "server": HTTP | {"routing", "websocket", "stores"},
    "health": HTTP | {"routing"},
    "binding": HTTP | {"routing", "websocket", "stores"},
    "middleware": HTTP | {"routing", "websocket", "stores"},
    "security": HTTP | {"routing", "websocket", "stores"},
    # 7 .. 9
    "pipeline": HTTP | {"routing", "websocket", "stores", "binding"},
    "modules": BASE | {"di", "routing", "binding", "pipeline"},
    "openapi": BASE | {"http", "routing", "binding", "modules"},
}
#: 10: everything above except the server, which the app is handed.
ALLOWED["app"] = frozenset(ALLOWED) - {"server", "_pure", "_speedups"}
#: 11
ALLOWED["testing"] = (frozenset(ALLOWED) | {"server"}) - {"_pure", "_speedups"}
ALLOWED["cli"] = ALLOWED["testing"] | {"testing"}
ALLOWED["__main__"] = frozenset({"cli"})


def source_files(pattern: str) -> list[Path]:
    return sorted(path for path in PACKAGE.rglob(pattern) if "__pycache__" not in path.parts)


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def imports_of(nodes: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Every module a source imports at run time, at any depth, with its line."""
    for node in nodes:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            yield from imports_of(node.orelse)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "armature":
                yield from ((node.lineno, f"armature.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module
        else:
            for field in ("body", "orelse", "finalbody", "handlers", "cases"):
                for child in getattr(node, field, []):
                    inner = child.body if isinstance(child, (ast.ExceptHandler, ast.match_case)) else [child]
                    yield from imports_of(inner)


CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(armature[\w.]*)\s+c?import\s+(\w+)|c?import\s+(armature[\w.]*))", re.MULTILINE
)


def imports_of_cython(source: str) -> Iterator[tuple[int, str]]:
    for match in CYTHON_IMPORT.finditer(source):
        module = match[1] or match[3]
        if module == "armature":
            module = f"armature.{match[2]}"
        yield source.count("\n", 0, match.start()) + 1, module


def faults(path: Path, imports: Iterator[tuple[int, str]]) -> list[str]:
    room = room_of(path)
    found = []
    for line, module in imports:
        where = f"{path.relative_to(ROOT)}:{line}"
        if module.startswith("."):
            found.append(f"{where}: relative import {module}")
        if module in ("armature", "armature.__version__") or not module.startswith("armature."):
            continue
        target = module.split(".")[1]
        if target != room and target not in ALLOWED[room]:
            found.append(f"{where}: {room} must not import {target} ({module})")
    return found


@pytest.mark.parametrize("path", source_files("*.py"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_python_source_imports_only_from_the_rooms_below(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        pytest.skip("the facade resolves its names lazily from every room")
    assert room_of(path) in ALLOWED, f"give the room {room_of(path)!r} a place in this file's map"
    tree = ast.parse(path.read_text("utf-8"))
    assert faults(path, imports_of(tree.body)) == []


@pytest.mark.parametrize("path", source_files("*.py[xd]"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_cython_source_imports_only_from_the_rooms_below(path: Path) -> None:
    assert room_of(path) == "_speedups", "Cython lives in _speedups"
    assert faults(path, imports_of_cython(path.read_text("utf-8"))) == []


def test_only_the_switch_reads_its_variables() -> None:
    readers = {
        path.relative_to(PACKAGE).as_posix()
        for path in source_files("*.py")
        if re.search(r"environ\b[^\n]*ARMATURE_(PURE|REQUIRE_SPEEDUPS)", path.read_text("utf-8"))
    }
    assert readers <= {"_impl.py"}


def test_the_twins_have_the_same_stems() -> None:
    pure = {path.stem for path in (PACKAGE / "_pure").glob("*.py")} - {"__init__"}
    compiled = {path.stem for path in (PACKAGE / "_speedups").glob("*.pyx")}
    # The reactor stands in for the loop's own transports, and has no twin.
    assert pure == compiled - {"reactor"}


def test_no_source_file_asks_to_be_split() -> None:
    """Past about 800 lines a file is a request to split."""
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in [*source_files("*.py"), *source_files("*.pyx")]
        if (lines := path.read_text("utf-8").count("\n")) > 900
    }
    assert long == {}
