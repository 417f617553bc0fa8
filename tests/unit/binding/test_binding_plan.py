"""From a signature to a call: sources, modes, defaults, and all errors of a request at once."""

from __future__ import annotations

import enum
import linecache
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from armature import App, Cookie, Header, HttpRequest, Path, Query, RouteError
from armature._impl import message
from armature._spec.plan import CALL_BARE, CALL_PARAMS, CALL_REQUEST, KIND_INT, KIND_STR
from carrier import Answer

if TYPE_CHECKING:
    from armature.http import HttpRequest as OnlyForCheckers

Ask = Callable[..., Answer]


class Color(enum.Enum):
    RED = "red"


def endpoint_of(app: App, path: str, method: str = "GET") -> Any:
    return app.build().router.find(method, path.encode()).endpoint


def served(handler: Any, path: str = "/", **options: Any) -> App:
    app = App()
    app.add_route(path, handler, **options)
    return app


# ---- modes


async def bare() -> None: ...
async def takes_request(request: HttpRequest) -> None: ...
async def takes_unannotated(req) -> None: ...  # type: ignore[no-untyped-def]
async def one_int(a: int) -> None: ...
async def str_and_int(a: str, b: int) -> None: ...
async def swapped(b: int, a: str) -> None: ...
async def bounded(a: Annotated[int, Path(ge=1)]) -> None: ...
async def keyword_only(*, a: str) -> None: ...
async def request_and_path(request: HttpRequest, a: int) -> None: ...
async def with_query(a: int, q: str = "") -> None: ...
async def unannotated(a) -> None: ...  # type: ignore[no-untyped-def]
async def optional_request(*, request: HttpRequest) -> None: ...


@pytest.mark.parametrize(
    ("handler", "path", "mode", "kinds"),
    [
        (bare, "/", CALL_BARE, b""),
        (bare, "/{a}", CALL_BARE, b""),
        (takes_request, "/{a}", CALL_REQUEST, b""),
        (takes_unannotated, "/", CALL_REQUEST, b""),
        (one_int, "/{a}", CALL_PARAMS, bytes([KIND_INT])),
        (one_int, "/{a:int}", CALL_PARAMS, bytes([KIND_INT])),
        (str_and_int, "/{a}/{b}", CALL_PARAMS, bytes([KIND_STR, KIND_INT])),
        (unannotated, "/{a}", CALL_PARAMS, bytes([KIND_STR])),
        (unannotated, "/{a:int}", CALL_PARAMS, bytes([KIND_INT])),
        (unannotated, "/{a:path}", CALL_PARAMS, bytes([KIND_STR])),
        (swapped, "/{a}/{b}", CALL_REQUEST, b""),
        (bounded, "/{a}", CALL_REQUEST, b""),
        (keyword_only, "/{a}", CALL_REQUEST, b""),
        (optional_request, "/", CALL_REQUEST, b""),
        (request_and_path, "/{a}", CALL_REQUEST, b""),
        (with_query, "/{a}", CALL_REQUEST, b""),
        (one_int, "/{a}/{unused}", CALL_REQUEST, b""),
    ],
)
def test_mode_of_the_call(handler: Any, path: str, mode: int, kinds: bytes) -> None:
    endpoint = endpoint_of(
        served(handler, path), path.replace("{", "").replace("}", "").replace(":int", "").replace("a", "1")
    )
    assert (endpoint.mode, bytes(endpoint.kinds)) == (mode, kinds)
    assert (endpoint.plan is None) == (mode != CALL_PARAMS)
    if mode != CALL_REQUEST or handler in (takes_request, takes_unannotated):
        assert endpoint.call is handler


# ---- sources


def test_path_query_header_and_cookie_by_annotation_and_marker(ask: Ask) -> None:
    async def handler(
        item: int,
        request: HttpRequest,
        limit: int = 10,
        tags: Annotated[list[str], Query(alias="tag")] = [],  # noqa: B006
        color: Color | None = None,
        mode: Literal["a", "b"] = "a",
        flag: bool = False,
        user_agent: Annotated[str | None, Header()] = None,
        x_ids: list[int] = Header(default=[]),  # noqa: B008
        raw: str = Header("none", alias="X-Raw_Name"),
        session: Annotated[str, Cookie(alias="sid")] = "nobody",
        under_score: str = Header("unset", convert_underscores=False),
    ) -> dict[str, Any]:
        return {
            "item": item, "method": request.method, "limit": limit, "tags": tags, "color": color, "mode": mode,
            "flag": flag, "user_agent": user_agent, "x_ids": x_ids, "raw": raw, "session": session,
            "under_score": under_score,
        }  # fmt: skip

    app = served(handler, "/items/{item}")
    assert ask(app, "/items/3").json() == {
        "item": 3, "method": "GET", "limit": 10, "tags": [], "color": None, "mode": "a", "flag": False,
        "user_agent": None, "x_ids": [], "raw": "none", "session": "nobody", "under_score": "unset",
    }  # fmt: skip
    headers = [
        ("User-Agent", "curl"), ("X-Ids", "1"), ("x-ids", "2"), ("X-Raw_Name", "r"), ("Cookie", "sid=abc; x=y"),
        ("under_score", "u"),
    ]  # fmt: skip
    path = "/items/-4?limit=5&tag=x&tag=%C3%BC+y&color=red&mode=b&flag=on"
    assert ask(app, path, headers=headers).json() == {
        "item": -4, "method": "GET", "limit": 5, "tags": ["x", "ü y"], "color": "red", "mode": "b", "flag": True,
        "user_agent": "curl", "x_ids": [1, 2], "raw": "r", "session": "abc", "under_score": "u",
    }  # fmt: skip


def test_a_repeated_scalar_takes_the_last_query_value_and_the_first_header(ask: Ask) -> None:
    async def handler(a: int, b: Annotated[str, Header()]) -> list[Any]:
        return [a, b]

    app = served(handler)
    assert ask(app, "/?a=1&a=2", headers=[("b", "x"), ("b", "y")]).json() == [2, "x"]


def test_defaults_are_fresh_for_every_request(ask: Ask) -> None:
    made: list[int] = []
    app = App()

    @app.get("/")
    async def handler(
        a: list[int] = [],  # noqa: B006
        b: Annotated[int, Query(default_factory=lambda: made.append(1) or len(made))] = 0,
    ) -> dict[str, Any]:
        a.append(9)
        return {"a": a, "b": b}

    assert [ask(app, "/").json() for _ in range(2)] == [{"a": [9], "b": 1}, {"a": [9], "b": 2}]


def test_types_that_are_local_to_the_registering_function_are_found(ask: Ask) -> None:
    class Local(enum.Enum):
        X = "x"

    @dataclass
    class Settings:
        name: str

    app = App()
    app.data(Settings("s"))

    @app.get("/")
    async def handler(x: Local, settings: Settings) -> list[str]:
        return [x.name, settings.name]

    assert ask(app, "/?x=x").json() == ["X", "s"]


class Later:
    pass


def test_names_defined_after_the_handler_are_found(ask: Ask) -> None:
    app = App()

    @app.get("/")
    async def handler(n: DefinedBelow) -> int:
        return n

    assert ask(app, "/?n=5").json() == 5


def test_a_request_imported_for_type_checkers_only_is_known(ask: Ask) -> None:
    async def handler(request: OnlyForCheckers) -> str:
        return "no"

    async def by_its_name(req: "armature.HttpRequest") -> str:  # type: ignore[name-defined]  # noqa: F821, UP037
        return req.method

    assert ask(served(by_its_name), "/").text == "GET"
    with pytest.raises(RouteError, match="'OnlyForCheckers' of parameter 'request' cannot be resolved"):
        served(handler).build()


def test_shared_objects_are_injected_by_type(ask: Ask) -> None:
    class Base: ...

    class Database(Base):
        name = "db"

    class Absent: ...

    async def handler(db: Database, base: Base, maybe: Database | None, app: App, n: int = 1) -> list[Any]:
        return [db.name, base is db, maybe is db, isinstance(app, App), n]

    async def wanting(missing: Absent) -> None: ...

    app = App().data(Database())
    app.add_route("/", handler)
    assert ask(app, "/?n=3").json() == ["db", True, True, True, 3]
    other = App()
    other.add_route("/", handler)
    with pytest.raises(RouteError, match=r"parameter 'db' of type .*Database cannot be read from the request"):
        other.build()
    third = App().data(Database())
    third.add_route("/", wanting)
    with pytest.raises(RouteError, match="parameter 'missing' of type"):
        third.build()


def test_inner_scopes_share_and_shadow(ask: Ask) -> None:
    from armature import Router

    class Settings:
        def __init__(self, name: str) -> None:
            self.name = name

    async def handler(settings: Settings) -> str:
        return settings.name

    inner, other = Router("/inner").data(Settings("inner")), Router("/other")
    inner.add_route("/", handler)
    other.add_route("/", handler)
    app = App().data(Settings("outer")).service(inner, other)
    assert (ask(app, "/inner/").text, ask(app, "/other/").text) == ("inner", "outer")


# ---- errors


def test_every_error_of_a_request_is_named(ask: Ask) -> None:
    async def handler(
        item: int,
        q: str,
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        ids: list[int] = [],  # noqa: B006
        x_token: Annotated[str, Header()] = ...,  # type: ignore[assignment]
        sid: str = Cookie(min_length=3),
    ) -> None: ...

    answer = ask(served(handler, "/{item}"), "/x?limit=0&ids=1&ids=b", headers=[("cookie", "sid=ab")])
    assert answer.status == 422
    assert answer.header("content-type") == "application/problem+json"
    problem = answer.json()
    assert (problem["title"], problem["status"]) == ("Unprocessable Content", 422)
    integer = "Input should be a valid integer, unable to parse string as an integer"
    assert problem["errors"] == [
        {"type": "int_parsing", "loc": ["path", "item"], "msg": integer, "input": "x"},
        {"type": "missing", "loc": ["query", "q"], "msg": "Field required", "input": None},
        {"type": "greater_than_equal", "loc": ["query", "limit"],
         "msg": "Input should be greater than or equal to 1", "input": "0", "ctx": {"ge": 1}},
        {"type": "int_parsing", "loc": ["query", "ids", 1], "msg": integer, "input": "b"},
        {"type": "missing", "loc": ["header", "x-token"], "msg": "Field required", "input": None},
        {"type": "string_too_short", "loc": ["cookie", "sid"],
         "msg": "String should have at least 3 characters", "input": "ab", "ctx": {"min_length": 3}},
    ]  # fmt: skip
    assert problem["detail"] == (
        f"path parameter 'item': {integer} (got 'x'); query parameter 'q': Field required; "
        "query parameter 'limit': Input should be greater than or equal to 1 (got '0'); "
        f"query parameter 'ids.1': {integer} (got 'b'); header parameter 'x-token': Field required; "
        "cookie parameter 'sid': String should have at least 3 characters (got 'ab')"
    )


def test_fastapis_shape_of_errors(ask: Ask) -> None:
    app = App(validation_errors="fastapi")

    @app.get("/")
    async def handler(n: int) -> None: ...

    answer = ask(app, "/?n=x")
    assert (answer.status, answer.header("content-type")) == (422, "application/json")
    assert answer.json() == {
        "detail": [
            {
                "type": "int_parsing",
                "loc": ["query", "n"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
                "input": "x",
            }
        ]
    }


@pytest.mark.parametrize("text", ["9223372036854775808", "0" * 30 + "7", "%2B7", "-0", "1234567890123456789"])
def test_integers_that_the_connection_leaves_to_the_plan(ask: Ask, text: str) -> None:
    app = served(one_int_back, "/{a}")
    assert ask(app, f"/{text}").json() == int(text.replace("%2B", "+"))


async def one_int_back(a: int) -> int:
    return a


def test_a_handlers_own_value_error_is_not_taken_for_the_clients(ask: Ask) -> None:
    async def handler(n: int) -> None:
        raise ValueError("mine")

    def blocking(n: int) -> None:
        raise KeyError("mine")

    assert ask(served(handler), "/?n=1").status == 500
    assert ask(served(blocking), "/?n=1").status == 500


def test_a_fault_of_a_convertor_is_not_hidden() -> None:
    from armature.binding.plan import explain

    fault = RuntimeError("broken")
    assert explain(object(), [], fault) is fault


def test_the_plan_shows_its_source_in_tracebacks() -> None:
    async def handler(n: int) -> None: ...

    app = served(handler)
    plan = endpoint_of(app, "/").call
    filename = plan.__code__.co_filename
    assert filename.startswith("<armature plan: GET / of ")
    assert "convert0(text)" in "".join(linecache.getlines(filename))
    request = app.build().request_class(None, "GET", b"/", b"n=x")
    try:
        plan(request)
    except Exception as error:
        shown = "".join(traceback.format_exception(error))
        assert "raise explain(request, error) from None" in shown
        assert "During handling" not in shown


def test_hostile_parameter_names_do_not_reach_the_source(ask: Ask) -> None:
    async def handler(
        a: Annotated[int, Query(alias="'); import os; ('")] = 1,
        größe: int = 2,
        lambda_: int = 3,
        request_: Annotated[int, Query(alias="request")] = 4,
        target: int = 5,
        text: int = 6,
        query: int = 7,
    ) -> list[int]:
        return [a, größe, lambda_, request_, target, text, query]

    app = served(handler)
    assert ask(app, "/").json() == [1, 2, 3, 4, 5, 6, 7]
    path = "/?target=50&text=60&query=70&request=40&gr%C3%B6%C3%9Fe=20&%27%29%3B+import+os%3B+%28%27=10"
    assert ask(app, path).json() == [10, 20, 3, 40, 50, 60, 70]


def test_no_inspection_per_request() -> None:
    import cProfile
    import pstats

    async def handler(request: HttpRequest, n: int, q: str = "", tags: list[int] = []) -> None: ...  # noqa: B006

    app = served(handler, "/{n}")
    endpoint = endpoint_of(app, "/1")
    request = app.build().request_class(None, "GET", b"/1", b"q=x&tags=1")
    request.bind(("n",), ("1",))
    profile = cProfile.Profile()
    profile.enable()
    endpoint.call(request).close()
    profile.disable()
    files = {file for file, _, _ in pstats.Stats(profile).stats}  # type: ignore[attr-defined]
    assert not [file for file in files if file.endswith(("inspect.py", "typing.py", "dataclasses.py"))]


def test_base_request_annotation_is_the_request(ask: Ask) -> None:
    async def handler(r: message.Request) -> str:
        return r.method

    assert ask(served(handler), "/").text == "GET"


DefinedBelow = int
