"""Servers on real sockets: started in a thread for one test, on each loop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature._impl import PURE
from counterparts import LOOPS, require_module
from wire_client import Running, certificate, serving

#: Where the reactor runs, the loop's own transports are tested as well, on one of the loops.
FEEDERS = LOOPS if PURE or not sys.platform.startswith("linux") else [*LOOPS, "uvloop/asyncio"]


@pytest.fixture(params=FEEDERS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """The event loop that the test's server runs on; behind a slash, what feeds its connections."""
    name: str = request.param
    if name.startswith("uvloop"):
        require_module("uvloop")
    return name


@pytest.fixture
def serve(loop_name: str) -> Iterator[Callable[..., Running]]:
    """Start servers that live as long as the test."""
    with contextlib.ExitStack() as stack:

        def start(app: Any, **options: Any) -> Running:
            return stack.enter_context(serving(app, loop_name, **options))

        yield start


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return certificate(tmp_path_factory.mktemp("tls"))
