"""Runs the app that `BENCH_TARGET` names on granian: one worker process, one runtime thread, the access log off."""

from __future__ import annotations

import os

from granian import Granian

from benchmarks.http.peers import HOST, LOOP, PORT, SERVER

if __name__ == "__main__":
    Granian(
        os.environ["BENCH_TARGET"],
        address=HOST,
        port=PORT,
        # granian-rsgi, granian-asgi or granian-asginl (ASGI without lifespan)
        interface=SERVER.removeprefix("granian-"),
        workers=1,
        runtime_threads=1,
        # Its default bounds would refuse the 2,000 idle connections of one load.
        backlog=4096,
        backpressure=4096,
        loop=LOOP,
        websockets=False,
        log_access=False,
        log_enabled=False,
    ).serve()
