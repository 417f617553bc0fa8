"""Iterators that turn each item of another one into bytes and close it when they are closed.

A generator around a generator would not do: closing the outer one leaves the inner one, with its `finally`, to the
garbage collector. These hand `close` and `aclose` through, so that a client's disconnect stops the work at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["AsyncMapped", "Mapped", "mapped"]

_T = TypeVar("_T")


class Mapped(Generic[_T]):
    """An iterator over `encode(item)` for each item of an iterable."""

    __slots__ = ("_encode", "_source")

    def __init__(self, encode: Callable[[_T], bytes], source: Iterable[_T]) -> None:
        self._encode = encode
        self._source = iter(source)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._encode(next(self._source))

    def close(self) -> None:
        """Close what is iterated over, if it can be closed."""
        close: Any = getattr(self._source, "close", None)
        if close is not None:
            close()


class AsyncMapped(Generic[_T]):
    """An asynchronous iterator over `encode(item)` for each item of an asynchronous iterable."""

    __slots__ = ("_encode", "_source")

    def __init__(self, encode: Callable[[_T], bytes], source: AsyncIterable[_T]) -> None:
        self._encode = encode
        self._source = aiter(source)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return self._encode(await anext(self._source))

    async def aclose(self) -> None:
        """Close what is iterated over, if it can be closed."""
        close: Any = getattr(self._source, "aclose", None)
        if close is not None:
            await close()


def mapped(encode: Callable[[_T], bytes], source: AsyncIterable[_T] | Iterable[_T]) -> AsyncMapped[_T] | Mapped[_T]:
    """Iterate over `encode(item)` for each item of a source of either kind.

    Args:
        encode: Makes bytes of one item.
        source: An iterable, or an asynchronous iterable, which is preferred if it is both.

    Raises:
        TypeError: It is neither.
    """
    if hasattr(source, "__aiter__"):
        return AsyncMapped(encode, source)  # type: ignore[arg-type]
    if hasattr(source, "__iter__") and not isinstance(source, (str, bytes, dict)):
        return Mapped(encode, source)
    raise TypeError(f"a stream needs an iterator or an asynchronous iterator, not {type(source).__name__}")
