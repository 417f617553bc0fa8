"""Check an installed Armature from outside: it imports, runs the twins expected, and its command serves an app.

    python tools/smoke.py                 any twins
    python tools/smoke.py --expect c      the compiled ones, or fail; `--expect py` likewise

Needs nothing but Armature; run it anywhere except from a checkout's root, or its package is the one that is tested.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

APP = """
from armature import App, HttpRequest, HttpResponse

app = App()


@app.get("/")
async def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse.text("hello")


@app.get("/items/{number}")
def item(number: int, q: str = "none") -> dict[str, object]:
    return {"number": number, "q": q}


@app.post("/echo")
async def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await request.body())
"""


def get(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, data, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def start(command: list[str], folder: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server and return it with the address it says it listens on."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    said = []
    for line in process.stdout:
        said.append(line)
        if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            watchdog.cancel()
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, match[0]
    raise SystemExit("the server did not start:\n" + "".join(said))


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"smoke test failed: {what}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", choices=["c", "py"], help="the twins that must run")
    expected = parser.parse_args().expect
    import armature

    if expected is not None:
        check(expected == armature.IMPL, f"the {armature.IMPL!r} twins run, {expected!r} was expected")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "smoke_app.py").write_text(APP, "utf-8")
        command = [sys.executable, "-m", "armature", "run", "smoke_app:app", "--port", "0"]
        process, base = start(command, folder)
        try:
            began = time.perf_counter()
            for url, data, wanted in [
                ("/", None, (200, b"hello")),
                ("/echo", b"\x00\xff" * 50_000, (200, b"\x00\xff" * 50_000)),
            ]:
                check(get(base + url, data) == wanted, f"{url} answers {wanted[0]}")
            status, body = get(base + "/items/7?q=a%20b")
            check((status, json.loads(body)) == (200, {"number": 7, "q": "a b"}), "/items/7 answers its parameters")
            check(get(base + "/items/seven")[0] == 422, "/items/seven is refused with 422")
            check(get(base + "/nowhere")[0] == 404, "/nowhere is not found")
            took = time.perf_counter() - began
        finally:
            process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                raise SystemExit("smoke test failed: the server did not stop") from None
        check(os.name == "nt" or process.returncode == 0, f"the server stops cleanly, not with {process.returncode}")
    python = ".".join(map(str, sys.version_info[:3]))
    print(
        f"armature {armature.__version__} on Python {python}: IMPL={armature.IMPL}, all answers right in {took:.2f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
