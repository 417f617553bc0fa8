"""Runs an ASGI app on uvicorn with one worker, its access log off, and the parser that `BENCH_SERVER` names."""

from __future__ import annotations

from typing import Any, Literal

import uvicorn

from benchmarks.http.peers import HOST, LOOP, PORT, SERVER


def run(app: Any, lifespan: Literal["on", "off"] = "off") -> None:
    """Serve until stopped by a signal."""
    uvicorn.run(
        app,
        host=HOST,
        port=PORT,
        loop=LOOP,
        http="h11" if SERVER == "uvicorn-h11" else "httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        lifespan=lifespan,
    )
