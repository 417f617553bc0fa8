"""Workers under a supervisor: `armature run --workers`, with real clients, real signals and real deaths."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from counterparts import require, require_module
from e2e.command_line import Command, command, environment, eventually, refused, run_command
from e2e.workers_load import Load, ask, asked, opened
from wire_client import PATIENCE

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks into /proc for the workers")

METHODS = ["spawn", "forkserver", "fork"]

APP = """
import asyncio, contextlib, os, pathlib, subprocess, sys, time
from armature import App
from armature.server.workers import gather_stats

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    with open("stopped", "a") as file:
        file.write("one\\n")

app = App(lifespan=lifespan)
held = []

@app.get("/")
async def index() -> str:
    return "one"

@app.get("/pid")
async def pid() -> str:
    await asyncio.sleep(0.001)
    return str(os.getpid())

@app.get("/wait/{seconds}")
async def wait(seconds: float) -> str:
    with open("waiting", "a") as file:
        file.write(".")
    await asyncio.sleep(seconds)
    return "waited"

@app.get("/block")
async def block() -> None:
    pathlib.Path("entered").write_text(str(os.getpid()))
    time.sleep(600)

@app.get("/exit")
async def leave() -> None:
    raise SystemExit(7)

@app.get("/eat")
async def eat() -> str:
    held.append(bytearray(os.urandom(1 << 20) * 64))
    return str(os.getpid())

@app.get("/child")
async def child() -> str:
    # Not with the log's pipe, for the end of which the test waits.
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return str(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)

@app.get("/fork")
async def fork() -> str:
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    return str(child)

@app.get("/stats")
async def stats() -> dict:
    found = await gather_stats()
    return {"workers": found.workers, "retired": found.retired}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Workers:
    """What a command with workers has logged."""

    def __init__(self, server: Command) -> None:
        self.server = server

    def serving(self, number: int, count: int = 1) -> int:
        """The process that was the count-th to serve as this worker."""
        return int(self.server.wait_for(rf"worker {number} serves in process (\d+)", count)[1])

    def pids(self) -> list[int]:
        """Every process that has ever served."""
        return [int(pid) for pid in re.findall(r"serves in process (\d+)", self.server.output)]

    def wait(self) -> int:
        """Wait until all serve; return the port, or 0."""
        found = self.server.wait_for(r" on (?:https?://\S+:(\d+)|unix:\S+), \d+ workers?, supervised")
        return int(found[1] or 0)


@contextlib.contextmanager
def workers(project: Path, *options: str, target: str = "shop:app", **more: Any) -> Iterator[tuple[Command, Workers]]:
    address = () if "--uds" in options or "--fd" in options else ("--port", "0")
    count = () if "--workers" in options else ("--workers", "2")
    with command("run", target, *address, *count, *options, cwd=project, **more) as server:
        yield server, Workers(server)


def sockets_of(pid: int, port: int) -> frozenset[str]:
    """The kernel's numbers of the sockets on which a process listens on a port."""
    listening = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                listening.add(f"socket:[{columns[9]}]")
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))
    return frozenset(found & listening)


def waiting(project: Path) -> int:
    """How many requests have come to wait."""
    file = project / "waiting"
    return file.stat().st_size if file.exists() else 0


def io_options(loop_name: str) -> tuple[str, ...]:
    loop, _, feeder = loop_name.partition("/")
    return ("--loop", loop, *(("--io", feeder) if feeder else ()))


# Starting.


@pytest.mark.parametrize("method", METHODS)
def test_they_serve_and_stop(project: Path, method: str) -> None:
    with workers(project, "--start-method", method) as (server, log):
        port = log.wait()
        pids = {str(log.serving(1)), str(log.serving(2))}
        assert len(pids) == 2
        seen: set[str] = set()
        eventually(lambda: seen.add(ask(port, "/pid")) or seen == pids)
        assert server.stop(signal.SIGTERM) == 0
        assert not any(alive(int(pid)) for pid in pids)
        assert refused(port)
        assert "Traceback" not in server.output
    assert (project / "stopped").read_text() == "one\none\n"


SCRIPT = """
import os, sys
from armature import App

app = App()

@app.get("/pid")
async def pid() -> str:
    return str(os.getpid())

if __name__ == "__main__":
    app.run("127.0.0.1:0", workers=2, start_method=sys.argv[1])
    print("returned")
"""


@contextlib.contextmanager
def script(project: Path, source: str, *arguments: str) -> Iterator[tuple[Command, Workers]]:
    (project / "main.py").write_text(source)
    with command(*arguments, cwd=project, program=["main.py"]) as server:
        yield server, Workers(server)


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_a_script_runs_its_own_app(project: Path, method: str) -> None:
    with script(project, SCRIPT, method) as (server, log):
        port = log.wait()
        pids = {str(log.serving(1)), str(log.serving(2))}
        seen: set[str] = set()
        eventually(lambda: seen.add(ask(port, "/pid")) or seen == pids)
        assert server.stop(signal.SIGINT) == 0
        assert server.output.endswith("returned\n")


def test_an_app_that_has_no_name_is_inherited(project: Path) -> None:
    source = SCRIPT.replace("app = App()", "def make():\n    return App()\n").replace(
        "@app", "made = [make()]\n@made[0]"
    )
    source = source.replace("    app.run", "    made[0].run")
    with script(project, source, "auto") as (server, log):
        assert ask(log.wait(), "/pid") in map(str, log.pids())
        assert server.stop(signal.SIGTERM) == 0
    with script(project, source, "spawn") as (server, log):
        assert server.wait() != 0
        assert "give run() an import string such as" in server.output


def test_a_script_without_its_guard_is_told_so(project: Path) -> None:
    source = SCRIPT.replace('if __name__ == "__main__":', "if True:")
    with script(project, source, "spawn") as (server, _):
        assert server.wait() == 1
        assert 'put that below `if __name__ == "__main__":`' in server.output
        assert server.output.count("Traceback") == 1


def test_an_app_below_the_guard_is_told_so(project: Path) -> None:
    source = SCRIPT.replace("app = App()", "").replace(
        "@app.get", "if __name__ == '__main__':\n    app = App()\n@app.get"
    )
    source = source.replace("@app.get", "if __name__ == '__main__':\n  @app.get").replace("async def", "  async def")
    source = source.replace("    return str", "      return str")
    with script(project, source, "spawn") as (server, _):
        assert server.wait() == 2
        assert "main.py defines no 'app' when a worker imports it" in server.output


def test_a_factory(project: Path) -> None:
    (project / "made.py").write_text("import shop\ndef create_app():\n    return shop.app\n")
    with workers(project, "--factory", target="made:create_app") as (_, log):
        assert ask(log.wait()) == "one"


def test_a_fork_begins_with_nothing_but_the_framework(project: Path) -> None:
    with workers(project, "--start-method", "fork", "--host", "localhost") as (server, log):
        port = log.wait()
        # What other threads are doing is lost in a fork, and their locks stay locked.
        assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) == 1
        (project / "shop.py").write_text(APP.replace('"one"', '"two"'))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the workers are replaced")
        eventually(lambda: ask(port) == "two")
        # Of the supervisor's sockets a worker has its own and no other: one channel, and what it listens on.
        listening = {sockets_of(log.serving(number, count=2), port) for number in (1, 2)}
        assert len(listening) == 2


def test_a_host_of_two_addresses(project: Path) -> None:
    with workers(project, "--host", "localhost") as (server, log):
        port = log.wait()
        addresses = {name[4][0] for name in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        os.kill(log.serving(2), signal.SIGKILL)
        for _ in range(20):
            for address in addresses:
                with socket.create_connection((address, port), PATIENCE) as sock:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                    assert sock.makefile("rb").read().endswith(b"one")
        log.serving(2, count=2)
        assert server.stop(signal.SIGTERM) == 0


def test_tls(project: Path, pem: tuple[Path, Path]) -> None:
    certificate, key = pem
    with workers(project, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)) as (server, log):
        port = log.wait()
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"https://localhost:{port}/", timeout=PATIENCE, context=context) as response:
            assert response.read() == b"one"
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("engine", ["armature", "httptools"])
def test_requests_count_with_every_engine(project: Path, engine: str) -> None:
    if engine == "httptools":
        require_module("httptools")
    with workers(project, "--http", engine) as (_, log):
        port = log.wait()
        for _ in range(3):
            ask(port)
        assert sum(one["connection.requests"] for one in stats(port)["workers"]) == 4


# Starts that fail.


@pytest.mark.parametrize(
    ("source", "code", "text"),
    [
        ("import nothing_of_this_name\n", 2, "No module named 'nothing_of_this_name'"),
        ("from armature import App\napp = App()\n@app.get('/{a')\nasync def f(a): ...\n", 2, "never closed"),
        ("from armature import App\napp = App(on_startup=[lambda: 1 / 0])\n", 3, "ZeroDivisionError"),
        ("import os\nos._exit(9)\n", 9, "exit code 9"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", 137, "killed by SIGKILL"),
    ],
    ids=["import", "route", "start-up", "exit", "killed"],
)
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_start_that_fails_ends_everything(project: Path, method: str, source: str, code: int, text: str) -> None:
    (project / "shop.py").write_text(source)
    result = run_command("run", "shop:app", "--port", "0", "--workers", "4", "--start-method", method, cwd=project)
    assert result.returncode == code, result.stderr
    # Once, and not by each worker; nor was it tried again.
    assert result.stderr.count(text) == 1
    assert result.stderr.count("the worker could not start") == 1


def test_an_address_in_use(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_command("run", "shop:app", "--port", str(port), "--workers", "2", cwd=project)
    assert result.returncode == 1
    assert f"127.0.0.1:{port} is in use" in result.stderr


def test_a_second_server_on_the_same_port_is_refused(project: Path) -> None:
    # Although each worker has a socket of its own on it.
    with workers(project) as (_, log):
        port = log.wait()
        result = run_command("run", "shop:app", "--port", str(port), "--workers", "2", cwd=project)
        assert result.returncode == 1
        assert f"127.0.0.1:{port} is in use" in result.stderr
        assert ask(port) == "one"


# Deaths.


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_worker_loses_only_what_was_on_it(project: Path, method: str) -> None:
    with workers(project, "--start-method", method) as (server, log):
        port = log.wait()
        other, victim = log.serving(1), log.serving(2)
        with Load(port, threads=8) as load:
            eventually(lambda: load.seen([str(other), str(victim)]))
            os.kill(victim, signal.SIGKILL)
            successor = log.serving(2, count=2)
            eventually(lambda: load.seen([str(successor)]))
        assert load.refused == []
        # Each thread has one request under way.
        assert len(load.lost) <= 8
        assert re.search(rf"worker 2 \(process {victim}\) ended by itself, killed by SIGKILL", server.output)
        assert server.stop(signal.SIGTERM) == 0


def test_while_a_worker_is_missing_the_others_serve_its_connections(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        other, victim = log.serving(1), log.serving(2)
        (project / "shop.py").write_text("import nothing_of_this_name\n")
        os.kill(victim, signal.SIGKILL)
        server.wait_for("worker 2 could not start", count=2)
        # The kernel sends about half of them to the socket of the one that is missing.
        assert {ask(port, "/pid") for _ in range(40)} == {str(other)}
        (project / "shop.py").write_text(APP)
        successor = str(log.serving(2, count=2))
        eventually(lambda: ask(port, "/pid") == successor)
        assert server.stop(signal.SIGTERM) == 0


def test_it_ends_when_none_is_left_and_none_can_start(project: Path) -> None:
    with workers(project) as (server, log):
        log.wait()
        (project / "shop.py").write_text("import nothing_of_this_name\n")
        for number in (1, 2):
            os.kill(log.serving(number), signal.SIGKILL)
        assert server.wait() == 2
        assert "the worker could not start (exit code 2); stopping" in server.output


def test_a_worker_that_its_handler_ends_is_replaced(project: Path) -> None:
    with workers(project, "--workers", "1", "--max-requests", "1000000") as (server, log):
        port = log.wait()
        with pytest.raises((OSError, EOFError)):
            ask(port, "/exit")
        log.serving(1, count=2)
        assert "ended by itself, exit code 7" in server.output
        assert ask(port) == "one"


def test_a_dead_worker_whose_child_lives_is_noticed(project: Path) -> None:
    # The child has the worker's end of the socket pair, so that the end of that tells nothing.
    with workers(project, "--workers", "1", "--max-requests", "1000000") as (_, log):
        port = log.wait()
        child = int(ask(port, "/fork"))
        try:
            os.kill(log.serving(1), signal.SIGKILL)
            log.serving(1, count=2)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_no_worker_outlives_its_supervisor(project: Path, method: str) -> None:
    with workers(project, "--start-method", method) as (server, log):
        port = log.wait()
        pids = [log.serving(1), log.serving(2)]
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(map(alive, pids)))
        assert refused(port)
    # They were told, and so they could shut down as always.
    assert (project / "stopped").read_text() == "one\none\n"


# Replacing.


def test_sighup_brings_new_code_and_loses_nothing(project: Path, loop_name: str) -> None:
    with workers(project, *io_options(loop_name)) as (server, log):
        port = log.wait()
        with Load(port, "/", keep=True) as kept, Load(port, "/", keep=False) as brief:
            for text, count in (("two", 1), ("three", 2)):
                (project / "shop.py").write_text(APP.replace('"one"', f'"{text}"'))
                server.process.send_signal(signal.SIGHUP)
                server.wait_for("the workers are replaced", count)
                eventually(lambda text=text: kept.seen([text]) and brief.seen([text]))
        assert kept.lost == kept.refused == brief.lost == brief.refused == []
        pids = log.pids()
        assert len(set(pids)) == 6
        eventually(lambda: [alive(pid) for pid in pids] == [False] * 4 + [True] * 2)
        assert server.stop(signal.SIGTERM) == 0
        assert "WARNING" not in server.output


def test_sighup_under_wrk(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        load = [require("wrk"), "-t1", "-c16", "-d60s", f"http://127.0.0.1:{port}/pid"]
        with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as wrk:
            for count in (1, 2):
                time.sleep(0.3)
                server.process.send_signal(signal.SIGHUP)
                server.wait_for("the workers are replaced", count)
            wrk.send_signal(signal.SIGINT)
            report = wrk.communicate()[0]
        assert "Non-2xx" not in report
        assert "Socket errors" not in report
        assert server.stop(signal.SIGTERM) == 0


def test_code_that_cannot_start_replaces_nothing(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        (project / "shop.py").write_text("import nothing_of_this_name\n")
        with Load(port, "/", threads=2) as load:
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("the workers are not replaced; mend what is wrong and send SIGHUP again")
            (project / "shop.py").write_text(APP.replace('"one"', '"two"'))
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: load.seen(["two"]))
        assert load.lost == load.refused == []
        assert server.output.count("the successor of worker") == 1


def test_more_and_fewer(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        with Load(port, threads=4) as load:
            server.process.send_signal(signal.SIGTTIN)
            third = log.serving(3)
            server.wait_for("one worker more, 3")
            eventually(lambda: load.seen([str(third)]))
            server.process.send_signal(signal.SIGTTOU)
            eventually(lambda: not alive(third))
            second = log.serving(2)
            server.process.send_signal(signal.SIGTTOU)
            eventually(lambda: not alive(second))
            server.process.send_signal(signal.SIGTTOU)
            server.wait_for("the last worker stays")
            # Connections go on arriving at the sockets of those that have left.
            before = sum(load.answers.values())
            eventually(lambda: sum(load.answers.values()) > before + 100)
            server.process.send_signal(signal.SIGTTIN)
            eventually(lambda: load.seen([str(log.serving(2, count=2))]))
        assert load.lost == load.refused == []
        assert server.stop(signal.SIGTERM) == 0


def test_recycling_by_requests_loses_nothing(project: Path, loop_name: str) -> None:
    options = ("--max-requests", "50", "--max-requests-jitter", "20", *io_options(loop_name))
    with workers(project, *options) as (server, log):
        port = log.wait()
        with Load(port, keep=True) as kept, Load(port) as brief:
            server.wait_for(r"replacing worker \d: it has served \d+ requests", count=4)
            eventually(lambda: len(log.pids()) >= 6)
        assert kept.lost == kept.refused == brief.lost == brief.refused == []
        assert server.stop(signal.SIGTERM) == 0


def test_recycling_by_memory(project: Path) -> None:
    with workers(project, "--workers", "1", "--max-memory", "150MiB") as (server, log):
        port = log.wait()
        first = log.serving(1)
        with Load(port, threads=2) as load:
            for _ in range(3):
                ask(port, "/eat")
            server.wait_for(r"replacing worker 1: it uses \d+ MiB of memory")
            second = log.serving(1, count=2)
            eventually(lambda: not alive(first))
            eventually(lambda: load.seen([str(second)]))
        assert load.lost == load.refused == []


def test_sigterm_to_a_worker_replaces_it(project: Path) -> None:
    with workers(project) as (_, log):
        port = log.wait()
        with Load(port, threads=4) as load:
            first = log.serving(1)
            os.kill(first, signal.SIGTERM)
            log.serving(1, count=2)
            eventually(lambda: not alive(first))
        assert load.lost == load.refused == []


# Stopping.


def test_sigterm_loses_nothing(project: Path, loop_name: str) -> None:
    with workers(project, *io_options(loop_name)) as (server, log):
        port = log.wait()
        with Load(port, threads=16) as brief, Load(port, threads=8, keep=True) as kept:
            pids = [str(log.serving(number)) for number in (1, 2)]
            eventually(lambda: brief.seen(pids) and sum(kept.answers.values()) > 50)
            assert server.stop(signal.SIGTERM) == 0
            brief.join()
            kept.join()
        assert brief.lost == kept.lost == []
        assert len(brief.refused) == 16
    assert (project / "stopped").read_text() == "one\none\n"


def test_sigterm_on_a_unix_socket_loses_nothing(project: Path) -> None:
    with workers(project, "--uds", "s") as (server, log):
        log.wait()
        with Load(str(project / "s"), threads=4) as load:
            pids = [str(log.serving(number)) for number in (1, 2)]
            eventually(lambda: load.seen(pids))
            assert server.stop(signal.SIGTERM) == 0
            load.join()
        assert load.lost == []
        assert not (project / "s").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_is_one_signal(project: Path, number: int) -> None:
    # As Ctrl-C in a terminal, or a service manager that stops a service.
    with workers(project, process_group=0) as (server, log):
        port = log.wait()
        with Load(port, "/wait/0.5", threads=4) as load:
            eventually(lambda: waiting(project) >= 4)
            os.killpg(server.process.pid, number)
            assert server.wait() == 0
            load.join()
        assert load.lost == []
        assert "hurry" not in server.output
        assert "ended by itself" not in server.output


def test_sigterm_does_not_hurry_a_worker_that_leaves(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        with Load(port, "/wait/1", threads=4) as load:
            eventually(lambda: waiting(project) >= 4)
            pids = log.pids()
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("the workers are replaced")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        assert load.lost == []
        assert "hurry" not in server.output


def test_a_second_signal_cuts_it_short(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        with Load(port, "/wait/600", threads=4) as load:
            eventually(lambda: waiting(project) >= 4)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.process.poll() is None
            assert server.stop(signal.SIGTERM) == 0
        assert load.answers == {}
    # The shut-down of the app was not.
    assert (project / "stopped").read_text() == "one\none\n"


def test_a_worker_that_does_not_listen_is_killed(project: Path) -> None:
    with workers(project, "--workers", "1", "--max-requests", "9", "--shutdown-timeout", "0") as (server, log):
        port = log.wait()
        worker = log.serving(1)
        with Load(port, "/block", threads=1):
            eventually((project / "entered").exists)
            server.process.send_signal(signal.SIGTERM)
            assert server.stop(signal.SIGTERM) == 0
        assert not alive(worker)


# Sockets.


def test_an_inherited_socket(project: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        number = sock.fileno()
        port = sock.getsockname()[1]
        with workers(project, "--fd", str(number), pass_fds=[number]) as (server, log):
            assert log.wait() == port
            pids = {str(log.serving(1)), str(log.serving(2))}
            seen: set[str] = set()
            eventually(lambda: seen.add(ask(port, "/pid")) or seen == pids)
            assert server.stop(signal.SIGTERM) == 0
        # It is not ours to close, and nothing was left behind that would turn clients away.
        with workers(project, "--fd", str(number), pass_fds=[number]) as (server, log):
            assert ask(log.wait()) == "one"


@pytest.mark.parametrize("method", METHODS)
def test_programs_of_the_app_do_not_keep_the_port(project: Path, method: str) -> None:
    with workers(project, "--start-method", method) as (server, log):
        port = log.wait()
        child = int(ask(port, "/child"))
        try:
            assert server.stop(signal.SIGTERM) == 0
            assert alive(child)
            assert refused(port)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("burst", [1, 50])
def test_connections_are_divided_fairly(project: Path, burst: int, loop_name: str) -> None:
    """Within 60 to 40 for two workers and 1,000 connections."""
    with workers(project, *io_options(loop_name)) as (_, log):
        with Load(log.wait(), threads=burst) as load:
            eventually(lambda: sum(load.answers.values()) >= 1000)
        counts = list(load.answers.values())
        assert len(counts) == 2
        assert min(counts) / sum(counts) > 0.4, counts


def test_workers_share_a_unix_socket(project: Path) -> None:
    with workers(project, "--uds", "s") as (_, log):
        log.wait()
        pids = {str(log.serving(1)), str(log.serving(2))}
        with Load(str(project / "s"), threads=16) as load:
            eventually(lambda: load.seen(list(pids)))
        assert set(load.answers) == pids


def test_each_stays_on_its_processor(project: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with workers(project, "--worker-affinity", "--workers", "3") as (_, log):
        log.wait()
        for number in (1, 2, 3):
            status = Path(f"/proc/{log.serving(number)}/status").read_text()
            allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)
            assert allowed is not None
            assert allowed[1] == str(cpus[(number - 1) % len(cpus)])


def test_auto_is_one_per_processor(project: Path) -> None:
    with workers(project, "--workers", "auto") as (server, log):
        log.wait()
        only = subprocess.run(
            [sys.executable, "-c", "from armature.server.cpus import available_cpus; print(available_cpus())"],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(log.pids()) == int(only.stdout)
        assert server.stop(signal.SIGTERM) == 0


# What they tell.


def stats(port: int, patience: float = PATIENCE) -> dict[str, Any]:
    return json.loads(ask(port, "/stats", patience))  # type: ignore[no-any-return]


def test_stats_of_all_from_any(project: Path) -> None:
    with workers(project) as (server, log):
        port = log.wait()
        for _ in range(20):
            ask(port)
        found = stats(port)
        assert sorted(one["worker.number"] for one in found["workers"]) == [1, 2]
        assert {one["worker.pid"] for one in found["workers"]} == {log.serving(1), log.serving(2)}
        assert all(one["worker.memory"] > 1_000_000 for one in found["workers"])
        assert sum(one["connection.requests"] for one in found["workers"]) == 21
        assert found["retired"] == {}
        # What those have counted that are gone is not forgotten.
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("the workers are replaced")
        eventually(lambda: not any(alive(pid) for pid in log.pids()[:2]))
        found = eventually(lambda: (now := stats(port))["retired"].get("connection.requests") == 21 and now)
        assert "worker.pid" not in found["retired"]


def test_a_busy_worker_does_not_keep_the_stats(project: Path) -> None:
    def pids(port: int) -> set[int] | None:
        with contextlib.suppress(TimeoutError):
            return {one["worker.pid"] for one in stats(port, patience=2)["workers"]}
        # It was the busy one that was asked.
        return None

    with workers(project) as (_, log):
        port = log.wait()
        stats(port)
        with opened(port, asked("/block", close=True)):
            stuck = int(eventually(lambda: (project / "entered").exists() and (project / "entered").read_text()))
            # With what it told last.
            assert eventually(lambda: pids(port)) == set(log.pids())
            os.kill(stuck, signal.SIGKILL)
            eventually(lambda: len(log.pids()) == 3)


def test_the_log_is_one_stream_of_whole_lines(project: Path) -> None:
    with workers(project, "--access-log") as (server, log):
        port = log.wait()
        with Load(port, threads=8) as load:
            eventually(lambda: sum(load.answers.values()) > 500)
        assert server.stop(signal.SIGTERM) == 0
        form = re.compile(r"\S+ [A-Z]+ +(supervisor|worker-[12]) +\S.*\n")
        wrong = [line for line in server.output.splitlines(keepends=True) if not form.fullmatch(line)]
        assert wrong == []
        assert server.output.count('"GET /pid HTTP/1.1" 200') == sum(load.answers.values())
