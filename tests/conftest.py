"""Options and markers of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _convertors_of_the_test_alone() -> Iterator[None]:
    """Convertors that a test registers are known to the whole process, and to error messages that list them."""
    from armature.routing import convertors

    before = dict(convertors._REGISTRY)
    yield
    convertors._REGISTRY.clear()
    convertors._REGISTRY.update(before)
    convertors._PLAIN.clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pure", action="store_true", help="leave out the tests of the compiled twins")
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes seconds; skipped unless --run-slow is given")
    config.addinivalue_line("markers", "fuzz: makes up input for minutes; deselected unless asked for with -m fuzz")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        skip = pytest.mark.skip(reason="slow: give --run-slow to run it")
        for item in items:
            if item.get_closest_marker("slow") is not None:
                item.add_marker(skip)
    if "fuzz" not in config.option.markexpr:
        fuzz = [item for item in items if item.get_closest_marker("fuzz") is not None]
        if fuzz:
            items[:] = [item for item in items if item.get_closest_marker("fuzz") is None]
            config.hook.pytest_deselected(items=fuzz)
