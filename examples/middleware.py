"""Middleware around an app and around one router, and exception handlers.

$ armature run examples/middleware.py

$ curl -s -i http://127.0.0.1:8000/ | grep -i -e "^HTTP" -e "^x-app"
HTTP/1.1 200 OK
x-app: shop
$ curl -s -i http://127.0.0.1:8000/nothing | grep -i -e "^HTTP" -e "^x-app"
HTTP/1.1 404 Not Found
x-app: shop
$ curl -s http://127.0.0.1:8000/admin/users
{"title":"Unauthorized","status":401,"detail":"show your key"}
$ curl -s http://127.0.0.1:8000/admin/users -H "x-key: secret"
["Ada"]
$ curl -s http://127.0.0.1:8000/buy/apple
{"title":"Out of stock","status":409,"item":"apple"}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from armature import APIRouter, App, HTTPException, HttpRequest, HttpResponse

CallNext = Callable[[HttpRequest], Awaitable[HttpResponse]]

app = App()
admin = APIRouter(prefix="/admin")


@app.middleware
async def name_the_app(request: HttpRequest, call_next: CallNext) -> HttpResponse:
    response = await call_next(request)
    response.headers["x-app"] = "shop"
    return response


@admin.middleware
async def check_key(request: HttpRequest, call_next: CallNext) -> HttpResponse:
    if request.headers.get("x-key") != "secret":
        raise HTTPException(401, "show your key")
    return await call_next(request)


class OutOfStock(Exception):
    pass


@app.exception_handler(OutOfStock)
async def out_of_stock(request: HttpRequest, error: OutOfStock) -> HttpResponse:
    return HttpResponse.problem(status=409, title="Out of stock", item=str(error))


@app.get("/")
async def index() -> str:
    return "index\n"


@app.get("/buy/{item}")
async def buy(item: str) -> None:
    raise OutOfStock(item)


@admin.get("/users")
async def users() -> list[str]:
    return ["Ada"]


app.include_router(admin)

if __name__ == "__main__":
    app.run("127.0.0.1:8000")
