"""FileResponse: status, fields and bytes for every kind of request, and descriptors that do not leak."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature._spec.dates import format_http_date
from armature.exceptions import HTTPException
from armature.http import FileResponse, HttpResponse
from armature.http.files import FileBody, MultipartFileBody, content_disposition
from armature.http.media_types import guess_media_type

SMALL = bytes(range(256)) * 4
LARGE = os.urandom(1 << 20)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 10))


async def content_of(response: HttpResponse) -> bytes:
    if response.stream is None:
        return response.body
    if isinstance(response.stream, tuple):
        return b""
    return b"".join([chunk async for chunk in response.stream])  # type: ignore[misc, union-attr]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Every test gives back the descriptors it opened."""
    if not os.path.isdir("/proc/self/fd"):
        yield
        return
    # The executor and the loop of the first run keep some open; they are gone after it.
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    assert descriptors() <= before


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def content(request: pytest.FixtureRequest) -> bytes:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "data.bin"
    file.write_bytes(content)
    os.utime(file, (784111777, 784111777))
    return file


MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
Ask = Callable[..., tuple[HttpResponse, bytes]]


@pytest.fixture
def ask(make_request: Any, path: Path) -> Ask:
    def ask(method: str = "GET", headers: dict[str, str] | None = None, **options: Any) -> tuple[HttpResponse, bytes]:
        async def main() -> tuple[HttpResponse, bytes]:
            response = await HttpResponse.file(path, **options).prepare(make_request(method, headers=headers))
            return response, await content_of(response)

        return run(main())  # type: ignore[no-any-return]

    return ask


def test_whole_file(ask: Ask, content: bytes) -> None:
    response, body = ask()
    assert response.status == 200
    assert body == content
    assert response.content_type == "application/octet-stream"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["last-modified"] == MODIFIED
    assert response.headers["etag"].startswith('"')
    if response.stream is not None:
        assert response.headers["content-length"] == str(len(content))


def test_head(ask: Ask, content: bytes) -> None:
    response, _ = ask("HEAD", headers={"range": "bytes=0-1"})
    assert response.status == 200
    length = int(response.headers["content-length"]) if response.stream is not None else len(response.body)
    assert length == len(content)
    assert not isinstance(response.stream, FileBody)


def test_the_etag_changes_with_the_file(ask: Ask, path: Path, content: bytes) -> None:
    first = ask()[0].headers["etag"]
    assert ask()[0].headers["etag"] == first
    path.write_bytes(content[:-1] + b"?")
    os.utime(path, ns=(0, 784111777 * 10**9 + 1))
    assert ask()[0].headers["etag"] != first


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=100-299", 100, 300), ("bytes=-7", -7, None), ("bytes=9-", 9, None)],
)
def test_single_range(ask: Ask, content: bytes, header: str, start: int, stop: int | None) -> None:
    response, body = ask(headers={"range": header})
    assert response.status == 206
    assert body == content[start:stop]
    first, last = slice(start, stop).indices(len(content))[:2]
    assert response.headers["content-range"] == f"bytes {first}-{last - 1}/{len(content)}"
    assert response.content_type == "application/octet-stream"


def test_several_ranges(ask: Ask, content: bytes) -> None:
    response, body = ask(headers={"range": "bytes=0-9,500-509,-5"})
    assert response.status == 206
    assert "content-range" not in response.headers
    kind, _, boundary = (response.content_type or "").partition("; boundary=")
    assert kind == "multipart/byteranges"
    size = len(content)
    assert body.decode("latin-1") == (
        "".join(
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
            f"{content[start:stop].decode('latin-1')}\r\n"
            for start, stop in ((0, 10), (500, 510), (size - 5, size))
        )
        + f"--{boundary}--\r\n"
    )
    if response.stream is not None:
        assert int(response.headers["content-length"]) == len(body)
    other, _ = ask(headers={"range": "bytes=0-9,500-509,-5"})
    assert other.content_type != response.content_type, "nobody can foresee the boundary"


def test_overlapping_ranges_are_one_part(ask: Ask, content: bytes) -> None:
    response, body = ask(headers={"range": "bytes=0-99,50-149,100-199"})
    assert response.status == 206
    assert response.headers["content-range"] == f"bytes 0-199/{len(content)}"
    assert body == content[:200]


def test_unsatisfiable_range(ask: Ask, content: bytes) -> None:
    response, _ = ask(headers={"range": f"bytes={len(content)}-"})
    assert response.status == 416
    assert response.headers["content-range"] == f"bytes */{len(content)}"
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("header", ["bytes=x", "items=0-1", "bytes=5-2", "bytes=" + "0-0," * 100])
def test_a_range_that_makes_no_sense_is_ignored(ask: Ask, content: bytes, header: str) -> None:
    response, body = ask(headers={"range": header})
    assert (response.status, body) == (200, content)


def test_ranges_are_for_get(ask: Ask, content: bytes) -> None:
    response, body = ask("POST", headers={"range": "bytes=0-1"})
    assert (response.status, body) == (200, content)


def test_if_range(ask: Ask, content: bytes) -> None:
    etag = ask()[0].headers["etag"]
    for value, status in (
        (etag, 206),
        ('"other"', 200),
        (f"W/{etag}", 200),
        (MODIFIED, 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ):
        response, body = ask(headers={"range": "bytes=0-4", "if-range": value})
        assert response.status == status, value
        assert body == (content[:5] if status == 206 else content)


def test_preconditions(ask: Ask) -> None:
    etag = ask()[0].headers["etag"]
    for headers, status in (
        ({"if-none-match": etag}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-modified-since": MODIFIED}, 304),
        ({"if-modified-since": "Sun, 06 Nov 1994 08:49:36 GMT"}, 200),
        ({"if-none-match": '"x"', "if-modified-since": MODIFIED}, 200),
        ({"if-match": etag}, 200),
        ({"if-match": '"x"'}, 412),
        ({"if-unmodified-since": "Sun, 06 Nov 1994 08:49:36 GMT"}, 412),
        ({"if-none-match": etag, "range": "bytes=0-0"}, 304),
        ({"if-match": '"x"', "range": "bytes=0-0"}, 412),
        ({"if-match": etag, "range": "bytes=99999999-"}, 416),
    ):
        for method in ("GET", "HEAD"):
            response, body = ask(method, headers=headers)
            expected = 200 if method == "HEAD" and status == 416 else status
            assert response.status == expected, headers
            if status == 304:
                assert body == b""
                assert response.headers["etag"] == etag
                assert "content-type" not in response.headers
                assert "content-length" not in response.headers


def test_another_status_has_no_ranges_and_no_conditions(ask: Ask, content: bytes) -> None:
    response, body = ask(headers={"range": "bytes=0-1", "if-none-match": "*"}, status=404)
    assert (response.status, body) == (404, content)


def test_own_headers_stand(ask: Ask) -> None:
    response, _ = ask(headers={"if-none-match": '"v1"'}, attachment=True)
    assert response.status == 200
    assert response.headers["content-disposition"] == 'attachment; filename="data.bin"'


def test_own_validators_stand(make_request: Any, path: Path) -> None:
    async def main() -> None:
        file = HttpResponse.file(path, headers={"etag": '"v1"', "last-modified": MODIFIED, "cache-control": "no-store"})
        file.set_cookie("a", "1")
        assert (await file.prepare(make_request(headers={"if-none-match": '"v1"'}))).status == 304
        file.headers["x-late"] = "1"
        answer = await file.prepare(make_request())
        assert answer.headers["etag"] == '"v1"'
        assert answer.headers["x-late"] == "1"
        assert "set-cookie" in answer.headers
        await content_of(answer)

    run(main())


def test_empty_file(make_request: Any, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "empty.txt").touch()
        for headers in ({}, {"range": "bytes=0-"}, {"range": "bytes=-5"}):
            answer = await HttpResponse.file(tmp_path / "empty.txt").prepare(make_request(headers=headers))
            assert (answer.status, answer.body, answer.stream) == (200, b"", None)
            assert answer.content_type == "text/plain; charset=utf-8"

    run(main())


def refused(make_request: Any, path: object) -> int:
    with pytest.raises(HTTPException) as caught:
        run(FileResponse(path).prepare(make_request()))  # type: ignore[arg-type]
    return caught.value.status_code


def test_what_is_no_file(make_request: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (
        tmp_path / "absent",
        tmp_path,
        tmp_path / "file" / "below",
        tmp_path / "loop",
        "/dev/null",
        "x" * 5000,
    ):
        assert refused(make_request, path) == 404, path


def test_pipes_and_sockets_are_not_opened(make_request: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(make_request, tmp_path / "pipe") == 404
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert refused(make_request, tmp_path / "socket") == 404


def test_a_file_that_may_not_be_read(make_request: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError

    # Not by its mode: the tests may run as a user who may read everything.
    monkeypatch.setattr(os, "open", refuse)
    assert refused(make_request, path) == 403


def test_arguments() -> None:
    with pytest.raises(ValueError, match="NUL"):
        FileResponse("a\0b")
    with pytest.raises(ValueError, match="chunk_size"):
        FileResponse("a", chunk_size=0)
    assert FileResponse("a.html").content_type == "text/html; charset=utf-8"
    assert FileResponse("a.html", content_type="text/x").content_type == "text/x"
    assert FileResponse("a.html", headers={"content-type": "text/y"}).content_type == "text/y"
    assert FileResponse("a", filename="b.pdf").content_type == "application/pdf"
    assert "content-disposition" not in FileResponse("a.html").headers


# ---- bodies


def test_a_body_can_be_handed_to_sendfile(make_request: Any, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "large"
        file.write_bytes(LARGE)
        answer = await HttpResponse.file(file).prepare(make_request(headers={"range": "bytes=1000-700999"}))
        body = answer.stream
        assert isinstance(body, FileBody)
        assert (body.offset, body.count) == (1000, 700_000)
        assert os.pread(body.fileno(), 5, body.offset) == LARGE[1000:1005]
        body.close()
        body.close()
        with pytest.raises(ValueError, match="closed"):
            body.fileno()
        with pytest.raises(ValueError, match="closed"):
            await content_of(answer)

    run(main())


def test_chunks_are_of_the_size_asked_for(make_request: Any, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "large"
        file.write_bytes(LARGE)
        answer = await HttpResponse.file(file, chunk_size=300_000).prepare(make_request())
        body: Any = answer.stream
        assert [len(chunk) async for chunk in body] == [300_000, 300_000, 300_000, len(LARGE) - 900_000]
        with pytest.raises(RuntimeError, match="already"):
            aiter(body)

    run(main())


def test_a_file_that_shrinks_breaks_the_response_off(make_request: Any, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "large"
        file.write_bytes(LARGE)
        answer = await HttpResponse.file(file).prepare(make_request())
        os.truncate(file, 1000)
        with pytest.raises(OSError, match="shorter"):
            await content_of(answer)

    run(main())


def test_a_body_is_closed_when_its_reader_leaves(make_request: Any, tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "large"
        file.write_bytes(LARGE)
        for headers in ({}, {"range": "bytes=0-9,500000-999999"}):
            answer = await HttpResponse.file(file).prepare(make_request(headers=headers))
            iterator: Any = aiter(answer.stream)  # type: ignore[arg-type]
            await anext(iterator)
            await iterator.aclose()
            with pytest.raises(ValueError, match="closed"):
                answer.stream.fileno()  # type: ignore[union-attr]
            unread = await HttpResponse.file(file).prepare(make_request(headers=headers))
            await unread.stream.aclose()  # type: ignore[union-attr]

    run(main())


def test_a_body_nobody_sent_closes_its_file(make_request: Any, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    answer = run(HttpResponse.file(file).prepare(make_request()))
    assert isinstance(answer.stream, FileBody)
    del answer


def test_closing_while_a_thread_reads_waits_for_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    body = FileBody(os.open(file, os.O_RDONLY), 0, 3)
    inside, go_on = threading.Event(), threading.Event()
    real = os.pread

    def slow(fd: int, count: int, offset: int) -> bytes:
        inside.set()
        assert go_on.wait(5)
        return real(fd, count, offset)

    monkeypatch.setattr(os, "pread", slow)
    got: list[bytes] = []
    opened = body.file
    reader = threading.Thread(target=lambda: got.append(opened.read(3, 0)))
    reader.start()
    assert inside.wait(5)
    body.close()
    assert opened.fileno() >= 0, "the descriptor must stay open, or the kernel might read another file"
    go_on.set()
    reader.join(5)
    assert got == [b"abc"]
    with pytest.raises(ValueError, match="closed"):
        opened.fileno()


def test_the_length_of_a_multipart_body_is_known_before(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "file"
        file.write_bytes(LARGE)
        for content_type in ("text/x", None):
            body = MultipartFileBody(os.open(file, os.O_RDONLY), [(0, 5), (9, 500_000)], len(LARGE), content_type, "b")
            assert sum([len(chunk) async for chunk in body]) == body.length

    run(main())


# ---- names


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ('a"b\\c.txt', 'attachment; filename="a\\"b\\\\c.txt"'),
        ("naïve €.txt", "attachment; filename=\"na_ve _.txt\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt"),
        ("100%41.txt", "attachment; filename=\"100_41.txt\"; filename*=UTF-8''100%2541.txt"),
        ("a;b=c.txt", 'attachment; filename="a;b=c.txt"'),
        ("x'y*z.txt", 'attachment; filename="x\'y*z.txt"'),
        ("ü'*()", "attachment; filename=\"_'*()\"; filename*=UTF-8''%C3%BC%27%2A%28%29"),
    ],
)
def test_content_disposition(filename: str, header: str) -> None:
    assert content_disposition(filename) == header
    assert content_disposition(filename, attachment=False) == header.replace("attachment", "inline")
    assert FileResponse("x", filename=filename).headers["content-disposition"] == header


def test_inline() -> None:
    assert (
        FileResponse("x", filename="a.txt", attachment=False).headers["content-disposition"]
        == 'inline; filename="a.txt"'
    )


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/gzip"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.unknown", "application/octet-stream"),
        ("README", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("dir.html/README", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
    ],
)
def test_media_types(name: str, media_type: str) -> None:
    assert guess_media_type(name) == media_type


def test_dates_before_1970(make_request: Any, tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_bytes(b"x")
    os.utime(file, (-1000, -1000))
    answer = run(HttpResponse.file(file).prepare(make_request()))
    assert answer.headers["last-modified"] == format_http_date(-1000)
