"""Large JSON answers of handlers: encoded in slices, sent with their length, an ordinary 500 if they cannot be encoded."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from armature import App, HttpRequest, HttpResponse
from armature._spec.limits import JSON_LARGE, JSON_SLICE_BYTES
from armature.http import json_large
from armature.http.json import dumps
from armature.testing import TestClient
from carrier import asgi_ask


def rows(count: int = 20_000) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"number {number}"} for number in range(count)]


@dataclasses.dataclass
class Page:
    count: int
    items: list[Any]


class Turns:
    """How many turns the loop had from a handler's return to the response."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self._task: asyncio.Task[None] | None = None
        self._turns = 0

    def start(self) -> None:
        self._turns = 0
        self._task = asyncio.ensure_future(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0)
            self._turns += 1

    def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        self._task = None
        self.counted.append(self._turns)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    of = json_large.SegmentedResponse.of

    def counted(*arguments: Any) -> Any:
        turns.stop()
        return of(*arguments)

    monkeypatch.setattr(json_large.SegmentedResponse, "of", counted)
    return turns


LARGE: dict[str, tuple[Callable[[], Any], int, Any]] = {
    "list": (rows, 200, rows()),
    "dict": (lambda: {"items": rows()}, 200, {"items": rows()}),
    "dataclass": (lambda: Page(2, rows()), 200, {"count": 2, "items": rows()}),
    "dataclasses": (lambda: [Page(0, [])] * 5_000, 200, [{"count": 0, "items": []}] * 5_000),
    "tuple": (lambda: tuple(rows()), 200, rows()),
    "status": (lambda: (rows(), 201), 201, rows()),
    "headers": (lambda: (rows(), 202, {"x-own": "1"}), 202, rows()),
}


@pytest.mark.parametrize("middleware", [False, True], ids=["plain", "middleware"])
@pytest.mark.parametrize("kind", LARGE)
def test_what_is_large_is_encoded_in_slices(turns: Turns, kind: str, middleware: bool) -> None:
    make, status, plain = LARGE[kind]
    body = dumps(plain)
    app = App()

    @app.get("/")
    async def index() -> Any:
        turns.start()
        return make()

    if middleware:

        @app.middleware
        async def through(request: HttpRequest, call_next: Any) -> HttpResponse:
            response: HttpResponse = await call_next(request)
            assert response.headers["content-length"] == str(len(body))
            return response

    with TestClient(app) as client:
        response = client.get("/")
        assert response.status_code == status
        assert response.content == body
        assert response.headers["content-type"] == "application/json"
        assert response.headers["content-length"] == str(len(body))
        assert "transfer-encoding" not in response.headers
        assert response.headers.get("x-own") == ("1" if kind == "headers" else None)
        head = client.head("/")
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-length"] == str(len(body))
    answer = asyncio.run(asgi_ask(app, "GET", "/"))
    assert (answer.status, answer.body, answer.headers("content-length")) == (status, body, [str(len(body))])
    answer = asyncio.run(asgi_ask(app, "HEAD", "/"))
    assert (answer.status, answer.body, answer.headers("content-length")) == (status, b"", [str(len(body))])
    assert len(turns.counted) == 4
    assert min(turns.counted) >= len(body) // (3 * JSON_SLICE_BYTES)


def test_what_is_small_is_not(turns: Turns) -> None:
    app = App()

    @app.get("/{count}")
    async def index(count: int) -> Any:
        return [0] * count

    with TestClient(app) as client:
        assert client.get(f"/{JSON_LARGE - 2}").json() == [0] * (JSON_LARGE - 2)
    assert turns.counted == []


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.CRITICAL + 1, "armature.app"):
        yield caplog


@pytest.mark.parametrize("middleware", [False, True], ids=["plain", "middleware"])
def test_what_cannot_be_encoded_is_an_ordinary_500(quiet: Any, middleware: bool) -> None:
    app = App()

    @app.get("/")
    async def index() -> Any:
        return [*rows(), {"name": object()}]

    @app.get("/handled")
    async def handled() -> Any:
        return [*rows(), {"name": object()}], 200, {"x-own": "1"}

    if middleware:

        @app.middleware
        async def through(request: HttpRequest, call_next: Any) -> Any:
            return await call_next(request)

    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/")
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert client.get("/").status_code == 500, "the connection goes on"
    assert asyncio.run(asgi_ask(app, "GET", "/")).status == 500
    with TestClient(app) as client:
        for path in ("/", "/handled"):
            with pytest.raises(TypeError, match=r"^\$\[20000\]\.name: cannot encode <class 'object'>") as raised:
                client.get(path)
            assert any("returned by" in note and path.strip("/") in note for note in raised.value.__notes__)


def test_an_exception_handler_is_asked() -> None:
    app = App()

    @app.get("/")
    async def index() -> Any:
        return [*rows(), object()]

    @app.exception_handler(TypeError)
    async def unencodable(request: HttpRequest, error: TypeError) -> Any:
        return {"error": str(error)}, 503

    with TestClient(app) as client:
        response = client.get("/")
        assert response.status_code == 503
        assert response.json() == {"error": "$[20000]: cannot encode <class 'object'>"}


def test_middleware_may_read_and_replace_the_body() -> None:
    app = App()

    @app.get("/")
    async def index() -> Any:
        return rows()

    @app.middleware
    async def sign(request: HttpRequest, call_next: Any) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        response.headers["x-size"] = str(len(response.body))
        if "short" in request.query:
            response.body = response.body[:4]
        return response.with_etag()

    whole = dumps(rows())
    with TestClient(app) as client:
        response = client.get("/")
        assert (response.content, response.headers["x-size"]) == (whole, str(len(whole)))
        assert response.headers["etag"] == HttpResponse(whole).with_etag().headers["etag"]
        assert client.get("/?short").content == whole[:4]
        assert client.get("/?short").headers["content-length"] == "4"


def test_a_status_without_a_body() -> None:
    app = App()

    @app.get("/", status_code=204)
    async def index() -> Any:
        return rows()

    with TestClient(app) as client:
        response = client.get("/")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-length" not in response.headers
    answer = asyncio.run(asgi_ask(app, "GET", "/"))
    assert (answer.status, answer.body, answer.header("content-length")) == (204, b"", None)


def test_a_mount_and_a_default_handler_answer_likewise() -> None:
    inner = App()

    @inner.get("/rows")
    async def inner_rows() -> Any:
        return rows()

    app = App()
    app.mount("/inner", inner)

    async def missing() -> Any:
        return rows(), 404

    app.default_service(missing)

    with TestClient(app) as client:
        assert client.get("/inner/rows").content == dumps(rows())
        response = client.get("/elsewhere")
        assert (response.status_code, response.content) == (404, dumps(rows()))
