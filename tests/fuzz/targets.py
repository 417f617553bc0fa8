"""What is fuzzed: functions of bytes that raise AssertionError when the twins differ or a promise is broken.

Each takes the rooms to compare, so that it also runs on the pure twins alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from twins.harness import Harness
from twins.test_message import outcome
from twins.test_parser import parse_chunked, parse_head

__all__ = ["TARGETS"]

Target = Callable[[Sequence[Any], bytes], None]


def _cuts(data: bytes, seed: int) -> list[int]:
    """A few cuts that depend on one byte, so that a fuzzer can move them."""
    step = seed % 17 + 1
    return list(range(step, len(data), step)) if seed % 3 else []


def head(rooms: Sequence[Any], data: bytes) -> None:
    """The head parser: equal attributes or equal errors, whatever the cut."""
    if not data:
        return
    seed, data = data[0], data[1:]
    limits = {"line_limit": 64, "head_limit": 256, "count_limit": 6} if seed & 1 else {}
    results = [
        parse_head(room.parser.HeadParser(**limits), data, cuts) for room in rooms for cuts in ([], _cuts(data, seed))
    ]
    assert results == [results[0]] * len(results)


def chunked(rooms: Sequence[Any], data: bytes) -> None:
    """The parser of chunked bodies, likewise."""
    if not data:
        return
    seed, data = data[0], data[1:]
    limits = {"extension_limit": 16, "trailer_limit": 40} if seed & 1 else {}
    results = [
        parse_chunked(room.chunked.ChunkedParser(**limits), data, cuts)
        for room in rooms
        for cuts in ([], _cuts(data, seed))
    ]
    assert results == [results[0]] * len(results)


def connection(rooms: Sequence[Any], data: bytes) -> None:
    """A whole connection: equal bytes on the wire, equal states, no error that escapes."""
    if not data:
        return
    seed, data = data[0], data[1:]
    cuts = [0, *_cuts(data, seed), len(data)]
    shown = []
    for room in rooms:
        harness = Harness(room, high_water=32)
        for start, end in itertools.pairwise(cuts):
            if start < end:
                harness.feed(data[start:end], into_buffer=bool(seed & 1))
            if seed & 8:
                harness.open_gate()
        for _ in range(8):
            harness.open_gate()
        shown.append(harness.describe())
        harness.close()
    assert shown == [shown[0]] * len(shown)
    assert shown[0]["errors"] == shown[0]["complaints"] == []


def field(rooms: Sequence[Any], data: bytes) -> None:
    """`check_field`: equal outcomes, and nothing that could end a line gets through."""
    name, _, value = data.partition(b"\x00")
    for given in ((name, value), (name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))):
        results = [outcome(room.message.check_field, *given) for room in rooms]
        assert results == [results[0]] * len(results)
        if isinstance(results[0][0], bytes):
            assert not {10, 13, 0} & set(results[0][0] + results[0][1])


def router(rooms: Sequence[Any], data: bytes) -> None:
    """The path of a request through the router to its handler, by a well-formed request line."""
    path = bytes(byte for byte in data if byte > 0x20 and byte != 0x7F and byte != 0x23)
    connection(rooms, b"\x00GET /" + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")


TARGETS: dict[str, Target] = {
    "head": head,
    "chunked": chunked,
    "connection": connection,
    "field": field,
    "router": router,
}
