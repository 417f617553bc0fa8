"""The router twins against a naive matcher: one regular expression per segment of every route, tried on every path."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature.exceptions import RouteError
from armature.routing import RoutePlan

METHOD_ORDER = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")

#: Convertors in the order of precedence, with their languages.
LANGUAGES = {
    "enum": None,
    "range": r"-?[0-9]{1,18}",
    "uuid": r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
    "uint": r"[0-9]+",
    "int": r"-?[0-9]+",
    "float": r"-?[0-9]+(?:\.[0-9]+)?",
    "alpha": r"[A-Za-z]+",
    "alnum": r"[A-Za-z0-9]+",
    "email": r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*",
    "regex": None,
    "length": None,
    "str": r".+",
}
PARAMETER = re.compile(r"\{(\w+)(?::(\w+)(?:\((.*?)\))?)?\}")


def decode(segment: bytes) -> str:
    plain = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), segment)
    return plain.decode("utf-8", "surrogateescape")


class NaiveSegment:
    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.catch_all = False
        self.checks: list[Any] = []
        fixed, ranks, regex, position = "", [], "", 0
        literals = []
        for found in PARAMETER.finditer(text):
            literal = decode(text[position : found.start()].encode())
            position = found.end()
            name, convertor, arguments = found[1], found[2] or "str", found[3]
            self.names.append(name)
            if convertor == "path":
                self.catch_all = True
                continue
            language = LANGUAGES[convertor]
            size = 0
            bounds = [int(x) for x in arguments.split(",")] if convertor in ("length", "range") else []
            if convertor == "enum":
                language, size = "|".join(map(re.escape, arguments.split("|"))), len(arguments.split("|"))
            elif convertor == "regex":
                language = arguments
            elif convertor == "length":
                language, size = f".{{{bounds[0]},{bounds[-1]}}}", bounds[-1] - bounds[0]
            elif convertor == "range":
                size = bounds[1] - bounds[0]
            self.checks.append(bounds if convertor == "range" else None)
            ranks.append((list(LANGUAGES).index(convertor), size, arguments or ""))
            fixed += literal
            literals.append(literal)
            regex += re.escape(literal) + f"((?:{language}))"
        literal = decode(text[position:].encode())
        fixed += literal
        literals.append(literal)
        self.regex = re.compile(regex + re.escape(literal), re.DOTALL)
        if not self.names:
            self.key: tuple[Any, ...] = (0, fixed)
        elif self.catch_all:
            self.key = (2,)
        else:
            self.key = (1, -len(fixed), ranks, literals)

    def match(self, text: str) -> list[str] | None:
        found = self.regex.fullmatch(text)
        if found is None or "" in found.groups():
            return None
        for value, bounds in zip(found.groups(), self.checks, strict=True):
            if bounds and not bounds[0] <= int(value) <= bounds[1]:
                return None
        return list(found.groups())


class Oracle:
    def __init__(self, routes: list[tuple[str, tuple[str, ...]]]) -> None:
        self.routes = []
        for text, methods in routes:
            # No language in these tests has a slash.
            segments = [NaiveSegment(part) for part in text.split("/")[1:]]
            names = tuple(name for segment in segments for name in segment.names)
            self.routes.append((text, methods, segments, names, [segment.key for segment in segments]))

    def find(self, method: str, raw_path: bytes) -> tuple[int, Any, tuple[str, ...], tuple[str, ...]]:
        leaves: dict[str, list[Any]] = {}
        for text, methods, segments, names, key in self.routes:
            values = self.match(segments, raw_path)
            if values is not None:
                leaves.setdefault(repr(key), [key, []])[1].append((text, methods, names, values))
        ordered = [routes for _, routes in sorted(leaves.values(), key=lambda leaf: leaf[0])]
        for routes in ordered:
            for wanted in (method, "GET" if method == "HEAD" else method, "*"):
                for text, methods, names, values in routes:
                    if wanted in methods:
                        decoded = [v.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for v in values]
                        return 0, f"{wanted} {text}", names, tuple(decoded)
        if not ordered:
            return 1, "not found", (), ()
        allow = {m for routes in ordered for route in routes for m in route[1]} | {"OPTIONS"}
        if "GET" in allow:
            allow.add("HEAD")
        known = tuple(m for m in METHOD_ORDER if m in allow) + tuple(sorted(allow - set(METHOD_ORDER)))
        return (0, ("options", known), (), ()) if method == "OPTIONS" else (2, ("refused", known), (), ())

    @staticmethod
    def match(segments: list[NaiveSegment], raw_path: bytes) -> list[str] | None:
        if not raw_path.startswith(b"/"):
            return None
        parts = [decode(part) for part in raw_path.split(b"/")[1:]]
        values: list[str] = []
        for number, segment in enumerate(segments):
            if number >= len(parts):
                return None
            if segment.catch_all:
                return [*values, "/".join(parts[number:])]
            found = segment.match(parts[number])
            if found is None:
                return None
            values += found
        return values if len(parts) == len(segments) else None


def build(router_class: type[Any], routes: list[tuple[str, tuple[str, ...]]], **options: Any) -> Any:
    plan = RoutePlan()
    for text, methods in routes:
        plan.add(text, {method: f"{method} {text}" for method in methods})
    return plan.build(
        not_found="not found",
        method_not_allowed=lambda allow: ("refused", allow),
        options=lambda allow: ("options", allow),
        router_class=router_class,
        **options,
    )


def answer(router: Any, method: str, raw_path: bytes) -> tuple[int, Any, tuple[str, ...], tuple[str, ...]]:
    found = router.find(method, raw_path)
    return found.outcome, found.endpoint, found.names, found.values


ROUTES: list[tuple[str, tuple[str, ...]]] = [
    ("/", ("GET",)),
    ("/users", ("GET", "POST")),
    ("/users/", ("GET",)),
    ("/users/me", ("GET", "PATCH")),
    ("/users/{id}", ("GET", "PUT", "DELETE")),
    ("/users/{number:int}", ("GET",)),
    ("/users/{number:uint}", ("POST",)),
    ("/users/{key:uuid}", ("GET",)),
    ("/users/{id}/posts", ("GET",)),
    ("/users/me/posts", ("POST",)),
    ("/users/{id:int}/posts/{post:int}", ("GET",)),
    ("/users/{id}/posts/{post}", ("GET", "DELETE")),
    ("/users/{id}/{rest:path}", ("GET",)),
    ("/files/{rest:path}", ("GET",)),
    ("/files/{name}.{ext}", ("GET",)),
    ("/files/{name}.js", ("GET",)),
    ("/files/report.json", ("GET",)),
    ("/files/{name}.tar.{ext}", ("GET",)),
    ("/v{major:int}", ("GET",)),
    ("/v{major:int}.{minor:int}", ("GET",)),
    ("/v1", ("POST",)),
    ("/{kind:enum(cats|dogs)}", ("GET",)),
    ("/{kind:enum(cats|dogs)}/{n:range(1,9)}", ("GET",)),
    ("/{word:alpha}", ("GET",)),
    ("/{word:alnum}", ("PUT",)),
    ("/{any}", ("DELETE",)),
    ("/café", ("GET",)),
    ("/café/{name}", ("GET",)),
    ("/a b/{x}", ("GET",)),
    ("/100%25", ("GET",)),
    ("/float/{x:float}", ("GET",)),
    ("/float/{x:int}", ("GET",)),
    ("/float/{x}", ("GET",)),
    ("/len/{x:length(2,3)}", ("GET",)),
    ("/len/{x:length(3)}", ("GET",)),
    ("/len/{x:regex([a-c]+)}", ("GET",)),
    ("/len/{x}", ("*",)),
    ("/mail/{who:email}", ("GET",)),
    ("/any", ("*", "GET")),
    ("/odd", ("PURGE", "GET")),
    ("/deep/a/b/c/d/e", ("GET",)),
    ("/deep/{x}/b/c/d/f", ("GET",)),
    ("/deep/a/{y}/c/d/g", ("GET",)),
    ("/pair/{a}-{b}", ("GET",)),
    ("/pair/{a:int}-{b:int}", ("GET",)),
    ("/pair/é{a}é", ("GET",)),
    ("/static/{rest:path}", ("GET", "POST")),
    ("/{rest:path}", ("PATCH",)),
]

WORDS = ["", "users", "files", "me", "42", "-7", "posts", "v1", "x.tar.gz", "report.json", "caf%C3%A9", "a%2Fb"]
HOSTILE = [
    b"", b"*", b"users", b"/", b"//", b"///", b"/.", b"/..", b"/./", b"/../", b"/users/..", b"/users/../me",
    b"/%2e%2e", b"/users/%2e%2e/me", b"/users%2Fme", b"/users/%2f", b"/users/%2F%2F", b"/us%65rs",
    b"/%75%73%65%72%73/me", b"/users//", b"/users//posts", b"/users/%", b"/users/%z", b"/users/%zz", b"/users/%4",
    b"/users/%%41", b"/users/%2541", b"/100%", b"/100%25", b"/100%2525", b"/caf\xc3\xa9", b"/caf%c3%A9",
    b"/caf%C3\xa9", b"/cafe", b"/caf\xe9", b"/caf%E9/x", b"/caf\xc3\xa9/\xff\xfe", b"/caf\xc3\xa9/%FF",
    b"/users/\xff", b"/users/%00", b"/users/%0A", b"/users/\xc3", b"/users/%ED%A0%80", b"/a%20b/x", b"/a b/x",
    b"/a+b/x", b"/files", b"/files/", b"/files//", b"/files/a//b/", b"/files/a%2Fb/c", b"/files/.json",
    b"/files/a.json", b"/files/a.js", b"/files/a.tar.js", b"/files/a.b.c", b"/files/a.tar.gz", b"/files/.tar.gz",
    b"/files/a.tar.", b"/files/..", b"/files/...", b"/files/%2E.json", b"/files/a%2Etar%2Egz", b"/files/\xff.\xfe",
    b"/v1", b"/v12", b"/v", b"/v-3", b"/v1.2", b"/v1.", b"/v1.2.3", b"/v%31", b"/cats", b"/dogs/3", b"/dogs/0",
    b"/dogs/x", b"/cats/%33", b"/cat", b"/catsx", b"/abc", b"/a1", b"/a_", b"/float/1", b"/float/1.5", b"/float/-1.5",
    b"/float/1.", b"/float/.5", b"/float/--1", b"/float/1e5", b"/float/-", b"/float/1.5.2", b"/float/\xd9\xa1",
    b"/len/a", b"/len/ab", b"/len/abc", b"/len/abcd", b"/len/\xc3\xa9\xc3\xa9", b"/len/\xff\xff\xff",
    b"/len/%C3%A9%C3%A9", b"/len/a%2F", b"/mail/a@b.c", b"/mail/a%40b", b"/mail/@b", b"/mail/a/b@c", b"/mail/a%2Fb@c",
    b"/deep/a/b/c/d/e", b"/deep/a/b/c/d/f", b"/deep/a/b/c/d/g", b"/deep/a/b/c/d/h", b"/deep/a/b/c/d", b"/deep/a/b",
    b"/deep/a%2Fb/b/c/d/f", b"/pair/a-b", b"/pair/1-2", b"/pair/1-2-3", b"/pair/--", b"/pair/---", b"/pair/-1--2",
    b"/pair/a-", b"/pair/-a", b"/pair/%2D%2D%2D", b"/pair/\xc3\xa9x\xc3\xa9", b"/pair/\xc3\xa9\xc3\xa9",
    b"/pair/%C3%A9x%C3%A9", b"/pair/1%2F-2", b"/pair/\xc3-\xa9", b"/users/01234567-89ab-cdef-0123-456789abcdef",
    b"/users/0123456789abcdef0123456789ABCDEF", b"/users/01234567-89ab-cdef-0123-456789abcde",
    b"/users/01234567-89ab-cdef-0123-456789abcdeg", b"/users/0123456789ab-cdef0123456789abcdef",
    b"/users/-0123456789abcdef0123456789abcdef", b"/users/01234567--89abcdef0123456789abcdef",
    b"/users/0123456789abcdef0123456789abcdef-", b"/users/" + b"9" * 5000, b"/users/" + b"%39" * 5000,
    b"/files/" + b"a/" * 3000, b"/" + b"x" * 70000,
]  # fmt: skip
CORPUS = [
    *HOSTILE,
    *(b"/" + "/".join(words).encode() for depth in (1, 2) for words in itertools.product(WORDS, repeat=depth)),
    *(b"/users/" + "/".join(words).encode() for words in itertools.product(WORDS, repeat=2)),
    *(b"/deep/" + "/".join(words).encode() for words in itertools.product("aby", "bcx", "cd", "d", "efghi")),
]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE", "get", ""]


def test_the_corpus_is_worth_its_name() -> None:
    assert len(set(CORPUS)) >= 500


@pytest.mark.parametrize("method", METHODS)
def test_corpus(impl: Any, method: str) -> None:
    router, oracle = build(impl.router.RadixRouter, ROUTES), Oracle(ROUTES)
    for path in CORPUS:
        assert answer(router, method, path) == oracle.find(method, path), (method, path[:80])


def test_the_order_of_registration_does_not_matter(impl: Any) -> None:
    oracle = Oracle(ROUTES)
    expected = [oracle.find(method, path) for method in ("GET", "POST", "HEAD") for path in CORPUS[:150]]
    for seed in range(5):
        routes = list(ROUTES)
        random.Random(seed).shuffle(routes)
        router = build(impl.router.RadixRouter, routes)
        assert [answer(router, method, path) for method in ("GET", "POST", "HEAD") for path in CORPUS[:150]] == expected


def test_without_the_table_of_fixed_paths_the_answers_are_the_same(impl: Any) -> None:
    with_table = build(impl.router.RadixRouter, ROUTES)
    without = build(impl.router.RadixRouter, ROUTES, static_table=False)
    for method in ("GET", "POST", "OPTIONS"):
        for path in CORPUS:
            assert answer(without, method, path) == answer(with_table, method, path)
    assert with_table.stats()["static_hits"] > 0
    assert without.stats()["static_hits"] == 0


def test_the_twins_count_the_same(both: Any) -> None:
    routers = [build(twins.router.RadixRouter, ROUTES) for twins in both]
    for router in routers:
        for method in METHODS:
            for path in CORPUS:
                router.find(method, path)
    assert routers[0].stats() == routers[1].stats()
    assert list(routers[0]) == list(routers[1])


SEGMENTS = st.sampled_from(
    [
        "a", "b", "ab", "1", "é", "a.b", "a b", "%25", "%7Bx", "x.y.z", "{}", "{}", "{:int}", "{:uint}", "{:float}",
        "{:alpha}", "{:alnum}", "{:uuid}", "{:str}", "{:enum(a|b)}", "{:enum(b|1)}", "{:range(1,5)}", "{:range(3,9)}",
        "{:range(1,9)}", "{:length(1,2)}", "{:length(1)}", "{:regex([ab]+)}", "{:regex([a1]+)}", "{}.{}", "{}-{}",
        "{:int}-{}", "{}.{:alpha}", "a{}", "{}b", "a{}b", "{:int}.{:int}", "{}.a.{}", "é{}", "{:length(1,2)}é{}",
        "{}.{}.{}", "v{:int}", "v{:alpha}", "{:float}x",
    ]
)  # fmt: skip
TAILS = st.sampled_from(["", "", "", "/", "/{:path}", "/{:path}"])
METHOD_SETS = st.lists(
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "*", "LINK"]), min_size=1, max_size=3, unique=True
)


@st.composite
def route_sets(draw: st.DrawFn) -> list[tuple[str, tuple[str, ...]]]:
    """Routes out of few different segments, so that they get in one another's way."""
    pool = st.sampled_from(draw(st.lists(SEGMENTS, min_size=2, max_size=6)))
    routes = []
    for _ in range(draw(st.integers(2, 14))):
        text = "".join(f"/{segment}" for segment in draw(st.lists(pool, min_size=1, max_size=3))) + draw(TAILS)
        numbers = itertools.count()
        text = re.sub(r"\{(?=[:}])", lambda _, numbers=numbers: f"{{p{next(numbers)}", text)  # type: ignore[misc]
        routes.append((text, tuple(draw(METHOD_SETS))))
    return routes


PIECES = st.sampled_from(
    [
        b"a", b"b", b"ab", b"1", b"2", b"7", b"-3", b"1.5", b"v1", b"va", b"\xc3\xa9", b"%C3%A9", b"%c3", b"\xa9",
        b"\xff", b"%FF", b".", b"-", b"a.b", b"a-b", b"a b", b"%61", b"%2F", b"%2f", b"%25", b"%", b"%z", b"x", b"{x",
        b"%7bx", b"x.y.z", b"%00", b"\n", b"%0a", b"12345678123456781234567812345678", b"%E2%82%AC",
        b"\xf0\x9f\x90\xb8",
    ]
)  # fmt: skip
PATHS = st.lists(st.lists(PIECES, max_size=2).map(b"".join), min_size=0, max_size=4).map(
    lambda segments: b"".join(b"/" + segment for segment in segments)
)
FITTING = {
    "int": [b"1", b"-3", b"7", b"42"],
    "uint": [b"1", b"7", b"%31"],
    "float": [b"1", b"1.5", b"-1.5"],
    "alpha": [b"a", b"b", b"ab", b"%61"],
    "alnum": [b"a", b"1", b"a1"],
    "uuid": [b"12345678123456781234567812345678", b"12345678-1234-5678-1234-567812345678"],
    "enum": [b"a", b"b", b"1"],
    "range": [b"1", b"3", b"5", b"9", b"-1"],
    "length": [b"a", b"1", b"ab", b"\xc3\xa9", b"%C3%A9", b"\xff"],
    "regex": [b"a", b"ab", b"ba", b"1", b"a1"],
    "path": [b"", b"a", b"a/b", b"/", b"1/", b"a%2Fb/c", b"\xff/%"],
    "str": [b"a", b"1", b"a.b", b"x-y", b"\xc3\xa9", b"%2F", b"a%2Eb", b"\xff", b"1.a", b"v1"],
}


def path_for(template: str, rng: random.Random) -> bytes:
    """A path that the template matches, or nearly."""

    def value(found: re.Match[str]) -> str:
        choice = rng.choice(FITTING["str"] if rng.random() < 0.2 else FITTING[found[2] or "str"])
        return choice.decode("latin-1")

    path = PARAMETER.sub(value, template.encode().decode("latin-1")).encode("latin-1")
    while path and rng.random() < 0.2:
        place = rng.randrange(len(path))
        byte = path[place : place + 1]
        changed = rng.choice([b"%%%02X" % byte[0] if byte not in (b"%", b"/") else byte, b"", b"/", byte * 2])
        path = path[:place] + changed + path[place + 1 :]
    return path


@settings(max_examples=150, deadline=None)
@given(
    candidates=route_sets(),
    paths=st.lists(PATHS, min_size=1, max_size=10),
    seed=st.integers(0, 2**32),
)
def test_random_routes(impl: Any, candidates: list[Any], paths: list[bytes], seed: int) -> None:
    plan = RoutePlan()
    routes = []
    for text, methods in candidates:
        try:
            plan.add(text, dict.fromkeys(methods, ""))
        except RouteError:
            continue
        routes.append((text, methods))
    rng = random.Random(seed)
    paths = paths + [path_for(rng.choice(routes)[0], rng) for _ in range(40)]
    # What stands beside one another in one order does so in every order.
    rng.shuffle(routes)
    router, oracle = build(impl.router.RadixRouter, routes), Oracle(routes)
    for path in paths:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "LINK", "PUT"):
            assert answer(router, method, path) == oracle.find(method, path), (method, path)
