"""The app: what it is built from, what it is served as, and how it lives."""

from __future__ import annotations

from armature.app.application import App, parse_address, run
from armature.app.assembly import AppService, BoundRoute

__all__ = ["App", "AppService", "BoundRoute", "parse_address", "run"]
