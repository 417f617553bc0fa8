"""Options of `armature run` about deadlines and limits: they reach the server, and their defaults are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from armature.cli.limits import LIMIT_OPTIONS
from armature.cli.main import armature
from armature.server import ServerConfig


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The options that `armature run` would have served with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("armature.server.run", lambda app, **options: calls.append(options), raising=False)
    monkeypatch.chdir(tmp_path)
    return calls


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(armature, ["run", "shop:app", *arguments])


NAMES = [
    "head_timeout",
    "body_timeout",
    "idle_timeout",
    "write_timeout",
    "handler_timeout",
    "minimum_rate",
    "max_connections",
    "keep_alive_requests",
    "keep_alive_age",
    "keep_memory",
]


def test_the_defaults_are_those_of_the_server(served: list[dict[str, Any]]) -> None:
    assert len(LIMIT_OPTIONS) == len(NAMES)
    assert invoke().exit_code == 0
    config = ServerConfig()
    for name in (*NAMES, "io"):
        assert served[0][name] == getattr(config, name), name


def test_they_reach_the_server(served: list[dict[str, Any]]) -> None:
    result = invoke(
        "--head-timeout", "5", "--body-timeout", "2.5", "--idle-timeout", "none", "--write-timeout", "30",
        "--handler-timeout", "20", "--minimum-rate", "1k", "--max-connections", "none", "--keep-alive-requests", "100",
        "--keep-alive-age", "none", "--keep-memory", "0", "--io", "asyncio",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    values = [5.0, 2.5, None, 30.0, 20.0, 1000, None, 100, None, 0, "asyncio"]
    assert [served[0][name] for name in (*NAMES, "io")] == values


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--head-timeout", "soon"], "'soon' is no number of seconds; write 10, 0.5, or none"),
        (["--idle-timeout", "0"], "'0' is no number of seconds"),
        (["--body-timeout", "nan"], "'nan' is no number of seconds"),
        (["--max-connections", "many"], "'many' is no number; write 1000, or none"),
        (["--keep-alive-requests", "0"], "'0' is no number"),
        (["--minimum-rate", "fast"], "'fast' is no size"),
    ],
)
def test_what_is_wrong_is_said(served: list[dict[str, Any]], arguments: list[str], text: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert text in result.output
    assert not served
