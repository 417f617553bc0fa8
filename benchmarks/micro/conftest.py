"""The fixtures of the micro-benchmarks: every one runs over both twins and says which it was."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from benchmarks.twins import twin as load_twin


@pytest.fixture(params=["py", "c"])
def impl(request: pytest.FixtureRequest) -> str:
    """Which twin; a compiled room that is missing fails, it does not skip."""
    return str(request.param)


@pytest.fixture
def twin(impl: str, benchmark: Any) -> Callable[[str], ModuleType]:
    """Return one of the twins by its stem."""
    benchmark.extra_info["impl"] = impl
    return lambda stem: load_twin(impl, stem)
