"""Range: the examples of RFC 9110 section 14, and what is ignored, merged or refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.http.ranges import RANGE_LIMIT, content_range, parse_range

FULL = [(0, 10000)]


@pytest.mark.parametrize(
    ("header", "ranges"),
    [
        # RFC 9110 section 14.1.2, for a representation of 10,000 octets
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-600,601-999", [(500, 1000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),
        # bounds
        ("bytes=0-", FULL),
        ("bytes=0-99999", FULL),
        ("bytes=-99999", FULL),
        ("bytes=9999-9999", [(9999, 10000)]),
        ("bytes=10000-", []),
        ("bytes=10000-10001", []),
        ("bytes=-0", []),
        ("bytes=-0,10000-", []),
        ("bytes=10000-,0-0", [(0, 1)]),
        ("bytes=0-" + "9" * 5000, FULL),
        ("bytes=" + "9" * 5000 + "-", []),
        ("bytes=-" + "9" * 5000, FULL),
        ("bytes=" + "0" * 5000 + "5-5", [(5, 6)]),
        # the order asked for is kept where nothing is merged
        ("bytes=5000-5001,0-1", [(5000, 5002), (0, 2)]),
        ("bytes=5000-5001,0-1,5001-5002", [(0, 2), (5000, 5003)]),
        ("BYTES=0-0", [(0, 1)]),
        ("bytes=,0-0,,", [(0, 1)]),
        # gaps smaller than a part's head are closed
        ("bytes=0-9,20-29", [(0, 30)]),
        ("bytes=0-9,1000-1009", [(0, 10), (1000, 1010)]),
    ],
)
def test_ranges(header: str, ranges: list[tuple[int, int]]) -> None:
    assert parse_range(header, 10000) == ranges


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-0,5-4",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=0x0-1",
        "bytes=0 - 1",
        "bytes=0.5-1",
        "bytes=١-٢",  # noqa: RUF001
        "items=0-5",
        "bytes 0-5",
        "bytes =0-5",
        "bytes:0-5",
        "bytes=0-0;1-1",
        "bytes=" + ",".join(f"{n * 200}-{n * 200}" for n in range(RANGE_LIMIT + 1)),
        "bytes=" + "0-," * 20_000,
    ],
)
def test_ignored(header: str) -> None:
    assert parse_range(header, 10000) is None


def test_an_empty_representation_has_no_ranges() -> None:
    for header in ("bytes=0-", "bytes=-5", "bytes=0-0"):
        assert parse_range(header, 0) is None


def test_content_range() -> None:
    assert content_range(0, 500, 1234) == "bytes 0-499/1234"
    assert content_range(734, 1234, 1234) == "bytes 734-1233/1234"


def test_linear_time() -> None:
    start = time.perf_counter()
    for header in ("bytes=" + "," * 60_000, "bytes=" + "9" * 60_000, "bytes=" + "0-1" * 20_000, "=" * 60_000):
        parse_range(header, 10000)
    assert time.perf_counter() - start < 1


POSITION = st.integers(0, 120)
SPEC = st.one_of(
    st.tuples(POSITION, POSITION).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    POSITION.map(lambda position: f"{position}-"),
    POSITION.map(lambda length: f"-{length}"),
)


@given(st.lists(SPEC, min_size=1, max_size=8), st.integers(1, 100))
def test_what_is_sent_covers_what_was_asked_and_is_never_more_than_the_whole(specs: list[str], size: int) -> None:
    ranges = parse_range("bytes=" + ",".join(specs), size)
    assert ranges is not None
    wanted: set[int] = set()
    for spec in specs:
        first, _, last = spec.partition("-")
        if not first:
            wanted |= set(range(max(0, size - int(last)), size))
        else:
            wanted |= set(range(int(first), min(int(last) + 1 if last else size, size)))
    sent = [position for start, stop in ranges for position in range(start, stop)]
    assert len(sent) == len(set(sent)), "no octet is sent twice"
    assert wanted <= set(sent)
    assert all(0 <= start < stop <= size for start, stop in ranges)
    assert bool(ranges) == bool(wanted)
