"""Runs the micro-benchmarks and sets the twins beside each other.

What chooses its twin when it is imported (the App and everything above it) runs in a process per twin; the rest
loads both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Files that measure whatever `armature.IMPL` says.
BY_PROCESS = ("test_app.py", "test_http.py")


#: How the parameters of a benchmark name a twin.
TWINS = {"py": "py", "c": "c", "_pure": "py", "_speedups": "c"}


def _impl(bench: dict[str, Any]) -> str:
    """Tell which twin was measured; what has no twin, such as a loop in C around C, stands with the compiled ones."""
    known = bench.get("extra_info", {}).get("impl")
    for value in (known, *(bench.get("params") or {}).values()):
        if isinstance(value, str) and value in TWINS:
            return TWINS[value]
    return "c"


def _name(bench: dict[str, Any]) -> str:
    module, _, test = bench["fullname"].partition("::")
    test = test.partition("[")[0].removeprefix("test_").replace("_", " ")
    kept = [str(value) for value in (bench.get("params") or {}).values() if value not in TWINS]
    name = f"{Path(module).stem.removeprefix('test_')}: {test}"
    return f"{name} ({', '.join(kept)})" if kept else name


def _pytest(files: list[str], arguments: list[str], pure: bool) -> tuple[int, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmarks.json"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ARMATURE_")}
        if pure:
            environ["ARMATURE_PURE"] = "1"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command += ["--benchmark-quiet", "--benchmark-disable-gc", f"--benchmark-json={path}", *files, *arguments]
        status = subprocess.run(command, cwd=HERE.parent.parent, env=environ, stdout=sys.stderr).returncode
        found = json.loads(path.read_text())["benchmarks"] if path.exists() and path.stat().st_size else []
        return status, found


def table(benches: list[dict[str, Any]]) -> str:
    """Return the benchmarks as a Markdown table, one row per pair of twins."""
    pairs: dict[str, dict[str, dict[str, float]]] = {}
    for bench in benches:
        pairs.setdefault(_name(bench), {})[_impl(bench)] = bench["stats"]
    lines = ["| ns, median | pure | compiled | c/py | py ÷ c |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, pair in sorted(pairs.items()):
        if "py" in pair and "c" in pair:
            pure, compiled = pair["py"]["median"], pair["c"]["median"]
            figures = f"{pure * 1e9:,.0f} | {compiled * 1e9:,.0f} | {compiled / pure:.3f} | {pure / compiled:.1f}x"
        else:
            figures = " | ".join(f"{pair[impl]['median'] * 1e9:,.0f}" if impl in pair else "-" for impl in ("py", "c"))
            figures += " | - | -"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines) + "\n"


def run(arguments: list[str], save: Path | None) -> int:
    """Run the micro-benchmarks and print the ratios.

    Args:
        arguments: More arguments for pytest; files among them replace the whole set.
        save: Where to write the table, if anywhere.
    """
    chosen = [argument for argument in arguments if argument.partition("::")[0].endswith(".py")]
    rest = [argument for argument in arguments if argument not in chosen]
    files = chosen or [str(path.relative_to(HERE.parent.parent)) for path in sorted(HERE.glob("test_*.py"))]
    apart = [file for file in files if Path(file.partition("::")[0]).name in BY_PROCESS]
    both = [file for file in files if file not in apart]
    benches: list[dict[str, Any]] = []
    worst = 0
    for wanted, pure in ((both, False), (apart, False), (apart, True)):
        if wanted:
            status, found = _pytest(wanted, rest, pure)
            worst = max(worst, status)
            benches += found
    text = table(benches)
    print(text)
    if save is not None and not worst:
        save.write_text(text)
    return worst
