"""One file per peer, all serving the same application; this module holds what that application answers.

A peer is started as `python -m benchmarks.http.peers.<name>` and told by the environment what to serve: `BENCH_PORT`,
`BENCH_VARIANT` (`base`, `routes`, `middleware`; Armature alone has `more`), `BENCH_LOOP` (`uvloop`, `asyncio`) and
`BENCH_SERVER`, where a framework runs on more than one server. It imports little, because cold start and idle memory
are measured too.
"""

from __future__ import annotations

import os

HOST = "127.0.0.1"
PORT = int(os.environ.get("BENCH_PORT", "8000"))
VARIANT = os.environ.get("BENCH_VARIANT", "base")
LOOP = os.environ.get("BENCH_LOOP", "uvloop")
SERVER = os.environ.get("BENCH_SERVER", "")
#: The switch that `python -m benchmarks ablate` wants off, if it is one of the running program.
WITHOUT = os.environ.get("BENCH_WITHOUT", "")

HELLO = "Hello, World!"
HELLO_BYTES = HELLO.encode()
#: Answer of `/json`; peers encode it anew for every request.
MESSAGE = {"message": HELLO}

#: Registered as `/api/resource0/items` … behind the base routes in the variant `routes`; the load asks for the last.
ROUTE_COUNT = 500
MIDDLEWARE_COUNT = 4

CHUNK = b"x" * 1024
CHUNK_COUNT = 100
MEBIBYTE = b"y" * (1024 * 1024)
#: Servers that refuse bodies by size are told to take this much.
BODY_LIMIT = 16 * 1024 * 1024


def middleware_header(index: int) -> tuple[str, str]:
    """Return the field line that middleware number `index` adds to every response."""
    return f"x-middleware-{index}", str(index)


def route_path(index: int) -> str:
    """Return the path of one of the 500 routes."""
    return f"/api/resource{index}/items"


def route_answer(index: int) -> str:
    """Return what that route answers as plain text."""
    return f"resource {index}"


def item_answer(item: dict[str, object]) -> dict[str, object]:
    """Return what `POST /items` answers: something that cannot be made without decoding the body."""
    return {"name": item["name"], "age": item["age"] + 1}
