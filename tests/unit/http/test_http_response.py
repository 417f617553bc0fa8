"""HttpResponse: every constructor, streams, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from armature.http import URL, FileResponse, HttpRequest, HttpResponse
from armature.http.streams import mapped


def test_a_response_has_no_dict() -> None:
    assert not hasattr(HttpResponse(), "__dict__")


@pytest.mark.parametrize(
    ("response", "status", "content_type", "body"),
    [
        (HttpResponse(), 200, None, b""),
        (HttpResponse(b"x"), 200, None, b"x"),
        (HttpResponse("é"), 200, "text/plain; charset=utf-8", "é".encode()),
        (HttpResponse("x", 418, content_type="text/x"), 418, "text/x", b"x"),
        (HttpResponse(bytearray(b"x")), 200, None, b"x"),
        (HttpResponse(memoryview(b"x")), 200, None, b"x"),
        (HttpResponse.json({"a": 1}), 200, "application/json", b'{"a":1}'),
        (HttpResponse.json(None, status=201), 201, "application/json", b"null"),
        (HttpResponse.json([], content_type="application/geo+json"), 200, "application/geo+json", b"[]"),
        (HttpResponse.text("x"), 200, "text/plain; charset=utf-8", b"x"),
        (HttpResponse.html("<p>", status=404), 404, "text/html; charset=utf-8", b"<p>"),
        (HttpResponse.empty(), 200, None, b""),
        (HttpResponse.empty(418), 418, None, b""),
        (HttpResponse.ok(), 200, None, b""),
        (HttpResponse.ok("x"), 200, "text/plain; charset=utf-8", b"x"),
        (HttpResponse.ok(b"x"), 200, "application/octet-stream", b"x"),
        (HttpResponse.ok({"a": 1}), 200, "application/json", b'{"a":1}'),
        (HttpResponse.ok(0), 200, "application/json", b"0"),
        (HttpResponse.ok([]), 200, "application/json", b"[]"),
        (HttpResponse.ok("x", content_type="text/css"), 200, "text/css", b"x"),
        (HttpResponse.created(), 201, None, b""),
        (HttpResponse.created({"id": 1}), 201, "application/json", b'{"id":1}'),
        (HttpResponse.accepted("later"), 202, "text/plain; charset=utf-8", b"later"),
        (HttpResponse.no_content(), 204, None, b""),
    ],
)
def test_constructors(response: HttpResponse, status: int, content_type: str | None, body: bytes) -> None:
    assert response.status == response.status_code == status
    assert response.content_type == response.media_type == content_type
    assert response.body == body
    assert response.stream is None


@pytest.mark.parametrize(
    ("name", "status", "title"),
    [
        ("bad_request", 400, "Bad Request"),
        ("unauthorized", 401, "Unauthorized"),
        ("forbidden", 403, "Forbidden"),
        ("not_found", 404, "Not Found"),
        ("conflict", 409, "Conflict"),
        ("gone", 410, "Gone"),
        ("unprocessable", 422, "Unprocessable Content"),
        ("too_many_requests", 429, "Too Many Requests"),
        ("server_error", 500, "Internal Server Error"),
        ("unavailable", 503, "Service Unavailable"),
    ],
)
def test_errors(name: str, status: int, title: str) -> None:
    make = getattr(HttpResponse, name)
    plain = make()
    assert (plain.status, plain.content_type) == (status, "application/problem+json")
    assert json.loads(plain.body) == {"title": title, "status": status}
    assert json.loads(make("because").body) == {"title": title, "status": status, "detail": "because"}
    own = make({"code": 5}, headers={"x-a": "1"})
    assert (own.status, own.content_type, own.body) == (status, "application/json", b'{"code":5}')
    assert own.headers["x-a"] == "1"


def test_fields_of_errors() -> None:
    assert HttpResponse.unauthorized(challenge="Bearer").headers["www-authenticate"] == "Bearer"
    assert HttpResponse.method_not_allowed(["GET", "HEAD"]).headers["allow"] == "GET, HEAD"
    assert HttpResponse.too_many_requests(retry_after=5).headers["retry-after"] == "5"
    assert HttpResponse.unavailable(retry_after=5).headers["retry-after"] == "5"


def test_problem_details() -> None:
    response = HttpResponse.problem(
        status=409,
        title="Taken",
        detail="the name is taken",
        type="https://example.org/taken",
        instance="/users/5",
        headers={"x-a": "1"},
        name="ada",
    )
    assert response.status == 409
    assert response.content_type == "application/problem+json"
    assert list(json.loads(response.body).items()) == [
        ("type", "https://example.org/taken"),
        ("title", "Taken"),
        ("status", 409),
        ("detail", "the name is taken"),
        ("instance", "/users/5"),
        ("name", "ada"),
    ]
    assert response.headers["x-a"] == "1"
    assert json.loads(HttpResponse.problem(status=409, title="…").body) == {"title": "…", "status": 409}
    assert json.loads(HttpResponse.problem(599).body)["title"] == "Error"


@pytest.mark.parametrize("body", [{}, [], {"a": 1}, 5, 1.5, object(), (1,), None])
def test_the_plain_constructor_takes_text_and_bytes_only(body: Any) -> None:
    with pytest.raises(TypeError, match=r"HttpResponse\.json"):
        HttpResponse(body)


@pytest.mark.parametrize("status", [0, 99, 100, 199, 600, -1, 1000])
def test_status_is_in_range(status: int) -> None:
    with pytest.raises(ValueError, match="200 to 599"):
        HttpResponse(b"", status)


def test_headers_and_types_given_to_constructors() -> None:
    response = HttpResponse.json({}, headers={"Content-Type": "application/x", "X-A": "1"})
    assert response.headers.multi_items() == [("content-type", "application/x"), ("x-a", "1")]
    response.content_type = "text/x"
    assert response.headers.getall("content-type") == ["text/x"]
    response.content_type = None
    assert response.content_type is None
    response.content_type = None
    response.status_code = 202
    assert response.status == 202
    pairs = HttpResponse(headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")])
    assert pairs.headers.getall("set-cookie") == ["a=1", "b=2"]
    assert repr(HttpResponse("ab")) == "<HttpResponse 200 text/plain; charset=utf-8, 2 bytes>"


def test_location() -> None:
    assert HttpResponse.created({"id": 1}, location="/users/é").headers["location"] == "/users/%C3%A9"
    response = HttpResponse.redirect("/x y")
    assert (response.status, response.headers["location"], response.body) == (307, "/x%20y", b"")
    assert HttpResponse.redirect(URL("https://a.example/"), status=303).headers["location"] == "https://a.example/"
    assert HttpResponse.redirect("/\\evil.example").headers["location"] == "/%5Cevil.example"
    for status in (200, 304, 400):
        with pytest.raises(ValueError, match="redirect"):
            HttpResponse.redirect("/", status)


# ---- streams


def chunks() -> Iterator[bytes]:
    yield b"a"
    yield b"b"


async def asynchronous() -> AsyncIterator[bytes]:
    yield b"a"


def test_stream() -> None:
    iterator = chunks()
    response = HttpResponse.stream(iterator, status=201, headers={"x-a": "1"}, content_type="text/x")
    assert isinstance(response, HttpResponse)
    assert response.stream is iterator
    assert (response.status, response.content_type, response.headers["x-a"]) == (201, "text/x", "1")
    assert HttpResponse.stream(chunks()).content_type == "application/octet-stream"
    assert HttpResponse.stream([b"a"]).stream == [b"a"]
    later = HttpResponse()
    later.stream = asynchronous()
    assert later.stream is not None
    assert repr(response) == "<HttpResponse 201 text/x, stream>"


def test_stream_of_a_subclass() -> None:
    class Own(HttpResponse):
        __slots__ = ()

    assert type(Own.stream(chunks())) is Own
    assert type(Own.ndjson([1])) is Own
    assert type(Own.json(1)) is Own


@pytest.mark.parametrize("wrong", [b"abc", "abc", 5, None, {"a": 1}])
def test_a_stream_is_an_iterator(wrong: Any) -> None:
    with pytest.raises(TypeError, match="iterator"):
        HttpResponse.stream(wrong)
    with pytest.raises(TypeError, match="iterator"):
        HttpResponse.ndjson(wrong)
    with pytest.raises(TypeError, match="iterator"):
        HttpResponse.sse(wrong)


def collect(stream: Any) -> list[bytes]:
    if not hasattr(stream, "__aiter__"):
        return list(stream)

    async def main() -> list[bytes]:
        return [chunk async for chunk in stream]

    return asyncio.run(main())


async def rows() -> AsyncIterator[dict[str, int]]:
    yield {"a": 1}
    yield {"a": 2}


def test_ndjson() -> None:
    for items in ([{"a": 1}, {"a": 2}], rows()):
        response = HttpResponse.ndjson(items)
        assert response.content_type == "application/x-ndjson"
        assert collect(response.stream) == [b'{"a":1}\n', b'{"a":2}\n']


def test_sse() -> None:
    response = HttpResponse.sse(["a", {"data": 1, "id": "5"}])
    assert response.content_type == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert collect(response.stream) == [b"data: a\n\n", b"id: 5\ndata: 1\n\n"]
    assert HttpResponse.sse([], headers={"cache-control": "no-store"}).headers["cache-control"] == "no-store"


def test_closing_a_mapped_stream_closes_its_source_at_once() -> None:
    closed: list[str] = []

    def source() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("sync")

    async def asynchronous_source() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("async")

    stream: Any = HttpResponse.ndjson(source()).stream
    assert next(stream) == b"1\n"
    stream.close()
    assert closed == ["sync"]

    async def main() -> None:
        stream: Any = HttpResponse.ndjson(asynchronous_source()).stream
        assert await anext(stream) == b"1\n"
        await stream.aclose()
        assert closed == ["sync", "async"]
        await HttpResponse.ndjson(asynchronous_source()).stream.aclose()  # type: ignore[union-attr]

    asyncio.run(main())
    nothing_to_close: Any = mapped(bytes, [1])
    nothing_to_close.close()


def test_a_file_response_waits_to_be_prepared() -> None:
    response = HttpResponse.file("report.pdf")
    assert isinstance(response, FileResponse)
    assert response.stream is not None, "the connection must not answer with an empty body"
    assert response.content_type == "application/pdf"


def test_etag() -> None:
    response = HttpResponse.json({"a": 1}).with_etag()
    assert response.headers["etag"] == HttpResponse.json({"a": 1}).with_etag().headers["etag"]
    assert response.headers["etag"] != HttpResponse.json({"a": 2}).with_etag().headers["etag"]
    assert HttpResponse().with_etag("v1", weak=True).headers["etag"] == 'W/"v1"'
    assert HttpResponse().with_etag('W/"v1"').headers["etag"] == 'W/"v1"'
    with pytest.raises(ValueError, match="stream"):
        HttpResponse.stream(chunks()).with_etag()
    assert HttpResponse.stream(chunks()).with_etag("a").headers["etag"] == '"a"'


def test_conditional(make_request: Any) -> None:
    def answer(request: HttpRequest, status: int = 200) -> HttpResponse:
        response = HttpResponse.json({"a": 1}, status=status, headers={"cache-control": "no-cache", "x-a": "1"})
        response.set_cookie("a", "1")
        return response.with_etag("v1").conditional(request)

    hit = answer(make_request(headers={"if-none-match": 'W/"v1"'}))
    assert (hit.status, hit.body) == (304, b"")
    assert set(hit.headers) == {"etag", "cache-control", "x-a", "set-cookie"}
    assert answer(make_request(headers={"if-none-match": '"v2"'})).status == 200
    assert answer(make_request(headers={"if-match": '"v2"'})).status == 412
    assert answer(make_request(headers={"if-match": '"v1"'})).status == 200
    assert answer(make_request(headers={"if-none-match": '"v1"'}), 404).status == 404
    assert answer(make_request("POST", headers={"if-none-match": '"v1"'})).status == 200
