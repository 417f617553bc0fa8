"""Copies of the package that were compiled without an optimisation, each in a folder of its own, never in the checkout.

All of them are made of one copy of the sources, so that nobody's edit gets between two of them. A variant is that
copy with the extensions compiled anew that ask the switch; the others are the same files.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from benchmarks.http.registry import ROOT
from benchmarks.http.switches import Switch

#: Where they lie; `build/` is no part of the repository.
FOLDER = ROOT / "build" / "variants"
_SOURCES = ("setup.py", "pyproject.toml", "README.md")
_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
_SHORT = 12


def environ(folder: Path) -> dict[str, str]:
    """Return what a process started in `folder` needs to import its `armature` and these `benchmarks`."""
    return {} if folder == ROOT else {"PYTHONPATH": str(ROOT)}


class BuildError(Exception):
    """A variant cannot be compiled, or is not what was asked for."""


def _digest() -> str:
    """Name what the builds are made of: the sources, the interpreter, the compiler."""
    seen = hashlib.sha256(f"{sys.version}{os.environ.get('CC')}{os.environ.get('CFLAGS')}".encode())
    paths = [path for path in sorted((ROOT / "armature").rglob("*.p*")) if path.suffix in (".py", ".pyx", ".pxd")]
    for path in [*paths, ROOT / "setup.py"]:
        seen.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return seen.hexdigest()[:_SHORT]


def _compile(folder: Path, without: str) -> None:
    """Compile the sources in `folder` and put the extensions beside them."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARMATURE_")}
    environ |= {"ARMATURE_REQUIRE_SPEEDUPS": "1", "ARMATURE_WITHOUT": without}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", "made", "--build-temp", "objects"]
    done = subprocess.run(command, cwd=folder, env=environ, text=True, capture_output=True)
    if done.returncode:
        raise BuildError(f"without {without or 'nothing'}: {(done.stderr + done.stdout).strip()[-400:]}")
    for made in (folder / "made").rglob(f"*{_SUFFIX}"):
        made.replace(folder / made.relative_to(folder / "made"))
    shutil.rmtree(folder / "made")
    shutil.rmtree(folder / "objects", ignore_errors=True)


@functools.cache
def normal() -> Path:
    """Return the folder with the ordinary build: made when it is first asked for, or found from another run.

    Raises:
        BuildError: It cannot be compiled.
    """
    folder = FOLDER / _digest() / "normal"
    if folder.exists():
        return folder
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    making = folder.with_suffix(".making")
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(ROOT / "armature", making / "armature", ignore=ignore)
    for name in _SOURCES:
        shutil.copy2(ROOT / name, making / name)
    if (ROOT / "build" / "cython").exists():
        # The generated C of the checkout: what is older than its source is made anew.
        shutil.copytree(ROOT / "build" / "cython", making / "build" / "cython")
    _compile(making, "")
    making.rename(folder)
    return folder


def without(switch: Switch) -> Path:
    """Return the folder with the build that leaves one optimisation out.

    Args:
        switch: Which one; it must be one of the compiler's.

    Raises:
        BuildError: It cannot be compiled, or no extension differs from the ordinary one.
    """
    base = normal()
    folder = base.parent / switch.name
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(base, making)
    asking = {path.stem for path in switch.sources(making)}
    for source in (making / "armature" / "_speedups").glob("*.pyx"):
        if source.stem not in asking:
            source.unlink()
    _compile(making, switch.name)
    same = [
        stem
        for stem in asking
        if _program(making / "armature" / "_speedups" / f"{stem}{_SUFFIX}")
        == _program(base / "armature" / "_speedups" / f"{stem}{_SUFFIX}")
    ]
    if len(same) == len(asking):
        raise BuildError(f"{switch.name}: the build without it is the same as the one with it")
    making.rename(folder)
    return folder


def _program(path: Path) -> bytes:
    """Return an extension without its debugging information, which names the folder that it was compiled in."""
    strip = shutil.which("strip")
    if strip is None:
        return path.read_bytes()
    bare = path.with_suffix(".bare")
    try:
        subprocess.run([strip, "--strip-all", "-R", ".note.gnu.build-id", "-o", str(bare), str(path)], check=True)
        return bare.read_bytes()
    finally:
        bare.unlink(missing_ok=True)
