"""The programs and packages that tests need beside Python: where one is missing, the test is skipped, or fails.

A skip is for a developer's machine. Where the tests have to be complete, a counterpart that is missing is a failure:
under `tools/test`, which installs them all and sets `ARMATURE_REQUIRE_TOOLS=1`, and for programs also where `CI` is
set on Linux. `ARMATURE_REQUIRE_TOOLS=0` allows the skips everywhere.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["LOOPS", "loop_factory", "require", "require_module"]

#: The event loops that tests run on: uvloop is a dependency wherever there is one.
LOOPS = ["asyncio"] if sys.platform == "win32" or sys.implementation.name != "cpython" else ["asyncio", "uvloop"]

#: Debian keeps servers here, and leaves it out of the PATH of everybody but root.
ADMINISTRATION = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find(*names: str) -> str | None:
    """The path of the first of these programs that is installed."""
    # What pip installed stands beside the interpreter, whether or not its environment is an active one.
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join([own, os.environ.get("PATH", os.defpath), *ADMINISTRATION])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def require(*names: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails where it has to run.

    Args:
        names: What the program is called; the first name that is found counts.
    """
    found = find(*names)
    if found is None:
        # wrk and nginx have no packages for every other system that the workflows test.
        miss(f"{' or '.join(names)} is not installed", fails=_decided(bool(os.environ.get("CI")) and _on_linux()))
    return found


def require_module(name: str) -> Any:
    """Return an optional package; without it the test is skipped, or fails where it has to run.

    `CI` alone does not decide here: pip installs all packages of an extra or none, and a job may leave an extra out.

    Args:
        name: The package's import name.
    """
    if importlib.util.find_spec(name) is None:
        miss(f"the package {name!r} is not installed", fails=_decided(False))
    # One that is there but broken is an error everywhere.
    return importlib.import_module(name)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes event loops of one of `LOOPS`."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if name == "uvloop":
        factory = require_module("uvloop").new_event_loop
    return factory


def miss(reason: str, fails: bool) -> NoReturn:
    """End the test."""
    if fails:
        pytest.fail(f"{reason}, and this test has to run: tools/test installs what the tests need", pytrace=False)
    pytest.skip(reason)


def _decided(default: bool) -> bool:
    told = os.environ.get("ARMATURE_REQUIRE_TOOLS", "")
    return told != "0" if told else default


def _on_linux() -> bool:
    return sys.platform == "linux"
