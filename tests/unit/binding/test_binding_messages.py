"""What a programmer is told about a route that cannot work: golden texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import pydantic
import pytest

from armature import App, Header, HttpResponse, Path, Query, RouteError, Router, get


class Model(pydantic.BaseModel):
    name: str


async def body_of_model(user: Model) -> None: ...
async def path_marker(item: Annotated[int, Path()]) -> None: ...
async def path_as_query(item: Annotated[int, Query()]) -> None: ...
async def path_list(item: list[int]) -> None: ...
async def unresolved(item: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def star(*args: Any, **kwargs: Any) -> None: ...
async def fine() -> None: ...


MEND_TYPES = (
    "a parameter can be HttpRequest, an object given to app.data(...), or text from path, query, header or cookie: "
    "str, int, float, bool, UUID, Decimal, date, time, datetime, timedelta, Enum, Literal, an Optional or a list, "
    "set or tuple of these; read a body with `await req.json()`"
)


@pytest.mark.parametrize(
    ("path", "handler", "message", "mend"),
    [
        ("/users", body_of_model,
         "parameter 'user' of type {module}.Model cannot be read from the request", MEND_TYPES),
        ("/x", path_marker, "parameter 'item' is marked as Path(), but the pattern has no {{item}}",
         "write {{item}} in the pattern, or Path(alias=...) with the pattern's name"),
        ("/x/{item}", path_as_query, "parameter 'item' is in the pattern, but marked as Query()",
         "rename one of the two, or give Query() an alias"),
        ("/x/{item}", path_list, "path parameter 'item' cannot be a list",
         "a path parameter is one text: take str and split it"),
        ("/x", unresolved, "the annotation 'Nowhere' of parameter 'item' cannot be resolved",
         "define or import the name at module level, where the handler can see it when the app is built"),
        ("/x", star, "the handler takes *args or **kwargs, so nobody can know what to pass",
         "name its parameters; a decorator must use functools.wraps, which keeps the signature"),
    ],
)  # fmt: skip
def test_signatures_that_cannot_be_filled(path: str, handler: Any, message: str, mend: str) -> None:
    app = App()
    app.add_route(path, handler)
    with pytest.raises(RouteError) as raised:
        app.build()
    module = __name__
    assert str(raised.value) == (
        f"{message.format(module=module)}\n"
        f"  route:   {path}\n"
        f"  handler: {module}.{handler.__name__}\n"
        f"  at:      {__file__}:{handler.__code__.co_firstlineno}\n"
        f"  mend:    {mend.format(module=module)}"
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: App().get("users")(fine),
         ("a path must begin with a slash\n  route:   users\n  handler: fine\n  at:      {at}\n"
          '  mend:    write "/users"')),
        (lambda: App().add_route("/x", "fine"),  # type: ignore[arg-type]
         ("a handler must be callable, not str\n  route:   /x\n  at:      {at}\n"
          "  mend:    write @router.get(path) above a function, or router.add_route(path, function)")),
        (lambda: App().add_route("/x", fine, ()),
         ("methods must name at least one method, not ()\n  route:   /x\n  at:      {at}\n"
          '  mend:    such as methods=["GET", "POST"]')),
        (lambda: App().get("/x", status_code=99)(fine),
         ("status_code must be a status from 200 to 599, not 99\n  route:   /x\n  handler: fine\n  at:      {at}\n"
          "  mend:    such as status_code=201")),
        (lambda: Router("api"),
         'a prefix must begin with a slash\n  route:   api\n  at:      {at}\n  mend:    write "/api"'),
        (lambda: Router().include_router("x"),  # type: ignore[arg-type]
         ("include_router takes a Router, not str\n  at:      {at}\n"
          "  mend:    an ASGI app is mounted: mount(path, app)")),
        (lambda: Router().include_router(App()),
         ("an App cannot be included, for it has middleware and a life of its own\n  at:      {at}\n"
          "  mend:    mount it: app.mount(path, other_app)")),
        (lambda: App().mount("/x", 5),
         ("mount takes an App, a Router or an ASGI app, not int\n  route:   /x\n  at:      {at}\n"
          "  mend:    an ASGI app is called with (scope, receive, send)")),
        (lambda: App().route("/x", fine),  # type: ignore[call-overload]
         ("route(path, ...) takes get(handler), post(handler) and so on, not function\n  route:   /x\n"
          "  handler: fine\n  at:      {at}\n"
          "  mend:    write .route(path, get(handler)) with `from armature import get`")),
        (lambda: get(fine).get(fine),
         "GET has a handler already\n  handler: fine\n  at:      {at}\n  mend:    the first one is 'fine'"),
        (lambda: App().default_service(get(fine)),
         ("default_service serves every method\n  at:      {at}\n"
          "  mend:    write default_service(handler) or default_service(any(handler))")),
        (lambda: App().default_service(fine).default_service(fine),
         ("this router has a default_service already\n  handler: fine\n  at:      {at}\n"
          "  mend:    the first one is fine")),
        (lambda: App().get("/x", dependencies=[fine])(fine),
         ("a route cannot have dependencies yet\n  route:   /x\n  handler: fine\n  at:      {at}\n"
          "  mend:    check the request in a middleware of the router (`router.wrap(...)`), or in the handler")),
    ],
)  # fmt: skip
def test_registrations_that_make_no_sense(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(RouteError) as raised:
        call()
    assert re.sub(r":\d+$", "", str(raised.value), flags=re.MULTILINE) == text.format(at=__file__)


def test_the_place_is_the_line_of_the_user() -> None:
    with pytest.raises(RouteError) as raised:
        App().get("x")(fine)
    here = test_the_place_is_the_line_of_the_user.__code__.co_firstlineno
    assert raised.value.location == f"{__file__}:{here + 2}"


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(RouteError, match="a route has no option sumary") as raised:
        App().get("/x", sumary="x")(fine)  # type: ignore[call-arg]
    assert "status_code, summary, tags" in str(raised.value)


def test_two_routes_of_one_path_name_each_other() -> None:
    app = App()
    app.get("/x/{a}")(fine)
    app.get("/x/{b}")(path_as_query)
    with pytest.raises(RouteError, match=r"GET is registered twice for the same paths as /x/\{a\}") as raised:
        app.build()
    assert f"{__name__}.fine at {__file__}" in str(raised.value)


def test_a_router_that_contains_itself() -> None:
    a, b = Router(), Router()
    a.include_router(b)
    with pytest.raises(RouteError, match="a router cannot contain itself"):
        b.include_router(a)
    with pytest.raises(RouteError, match="a router cannot contain itself"):
        a.include_router(a)
    app = App()
    with pytest.raises(RouteError, match="an app cannot be mounted in itself"):
        app.mount("/x", app)


def test_a_response_class_that_is_none() -> None:
    from armature import ConfigurationError

    app = App()
    app.get("/x", response_class=dict)(fine)
    with pytest.raises(
        ConfigurationError, match="response_class must be a subclass of HttpResponse, not <class 'dict'>"
    ):
        app.build()


def test_header_of_an_unreadable_type() -> None:
    async def handler(x: Annotated[Model, Header()]) -> HttpResponse: ...

    app = App()
    app.add_route("/x", handler)
    with pytest.raises(RouteError, match=r"parameter 'x' of type .*Model"):
        app.build()
