"""Every example runs: its app is served, and each `$ curl ...` line of its docstring prints what stands below it.

A program that is no app (a script) is executed, and must end with success.
"""

from __future__ import annotations

import ast
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import CHECKER, COMPARE, ROOT, environment, free_port

EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.py") if not path.name.startswith(("_", "test_")))
#: The command that serves the example, which is what the test does.
SERVING = re.compile(r"(?:python3? -m )?armature (?:run|dev)\b|python3? examples/|uvicorn\b")
APP = re.compile(r"^(app|router|application)\s*(?::[^=]+)?=", re.MULTILINE)


def trials(documentation: str) -> list[tuple[str, str]]:
    """The commands of a docstring with what each prints; a command ends a line or goes on after a backslash."""
    found: list[tuple[str, str]] = []
    for line in documentation.splitlines():
        stripped = line.strip()
        if stripped.startswith("$ "):
            found.append((stripped.removeprefix("$ "), ""))
        elif found and line.startswith("    "):
            command, output = found[-1]
            if command.endswith("\\"):
                found[-1] = (command[:-1] + stripped, output)
            else:
                found[-1] = (command, output + stripped + "\n")
        elif found and stripped:
            break
    return found


@contextlib.contextmanager
def served(path: Path, port: int, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "armature", "run", str(path), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(log.parent), stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
    assert process.returncode == 0, log.read_text()


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.relative_to(ROOT / "examples").as_posix())
def test_example_runs(path: Path, tmp_path: Path) -> None:
    source = path.read_text("utf-8")
    documentation = ast.get_docstring(ast.parse(source))
    assert documentation, "an example says what it shows"
    if APP.search(source) is None:
        result = subprocess.run(
            [sys.executable, str(path)], cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=90
        )
        assert result.returncode == 0, result.stderr
        return
    port = free_port()
    commands = [
        (re.sub(r"\b8000\b", str(port), command), output)
        for command, output in trials(documentation)
        if not SERVING.match(command)
    ]
    assert commands, "an example's docstring shows how to try it: `$ curl http://127.0.0.1:8000/`"
    with served(path, port, tmp_path / "server.log"):
        for command, output in commands:
            result = subprocess.run(
                ["sh", "-euc", command],
                cwd=tmp_path,
                env=environment(tmp_path),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert result.returncode == 0, f"$ {command}\n{result.stdout}{result.stderr}"
            expected = re.sub(r"\b8000\b", str(port), output)
            if expected:
                shown = result.stdout.replace("\r\n", "\n")
                assert CHECKER.check_output(expected, shown, COMPARE), f"$ {command}\n{shown}\nexpected:\n{expected}"
