"""Conflicts between routes, found when a route is added; and the tree that comes out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from armature import _impl
from armature.exceptions import RouteError
from armature.routing import RegisteredRoute, RoutePlan, build_router, parse_pattern


def refuse(allow: tuple[str, ...]) -> tuple[str, ...]:
    return allow


def plan_of(*routes: tuple[str, str]) -> RoutePlan:
    plan = RoutePlan()
    for number, (methods, text) in enumerate(routes):
        plan.add(text, dict.fromkeys(methods.split(), number), handler=f"handler_{number}", location=f"app.py:{number}")
    return plan


def test_a_conflict_names_both_places() -> None:
    with pytest.raises(RouteError) as caught:
        plan_of(("GET POST", "/users/{id:int}"), ("PUT GET", "/users/{number:int}"))
    assert str(caught.value) == (
        "GET is registered twice for the same paths as /users/{id:int}\n"
        "  route:   /users/{number:int}\n"
        "  handler: handler_1\n"
        "  at:      app.py:1\n"
        "  mend:    the other route is GET/POST /users/{id:int} of handler_0 at app.py:0"
    )


def test_a_path_registered_twice() -> None:
    with pytest.raises(RouteError) as caught:
        plan_of(("GET", "/users"), ("GET", "/users"))
    assert str(caught.value) == (
        "GET is registered twice for this path\n"
        "  route:   /users\n"
        "  handler: handler_1\n"
        "  at:      app.py:1\n"
        "  mend:    the other route is GET /users of handler_0 at app.py:0"
    )


def test_routes_that_nothing_orders_name_the_parameters() -> None:
    with pytest.raises(RouteError) as caught:
        plan_of(("GET", "/a/{x:regex([a-m]+)}/{y}"), ("GET", "/a/{z:regex([k-z]+)}/b"))
    assert str(caught.value) == (
        "some requests match both /a/{z:regex([k-z]+)}/b and /a/{x:regex([a-m]+)}/{y}, and neither goes first\n"
        "  route:   /a/{z:regex([k-z]+)}/b\n"
        "  handler: handler_1\n"
        "  at:      app.py:1\n"
        "  mend:    {z:regex([k-z]+)} and {x:regex([a-m]+)} cannot be ordered; make one of them fixed text or of "
        "another type. the other route is GET /a/{x:regex([a-m]+)}/{y} of handler_0 at app.py:0"
    )


CONFLICTS = [
    ("GET /a", "GET /a"),
    ("GET /a/{x}", "GET /a/:y"),
    ("GET /a/{x:path}", "GET /a/*rest"),
    ("* /a", "* /a"),
    ("GET /caf%C3%A9", "GET /café"),
    ("GET /{x:enum(a|b)}", "GET /{x:enum(b|a)}"),
    ("GET /{x:enum(a|b)}", "GET /{x:enum(b|c)}"),
    ("GET /{x:range(1,5)}", "GET /{x:range(5,9)}"),
    ("GET /{x:length(1,5)}", "GET /{x:length(5,9)}"),
    ("GET /{x:regex(a)}", "HEAD /{x:regex(b)}"),
    ("GET /{x:regex(a)}", "* /{x:regex(b)}"),
    ("GET /{a}-{b}", "GET /{a}.{b}"),
    ("GET /a{x}", "GET /{x}a"),
    ("GET /{a:regex(a)}-{b}", "GET /{a:regex(b)}-{b}"),
    ("GET /{x:regex(a)}/{rest:path}", "GET /{x:regex(b)}/c/d"),
    ("GET /{x:regex(a)}/c/{rest:path}", "GET /{x:regex(b)}/{y}/d"),
    ("GET /s/{x:regex(a)}/{y:int}", "GET /s/{x:regex(b)}/7"),
    ("GET /s/{x:regex(a)}/{y:int}", "GET /s/{x:regex(b)}/{y:float}"),
    ("GET /{x:int}/{y:regex(a)}", "GET /{z:int}/{y:regex(b)}"),
]
PEACEFUL = [
    ("GET /a", "POST /a"),
    ("GET /a", "* /a"),
    ("GET /a", "HEAD /a"),
    ("GET /a", "GET /a/"),
    ("GET /a", "GET /A"),
    ("GET /a/{x}", "GET /a/{x:int}"),
    ("GET /a/{x}", "POST /a/{y}"),
    ("GET /{x:regex(a)}", "POST /{x:regex(b)}"),
    ("GET /{x:regex(a)}/c", "GET /{x:regex(b)}/d"),
    ("GET /{x:regex(a)}/c", "GET /{x:regex(b)}"),
    ("GET /{x:regex(a)}/{y:alpha}", "GET /{x:regex(b)}/{y:int}"),
    ("GET /{x:regex(a)}/{y:int}", "GET /{x:regex(b)}/word"),
    ("GET /{x:regex(a)}/v{y}", "GET /{x:regex(b)}/w{y}"),
    ("GET /{x:regex(a)}/{y}.js", "GET /{x:regex(b)}/{y}.ts"),
    ("GET /{x:enum(a|b)}", "GET /{x:enum(c|d)}"),
    ("GET /{x:enum(a|b)}", "GET /{x:enum(a|b|c)}"),
    ("GET /{x:range(1,5)}", "GET /{x:range(6,9)}"),
    ("GET /{x:range(2,3)}", "GET /{x:range(1,9)}"),
    ("GET /{x:alpha}", "GET /{x:int}"),
    ("GET /v{x:int}", "GET /v{x}"),
    ("GET /{a}-{b}", "GET /{a}--{b}"),
    ("GET /{a:int}-{b}", "GET /{a}-{b:int}"),
    ("GET /{x}/a/{rest:path}", "GET /{x}/{y}/b"),
    ("GET /{rest:path}", "GET /{x}"),
    ("GET /{x}/{y:regex(a)}", "GET /{z:int}/{y:regex(b)}"),
]


@pytest.mark.parametrize("pair", CONFLICTS, ids=" | ".join)
def test_conflicts_are_refused_in_either_order(pair: tuple[str, str]) -> None:
    for order in (pair, pair[::-1]):
        first, second = [tuple(route.split(" ")) for route in order]
        plan = plan_of(first)  # type: ignore[arg-type]
        with pytest.raises(RouteError):
            plan.add(second[1], {second[0]: None})
        assert [route.pattern.text for route in plan] == [first[1]]


@pytest.mark.parametrize("pair", PEACEFUL, ids=" | ".join)
def test_these_stand_side_by_side_in_either_order(pair: tuple[str, str]) -> None:
    for order in (pair, pair[::-1]):
        assert len(plan_of(*[tuple(route.split(" ")) for route in order])) == 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("endpoints", "message", "hint"),
    [
        ({}, "a route must have a method", "name one, or '*' for all"),
        ({"get": 1}, "'get' is no method", "methods are case-sensitive: write 'GET'"),
        ({"GET ": 1}, "'GET ' is no method", "a method is a token such as 'GET'"),
        ({"": 1}, "'' is no method", "a method is a token such as 'GET'"),
        ({"É": 1}, "'É' is no method", "a method is a token such as 'GET'"),
        ({3: 1}, "3 is no method", "a method is a token such as 'GET'"),
    ],
)
def test_methods_that_are_none(endpoints: Any, message: str, hint: str) -> None:
    with pytest.raises(RouteError) as caught:
        RoutePlan().add("/a", endpoints)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_method_of_ones_own() -> None:
    router = plan_of(("Brew", "/pot")).build(not_found=None, method_not_allowed=refuse)
    assert router.find("Brew", b"/pot").outcome == 0
    assert router.find("brew", b"/pot").outcome == 2


def test_too_many_methods() -> None:
    plan = RoutePlan()
    plan.add("/a", {f"M{n}": None for n in range(55)})
    plan.build(not_found=None, method_not_allowed=refuse)
    plan.add("/b", {"M55": None})
    with pytest.raises(RouteError, match="the routes use 65 different methods"):
        plan.build(not_found=None, method_not_allowed=refuse)


@pytest.mark.parametrize(
    ("prefixes", "message", "hint"),
    [
        (["/a/{rest:path}"], "a prefix must not end with a catch-all", "leave it out: everything below is meant"),
        (["/{x}", "/{y}"], "the prefix has a default already", "the other route is /{x}"),
        (["/a", "/a/"], "the prefix has a default already", "the other route is /a"),
        (["".join(f"/{{p{n}}}" for n in range(16))], "a prefix must have fewer than 16 parameters", "shorten it"),
    ],
)
def test_defaults_that_cannot_be(prefixes: list[str], message: str, hint: str) -> None:
    plan = RoutePlan()
    for prefix in prefixes[:-1]:
        plan.add_default(prefix, None)
    with pytest.raises(RouteError) as caught:
        plan.add_default(prefixes[-1], None)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_build_router_takes_routes_and_defaults() -> None:
    routes = [RegisteredRoute(parse_pattern(f"/a{n}/{{x:int}}"), {"GET": n}) for n in range(20)]
    router = build_router(
        routes,
        not_found="404",
        method_not_allowed=refuse,
        options=lambda allow: ("o", *allow),
        defaults=[("/z", "default")],
    )
    assert isinstance(router, _impl.router.RadixRouter)
    assert router.find("GET", b"/a7/3").endpoint == 7
    assert router.find("PUT", b"/a7/3").endpoint == ("GET", "HEAD", "OPTIONS")
    assert router.find("OPTIONS", b"/a7/3").endpoint == ("o", "GET", "HEAD", "OPTIONS")
    assert router.find("GET", b"/z/y").endpoint == "default"
    assert router.find("GET", b"/y").endpoint == "404"


def test_a_plan_may_be_built_more_than_once() -> None:
    plan = plan_of(("GET", "/a"))
    first = plan.build(not_found=None, method_not_allowed=refuse)
    plan.add("/b", {"GET": 1})
    second = plan.build(not_found=None, method_not_allowed=refuse)
    assert [len(first), len(second)] == [1, 2]
    assert first.find("GET", b"/b").outcome == 1


def test_building_takes_time_in_proportion_to_the_routes() -> None:
    import sys

    def steps(count: int) -> int:
        seen = 0

        def note(frame: Any, event: str, argument: Any) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        plan = RoutePlan()
        sys.setprofile(note)
        try:
            for n in range(count):
                plan.add(f"/api/v1/thing{n}/{{id:int}}/{{part}}", {"GET": n})
            plan.build(not_found=None, method_not_allowed=refuse)
        finally:
            sys.setprofile(None)
        return seen

    steps(10)
    assert steps(400) < 2.1 * steps(200)


def test_the_order_of_registration_decides_nothing() -> None:
    routes = [("GET", "/{x}"), ("GET", "/{x:int}"), ("GET", "/1"), ("GET", "/{x:path}")]
    for order in itertools.permutations(routes):
        router = plan_of(*order).build(not_found=None, method_not_allowed=refuse)
        found = [order[router.find("GET", path).endpoint][1] for path in (b"/1", b"/2", b"/x", b"/x/y")]
        assert found == ["/1", "/{x:int}", "/{x}", "/{x:path}"]
