"""Flame graphs: where a running process spends its time, down to the C functions, as one SVG file."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

__all__ = ["PROFILERS", "FlameError", "Recorder", "draw", "folded", "short"]

#: The programs that can record, the preferred one first.
PROFILERS = ("perf", "py-spy")
#: Samples a second; a prime, so that it beats with no timer.
RATE = 499
_READ_SECONDS = 300.0
_STOP_SECONDS = 30.0

_MANGLED = re.compile(r"__pyx_(?:f|pw|pf)_8armature_9_speedups_\d+[a-z]+_(?:\d+)?")
_FRAME = re.compile(r"^\s+[0-9a-f]+ (?P<name>.+?)(?:\+0x[0-9a-f]+)? \((?P<file>[^()]*(?:\([^()]*\))?)\)$")

Stack = tuple[str, ...]

_WIDTH, _HEIGHT, _CHARACTER = 1200, 17, 6.6
#: By whose code it is: our compiled twins, the interpreter, the kernel, everything else.
_COLOURS = {"armature": "#e4572e", "python": "#5b8fc7", "kernel": "#b8b8b8", "other": "#e8b04b"}
_CSS = (
    "text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#1b1b1b;pointer-events:none}"
    "rect{stroke:#fff;stroke-width:.5}g:hover rect{stroke:#000}"
)


class FlameError(Exception):
    """No flame graph can be made here.

    Args:
        message: Why not.
        mend: What to do about it.
    """

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def short(symbol: str) -> str:
    """Strip Cython's mangling: `__pyx_f_8armature_9_speedups_6parser_10HeadParser_run` becomes `HeadParser_run`."""
    return _MANGLED.sub("", symbol)


class Recorder:
    """Records a process from outside, from `with` until its block ends; then `stacks()` says what it saw.

    Args:
        pid: The process.
        seconds: For how long.
        profiler: One of `PROFILERS`, or `auto` for the first that is installed.

    Raises:
        FlameError: It is not installed.
    """

    def __init__(self, pid: int, seconds: float, profiler: str = "auto") -> None:
        wanted = PROFILERS if profiler == "auto" else (profiler,)
        found = [name for name in wanted if shutil.which(name)]
        if not found:
            raise FlameError(
                f"{' and '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} not installed",
                "install perf (Debian: apt-get install linux-perf; Ubuntu: linux-tools-generic) or py-spy "
                "(python -m pip install py-spy)",
            )
        self._pid, self._seconds = pid, seconds
        self._scratch = tempfile.TemporaryDirectory()
        self._output = Path(self._scratch.name) / "recorded"
        self._process: subprocess.Popen[str] | None = None
        self.profiler = found[0]

    def _command(self) -> list[str]:
        if self.profiler == "perf":
            # Extensions are compiled without frame pointers: the stack is copied, and unwound when it is read.
            how = ["-F", str(RATE), "--call-graph", "dwarf,16384", "-p", str(self._pid), "-o", str(self._output)]
            return ["perf", "record", "-q", *how, "--", "sleep", str(self._seconds)]
        how = ["--native", "--rate", str(RATE), "--duration", str(max(1, round(self._seconds))), "--format", "raw"]
        return ["py-spy", "record", "--pid", str(self._pid), *how, "--output", str(self._output)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        process = self._process
        if process is not None and kind is not None and process.poll() is None:
            process.terminate()
        if kind is not None:
            if process is not None:
                process.communicate()
            self._scratch.cleanup()

    def stacks(self) -> Counter[Stack]:
        """Return how often each stack was seen, the outermost function first.

        Raises:
            FlameError: The profiler was not let near the process, or saw nothing.
        """
        process = self._process
        assert process is not None, "the recorder has not been entered"
        try:
            try:
                _, said = process.communicate(timeout=self._seconds + _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise FlameError(f"{self.profiler} did not end in time", "try the other profiler") from None
            if process.returncode or not self._output.exists():
                raise FlameError(f"{self.profiler} failed: {said.strip()[-300:] or 'it said nothing'}", _PERMISSION)
            if self.profiler == "py-spy":
                found = _raw(self._output.read_text("utf-8").splitlines())
            else:
                read = subprocess.run(
                    # Looking inlined functions up would take minutes.
                    ["perf", "script", "--no-inline", "-F", "comm,ip,sym,dso", "-i", str(self._output)],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_READ_SECONDS,
                )
                if read.returncode:
                    raise FlameError(f"perf script failed: {read.stderr.strip()[-300:]}", _PERMISSION)
                found = folded(read.stdout.splitlines())
        finally:
            self._scratch.cleanup()
        if not found:
            raise FlameError(f"{self.profiler} saw no sample", "record for longer, with --duration")
        return found


_PERMISSION = (
    "allow profiling: run as root, or lower the kernel's guard (sysctl kernel.perf_event_paranoid=1 "
    "kernel.yama.ptrace_scope=0; in a container --cap-add=PERFMON --cap-add=SYS_PTRACE); or choose another --profiler"
)


def _label(name: str, file: str) -> str:
    """Name a frame by its function and, before a colon, by whose code it is."""
    if "_speedups" in file or "_8armature_9_speedups_" in name:
        return f"armature: {short(name)} ({Path(file).name.partition('.')[0]})"
    if file.startswith("[") or file.endswith(".ko") or "kallsyms" in file:
        return f"kernel: {name}"
    if "python" in Path(file).name:
        return f"python: {name}"
    stem = Path(file).name.partition(".")[0]
    return f"other: {stem if name == '[unknown]' else name}"


def folded(lines: Iterable[str]) -> Counter[Stack]:
    """Count the stacks in what `perf script -F comm,ip,sym,dso` has printed, the outermost function first.

    Args:
        lines: Its output: a head line per sample, its frames from the innermost on, an empty line.
    """
    found: Counter[Stack] = Counter()
    stack: list[str] = []
    for line in [*lines, ""]:
        match = _FRAME.match(line)
        if match is not None:
            stack.append(_label(match["name"], match["file"]))
        elif not line.strip() and stack:
            found[tuple(reversed(stack))] += 1
            stack = []
    return found


def _raw(lines: Iterable[str]) -> Counter[Stack]:
    """Count the stacks in py-spy's `raw` format: `outer (file:line);inner (file:line) 17`."""
    found: Counter[Stack] = Counter()
    for line in lines:
        frames, _, count = line.rpartition(" ")
        if count.isdigit():
            found[tuple(_raw_label(frame) for frame in frames.split(";"))] += int(count)
    return found


def _raw_label(frame: str) -> str:
    name, _, place = frame.rpartition(" (")
    if "_speedups" in frame:
        return f"armature: {short(name)} ({Path(place.rstrip(')')).name.partition('.')[0]})"
    is_python = re.search(r"\.py:[0-9]+\)$|\(<|\(_?Py|^_?Py", frame) is not None
    return f"{'python' if is_python else 'other'}: {frame}"


class _Frame:
    """A function in its place, with the samples that it and everything above it were seen in."""

    __slots__ = ("inner", "name", "samples")

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples = 0
        self.inner: dict[str, _Frame] = {}


def draw(stacks: Counter[Stack], title: str) -> str:
    """Return a flame graph as SVG: a box per function, as wide as its share of the time, under those that it calls.

    Args:
        stacks: How often each stack was seen.
        title: What is written above.
    """
    root = _Frame("all")
    for stack, count in stacks.items():
        frame = root
        frame.samples += count
        for name in stack:
            frame = frame.inner.setdefault(name, _Frame(name))
            frame.samples += count
    boxes: list[tuple[int, float, _Frame]] = []
    deepest = 0
    pending: list[tuple[int, float, _Frame]] = [(0, 0.0, root)]
    while pending:
        depth, left, frame = pending.pop()
        if frame.samples * _WIDTH < 0.5 * root.samples:
            continue
        boxes.append((depth, left, frame))
        deepest = max(deepest, depth)
        for inner in sorted(frame.inner.values(), key=lambda inner: inner.name):
            pending.append((depth + 1, left, inner))
            left += inner.samples * _WIDTH / root.samples
    height = (deepest + 1) * _HEIGHT + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>{_CSS}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" style="font-weight:bold">{html.escape(title)}</text>',
        *_legend(("armature", "python", "kernel", "other")),
    ]
    for depth, left, frame in boxes:
        width = frame.samples * _WIDTH / root.samples
        y = height - 4 - (depth + 1) * _HEIGHT
        kind, _, name = frame.name.partition(": ")
        share = frame.samples / root.samples
        shown = name or kind
        room = int((width - 6) / _CHARACTER)
        text = shown if len(shown) <= room else shown[: room - 1] + "…" if room > 3 else ""
        lines.append(
            f"<g><title>{html.escape(shown)}: {share:.1%}, {frame.samples} samples</title>"
            f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_HEIGHT - 1}" '
            f'fill="{_COLOURS.get(kind, "#dddddd")}"/>'
            + (f'<text x="{left + 3:.1f}" y="{y + 12}">{html.escape(text)}</text>' if text else "")
            + "</g>"
        )
    return "\n".join([*lines, "</svg>", ""])


def _legend(kinds: Sequence[str]) -> list[str]:
    lines = []
    for number, kind in enumerate(kinds):
        x = _WIDTH - 90 * (len(kinds) - number)
        lines.append(f'<rect x="{x}" y="10" width="12" height="12" fill="{_COLOURS[kind]}"/>')
        lines.append(f'<text x="{x + 16}" y="20">{kind}</text>')
    return lines
