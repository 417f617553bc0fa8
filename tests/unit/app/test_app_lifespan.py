"""Start in order, stop in reverse, unwind what had started when something fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from armature import APIRouter, App, ConfigurationError, Router


def lives(log: list[str], name: str, fails: str = "") -> Callable[[Any], Any]:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        log.append(f"start {name}")
        if fails == "start":
            raise RuntimeError(f"{name} failed")
        try:
            yield
        finally:
            log.append(f"stop {name}")
            if fails == "stop":
                raise RuntimeError(f"{name} failed to stop")

    return lifespan


def live(app: Router, log: list[str] | None = None) -> None:
    async def run() -> None:
        async with app.build().lifespan():
            if log is not None:
                log.append("serving")

    asyncio.run(run())


def test_everything_starts_in_order_and_stops_in_reverse() -> None:
    log: list[str] = []
    app = App(lifespan=lives(log, "app"), on_startup=[lambda: log.append("startup 1")])
    router = APIRouter(prefix="/r", lifespan=lives(log, "router"))
    inner = Router(lifespan=lives(log, "inner"))
    sub = App(lifespan=lives(log, "sub"))
    legacy = Starlette(lifespan=lives(log, "legacy"))
    router.include_router(inner)
    app.include_router(router)
    app.mount("/sub", sub)
    app.mount("/legacy", legacy)
    app.include_router(inner, prefix="/again")

    @app.on_event("startup")
    async def startup() -> None:
        log.append("startup 2")

    @app.on_event("shutdown")
    async def shutdown() -> None:
        log.append("shutdown 1")

    app.add_event_handler("shutdown", lambda: log.append("shutdown 2"))
    live(app, log)
    assert log == [
        "start app", "startup 1", "startup 2", "start router", "start inner", "start sub", "start legacy",
        "serving",
        "stop legacy", "stop sub", "stop inner", "stop router", "shutdown 1", "shutdown 2", "stop app",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_failure_unwinds_what_had_started(number: int) -> None:
    log: list[str] = []
    app = App(lifespan=lives(log, "0", "start" if number == 0 else ""), on_shutdown=[lambda: log.append("shutdown")])
    app.include_router(Router(lifespan=lives(log, "1", "start" if number == 1 else "")))
    app.mount("/x", App(lifespan=lives(log, "2", "start" if number == 2 else "")))
    with pytest.raises(RuntimeError, match=f"{number} failed"):
        live(app, log)
    started = [f"start {n}" for n in range(number + 1)]
    stopped = [f"stop {n}" for n in reversed(range(number))]
    if number:
        stopped.insert(-1, "shutdown")
    assert log == started + stopped


def test_a_mounted_asgi_app_that_does_not_start_stops_the_start() -> None:
    app = App()
    app.mount("/legacy", Starlette(lifespan=lives([], "legacy", "start")))
    with pytest.raises(ConfigurationError, match=r"(?s)a mounted ASGI app did not start: .*legacy failed"):
        live(app)


def test_a_mounted_asgi_app_without_a_lifespan_is_left_alone() -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        return None

    log: list[str] = []
    app = App()
    app.mount("/a", refuses)
    app.mount("/b", returns)
    live(app, log)
    assert log == ["serving"]


def test_failures_at_the_end_are_raised_and_the_rest_still_stops(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    def first() -> None:
        raise RuntimeError("first")

    def second() -> None:
        raise ValueError("second")

    app = App(lifespan=lives(log, "app"), on_shutdown=[first, lambda: log.append("shutdown")])
    app.mount("/legacy", Starlette(lifespan=lives(log, "legacy", "stop")))
    with pytest.raises(RuntimeError, match="first"):
        live(app)
    assert log == ["start app", "start legacy", "stop legacy", "shutdown", "stop app"]
    assert "did not stop as it should" in caplog.text
    both = App(on_shutdown=[first, second])
    with pytest.raises(ExceptionGroup, match="functions called at shutdown failed"):
        live(both)


def test_what_a_lifespan_yields_is_in_the_state() -> None:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, int]]:
        app.state.by_hand = 1
        yield {"yielded": 2}

    app = App(lifespan=lifespan)
    live(app)
    assert (app.state.by_hand, app.state.yielded) == (1, 2)


def test_an_async_generator_function_will_do() -> None:
    log: list[str] = []

    async def lifespan(app: App) -> AsyncIterator[None]:
        log.append("start")
        yield
        log.append("stop")

    app = App(lifespan=lifespan)
    live(app)
    live(app)
    assert log == ["start", "stop"] * 2


def test_what_is_no_lifespan_is_named() -> None:
    async def lifespan(app: App) -> None: ...

    with pytest.raises(ConfigurationError, match="is no asynchronous context manager; write @asynccontextmanager"):
        live(App(lifespan=lifespan))
    with pytest.raises(ConfigurationError, match="the events are 'startup' and 'shutdown', not 'start'"):
        App().on_event("start")


def test_the_thread_pool_ends_with_the_app() -> None:
    app = App()

    async def run() -> None:
        async with app.build().lifespan():
            assert await app.pool.run(lambda: 5) == 5
            assert app.pool._executor is not None

    asyncio.run(run())
    assert app.pool._executor is None
