"""Something opened when the app starts and closed when it stops, and handlers that block in a thread.

$ armature run examples/lifespan.py

$ curl -s http://127.0.0.1:8000/
{"answer":42}
$ curl -s http://127.0.0.1:8000/blocking
armature-handler
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from armature import App, HttpRequest


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    app.state.database = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        yield
    finally:
        app.state.database.close()


app = App(lifespan=lifespan, thread_pool_size=8)


@app.get("/")
def answer(request: HttpRequest) -> dict[str, int]:
    (number,) = request.app.state.database.execute("select 6 * 7").fetchone()
    return {"answer": number}


@app.get("/blocking")
def blocking() -> str:
    return threading.current_thread().name.rsplit("_", 1)[0] + "\n"


if __name__ == "__main__":
    app.run("127.0.0.1:8000")
