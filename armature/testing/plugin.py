"""The pytest plugin: clients as fixtures, closed when the test ends.

It is loaded in every pytest run of an environment that has Armature installed, so it imports nothing of it until a
fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from armature.testing.client import AsyncTestClient, TestClient

__all__ = ["armature_async_client", "armature_client"]


@pytest.fixture
def armature_client() -> Iterator[Callable[..., TestClient]]:
    """Make started test clients, `armature_client(app, **options)`; they are closed, the last one first."""
    from armature.testing.client import TestClient

    clients: list[TestClient] = []

    def make(app: Any, *arguments: Any, **options: Any) -> TestClient:
        client = TestClient(app, *arguments, **options)
        clients.append(client)
        return client.__enter__()

    yield make
    failures: list[BaseException] = []
    for client in reversed(clients):
        try:
            client.close()
        except BaseException as error:
            failures.append(error)
    if failures:
        raise failures[0]


@pytest.fixture
def armature_async_client() -> Iterator[Callable[..., AsyncTestClient]]:
    """Make asynchronous test clients, `async with armature_async_client(app) as client:`; one left open is an error."""
    from armature.testing.client import AsyncTestClient

    clients: list[AsyncTestClient] = []

    def make(app: Any, *arguments: Any, **options: Any) -> AsyncTestClient:
        client = AsyncTestClient(app, *arguments, **options)
        clients.append(client)
        return client

    yield make
    if any(client.is_open for client in clients):
        pytest.fail("an AsyncTestClient was left open; use `async with`, or await its aclose()", pytrace=False)
