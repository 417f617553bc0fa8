"""Middleware that comes with the framework; each is `async (request, call_next)` and imported when it is chosen."""

from __future__ import annotations

__all__: list[str] = []
