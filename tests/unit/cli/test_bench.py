"""`armature bench`: a real server under a real load."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from armature._impl import PURE
from armature.cli.main import armature as group
from counterparts import require

APP = """
from armature import App, HttpRequest

app = App()


@app.get("/")
async def index() -> str:
    return "Hello"


@app.post("/items")
async def items(req: HttpRequest) -> dict[str, str | int]:
    return {"size": len(await req.body()), "kind": req.headers["x-kind"]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARMATURE_APP", raising=False)
    # The server is a process of its own, and is to run this checkout.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent.parent))
    return tmp_path


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["bench", *arguments], prog_name="armature")


@pytest.mark.parametrize("generator", ["own", "wrk"])
def test_it_prints_what_a_request_costs(folder: Path, generator: str) -> None:
    if generator == "wrk":
        require("wrk")
    result = bench("app:app", "--duration", "1", "--connections", "8", "--generator", generator)
    assert result.exit_code == 0, result.output
    assert re.search(rf"^requests/s +[\d,]+  \({generator}.*, 8 connections\)$", result.stdout, re.MULTILINE)
    if sys.platform == "linux":
        assert re.search(r"^CPU per request +\d+\.\d µs$", result.stdout, re.MULTILINE)
    assert re.search(r"^latency +p50 [\d.]+ ms, p99 [\d.]+ ms$", result.stdout, re.MULTILINE)
    assert re.search(r"^answered +[\d,]+, 0 of them with an error$", result.stdout, re.MULTILINE)


def test_a_body_and_headers_are_sent(folder: Path) -> None:
    result = bench("--path", "/items", "--body", "hello", "--header", "X-Kind: test", "--duration", "1")
    assert result.exit_code == 0, result.output
    assert "own generator" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["app:app", "--path", "/none"], "GET /none is answered with an error"),
        (["app:app", "--path", "none"], "--path is 'none'"),
        (["app:app", "--path", "/ü"], "--path is '/ü'"),
        (["app:app", "--header", "novalue"], "--header is 'novalue'"),
        (["app:app", "--header", "a: b\r\nc: d"], "--header is"),
        (["app:nothing"], "the app does not start"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, arguments: list[str], message: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_what_the_server_said_is_shown(folder: Path) -> None:
    assert "'app' has no attribute 'nothing'" in bench("app:nothing").stderr


def test_without_a_profiler_there_is_an_error_behind_the_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    result = bench("app:app", "--duration", "1", "--flame", "out.svg")
    assert result.exit_code == 1
    assert "CPU per request" in result.stdout
    assert "no flame graph: perf and py-spy are not installed" in result.stderr


@pytest.mark.skipif(PURE, reason="the pure twins have no C functions")
def test_a_flame_graph_names_our_c_functions(folder: Path) -> None:
    if shutil.which("perf") is None and shutil.which("py-spy") is None:
        pytest.skip("neither perf nor py-spy is installed")
    result = bench("app:app", "--duration", "2", "--flame", "out.svg")
    if "perf_event_paranoid" in result.stderr:
        pytest.skip(f"profiling is not permitted here: {result.stderr.strip()[:200]}")
    assert result.exit_code == 0, result.output
    assert re.search(r"flame graph +out\.svg, [\d,]+ samples by (perf|py-spy)", result.stdout)
    drawing = (folder / "out.svg").read_text()
    for name in ("Connection_feed_heads", "Dispatcher_call"):
        assert f"<title>{name} (" in drawing
