"""What handlers return and raise, with and without middleware, natively and through ASGI."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import decimal
import enum
import http
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, Optional

import attrs
import msgspec
import pydantic
import pytest

from armature import App, ClientDisconnect, ConfigurationError, HTTPException, HttpRequest, HttpResponse, get
from armature.exceptions import RequestValidationError
from armature.pipeline.threads import WorkerPool, default_size
from carrier import Answer, native_ask

Ask = Callable[..., Answer]


ONE = uuid.UUID(int=1)


@dataclasses.dataclass
class Data:
    n: int
    at: uuid.UUID = ONE


class Struct(msgspec.Struct):
    n: int


class Model(pydantic.BaseModel):
    n: int
    price: decimal.Decimal = decimal.Decimal("1.5")


@attrs.define
class Attrs:
    n: int


class Point(NamedTuple):
    x: int
    y: int


class Color(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    DARK = "dark"


def chunks() -> Iterator[str]:
    yield "a"
    yield "b"


async def async_chunks() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


JSON, TEXT, OCTETS = "application/json", "text/plain; charset=utf-8", "application/octet-stream"


@pytest.fixture(params=["plain", "middleware"])
def app(request: pytest.FixtureRequest) -> App:
    """An app, once without and once with middleware: the answers must be the same."""
    app = App()
    if request.param == "middleware":

        @app.middleware
        async def through(request: HttpRequest, call_next: Any) -> HttpResponse:
            response = await call_next(request)
            assert isinstance(response, HttpResponse)
            return response

    return app


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ({"a": 1}, 200, JSON, b'{"a":1}'),
        ([1, {"b": None}], 200, JSON, b'[1,{"b":null}]'),
        ("hé", 200, TEXT, "hé".encode()),
        (b"\x00\x01", 200, OCTETS, b"\x00\x01"),
        (bytearray(b"ab"), 200, OCTETS, b"ab"),
        (None, 204, None, b""),
        (5, 200, JSON, b"5"),
        (1.5, 200, JSON, b"1.5"),
        (True, 200, JSON, b"true"),
        (Data(1), 200, JSON, b'{"n":1,"at":"00000000-0000-0000-0000-000000000001"}'),
        (Struct(1), 200, JSON, b'{"n":1}'),
        (Model(n=1), 200, JSON, b'{"n":1,"price":"1.5"}'),
        (Attrs(1), 200, JSON, b'{"n":1}'),
        ([Model(n=1), Data(2)], 200, JSON, None),
        (Color.RED, 200, JSON, b'"red"'),
        (Shade.DARK, 200, TEXT, b"dark"),
        (Point(1, 200), 200, JSON, b"[1,200]"),
        ((1, 2, 3, 4), 200, JSON, b"[1,2,3,4]"),
        (("a", "b"), 200, JSON, b'["a","b"]'),
        ((1, True), 200, JSON, b"[1,true]"),
        (({"a": 1}, 201), 201, JSON, b'{"a":1}'),
        (("text", http.HTTPStatus.ACCEPTED), 202, TEXT, b"text"),
        ((None, 404), 404, None, b""),
        ((None, 200), 204, None, b""),
        ((b"x", 200, {"content-type": "image/png", "x-a": "1"}), 200, "image/png", b"x"),
        ((HttpResponse.text("r"), 203), 203, TEXT, b"r"),
        ((Data(1), 201, None), 201, JSON, None),
        (HttpResponse.html("<p>"), 200, "text/html; charset=utf-8", b"<p>"),
    ],
)  # fmt: skip
def test_returned_values(
    ask: Ask, app: App, kind: str, value: Any, status: int, content_type: str | None, body: bytes | None
) -> None:
    if kind == "async":

        @app.get("/")
        async def handler() -> Any:
            return value

    else:

        @app.get("/", blocking=kind == "thread")
        def sync_handler() -> Any:
            return value

    answer = ask(app, "/")
    assert (answer.status, answer.header("content-type")) == (status, content_type)
    if body is not None:
        assert answer.body == body


def test_generators_are_streamed(ask: Ask, app: App) -> None:
    app.route("/sync", get(lambda: chunks())).route("/async", get(lambda: async_chunks()))

    @app.get("/own")
    async def own() -> AsyncIterator[bytes]:
        return async_chunks()

    for path in ("/sync", "/async", "/own"):
        assert ask(app, path).body == b"ab"


def test_none_is_null_where_the_annotation_says_it_is_a_value(ask: Ask, app: App) -> None:
    @app.get("/union")
    async def union() -> dict[str, int] | None:
        return None

    @app.get("/optional")
    async def optional() -> Optional[Data]:  # noqa: UP045
        return None

    @app.get("/none")
    async def none() -> None:
        return None

    @app.get("/value")
    async def value() -> dict[str, int] | None:
        return {"a": 1}

    for path in ("/union", "/optional"):
        answer = ask(app, path)
        assert (answer.status, answer.body, answer.header("content-type")) == (200, b"null", JSON)
    assert ask(app, "/none").status == 204
    assert ask(app, "/value").json() == {"a": 1}


def test_what_cannot_be_encoded_names_the_handler(ask: Ask, app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/")
    async def handler() -> Any:
        return {"a": [object()]}

    @app.get("/object")
    async def plain_object() -> Any:
        return object()

    assert ask(app, "/").status == 500
    assert ask(app, "/object").status == 500
    error = caplog.records[1].exc_info
    assert error is not None
    assert error[1] is not None
    assert f"returned by {__name__}.{plain_object.__qualname__}" in error[1].__notes__


def test_bad_headers_in_a_tuple(ask: Ask, app: App, caplog: pytest.LogCaptureFixture) -> None:
    app.route("/", get(lambda: ("x", 200, ["x"])))
    assert ask(app, "/").status == 500
    assert "returned (body, status, headers) with headers of type list" in caplog.text


# ---- exceptions


def test_http_exceptions_are_problem_details(ask: Ask, app: App) -> None:
    @app.get("/{status}")
    async def handler(status: int) -> None:
        raise HTTPException(status, headers={"retry-after": "5"})

    @app.get("/detail")
    async def detail() -> None:
        raise HTTPException(400, {"why": [1]})

    answer = ask(app, "/503")
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert answer.json() == {"title": "Service Unavailable", "status": 503}
    assert ask(app, "/304").body == b""
    assert ask(app, "/detail").json()["detail"] == {"why": [1]}


def test_handlers_are_found_by_status_then_by_the_nearest_class(ask: Ask, app: App) -> None:
    class Base(Exception): ...

    class Derived(Base): ...

    raised: dict[str, Exception] = {
        "/base": Base(), "/derived": Derived(), "/404": HTTPException(404), "/400": HTTPException(400),
        "/key": KeyError("k"), "/invalid": RequestValidationError([]),
    }  # fmt: skip

    @app.get("/{name}")
    async def handler(name: str) -> None:
        raise raised[f"/{name}"]

    @app.exception_handler(Base)
    def base(request: HttpRequest, error: Base) -> dict[str, str]:
        return {"by": f"base {type(error).__name__}"}

    @app.exception_handler(404)
    async def not_found(request: HttpRequest, error: HTTPException) -> HttpResponse:
        return HttpResponse.text(f"none at {request.path}", 404)

    @app.exception_handler(LookupError)
    async def lookup(request: HttpRequest, error: LookupError) -> tuple[str, int]:
        return "lookup", 410

    @app.exception_handler(Exception)
    async def anything(request: HttpRequest, error: Exception) -> HttpResponse:
        return HttpResponse.text("anything", 599)

    answer = ask(app, "/base")
    assert (answer.status, answer.json()) == (500, {"by": "base Base"})
    assert ask(app, "/derived").json() == {"by": "base Derived"}
    assert ask(app, "/404").text == "none at /404"
    assert ask(app, "/a/b").text == "none at /a/b"
    assert (ask(app, "/key").status, ask(app, "/key").text) == (410, "lookup")
    assert ask(app, "/400").status == 400
    assert ask(app, "/invalid").status == 422
    assert ask(app, "/base", "POST").status == 405


def test_a_status_handler_that_returns_a_value_keeps_the_status(ask: Ask, app: App) -> None:
    @app.exception_handler(404)
    async def not_found(request: HttpRequest, error: HTTPException) -> dict[str, str]:
        return {"error": "none"}

    answer = ask(app, "/none")
    assert (answer.status, answer.json()) == (404, {"error": "none"})


@pytest.mark.parametrize("key", [500, Exception])
def test_a_handler_for_whatever_happens(ask: Ask, app: App, key: Any, caplog: pytest.LogCaptureFixture) -> None:
    @app.exception_handler(key)
    async def oops(request: HttpRequest, error: Exception) -> HttpResponse:
        return HttpResponse.text(f"oops {error}", 500)

    @app.get("/")
    async def handler() -> None:
        raise ValueError("v")

    assert ask(app, "/").text == "oops v"
    # The status 500 is the answer to what nobody handled, which is logged; a handler of Exception has handled it.
    assert len(caplog.records) == (1 if key == 500 else 0)


def test_an_exception_handler_that_fails(ask: Ask, app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.exception_handler(ValueError)
    async def oops(request: HttpRequest, error: Exception) -> HttpResponse:
        raise KeyError("in the handler")

    @app.get("/")
    async def handler() -> None:
        raise ValueError("v")

    assert ask(app, "/").status == 500
    (record,) = caplog.records
    assert "unhandled KeyError" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1].__context__, ValueError)  # type: ignore[union-attr]


def test_debug_shows_the_traceback_and_nothing_else_does(ask: Ask) -> None:
    async def handler() -> None:
        raise ValueError("secret")

    plain, debug, responder = App(), App(debug=True), App(debug=True)
    for app in (plain, debug, responder):
        app.add_route("/", handler)
    responder.debug_responder = lambda request, error: HttpResponse.html(f"<h1>{error}</h1>", 500)
    assert "secret" not in ask(plain, "/").text
    assert "ValueError: secret" in ask(debug, "/").text
    assert ask(responder, "/").text == "<h1>secret</h1>"


def test_debug_responder_can_be_set_after_build(ask: Ask) -> None:
    async def handler() -> None:
        raise ValueError("secret")

    app = App(debug=True)
    app.add_route("/", handler)
    app.build()
    app.debug_responder = lambda request, error: HttpResponse.text("late", 500)
    assert ask(app, "/").text == "late"


def test_a_client_that_is_gone_is_no_error(ask: Ask, app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/")
    async def handler() -> None:
        raise ClientDisconnect

    assert ask(app, "/").status == 400
    assert caplog.records == []


def test_what_ends_the_program_is_not_answered() -> None:
    app = App()
    endpoint = app.build().router.find("GET", b"/").endpoint
    request = app.build().request_class(None, "GET", b"/")
    with pytest.raises(SystemExit):
        endpoint.on_error(request, SystemExit(3))
    assert endpoint.on_error(request, asyncio.CancelledError()).status == 500


def test_bad_exception_handlers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes an exception class or a status from 400 to 599, not 200"):
        App().exception_handler(200)(lambda request, error: None)
    with pytest.raises(ConfigurationError, match="must be callable, not str"):
        App(exception_handlers={404: "x"})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="validation_errors must be 'problem' or 'fastapi', not 'x'"):
        App(validation_errors="x")  # type: ignore[arg-type]


def test_log_lines_hold_no_control_characters(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/{x}")
    async def handler(x: str) -> None:
        raise ValueError

    with caplog.at_level(logging.ERROR):
        ask(app, "/a%0Ab\xff")
    assert "GET /a%0Ab\\xff: unhandled" in caplog.records[0].getMessage()


# ---- threads


def test_def_handlers_run_in_threads_with_the_context_of_the_request(ask: Ask, app: App) -> None:
    seen: dict[str, Any] = {}
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @app.get("/thread/{n}")
    def in_thread(n: int, q: str = "") -> str:
        seen["thread"] = threading.current_thread()
        variable.set("changed")
        return f"{n} {q} {variable.get()}"

    @app.get("/inline/{n}", blocking=False)
    def inline(n: int) -> str:
        seen["inline"] = threading.current_thread()
        return str(n)

    assert ask(app, "/thread/1?q=x").text == "1 x changed"
    assert ask(app, "/inline/2").text == "2"
    assert seen["thread"].name.startswith("armature-handler")
    assert seen["inline"] is threading.main_thread()
    assert ask(app, "/thread/x").status == 422
    app.pool.close()


def test_a_bounded_pool_queues_and_does_not_deadlock() -> None:
    app = App(thread_pool_size=2)
    lock, peak, running = threading.Lock(), [0], [0]

    @app.get("/")
    def handler() -> str:
        with lock:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
        threading.Event().wait(0.002)
        with lock:
            running[0] -= 1
        return "done"

    async def many() -> list[Answer]:
        return await asyncio.gather(*(native_ask(app, "GET", "/") for _ in range(200)))

    answers = asyncio.run(many())
    assert {answer.text for answer in answers} == {"done"}
    assert peak[0] == 2
    assert app.pool.stats() == {"size": 2, "busy": 0, "waiting": 0, "finished": 200}
    app.pool.close()


def test_exceptions_of_threads_are_those_of_the_handler(ask: Ask, app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/http")
    def http_error() -> None:
        raise HTTPException(402)

    @app.get("/stop")
    def stop() -> None:
        raise StopIteration

    assert ask(app, "/http").status == 402
    assert ask(app, "/stop").status == 500
    assert "the handler raised StopIteration" in caplog.text


def test_a_decorator_without_async_around_a_coroutine_function_works(ask: Ask, app: App) -> None:
    async def inner() -> str:
        await asyncio.sleep(0)
        return "inner"

    @app.get("/")
    def handler() -> Any:
        return inner()

    @app.get("/inline", blocking=False)
    def inline() -> Any:
        return inner()

    assert (ask(app, "/").text, ask(app, "/inline").text) == ("inner", "inner")


def test_a_pool_starts_again_after_it_was_closed() -> None:
    pool = WorkerPool(1)

    async def twice() -> list[int]:
        first = await pool.run(lambda: 1)
        pool.close()
        pool.close()
        return [first, await pool.run(lambda: 2)]

    assert asyncio.run(twice()) == [1, 2]
    pool.close()
    assert WorkerPool().size == default_size()
    with pytest.raises(ConfigurationError, match="thread_pool_size must be a positive number, not 0"):
        App(thread_pool_size=0)


def test_a_carrier_that_asks_for_it_is_told_what_nobody_handled() -> None:
    told: list[BaseException] = []

    class Listening:
        scheme, client, server = "http", None, None
        app: Any = None

        def unhandled(self, request: HttpRequest, error: BaseException) -> None:
            told.append(error)

    service = App().build()
    endpoint = service.router.find("GET", b"/").endpoint
    request = service.request_class(Listening(), "GET", b"/")
    error = ValueError("v")
    assert endpoint.on_error(request, error).status == 500
    assert endpoint.on_error(request, HTTPException(404)).status == 404
    assert told == [error]
