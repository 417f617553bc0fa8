"""Runs the code blocks of a Markdown page, in the page's order, in a folder of the page's own.

What a block is for follows from its language, or from a comment on the line above it, which readers do not see:

    python                          executed; all blocks of a page share one namespace
    shell                           executed; must succeed
    json, toml, yaml, ini           parsed
    text, http, and none            shown, not executed

    <!-- test: file main.py -->     saved under this name, and imported if it is a Python module
    <!-- test: serve -->            the command of this shell block is left running until the page ends or serves again
    <!-- test: output -->           what the block before has printed; `...` stands for anything
    <!-- test: fails 1 -->          the command of this shell block ends with this status
    <!-- test: skip REASON -->      not executed; the reason is needed

Pages say port 8000; every page is given a free port instead, in its files, commands and outputs.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"^(?:<!-- test: (?P<directive>[^\n]*?) -->\n\n?)?(?P<indent>[ ]*)```(?P<language>[\w-]*)[^\n]*\n"
    r"(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
DIRECTIVES = ("fails", "file", "output", "serve", "skip")
CHECKER = doctest.OutputChecker()
COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what to do with it, its text, and the line it begins on."""

    language: str
    directive: str
    argument: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    source = page.read_text("utf-8")
    for match in BLOCK.finditer(source):
        directive, _, argument = (match["directive"] or "").partition(" ")
        indent = match["indent"]
        lines = match["body"].splitlines()
        text = "\n".join(line.removeprefix(indent) for line in lines) + "\n"
        line = source.count("\n", 0, match.start("body")) + 1
        yield Block(match["language"], directive, argument.strip(), text, line)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _plugin_is_installed() -> bool:
    return any(entry.name == "armature" for entry in entry_points(group="pytest11"))


def environment(folder: Path) -> dict[str, str]:
    """What commands of a page run in: this interpreter's programs first, no proxies, no colours."""
    programs = folder / ".programs"
    if not programs.exists():
        # The command as it is installed, also where only the checkout is on the path.
        programs.mkdir()
        command = programs / "armature"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m armature "$@"\n')
        command.chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    inherited = {
        name: value
        for name, value in os.environ.items()
        # Pages set the second one themselves, together with ARMATURE_PURE.
        if "proxy" not in name.lower() and name != "ARMATURE_REQUIRE_SPEEDUPS"
    }
    return {
        **inherited,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
        # In a checkout that is not installed there is no entry point to load the plugin.
        "PYTEST_ADDOPTS": "-p no:cacheprovider" + ("" if _plugin_is_installed() else " -p armature.testing.plugin"),
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }


class Page:
    """The run of one page.

    Args:
        page: The Markdown file.
        folder: An empty folder for its files; also the current directory of its commands.
    """

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.port = free_port()
        self.printed = ""
        self.server: subprocess.Popen[bytes] | None = None
        self.module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
        self.module.__file__ = str(page)

    def run(self) -> int:
        """Run every block; return how many there were."""
        before = Path.cwd()
        sys.modules[self.module.__name__] = self.module
        sys.path.insert(0, str(self.folder))
        os.chdir(self.folder)
        count = 0
        try:
            for block in blocks(self.page):
                count += 1
                try:
                    self.run_block(block)
                except BaseException as error:
                    error.add_note(f"in the block at {self.page.relative_to(ROOT)}:{block.line}")
                    raise
        finally:
            os.chdir(before)
            sys.path.remove(str(self.folder))
            for name in list(sys.modules):
                origin = getattr(sys.modules[name], "__file__", None) or ""
                if origin.startswith(str(self.folder)) or name == self.module.__name__:
                    del sys.modules[name]
            self.stop()
        return count

    def run_block(self, block: Block) -> None:
        text = re.sub(r"\b8000\b", str(self.port), block.text)
        if block.directive == "skip":
            assert block.argument, "say why the block is skipped"
        elif block.directive == "output":
            assert CHECKER.check_output(text, self.printed, COMPARE), f"expected:\n{text}\nprinted:\n{self.printed}"
        elif block.directive == "file":
            self.save(block.argument, text)
        elif block.directive == "serve":
            self.serve(text)
        elif block.directive not in ("", "fails"):
            raise AssertionError(f"{block.directive!r} is none of {', '.join(DIRECTIVES)}")
        elif block.language == "python":
            self.execute(text, block.line)
        elif block.language in ("shell", "sh", "bash", "console"):
            self.shell(text, int(block.argument or 0))
        else:
            parse(block.language, text)

    def save(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        if path.suffix != ".py":
            parse(path.suffix.removeprefix("."), text)
        elif not path.name.startswith("test_"):
            module = ".".join(Path(name).with_suffix("").parts)
            sys.modules.pop(module, None)
            importlib.invalidate_caches()
            # A page may save a file twice within the resolution of the clock that bytecode is checked by.
            sys.dont_write_bytecode, written = True, sys.dont_write_bytecode
            try:
                importlib.import_module(module)
            finally:
                sys.dont_write_bytecode = written

    def execute(self, text: str, line: int) -> None:
        # Line feeds in front make tracebacks point at the page.
        code = compile("\n" * (line - 1) + text, str(self.page), "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, vars(self.module))
        self.printed = out.getvalue()

    def shell(self, text: str, status: int) -> None:
        result = subprocess.run(
            ["sh", "-euc", text],
            cwd=self.folder,
            env=environment(self.folder),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert result.returncode == status, f"{text}\nended with {result.returncode}:\n{result.stdout}{result.stderr}"
        self.printed = result.stdout + (result.stderr if status else "")

    def serve(self, text: str) -> None:
        self.stop()
        command = text.strip()
        if "--port" not in command and str(self.port) not in command and " run " in command:
            command += f" --port {self.port}"
        self.log = self.folder / "server.log"
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                ["sh", "-c", "exec " + command],
                cwd=self.folder,
                env=environment(self.folder),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while self.server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError(f"{command}\ndid not listen on port {self.port}:\n{self.log.read_text()}")

    def stop(self) -> None:
        if self.server is None:
            return
        server, self.server = self.server, None
        server.send_signal(signal.SIGINT)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(5)
            raise AssertionError(f"the server did not stop:\n{self.log.read_text()}") from None


def parse(language: str, text: str) -> None:
    """Check that data is well formed."""
    if language == "json":
        json.loads(text)
    elif language == "toml":
        tomllib.loads(text)
    elif language in ("yaml", "yml"):
        import yaml

        list(yaml.safe_load_all(text))
    elif language == "ini":
        import configparser

        configparser.ConfigParser(strict=False, interpolation=None).read_string(text)
    elif language not in ("", "text", "http", "nginx", "dockerfile", "html", "diff", "none"):
        raise AssertionError(f"blocks of the language {language!r} have no test")
