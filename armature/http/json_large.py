"""Large JSON answers, encoded in slices: other requests have their turns in between.

An encoder holds the interpreter's lock until it has done, so that a thread would not help: 50 MB in one go stop the
loop for a tenth of a second, in the fastest engine. Here lists and dicts are encoded some items at a time. What the
slices make, one behind the other, is what `dumps` makes of the value as a whole.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from itertools import islice
from typing import Any, Self, TypeAlias

from armature._impl import message, weight
from armature._spec.limits import JSON_SLICE, JSON_SLICE_BYTES
from armature.http.json import dumps, loads
from armature.http.json_reference import spell_path
from armature.http.response import HttpResponse

__all__ = ["SegmentedResponse", "encode_large", "slices"]

#: Large values within large values that are taken apart. What is nested deeper is circular, most often, which the
#: encoder itself then says.
_LEVELS = 8
#: Items of the first slice, and how much larger than the last one the next may be.
_FIRST = 32
_GROWTH = 8
#: Items that are copied at a time.
_BLOCK = 16 * 1024
#: Characters of a long text that are encoded at a time.
_TEXT = 64 * 1024

#: Some of the items of a container, and their keys if it is a dict: in reverse, because it is cheap to take items from
#: the end of a list.
_Block: TypeAlias = tuple[list[Any] | None, list[Any]]

# The beginning of what `dumps` says of a value that cannot be encoded: the path to it.
_PATH = re.compile(r"\$(?:\[([0-9]+)\])?")


def encode_large(value: Any, encode: Callable[[Any], bytes] = dumps) -> Coroutine[Any, Any, list[bytes]]:
    """Encode a value in slices, with a turn of the loop behind each; return the segments of the JSON.

    Its lists and dicts are copied when their turn comes, and let go of as they are encoded, so that what nobody else
    holds is not freed in one go either.

    Args:
        value: Any value that `dumps` takes.
        encode: What encodes a slice.

    Raises:
        TypeError: Something in it cannot be encoded; the message is that of `dumps`.
    """
    return _gather(slices(value, encode))


async def _gather(pieces: Iterator[bytes]) -> list[bytes]:
    segments: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= JSON_SLICE_BYTES:
            segments.append(b"".join(waiting))
            waiting.clear()
            size = 0
        await asyncio.sleep(0)
    segments.append(b"".join(waiting))
    return segments


def slices(
    value: Any, encode: Callable[[Any], bytes] = dumps, most: int = JSON_SLICE, size: int = JSON_SLICE_BYTES
) -> Iterator[bytes]:
    """Encode a value piece by piece.

    Args:
        value: Any value that `dumps` takes.
        encode: What encodes a slice.
        most: The weight of a slice.
        size: About how many bytes a slice is to make.
    """
    return _Slicer(encode, most, size).pieces(value, (), _LEVELS)


class _Slicer:
    """What a value is encoded with."""

    __slots__ = ("encode", "most", "size")

    def __init__(self, encode: Callable[[Any], bytes], most: int, size: int) -> None:
        self.encode = encode
        self.most = most
        self.size = size

    def pieces(self, value: Any, path: tuple[str | int, ...], levels: int) -> Iterator[bytes]:
        """Encode a value, taking it apart."""
        kind = type(value)
        if kind is str:
            yield from self._text(value, path)
            return
        if not levels or not value or (kind is not dict and kind is not list and kind is not tuple):
            yield self._slice(value, path)
            return
        blocks: list[_Block] = []
        yield from _copy(value, blocks)
        del value
        yield b"{" if kind is dict else b"["
        yield from self._items(blocks, path, levels - 1)
        yield b"}" if kind is dict else b"]"

    def _items(self, blocks: list[_Block], path: tuple[str | int, ...], levels: int) -> Iterator[bytes]:
        separator = b""
        count, done = _FIRST, 0
        while blocks:
            keys, items = blocks[-1]
            if not items:
                blocks.pop()
                continue
            batch = items[: -count - 1 : -1]
            fit = weight.fitting(batch, self.most)
            del batch[fit:]
            if fit:
                del items[-fit:]
                if keys is None:
                    text = self._slice(batch, path, done)
                else:
                    text = self._slice(dict(zip(keys[: -fit - 1 : -1], batch, strict=True)), path)
                    del keys[-fit:]
                yield separator + text[1:-1]
                count = max(1, min(fit * _GROWTH, fit * self.size // len(text)))
            else:
                # The next one is heavy by itself.
                fit = 1
                step: str | int = done
                if keys is not None:
                    name = self._slice({keys.pop(): None}, path)[1:-5]
                    separator += name
                    step = loads(name[:-1])
                if separator:
                    yield separator
                yield from self.pieces(items.pop(), (*path, step), levels)
            done += fit
            separator = b","

    def _text(self, value: str, path: tuple[str | int, ...]) -> Iterator[bytes]:
        # No escape sequence depends on the character before.
        yield b'"'
        for at in range(0, len(value), _TEXT):
            yield self._slice(value[at : at + _TEXT], path)[1:-1]
        yield b'"'

    def _slice(self, value: Any, path: tuple[str | int, ...], first: int = 0) -> bytes:
        try:
            return self.encode(value)
        except TypeError as error:
            # The path in the message begins at the slice.
            found = _PATH.match(str(error))
            if found is not None:
                index = () if found[1] is None else (int(found[1]) + first,)
                error.args = (spell_path([*path, *index]) + str(error)[found.end() :],)
            raise


def _copy(value: Any, blocks: list[_Block]) -> Iterator[bytes]:
    """Copy a list, tuple or dict in blocks, with a turn behind each; the last block comes first."""
    if type(value) is dict:
        names, items = iter(value), iter(value.values())
        try:
            while keys := list(islice(names, _BLOCK)):
                blocks.append(_reversed(keys, list(islice(items, _BLOCK))))
                yield b""
        except RuntimeError:
            # Another request has put something in or taken something out; now in one go.
            blocks[:] = [_reversed(list(value), list(value.values()))]
    else:
        size = len(value)
        for at in range(0, size, _BLOCK):
            # What other requests append meanwhile does not belong to this answer.
            blocks.append(_reversed(None, list(value[at : min(at + _BLOCK, size)])))
            yield b""
    blocks.reverse()


def _reversed(keys: list[Any] | None, items: list[Any]) -> _Block:
    if keys is not None:
        keys.reverse()
    items.reverse()
    return keys, items


class SegmentedResponse(HttpResponse):
    """A response whose body is there, in segments: they are sent as a stream of known length.

    Whoever asks for the `body` has it joined, and the response is an ordinary one from then on.
    """

    __slots__ = ()

    @classmethod
    def of(cls, segments: list[bytes], status: int, content_type: str) -> Self:
        """Answer with segments.

        Args:
            segments: The body.
            status: The status code.
            content_type: The media type.
        """
        response = cls(b"", status, None, content_type)
        response.fields().append((b"content-length", b"%d" % sum(map(len, segments))))
        response.stream = segments
        return response

    def with_etag(self, etag: str | None = None, weak: bool = False) -> Self:
        """Set an `ETag`, by default a digest of the body."""
        if etag is None:
            self._join()
        return super().with_etag(etag, weak)

    def __reduce__(self) -> Any:
        self._join()
        return super().__reduce__()

    def _join(self) -> None:
        if isinstance(self.stream, list):
            self.body = b"".join(self.stream)

    @property
    def body(self) -> bytes:
        """The whole body."""
        self._join()
        return message.Response.body.__get__(self)  # type: ignore[no-any-return]

    @body.setter
    def body(self, body: bytes | bytearray | memoryview | str) -> None:
        message.Response.body.__set__(self, body)  # type: ignore[attr-defined]
        fields = self.fields()
        fields[:] = [field for field in fields if field[0] != b"content-length"]
        self.stream = None
