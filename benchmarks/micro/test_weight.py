"""What every dict or list that a handler returns is asked: whether it is large."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from armature._spec.limits import JSON_LARGE

USER = {"id": 7, "name": "Ada", "email": "ada@example.org", "active": True, "roles": ["admin", "author"], "score": 1.5}
VALUES = {
    "message": {"message": "Hello, World!"},
    "user": USER,
    "page of 50": {"count": 50, "items": [USER] * 50},
    "10,000 rows": [USER] * 10_000,
}


@pytest.mark.parametrize("value", VALUES)
def test_weigh(benchmark: Any, twin: Callable[[str], ModuleType], value: str) -> None:
    weigh, given = twin("weight").weigh, VALUES[value]
    assert (benchmark(lambda: weigh(given, JSON_LARGE)) == JSON_LARGE) is (value == "10,000 rows")


def test_fitting_of_500_rows(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    fitting, items = twin("weight").fitting, [USER] * 500
    assert benchmark(lambda: fitting(items, JSON_LARGE)) == 500
