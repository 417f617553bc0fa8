"""The router twins by example: what is found, what answers otherwise, and what is kept in memory."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import sys
import tracemalloc
import weakref
from typing import Any

import pytest

from armature._spec.routes import MAX_PARAMS, NATIVE_REGEX
from armature.routing import Convertor, RoutePlan, convertors, register_convertor


@pytest.fixture(autouse=True)
def _registered_convertors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convertors, "_REGISTRY", dict(convertors._REGISTRY))


def build(impl: Any, routes: dict[str, Any], **options: Any) -> Any:
    """A router whose endpoints are strings; `routes` maps templates to a method or several."""
    plan = RoutePlan()
    for text, methods in routes.items():
        methods = methods.split() if isinstance(methods, str) else methods
        plan.add(text, {method: f"{method} {text}" for method in methods})
    for prefix in options.pop("defaults", ()):
        plan.add_default(prefix, f"default {prefix}")
    options = {
        "not_found": "404",
        "method_not_allowed": lambda allow: ("405", *allow),
        "options": lambda allow: ("OPTIONS", *allow),
    } | options
    return plan.build(router_class=impl.router.RadixRouter, **options)


def answer(router: Any, method: str, path: bytes) -> Any:
    found = router.find(method, path)
    return found.endpoint, dict(zip(found.names, found.values, strict=True))


#: Every template that matches the path, the best first.
PRECEDENCE = {
    b"/users/42": [
        "/users/42", "/users/4{rest}", "/users/{x}2", "/users/{x:enum(42|43)}", "/users/{x:range(1,50)}",
        "/users/{x:range(1,99)}", "/users/{x:uint}", "/users/{x:int}", "/users/{x:float}", "/users/{x:alnum}",
        "/users/{x:regex([0-9]+)}", "/users/{x:length(2)}", "/users/{x:length(1,9)}", "/users/{x}", "/users/{x:path}",
        "/{x}/42", "/{x}/{y}", "/{x:path}",
    ],
    b"/files/report.tar.gz": [
        "/files/report.tar.gz", "/files/report.{ext}", "/files/{name}.tar.{ext}", "/files/{name}.gz",
        "/files/{name}.{ext}", "/files/{name}", "/files/{name:path}",
    ],
    b"/a/ada@example.org": ["/a/{x}@example.org", "/a/{x:email}", "/a/{x:str}"],
    b"/a/01234567-89ab-cdef-0123-456789abcdef": ["/a/{x:uuid}", "/a/{x:length(36)}", "/a/{x}"],
    b"/a/word": ["/a/{x:alpha}", "/a/{x:alnum}", "/a/{x}"],
}  # fmt: skip


@pytest.mark.parametrize("path", PRECEDENCE, ids=bytes.decode)
def test_precedence(impl: Any, path: bytes) -> None:
    templates = PRECEDENCE[path]
    if "{x}2" in "".join(templates):
        # As much fixed text as "4{rest}": the two cannot stand side by side.
        templates = [text for text in templates if text != "/users/{x}2"]
    for best in range(len(templates)):
        router = build(impl, dict.fromkeys(reversed(templates[best:]), "GET"))
        assert router.find("GET", path).endpoint == f"GET {templates[best]}"


def test_one_shape_may_name_its_parameters_differently_per_method(impl: Any) -> None:
    router = build(impl, {"/users/{id}": "GET", "/users/{name}": "POST"})
    assert answer(router, "GET", b"/users/x") == ("GET /users/{id}", {"id": "x"})
    assert answer(router, "POST", b"/users/x") == ("POST /users/{name}", {"name": "x"})


def test_a_less_specific_route_serves_the_methods_that_the_best_one_has_not(impl: Any) -> None:
    router = build(impl, {"/users/me": "GET", "/users/{id}": "GET DELETE", "/{rest:path}": "PATCH"})
    assert answer(router, "GET", b"/users/me") == ("GET /users/me", {})
    assert answer(router, "DELETE", b"/users/me") == ("DELETE /users/{id}", {"id": "me"})
    assert answer(router, "PATCH", b"/users/me") == ("PATCH /{rest:path}", {"rest": "users/me"})
    assert answer(router, "PUT", b"/users/me") == (("405", "GET", "HEAD", "DELETE", "OPTIONS", "PATCH"), {})
    assert answer(router, "PUT", b"/users") == (("405", "OPTIONS", "PATCH"), {})


def test_head_is_served_by_get(impl: Any) -> None:
    router = build(impl, {"/a": "GET", "/b": "GET HEAD", "/c": "POST", "/a/{x}": "GET"})
    assert answer(router, "HEAD", b"/a") == ("GET /a", {})
    assert answer(router, "HEAD", b"/a/1") == ("GET /a/{x}", {"x": "1"})
    assert answer(router, "HEAD", b"/b") == ("HEAD /b", {})
    assert answer(router, "HEAD", b"/c") == (("405", "POST", "OPTIONS"), {})


def test_options_is_answered_unless_a_route_does(impl: Any) -> None:
    router = build(impl, {"/a": "GET", "/b": "OPTIONS", "/c/{x}": "POST"})
    assert answer(router, "OPTIONS", b"/a") == (("OPTIONS", "GET", "HEAD", "OPTIONS"), {})
    assert router.find("OPTIONS", b"/a").outcome == 0
    assert answer(router, "OPTIONS", b"/b") == ("OPTIONS /b", {})
    assert answer(router, "OPTIONS", b"/c/1") == (("OPTIONS", "POST", "OPTIONS"), {})
    assert answer(router, "OPTIONS", b"/d") == ("404", {})


def test_without_an_answer_to_options_it_is_a_method_like_others(impl: Any) -> None:
    router = build(impl, {"/a": "GET"}, options=None)
    found = router.find("OPTIONS", b"/a")
    assert (found.outcome, found.endpoint) == (2, ("405", "GET", "HEAD"))


def test_any_method(impl: Any) -> None:
    router = build(impl, {"/a/{x:path}": "* GET", "/a/b": "POST"})
    assert answer(router, "GET", b"/a/b") == ("GET /a/{x:path}", {"x": "b"})
    assert answer(router, "HEAD", b"/a/b") == ("GET /a/{x:path}", {"x": "b"})
    assert answer(router, "POST", b"/a/b") == ("POST /a/b", {})
    for method in ("PURGE", "OPTIONS", "PUT", "brew"):
        assert answer(router, method, b"/a/b") == ("* /a/{x:path}", {"x": "b"})


def test_methods_are_tokens_and_case_sensitive(impl: Any) -> None:
    router = build(impl, {"/a": "GET PURGE M-SEARCH"})
    assert answer(router, "PURGE", b"/a") == ("PURGE /a", {})
    assert answer(router, "M-SEARCH", b"/a") == ("M-SEARCH /a", {})
    for method in ("purge", "get", "LINK", "*", "", "\u0130"):
        assert answer(router, method, b"/a") == (("405", "GET", "HEAD", "OPTIONS", "M-SEARCH", "PURGE"), {})


def test_defaults_of_prefixes(impl: Any) -> None:
    router = build(
        impl,
        {"/api/users": "GET", "/api/v1/{x}": "GET", "/{x:alpha}/y": "GET"},
        defaults=["/api", "/api/v1", "/u/{user}/{n:int}"],
    )
    expected = {
        b"/": ("404", {}),
        b"/apix": ("404", {}),
        b"/api": ("default /api", {}),
        b"/api/": ("default /api", {}),
        b"/api/zzz/y": ("default /api", {}),
        b"/api/v1": ("default /api/v1", {}),
        b"/api/v1/": ("default /api/v1", {}),
        b"/api/%761/a/b": ("default /api/v1", {}),
        b"/u/x/1": ("default /u/{user}/{n:int}", {"user": "x", "n": "1"}),
        b"/u/%C3%A9/1/y/z": ("default /u/{user}/{n:int}", {"user": "é", "n": "1"}),
        b"/u/x/y": ("404", {}),
        b"api": ("404", {}),
        b"*": ("404", {}),
    }
    for path, wanted in expected.items():
        assert answer(router, "POST", path) == wanted, path
        assert router.find("POST", path).outcome == 1
    assert answer(router, "POST", b"/api/users")[0][0] == "405"


def test_a_default_for_everything_stands_in_for_not_found(impl: Any) -> None:
    router = build(impl, {"/a": "GET"}, defaults=["/"])
    assert answer(router, "GET", b"/zz/y") == ("default /", {})


def test_as_many_parameters_as_allowed(impl: Any) -> None:
    most = "".join(f"/{{p{n}}}" for n in range(MAX_PARAMS - 1))
    router = build(impl, {most + "/{rest:path}": "GET"}, defaults=[most])
    path = b"".join(b"/%d" % n for n in range(MAX_PARAMS - 1))
    found = router.find("GET", path + b"/a/b")
    assert found.values == (*map(str, range(MAX_PARAMS - 1)), "a/b")
    assert len(router.find("GET", path).values) == MAX_PARAMS - 1


def test_backtracking_forgets_the_parameters_of_a_blind_alley(impl: Any) -> None:
    router = build(impl, {"/a/{x:int}/{y:int}/end": "GET", "/a/{x:int}/b": "GET", "/{p}/{q}/{rest:path}": "GET"})
    assert answer(router, "GET", b"/a/1/2/nope") == ("GET /{p}/{q}/{rest:path}", {"p": "a", "q": "1", "rest": "2/nope"})
    assert answer(router, "GET", b"/a/1/2/end") == ("GET /a/{x:int}/{y:int}/end", {"x": "1", "y": "2"})


def test_values_are_decoded(impl: Any) -> None:
    router = build(impl, {"/x/{v}": "GET", "/p/{v:path}": "GET"})
    expected = {
        b"/x/caf\xc3\xa9": "café",
        b"/x/caf%C3%A9": "café",
        b"/x/a%2Fb": "a/b",
        b"/x/%2f": "/",
        b"/x/%25": "%",
        b"/x/%2541": "%41",
        b"/x/%zz%4": "%zz%4",
        b"/x/\xff": "\ufffd",
        b"/x/%FF%2F": "\ufffd/",
        b"/x/%F0%9F%90%B8": "\U0001f438",
        b"/x/%F0%9F%90": "\ufffd",
        b"/x/%ED%A0%80": "\ufffd\ufffd\ufffd",
        b"/x/%00": "\0",
        b"/x/a+b": "a+b",
        b"/p/": "",
        b"/p/a//b/": "a//b/",
        b"/p/a%2Fb/%2F/%zz": "a/b///%zz",
    }
    for path, value in expected.items():
        assert answer(router, "GET", path)[1] == {"v": value}, path


@pytest.mark.parametrize("size", [1023, 1024, 1025, 70_000])
def test_long_encoded_paths(impl: Any, size: int) -> None:
    router = build(impl, {"/x/{v}": "GET"})
    encoded = b"/x/" + b"%41" + b"y" * (size - 6)
    assert len(encoded) == size
    assert answer(router, "GET", encoded) == ("GET /x/{v}", {"v": "A" + "y" * (size - 6)})
    assert router.find("GET", b"/y" + encoded).outcome == 1


NATIVE = ["str", "int", "uint", "float", "alpha", "alnum", "uuid"]


@pytest.mark.parametrize("kind", range(len(NATIVE)), ids=NATIVE)
def test_native_kinds_take_what_their_expression_says(impl: Any, kind: int) -> None:
    name = NATIVE[kind]
    router = build(impl, {f"/{{v:{name}}}": "GET", f"/mixed/{{v:{name}}}x": "GET"})
    language = re.compile(NATIVE_REGEX[kind], re.DOTALL)
    uuid = b"01234567-89ab-cdef-0123-456789abcdef"
    words = [bytes([byte]) for byte in range(256) if byte not in b"/%"]
    words += [first + second for first in words[::5] for second in words[::3]]
    words += [b"-", b"--1", b"-1", b"1-", b"1.", b".1", b"1.1", b"-1.5", b"-.5", b"1.1.1", b"1.-1", b"00", b"1" * 400]
    extras = (b"", b"-", b"a", b"g")
    words += [uuid[:n] + extra + uuid[n + cut :] for n in range(37) for extra in extras for cut in (0, 1)]
    words += [uuid.replace(b"-", b""), uuid.replace(b"-", b"", 2), uuid.upper()]
    for word in words:
        fits = language.fullmatch(word) is not None
        assert (router.find("GET", b"/" + word).outcome == 0) == fits, word
        assert (router.find("GET", b"/mixed/" + word + b"x").outcome == 0) == fits, word


class Shouting(Convertor[str]):
    regex = "[A-Z]+"

    def accepts(self, text: str) -> bool:
        if text == "BOOM":
            raise ZeroDivisionError("boom")
        return text != "NO"


def test_convertors_of_ones_own(impl: Any) -> None:
    register_convertor("shouting", Shouting)
    router = build(
        impl, {"/{v:shouting}": "GET", "/{v}": "GET", "/{a:shouting}-{b:shouting}": "GET", "/x/{v:shouting}": "GET"}
    )
    assert answer(router, "GET", b"/HEY") == ("GET /{v:shouting}", {"v": "HEY"})
    assert answer(router, "GET", b"/HEY%59") == ("GET /{v:shouting}", {"v": "HEYY"})
    assert answer(router, "GET", b"/NO") == ("GET /{v}", {"v": "NO"})
    assert answer(router, "GET", b"/A-B") == ("GET /{a:shouting}-{b:shouting}", {"a": "A", "b": "B"})
    assert answer(router, "GET", b"/A-NO") == ("GET /{v}", {"v": "A-NO"})
    for path in (b"/BOOM", b"/A-BOOM", b"/%42OOM", b"/x/BOOM"):
        with pytest.raises(ZeroDivisionError, match=r"^boom$"):
            router.find("GET", path)
    # Nothing is left behind by an exception.
    assert router.stats() == {"static_hits": 0, "tree_hits": 5, "not_allowed": 0, "misses": 0}
    assert answer(router, "GET", b"/x/HEY") == ("GET /x/{v:shouting}", {"v": "HEY"})


def test_a_convertor_may_ask_the_router_again(impl: Any) -> None:
    class Nested(Convertor[str]):
        def accepts(self, text: str) -> bool:
            return answer(router, "GET", b"/plain/%41/" + text.encode()) == (
                "GET /plain/{a}/{b}",
                {"a": "A", "b": text},
            )

    register_convertor("nested", Nested)
    router = build(impl, {"/{a}/x/{v:nested}": "GET", "/plain/{a}/{b}": "GET"})
    assert answer(router, "GET", b"/q/x/y") == ("GET /{a}/x/{v:nested}", {"a": "q", "v": "y"})
    assert answer(router, "GET", b"/%51/x/y") == ("GET /{a}/x/{v:nested}", {"a": "Q", "v": "y"})


def test_characters_beyond_ascii_between_several_parameters(impl: Any) -> None:
    router = build(impl, {"/{a:length(1,3)}→{b:int}": "GET", "/x/{a}→{b}é{c}": "GET"})
    assert answer(router, "GET", "/éa→7".encode())[1] == {"a": "éa", "b": "7"}
    assert answer(router, "GET", b"/\xff\xfe" + "→7".encode())[1] == {"a": "\ufffd\ufffd", "b": "7"}
    assert answer(router, "GET", "/x/→→éé→béé".encode())[1] == {"a": "→→éé", "b": "b", "c": "é"}
    assert answer(router, "GET", "/x/a→bé".encode())[0] == "404"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"GET", b"/"), "method must be str, not bytes"),
        ((None, b"/"), "method must be str, not NoneType"),
        (("GET", "/"), "raw_path must be bytes, not str"),
        (("GET", bytearray(b"/")), "raw_path must be bytes, not bytearray"),
        (("GET", None), "raw_path must be bytes, not NoneType"),
    ],
)
def test_arguments_of_another_type(impl: Any, arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        build(impl, {"/": "GET"}).find(*arguments)
    assert str(caught.value) == message


def test_arguments_by_keyword_and_of_subclasses(impl: Any) -> None:
    class Text(str):
        __slots__ = ()

    class Octets(bytes):
        pass

    router = build(impl, {"/a": "GET", "/b/{x}": "GET"})
    assert router.find(method="GET", raw_path=b"/a").endpoint == "GET /a"
    assert router.find(Text("GET"), Octets(b"/b/1")).values == ("1",)
    assert router.find(Text("GET"), Octets(b"/a")).outcome == 0


def test_an_empty_router(impl: Any) -> None:
    router = build(impl, {})
    for path in (b"", b"/", b"/a", b"/%41", b"*"):
        assert (router.find("GET", path).outcome, router.find("GET", path).endpoint) == (1, "404")
    assert len(router) == 0
    assert list(router) == []


def test_length_iteration_and_repr(impl: Any) -> None:
    router = build(impl, {"/a": "GET", "/a/{x}": "POST PURGE", "/{rest:path}": "*"})
    assert len(router) == 3
    assert list(router) == [("/a", ("GET", "HEAD")), ("/a/{x}", ("POST", "PURGE")), ("/{rest:path}", ("*",))]
    assert repr(router) == "<RadixRouter of 3 paths>"
    assert repr(router.find("GET", b"/a")) == "RouteMatch(outcome=0, endpoint='GET /a', names=(), values=())"


def test_counters(impl: Any) -> None:
    router = build(impl, {"/a": "GET", "/b/{x}": "GET"})
    for path in (b"/a", b"/a", b"/%61", b"/b/1", b"/b", b"nonsense", b"*"):
        router.find("GET", path)
    router.find("OPTIONS", b"/a")
    router.find("PUT", b"/a")
    router.find("PUT", b"/b/2")
    assert router.stats() == {"static_hits": 2, "tree_hits": 3, "not_allowed": 2, "misses": 3}


def test_a_router_cannot_be_changed_subclassed_or_pickled(impl: Any) -> None:
    router = build(impl, {"/a": "GET"})
    with pytest.raises(AttributeError):
        router.anything = 1
    for attempt in (lambda: pickle.dumps(router), lambda: copy.copy(router)):
        with pytest.raises(TypeError, match=r"^cannot pickle 'RadixRouter' object$"):
            attempt()
    for name in ("RadixRouter", "RouteMatch"):
        base = getattr(impl.router, name)
        with pytest.raises(TypeError) as caught:
            type("Derived", (base,), {})
        assert str(caught.value) == f"type '{base.__module__}.{name}' is not an acceptable base type"


def test_the_endpoints_for_refused_methods_are_made_once_per_set_and_at_the_start(impl: Any) -> None:
    made: list[tuple[str, ...]] = []

    def refuse(allow: tuple[str, ...]) -> tuple[str, ...]:
        made.append(allow)
        return allow

    routes = {f"/a{n}": "GET" for n in range(50)} | {f"/b{n}/{{x}}": "POST" for n in range(50)}
    routes |= {"/c/{x:int}": "PUT", "/c/{x:regex(.)}": "PATCH", "/d": "*"}
    router = build(impl, routes, method_not_allowed=refuse, options=None)
    assert sorted(made) == [("GET", "HEAD"), ("PATCH",), ("POST",), ("PUT",)]
    # Only here do two routes overlap that nothing orders beforehand.
    for n in range(1000):
        assert router.find("GET", b"/c/%d" % (n % 10)).endpoint == ("PUT", "PATCH")
        assert router.find("GET", b"/b7/%d" % n).endpoint is router.find("GET", b"/b8/%d" % n).endpoint
    assert made.count(("PUT", "PATCH")) == 1
    assert len(made) == 5


def test_an_error_while_such_an_endpoint_is_made_is_not_swallowed(impl: Any) -> None:
    def refuse(allow: tuple[str, ...]) -> str:
        raise ZeroDivisionError(*allow)

    with pytest.raises(ZeroDivisionError, match="PUT"):
        build(impl, {"/a": "PUT"}, method_not_allowed=refuse)


class Knot:
    """Holds the router that holds it."""

    router: Any


class Refusal:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __call__(self, allow: tuple[str, ...]) -> object:
        return self.answer


def test_a_router_is_collected_with_the_cycle_it_is_part_of(impl: Any) -> None:
    knot = Knot()
    plan = RoutePlan()
    plan.add("/a/{x}", {"GET": knot})
    knot.router = plan.build(not_found=knot, method_not_allowed=Refusal(knot), router_class=impl.router.RadixRouter)
    router, other = weakref.ref(knot.router), weakref.ref(knot)
    del knot, plan
    gc.collect()
    assert router() is None
    assert other() is None


def test_a_finalizer_may_still_ask_the_router(impl: Any) -> None:
    asked = []

    class Last(Knot):
        def __del__(self) -> None:
            asked.append(self.router.find("GET", b"/a/1").endpoint is self)

    knot = Last()
    plan = RoutePlan()
    plan.add("/a/{x}", {"GET": knot})
    knot.router = plan.build(
        not_found=None, method_not_allowed=lambda allow: None, router_class=impl.router.RadixRouter
    )
    del knot, plan
    gc.collect()
    assert asked == [True]


def test_endpoints_are_neither_leaked_nor_lost(impl: Any) -> None:
    knot = Knot()
    before = sys.getrefcount(knot)
    plan = RoutePlan()
    plan.add("/a", {"GET": knot})
    plan.add("/b/{x}/{y}", {"GET": knot})
    router = plan.build(not_found=knot, method_not_allowed=lambda allow: knot, router_class=impl.router.RadixRouter)
    del plan
    for path in (b"/a", b"/b/1/2", b"/b/%31/2", b"/c", b"/%63"):
        for method in ("GET", "PUT"):
            for _ in range(100):
                router.find(method, path)
    del router
    gc.collect()
    assert sys.getrefcount(knot) == before


def test_paths_that_clients_choose_leave_nothing_behind(impl: Any) -> None:
    router = build(impl, {"/a": "GET", "/b/{x}": "GET", "/c/{x:int}/{y}.{z}": "GET"}, defaults=["/d"])
    shapes = [b"/b/%d", b"/%d", b"/b/%%41%d", b"/c/%d/x.y", b"/d/%d", b"/a%d"]

    def ask(first: int) -> None:
        for n in range(first, first + 2000):
            for shape in shapes:
                router.find("GET", shape % n)
                router.find(f"X{n}", shape % n)

    ask(0)
    tracemalloc.start()
    try:
        ask(0)
        before = tracemalloc.get_traced_memory()[0]
        ask(10_000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 4096


def table(count: int) -> dict[str, str]:
    return {f"/api/v1/resource{n}/{{id:int}}/part/{{part}}": "GET" for n in range(count)}


def test_the_cost_of_a_match_does_not_depend_on_the_number_of_routes() -> None:
    from armature._pure import router as pure

    def calls(count: int, number: int) -> int:
        router = build(type("Pure", (), {"router": pure}), table(count))
        seen = 0

        def note(frame: Any, event: str, argument: Any) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            router.find("GET", b"/api/v1/resource%d/7/part/x" % number)
        finally:
            sys.setprofile(None)
        return seen

    assert calls(10, 0) == calls(500, 0) == calls(500, 499)


def test_memory_beside_a_list_of_regular_expressions(impl: Any) -> None:
    def size(make: Any) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            made = make()
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert made is not None
        return taken

    routes = table(300)
    build(impl, routes)  # what is made once for all
    regexes = size(
        lambda: [re.compile(f"/api/v1/resource{n}/(?P<id>-?[0-9]+)/part/(?P<part>[^/]+)") for n in range(300)]
    )
    re.purge()
    share = size(lambda: build(impl, routes)) / regexes
    assert share < (0.7 if impl.compiled else 2)
