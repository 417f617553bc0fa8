"""The switches of OPS-05: every optimisation can be left out, and what it brings is a measured number.

A switch is named as its row of the catalogue, with a word behind it where a row holds several. There are three kinds:

- of the C compiler: a constant of `armature/_speedups/switches.pxd`, which `ARMATURE_WITHOUT` sets to 0 at build time;
- of the server: an option, or an environment variable;
- of the running program: a function below that puts the plain way in the place of the fast one.

A new optimisation adds its line here in the change that brings it, and to the table of docs/internals/benchmarks.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.http.registry import ROOT

_MACRO = re.compile(r"#ifndef ARMATURE_((?:HOT|RUN)_\d+\w*)")


@dataclass(frozen=True)
class Switch:
    """One optimisation that can be left out.

    Args:
        name: The row of the catalogue, such as `HOT-13-date`.
        title: What is there, and in brackets what takes its place.
        loads: The loads that show it.
        variables: Environment variables that leave it out.
        options: Options of `app.run` that leave it out.
        replace: Leaves it out in the running program.
        given: Options of `app.run` on both sides, where it is at work under these alone.
        saves_calls: Whether it is there to save system calls, which are then counted as well.
    """

    name: str
    title: str
    loads: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    replace: Callable[[], None] | None = None
    given: dict[str, Any] = field(default_factory=dict)
    saves_calls: bool = False

    @property
    def compiled(self) -> bool:
        """Whether leaving it out takes a build of its own."""
        return not (self.variables or self.options or self.replace)

    @property
    def macro(self) -> str:
        """Its constant in the compiled sources."""
        return "ARMATURE_" + self.name.upper().replace("-", "_")

    def sources(self, folder: Path = ROOT) -> list[Path]:
        """The compiled sources of a checkout that ask it; all of them for a switch of the compiler itself."""
        sources = sorted(folder.glob("armature/_speedups/*.pyx"))
        constant = re.compile(rf"\b(?:ARMATURE_)?{self.macro.removeprefix('ARMATURE_')}\b")
        shared = [
            path.stem
            for path in folder.glob("armature/_speedups/*.pxd")
            if path.stem != "switches" and constant.search(path.read_text("utf-8"))
        ]
        importing = re.compile(rf"_speedups\.(?:{'|'.join(shared) or '-'}) cimport")
        texts = {path: path.read_text("utf-8") for path in sources}
        found = [path for path, text in texts.items() if constant.search(text) or importing.search(text)]
        return found or sources

    def on(self) -> dict[str, str]:
        """Return the environment that starts the server with it."""
        return {"BENCH_OPTIONS": json.dumps(self.given)} if self.given else {}

    def off(self) -> dict[str, str]:
        """Return the environment that starts the server without it; a build of its own may be needed as well."""
        result = dict(self.variables)
        if self.given or self.options:
            result["BENCH_OPTIONS"] = json.dumps(self.given | self.options)
        if self.replace is not None:
            result["BENCH_WITHOUT"] = self.name
        return result

    def take_out(self) -> None:
        """Leave it out of this process; called before the app is made."""
        if self.replace is not None:
            self.replace()


def macros(folder: Path = ROOT) -> set[str]:
    """Return the constants that the compiled sources of a checkout have switches for."""
    texts = [path.read_text("utf-8") for path in folder.glob("armature/_speedups/*.p[yx][xd]")]
    return {f"ARMATURE_{name}" for name in _MACRO.findall("".join(texts))}


def _received_bytes() -> None:
    """Let the loop hand over what it received as new bytes objects."""
    import asyncio

    from armature.server import protocol

    class Plain(protocol.HTTPProtocol, asyncio.Protocol):  # type: ignore[misc]
        # Both loops ask whether a protocol is an `asyncio.Protocol`, or a buffered one.
        __slots__ = ()
        get_buffer = None

    protocol.HTTPProtocol = Plain  # type: ignore[misc]


def _stdlib_json() -> None:
    from armature.http import json as codec

    codec.use("stdlib")


def _query_pairs() -> None:
    from armature.binding import plan
    from armature.http.url import parse_pairs

    plan.last_values = lambda query: dict(parse_pairs(query))


def _python_pump() -> None:
    from armature._pure import pump
    from armature.server import streams

    streams.pump = pump


_PURE = {"ARMATURE_PURE": "1", "ARMATURE_REQUIRE_SPEEDUPS": "0"}
_ALL = (
    Switch("HOT-02", "table of fixed paths (the tree)", ("plaintext", "routes")),
    Switch("HOT-02-lengths", "no look into the table for a length that no path has (always a look)", ("param",)),
    Switch("HOT-07", "a chain of fixed segments is one step (a step for each)", ("deep",)),
    Switch("HOT-08", "the usual field line in one pass (its end is looked for first)", ("plaintext", "browser")),
    Switch("HOT-08-chunk", "the usual line of a chunked body in place (as bytes)", ("chunked",)),
    Switch("HOT-08-engine", "our own parser (httptools in front of it)", ("plaintext",), options={"http": "httptools"}),
    Switch("HOT-08-simd", "control characters looked for 16 at a time (one by one)", ("plaintext", "browser")),
    Switch("HOT-09", "known field names by a perfect hash (compared one by one)", ("plaintext", "browser")),
    Switch("HOT-09-names", "known field names as ready objects (made anew)", ("headers",)),
    Switch("HOT-10", "16 fields inside the parser (allocated per request)", ("plaintext", "browser")),
    Switch("HOT-11", "a call's query read into a dict (all pairs parsed)", ("query",), replace=_query_pairs),
    Switch("HOT-12", "no request object for a handler that takes none (always one)", ("plaintext", "param")),
    Switch("HOT-13-checked", "names and media types checked once (each time)", ("middleware",)),
    Switch("HOT-13-date", "Date and Server lines made once a second (each time)", ("plaintext",)),
    Switch("HOT-14", "blocks of the output through a free-list (malloc)", ("plaintext",)),
    Switch("HOT-19", "one write for all answers of a read (one each)", ("pipelined",), saves_calls=True),
    Switch(
        "HOT-20",
        "one receive buffer for all connections of a loop (new bytes for each read)",
        ("plaintext", "upload"),
        replace=_received_bytes,
        given={"io": "asyncio"},
    ),
    Switch("HOT-21", "sent straight to the socket (through the transport)", ("plaintext", "stream")),
    Switch(
        "HOT-22", "a large body is sent from where it lies (copied behind its head)", ("download",), saves_calls=True
    ),
    Switch("HOT-27", "pieces of a stream gathered (each written)", ("stream",), saves_calls=True),
    Switch("HOT-27-pump", "an async iterator asked in C (`async for`)", ("stream",), replace=_python_pump),
    Switch("HOT-30", "a request stays in the receive buffer (copied out)", ("post",)),
    Switch("HOT-30-body", "a small body stays in the receive buffer (goes through a receiver)", ("post",)),
    Switch("HOT-30-whole", "a large body received into its own memory (joined from pieces)", ("upload",)),
    Switch("HOT-33", "orjson (the standard library's json)", ("json", "post"), replace=_stdlib_json),
    Switch("HOT-35", "path parameters converted in C (by the route's written function)", ("param",)),
    Switch("HOT-35-native", "usual return values answered at once (made a response first)", ("plaintext", "json")),
    Switch("OPS-09", "-O3 -fno-plt (-O2)", ("plaintext", "param")),
    Switch("OPS-11", "compiled twins (pure ones)", ("plaintext", "param", "post"), _PURE),
    Switch("RUN-08", "uvloop (the stock loop)", ("plaintext", "future"), {"BENCH_LOOP": "asyncio"}),
    Switch("RUN-09", "a spare task (a task for each request)", ("plaintext",)),
    Switch("RUN-09-batch", "the spare is entered once for a read (for each request)", ("pipelined",)),
    Switch(
        "RUN-18", "the reactor (the loop's transports)", ("plaintext", "upload", "connect"), options={"io": "asyncio"}
    ),
    Switch("RUN-18-feed", "the reactor feeds a connection in C (by its Python methods)", ("plaintext", "upload")),
)
SWITCHES = {switch.name: switch for switch in _ALL}
