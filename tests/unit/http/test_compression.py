"""Content codings: what each encoder makes is what another library takes apart, wherever the body was cut."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature.exceptions import ConfigurationError, MissingDependencyError
from armature.http import compression
from armature.http.compression import (
    INLINE,
    SLICE,
    AsyncCompressed,
    Compressed,
    available,
    check_level,
    compress,
    make_encoder,
)
from counterparts import require_module

CODINGS = ["gzip", "deflate", "br", "zstd"]
TEXT = b"".join(b"line %d of a text that shrinks\n" % number for number in range(40_000))


def decoder(coding: str) -> Callable[[bytes], bytes]:
    """A function that takes a body piece by piece and returns what can be known of it."""
    if coding in ("gzip", "deflate"):
        return zlib.decompressobj(31 if coding == "gzip" else 15).decompress
    if coding == "br":
        return require_module("brotli").Decompressor().process  # type: ignore[no-any-return]
    return require_module("zstandard").ZstdDecompressor().decompressobj().decompress  # type: ignore[no-any-return]


def decoded(coding: str, data: bytes) -> bytes:
    """Take a whole body apart; fails if its end is missing or something follows."""
    if coding == "gzip":
        return gzip.decompress(data)
    if coding == "deflate":
        return zlib.decompress(data)
    if coding == "br":
        return require_module("brotli").decompress(data)  # type: ignore[no-any-return]
    stream = require_module("zstandard").ZstdDecompressor().decompressobj()
    found = stream.decompress(data)
    assert stream.eof
    assert not stream.unused_data
    return found  # type: ignore[no-any-return]


@pytest.fixture(params=CODINGS)
def coding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "br":
        require_module("brotli")
    elif name == "zstd":
        require_module("zstandard")
    return name


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def collected(stream: AsyncCompressed) -> list[bytes]:
    return [piece async for piece in stream]


pieces = st.lists(
    st.one_of(st.binary(max_size=50), st.builds(lambda byte, count: byte * count, st.binary(max_size=3), st.integers(0, 60_000))),
    max_size=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(parts=pieces, flush=st.booleans(), lasting=st.booleans(), name=st.sampled_from(CODINGS))
def test_a_stream_cut_anywhere_comes_back(parts: list[bytes], flush: bool, lasting: bool, name: str) -> None:
    whole = b"".join(parts)
    out = list(Compressed(iter(parts), make_encoder(name, lasting=lasting), flush))
    assert decoded(name, b"".join(out)) == whole

    async def source() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    out = asyncio.run(collected(AsyncCompressed(source(), make_encoder(name, lasting=lasting), flush)))
    assert decoded(name, b"".join(out)) == whole


@settings(max_examples=30, deadline=None)
@given(body=st.binary(max_size=5000), level=st.integers(1, 9), name=st.sampled_from(CODINGS))
def test_a_complete_body_comes_back(body: bytes, level: int, name: str) -> None:
    encoder = make_encoder(name, level, size=len(body))
    assert decoded(name, asyncio.run(compress(encoder, body))) == body


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, SLICE, SLICE + 1, 3 * SLICE + 7])
def test_bodies_of_all_sizes(coding: str, size: int) -> None:
    body = (TEXT * (size // len(TEXT) + 1))[:size]
    assert decoded(coding, run(compress(make_encoder(coding, size=size), body))) == body


def test_text_shrinks(coding: str) -> None:
    assert len(run(compress(make_encoder(coding, size=len(TEXT)), TEXT))) < len(TEXT) / 4


@pytest.mark.parametrize("lasting", [False, True])
def test_a_flushed_piece_can_be_decoded_before_the_next_one(coding: str, lasting: bool) -> None:
    decode = decoder(coding)
    stream = Compressed(iter([b"one ", "zwei ü ", bytearray(b"three ")]), make_encoder(coding, lasting=lasting), True)
    assert [decode(next(stream)) for _ in range(3)] == [b"one ", "zwei ü ".encode(), b"three "]
    decode(next(stream))
    assert list(stream) == []


def test_the_first_piece_of_any_stream_leaves_at_once_and_later_ones_are_gathered(coding: str) -> None:
    decode = decoder(coding)
    taken: list[bytes] = []

    def source() -> Iterator[bytes]:
        for number in range(200):
            taken.append(b"piece %d\n" % number)
            yield taken[-1]

    stream = Compressed(source(), make_encoder(coding))
    assert decode(next(stream)) == taken[0]
    assert len(taken) == 1
    rest = list(stream)
    assert len(rest) < 20
    assert decode(b"".join(rest)) == b"".join(taken[1:])


def test_small_bodies_stay_on_the_loop_and_large_ones_go_to_a_thread() -> None:
    threads: set[int] = set()

    class Spy:
        def compress(self, data: bytes | memoryview) -> bytes:
            threads.add(threading.get_ident())
            sizes.append(len(data))
            return b""

        def flush(self) -> bytes:
            return b""

        def finish(self) -> bytes:
            threads.add(threading.get_ident())
            return b"."

    async def parts(*given: bytes) -> AsyncIterator[bytes]:
        for part in given:
            yield part

    here = threading.get_ident()
    for body, elsewhere in ((b"x" * INLINE, False), (b"x" * (2 * SLICE + 1), True)):
        threads.clear()
        sizes: list[int] = []
        assert run(compress(Spy(), body)) == b"."
        assert (threads == {here}) is not elsewhere
        assert here not in threads or not elsewhere
        assert max(sizes) <= SLICE
        threads.clear()
        assert run(collected(AsyncCompressed(parts(body), Spy()))) == [b"."]
        assert (threads == {here}) is not elsewhere
        assert max(sizes) <= SLICE


# ---- what is iterated over


class Source:
    """An iterable of either kind whose iterators are generators with a `finally`, and that can be closed itself."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            self.log.append("iterator")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            self.log.append("iterator")

    def close(self) -> None:
        self.log.append("source")

    async def aclose(self) -> None:
        self.log.append("source")


def test_closing_early_closes_the_iterator_and_what_it_came_from() -> None:
    source = Source()
    stream = Compressed(source, make_encoder("gzip"))
    next(stream)
    stream.close()
    assert source.log == ["iterator", "source"]
    assert list(stream) == []

    async def main() -> None:
        stream = AsyncCompressed(source, make_encoder("gzip"))
        await anext(stream)
        await stream.aclose()
        assert await collected(stream) == []

    source.log.clear()
    run(main())
    assert source.log == ["iterator", "source"]


def test_closing_before_the_beginning_closes_the_source_alone() -> None:
    source = Source()
    Compressed(source, make_encoder("gzip")).close()
    run(AsyncCompressed(source, make_encoder("gzip")).aclose())
    assert source.log == ["source", "source"]
    Compressed(iter([b"a"]), make_encoder("gzip")).close()


def test_what_the_producer_raises_passes_through_and_the_body_has_no_end() -> None:
    def failing() -> Iterator[bytes]:
        yield b"a"
        raise LookupError

    stream = Compressed(failing(), make_encoder("gzip"))
    got = next(stream)
    with pytest.raises(LookupError):
        next(stream)
    with pytest.raises(EOFError):
        gzip.decompress(got)


@pytest.mark.parametrize("piece", [1, None, [b"a"]])
def test_pieces_that_are_no_bytes(piece: object) -> None:
    with pytest.raises(TypeError, match="a streamed body is made of bytes or str, not"):
        next(Compressed([piece], make_encoder("gzip")))


# ---- libraries and levels


def test_levels() -> None:
    assert [check_level(coding) for coding in CODINGS] == [5, 5, 4, 3]
    for coding, level in (("gzip", 0), ("gzip", 10), ("br", -1), ("br", 12), ("zstd", 20), ("zstd", 0), ("gzip", "6")):
        with pytest.raises(ConfigurationError, match=f"the level of {coding} must be a number from"):
            check_level(coding, level)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'lzma' is no content coding known here; these are: br, deflate"):
        make_encoder("lzma")
    with pytest.raises(ConfigurationError, match="no content coding"):
        available("identity")


def test_windows_of_zstd_are_what_every_client_supports() -> None:
    """RFC 9659: no window beyond 8 MB."""
    zstandard = require_module("zstandard")
    for level in (1, 3, 19):
        encoder = make_encoder("zstd", level)
        head = encoder.compress(TEXT) + encoder.flush()
        assert zstandard.get_frame_parameters(head).window_size <= 8 * 1024 * 1024


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make modules absent, for as long as the test lasts."""
    real = importlib.import_module

    def hide(*names: str, fault: str | None = None) -> None:
        def find(name: str) -> Any:
            if name in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=fault or name)
            return real(name)

        monkeypatch.setattr(compression, "importlib", SimpleNamespace(import_module=find))
        compression._module_of.cache_clear()

    yield hide
    monkeypatch.undo()
    compression._module_of.cache_clear()


def test_a_library_that_is_missing_is_named(without: Callable[..., None]) -> None:
    without("brotli", "brotlicffi", "compression.zstd", "zstandard")
    assert [coding for coding in CODINGS if available(coding)] == ["gzip", "deflate"]
    with pytest.raises(MissingDependencyError, match=r"brotli is not installed.*armature-framework\[compression\]"):
        make_encoder("br")
    with pytest.raises(MissingDependencyError, match="zstandard is not installed"):
        make_encoder("zstd")


def test_a_library_that_is_broken_is_not_passed_over(without: Callable[..., None]) -> None:
    without("brotli", fault="_brotli")
    with pytest.raises(ModuleNotFoundError, match="brotli"):
        available("br")


def test_the_other_libraries_of_a_coding_are_taken_as_well(
    without: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    brotli, zstandard = require_module("brotli"), require_module("zstandard")

    class Compressor:
        """The class of `compression.zstd`, over the other package."""

        FLUSH_BLOCK, FLUSH_FRAME = 1, 2

        def __init__(self, options: dict[str, int]) -> None:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                options.pop("compression_level"), window_log=options.pop("window_log")
            )
            assert not options
            self._object = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

        def compress(self, data: bytes) -> bytes:
            return self._object.compress(data)  # type: ignore[no-any-return]

        def flush(self, mode: int) -> bytes:
            return self._object.flush(  # type: ignore[no-any-return]
                zstandard.COMPRESSOBJ_FLUSH_BLOCK if mode == 1 else zstandard.COMPRESSOBJ_FLUSH_FINISH
            )

    parameters = SimpleNamespace(compression_level="compression_level", window_log="window_log")
    stdlib = SimpleNamespace(__name__="compression.zstd", ZstdCompressor=Compressor, CompressionParameter=parameters)
    there = {"brotlicffi": brotli, "compression.zstd": stdlib}

    def find(name: str) -> Any:
        if name in there:
            return there[name]
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(compression, "importlib", SimpleNamespace(import_module=find))
    compression._module_of.cache_clear()
    for coding in ("br", "zstd"):
        assert decoded(coding, b"".join(Compressed([TEXT], make_encoder(coding)))) == TEXT
        decode = decoder(coding)
        stream = Compressed([b"a", b"b"], make_encoder(coding, lasting=True), True)
        assert [decode(next(stream)), decode(next(stream))] == [b"a", b"b"]


def test_nothing_is_imported_for_the_codings_of_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(name)

    monkeypatch.setattr(compression, "importlib", SimpleNamespace(import_module=refuse))
    assert available("gzip")
    assert make_encoder("deflate") is not None
    assert gzip.decompress(b"".join(Compressed([b"a"], make_encoder("gzip")))) == b"a"
