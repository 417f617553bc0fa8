"""Routes are put into a tree here, checked against one another, and frozen into the twin `RadixRouter`.

The order of precedence, segment by segment from the left: fixed text, text mixed with parameters (more fixed
characters first), typed parameters (by the rank of their convertor), untyped parameters, catch-alls. The order of
registration never matters, so two routes that this order cannot tell apart are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from armature import _impl
from armature._spec.abnf import TOKEN
from armature._spec.methods import METHODS
from armature._spec.routes import (
    ANY_METHOD,
    MATCH_PIECES,
    MATCH_SPANS,
    MATCH_STR,
    MATCH_TEXT,
    MAX_METHODS,
    MAX_PARAMS,
    Edge,
    Leaf,
    Node,
    RouteTree,
    Slot,
)
from armature.exceptions import RouteError
from armature.routing.convertors import Relation
from armature.routing.patterns import Pattern, Segment, parse_pattern

__all__ = ["RegisteredRoute", "RoutePlan", "build_router"]


@dataclass(frozen=True, slots=True)
class RegisteredRoute:
    """One path with what serves it.

    Args:
        pattern: The path template.
        endpoints: One endpoint per method, upper case; `"*"` serves every method that has none.
        handler: Qualified name of the handler, for error messages.
        location: `file:line` of the handler, for error messages.
    """

    pattern: Pattern
    endpoints: Mapping[str, Any]
    handler: str | None = None
    location: str | None = None


class _Branch:
    """A node while the tree grows."""

    __slots__ = ("catch_all", "children", "leaf", "segment", "statics")

    def __init__(self, segment: Segment | None) -> None:
        self.segment = segment
        self.statics: dict[bytes, _Branch] = {}
        self.children: dict[tuple[Any, ...], _Branch] = {}
        self.leaf: _Leaf | None = None
        self.catch_all: _Leaf | None = None

    def grow(self, segment: Segment) -> _Branch:
        text = segment.text
        if text is not None:
            branch = self.statics.get(text)
            if branch is None:
                branch = self.statics[text] = _Branch(segment)
            return branch
        key = segment.key
        branch = self.children.get(key)
        if branch is None:
            branch = self.children[key] = _Branch(segment)
        return branch

    def branches(self) -> Iterator[_Branch]:
        yield from self.statics.values()
        yield from self.children.values()


class _Leaf:
    """All routes of one shape while the tree grows: one per method."""

    __slots__ = ("routes",)

    def __init__(self) -> None:
        self.routes: dict[str, RegisteredRoute] = {}


class RoutePlan:
    """Collects routes, refuses those that cannot stand beside one another, and builds the router.

    Nothing is compiled while routes are added: a mistake is reported when its route is added, and everything else
    is done by `build`.
    """

    def __init__(self) -> None:
        self._root = _Branch(None)
        self._defaults: _Branch | None = None
        self._routes: list[RegisteredRoute] = []

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[RegisteredRoute]:
        return iter(self._routes)

    def add(
        self,
        pattern: Pattern | str,
        endpoints: Mapping[str, Any],
        *,
        handler: str | None = None,
        location: str | None = None,
    ) -> RegisteredRoute:
        """Add a route.

        Args:
            pattern: The path template.
            endpoints: One endpoint per method, upper case; `"*"` serves every method that has none.
            handler: Qualified name of the handler, for error messages.
            location: `file:line` of the handler, for error messages.

        Raises:
            RouteError: The template or a method is malformed, or a route added before matches the same requests
                and the order of precedence cannot tell which goes first. The plan is then as it was.
        """
        if isinstance(pattern, str):
            pattern = parse_pattern(pattern, handler=handler, location=location)
        route = RegisteredRoute(pattern, endpoints, handler, location)
        _check_methods(route)
        self._check_conflicts(route)
        leaf = _leaf_for(self._root, pattern)
        for method in endpoints:
            leaf.routes[method] = route
        self._routes.append(route)
        return route

    def add_default(
        self,
        prefix: Pattern | str,
        endpoint: Any,
        *,
        handler: str | None = None,
        location: str | None = None,
    ) -> None:
        """Add the endpoint for paths at and below a prefix that match no route; the longest prefix wins.

        Args:
            prefix: The path template of the prefix, without a slash at its end; may have parameters.
            endpoint: What serves those paths, whatever the method.
            handler: Qualified name of the handler, for error messages.
            location: `file:line` of the handler, for error messages.

        Raises:
            RouteError: The template is malformed, ends with a catch-all, or has a default already.
        """
        if isinstance(prefix, str):
            prefix = parse_pattern(prefix, handler=handler, location=location)
        route = RegisteredRoute(prefix, {ANY_METHOD: endpoint}, handler, location)
        segments = prefix.segments
        if segments[-1].catch_all:
            raise _error(route, "a prefix must not end with a catch-all", "leave it out: everything below is meant")
        if len(prefix.names) >= MAX_PARAMS:
            raise _error(route, f"a prefix must have fewer than {MAX_PARAMS} parameters", "shorten it")
        if self._defaults is None:
            self._defaults = _Branch(None)
        branch = self._defaults
        for segment in segments[:-1] if segments[-1].text == b"" else segments:
            branch = branch.grow(segment)
        if branch.catch_all is not None:
            first = branch.catch_all.routes[ANY_METHOD]
            raise _error(route, "the prefix has a default already", _see(first))
        branch.leaf = branch.catch_all = _Leaf()
        branch.leaf.routes[ANY_METHOD] = route

    def build(
        self,
        *,
        not_found: Any,
        method_not_allowed: Callable[[tuple[str, ...]], Any],
        options: Callable[[tuple[str, ...]], Any] | None = None,
        router_class: type[Any] | None = None,
        static_table: bool = True,
    ) -> _impl.router.RadixRouter:
        """Freeze the routes into a router.

        Args:
            not_found: The endpoint for paths that match nothing.
            method_not_allowed: Makes the endpoint for paths that have no route for the method, from the methods they
                have; called once per set of methods.
            options: Makes the endpoint that answers OPTIONS where no route does, likewise; None answers it with
                the endpoint for methods not allowed.
            router_class: The twin to build; default: the one that runs.
            static_table: Whether fixed paths are answered from a table before the tree is asked.

        Raises:
            RouteError: The routes use too many different methods.
        """
        others = {method for route in self._routes for method in route.endpoints} - {*METHODS, ANY_METHOD}
        methods = (*METHODS, *sorted(others))
        if len(methods) > MAX_METHODS:
            raise RouteError(
                f"the routes use {len(methods)} different methods",
                hint=f"a router knows at most {MAX_METHODS}; serve the rest with the method {ANY_METHOD!r}",
            )
        leaves: dict[int, Leaf] = {}
        root = _freeze(self._root, leaves)
        statics: dict[bytes, Leaf] = {}
        if static_table:
            _collect_statics(root, b"", statics)
        tree = RouteTree(root, statics, methods, None if self._defaults is None else _freeze(self._defaults, leaves))
        made: _impl.router.RadixRouter = (router_class or _impl.router.RadixRouter)(
            tree, not_found, method_not_allowed, options
        )
        return made

    def _check_conflicts(self, route: RegisteredRoute) -> None:
        """Follow the branch that the route would grow on, and look at the siblings that no rule orders."""
        branch: _Branch | None = self._root
        segments = route.pattern.segments
        for number, segment in enumerate(segments):
            assert branch is not None
            if segment.catch_all:
                self._check_leaf(route, branch.catch_all)
                return
            if segment.text is None:
                for sibling in branch.children.values():
                    assert sibling.segment is not None
                    # More fixed text always goes first, so that only equals need a closer look.
                    if segment.fixed != sibling.segment.fixed:
                        continue
                    if segment.relation(sibling.segment) is Relation.UNORDERED:
                        other = _find_overlap(sibling, segments, number + 1, route)
                        if other is not None:
                            raise self._unordered(route, other, number)
                branch = branch.children.get(segment.key)
            else:
                branch = branch.statics.get(segment.text)
            if branch is None:
                return
        assert branch is not None
        self._check_leaf(route, branch.leaf)

    def _check_leaf(self, route: RegisteredRoute, leaf: _Leaf | None) -> None:
        if leaf is None:
            return
        for method in route.endpoints:
            first = leaf.routes.get(method)
            if first is not None:
                called = "any method" if method == ANY_METHOD else method
                same = "this path" if first.pattern.text == route.pattern.text else f"the same paths as {first.pattern}"
                raise _error(route, f"{called} is registered twice for {same}", _see(first))

    def _unordered(self, route: RegisteredRoute, other: RegisteredRoute, number: int) -> RouteError:
        mine, theirs = (_spell(found.pattern.segments[number]) for found in (route, other))
        return _error(
            route,
            f"some requests match both {route.pattern} and {other.pattern}, and neither goes first",
            f"{mine} and {theirs} cannot be ordered; make one of them fixed text or of another type. " + _see(other),
        )


def build_router(
    routes: Iterable[RegisteredRoute],
    *,
    not_found: Any,
    method_not_allowed: Callable[[tuple[str, ...]], Any],
    options: Callable[[tuple[str, ...]], Any] | None = None,
    defaults: Iterable[tuple[Pattern | str, Any]] = (),
    router_class: type[Any] | None = None,
) -> _impl.router.RadixRouter:
    """Build the router for a list of routes; see `RoutePlan` for the parameters.

    Args:
        routes: The routes, in any order.
        not_found: The endpoint for paths that match nothing.
        method_not_allowed: Makes the endpoint for methods that a path has no route for, from those it has.
        options: Makes the endpoint that answers OPTIONS where no route does, likewise.
        defaults: Prefixes with the endpoint for paths below them that match nothing.
        router_class: The twin to build; default: the one that runs.

    Raises:
        RouteError: Two routes match the same requests, and the order of precedence cannot tell which goes first.
    """
    plan = RoutePlan()
    for route in routes:
        plan.add(route.pattern, route.endpoints, handler=route.handler, location=route.location)
    for prefix, endpoint in defaults:
        plan.add_default(prefix, endpoint)
    return plan.build(
        not_found=not_found, method_not_allowed=method_not_allowed, options=options, router_class=router_class
    )


def _error(route: RegisteredRoute, message: str, hint: str) -> RouteError:
    return RouteError(message, pattern=route.pattern.text, handler=route.handler, location=route.location, hint=hint)


def _see(route: RegisteredRoute) -> str:
    """Name the route that was there first."""
    return "the other route is " + " ".join(
        part
        for part in (
            "/".join(route.endpoints) if ANY_METHOD not in route.endpoints else "",
            route.pattern.text,
            f"of {route.handler}" if route.handler else "",
            f"at {route.location}" if route.location else "",
        )
        if part
    )


def _spell(segment: Segment) -> str:
    return "".join(p if isinstance(p, str) else f"{{{p.name}:{p.convertor.spec}}}" for p in segment.pieces)


def _check_methods(route: RegisteredRoute) -> None:
    if not route.endpoints:
        raise _error(route, "a route must have a method", f"name one, or {ANY_METHOD!r} for all")
    methods: Iterable[object] = route.endpoints
    for method in methods:
        if method == ANY_METHOD:
            continue
        # RFC 9110 section 9.1: a method is a token.
        if not isinstance(method, str) or not method or not all(ord(c) < 128 and TOKEN[ord(c)] for c in method):
            raise _error(route, f"{method!r} is no method", "a method is a token such as 'GET'")
        if method != method.upper() and method.upper() in METHODS:
            raise _error(route, f"{method!r} is no method", f"methods are case-sensitive: write {method.upper()!r}")


def _leaf_for(root: _Branch, pattern: Pattern) -> _Leaf:
    branch = root
    for segment in pattern.segments:
        if segment.catch_all:
            if branch.catch_all is None:
                branch.catch_all = _Leaf()
            return branch.catch_all
        branch = branch.grow(segment)
    if branch.leaf is None:
        branch.leaf = _Leaf()
    return branch.leaf


def _served(methods: Iterable[str]) -> set[str]:
    served = set(methods)
    if "GET" in served:
        served.add("HEAD")
    return served


def _common(leaf: _Leaf | None, route: RegisteredRoute) -> RegisteredRoute | None:
    """Find a route of the leaf that serves a method of `route`."""
    if leaf is None:
        return None
    wanted = _served(route.endpoints)
    for method, found in leaf.routes.items():
        if ANY_METHOD in wanted or method == ANY_METHOD or wanted & _served((method,)):
            return found
    return None


def _find_overlap(
    branch: _Branch, segments: tuple[Segment, ...], number: int, route: RegisteredRoute
) -> RegisteredRoute | None:
    """Find a route below `branch` which may match a path and a method that `route` matches as well."""
    if number == len(segments):
        return _common(branch.leaf, route)
    found = _common(branch.catch_all, route)
    if found is not None:
        return found
    segment = segments[number]
    if segment.catch_all:
        return _any_below(branch, route)
    for child in branch.branches():
        assert child.segment is not None
        if segment.overlaps(child.segment):
            found = _find_overlap(child, segments, number + 1, route)
            if found is not None:
                return found
    return None


def _any_below(branch: _Branch, route: RegisteredRoute) -> RegisteredRoute | None:
    for child in branch.branches():
        found = _common(child.leaf, route) or _common(child.catch_all, route) or _any_below(child, route)
        if found is not None:
            return found
    return None


def _freeze(branch: _Branch, leaves: dict[int, Leaf]) -> Node:
    edges = [
        _freeze_edge(child, leaves)
        for child in sorted(branch.children.values(), key=lambda child: child.segment.sort_key)  # type: ignore[union-attr]
    ]
    return Node(
        {text: _freeze(child, leaves) for text, child in branch.statics.items()},
        tuple(edges),
        _freeze_leaf(branch.catch_all, leaves),
        _freeze_leaf(branch.leaf, leaves),
    )


def _freeze_edge(branch: _Branch, leaves: dict[int, Leaf]) -> Edge:
    segment = branch.segment
    assert segment is not None
    node = _freeze(branch, leaves)
    params = segment.params
    literals = tuple(literal.encode("utf-8") for literal in segment.literals)
    kinds = [param.convertor.kind for param in params]
    if len(params) == 1:
        matcher = params[0].convertor.matches if kinds[0] == MATCH_TEXT else None
        return Edge(kinds[0], literals[0], literals[1], matcher, 1, node)
    if all(kind == MATCH_STR for kind in kinds):
        return Edge(MATCH_PIECES, literals[0], literals[-1], literals[1:-1], len(params), node)
    return Edge(MATCH_SPANS, b"", b"", segment.spans, len(params), node)


def _freeze_leaf(leaf: _Leaf | None, leaves: dict[int, Leaf]) -> Leaf | None:
    if leaf is None:
        return None
    frozen = leaves.get(id(leaf))
    if frozen is None:
        slots = {method: Slot(route.endpoints[method], route.pattern.names) for method, route in leaf.routes.items()}
        if "GET" in slots and "HEAD" not in slots:
            # RFC 9110 section 9.3.2: HEAD is GET without the content.
            slots["HEAD"] = slots["GET"]
        pattern = next(iter(leaf.routes.values())).pattern.text
        frozen = leaves[id(leaf)] = Leaf(pattern, slots)
    return frozen


def _collect_statics(node: Node, path: bytes, statics: dict[bytes, Leaf]) -> None:
    for text, child in node.statics.items():
        # What holds a percent sign has to be compared decoded.
        if b"%" in text:
            continue
        whole = path + b"/" + text
        if child.leaf is not None:
            statics[whole] = child.leaf
        _collect_statics(child, whole, statics)
