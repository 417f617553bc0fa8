"""Apps in an app: one of ours with its own state, and any ASGI application below a path.

$ armature run examples/mounting.py

$ curl -s http://127.0.0.1:8000/
outer
$ curl -s http://127.0.0.1:8000/shop/items/3
{"item":3,"app":"shop"}
$ curl -s http://127.0.0.1:8000/legacy/page
/legacy serves /legacy/page
"""

from __future__ import annotations

from typing import Any

from armature import App, HttpRequest

shop = App(title="shop")


@shop.get("/items/{item}")
async def show(request: HttpRequest, item: int) -> dict[str, Any]:
    return {"item": item, "app": request.app.title}


async def legacy(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application without a framework."""
    if scope["type"] != "http":
        return
    body = f"{scope['root_path']} serves {scope['path']}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


app = App()
app.mount("/shop", shop, name="shop")
app.mount("/legacy", legacy)


@app.get("/")
async def index() -> str:
    return "outer\n"


if __name__ == "__main__":
    app.run("127.0.0.1:8000")
