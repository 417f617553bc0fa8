"""Two processes that serve one app, and what they have counted together.

$ armature run examples/workers.py --workers 2

$ curl -s http://127.0.0.1:8000/
Hello!
$ curl -s http://127.0.0.1:8000/served
{"served":2}
"""

from __future__ import annotations

from armature import App
from armature.server.workers import gather_stats

app = App()


@app.get("/")
async def index() -> str:
    return "Hello!\n"


@app.get("/served")
async def served() -> dict[str, int]:
    stats = await gather_stats()
    counts = [*stats.workers, stats.retired]
    return {"served": int(sum(count.get("connection.requests", 0) for count in counts))}


if __name__ == "__main__":
    app.run("127.0.0.1:8000", workers=2)
