"""Runs an ASGI app on Armature's own server, as a peer of the same app on other servers."""

from __future__ import annotations

from typing import Any

from armature.server import run as serve
from benchmarks.http.peers import HOST, LOOP, PORT


def run(app: Any) -> None:
    """Serve until stopped by a signal."""
    serve(app, HOST, PORT, loop=LOOP, interface="asgi", log_level="warning", lifespan="off")
