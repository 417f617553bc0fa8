"""How much JSON a value makes, estimated: what is large is encoded in slices, so that the loop is not held up.

The unit is about what a number or a short text takes. A list or tuple is taken to be made of items like its first and
its last one; a dict is looked through. No code of a value's class runs.
"""

from __future__ import annotations

from typing import Any

__all__ = ["fitting", "weigh"]

#: Containers within containers that are looked into; what lies deeper counts by its length.
_LEVELS = 4
#: Characters of a text that count as one.
_TEXT_SHIFT = 6
#: What is no type of JSON: a model, a datetime. Turning one into JSON takes several steps in Python, often.
_OTHER = 8


def weigh(value: Any, most: int) -> int:
    """Estimate how much JSON a value makes.

    Args:
        value: Any value.
        most: Where to stop counting; the largest number returned.
    """
    return min(_weigh(value, most, _LEVELS), most)


def fitting(items: list[Any], most: int) -> int:
    """Return how many items, from the first one on, make less JSON than `most` together.

    Args:
        items: The items.
        most: The bound, in the unit of `weigh`.
    """
    total = 0
    for count, item in enumerate(items):
        total += _weigh(item, most, _LEVELS)
        if total >= most:
            return count
    return len(items)


def _weigh(value: Any, most: int, levels: int) -> int:
    kind = type(value)
    if kind is str:
        return 1 + (len(value) >> _TEXT_SHIFT)
    if value is None or kind is int or kind is float or kind is bool:
        return 1
    if kind is dict:
        if not levels:
            return 1 + len(value)
        total = 1
        for item in value.values():
            if total >= most:
                break
            total += _weigh(item, most - total, levels - 1)
        return total
    if kind is list or kind is tuple:
        size = len(value)
        if not levels or not size:
            return 1 + size
        ends = _weigh(value[0], most, levels - 1) + _weigh(value[size - 1], most, levels - 1)
        return 1 + size * min(ends, 2 * most) // 2
    return _OTHER
