"""What `armature deploy` writes is run: the service as systemd would start it, the container's command and its probes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterparts import require
from e2e.command_line import environment, eventually, fetch, refused, run_command
from wire_client import certificate as make_certificate

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is deployed to is Linux")

PATIENCE = 30.0
APP = """
from armature import App
from armature.health import HealthRouter

app = App()
app.include_router(HealthRouter())

@app.get("/")
async def index() -> str:
    return "deployed"
"""


#: What systemd does by itself: the socket becomes number 3, and a variable names the process.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_PID": str(os.getpid())})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with an app, and what stands for its virtual environment."""
    path = tmp_path / "shop"
    programs = path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (path / "shop.py").write_text(APP)
    for name, arguments in (("armature", "-m armature"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        program.chmod(0o755)
    return path


def made(project: Path, *arguments: str) -> None:
    result = run_command("deploy", *arguments, "--app", "shop:app", cwd=project)
    assert result.returncode == 0, result.stderr


@contextlib.contextmanager
def started(words: Sequence[str], project: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command of a file, in an environment where its programs are found first."""
    variables = environment() | options.pop("variables", {})
    variables["PATH"] = f"{project / '.venv/bin'}{os.pathsep}{variables['PATH']}"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            words, cwd=project, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, **options
        )
        try:
            yield process
        except BaseException as error:
            log.seek(0)
            error.add_note(log.read())
            raise
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


def directive(text: str, name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)
    return str(value)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_as_systemd_runs_it(project: Path, workers: str) -> None:
    curl = require("curl")
    path = f"/tmp/armature-{os.getpid()}-{workers}.sock"
    made(project, "systemd", f"--directory={project}", f"--workers={workers}", f"--uds={path}")
    service = (project / "deploy/systemd/shop.service").read_text()
    listen = directive((project / "deploy/systemd/shop.socket").read_text(), "ListenStream")
    with contextlib.ExitStack() as stack:
        stack.callback(Path(listen).unlink, missing_ok=True)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(listen)
        listener.listen()
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        # The abstract namespace: the kernel chooses a name.
        manager.bind("")
        manager.settimeout(PATIENCE)
        asking = subprocess.Popen(
            [curl, "-sS", "--max-time", str(PATIENCE), "--unix-socket", listen, "http://shop/"],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(asking)
        process = stack.enter_context(
            started(
                [sys.executable, "-c", LAUNCHER, str(listener.fileno()), *shlex.split(directive(service, "ExecStart"))],
                project,
                pass_fds=[listener.fileno()],
                variables={
                    "LISTEN_FDS": "1",
                    "NOTIFY_SOCKET": "@" + manager.getsockname()[1:].decode(),
                    "WATCHDOG_USEC": str(int(directive(service, "WatchdogSec")) * 1_000_000),
                },
            )
        )
        assert manager.recv(1000).startswith(b"READY=1\n")
        assert manager.recv(1000) == b"WATCHDOG=1"
        # It was asked before it was started.
        assert asking.communicate(timeout=PATIENCE)[0] == "deployed"
        if workers != "1":
            reload = shlex.split(directive(service, "ExecReload").replace("$MAINPID", str(process.pid)))
            subprocess.run(reload, check=True, timeout=PATIENCE)
            assert manager.recv(1000).startswith(b"RELOADING=1\n")
            assert manager.recv(1000).startswith(b"READY=1\n")
        process.send_signal(signal.SIGTERM)
        assert manager.recv(1000).startswith(b"STOPPING=1")
        assert process.wait(PATIENCE) == 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def serves(port: int) -> bool:
    with contextlib.suppress(OSError):
        return fetch(port) == (200, "deployed")
    return False


def test_the_image_s_command_and_its_health_check(project: Path) -> None:
    port = free_port()
    made(project, "docker", f"--port={port}")
    text = (project / "Dockerfile").read_text()
    command = json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0])
    check = json.loads(re.findall(r"^    CMD (.*)$", text, re.MULTILINE)[0])
    # Before it serves, and behind a proxy that is meant for the world outside.
    variables = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    with started(check, project, variables=variables) as early:
        assert early.wait(PATIENCE) != 0
    with started(command, project) as process:
        eventually(lambda: serves(port), seconds=PATIENCE)
        with started(check, project, variables=variables) as probe:
            assert probe.wait(PATIENCE) == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_the_pod_is_not_ready_before_it_refuses(project: Path) -> None:
    port = free_port()
    made(project, "kubernetes", f"--port={port}", "--shutdown-delay=60")
    manifest = yaml.safe_load((project / "deploy/kubernetes/deployment.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]

    def probe(kind: str) -> int:
        return fetch(port, container[f"{kind}Probe"]["httpGet"]["path"])[0]

    with started(container["command"], project) as process:
        eventually(lambda: serves(port), seconds=PATIENCE)
        assert [probe(kind) for kind in ("startup", "liveness", "readiness")] == [200, 200, 200]
        process.send_signal(signal.SIGTERM)
        eventually(lambda: probe("readiness") == 503)
        assert (probe("liveness"), fetch(port)) == (200, (200, "deployed"))
        # A second one cuts the delay short.
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "deployment.md"

WHO = """
from armature import App, HttpRequest

app = App()

@app.get("/")
async def index(request: HttpRequest) -> list:
    return [request.client[0], request.scheme, request.host]
"""


@pytest.mark.xdist_group("nginx")
def test_the_guide_s_nginx(project: Path) -> None:
    nginx, curl = require("nginx"), require("curl")
    (site,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (project / "shop.py").write_text(WHO)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="armature-") as scratch:
        home = Path(scratch)
        certificate, key = make_certificate(home)
        # The page's own words, but for the places.
        for place, here in (
            ("unix:/run/shop.sock", f"unix:{home}/app.sock"),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/shop.pem", str(certificate)),
            ("/etc/ssl/shop.key", str(key)),
        ):
            assert site.count(place) == 1
            site = site.replace(place, here)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
        configuration = home / "nginx.conf"
        configuration.write_text(
            f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log; events {{}}\n"
            f"http {{ access_log off; {paths}\n{site} }}\n"
        )
        serving = ["armature", "run", "shop:app", "--uds", f"{home}/app.sock", "--trusted-proxy", "unix"]
        proxying = [nginx, "-e", f"{home}/error.log", "-c", str(configuration)]
        with started(serving, project) as server, started(proxying, project):
            eventually(lambda: (home / "app.sock").exists() and not refused(port), seconds=PATIENCE)
            for _ in range(2):
                answer = subprocess.run(
                    [
                        *(curl, "-sS", "--cacert", str(certificate), "-H", "Host: shop.example.org"),
                        *("-H", "X-Forwarded-For: 6.6.6.6", f"https://localhost:{port}/"),
                    ],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    check=True,
                )
                assert json.loads(answer.stdout) == ["127.0.0.1", "https", "shop.example.org"]
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
