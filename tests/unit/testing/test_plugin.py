"""The pytest plugin: fixtures that close what they made, and an import that costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import contextlib
import pytest
from armature import App

events = []

@contextlib.asynccontextmanager
async def lifespan(app):
    events.append("start")
    yield
    events.append("stop")

app = App(lifespan=lifespan)

@app.get("/")
async def index() -> dict[str, str]:
    return {"hello": "world"}
"""


def run_pytest(directory: Path, source: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(APP + source)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    # In a checkout that is not installed there is no entry point to load the plugin.
    if "armature" not in {entry.name for entry in _entry_points()}:
        command += ["-p", "armature.testing.plugin"]
    return subprocess.run(
        [*command, "--rootdir", str(directory), "test_it.py"],
        cwd=directory,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def _entry_points() -> list[object]:
    from importlib.metadata import entry_points

    return list(entry_points(group="pytest11"))


def _environment() -> dict[str, str]:
    import os

    root = str(Path(__file__).resolve().parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_a_client_is_started_and_closed(tmp_path: Path) -> None:
    result = run_pytest(
        tmp_path,
        """
def test_client(armature_client):
    client = armature_client(app, headers={"x-a": "1"})
    assert events == ["start"]
    assert client.get("/").json() == {"hello": "world"}
    assert client.headers["x-a"] == "1"

def test_it_was_closed():
    assert events == ["start", "stop"]
""",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


def test_an_asynchronous_client_left_open_is_an_error(tmp_path: Path) -> None:
    result = run_pytest(
        tmp_path,
        """
import asyncio

def test_closed(armature_async_client):
    async def test():
        async with armature_async_client(app) as client:
            assert (await client.get("/")).status_code == 200
    asyncio.run(test())

def test_left_open(armature_async_client):
    async def test():
        await armature_async_client(app).get("/")
    asyncio.run(test())
""",
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "2 passed, 1 error" in result.stdout
    assert "left open" in result.stdout


def test_an_error_of_the_shutdown_fails_the_test(tmp_path: Path) -> None:
    result = run_pytest(
        tmp_path,
        """
def test_client(armature_client):
    bad = App(on_shutdown=[lambda: 1 / 0])
    armature_client(bad)
""",
    )
    assert "1 passed, 1 error" in result.stdout, result.stdout + result.stderr
    assert "ZeroDivisionError" in result.stdout


@pytest.mark.parametrize("module", ["armature.testing", "armature.testing.plugin"])
def test_the_plugin_imports_nothing_of_the_framework(module: str) -> None:
    code = (
        f"import pytest, sys; import {module}; "
        "print([name for name in sys.modules if name.startswith('armature') and not name.startswith('armature.testing')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "['armature']"
