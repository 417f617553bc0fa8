"""Responses that are compressed as they are made, with increments that arrive one by one.

$ armature run examples/compression.py

$ curl -s --compressed -D - -o numbers.json http://127.0.0.1:8000/numbers | grep -i -e "^vary" -e "^content-type"
content-type: application/json
vary: accept-encoding
$ curl -s -H "Accept-Encoding: gzip" http://127.0.0.1:8000/numbers | gzip -d | cmp - numbers.json
$ curl -s -I -H "Accept-Encoding: gzip" http://127.0.0.1:8000/numbers | grep -i "^content-encoding"
content-encoding: gzip
$ curl -s -N -H "Accept-Encoding: gzip" http://127.0.0.1:8000/ticks | gzip -d
{"tick":0}
{"tick":1}
{"tick":2}
$ curl -s -I -H "Accept-Encoding: gzip" http://127.0.0.1:8000/secret | grep -c -i "^content-encoding" || true
0
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from armature import App, CompressionMiddleware, HttpResponse

app = App()
app.add_middleware(CompressionMiddleware, minimum_size=500)


@app.get("/numbers")
async def numbers() -> list[int]:
    return list(range(5000))


@app.get("/ticks")
async def ticks() -> HttpResponse:
    async def forever() -> AsyncIterator[dict[str, int]]:
        for tick in range(3):
            yield {"tick": tick}
            await asyncio.sleep(0.1)

    return HttpResponse.ndjson(forever())


@app.get("/secret")
async def secret(q: str = "") -> HttpResponse:
    # A secret beside something that a request chooses: the length of the compressed page would tell it (BREACH).
    page = f"<p>You searched for {len(q)} characters.</p><input type=hidden value=0f5e1c>" * 20
    return HttpResponse.html(page, headers={"cache-control": "no-transform"})


if __name__ == "__main__":
    app.run("127.0.0.1:8000")
