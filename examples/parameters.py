"""Typed parameters from path, query, headers and cookies; whatever does not fit is named in a 422.

$ armature run examples/parameters.py

$ curl -s "http://127.0.0.1:8000/search?q=cats&tag=a&tag=b&order=oldest" -b sid=s1 -A curl
{"q":"cats","tags":["a","b"],"order":"oldest","page":1,"user_agent":"curl","session":"s1"}
$ curl -s "http://127.0.0.1:8000/search?q=c&page=0" | head -c 47
{"title":"Unprocessable Content","status":422,"
$ curl -s http://127.0.0.1:8000/events/2024-02-29
{"weekday":"Thursday"}
"""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any

from armature import App, Cookie, Header, Query

app = App()


class Order(enum.Enum):
    NEWEST = "newest"
    OLDEST = "oldest"


@app.get("/search")
async def search(
    q: Annotated[str, Query(min_length=2)],
    tags: Annotated[tuple[str, ...], Query(alias="tag")] = (),
    order: Order = Order.NEWEST,
    page: Annotated[int, Query(ge=1, le=100)] = 1,
    user_agent: Annotated[str | None, Header()] = None,
    session: Annotated[str | None, Cookie(alias="sid")] = None,
) -> dict[str, Any]:
    return {"q": q, "tags": tags, "order": order, "page": page, "user_agent": user_agent, "session": session}


@app.get("/events/{day}")
async def events(day: datetime.date) -> dict[str, str]:
    return {"weekday": f"{day:%A}"}


if __name__ == "__main__":
    app.run("127.0.0.1:8000")
