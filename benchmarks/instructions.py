"""`python -m benchmarks instructions`: instructions per request under callgrind, where the clock is too noisy to tell.

A fixed number of requests is fed to the connection core of one twin (`plaintext`), or to the server's protocol with the
whole App behind it (`app-plaintext`), after a warm-up that is not counted. The count hardly depends on the machine, and
a change of one per cent is a change. Self cost is summed by object file, which for
the compiled twins is a stage (parser, router, dispatch, connection, writer), and then by function.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.callgrind import ENVIRON, Profile, read
from benchmarks.probe import ProbeError, load
from benchmarks.twins import APP_REQUESTS, REQUESTS, AppCore, Core, in_loop, peer_app

HERE = Path(__file__).resolve().parent
WARM_UP = 300
_TIMEOUT = 900


def feed(impl: str, name: str, requests: int) -> None:
    """Feed requests with callgrind counting; runs inside valgrind."""
    probe = load()

    def run(loop: asyncio.AbstractEventLoop) -> None:
        if name in APP_REQUESTS:
            variant, data = APP_REQUESTS[name]
            whole = AppCore(peer_app(variant), loop)
            whole.check(data)
            call = whole.feed
        else:
            core = Core(impl, loop)
            core.check(name)
            data, call = REQUESTS[name], core.feed
        for _ in range(WARM_UP):
            call(data)
        probe.probe_callgrind(1)
        for _ in range(requests):
            call(data)
        probe.probe_callgrind(0)

    in_loop(run)


def count(impl: str, name: str, requests: int) -> Profile:
    """Run one kind of request under callgrind.

    Raises:
        ProbeError: valgrind is missing, or the run failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise ProbeError("valgrind is missing: install it first (Debian, Ubuntu: `apt-get install valgrind`)")
    if not load().probe_has_callgrind():
        raise ProbeError("the header valgrind/callgrind.h is missing: install valgrind's development files")
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ARMATURE_")}
    environ |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"} | ENVIRON
    if impl == "py":
        environ["ARMATURE_PURE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        command = [valgrind, "--tool=callgrind", "--instr-atstart=no", "--quiet", f"--callgrind-out-file={profile}"]
        command += [sys.executable, "-m", "benchmarks.instructions", impl, name, str(requests)]
        done = subprocess.run(command, cwd=HERE.parent, env=environ, text=True, capture_output=True, timeout=_TIMEOUT)
        if done.returncode or not profile.exists():
            raise ProbeError(f"the run under valgrind failed: {done.stderr.strip()[-500:]}")
        with profile.open(errors="replace") as lines:
            return read(lines)


def main(options: argparse.Namespace) -> int:
    """Count, print a table of stages and the costliest functions, and write them if asked to.

    Args:
        options: `loads`, `requests`, `pure`, `top`, `save`.
    """
    impl = "py" if options.pure else "c"
    names = [name.strip() for name in options.loads.split(",") if name.strip()]
    for name in names:
        if name not in REQUESTS and name not in APP_REQUESTS:
            raise SystemExit(f"there is no request {name!r}; there are {', '.join([*REQUESTS, *APP_REQUESTS])}")
    found: dict[str, dict[str, float]] = {}
    for name in names:
        lines = []
        try:
            profile = count(impl, name, options.requests)
        except ProbeError as error:
            raise SystemExit(str(error)) from None
        stages, total = profile.by_file(), profile.total
        found[name] = {"total": round(total / options.requests, 1)}
        found[name] |= {stage: round(cost / options.requests, 1) for stage, cost in stages.most_common()}
        lines += [f"## {name}: {total / options.requests:,.0f} instructions per request", ""]
        lines += ["| stage | instructions | share |", "| --- | ---: | ---: |"]
        for stage, cost in stages.most_common():
            if cost >= total / 500:
                lines.append(f"| {stage} | {cost / options.requests:,.0f} | {cost / total:.0%} |")
        lines += ["", "| function | instructions | share |", "| --- | ---: | ---: |"]
        for (stage, function), cost in profile.own.most_common(options.top):
            lines.append(f"| `{stage}: {function}` | {cost / options.requests:,.0f} | {cost / total:.0%} |")
        calls = [
            (f"{caller[0]}: {caller[1]} -> {callee[1]}", cost)
            for (caller, callee), cost in profile.calls.most_common()
            if caller[0].startswith("armature") and not callee[0].startswith("armature")
        ]
        if calls:
            lines += ["", "| calls out of the twins | instructions, inclusive | share |", "| --- | ---: | ---: |"]
            for call, cost in calls[: options.top]:
                lines.append(f"| `{call}` | {cost / options.requests:,.0f} | {cost / total:.0%} |")
        lines.append("")
        print("\n".join(lines), flush=True)
    if options.save:
        path = HERE / "results" / f"instructions-{impl}.json"
        path.write_text(json.dumps({"requests": options.requests, "per_request": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    feed(sys.argv[1], sys.argv[2], int(sys.argv[3]))
