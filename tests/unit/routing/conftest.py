"""What a test registers is forgotten after it."""

from __future__ import annotations

import pytest

from armature.routing import convertors


@pytest.fixture(autouse=True)
def _registered_convertors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convertors, "_REGISTRY", dict(convertors._REGISTRY))
