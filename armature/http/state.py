"""A bag of attributes for whatever an app wants to keep with a request or with itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["State"]


class State:
    """Holds values under names of the user's choice, as attributes and as items alike.

    Args:
        values: What it holds at first; the dict is used, not copied.
    """

    __slots__ = ("_values",)

    _values: dict[str, Any]

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        object.__setattr__(self, "_values", {} if values is None else values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the state has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._values[name]
        except KeyError:
            raise AttributeError(f"the state has no attribute {name!r}") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self._values == other._values if isinstance(other, State) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> State:
        return State(dict(self._values))

    def __reduce__(self) -> tuple[type[State], tuple[dict[str, Any]]]:
        return State, (self._values,)

    def __repr__(self) -> str:
        return f"State({self._values!r})"
