"""Readiness fails before connections are refused, so that a load balancer turns away in time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from armature import App, HealthRouter
from armature.testing import TestClient
from e2e.command_line import command, fetch
from wire_client import Running, eventually

Serve = Callable[..., Running]

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")


def make_app() -> App:
    app = App()
    app.include_router(HealthRouter())

    @app.get("/")
    async def index() -> str:
        return "hello"

    return app


def test_ready_fails_first(serve: Serve) -> None:
    running = serve(make_app(), shutdown_delay=60)
    address = running.address
    with running.connect() as kept:
        assert kept.get("/health/ready").status == 200
        assert running.server.ready
        running.stop(wait=False)
        assert not running.server.ready
        answer = kept.get("/health/ready")
        assert (answer.status, answer.text) == (503, '{"status":"shutting_down"}')
        # Everything else goes on meanwhile, on old connections and new ones.
        assert kept.get("/health/live").status == kept.get("/").status == 200
        assert running.get("/").status == 200
        assert running.get("/health/ready").status == 503
        # A second request to stop cuts the delay short.
        running.server.stop()
        running.join()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address).close()


def test_the_delay_ends_by_itself(serve: Serve) -> None:
    running = serve(make_app(), shutdown_delay=0.05)
    assert running.get("/health/ready").status == 200
    running.stop()
    assert running.ended


def test_a_server_that_never_welcomed_anybody_waits_for_nobody(serve: Serve, unused_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", unused_port))
        taken.listen()
        with pytest.raises(OSError, match="is in use"):
            serve(make_app(), port=unused_port, shutdown_delay=600)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_in_a_test_the_app_is_ready() -> None:
    with TestClient(make_app()) as client:
        assert client.get("/health/ready").status_code == 200


@posix
def test_the_command_waits(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from armature import App, HealthRouter\napp = App()\napp.include_router(HealthRouter())\n"
    )
    with command("run", "shop:app", "--port", "0", "--shutdown-delay", "30", cwd=tmp_path) as server:
        port = server.port
        assert fetch(port, "/health/ready")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: fetch(port, "/health/ready")[0] == 503)
        assert fetch(port, "/health/live")[0] == 200
        assert server.stop(signal.SIGTERM) == 0
