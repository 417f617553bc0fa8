"""A headless Chromium, driven by the DevTools protocol over two pipes: no library, no port.

    with Browser(require_browser(), folder) as browser, browser.page() as page:
        page.open("http://127.0.0.1:8000/")
        assert page.evaluate("document.title") == "Shop"

The protocol: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from counterparts import require

__all__ = ["Browser", "Page", "require_browser"]

#: A browser on a busy machine may take long to begin.
PATIENCE = 60.0

FLAGS = [
    "--headless",
    "--remote-debugging-pipe",
    # Users in containers, root among them, may not make the namespaces of the sandbox; all pages are our own.
    "--no-sandbox",
    # Containers often have a /dev/shm of 64 MiB.
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    # Media that plays without a click is what the tests want to see.
    "--autoplay-policy=no-user-gesture-required",
    # A page that was left would be kept, with its open requests, in case somebody goes back.
    "--disable-features=BackForwardCache",
    # Nothing but the servers of the tests is talked to.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

# The browser reads commands from descriptor 3 and writes to 4. subprocess hands descriptors on under their own numbers
# alone, and a preexec_fn is not safe beside threads; so a process in between renumbers them and becomes the browser.
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
    os.close(end)
os.execv(sys.argv[3], sys.argv[3:])
"""


def require_browser() -> str:
    """The path of a Chromium, or of a Chrome; see `counterparts.require`."""
    return require("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """A browser process with a profile of its own.

    Args:
        program: The path of the browser.
        profile: An empty folder for what it keeps.
    """

    def __init__(self, program: str, profile: Path) -> None:
        command_end, self._commands = os.pipe()
        self._answers, answer_end = os.pipe()
        launch = [sys.executable, "-c", LAUNCH, str(command_end), str(answer_end)]
        log = profile / "stderr.log"
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*launch, program, *FLAGS, f"--user-data-dir={profile}"],
                pass_fds=(command_end, answer_end),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**os.environ, "HOME": str(profile)},
                start_new_session=True,
            )
        self._log = log
        os.close(command_end)
        os.close(answer_end)
        self._buffer = b""
        self._number = 0
        self._results: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        self.until(lambda: number in self._results, method)
        answer = self._results.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Take in what the browser says until something has become true."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            left = deadline - time.monotonic()
            assert left > 0, (
                f"{what} did not come in time; the browser said:\n{self._log.read_text('utf-8', 'replace')}"
            )
            if select.select([self._answers], [], [], left)[0]:
                self._take_in()
        return found

    def _take_in(self) -> None:
        data = os.read(self._answers, 1 << 20)
        assert data, f"the browser ended:\n{self._log.read_text('utf-8', 'replace')}"
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._results[message["id"]] = message
            else:
                self.events.append(message)

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """Open an empty page with cookies and a cache of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            yield Page(self, session)
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)
            self.events = [event for event in self.events if event.get("sessionId") != session]

    def close(self) -> None:
        """End the browser and all of its processes."""
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        os.close(self._commands)
        os.close(self._answers)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        # The helpers of one that hangs, or that crashed, are in the session that it leads.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, self._session, **parameters)

    def events(self, method: str) -> list[dict[str, Any]]:
        """What has been told of one kind, in order."""
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == method
        ]

    def told(self, method: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until something of one kind is told that meets a condition, unless it was told already."""
        found: dict[str, Any] = self._browser.until(
            lambda: next((event for event in self.events(method) if condition(event)), None), method
        )
        return found

    def open(self, url: str) -> None:
        """Go somewhere, and wait until the page and all that it names is loaded."""
        with self._loading(url):
            result = self.call("Page.navigate", url=url)
            assert "errorText" not in result, f"{url}: {result['errorText']}"

    def follow(self, script: str) -> None:
        """Evaluate a script that goes somewhere, and wait until that is loaded."""
        with self._loading(script):
            self.evaluate(script)

    @contextlib.contextmanager
    def _loading(self, what: str) -> Iterator[None]:
        before = len(self.events("Page.loadEventFired"))
        yield
        self._browser.until(lambda: len(self.events("Page.loadEventFired")) > before, f"the end of loading: {what}")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, of a promise what it is fulfilled with.

        An asynchronous piece of program is `(async () => { ...; return value })()`.
        """
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]["exception"].get("description", answer)
        return answer["result"].get("value")

    def run(self, program: str) -> Any:
        """Run the body of an asynchronous function and return what it returns."""
        return self.evaluate(f"(async () => {{ {program} }})()")

    def responses(self, path: str) -> list[dict[str, Any]]:
        """The responses that came for a path, as DevTools shows them: status, headers, connectionId and so on."""
        return [
            event["response"]
            for event in self.events("Network.responseReceived")
            if event["response"]["url"].partition("?")[0].endswith(path)
        ]
