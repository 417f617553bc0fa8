"""A read-only mapping of names to one or several values, shared by query strings and forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

__all__ = ["MultiDict", "MultiMapping"]

_V = TypeVar("_V", covariant=True)
_T = TypeVar("_T")


class MultiMapping(Mapping[str, _V], Generic[_V]):
    """Pairs in order; `[]`, `get` and `items` answer the last value of a name, `getall` and `multi_items` every one.

    Args:
        pairs: Names and values.
    """

    __slots__ = ("_last", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, _V]] = ()) -> None:
        self._pairs: list[tuple[str, Any]] = list(pairs)
        self._last: dict[str, Any] = dict(self._pairs)

    def __getitem__(self, name: str) -> _V:
        return self._last[name]  # type: ignore[no-any-return]

    @overload
    def get(self, name: str, default: None = None, /) -> _V | None: ...
    @overload
    def get(self, name: str, default: _T, /) -> _V | _T: ...
    def get(self, name: str, default: object = None, /) -> object:
        """Return the last value of a name, or the default."""
        return self._last.get(name, default)

    def getall(self, name: str) -> list[_V]:
        """Return all values of a name in order; an empty list if there is none."""
        return [value for key, value in self._pairs if key == name]

    getlist = getall

    def multi_items(self) -> list[tuple[str, _V]]:
        """Return every pair in order, repeated names included."""
        return list(self._pairs)

    def __contains__(self, name: object) -> bool:
        return name in self._last

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MultiMapping):
            return self._pairs == other._pairs
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pairs!r})"


class MultiDict(MultiMapping[str]):
    """Pairs of strings."""

    __slots__ = ()
