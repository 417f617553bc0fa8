"""`armature dev`, and `run --reload`: edits of real files, the socket in between, and what is left afterwards."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from e2e.command_line import command, environment, eventually, fetch, refused

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks into /proc for the worker")

BROWSER = {"accept": "text/html"}

APP = """
import asyncio, contextlib, os, pathlib, threading, time
from armature import App

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    with open("stopped", "a") as file:
        file.write("{text}\\n")

app = App(lifespan=lifespan)

@app.get("/")
async def index() -> str:
    return "{text}"

@app.get("/pid")
async def pid() -> int:
    return os.getpid()

@app.get("/boom")
async def boom() -> None:
    price = {{"tea": 310}}
    price["sugar"]

@app.get("/block")
async def block() -> None:
    pathlib.Path("entered").touch()
    time.sleep(600)

@app.get("/die")
async def die() -> None:
    os._exit(7)
"""


def write(project: Path, text: str) -> None:
    (project / "shop.py").write_text(APP.format(text=text))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(tmp_path, "one")
    return tmp_path


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fetch_again(port: int, path: str = "/", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Fetch as a browser does: once more if the worker that took the connection ended before the request came."""
    for _ in range(5):
        with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            return fetch(port, path, headers)
    return fetch(port, path, headers)


def serves(port: int, text: str, headers: dict[str, str] | None = None) -> None:
    """Wait until the app answers with this text."""
    last: list[str] = []

    def probe() -> bool:
        last[:] = [fetch_again(port, headers=headers)[1]]
        return text in last[0]

    eventually(probe, lambda: f"{text!r} was not served, but {last}")


@pytest.mark.parametrize("options", [("run", "shop:app", "--reload"), ("dev", "shop.py"), ("dev", "shop.py", "--poll")])
def test_an_edit_is_served(project: Path, options: tuple[str, ...]) -> None:
    with command(*options, "--port", "0", cwd=project) as server:
        port = server.port
        assert fetch(port) == (200, "one")
        first = server.worker()
        write(project, "two")
        serves(port, "two")
        assert server.worker() != first
        server.wait_for("armature: shop.py changed; restarting")
        # Of the same length, within the same second: bytecode must not hide it.
        write(project, "six")
        serves(port, "six")
        assert (project / "stopped").read_text() == "one\ntwo\n"
        assert server.stop() == 0
        assert (project / "stopped").read_text() == "one\ntwo\nsix\n"
        assert "Traceback" not in server.output


def test_no_connection_is_refused_while_it_reloads(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port = server.port
        stop = threading.Event()
        answers: list[str] = []
        failures: list[BaseException] = []

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(fetch_again(port)[1])
                except BaseException as error:
                    failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for text in ("two", "three"):
                write(project, text)
                eventually(lambda text=text: text in answers)
        finally:
            stop.set()
            thread.join()
        assert failures == []
        assert list(dict.fromkeys(answers)) == ["one", "two", "three"]


def test_a_syntax_error_is_shown_and_the_mend_is_awaited(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port = server.port
        (project / "shop.py").write_text("from armature import App\napp = App(\n")
        serves(port, "SyntaxError", BROWSER)
        status, page = fetch(port, "/any/path", BROWSER)
        assert status == 500
        assert "The app cannot be started" in page
        assert "app = App(" in page
        server.wait_for("SyntaxError: '\\(' was never closed")
        server.wait_for("armature: waiting for a change")
        write(project, "mended")
        serves(port, "mended")
        assert server.stop() == 0


def test_a_broken_app_at_the_start_is_waited_for_too(project: Path) -> None:
    (project / "shop.py").write_text("import nothing_of_this_name\n")
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        assert "nothing_of_this_name" in fetch(server.port, headers=BROWSER)[1]
        write(project, "mended")
        serves(server.port, "mended")


def test_routes_that_do_not_fit_are_shown(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port = server.port
        (project / "shop.py").write_text(
            "from armature import App\napp = App()\n@app.get('/{a')\nasync def f(a): ...\n"
        )
        serves(port, "never closed", BROWSER)
        server.wait_for("mend:")
        write(project, "mended")
        serves(port, "mended")


def test_without_the_page_connections_wait_for_the_mend(project: Path) -> None:
    with command("run", "shop:app", "--reload", "--port", "0", cwd=project) as server:
        port = server.port
        (project / "shop.py").write_text("def (\n")
        server.wait_for("armature: waiting for a change")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/")
        write(project, "mended")
        response = connection.getresponse()
        assert response.read() == b"mended"
        connection.close()


def test_a_start_up_that_fails_is_waited_for(project: Path) -> None:
    (project / "shop.py").write_text("from armature import App\napp = App(on_startup=[lambda: 1 / 0])\n")
    with command("run", "shop:app", "--reload", "--port", "0", cwd=project) as server:
        server.wait_for("ZeroDivisionError")
        server.wait_for("armature: waiting for a change")
        write(project, "mended")
        serves(server.port, "mended")


def test_a_worker_that_dies_is_told_and_waited_for(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port = server.port
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            fetch(port, "/die")
        server.wait_for(r"the worker ended by itself \(exit code 7\); waiting for a change")
        assert server.process.poll() is None
        write(project, "mended")
        serves(port, "mended")


def test_the_error_page_shows_the_line(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        status, page = fetch(server.port, "/boom", BROWSER)
        assert status == 500
        assert "price[&quot;sugar&quot;]" in page
        assert "shop.py:" in page
        server.wait_for("KeyError: 'sugar'")
        server.wait_for('"GET /boom HTTP/1.1" 500')


def test_other_files_count_if_they_are_named(project: Path) -> None:
    (project / "page.html").write_text("a")
    with command("dev", "shop:app", "--port", "0", "--reload-include", "*.html", cwd=project) as server:
        server.port
        (project / "notes.txt").write_text("b")
        (project / "page.html").write_text("b")
        server.wait_for("armature: page.html changed; restarting")
        server.wait_for(" on http://", count=2)
        assert "notes.txt" not in server.output


def test_another_directory_is_watched(project: Path) -> None:
    (project / "src").mkdir()
    (project / "shop.py").rename(project / "src" / "shop.py")
    with command("dev", "shop:app", "--app-dir", "src", "--port", "0", cwd=project) as server:
        port = server.port
        write(project / "src", "two")
        serves(port, "two")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_both(project: Path, number: int) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port, worker = server.port, server.worker()
        assert server.stop(number) == 0
        assert not alive(worker)
        assert refused(port)
    assert (project / "stopped").read_text() == "one\n"


def test_ctrl_c_in_a_terminal_reaches_both_and_stops_once(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project, process_group=0) as server:
        port, worker = server.port, server.worker()
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.wait() == 0
        assert not alive(worker)
        assert refused(port)
    assert "Traceback" not in server.output


#: Makes the terminal on standard input that of the session, as a login does, and becomes the command.
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "armature", *sys.argv[1:]])
"""


def test_ctrl_c_in_a_terminal_lets_the_shutdown_finish(project: Path) -> None:
    slow = APP.format(text="one").replace("    yield\n", "    yield\n    await asyncio.sleep(0.5)\n")
    (project / "shop.py").write_text(slow)
    master, slave = os.openpty()
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, "dev", "shop:app", "--port", "0"],
            cwd=project,
            env=environment(),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        shown = b""
        while b" on http://" not in shown:
            shown += terminal.read(1024)
        terminal.write(b"\x03")
        # The end of the last process that has the terminal open is an error here, on Linux.
        with contextlib.suppress(OSError):
            while more := terminal.read(1024):
                shown += more
        assert process.wait(20) == 0
    assert b"hurry" not in shown
    assert (project / "stopped").read_text() == "one\n"


def test_a_second_ctrl_c_ends_a_worker_that_does_not_listen(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        worker = server.worker()
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually((project / "entered").exists)
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
            assert server.process.poll() is None
            assert server.stop(signal.SIGINT) == 130
        assert not alive(worker)


def test_a_worker_that_does_not_listen_is_replaced_all_the_same(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port = server.port
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually((project / "entered").exists)
            write(project, "two")
            serves(port, "two")


def test_no_orphan_after_kill(project: Path) -> None:
    with command("dev", "shop:app", "--port", "0", cwd=project) as server:
        port, worker = server.port, server.worker()
        assert fetch(port)[1] == "one"
        server.process.kill()
        server.process.wait()
        eventually(lambda: not alive(worker))
        assert refused(port)
    # It was told, and so it could shut down as always.
    assert (project / "stopped").read_text() == "one\n"


def test_a_unix_socket_outlives_a_reload_and_not_the_end(project: Path) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(project / "s"))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := sock.recv(4096):
                answer += data
            return answer

    with command("dev", "shop:app", "--uds", "s", cwd=project) as server:
        server.wait_for(" on unix:")
        assert ask().endswith(b"one")
        write(project, "two")
        eventually(lambda: ask().endswith(b"two"))
        assert server.stop() == 0
    assert not (project / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--poll",)])
def test_watching_costs_next_to_nothing(project: Path, more: tuple[str, ...]) -> None:
    for number in range(50):
        directory = project / f"package{number}"
        directory.mkdir()
        for name in range(20):
            (directory / f"module{name}.py").write_text("x = 1\n")

    def spent(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with command("dev", "shop:app", "--port", "0", *more, cwd=project) as server:
        server.port
        time.sleep(2)
        before = spent(server.process.pid)
        time.sleep(10)
        assert spent(server.process.pid) - before <= 0.1
