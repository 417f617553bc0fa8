"""Any ASGI app on Armature's server: here without a framework, with a lifespan, a stream and a file.

$ armature run examples/asgi_hosting.py

$ curl -s http://127.0.0.1:8000/
Hello, World!
$ curl -s http://127.0.0.1:8000/count
1
2
3
$ curl -s --data 'twelve bytes' http://127.0.0.1:8000/size
12
$ curl -s http://127.0.0.1:8000/source | head -1 | cut -c4-15
Any ASGI app
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

SOURCE = str(Path(__file__).resolve())


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["greeting"] = "Hello, World!\n"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return

    path = scope["path"]
    found = path in ("/", "/count", "/size", "/source")
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    if path == "/count":
        for number in range(1, 4):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body"})
    elif path == "/size":
        size, more = 0, True
        while more:
            event = await receive()
            size += len(event.get("body", b""))
            more = event.get("more_body", False)
        await send({"type": "http.response.body", "body": b"%d\n" % size})
    elif path == "/source":
        # The system copies the file from its cache to the socket.
        await send({"type": "http.response.pathsend", "path": SOURCE})
    else:
        await send({"type": "http.response.body", "body": scope["state"]["greeting"].encode() if found else b""})


app = serve

if __name__ == "__main__":
    from armature.server import run

    run(app, "127.0.0.1", 8000)
