"""JSON in slices: the bytes and the errors of `dumps`, turns for the others, and nothing held longer than needed."""

from __future__ import annotations

import asyncio
import collections
import copy
import dataclasses
import datetime as dt
import enum
import importlib.util
import itertools
import pickle
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from armature._spec.limits import JSON_LARGE, JSON_SLICE_BYTES
from armature.http import json, json_large
from armature.http.json import is_large
from armature.http.json_large import SegmentedResponse, encode_large, slices

ENGINES = [json.engine(name) for name in json.ENGINES if name == "stdlib" or importlib.util.find_spec(name)]
every_engine = pytest.mark.parametrize("engine", ENGINES, ids=[engine.name for engine in ENGINES])


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: int
    b: Any


class Rows(list[Any]):
    pass


@dataclasses.dataclass
class Item:
    name: Any


class Struct(msgspec.Struct):
    rows: list[int]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from([Level.LOW, dt.datetime(2000, 1, 2), uuid.UUID(int=5), b"bytes", {1, 2}, Struct([1, 2])])
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.integers(-5, 300) | st.none() | st.booleans()
values = st.recursive(
    scalars,
    lambda parts: (
        st.lists(parts)
        | st.lists(parts).map(tuple)
        | st.lists(parts).map(Rows)
        | st.lists(parts).map(collections.deque)
        | st.dictionaries(keys, parts)
        | st.dictionaries(keys, parts).map(collections.OrderedDict)
        | st.builds(Item, parts)
        | st.builds(Pair, st.integers(), parts)
    ),
    max_leaves=80,
)


@every_engine
@given(value=values, most=st.integers(1, 60), size=st.integers(1, 200))
@example(value="é" * 200, most=2, size=1)
@example(value={"a": {}, "b": [], "": ()}, most=1, size=1)
@settings(max_examples=100, deadline=None)
def test_slices_make_what_dumps_makes(engine: json.Engine, value: Any, most: int, size: int) -> None:
    assert b"".join(slices(value, engine.dumps, most, size)) == engine.dumps(value)


@every_engine
def test_text_that_is_cut(engine: json.Engine) -> None:
    text = ('a"\\\n\x00é€😀' * 50_000)[1:]
    value = {"text": text, "texts": [text, text]}
    assert b"".join(slices(value, engine.dumps)) == engine.dumps(value)


def deep(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [0, {"a b": value, "c": 1}]
    return value


unencodable = st.sampled_from([object(), 1j, "\ud800", {(1, 2): 3}, {"a": {"b c": object()}}, [[object()]]])


@every_engine
@given(
    before=st.lists(values, max_size=5),
    bad=unencodable,
    after=st.lists(values, max_size=3),
    levels=st.integers(0, 3),
    most=st.integers(1, 60),
    size=st.integers(1, 200),
)
@settings(max_examples=40, deadline=None)
def test_errors_are_those_of_dumps(
    engine: json.Engine, before: list[Any], bad: Any, after: list[Any], levels: int, most: int, size: int
) -> None:
    value = deep([*before, bad, *after], levels)
    with pytest.raises(TypeError) as whole:
        engine.dumps(value)
    with pytest.raises(TypeError) as sliced:
        list(slices(value, engine.dumps, most, size))
    assert str(sliced.value) == str(whole.value)


@every_engine
def test_the_path_counts_from_the_beginning(engine: json.Engine) -> None:
    rows = [{"id": number, "tags": ["a", "b"]} for number in range(20_000)]
    rows[17_001]["tags"][1] = object()  # type: ignore[index]
    with pytest.raises(TypeError, match=r"^\$\.data\[17001\]\.tags\[1\]: cannot encode <class 'object'>"):
        list(slices({"data": rows}, engine.dumps))


def test_a_list_that_holds_itself_is_refused() -> None:
    rows: list[Any] = [0] * JSON_LARGE
    rows.append(rows)
    with pytest.raises(TypeError, match="circular reference"):
        list(slices(rows))


@pytest.mark.parametrize(
    ("value", "large"),
    [
        ({"message": "Hello"}, False),
        ([0] * (JSON_LARGE - 2), False),
        ([0] * JSON_LARGE, True),
        ({"data": {"items": [{"id": 1, "name": "x"}] * 6000}}, True),
        ({str(number): number for number in range(JSON_LARGE)}, True),
        ("x" * 2**21, True),
        ({"content": "x" * 2**21}, True),
        ([Item("a")] * 3000, True),
        ([Item("a")] * 1000, False),
    ],
    ids=lambda item: "",
)
def test_what_is_large(value: Any, large: bool) -> None:
    assert is_large(value) is large


async def turns_during(work: Any) -> tuple[Any, int]:
    """Await something beside a task that wants every turn of the loop; tell how many it got."""
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(tick())
    try:
        return await work, turns
    finally:
        task.cancel()


SHAPES: dict[str, Callable[[], Any]] = {
    "numbers": lambda: list(range(200_000)),
    "rows": lambda: [{"id": number, "name": f"number {number}"} for number in range(30_000)],
    "page": lambda: {"count": 1, "page": {"items": [{"id": number, "tags": ["a"]} for number in range(30_000)]}},
    "dict": lambda: {f"key {number}": [number] for number in range(50_000)},
    "heavy items": lambda: [{"id": number, "cells": list(range(5_000))} for number in range(40)],
    "one heavy item": lambda: [1, 2, list(range(150_000)), 3],
    "text": lambda: {"text": "0123456789" * 100_000},
    "models": lambda: [Item(number) for number in range(20_000)],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_others_get_their_turns(shape: str) -> None:
    """HOT-33: no slice is longer than a few times the size aimed at, and behind each there is a turn."""
    value = SHAPES[shape]()
    whole = json.dumps(value)
    segments, turns = asyncio.run(turns_during(encode_large(value)))
    assert b"".join(segments) == whole
    assert max(map(len, segments)) <= 3 * JSON_SLICE_BYTES
    assert turns >= len(segments) - 1 >= len(whole) // (3 * JSON_SLICE_BYTES)


def test_what_nobody_else_holds_is_let_go_of_step_by_step() -> None:
    """Freeing a million objects in one go would stop the loop as encoding them would."""
    count = 5_000
    left = [count]
    living: list[weakref.ref[Item]] = []

    def make() -> list[Item]:
        items = [Item(number) for number in range(count)]
        living.extend(map(weakref.ref, items))
        return items

    async def watch() -> None:
        encoding = asyncio.ensure_future(encode_large(make()))
        while not encoding.done():
            await asyncio.sleep(0)
            left.append(sum(1 for reference in living if reference() is not None))
        await encoding

    asyncio.run(watch())
    assert left[-1] == 0
    assert max(before - after for before, after in itertools.pairwise(left)) <= count // 4


def step_through(value: Any, change: Callable[[], None]) -> Any:
    """Encode a value that is changed after each piece; what comes out must be JSON."""
    found = []
    for piece in slices(value, json.dumps, 200, 1000):
        found.append(piece)
        change()
    return json.loads(b"".join(found))


def test_a_list_that_changes_meanwhile() -> None:
    rows = list(range(50_000))
    assert step_through(rows, lambda: rows.append(0)) == list(range(50_000))
    rows = list(range(50_000))
    assert set(step_through(rows, lambda: rows.clear())) <= set(range(50_000))


def test_a_dict_that_changes_meanwhile() -> None:
    rows = dict.fromkeys(map(str, range(50_000)), 0)
    new: Iterator[str] = iter(map(str, range(100_000, 200_000)))
    found = step_through(rows, lambda: rows.update({next(new): 1}))
    assert list(found)[:50_000] == list(map(str, range(50_000)))
    rows = dict.fromkeys(map(str, range(50_000)), 0)
    assert step_through(rows, lambda: rows.clear()) == {}
    few = dict.fromkeys(map(str, range(5_000)), 0)
    assert step_through(few, lambda: few.clear()) == dict.fromkeys(map(str, range(5_000)), 0)


def test_a_segmented_response_is_whole_for_whoever_asks() -> None:
    def make() -> SegmentedResponse:
        return SegmentedResponse.of([b"[1,", b"2]"], 201, "application/json")

    response = make()
    assert (response.status, response.content_type, response.headers["content-length"]) == (
        201,
        "application/json",
        "5",
    )
    assert response.stream == [b"[1,", b"2]"]
    assert response.body == b"[1,2]"
    assert response.stream is None
    assert "content-length" not in response.headers
    assert response.body == b"[1,2]"

    response = make()
    response.body = b"other"
    assert (response.stream, response.body, "content-length" in response.headers) == (None, b"other", False)

    assert make().with_etag().headers["etag"] == json_large.HttpResponse(b"[1,2]").with_etag().headers["etag"]
    assert make().with_etag("own").stream is not None
    assert copy.copy(make()).body == pickle.loads(pickle.dumps(make())).body == b"[1,2]"
    # A stream that took the segments' place is none of its business.
    response = make()
    response.stream = iter([b"x"])
    assert response.body == b""
