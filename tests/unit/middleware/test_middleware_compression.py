"""Compressed responses: what is negotiated, what is left alone, and what caches must know."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature import App, CompressionMiddleware, ConfigurationError, HTTPException, HttpRequest, HttpResponse, get
from armature.exceptions import MissingDependencyError
from armature.http import compression
from armature.http.compression import INLINE
from armature.middleware import compression as middleware
from carrier import Answer
from counterparts import require_module

Ask = Callable[..., Answer]

TEXT = "All work and no play makes Jack a dull boy.\n" * 100
CODINGS = ("gzip", "deflate", "br", "zstd")


def decoded(answer: Answer) -> bytes:
    coding = answer.header("content-encoding")
    if coding == "gzip":
        return gzip.decompress(answer.body)
    if coding == "deflate":
        return zlib.decompress(answer.body)
    if coding == "br":
        return require_module("brotli").decompress(answer.body)  # type: ignore[no-any-return]
    if coding == "zstd":
        return require_module("zstandard").ZstdDecompressor().decompressobj().decompress(answer.body)  # type: ignore[no-any-return]
    assert coding is None
    return answer.body


def app_with(*arguments: Any, **options: Any) -> App:
    options.setdefault("codings", ["gzip", "deflate"])
    app = App().wrap(CompressionMiddleware(*arguments, **options))
    app.route("/", get(lambda: TEXT))
    return app


def app_answering(response: Callable[[], Any], **options: Any) -> App:
    app = app_with(**options)
    app.route("/it", get(response))
    return app


def asked(ask: Ask, app: App, path: str = "/it", accept: str = "gzip", method: str = "GET", **fields: str) -> Answer:
    headers = [("accept-encoding", accept), *((name.replace("_", "-"), value) for name, value in fields.items())]
    return ask(app, path, method, headers)


@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding(ask: Ask, coding: str) -> None:
    answer = asked(ask, app_with(codings=CODINGS), "/", coding)
    assert answer.header("content-encoding") == coding
    assert decoded(answer).decode() == TEXT
    assert answer.headers("vary") == ["accept-encoding"]
    assert answer.header("content-length") in (None, str(len(answer.body)))
    assert len(answer.body) < len(TEXT) / 10


#: Accept-Encoding -> what is chosen of br, gzip and deflate, in this order of preference (RFC 9110 section 12.5.3).
NEGOTIATION = [
    (None, None),
    ("", None),
    ("identity", None),
    ("gzip", "gzip"),
    ("x-gzip", "gzip"),
    ("GZIP", "gzip"),
    ("deflate", "deflate"),
    ("gzip, deflate, br", "br"),
    ("gzip, deflate, br, zstd", "br"),
    ("gzip;q=1.0, br;q=0.5", "gzip"),
    ("gzip;q=0, deflate", "deflate"),
    ("gzip;q=0", None),
    ("*", "br"),
    ("*;q=0.1", "br"),
    ("br;q=0, *", "gzip"),
    ("*;q=0", None),
    ("gzip;q=0.5, identity", None),
    ("gzip;q=0.5, identity;q=0.4", "gzip"),
    ("gzip;q=0.5, identity;q=0", "gzip"),
    ("identity;q=0", None),
    ("zstd, identity;q=0", None),
    ("compress, gzip;q=0.001", "gzip"),
    ("gzip;q=2", None),
    ("gzip;level=9", "gzip"),
    (",,gzip,,", "gzip"),
    ("gzip;q=0.5, gzip;q=0", "gzip"),
    ("sdch", None),
    ("\xff", None),
]


@pytest.mark.parametrize(("accepted", "coding"), NEGOTIATION, ids=lambda value: ascii(value))
def test_negotiation(ask: Ask, accepted: str | None, coding: str | None) -> None:
    app = app_with(codings=["br", "gzip", "deflate"])
    answer = ask(app, "/", headers=[] if accepted is None else [("accept-encoding", accepted)])
    assert answer.header("content-encoding") == coding
    assert decoded(answer).decode() == TEXT
    # A cache must know in any case.
    assert answer.headers("vary") == ["accept-encoding"]


def test_several_lines_are_one_list(ask: Ask) -> None:
    app = app_with()
    for lines, coding in ((["gzip;q=0.1", "deflate"], "deflate"), (["identity", "gzip"], "gzip")):
        answer = ask(app, "/", headers=[("accept-encoding", line) for line in lines])
        assert answer.header("content-encoding") == coding


def test_the_servers_preference_counts_among_equals(ask: Ask) -> None:
    for codings in (["gzip", "deflate"], ["deflate", "gzip"]):
        answer = asked(ask, app_with(codings=codings), "/", "gzip, deflate")
        assert answer.header("content-encoding") == codings[0]
    everything = CompressionMiddleware()
    for coding in ("brotli", "zstandard"):
        require_module(coding)
    assert everything.codings == ("zstd", "br", "gzip", "deflate")


def test_small_bodies_are_left_alone(ask: Ask) -> None:
    app = app_answering(lambda: "x" * 999)
    app.route("/more", get(lambda: "x" * 1000))
    answer = asked(ask, app)
    assert answer.header("content-encoding") is None
    assert answer.header("vary") is None
    assert asked(ask, app, "/more").header("content-encoding") == "gzip"
    # Without a coding the client would not take it at all.
    refusing = asked(ask, app, "/it", "gzip, identity;q=0")
    assert (refusing.header("content-encoding"), decoded(refusing)) == ("gzip", b"x" * 999)
    assert asked(ask, app_answering(lambda: "x", minimum_size=1)).header("content-encoding") == "gzip"
    assert asked(ask, app_answering(lambda: "", minimum_size=0)).header("content-encoding") is None


@pytest.mark.parametrize("size", [INLINE, INLINE + 1, 5 * INLINE])
def test_large_bodies(ask: Ask, size: int) -> None:
    body = (b"0123456789" * size)[:size]
    answer = asked(ask, app_answering(lambda: HttpResponse(body, content_type="text/plain")))
    assert (answer.header("content-encoding"), decoded(answer)) == ("gzip", body)


@pytest.mark.parametrize(
    ("media_type", "compressed"),
    [
        ("text/html; charset=utf-8", True),
        ("TEXT/CSS", True),
        ("application/json", True),
        ("application/problem+json", True),
        ("application/vnd.api+json;charset=utf-8", True),
        ("image/svg+xml", True),
        ("application/wasm", True),
        ("text/javascript", True),
        ("font/ttf", True),
        ("application/octet-stream", False),
        ("image/png", False),
        ("image/jpeg", False),
        ("video/mp4", False),
        ("audio/mpeg", False),
        ("application/zip", False),
        ("application/gzip", False),
        ("application/pdf", False),
        ("font/woff2", False),
        ("multipart/byteranges; boundary=x", False),
        ("text", False),
        ("", False),
        (None, False),
    ],
)
def test_media_types(ask: Ask, media_type: str | None, compressed: bool) -> None:
    app = app_answering(lambda: HttpResponse(TEXT.encode(), content_type=media_type))
    answer = asked(ask, app)
    assert (answer.header("content-encoding") == "gzip") is compressed
    assert (answer.header("vary") == "accept-encoding") is compressed


def test_media_types_can_be_chosen(ask: Ask) -> None:
    def coding(media_type: str, **options: Any) -> str | None:
        app = app_answering(lambda: HttpResponse(TEXT, content_type=media_type), **options)
        return asked(ask, app).header("content-encoding")

    assert coding("text/plain", media_types=["application/json"]) is None
    assert coding("application/json", media_types=["application/json"]) == "gzip"
    assert coding("application/x+cbor", media_types=["*+cbor"]) == "gzip"
    assert coding("application/pdf", media_types=["*/*"]) == "gzip"
    assert coding("image/png", media_types=["*/*"], exclude=["image/*"]) is None
    assert coding("text/csv", exclude=["text/csv"]) is None
    assert coding("text/html", exclude=["text/csv"]) == "gzip"


LEFT_ALONE: dict[str, Callable[[], HttpResponse]] = {
    "has a coding": lambda: HttpResponse.text(TEXT, headers={"content-encoding": "br"}),
    "no-transform": lambda: HttpResponse.text(TEXT, headers={"cache-control": "public, No-Transform"}),
    "is a part": lambda: HttpResponse.text(TEXT, headers={"content-range": "bytes 0-9/10"}),
    "has a digest": lambda: HttpResponse.text(TEXT, headers={"repr-digest": "sha-256=:AA==:"}),
    "no content": lambda: HttpResponse.text("", 204),
}


@pytest.mark.parametrize("response", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_is_left_alone(ask: Ask, response: Callable[[], HttpResponse]) -> None:
    plain = ask(App().route("/it", get(response)), "/it")
    answer = asked(ask, app_answering(response))
    assert (answer.status, sorted(answer.fields), answer.body) == (plain.status, sorted(plain.fields), plain.body)


def test_vary_is_merged(ask: Ask) -> None:
    for given, merged in (
        ("origin", ["origin", "accept-encoding"]),
        ("Accept-Encoding", ["Accept-Encoding"]),
        ("Origin, Accept-Encoding", ["Origin, Accept-Encoding"]),
        ("*", ["*"]),
    ):
        answer = asked(ask, app_answering(lambda given=given: HttpResponse.text(TEXT, headers={"vary": given})))
        assert answer.headers("vary") == merged


def test_a_strong_tag_becomes_a_weak_one_and_ranges_are_not_promised(ask: Ask) -> None:
    def tagged(tag: str) -> Callable[[], HttpResponse]:
        return lambda: HttpResponse.text(TEXT, headers={"etag": tag, "accept-ranges": "bytes"})

    for tag in ('"abc"', 'W/"abc"'):
        answer = asked(ask, app_answering(tagged(tag)))
        assert answer.header("etag") == 'W/"abc"'
        assert answer.header("accept-ranges") is None
        plain = asked(ask, app_answering(tagged(tag)), accept="identity")
        assert (plain.header("etag"), plain.header("accept-ranges")) == (tag, "bytes")


@pytest.mark.parametrize(
    ("held", "sent"), [('W/"abc"', 'W/"abc"'), ('"x", W/"abc"', 'W/"abc"'), ('"abc"', '"abc"'), ("*", '"abc"')]
)
def test_not_modified_has_the_tag_that_the_client_has(ask: Ask, held: str, sent: str) -> None:
    app = app_with()

    @app.get("/it")
    async def it(request: HttpRequest) -> HttpResponse:
        return HttpResponse.text(TEXT).with_etag("abc").conditional(request)

    answer = asked(ask, app, if_none_match=held)
    assert (answer.status, answer.header("etag"), answer.body) == (304, sent, b"")
    assert answer.headers("vary") == ["accept-encoding"]


def test_errors_are_compressed_too(ask: Ask) -> None:
    async def error() -> None:
        raise HTTPException(404, TEXT)

    answer = asked(ask, app_answering(error))
    assert (answer.status, answer.header("content-encoding")) == (404, "gzip")
    assert TEXT[:40].encode() in decoded(answer)


# ---- HEAD


def head_and_get(ask: Ask, app: App) -> tuple[Answer, Answer]:
    return asked(ask, app, method="HEAD"), asked(ask, app)


def test_head_has_the_fields_of_get(ask: Ask) -> None:
    head, whole = head_and_get(ask, app_answering(lambda: TEXT))
    # The connection adds the length of a complete body itself.
    length = head.header("content-length")
    assert length in (None, str(len(whole.body)))
    assert head.body == b""
    assert [field for field in head.fields if field[0] != b"content-length"] == [
        field for field in whole.fields if field[0] != b"content-length"
    ]


def test_head_of_a_stream_does_not_run_it() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    async def main(response: HttpResponse) -> None:
        async def call_next(request: Any) -> HttpResponse:
            return response

        request = HttpRequest(None, "HEAD", b"/", raw_headers=[(b"accept-encoding", b"gzip")])
        answer = await CompressionMiddleware(codings=["gzip"])(request, call_next)
        assert answer.headers["content-encoding"] == "gzip"
        assert "content-length" not in answer.headers
        # The connection would say a length of 0 for a body that is complete and empty.
        assert answer.stream is not None
        assert answer.body == b""

    length = {"content-length": "5000"}
    asyncio.run(main(HttpResponse.stream(never(), headers=length, content_type="text/plain")))
    asyncio.run(main(HttpResponse(b"", 200, length, "text/plain")))


# ---- files


def test_files(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text(TEXT)
    (tmp_path / "large.txt").write_text(TEXT * 50)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG" * 1000)
    app = app_with()

    @app.get("/{name}")
    async def file(request: HttpRequest, name: str) -> HttpResponse:
        return await HttpResponse.file(tmp_path / name).prepare(request)

    for name in ("small.txt", "large.txt"):
        whole = asked(ask, app, f"/{name}")
        assert (whole.header("content-encoding"), decoded(whole)) == ("gzip", (tmp_path / name).read_bytes())
        assert (whole.header("etag") or "").startswith('W/"')
        assert whole.header("accept-ranges") is None
        part = asked(ask, app, f"/{name}", range="bytes=0-9")
        assert (part.status, part.body, part.header("content-encoding")) == (206, TEXT[:10].encode(), None)
        assert part.headers("vary") == ["accept-encoding"]
        # A part of what was compressed cannot be asked for: the tag is weak.
        again = asked(ask, app, f"/{name}", range="bytes=0-9", if_range=whole.header("etag") or "")
        assert (again.status, again.header("content-encoding")) == (200, "gzip")
        held = asked(ask, app, f"/{name}", if_none_match=whole.header("etag") or "")
        assert (held.status, held.header("etag")) == (304, whole.header("etag"))
    picture = asked(ask, app, "/photo.png")
    assert (picture.header("content-encoding"), picture.header("vary")) == (None, None)


def test_a_file_that_is_opened_by_the_middleware(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    app = app_answering(lambda: HttpResponse.file(tmp_path / "a.txt"))
    app.route("/none", get(lambda: HttpResponse.file(tmp_path / "none.txt")))
    assert decoded(asked(ask, app)).decode() == TEXT
    assert asked(ask, app, "/none").status == 404


# ---- streams


def test_streams_of_either_kind(ask: Ask) -> None:
    async def numbers() -> AsyncIterator[str]:
        for number in range(2000):
            yield f"{number}\n"

    def lines() -> Iterator[bytes]:
        for number in range(2000):
            yield b"%d\n" % number

    expected = "".join(f"{number}\n" for number in range(2000)).encode()
    for body in (numbers, lines, lambda: list(lines())):
        answer = asked(ask, app_answering(lambda body=body: HttpResponse.stream(body(), content_type="text/plain")))
        assert (answer.header("content-encoding"), decoded(answer)) == ("gzip", expected)
        assert answer.headers("vary") == ["accept-encoding"]


def test_the_announced_length_of_a_stream_counts(ask: Ask) -> None:
    def sized(size: int) -> HttpResponse:
        return HttpResponse.stream([b"x" * size], headers={"content-length": str(size)}, content_type="text/plain")

    small = asked(ask, app_answering(lambda: sized(999)))
    assert (small.header("content-encoding"), small.header("content-length")) == (None, "999")
    large = asked(ask, app_answering(lambda: sized(1000)))
    assert (large.header("content-encoding"), large.header("content-length")) == ("gzip", None)


@pytest.mark.parametrize(
    ("media_type", "flush", "flushed"),
    [
        ("text/event-stream; charset=utf-8", False, True),
        ("application/x-ndjson", False, True),
        ("text/plain", False, False),
        ("text/plain", True, True),
    ],
)
def test_which_streams_are_flushed_piece_by_piece(media_type: str, flush: bool, flushed: bool) -> None:
    async def main() -> None:
        response = HttpResponse.stream([b"a", b"b", b"c"], content_type=media_type)

        async def call_next(request: Any) -> HttpResponse:
            return response

        request = HttpRequest(None, "GET", b"/", raw_headers=[(b"accept-encoding", b"gzip")])
        await CompressionMiddleware(codings=["gzip"], flush=flush)(request, call_next)
        decode = zlib.decompressobj(31)
        pieces: Any = iter(response.stream)  # type: ignore[arg-type]
        got = [decode.decompress(piece) for piece in pieces]
        assert got == ([b"a", b"b", b"c", b""] if flushed else [b"a", b"bc"])

    asyncio.run(main())


def test_a_codec_that_fails_leaves_no_half_response(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def compress(self, data: bytes) -> bytes:
            raise MemoryError("no memory for the codec")

    monkeypatch.setattr(middleware, "make_encoder", lambda *args, **options: Broken())
    answer = asked(ask, app_answering(lambda: TEXT))
    assert (answer.status, answer.header("content-encoding")) == (500, None)


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_size": -1}, "minimum_size must be a number of bytes from 0 on, not -1"),
        ({"codings": "gzip"}, r"codings must be a list, not the str 'gzip'; write \['gzip'\]"),
        ({"codings": ["lzma"]}, "'lzma' is no content coding known here"),
        ({"codings": []}, "codings must name one coding at least"),
        ({"levels": {"gzip": 11}}, "the level of gzip must be a number from 1 to 9, not 11"),
        ({"levels": {"lzma": 1}}, "no content coding"),
        ({"media_types": "text/html"}, "media_types must be a list"),
        ({"media_types": ["text"]}, "'text' is no media type; write such as"),
        ({"media_types": ["*/html"]}, "is no media type"),
        ({"media_types": ["text/h*"]}, "is no media type"),
        ({"exclude": ["*+"]}, "is no media type"),
        ({"exclude": ["*"]}, "is no media type"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CompressionMiddleware(**options)


def test_a_coding_that_was_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_module_of", lambda coding: None)
    assert CompressionMiddleware().codings == ("gzip", "deflate")
    with pytest.raises(MissingDependencyError, match=r"brotli is not installed.*\[compression\]"):
        CompressionMiddleware(codings=["br", "gzip"])


def test_levels_count(ask: Ask) -> None:
    body = " ".join(f"{number * 7919 % 10007}" for number in range(5000))
    sizes = [
        len(asked(ask, app_answering(lambda: body, levels={"gzip": level})).body) for level in (1, 9)
    ]  # fmt: skip
    assert sizes[0] > sizes[1]
