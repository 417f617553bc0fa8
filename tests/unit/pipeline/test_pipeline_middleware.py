"""Middleware: one task, one context, the real response, errors where they belong, and no cost where there is none."""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from armature import APIRouter, App, ConfigurationError, HTTPException, HttpRequest, HttpResponse, Router, get
from armature._spec.plan import CALL_BARE
from carrier import Answer, native_ask

Ask = Callable[..., Answer]
CallNext = Callable[[HttpRequest], Any]


def tagging(name: str, log: list[str]) -> Any:
    async def middleware(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        log.append(f"> {name}")
        response: HttpResponse = await call_next(request)
        log.append(f"< {name}")
        return response

    return middleware


def test_the_last_one_added_is_the_outermost(ask: Ask) -> None:
    log: list[str] = []
    inner, app = Router("/in"), App(middleware=[tagging("given 1", log), tagging("given 2", log)])
    app.middleware(tagging("first", log))
    app.add_middleware(tagging("second", log))
    app.wrap(tagging("third", log))
    inner.wrap(tagging("router 1", log)).wrap(tagging("router 2", log))
    inner.route("/", get(lambda: log.append("handler")))
    app.include_router(inner)
    assert ask(app, "/in/").status == 204
    names = ["third", "second", "first", "given 1", "given 2", "router 2", "router 1"]
    assert log == [f"> {name}" for name in names] + ["handler"] + [f"< {name}" for name in reversed(names)]


def test_fastapis_spellings(ask: Ask) -> None:
    app = App()

    @app.middleware("http")
    async def timing(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        response.headers["server-timing"] = "app"
        return response

    class Adding:
        def __init__(self, name: str, value: str = "x") -> None:
            self.field = (name, value)

        async def __call__(self, request: HttpRequest, call_next: CallNext) -> HttpResponse:
            response: HttpResponse = await call_next(request)
            response.headers.add(*self.field)
            return response

    app.add_middleware(Adding, name="x-a", value="1")
    app.add_middleware(Adding("x-b"))
    app.route("/", get(lambda: "hi"))
    answer = ask(app, "/")
    assert [answer.header(name) for name in ("server-timing", "x-a", "x-b")] == ["app", "1", "x"]


@pytest.mark.parametrize("path", ["/", "/none", "/slash"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_it_sees_every_answer_also_those_of_the_framework(ask: Ask, path: str, method: str) -> None:
    app = App()

    @app.middleware
    async def mark(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        response.headers["x-seen"] = str(response.status)
        return response

    app.route("/", get(lambda: "hi")).route("/slash/", get(lambda: "hi"))
    answer = ask(app, path, method)
    assert answer.header("x-seen") == str(answer.status)


def test_only_routes_below_a_router_pay_for_its_middleware() -> None:
    log: list[str] = []
    app, inner = App(), APIRouter(prefix="/in")

    async def handler() -> str:
        return "x"

    inner.wrap(tagging("inner", log))
    inner.add_route("/x", handler)
    app.add_route("/x", handler)
    app.include_router(inner)
    router = app.build().router
    free, wrapped = router.find("GET", b"/x").endpoint, router.find("GET", b"/in/x").endpoint
    assert (free.call, free.mode) == (handler, CALL_BARE)
    assert wrapped.call is not handler


def test_refusals_below_a_prefix_go_through_its_middleware(ask: Ask) -> None:
    log: list[str] = []
    app, inner = App(), Router("/in")
    inner.wrap(tagging("inner", log)).route("/x", get(lambda: "x"))
    app.wrap(tagging("outer", log)).route("/x", get(lambda: "x"))
    app.include_router(inner)
    for path, method, status, inside in [
        ("/in/none", "GET", 404, True),
        ("/in/x", "POST", 405, True),
        ("/in/x", "OPTIONS", 204, True),
        ("/none", "GET", 404, False),
        ("/x", "POST", 405, False),
        ("/inx", "GET", 404, False),
    ]:
        log.clear()
        assert ask(app, path, method).status == status
        assert ("> inner" in log, log[0]) == (inside, "> outer")


def test_it_runs_in_the_task_and_the_context_of_the_handler(ask: Ask) -> None:
    down: contextvars.ContextVar[str] = contextvars.ContextVar("down")
    up: contextvars.ContextVar[str] = contextvars.ContextVar("up")
    tasks: list[Any] = []
    app = App()

    @app.middleware
    async def outer(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        tasks.append(asyncio.current_task())
        down.set("from middleware")
        response: HttpResponse = await call_next(request)
        response.headers["x-up"] = up.get()
        return response

    @app.get("/")
    async def handler() -> str:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        up.set("from handler")
        return down.get()

    answer = ask(app, "/")
    assert (answer.text, answer.header("x-up")) == ("from middleware", "from handler")
    assert tasks[0] is tasks[1]


def test_the_response_is_the_handlers_own_object_and_streams_are_not_spooled() -> None:
    steps: list[str] = []
    seen: list[HttpResponse] = []
    app = App()

    @app.middleware
    async def outer(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        seen.append(response)
        steps.append("middleware done")
        return response

    async def chunks() -> AsyncIterator[bytes]:
        try:
            for number in range(3):
                steps.append(f"chunk {number}")
                yield b"x"
        finally:
            steps.append("closed")

    made: list[HttpResponse] = []

    @app.get("/")
    async def handler() -> HttpResponse:
        made.append(HttpResponse.stream(chunks()))
        return made[0]

    answer = asyncio.run(native_ask(app, "GET", "/"))
    assert answer.body == b"xxx"
    assert seen[0] is made[0]
    assert steps == ["middleware done", "chunk 0", "chunk 1", "chunk 2", "closed"]


def test_it_can_answer_in_place_of_the_handler_and_call_it_twice(ask: Ask) -> None:
    calls: list[int] = []
    app = App()

    @app.middleware
    async def outer(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        if request.path == "/no":
            return HttpResponse.text("denied", 403)
        await call_next(request)
        return await call_next(request)  # type: ignore[no-any-return]

    app.route("/no", get(lambda: calls.append(1))).route("/twice", get(lambda: calls.append(2)))
    assert (ask(app, "/no").text, calls) == ("denied", [])
    assert ask(app, "/twice").status == 204
    assert calls == [2, 2]


def test_handled_exceptions_are_responses_by_the_time_middleware_sees_them(ask: Ask) -> None:
    class Teapot(Exception): ...

    app = App()
    seen: list[int] = []

    @app.middleware
    async def outer(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        seen.append(response.status)
        return response

    @app.middleware
    async def outermost(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        return await call_next(request)  # type: ignore[no-any-return]

    @app.exception_handler(Teapot)
    async def teapot(request: HttpRequest, error: Teapot) -> HttpResponse:
        return HttpResponse.text("teapot", 418)

    @app.get("/http")
    async def http() -> None:
        raise HTTPException(409, "taken", headers={"x-why": "taken"})

    @app.get("/own")
    async def own() -> None:
        raise Teapot

    @app.get("/bad")
    async def bad(n: int) -> None: ...

    answer = ask(app, "/http")
    assert (answer.status, answer.header("x-why")) == (409, "taken")
    assert answer.json() == {"title": "Conflict", "status": 409, "detail": "taken"}
    assert (ask(app, "/own").status, ask(app, "/bad?n=x").status) == (418, 422)
    assert seen == [409, 418, 422]


def test_exceptions_of_middleware_are_handled_where_they_are_raised(ask: Ask) -> None:
    app = App()
    app.route("/", get(lambda: "x"))

    @app.middleware
    async def inner(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        raise HTTPException(401)

    @app.middleware
    async def outer(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        response.headers["x-outer"] = str(response.status)
        return response

    assert ask(app, "/").header("x-outer") == "401"


def test_unhandled_exceptions_pass_through_and_are_logged_once(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    passed: list[str] = []

    @app.middleware
    async def one(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        try:
            return await call_next(request)  # type: ignore[no-any-return]
        except ZeroDivisionError as error:
            passed.append(type(error).__name__)
            raise

    @app.middleware
    async def two(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        return await call_next(request)  # type: ignore[no-any-return]

    @app.get("/{n}")
    async def divide(n: int) -> float:
        return 1 / n

    answer = ask(app, "/0")
    assert answer.status == 500
    assert answer.json() == {"title": "Internal Server Error", "status": 500}
    assert passed == ["ZeroDivisionError"]
    (record,) = caplog.records
    assert record.name == "armature.app"
    assert record.getMessage().startswith("GET /0: unhandled ZeroDivisionError in ")
    assert f"divide ({__file__}:{divide.__code__.co_firstlineno})" in record.getMessage()
    assert record.exc_info is not None
    frames = [frame.name for frame in traceback.extract_tb(record.exc_info[2])]
    ours = frames[frames.index("link") :]
    assert ours == ["link", "two", "link", "one", "plan", "divide"]


def test_middleware_that_forgets_its_response_is_named(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.route("/", get(lambda: "x"))

    @app.middleware
    async def forgetful(request: HttpRequest, call_next: CallNext) -> None:  # type: ignore[type-var]
        await call_next(request)

    @app.middleware
    async def outer(request: HttpRequest, call_next: CallNext) -> HttpResponse:
        response: HttpResponse = await call_next(request)
        response.headers["x"] = "y"
        return response

    assert ask(app, "/").status == 500
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == (
        f"middleware {__name__}.{forgetful.__qualname__} at {__file__}:{forgetful.__code__.co_firstlineno} "
        "returned NoneType, not a response; it must return what `await call_next(request)` returned, "
        "or an HttpResponse of its own"
    )


def test_a_chain_is_folded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from armature.app import assembly
    from armature.pipeline import compile as compiling

    folded: list[int] = []
    original = compiling.fold
    for module in (assembly, compiling):
        monkeypatch.setattr(module, "fold", lambda *arguments: folded.append(1) or original(*arguments))
    app = App()
    app.wrap(tagging("a", [])).route("/", get(lambda: "x"))

    async def many() -> None:
        for _ in range(200):
            await native_ask(app, "GET", "/")

    asyncio.run(many())
    # The route, and the two answers that no route gives: no such path, no such method.
    assert len(folded) <= 4


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (lambda request, call_next: None, "must be `async def \\(request, call_next\\)`"),
        (5, "5 is no middleware: it cannot be called"),
        (tagging, "must be `async def"),
    ],
)
def test_what_is_no_middleware(middleware: Any, message: str) -> None:
    app = App()
    app.add_middleware(middleware)
    with pytest.raises(ConfigurationError, match=message):
        app.build()


def test_asgi_middleware_is_told_where_it_belongs() -> None:
    class ASGIMiddleware:
        def __init__(self, app: Any) -> None: ...
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    app = App()
    app.add_middleware(ASGIMiddleware)
    with pytest.raises(ConfigurationError, match=r"put around the whole app instead: `asgi = Middleware\(app\)`"):
        app.build()
    other = App()
    other.add_middleware(ASGIMiddleware(None))
    with pytest.raises(ConfigurationError, match="must take two arguments, the request and call_next; ASGI middleware"):
        other.build()
    with pytest.raises(ConfigurationError, match=r"got arguments for .* which is no class"):
        App().add_middleware(tagging("x", []), 5)
    with pytest.raises(ConfigurationError, match="of kind 'http' only, not 'websocket'"):
        App().middleware("websocket")
