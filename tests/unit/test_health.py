"""Health endpoints: what indicators say, how long they may take, and what the world gets to see of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from armature import App, ConfigurationError, HealthRouter, RouteError
from armature.testing import TestClient


def client_of(health: HealthRouter) -> TestClient:
    app = App()
    app.include_router(health)
    return TestClient(app)


def test_without_indicators() -> None:
    with client_of(HealthRouter()) as client:
        for path in ("/health/live", "/health/ready"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert answer.headers["cache-control"] == "no-store"
    with client_of(HealthRouter(prefix="/-")) as client:
        assert client.get("/-/live").status_code == 200


def test_what_indicators_return_or_raise(caplog: pytest.LogCaptureFixture) -> None:
    health = HealthRouter({"quiet": lambda: None, "true": lambda: True})

    @health.indicator("async", timeout=5)
    async def fine() -> bool:
        return True

    @health.indicator("wrapped")
    def wrapped() -> Any:
        return fine()

    with client_of(health) as client:
        answer = client.get("/health/ready")
        assert answer.status_code == 200
        assert answer.json()["details"] == {name: {"status": "up"} for name in ("quiet", "true", "async", "wrapped")}
    assert fine.__name__ == "fine"

    health = HealthRouter({"false": lambda: False, "odd": lambda: "yes"})

    @health.indicator("database")
    async def database() -> None:
        raise ConnectionRefusedError("postgresql://shop:secret@db/shop refused")

    with client_of(health) as client:
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "error",
            "details": {
                "false": {"status": "down", "reason": "down"},
                "odd": {"status": "down", "reason": "the indicator is wrong"},
                "database": {"status": "down", "reason": "ConnectionRefusedError"},
            },
        }
        assert "secret" not in answer.text
        # That the process lives does not depend on them.
        assert client.get("/health/live").status_code == 200
    assert "postgresql://shop:secret@db/shop refused" in caplog.text
    assert "the health indicator odd returned str" in caplog.text


def test_an_indicator_of_life() -> None:
    health = HealthRouter()
    health.add_indicator("deadlock", lambda: False, live=True)
    with client_of(health) as client:
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 503


def test_an_indicator_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []
    health = HealthRouter(timeout=0.02)

    @health.indicator("slow")
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with client_of(health) as client:
        for _ in range(2):
            answer = client.get("/health/ready")
            assert answer.status_code == 503
            assert answer.json()["details"]["slow"] == {"status": "down", "reason": "no answer within 0.02 s"}
    assert cancelled == [True, True]
    assert "the health indicator slow did not answer within 0.02 s" in caplog.text


def test_probes_do_not_pile_up() -> None:
    """An indicator that hangs in a thread holds one thread, however often the load balancer asks."""
    gate, running = threading.Event(), []
    health = HealthRouter(timeout=0.02)

    @health.indicator("hanging")
    def hanging() -> None:
        running.append(True)
        gate.wait(20)

    with client_of(health) as client:
        try:
            for _ in range(5):
                assert client.get("/health/ready").status_code == 503
            assert len(running) == 1
        finally:
            gate.set()
        # Once it has come back it is asked again.
        while len(running) < 2:
            client.get("/health/ready")


def test_those_who_ask_at_once_share_one_run() -> None:
    runs: list[bool] = []
    health = HealthRouter()

    @health.indicator("database")
    async def database() -> None:
        runs.append(True)
        await asyncio.sleep(0.01)

    async def ask() -> list[str | None]:
        (indicator,) = health._indicators.values()
        return await asyncio.gather(*(indicator.outcome() for _ in range(10)))

    assert asyncio.run(ask()) == [None] * 10
    assert len(runs) == 1
    # On another loop nothing of the first one is left.
    assert asyncio.run(ask()) == [None] * 10
    assert len(runs) == 2


def test_under_another_server_ready_depends_on_the_indicators_alone() -> None:
    app = App()
    app.include_router(HealthRouter())
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/health/ready",
        "raw_path": b"/health/ready",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 200


def test_mistakes_are_told_where_they_are_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    health = HealthRouter()
    health.add_indicator("a", lambda: None)
    with pytest.raises(
        ConfigurationError, match=rf"^there is a health indicator 'a' already; added at {__file__}:\d+$"
    ):
        health.add_indicator("a", lambda: None)
    for wrong in (lambda request: None, 7):
        with pytest.raises(ConfigurationError, match="'b', added at .*, must be a function without arguments, not "):
            health.add_indicator("b", wrong)  # type: ignore[arg-type]
    for timeout in (0, -1, "2", True):
        with pytest.raises(
            ConfigurationError, match="^the timeout of a health indicator must be a positive number, not "
        ):
            HealthRouter(timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(RouteError, match="prefix"):
        HealthRouter(prefix="health")
