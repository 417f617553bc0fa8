"""`python -m benchmarks guard`: fails if a request takes notably more instructions than what is pinned in `guard.json`.

A fixed number of requests of each kind goes through the server's protocol with a whole App behind it, under callgrind,
which does not care what else the machine does. Two numbers are held against the pinned ones:

- `relative`: all instructions of a request, as a multiple of a fixed piece of Python (`calibrate`) counted in the same
  run. What an interpreter's own build makes faster or slower is in both.
- `own`: instructions in our compiled twins, per request. They hardly depend on the interpreter's build, and a change
  that the interpreter's share would hide shows here. The pure twins have none.

Numbers are pinned per CPython minor version, processor and twin. Compilers differ by a few per cent in them; a number
that is more than 15 % worse fails. What got better is said, and pinned by `--write`.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from benchmarks.callgrind import ENVIRON, read
from benchmarks.http import peers
from benchmarks.probe import ProbeError, load
from benchmarks.twins import ITEM, AppCore, get, in_loop, post

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PINNED = HERE / "guard.json"
TOLERANCE = 0.15
WARM_UP, REQUESTS = 150, 600
#: A stream is worth many requests.
STREAMS = 24
CALIBRATION = "calibration"
LOADS = {
    "plaintext": get("/"),
    "json": get("/json"),
    "param": get("/users/1234"),
    "post": post("/items", ITEM),
    "routes": get(peers.route_path(peers.ROUTE_COUNT - 1)),
    "stream": get("/stream"),
}
_TIMEOUT = 300
Numbers = dict[str, dict[str, float]]


def make_app() -> Any:
    """Make the App that is asked; imported late, so that it is made of the twins that the process chose."""
    from armature import App, HttpRequest, HttpResponse

    app = App()

    async def plaintext() -> str:
        return peers.HELLO

    async def as_json() -> dict[str, str]:
        return peers.MESSAGE

    async def user(user_id: int) -> dict[str, int]:
        return {"id": user_id}

    async def items(req: HttpRequest) -> HttpResponse:
        return HttpResponse.json(peers.item_answer(await req.json()))

    async def stream() -> HttpResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(peers.CHUNK_COUNT):
                yield peers.CHUNK

        return HttpResponse.stream(chunks())

    app.get("/")(plaintext)
    app.get("/json")(as_json)
    app.get("/users/{user_id}")(user)
    # Annotations of functions made inside a function are looked up in the module, which has no HttpRequest.
    items.__annotations__ = {"req": HttpRequest, "return": HttpResponse}
    stream.__annotations__ = {"return": HttpResponse}
    app.post("/items")(items)
    app.get("/stream")(stream)
    for number in range(peers.ROUTE_COUNT):
        app.get(peers.route_path(number))(plaintext)
    return app


async def _answer(text: str) -> str:
    return text


def calibrate() -> None:
    """A fixed piece of Python, of the kind that answering a request is made of; what `relative` is relative to."""
    coroutine = _answer("Hello, World!")
    try:
        contextvars.copy_context().run(coroutine.send, None)
    except StopIteration as stop:
        head = {"content-type": "text/plain", "content-length": str(len(stop.value))}
        b"".join([f"{name}: {value}\r\n".encode() for name, value in head.items()])


def _requests(name: str) -> int:
    return STREAMS if name == "stream" else REQUESTS


def _feed() -> None:
    """Feed everything; runs inside valgrind, which writes one profile per load."""
    probe = load()
    app = make_app()

    def measured(name: str, call: Callable[[], object], count: int) -> None:
        for _ in range(WARM_UP if count > STREAMS else STREAMS):
            call()
        probe.probe_callgrind(1)
        for _ in range(count):
            call()
        probe.probe_callgrind_dump(name.encode())
        probe.probe_callgrind(0)

    def run(loop: asyncio.AbstractEventLoop) -> None:
        core = AppCore(app, loop)
        for name, data in LOADS.items():
            if name != "stream":
                core.check(data)
                measured(name, lambda data=data: core.feed(data), REQUESTS)

    measured(CALIBRATION, calibrate, REQUESTS)
    in_loop(run)

    # A stream takes turns of the loop.
    loop = asyncio.new_event_loop()
    core = AppCore(app, loop)

    def stream() -> None:
        core.sink.forget()
        loop.call_soon(core.feed, LOADS["stream"])
        while not core.sink.last.endswith(b"\r\n0\r\n\r\n"):
            loop.call_soon(loop.stop)
            loop.run_forever()

    measured("stream", stream, STREAMS)
    core.state.dispatcher.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def measure(impl: str, folder: Path = ROOT, **variables: str) -> Numbers:
    """Count every load on one twin.

    Args:
        impl: `py` or `c`.
        folder: What `armature` is imported from.
        **variables: Environment variables of the process that is counted.

    Raises:
        ProbeError: valgrind is missing, or the run failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None or not load().probe_has_callgrind():
        raise ProbeError(
            "valgrind, or its header, is missing: install it first (Debian, Ubuntu: `apt-get install valgrind`)"
        )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ARMATURE_", "PYTHON"))}
    environ |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    environ |= ENVIRON | variables
    environ |= {"ARMATURE_PURE": "1"} if impl == "py" else {"ARMATURE_REQUIRE_SPEEDUPS": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        command = [valgrind, "--tool=callgrind", "--instr-atstart=no", "--quiet"]
        command += [f"--callgrind-out-file={scratch}/profile", sys.executable, "-m", "benchmarks.guard"]
        done = subprocess.run(command, cwd=folder, env=environ, text=True, capture_output=True, timeout=_TIMEOUT)
        if done.returncode:
            raise ProbeError(f"the run under valgrind failed: {done.stderr.strip()[-500:]}")
        totals, owns = {}, {}
        for path in Path(scratch).iterdir():
            lines = path.read_text(errors="replace").splitlines(keepends=True)
            named = [line for line in lines[:40] if line.startswith("desc: Trigger: Client Request: ")]
            if named:
                name = named[0].removeprefix("desc: Trigger: Client Request: ").strip()
                profile = read(lines)
                totals[name] = profile.total / (REQUESTS if name == CALIBRATION else _requests(name))
                owns[name] = sum(cost for file, cost in profile.by_file().items() if file.startswith("armature "))
    missing = {*LOADS, CALIBRATION} - set(totals)
    if missing:
        raise ProbeError(f"callgrind wrote no profile of {', '.join(sorted(missing))}")
    return {
        name: {
            "total": round(totals[name], 1),
            "relative": round(totals[name] / totals[CALIBRATION], 4),
            "own": round(owns[name] / _requests(name), 1),
        }
        for name in LOADS
    }


def compare(found: Numbers, pinned: Numbers) -> tuple[list[str], list[str]]:
    """Return a line for each number that is notably worse than the pinned one, and for each that is better.

    Args:
        found: What `measure` returned.
        pinned: What it returned when it was pinned.
    """
    worse, better = [], []
    for name, numbers in found.items():
        for what in ("relative", "own"):
            before, now = pinned.get(name, {}).get(what), numbers[what]
            if before is None:
                worse.append(f"{name}: nothing is pinned for {what}; pin it with --write")
            elif now > before * (1 + TOLERANCE):
                worse.append(
                    f"{name}: {what} {before:g} -> {now:g}, {now / before - 1:+.0%}"
                    if before
                    else f"{name}: {what} 0 -> {now:g}"
                )
            elif now < before * (1 - TOLERANCE):
                better.append(f"{name}: {what} {before:g} -> {now:g}, {now / before - 1:+.0%}")
    return worse, better


def key() -> str:
    """Name what numbers are pinned for: the interpreter's version and the processor."""
    return f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])} {platform.machine()}"


def main(write: bool, twins: list[str]) -> int:
    """Count, print, and compare with `guard.json` or write it.

    Args:
        write: Whether to pin the numbers counted now.
        twins: `c`, `py`, or both.

    Returns:
        1 if a number is notably worse than the pinned one or cannot be counted, else 0.
    """
    pinned = json.loads(PINNED.read_text()) if PINNED.exists() else {}
    mine = pinned.setdefault(key(), {})
    status = 0
    for impl in twins:
        try:
            found = measure(impl)
        except ProbeError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{key()}, {'compiled' if impl == 'c' else 'pure'} twins")
        print("| request | instructions | relative | pinned | own | pinned |")
        print("| --- |" + " ---: |" * 5)
        for name, numbers in found.items():
            before = mine.get(impl, {}).get(name, {})
            print(
                f"| {name} | {numbers['total']:,.0f} | {numbers['relative']:.2f} | {before.get('relative', '-')} | "
                f"{numbers['own']:,.0f} | {before.get('own', '-')} |"
            )
        if write:
            mine[impl] = found
        elif impl not in mine:
            print("nothing is pinned for these; pin them with --write")
        else:
            worse, better = compare(found, mine[impl])
            for line in better:
                print(f"better, pin it with --write: {line}")
            for line in worse:
                print(f"WORSE: {line}")
            status = status or int(bool(worse))
    if write:
        PINNED.write_text(json.dumps(dict(sorted(pinned.items())), indent=1) + "\n")
    return status


if __name__ == "__main__":
    _feed()
