"""Registering routes in every way, and finding them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import armature
from armature import (
    APIRouter,
    App,
    ConfigurationError,
    HttpRequest,
    HttpResponse,
    RouteError,
    Router,
    get,
    post,
    scope,
)
from armature.testing import TestClient
from carrier import Answer

Ask = Callable[..., Answer]


def test_router_alone_as_in_the_readme(ask: Ask) -> None:
    router = Router()

    @router.get("/users/{user_id}")
    async def show(req: HttpRequest) -> HttpResponse:
        return HttpResponse.json({"id": req.param("user_id"), "name": "Ada"})

    @router.get("/health")
    def health(req: HttpRequest) -> HttpResponse:
        return HttpResponse.ok()

    assert ask(router, "/users/7").json() == {"id": "7", "name": "Ada"}
    assert ask(router, "/health").status == 200
    assert ask(router, "/nothing").status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"])
def test_a_decorator_for_every_method(ask: Ask, method: str) -> None:
    app = App()

    @getattr(app, method.lower())("/x")
    async def handler(request: HttpRequest) -> HttpResponse:
        return HttpResponse.text("here", headers={"x-method": request.method})

    answer = ask(app, "/x", method)
    assert (answer.status, answer.header("x-method")) == (200, method)
    assert answer.text == ("" if method == "HEAD" else "here")


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
def test_any_serves_every_method_by_one_endpoint(ask: Ask, method: str) -> None:
    app = App()

    @app.any("/x")
    async def handler(request: HttpRequest) -> str:
        return request.method

    assert ask(app, "/x", method).text == method
    router = app.build().router
    assert router.find(method, b"/x").endpoint is router.find("GET", b"/x").endpoint


def test_api_route_and_route_take_methods(ask: Ask) -> None:
    app = App()

    @app.api_route("/a", methods=["GET", "post"])
    async def a(request: HttpRequest) -> str:
        return request.method

    @app.route("/b", methods=["PUT"])
    async def b() -> str:
        return "b"

    @app.route("/c")
    async def c() -> str:
        return "c"

    assert [ask(app, "/a", method).text for method in ("GET", "POST")] == ["GET", "POST"]
    assert ask(app, "/b", "PUT").text == "b"
    assert ask(app, "/b").status == 405
    assert ask(app, "/c").text == "c"


def test_the_builder_as_in_the_readme(ask: Ask) -> None:
    class Settings:
        greeting = "hello"

    async def index(settings: Settings) -> str:
        return settings.greeting

    async def list_users() -> list[str]:
        return ["ada"]

    async def create_user() -> tuple[dict[str, str], int]:
        return {"name": "ada"}, 201

    async def get_user(id: int) -> dict[str, int]:
        return {"id": id}

    app = (
        App.new()
        .data(Settings())
        .route("/", get(index))
        .service(scope("/api/v1").route("/users", get(list_users).post(create_user)).route("/users/:id", get(get_user)))
    )
    assert isinstance(app, App)
    assert ask(app, "/").text == "hello"
    assert ask(app, "/api/v1/users").json() == ["ada"]
    assert ask(app, "/api/v1/users", "POST").status == 201
    assert ask(app, "/api/v1/users/5").json() == {"id": 5}
    assert ask(app, "/api/v1/users", "PUT").header("allow") == "GET, HEAD, POST, OPTIONS"


def test_nesting_adds_up_prefixes_whatever_the_order(ask: Ask) -> None:
    app = App()
    outer, middle, inner = APIRouter(prefix="/outer"), APIRouter(), APIRouter(prefix="/inner/")
    app.include_router(outer, prefix="/v1")
    outer.include_router(middle, prefix="/{tenant}")
    middle.include_router(inner)

    # Registered after everything was included.
    @inner.get("/x")
    async def x(tenant: str) -> str:
        return tenant

    @inner.get("")
    async def root() -> str:
        return "inner"

    assert ask(app, "/v1/outer/acme/inner/x").text == "acme"
    assert ask(app, "/v1/outer/acme/inner").text == "inner"
    assert [route.path for route in app.routes] == ["/v1/outer/{tenant}/inner/x", "/v1/outer/{tenant}/inner"]


def test_a_router_can_be_included_twice(ask: Ask) -> None:
    router = Router()

    @router.get("/x")
    async def x() -> str:
        return "x"

    app = App()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    assert (ask(app, "/a/x").text, ask(app, "/b/x").text) == ("x", "x")


def test_tags_and_the_like_add_up_for_the_schema() -> None:
    router = APIRouter(prefix="/r", tags=["r"], responses={404: {"description": "gone"}}, deprecated=True)

    @router.get("/x", tags=["x"], summary="An x", operation_id="x1", include_in_schema=False, responses={409: {}})
    async def x() -> None:
        """Documented."""

    app = App()
    app.include_router(router, tags=["i"])
    (route,) = app.routes
    assert route.options["tags"] == ["i", "r", "x"]
    assert set(route.options["responses"]) == {404, 409}
    assert route.options["deprecated"] is True
    assert route.options["include_in_schema"] is False
    assert (route.options["summary"], route.options["operation_id"]) == ("An x", "x1")


def test_head_comes_from_get_and_options_says_what_is_allowed(ask: Ask) -> None:
    app = App()

    @app.get("/x")
    async def x() -> dict[str, int]:
        return {"a": 1}

    head = ask(app, "/x", "HEAD")
    assert (head.status, head.body) == (200, b"")
    options = ask(app, "/x", "OPTIONS")
    assert (options.status, options.header("allow")) == (204, "GET, HEAD, OPTIONS")
    refused = ask(app, "/x", "DELETE")
    assert (refused.status, refused.header("allow")) == (405, "GET, HEAD, OPTIONS")
    assert refused.header("content-type") == "application/problem+json"
    assert refused.json() == {"title": "Method Not Allowed", "status": 405}
    assert ask(app, "*", "OPTIONS").status == 204
    assert ask(app, "*", "GET").status == 404


@pytest.mark.parametrize(
    ("path", "location"),
    [("/a/", "/a"), ("/b", "/b/"), ("/a/?q=1&r=%20", "/a?q=1&r=%20"), ("/%61/", "/%61")],
)
def test_a_slash_too_many_or_too_few_redirects(ask: Ask, path: str, location: str) -> None:
    app = App()
    app.route("/a", get(lambda: "a")).route("/b/", get(lambda: "b"))
    answer = ask(app, path)
    assert (answer.status, answer.header("location")) == (307, location)


@pytest.mark.parametrize("path", ["//example.org", "//example.org/", "/\\example.org/", "//", "/"])
def test_a_redirect_never_leaves_the_host(ask: Ask, path: str) -> None:
    app = App()

    @app.get("/x/{rest:path}")
    async def rest() -> str:
        return "rest"

    @app.get("/{a}/{b}/")
    async def two() -> str:
        return "two"

    answer = ask(app, path)
    assert answer.status == 404
    assert answer.header("location") is None


def test_redirects_can_be_switched_off(ask: Ask) -> None:
    app = App(redirect_slashes=False)
    app.route("/a", get(lambda: "a"))
    assert ask(app, "/a/").status == 404
    router = Router(redirect_slashes=False)
    router.route("/a", get(lambda: "a"))
    assert ask(router, "/a/").status == 404


def test_default_service_sees_the_real_request(ask: Ask) -> None:
    async def fallback(request: HttpRequest) -> HttpResponse:
        return HttpResponse.text(f"{request.method} {request.path}?{request.query_string.decode()}", 404)

    async def of_api() -> dict[str, str]:
        return {"error": "no such resource"}

    app = (
        App.new()
        .route("/x", get(lambda: "x"))
        .default_service(fallback)
        .service(scope("/api").route("/y", get(lambda: "y")).default_service(armature.any(of_api)))
    )
    assert ask(app, "/a/b?c=1", "PUT").text == "PUT /a/b?c=1"
    assert ask(app, "/api/zzz").json() == {"error": "no such resource"}
    assert ask(app, "/api").json() == {"error": "no such resource"}
    assert ask(app, "/api/y").text == "y"
    assert ask(app, "/apix").text == "GET /apix?"
    assert ask(app, "/x", "DELETE").status == 405


def test_status_code_and_response_class_take_effect(ask: Ask) -> None:
    class HTML(HttpResponse):
        __slots__ = ()

        def __init__(self, body: str, status: int = 200) -> None:
            super().__init__(body, status, None, "text/html; charset=utf-8")

    app = App()

    @app.post("/made", status_code=201)
    async def made() -> dict[str, int]:
        return {"id": 1}

    @app.get("/page", response_class=HTML)
    async def page() -> str:
        return "<p>"

    @app.delete("/gone", status_code=202)
    async def gone() -> None:
        return None

    router = APIRouter(default_response_class=HTML)
    router.route("/other", get(lambda: "<b>"))
    app.include_router(router)
    assert ask(app, "/made", "POST").status == 201
    assert ask(app, "/page").header("content-type") == "text/html; charset=utf-8"
    assert ask(app, "/other").header("content-type") == "text/html; charset=utf-8"
    assert ask(app, "/gone", "DELETE").status == 202


def test_body_limit_of_a_route_and_of_the_app() -> None:
    app = App(body_limit=10)
    app.route("/a", post(lambda: "a")).route("/b", post(lambda: "b", body_limit=99))
    router = app.build().router
    assert [router.find("POST", path).endpoint.body_limit for path in (b"/a", b"/b", b"/none")] == [10, 99, 10]


def test_url_path_for() -> None:
    app = App()
    router = APIRouter(prefix="/api")

    @router.get("/users/{user_id:int}")
    async def show(user_id: int) -> None: ...

    @router.get("/users", name="all")
    async def list_users() -> None: ...

    @router.get("/files/{path:path}")
    async def file(path: str) -> None: ...

    app.include_router(router)
    sub = App()
    sub.route("/x/{y}", get(lambda y: y, name="why"))
    app.mount("/sub", sub, name="sub")
    assert app.url_path_for("show", user_id=5) == "/api/users/5"
    assert app.url_path_for("all") == "/api/users"
    assert app.url_path_for("file", path="a b/c") == "/api/files/a%20b/c"
    assert app.url_path_for("sub:why", y="ü") == "/sub/x/%C3%BC"
    with pytest.raises(LookupError, match="no route named 'nothing'"):
        app.url_path_for("nothing")
    with pytest.raises(LookupError, match=r"the route 'show' takes \{user_id\}, not \{id\}"):
        app.url_path_for("show", id=5)
    with pytest.raises(ValueError, match="does not fit"):
        app.url_path_for("show", user_id="x")


def test_build_is_done_once_and_freezes() -> None:
    app, router = App(), Router()
    app.include_router(router)
    service = app.build()
    assert app.build() is service
    for change in (
        lambda: app.get("/x")(lambda: None),
        lambda: router.get("/x")(lambda: None),
        lambda: app.add_middleware(lambda: None),
        lambda: app.exception_handler(404)(lambda: None),
        lambda: app.data(object.__new__(type("Some", (), {}))),
        lambda: app.include_router(Router()),
        lambda: app.mount("/x", App()),
        lambda: app.on_event("startup")(lambda: None),
        lambda: app.default_service(lambda: None),
    ):
        with pytest.raises(
            ConfigurationError, match=rf" at {__file__}:\d+ comes too late: the app was built at"
        ) as raised:
            change()
        assert not isinstance(raised.value, RouteError)
        assert f"{__file__}:" in str(raised.value)


def test_a_change_that_comes_too_late_names_the_users_lines_under_a_test_client() -> None:
    """The client's event loop, which is the standard library's, stands between the app and its user."""
    app = App()

    @app.get("/")
    async def add() -> str:
        app.add_route("/late", add)  # the change
        return "added"

    @app.get("/thread")
    def add_in_thread() -> str:
        app.add_route("/late", add)  # the change in a thread
        return "added"

    lines = Path(__file__).read_text("utf-8").splitlines()

    def place(marker: str) -> str:
        return f"{__file__}:{next(number for number, line in enumerate(lines, 1) if line.endswith(marker))}"

    with TestClient(app) as client:  # the build
        for path, marker in {"/": "# the change", "/thread": "# the change in a thread"}.items():
            with pytest.raises(ConfigurationError) as raised:
                client.get(path)
            assert f" at {place(marker)} comes too late" in str(raised.value)
            assert f"the app was built at {place('# the build')};" in str(raised.value)


def test_a_failed_build_does_not_freeze() -> None:
    app = App()

    @app.get("/x")
    async def x(value: memoryview) -> None: ...

    with pytest.raises(RouteError, match=r"'value' of type builtins\.memoryview"):
        app.build()
    app.get("/y")(lambda: None)


def test_an_endpoint_is_compiled_once_per_route(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    from armature.app import assembly

    compiled = []
    original = assembly.compile_route
    monkeypatch.setattr(assembly, "compile_route", lambda plan: compiled.append(plan.label) or original(plan))
    app = App()
    app.route("/a", get(lambda: "a")).route("/b", armature.any(lambda: "b"))
    for _ in range(3):
        ask(app, "/a")
        ask(app, "/b", "PUT")
    assert len(compiled) == 2


def test_marks_for_controllers_and_routes_are_told_apart() -> None:
    from armature.routing.route import MARKED, Mark

    class Controller:
        @get("/{id}", status_code=203)
        @post()
        async def find(self) -> None: ...

    assert getattr(Controller.find, MARKED) == [
        Mark(("POST",), "", {}),
        Mark(("GET",), "/{id}", {"status_code": 203}),
    ]
    assert repr(get(test_build_is_done_once_and_freezes).any(ord)) == (
        "get(test_build_is_done_once_and_freezes).any(ord)"
    )


def test_callables_of_every_kind_are_handlers(ask: Ask) -> None:
    import functools

    class Object:
        async def __call__(self, n: int) -> str:
            return f"object {n}"

        async def method(self, n: int) -> str:
            return f"method {n}"

    async def partial(prefix: str, n: int) -> str:
        return f"{prefix} {n}"

    def plain(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @plain
    async def wrapped(n: int) -> str:
        return f"wrapped {n}"

    app = App()
    app.add_route("/object/{n}", Object())
    app.add_route("/method/{n}", Object().method)
    app.add_route("/partial/{n}", functools.partial(partial, "partial"))
    app.add_route("/wrapped/{n}", wrapped)
    for kind in ("object", "method", "partial", "wrapped"):
        assert ask(app, f"/{kind}/3").text == f"{kind} 3"
        assert ask(app, f"/{kind}/x").status == 422
