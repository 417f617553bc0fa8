"""`run()` in a process of its own: signals, exit codes, and no request lost when it stops."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from counterparts import require
from wire_client import PATIENCE, Peer

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class Process:
    """`run()` in a process of its own."""

    def __init__(self, directory: Path, source: str, *arguments: str, **options: Any) -> None:
        script = directory / "served.py"
        script.write_text(textwrap.dedent(source))
        command = [sys.executable, "-W", "error", str(script), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, **options
        )
        self.lines: list[str] = []

    def url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"Armature \S+ \((c|py)\) on (\S+)", line)
            if found is not None:
                return found[2]
        raise AssertionError(f"it did not start: {''.join(self.lines)}")

    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", int(self.url().rpartition(":")[2]))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was logged."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, "".join(self.lines) + errors

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        else:
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


SOURCE = """
    import asyncio, sys
    from contextlib import asynccontextmanager
    from armature.app import App

    @asynccontextmanager
    async def lifespan(app):
        print("started", flush=True)
        yield
        print("stopped", flush=True)

    app = App(lifespan=lifespan)

    @app.get("/")
    async def index():
        return "Hello, World!"

    @app.get("/wait/{seconds}")
    async def wait(seconds: float):
        await asyncio.sleep(seconds)
        return "waited"

    @app.get("/exit")
    async def leave():
        raise SystemExit(7)

    @app.get("/exit-later")
    async def leave_later():
        await asyncio.sleep(0)
        raise SystemExit(8)

    if __name__ == "__main__":
        loop, _, io = sys.argv[1].partition("/")
        app.run("127.0.0.1", 0, loop=loop, io=io or "auto", shutdown_timeout=10)
        print("returned", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_gracefully(tmp_path: Path, loop_name: str, number: int) -> None:
    with Process(tmp_path, SOURCE, loop_name) as process:
        address = process.address()
        with Peer(address) as peer, Peer(address) as idle:
            assert idle.get("/").status == 200
            peer.request("GET", "/wait/0.3")
            time.sleep(0.05)
            process.signal(number)
            assert idle.ended()
            answer = peer.answer()
            assert answer.text == "waited"
            assert answer.headers["connection"] == "close"
        output = process.process.communicate(timeout=PATIENCE)[0]
        assert process.process.returncode == 0
        assert output == "started\nstopped\nreturned\n"


def test_no_request_under_load_is_lost(tmp_path: Path, loop_name: str) -> None:
    with Process(tmp_path, SOURCE, loop_name) as process:
        url = process.url()
        command = [require("wrk"), "-t1", "-c16", "-d2s", f"{url}/wait/0.005"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
            time.sleep(0.7)
            start = time.monotonic()
            process.signal(signal.SIGTERM)
            process.process.communicate(timeout=PATIENCE)
            assert time.monotonic() - start < 5
            report = wrk.communicate()[0]
    assert "Non-2xx" not in report
    # wrk goes on trying to connect, in vain; but what it asked for before, it got.
    assert re.search(r"Socket errors: connect \d+, read 0, write \d+, timeout 0", report), report


def test_a_second_signal_forces(tmp_path: Path, loop_name: str) -> None:
    with Process(tmp_path, SOURCE, loop_name) as process:
        with Peer(process.address()) as peer:
            peer.request("GET", "/wait/3600")
            time.sleep(0.05)
            process.signal(signal.SIGTERM)
            time.sleep(0.1)
            assert process.process.poll() is None
            process.signal(signal.SIGTERM)
            output = process.process.communicate(timeout=5)[0]
        assert process.process.returncode == 0
        assert output == "started\nstopped\nreturned\n"


@pytest.mark.parametrize(("path", "code"), [("/exit", 7), ("/exit-later", 8)])
def test_a_handler_may_end_the_process(tmp_path: Path, loop_name: str, path: str, code: int) -> None:
    with Process(tmp_path, SOURCE, loop_name) as process:
        with Peer(process.address()) as peer:
            with contextlib.suppress(ConnectionResetError):
                peer.request("GET", path).rest()
        output = process.process.communicate(timeout=PATIENCE)[0]
        assert process.process.returncode == code
        assert output == "started\nstopped\n"


def test_a_start_up_that_fails_ends_the_process(tmp_path: Path, loop_name: str) -> None:
    source = """
        import sys
        from armature.app import App

        async def connect():
            raise ValueError("no database")

        app = App(on_startup=[connect])
        loop, _, io = sys.argv[1].partition("/")
        app.run("127.0.0.1", 0, loop=loop, io=io or "auto")
    """
    with Process(tmp_path, source, loop_name) as process:
        code, errors = process.end()
    assert code == 3
    assert "the app's start-up failed" in errors
    assert "ValueError: no database" in errors


def test_an_address_in_use_ends_the_process(tmp_path: Path, loop_name: str) -> None:
    source = """
        import sys
        from armature.app import App

        loop, _, io = sys.argv[1].partition("/")
        App().run("127.0.0.1", int(sys.argv[2]), loop=loop, io=io or "auto")
    """
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with Process(tmp_path, source, loop_name, str(port)) as process:
            code, errors = process.end()
    assert code == 1
    assert f"127.0.0.1:{port} is in use: another program listens there; stop it, or choose another port" in errors
    assert "Traceback" not in errors


def test_an_import_string(tmp_path: Path, loop_name: str) -> None:
    (tmp_path / "shop.py").write_text(
        "from armature.app import App\napp = App()\n@app.get('/')\nasync def index():\n    return 'shop'\n"
    )
    source = """
        import sys
        from armature.server import run

        loop, _, io = sys.argv[1].partition("/")
        run("shop:app", port=0, loop=loop, io=io or "auto", access_log=True, log_level="warning")
    """
    source = source.replace('log_level="warning"', 'log_level="info"')
    with Process(tmp_path, source, loop_name, cwd=tmp_path) as process:
        with Peer(process.address()) as peer:
            assert peer.get("/").text == "shop"
        process.signal(signal.SIGTERM)
        code, errors = process.end()
    assert code == 0
    assert '"GET / HTTP/1.1" 200 4' in errors
