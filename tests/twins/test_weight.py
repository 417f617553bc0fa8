"""The twins that estimate how much JSON a value makes."""

from __future__ import annotations

import collections
import enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


class Level(enum.IntEnum):
    LOW = 1


class Rows(list[Any]):
    pass


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        raise AssertionError("asked")


class Strange(metaclass=Unhashable):
    def __len__(self) -> int:
        raise AssertionError("asked")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("asked")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.binary(max_size=3)
others = st.sampled_from([Level.LOW, Rows([1] * 50), collections.OrderedDict(a=1), object, ..., {1, 2}])
values = st.recursive(
    scalars | others,
    lambda parts: st.lists(parts) | st.lists(parts).map(tuple) | st.dictionaries(st.text(max_size=3), parts),
    max_leaves=60,
)


@given(values, st.integers(0, 500))
@settings(max_examples=300, deadline=None)
def test_weights_are_equal(both: Any, value: Any, most: int) -> None:
    found = [room.weight.weigh(value, most) for room in both]
    assert found[0] == found[1]
    assert found[0] <= most
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    assert both.py.weight.fitting(items, most) == both.c.weight.fitting(items, most)


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (None, 1),
        (True, 1),
        (2**70, 1),
        (1.5, 1),
        ("", 1),
        ("x" * 63, 1),
        ("x" * 6400, 101),
        (b"", 8),
        (object(), 8),
        (Strange(), 8),
        (Level.LOW, 8),
        (Rows([1] * 50), 8),
        ([], 1),
        ((), 1),
        ({}, 1),
        ([0], 2),
        ([0] * 1000, 1001),
        ((0,) * 1000, 1001),
        ([object()] * 1000, 8001),
        ([0, *[[0] * 9] * 4, [0] * 9], 34),
        ({"a": 1, "b": "text"}, 3),
        ({"a": [0] * 10, "b": {"c": [0] * 10}}, 24),
        # Below the fourth level a container counts by its length.
        ([[[[[[[0] * 10]]]]]], 6),
        ({"a": {"b": {"c": {"d": {"e": 1, "f": [0] * 100}}}}}, 7),
    ],
    ids=lambda item: "",
)
def test_what_things_weigh(impl: Any, value: Any, weight: int) -> None:
    assert impl.weight.weigh(value, 10**6) == weight


def test_no_weight_is_above_the_bound_however_long_the_list(impl: Any) -> None:
    rows: list[Any] = [0] * 100_000
    for _ in range(6):
        rows = [rows] * 100_000
    assert impl.weight.weigh(rows, 2**30) == 2**30
    assert impl.weight.weigh({"a": rows, "b": rows}, 1000) == 1000


def test_how_many_items_fit(impl: Any) -> None:
    fitting = impl.weight.fitting
    assert fitting([0] * 10, 5) == 4
    assert fitting([0] * 10, 11) == 10
    assert fitting([0] * 10, 1) == 0
    assert fitting([[0] * 10, 0], 5) == 0
    assert fitting([0, 0, [0] * 10, 0], 5) == 2
    assert fitting([], 5) == 0


def test_a_container_that_holds_itself(impl: Any) -> None:
    rows: list[Any] = [0] * 10
    rows.append(rows)
    assert impl.weight.weigh(rows, 10**6) > 11
