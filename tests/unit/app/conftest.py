from __future__ import annotations

from collections.abc import Callable

import pytest

from carrier import Answer, asker


@pytest.fixture(params=["native", "asgi"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Answer]:
    """Ask a built app for a path, as our connection does and as an ASGI server does."""
    return asker(request.param)
