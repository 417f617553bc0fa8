"""Servers on real sockets: started in a thread for one test, on each loop."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wire_client import Running, certificate, serving

LOOPS = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="uvloop")),
]


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """The event loop that the test's server runs on."""
    name: str = request.param
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
