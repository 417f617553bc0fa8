"""Byte ranges: reading `Range`, writing `Content-Range` (RFC 9110 section 14)."""

from __future__ import annotations

import re

__all__ = ["RANGE_LIMIT", "content_range", "parse_range"]

#: Ranges of one request; with more of them the whole representation is sent (RFC 9110 section 14.2).
RANGE_LIMIT = 32

#: Two ranges with a gap smaller than the head of a part are sent as one (RFC 9110 section 15.3.7.2).
_GAP = 80

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_MORE = 1 << 62


def _number(digits: str) -> int:
    # Any number of this length lies beyond every file; int() refuses numbers that are longer still.
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= 18 else _MORE


def parse_range(header: str, size: int, limit: int = RANGE_LIMIT) -> list[tuple[int, int]] | None:
    """Read a `Range` field against a representation.

    Overlapping ranges are merged, so that what is sent is never more than the representation.

    Args:
        header: The field's value.
        size: The length of the representation in bytes.
        limit: The largest number of ranges.

    Returns:
        Pairs of first position and the position after the last; an empty list if none can be satisfied (416); None
        if the field is to be ignored: another unit, malformed, too many ranges, or an empty representation.
    """
    unit, found, specs = header.partition("=")
    if not found or unit.lower() != "bytes" or size == 0:
        return None
    if specs.count(",") >= limit:
        return None
    ranges: list[tuple[int, int]] = []
    given = False
    for piece in specs.split(","):
        piece = piece.strip(" \t")
        if not piece:
            # Empty elements of a list do not count (RFC 9110 section 5.6.1.2).
            continue
        match = _SPEC.fullmatch(piece)
        if match is None:
            return None
        first_digits, last_digits = match.groups()
        given = True
        if not first_digits:
            if not last_digits:
                return None
            length = min(_number(last_digits), size)
            if length:
                ranges.append((size - length, size))
            continue
        first = _number(first_digits)
        stop = size
        if last_digits:
            last = _number(last_digits)
            if last < first:
                return None
            stop = min(last + 1, size)
        if first < size:
            ranges.append((first, stop))
    if not given:
        return None
    return _merged(ranges)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(ranges) < 2:
        return ranges
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start < merged[-1][1] + _GAP:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    # In the order asked for, where nothing was merged (RFC 9110 section 15.3.7.2).
    return ranges if len(merged) == len(ranges) else merged


def content_range(start: int, stop: int, size: int) -> str:
    """Spell the `Content-Range` of one range.

    Args:
        start: The first position.
        stop: The position after the last one.
        size: The length of the whole representation.
    """
    return f"bytes {start}-{stop - 1}/{size}"
