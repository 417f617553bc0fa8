"""`python -m benchmarks install`: builds the peers, each reported by name, with the reason where one cannot be had."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.http.registry import ENVIRONMENTS, PEERS, PEERS_DIR, SOURCES, TARGET, Peer

_PIP_TIMEOUT = 900
_CARGO_TIMEOUT = 1800


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\s*(error|ERROR|fatal)\b", line)]
    return (errors or lines or [f"exit status {done.returncode}"])[-1].strip()[:300]


def _run(command: list[str], timeout: float, **options: object) -> str | None:
    """Run a command and return why it failed, or None."""
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=timeout, **options)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        return f"`{Path(command[0]).name}` took longer than {timeout:.0f} s"
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else _reason(done)


def _environment(name: str, latest: bool) -> dict[str, str]:
    """Make one virtual environment and return the packages that could not be installed, with reasons."""
    folder = PEERS_DIR / name
    python = folder / "bin" / "python"
    packages = list(ENVIRONMENTS[name])
    if latest:
        packages = [package.partition("==")[0] for package in packages]
    if not python.exists():
        wrong = _run([sys.executable, "-m", "venv", str(folder)], 120)
        if wrong:
            return {package.partition("==")[0]: f"no virtual environment: {wrong}" for package in packages}
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    if latest:
        pip.append("--upgrade")
    if _run([*pip, *packages], _PIP_TIMEOUT) is None:
        return {}
    # One of them is in the way of the rest: one by one, to learn which, and why.
    failed = {}
    for package in packages:
        wrong = _run([*pip, package], _PIP_TIMEOUT)
        if wrong:
            failed[package.partition("==")[0]] = wrong
    return failed


def _python_peer(peer: Peer, failed: dict[str, str]) -> str | None:
    for package in peer.packages:
        if package in failed:
            return f"{package} could not be installed: {failed[package]}"
    return None


def _limit() -> str | None:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        return "there is no C compiler: install one (Debian: `apt-get install gcc`) or set CC"
    PEERS_DIR.mkdir(exist_ok=True)
    source, binary = SOURCES / "limit.c", PEERS_DIR / "limit"
    return _run([compiler, "-O2", "-Wall", "-o", str(binary), str(source)], 120)


def _rust_peer(peer: Peer) -> str | None:
    cargo = shutil.which("cargo")
    if cargo is None:
        return "there is no cargo: install Rust's toolchain"
    # One job at the lowest priority: the machine may be serving others meanwhile.
    command = [
        cargo,
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--manifest-path",
        str(SOURCES / peer.module / "Cargo.toml"),
    ]
    environ = {"CARGO_BUILD_JOBS": "1"} | os.environ | {"CARGO_TARGET_DIR": str(TARGET)}
    return _run(["nice", "-n", "19", *command] if shutil.which("nice") else command, _CARGO_TIMEOUT, env=environ)


def install(rust: bool, latest: bool) -> int:
    """Install every peer and print how it went.

    Args:
        rust: Whether to build the Rust peers too.
        latest: Whether to take the newest version of everything instead of the pinned one.

    Returns:
        The number of peers that could not be installed.
    """
    PEERS_DIR.mkdir(exist_ok=True)
    failed: dict[str, dict[str, str]] = {}
    for name in ENVIRONMENTS:
        print(f"environment {name}: {', '.join(ENVIRONMENTS[name])}", flush=True)
        failed[name] = _environment(name, latest)
    reasons: dict[str, str] = {}
    for peer in PEERS.values():
        if peer.kind == "armature" or (peer.kind == "rust" and not rust):
            continue
        wrong = (
            _limit()
            if peer.kind == "c"
            else _rust_peer(peer)
            if peer.kind == "rust"
            else _python_peer(peer, failed[peer.environment])
        )
        print(f"{'FAILED' if wrong else 'ok':7} {peer.name}{f': {wrong}' if wrong else ''}", flush=True)
        if wrong:
            reasons[peer.name] = wrong
    (PEERS_DIR / "failed.json").write_text(json.dumps(reasons, indent=1))
    if not rust:
        print("not built: axum, actix (ask for them with --rust)")
    return len(reasons)


def missing(peer: Peer) -> str | None:
    """Return why a peer cannot be started here, or None if it can."""
    try:
        known = json.loads((PEERS_DIR / "failed.json").read_text())
    except OSError:
        known = {}
    if peer.name.partition("@")[0] in known:
        return str(known[peer.name.partition("@")[0]])
    if peer.kind in ("c", "rust"):
        if not peer.binary.exists():
            return f"it is not built; run `python -m benchmarks install{' --rust' if peer.kind == 'rust' else ''}`"
        return None
    if not peer.python.exists():
        return "it is not installed; run `python -m benchmarks install`"
    return None


def versions(peer: Peer) -> dict[str, str]:
    """Return the versions of a peer and of what it stands on."""
    if peer.kind == "c":
        done = subprocess.run([os.environ.get("CC") or "cc", "--version"], text=True, capture_output=True)
        return {"compiler": done.stdout.splitlines()[0] if done.stdout else "unknown"}
    if peer.kind == "rust":
        lock = (SOURCES / peer.module / "Cargo.lock").read_text()
        found = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', lock))
        return {package: found[package] for package in peer.packages if package in found}
    script = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {'CPython': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    packages = [package for package in peer.packages if package != "uvloop" or peer.loop == "uvloop"]
    done = subprocess.run([str(peer.python), "-c", script, *packages], text=True, capture_output=True)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}
