"""What a handler may return besides a response: values, models, a status beside them, a generator.

$ armature run examples/return_values.py

$ curl -s http://127.0.0.1:8000/dataclass
{"x":1,"y":2}
$ curl -s -o /dev/null -w "%{http_code}" http://127.0.0.1:8000/nothing
204
$ curl -s http://127.0.0.1:8000/maybe
null
$ curl -s -i http://127.0.0.1:8000/created | grep -i -e "^HTTP" -e "^x-id"
HTTP/1.1 201 Created
x-id: 7
$ curl -s http://127.0.0.1:8000/generator
one
two
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from armature import App

app = App()


@dataclass
class Point:
    x: int
    y: int


@app.get("/dataclass")
async def point() -> Point:
    return Point(1, 2)


@app.get("/nothing")
async def nothing() -> None:
    """No content: 204."""


@app.get("/maybe")
async def maybe() -> Point | None:
    return None


@app.get("/created")
async def created() -> tuple[dict[str, int], int, dict[str, str]]:
    return {"id": 7}, 201, {"x-id": "7"}


@app.get("/generator")
async def generator() -> AsyncIterator[str]:
    async def lines() -> AsyncIterator[str]:
        yield "one\n"
        yield "two\n"

    return lines()


if __name__ == "__main__":
    app.run("127.0.0.1:8000")
