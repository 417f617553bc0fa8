"""Both twins for the tests here, which never ask `armature._impl` which one runs.

`impl` is one of the twins, by turns: `impl.router`, `impl.parser` and so on are its modules, imported when first
asked for. `both` is the pair, for tests that compare. If the compiled twins are missing, their half of the tests
fails; only `--pure` leaves it out.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import NamedTuple

import pytest

ROOMS = {"py": "armature._pure", "c": "armature._speedups"}


class Twins:
    """The modules of one of the two rooms, by their stems."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.compiled = name == "c"

    def __getattr__(self, stem: str) -> ModuleType:
        if stem.startswith("_") or importlib.util.find_spec(f"armature._pure.{stem}") is None:
            raise AttributeError(f"there is no twin {stem!r}")
        module = importlib.import_module(f"{ROOMS[self.name]}.{stem}")
        # The finder of a package prefers an extension; a stray .py beside it must not stand in for one.
        if self.compiled:
            assert not (module.__file__ or "").endswith(".py"), f"{module.__name__} is not compiled"
        setattr(self, stem, module)
        return module

    def __repr__(self) -> str:
        return self.name


class Both(NamedTuple):
    py: Twins
    c: Twins


PY, C = Twins("py"), Twins("c")


# Of session scope, so that Hypothesis may use them.
@pytest.fixture(params=[PY, C], ids=repr, scope="session")
def impl(request: pytest.FixtureRequest) -> Twins:
    """One of the twins, by turns."""
    twins: Twins = request.param
    return twins


@pytest.fixture(scope="session")
def both() -> Both:
    """The pair of twins, for tests that compare them."""
    return Both(PY, C)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--pure"):
        return
    kept, left_out = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        compiled = callspec is not None and callspec.params.get("impl") is C
        (left_out if compiled or "both" in getattr(item, "fixturenames", ()) else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
