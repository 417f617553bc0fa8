"""The whole App without a socket, on the twin that the process chose: what routes, parameters and middleware cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from armature import App, HttpRequest, HttpResponse, get, scope
from armature._impl import IMPL
from benchmarks.http.loads import BROWSER
from benchmarks.twins import HOST, ITEM, AppCore, in_loop, post
from benchmarks.twins import get as get_bytes


class Settings:
    """What handlers share."""

    name = "settings"


@pytest.fixture
def run(benchmark: Any) -> Callable[..., None]:
    """Times one request to an app: `run(app, request bytes, status)`."""
    benchmark.extra_info["impl"] = IMPL

    def feed(app: App, data: bytes, status: int = 200) -> None:
        def inside(loop: asyncio.AbstractEventLoop) -> None:
            core = AppCore(app, loop)
            core.check(data, status)
            benchmark(core.feed, data)

        in_loop(inside)

    return feed


def small_app(routes: int = 1) -> App:
    app = App()

    async def plaintext() -> str:
        return "Hello, World!"

    app.get("/")(plaintext)
    for number in range(1, routes):
        app.get(f"/route{number}/items")(plaintext)
    return app


def test_no_routes(run: Any) -> None:
    run(App(), get_bytes("/"), 404)


@pytest.mark.parametrize("routes", [1, 5, 50, 500])
def test_plaintext_of_so_many_routes(run: Any, routes: int) -> None:
    run(small_app(routes), get_bytes(f"/route{routes - 1}/items" if routes > 1 else "/"))


def test_browser(run: Any) -> None:
    run(small_app(), get_bytes("/", HOST + BROWSER))


@pytest.mark.parametrize("count", [1, 3])
def test_so_many_middlewares(run: Any, count: int) -> None:
    app = small_app()
    for _ in range(count):

        @app.middleware
        async def add_header(req: HttpRequest, call_next: Any) -> HttpResponse:
            response: HttpResponse = await call_next(req)
            response.headers["x-middleware"] = "1"
            return response

    run(app, get_bytes("/"))


def test_scope(run: Any) -> None:
    async def show(req: HttpRequest) -> HttpResponse:
        return HttpResponse.text(req.param("id"))

    app = App.new().service(scope("/api/v1").route("/users/:id", get(show)))
    run(app, get_bytes("/api/v1/users/1234"))


def test_sync_inline(run: Any) -> None:
    app = App()

    @app.get("/", blocking=False)
    def health() -> str:
        return "ok"

    run(app, get_bytes("/"))


def test_json(run: Any) -> None:
    app = App()

    @app.get("/")
    async def message() -> dict[str, str]:
        return {"message": "Hello, World!"}

    run(app, get_bytes("/"))


def test_int_parameter(run: Any) -> None:
    app = App()

    @app.get("/users/{user_id}")
    async def user(user_id: int) -> dict[str, int]:
        return {"id": user_id}

    run(app, get_bytes("/users/1234"))


def test_query_parameters(run: Any) -> None:
    app = App()

    @app.get("/search")
    async def search(q: str, page: int = 1, exact: bool = False) -> dict[str, Any]:
        return {"q": q, "page": page, "exact": exact}

    run(app, get_bytes("/search?q=paths&page=2&exact=true"))


def test_request_and_response(run: Any) -> None:
    app = App()

    @app.get("/")
    async def show(req: HttpRequest) -> HttpResponse:
        return HttpResponse(req.headers["host"], headers={"cache-control": "no-store"})

    run(app, get_bytes("/", HOST))


def test_json_body(run: Any) -> None:
    app = App()

    @app.post("/items")
    async def create(req: HttpRequest) -> HttpResponse:
        item = await req.json()
        return HttpResponse.json({"name": item["name"], "age": item["age"] + 1}, status=201)

    run(app, post("/items", ITEM), 201)


def test_shared_data(run: Any) -> None:
    app = App()
    app.data(Settings())

    @app.get("/")
    async def show(settings: Settings) -> str:
        return settings.name

    run(app, get_bytes("/"))


@pytest.mark.parametrize("routes", [1, 100])
def test_build(benchmark: Any, routes: int) -> None:
    benchmark.extra_info["impl"] = IMPL

    def setup() -> tuple[tuple[App], dict[str, Any]]:
        return (small_app(routes),), {}

    benchmark.pedantic(lambda app: app.build(), setup=setup, rounds=20)
