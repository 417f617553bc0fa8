"""Content codings (RFC 9110 section 8.4.1): encoders by name, and iterators that compress a body as it is produced."""

from __future__ import annotations

import asyncio
import importlib
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Literal, Protocol, TypeAlias

from armature.exceptions import ConfigurationError, MissingDependencyError

__all__ = [
    "AsyncCompressed",
    "Coding",
    "Compressed",
    "Encoder",
    "available",
    "check_level",
    "compress",
    "make_encoder",
]

Coding: TypeAlias = Literal["br", "deflate", "gzip", "zstd"]

#: Up to so many bytes are compressed on the loop; for more of them a thread is worth the way.
INLINE = 64 * 1024

#: Bytes that are compressed at once in a thread: bounds what one answer can hold it for.
SLICE = 256 * 1024

#: The levels that each coding takes, and the one it has by default: what a server can do for every answer. Beyond 19
#: zstd uses windows larger than the 8 MB that a client need support (RFC 9659).
_LEVELS: Mapping[str, tuple[int, int, int]] = {
    "br": (0, 11, 4),
    "deflate": (1, 9, 5),
    "gzip": (1, 9, 5),
    "zstd": (1, 19, 3),
}

#: The modules that each coding can be had from, beside the standard library's zlib.
_MODULES: Mapping[str, tuple[str, ...]] = {
    "br": ("brotli", "brotlicffi"),
    "deflate": (),
    "gzip": (),
    "zstd": ("compression.zstd", "zstandard"),
}

#: Windows: of a body, of a stream that lasts, and the smallest that all codings take.
_WINDOW = 19
_LASTING_WINDOW = 13
_SMALLEST_WINDOW = 10

#: The distribution to install where none of the modules is there.
_PACKAGES: Mapping[str, str] = {"br": "brotli", "zstd": "zstandard"}


class Encoder(Protocol):
    """Compresses one body, piece by piece."""

    def compress(self, data: bytes | memoryview) -> bytes:
        """Take a piece and return what is ready, which may be nothing."""

    def flush(self) -> bytes:
        """Return what is missing for the decoder to have everything that was taken so far."""

    def finish(self) -> bytes:
        """Return the rest, with the end of the body."""


class _Zlib:
    """gzip (RFC 1952) and deflate, which is the zlib format (RFC 9110 section 8.4.1.2, RFC 1950)."""

    __slots__ = ("_object", "compress")

    def __init__(self, format_bits: int, level: int, window: int) -> None:
        # Up to 256 KiB of memory for the largest window and level 8, 48 KiB for a window of 13 bits and level 5.
        self._object = zlib.compressobj(level, zlib.DEFLATED, format_bits + min(window, 15), 8 if window >= 15 else 5)
        self.compress = self._object.compress

    def flush(self) -> bytes:
        return self._object.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._object.flush(zlib.Z_FINISH)


class _Brotli:
    """br (RFC 7932), by brotli or brotlicffi."""

    __slots__ = ("_object",)

    def __init__(self, module: Any, level: int, window: int) -> None:
        self._object = module.Compressor(quality=level, lgwin=window)

    def compress(self, data: bytes | memoryview) -> bytes:
        return self._object.process(bytes(data))  # type: ignore[no-any-return]

    def flush(self) -> bytes:
        return self._object.flush()  # type: ignore[no-any-return]

    def finish(self) -> bytes:
        return self._object.finish()  # type: ignore[no-any-return]


class _Zstandard:
    """zstd (RFC 8878), by the package zstandard."""

    __slots__ = ("_module", "_object", "compress")

    def __init__(self, module: Any, level: int, window: int) -> None:
        parameters = module.ZstdCompressionParameters.from_level(level, source_size=1 << window, window_log=window)
        self._module = module
        self._object = module.ZstdCompressor(compression_params=parameters).compressobj()
        self.compress = self._object.compress

    def flush(self) -> bytes:
        return self._object.flush(self._module.COMPRESSOBJ_FLUSH_BLOCK)  # type: ignore[no-any-return]

    def finish(self) -> bytes:
        return self._object.flush(self._module.COMPRESSOBJ_FLUSH_FINISH)  # type: ignore[no-any-return]


class _StandardZstd:
    """zstd, by the standard library of Python 3.14 and later."""

    __slots__ = ("_object", "compress")

    def __init__(self, module: Any, level: int, window: int) -> None:
        parameter = module.CompressionParameter
        options = {parameter.compression_level: level, parameter.window_log: window}
        self._object = module.ZstdCompressor(options=options)
        self.compress = self._object.compress

    def flush(self) -> bytes:
        return self._object.flush(self._object.FLUSH_BLOCK)  # type: ignore[no-any-return]

    def finish(self) -> bytes:
        return self._object.flush(self._object.FLUSH_FRAME)  # type: ignore[no-any-return]


@cache
def _module_of(coding: str) -> Any:
    """Import the first module of a coding that is installed; None if there is none."""
    for name in _MODULES[coding]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Only an absent module means "not installed"; one that is broken is not passed over. A Python may have been
            # built without its own _zstd.
            if error.name not in (name, name.partition(".")[0], "_zstd"):
                raise
    return None


def available(coding: str) -> bool:
    """Say whether a coding can be produced here.

    Args:
        coding: `"br"`, `"deflate"`, `"gzip"` or `"zstd"`.

    Raises:
        ConfigurationError: It is none of them.
    """
    _check(coding)
    return not _MODULES[coding] or _module_of(coding) is not None


def check_level(coding: str, level: int | None = None) -> int:
    """Return a level that a coding takes; its default if none is given.

    Args:
        coding: The coding.
        level: The level, or None.

    Raises:
        ConfigurationError: The coding is unknown, or the level is none of its.
    """
    _check(coding)
    lowest, highest, usual = _LEVELS[coding]
    if level is None:
        return usual
    if level not in range(lowest, highest + 1):
        raise ConfigurationError(f"the level of {coding} must be a number from {lowest} to {highest}, not {level!r}")
    return level


def _check(coding: str) -> None:
    if coding not in _LEVELS:
        raise ConfigurationError(f"{coding!r} is no content coding known here; these are: {', '.join(_LEVELS)}")


def make_encoder(coding: str, level: int | None = None, *, size: int | None = None, lasting: bool = False) -> Encoder:
    """Make an encoder for one body.

    Args:
        coding: `"br"`, `"deflate"`, `"gzip"` or `"zstd"`.
        level: How hard it tries; the coding's default if None.
        size: The length of the body, if it is known: a small one is compressed with less memory, and so quicker.
        lasting: Whether it does with little memory in any case, for a stream that may stay open for hours.

    Raises:
        ConfigurationError: The coding is unknown, or the level is none of its.
        MissingDependencyError: The library of the coding is not installed.
    """
    level = check_level(coding, level)
    # The base-2 logarithm of the bytes that an encoder looks back.
    window = _LASTING_WINDOW if lasting else _WINDOW
    if size is not None:
        window = max(_SMALLEST_WINDOW, min(window, size.bit_length()))
    if coding == "gzip":
        return _Zlib(16, level, window)
    if coding == "deflate":
        return _Zlib(0, level, window)
    module = _module_of(coding)
    if module is None:
        raise MissingDependencyError(_PACKAGES[coding], "compression")
    if coding == "br":
        return _Brotli(module, level, window)
    if module.__name__ == "zstandard":
        return _Zstandard(module, level, window)
    return _StandardZstd(module, level, window)


async def compress(encoder: Encoder, body: bytes) -> bytes:
    """Compress a complete body: a small one here and now, a large one slice by slice in a thread.

    Args:
        encoder: A fresh encoder.
        body: The body.
    """
    if len(body) <= INLINE:
        return encoder.compress(body) + encoder.finish()
    loop = asyncio.get_running_loop()
    pieces = [await loop.run_in_executor(None, encoder.compress, piece) for piece in _slices(body)]
    pieces.append(await loop.run_in_executor(None, encoder.finish))
    return b"".join(pieces)


def _slices(data: bytes) -> Iterator[bytes | memoryview]:
    if len(data) <= SLICE:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), SLICE):
        yield view[start : start + SLICE]


def _piece(piece: Any) -> bytes:
    if isinstance(piece, str):
        return piece.encode("utf-8")
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    raise TypeError(f"a streamed body is made of bytes or str, not {type(piece).__name__}")


def _distinct(iterator: Any, source: Any) -> tuple[Any, ...]:
    # What `__iter__` returned may hold resources of its own, as a generator does.
    return (source,) if iterator is None or iterator is source else (iterator, source)


class _Stream:
    """What both kinds of stream share.

    The first piece leaves at once, as it does without compression. Later ones leave when the encoder has something
    ready, or each by itself if `flush` is set.
    """

    __slots__ = ("_encoder", "_ended", "_flush", "_pieces", "_started")

    def __init__(self, encoder: Encoder, flush: bool) -> None:
        self._encoder = encoder
        self._flush = flush
        self._started = False
        self._ended = False
        #: What is left of a piece that is too large to be compressed at once.
        self._pieces: Iterator[bytes | memoryview] = iter(())

    def _take(self, data: bytes | memoryview, last: bool) -> bytes:
        """Compress a slice of a piece; `last` says that the piece ends with it."""
        out = self._encoder.compress(data)
        if last and (self._flush or not self._started):
            self._started = True
            out += self._encoder.flush()
        return out


class Compressed(_Stream):
    """The pieces of an iterator, compressed; closing it closes the iterator.

    Args:
        source: An iterable of bytes or str.
        encoder: A fresh encoder.
        flush: Whether each piece can be decoded as soon as it is sent.
    """

    __slots__ = ("_iterator", "_source")

    def __init__(self, source: Iterable[Any], encoder: Encoder, flush: bool = False) -> None:
        super().__init__(encoder, flush)
        self._source = source
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._source)
        while not self._ended:
            try:
                piece = _piece(next(self._iterator))
            except StopIteration:
                self._ended = True
                return self._encoder.finish()
            if piece and (out := self._take(piece, True)):
                return out
        raise StopIteration

    def close(self) -> None:
        """Close what is iterated over, if it can be closed."""
        self._ended = True
        for one in _distinct(self._iterator, self._source):
            close: Any = getattr(one, "close", None)
            if close is not None:
                close()


class AsyncCompressed(_Stream):
    """The pieces of an asynchronous iterator, compressed; closing it closes the iterator.

    Args:
        source: An asynchronous iterable of bytes or str.
        encoder: A fresh encoder.
        flush: Whether each piece can be decoded as soon as it is sent.
    """

    __slots__ = ("_iterator", "_left", "_source", "_waiting")

    def __init__(self, source: AsyncIterable[Any], encoder: Encoder, flush: bool = False) -> None:
        super().__init__(encoder, flush)
        self._source = source
        self._iterator: AsyncIterator[Any] | None = None
        #: Bytes of the present piece that are still to be compressed.
        self._left = 0
        #: Bytes that the encoder has taken since it last gave something back.
        self._waiting = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._iterator is None:
            self._iterator = aiter(self._source)
        while not self._ended:
            if not self._left:
                try:
                    piece = _piece(await anext(self._iterator))
                except StopAsyncIteration:
                    self._ended = True
                    return await self._run(self._encoder.finish, 0)
                self._pieces, self._left = _slices(piece), len(piece)
                if not piece:
                    continue
            data = next(self._pieces)
            self._left -= len(data)
            out = await self._run(partial(self._take, data, not self._left), len(data))
            if out:
                return out
        raise StopAsyncIteration

    async def _run(self, step: Any, size: int) -> bytes:
        self._waiting += size
        if self._waiting > INLINE:
            out: bytes = await asyncio.get_running_loop().run_in_executor(None, step)
        else:
            out = step()
        if out:
            self._waiting = 0
        return out

    async def aclose(self) -> None:
        """Close what is iterated over, if it can be closed."""
        self._ended = True
        for one in _distinct(self._iterator, self._source):
            close: Any = getattr(one, "aclose", None)
            if close is not None:
                await close()
