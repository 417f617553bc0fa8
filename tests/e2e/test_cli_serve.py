"""`armature run` and what `armature new` makes, as processes, with signals, sockets and exit codes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.command_line import command, environment, eventually, fetch, refused, run_command

APP = """
import asyncio, contextlib, os, pathlib
from armature import App, HttpRequest

@contextlib.asynccontextmanager
async def lifespan(app):
    pathlib.Path("started").touch()
    yield
    pathlib.Path("stopped").touch()

app = App(lifespan=lifespan)

@app.get("/")
async def index(req: HttpRequest) -> dict[str, object]:
    return {"pid": os.getpid(), "scheme": req.scheme, "loop": type(asyncio.get_running_loop()).__module__}

@app.get("/slow")
async def slow() -> str:
    pathlib.Path("entered").touch()
    await asyncio.sleep(0.5)
    return "done"

@app.get("/stuck")
async def stuck() -> str:
    pathlib.Path("entered").touch()
    await asyncio.sleep(600)
    return "never"

@app.post("/size")
async def size(req: HttpRequest) -> int:
    return len(await req.body())

@app.get("/boom")
async def boom() -> None:
    raise LookupError("a secret of the server")

def make() -> App:
    return app
"""

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and sockets")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal(project: Path, number: int) -> None:
    with command("run", "shop:app", "--port", "0", cwd=project) as server:
        status, text = fetch(server.port)
        assert status == 200
        assert json.loads(text)["pid"] == server.process.pid
        assert (project / "started").exists()
        assert not (project / "stopped").exists()
        assert server.stop(number) == 0
    assert (project / "stopped").exists()
    assert "Traceback" not in server.output


@pytest.mark.parametrize(
    ("target", "more"),
    [
        ("shop.py", ()),
        ("shop.py:app", ()),
        ("shop", ()),
        ("shop:make", ("--factory",)),
        ("shop:app", ("--loop", "asyncio")),
    ],
)
def test_every_way_to_name_the_app(project: Path, target: str, more: tuple[str, ...]) -> None:
    with command("run", target, "--port", "0", *more, cwd=project) as server:
        status, text = fetch(server.port)
        assert status == 200
        if "--loop" in more:
            assert json.loads(text)["loop"].startswith("asyncio")
        assert server.stop() == 0


def test_the_app_of_the_current_directory(project: Path) -> None:
    (project / "shop.py").rename(project / "main.py")
    with command("run", "--port", "0", cwd=project) as server:
        assert fetch(server.port)[0] == 200


@posix
def test_a_request_under_way_is_finished(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", cwd=project) as server:
        port = server.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/slow")
        eventually((project / "entered").exists)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refused(port))
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"done")
        connection.close()
        assert server.wait() == 0


@posix
def test_a_second_signal_cuts_it_short(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", cwd=project) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually((project / "entered").exists)
            server.process.send_signal(signal.SIGINT)
            eventually(lambda: refused(server.port))
            began = time.monotonic()
            assert server.stop(signal.SIGINT) == 0
            assert time.monotonic() - began < 10
    assert (project / "stopped").exists()


@posix
def test_the_shutdown_timeout(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", "--shutdown-timeout", "0.2", cwd=project) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually((project / "entered").exists)
            assert server.stop(signal.SIGTERM) == 0


def test_access_log_and_log_level(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", "--access-log", cwd=project) as server:
        fetch(server.port, "/?q=1")
        server.wait_for(r'"GET / HTTP/1\.1" 200')
        assert server.stop() == 0
    with command("run", "shop:app", "--port", "0", cwd=project) as server:
        fetch(server.port)
        assert server.stop() == 0
        assert '"GET / ' not in server.output


def test_an_error_is_logged_and_not_told(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", cwd=project) as server:
        status, text = fetch(server.port, "/boom", {"accept": "text/html"})
        assert status == 500
        assert "secret" not in text
        server.wait_for("a secret of the server")


def test_the_body_limit(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", "--body-limit", "1KiB", cwd=project) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        for size, status in ((1024, 200), (1025, 413)):
            connection.request("POST", "/size", body=b"x" * size)
            response = connection.getresponse()
            response.read()
            assert response.status == status
        connection.close()


def test_the_lifespan_can_be_left_out(project: Path) -> None:
    with command("run", "shop:app", "--port", "0", "--lifespan", "off", cwd=project) as server:
        assert fetch(server.port)[0] == 200
        assert server.stop() == 0
    assert not (project / "started").exists()


@posix
def test_a_unix_socket(project: Path) -> None:
    with command("run", "shop:app", "--uds", "shop.sock", cwd=project) as server:
        server.wait_for(" on unix:")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(project / "shop.sock"))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.stop() == 0
    assert not (project / "shop.sock").exists()


@posix
def test_an_inherited_socket(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with command(
            "run", "shop:app", "--fd", str(listener.fileno()), cwd=project, pass_fds=[listener.fileno()]
        ) as server:
            assert fetch(port)[0] == 200
            assert server.stop() == 0


@posix
def test_tls(project: Path, pem: tuple[Path, Path]) -> None:
    certificate, key = map(str, pem)
    arguments = ("run", "shop:app", "--port", "0", "--ssl-certfile", certificate, "--ssl-keyfile", key)
    with command(*arguments, cwd=project) as server:
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("localhost", server.port, timeout=20, context=context)
        connection.request("GET", "/")
        assert json.loads(connection.getresponse().read())["scheme"] == "https"
        connection.close()
        assert server.stop() == 0


def test_an_address_in_use(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name in ("run", "dev"):
            result = run_command(name, "shop:app", "--port", port, cwd=project)
            assert result.returncode == 1, result.stderr
            assert "in use" in result.stderr
            assert "Traceback" not in result.stderr


def test_a_start_up_that_fails(project: Path) -> None:
    (project / "bad.py").write_text("from armature import App\napp = App(on_startup=[lambda: 1 / 0])\n")
    result = run_command("run", "bad:app", "--port", "0", cwd=project)
    assert result.returncode == 3
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("", "shoop:app", "did you mean 'shop'?"),
        ("", "shop:ap", "did you mean 'app'?"),
        ("app = 1", "bad:app", "an int, not an app"),
        ("import nothing_here", "bad:app", "pip install nothing_here"),
        ("def (", "bad:app", "cannot be compiled"),
        ("x = {}['k']", "bad:app", "KeyError: 'k'"),
        ("from armature import App\napp = App()\n@app.get('/{a')\nasync def f(a): ...", "bad:app", "mend:"),
    ],
)
def test_what_is_wrong_with_the_app(project: Path, source: str, target: str, message: str) -> None:
    (project / "bad.py").write_text(source + "\n")
    result = run_command("run", target, "--port", "0", cwd=project)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "importer.py" not in result.stderr
    assert result.stdout == ""


def test_help_is_quick_and_light(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "armature", "--help"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "click" in loaded
    for heavy in ("asyncio", "armature._impl", "armature.app", "armature.server", "armature.http", "uvloop"):
        assert heavy not in loaded


def test_a_new_project_is_served_and_its_tests_pass(tmp_path: Path) -> None:
    result = run_command("new", "corner-shop", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    project = tmp_path / "corner-shop"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "3 passed" in tested.stdout
    with command("run", "app:app", "--port", "0", cwd=project) as server:
        assert json.loads(fetch(server.port)[1]) == {"message": "Hello from corner-shop"}
        assert json.loads(fetch(server.port, "/hello/Ada?excited=yes")[1]) == {"message": "Hello, Ada!"}
        assert server.stop() == 0
    routes = json.loads(run_command("routes", "--json", cwd=project).stdout)
    assert [route["path"] for route in routes] == ["/", "/hello/{name}"]
    typed = subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "."], cwd=project, env=environment(), check=False, timeout=60
    )
    assert typed.returncode == 0
