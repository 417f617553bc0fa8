"""An app put together in a chain: scopes, shared objects, several methods of one path, an answer for the rest.

$ armature run examples/builder.py

$ curl -s http://127.0.0.1:8000/
Welcome to the shop.
$ curl -s http://127.0.0.1:8000/api/v1/users/5
{"id":5}
$ curl -s -X POST http://127.0.0.1:8000/api/v1/users
{"created":true}
$ curl -s http://127.0.0.1:8000/api/v1/nothing
{"error":"no such resource","path":"/api/v1/nothing"}
"""

from __future__ import annotations

from armature import App, CORSMiddleware, HttpRequest, LoggerMiddleware, get, scope


class Settings:
    greeting = "Welcome to the shop.\n"


async def index(settings: Settings) -> str:
    return settings.greeting


async def list_users() -> list[str]:
    return ["Ada", "Grace"]


async def create_user() -> tuple[dict[str, bool], int]:
    return {"created": True}, 201


async def get_user(id: int) -> dict[str, int]:
    return {"id": id}


async def missing(request: HttpRequest) -> tuple[dict[str, str], int]:
    return {"error": "no such resource", "path": request.path}, 404


app = (
    App.new()
    .wrap(LoggerMiddleware.default())
    .wrap(CORSMiddleware.permissive())
    .data(Settings())
    .route("/", get(index))
    .service(
        scope("/api/v1")
        .route("/users", get(list_users).post(create_user))
        .route("/users/:id", get(get_user))
        .default_service(missing)
    )
)

if __name__ == "__main__":
    app.run("127.0.0.1:8000")
