"""`armature bench`: a load on one's own app, what it costs, and where the time goes."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import click

from armature.cli.console import CommandError, find_target, target_argument
from armature.cli.load import LoadError, Outcome, cpu_seconds, drive, process_tree, request_bytes

__all__ = ["bench"]

HOST = "127.0.0.1"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@click.command()
@target_argument
@click.option("--path", default="/", show_default=True, help="What is asked for.")
@click.option("--body", help="Sent with POST, instead of asking with GET.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent as well; may be repeated.")
@click.option(
    "--connections", type=click.IntRange(1, 4096), default=64, show_default=True, help="Connections kept open."
)
@click.option(
    "--duration", type=click.IntRange(1, 3600), default=5, show_default=True, help="Seconds, behind one to warm up."
)
@click.option(
    "--generator",
    type=click.Choice(["auto", "wrk", "own"]),
    default="auto",
    show_default=True,
    help="What makes the load: wrk where it is installed, or Armature itself, which is slower.",
)
@click.option("--flame", type=click.Path(dir_okay=False), metavar="FILE.svg", help="Draw a flame graph into this file.")
@click.option(
    "--profiler",
    type=click.Choice(["auto", "perf", "py-spy"]),
    default="auto",
    show_default=True,
    help="What records for the flame graph.",
)
@click.option(
    "--loop", type=click.Choice(["auto", "uvloop", "asyncio"]), default="auto", show_default=True, help="Event loop."
)
@click.option("--factory", is_flag=True, help="APP names a function that returns the app.")
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False),
    help="Directory to import APP from.  [default: the current one]",
)
def bench(
    target: str | None,
    path: str,
    body: str | None,
    headers: tuple[str, ...],
    connections: int,
    duration: int,
    generator: str,
    flame: str | None,
    profiler: str,
    loop: str,
    factory: bool,
    app_dir: str | None,
) -> None:
    """Put a load on an app, and show what a request costs.

    Starts the app as `armature run` does, in a process of its own, and asks it for --path over keep-alive connections.
    CPU per request is the server's own processor time: unlike requests per second, it does not depend on how fast the
    load is. With --flame the load is made a second time, under a profiler.
    """
    fields = [_field(header) for header in headers]
    if not re.fullmatch(r"/[!-~]*", path):
        raise CommandError(
            f"--path is {path!r}", "give a path that begins with / and holds visible ASCII alone, such as /items/5"
        )
    payload = None if body is None else body.encode()
    wrk = shutil.which("wrk")
    if generator == "wrk" and (wrk is None or payload is not None):
        raise CommandError(
            "wrk is not installed" if wrk is None else "wrk is asked with GET only here",
            "install it (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk), or take --generator own"
            if wrk is None
            else "leave out --body, or take --generator own",
        )
    with _serving(find_target(target, app_dir), factory, app_dir, loop) as (process, port, output):
        request = request_bytes(HOST, path, payload, fields)
        command = None if generator == "own" or payload is not None or wrk is None else [wrk, "-t1", "--latency"]

        def ask(seconds: int) -> Outcome:
            if command is None:
                return drive((HOST, port), [request], connections, seconds=seconds)
            return _ask_by_wrk(command, f"http://{HOST}:{port}{path}", fields, connections, seconds)

        try:
            first = drive((HOST, port), [request], 1, count=1)
            if first.failed:
                raise CommandError(
                    f"{'GET' if payload is None else 'POST'} {path} is answered with an error",
                    "name a path that the app serves with --path; `armature routes` lists them",
                )
            ask(1)
            before = _cpu(process.pid)
            outcome = ask(duration)
            used = _cpu(process.pid) - before
            _report(outcome, used, "wrk" if command else "own generator", connections)
            if flame is not None:
                _draw(process.pid, flame, profiler, duration, lambda: ask(duration + 1), f"{target or 'app'} {path}")
        except LoadError as error:
            raise CommandError(str(error), shown=_last_words(output), exit_code=1) from None


def _field(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t -~]*", value):
        raise CommandError(f"--header is {header!r}", "write it as 'name: value'")
    return name, value.strip()


@contextlib.contextmanager
def _serving(
    target: str, factory: bool, app_dir: str | None, loop: str
) -> Iterator[tuple[subprocess.Popen[bytes], int, IO[bytes]]]:
    """Run the server in a process of its own, on a free port, until the block ends."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "armature", "run", target, "--host", HOST, "--port", str(port), "--loop", loop]
    command += ["--log-level", "warning", "--no-access-log"]
    if factory:
        command.append("--factory")
    if app_dir is not None:
        command += ["--app-dir", app_dir]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while True:
                if process.poll() is not None:
                    raise CommandError("the app does not start; above is what it said", shown=_last_words(output))
                with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
                    break
                if time.monotonic() > deadline:
                    raise CommandError(f"the app does not answer within {_START_SECONDS:.0f} seconds")
                time.sleep(0.02)
            yield process, port, output
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()


def _last_words(output: IO[bytes]) -> str:
    """Return what the server has printed."""
    output.seek(0)
    said = output.read().decode(errors="replace").strip()
    return f"{said[-1500:]}\n" if said else ""


def _ask_by_wrk(command: list[str], url: str, fields: list[tuple[str, str]], connections: int, seconds: int) -> Outcome:
    headers = [part for name, value in fields for part in ("-H", f"{name}: {value}")]
    full = [*command, f"-c{connections}", f"-d{seconds}s", *headers, url]
    try:
        done = subprocess.run(full, capture_output=True, text=True, timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        raise LoadError("wrk did not end") from None
    requests = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", done.stdout)
    shares = {
        share: float(number) * _UNITS[unit]
        for share, number, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", done.stdout, re.MULTILINE)
    }
    if done.returncode or requests is None or len(shares) != 2 or int(requests[1]) == 0:
        raise LoadError(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    elapsed = float(requests[2]) * _UNITS[requests[3]]
    return Outcome(int(requests[1]), int(errors[1]) if errors else 0, elapsed, shares["50"], shares["99"])


def _cpu(pid: int) -> float:
    return sum(cpu_seconds(one) for one in process_tree(pid))


def _report(outcome: Outcome, used: float, generator: str, connections: int) -> None:
    cost = f"{used / outcome.requests * 1e6:.1f} µs" if used else "not known on this system"
    click.echo(f"requests/s       {outcome.requests / outcome.seconds:,.0f}  ({generator}, {connections} connections)")
    click.echo(f"CPU per request  {cost}")
    click.echo(f"latency          p50 {outcome.p50 * 1e3:.2f} ms, p99 {outcome.p99 * 1e3:.2f} ms")
    click.echo(f"answered         {outcome.requests:,}, {outcome.failed:,} of them with an error")


def _draw(pid: int, flame: str, profiler: str, seconds: int, ask: Callable[[], Outcome], title: str) -> None:
    from armature.cli.flame import FlameError, Recorder, draw

    try:
        recorder = Recorder(pid, seconds, profiler)
        with recorder:
            ask()
        stacks = recorder.stacks()
    except FlameError as error:
        raise CommandError(f"no flame graph: {error}", error.mend, exit_code=1) from None
    samples = stacks.total()
    Path(flame).write_text(draw(stacks, f"{title}: {samples:,} samples in {seconds} s"), "utf-8")
    click.echo(f"flame graph      {flame}, {samples:,} samples by {recorder.profiler}")
