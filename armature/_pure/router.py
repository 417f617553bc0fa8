"""From method and raw path to the endpoint: a frozen tree with one level per segment, and a table of fixed paths.

`armature.routing.plan` builds the tree; nothing is ever added to a router.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, final
from urllib.parse import unquote_to_bytes

from armature._spec.routes import (
    ANY_METHOD,
    MATCH_PIECES,
    MATCH_SPANS,
    MATCH_STR,
    MATCH_TEXT,
    NATIVE_REGEX,
    Edge,
    Leaf,
    Node,
    RouteTree,
    Slot,
)

__all__ = ["FOUND", "METHOD_NOT_ALLOWED", "NOT_FOUND", "RadixRouter", "RouteMatch", "stats"]

FOUND = 0
NOT_FOUND = 1
METHOD_NOT_ALLOWED = 2

#: Takes a segment and returns the values of its parameters, or None if the segment does not fit.
Splitter = Callable[[bytes], "tuple[bytes, ...] | list[bytes] | None"]


@final
class RouteMatch:
    """What `RadixRouter.find` found.

    Args:
        outcome: `FOUND`, `NOT_FOUND` or `METHOD_NOT_ALLOWED`.
        endpoint: The route's endpoint, or the one that answers for the outcome.
        names: The names of the path parameters.
        values: Their values, percent-decoded; octets that are no UTF-8 become U+FFFD.
    """

    __slots__ = ("endpoint", "names", "outcome", "values")

    def __init__(self, outcome: int, endpoint: Any, names: tuple[str, ...], values: tuple[str, ...]) -> None:
        self.outcome = outcome
        self.endpoint = endpoint
        self.names = names
        self.values = values

    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError(f"type '{__name__}.RouteMatch' is not an acceptable base type")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("outcome", "endpoint", "names", "values"))
        return f"RouteMatch({fields})"


class _Leaf:
    __slots__ = ("any", "mask", "slots")

    def __init__(self, leaf: Leaf, bits: dict[str, int]) -> None:
        self.slots = {method: slot for method, slot in leaf.slots.items() if method != ANY_METHOD}
        self.any = leaf.slots.get(ANY_METHOD)
        self.mask = 0
        for method in self.slots:
            self.mask |= bits[method]


class _Node:
    __slots__ = ("catch_all", "edges", "leaf", "single", "statics")

    def __init__(self) -> None:
        self.statics: dict[bytes, _Node] = {}
        # (fullmatch, split, node): groups of the one, values of the other, or the segment itself if there is neither.
        self.edges: tuple[tuple[Callable[[bytes], re.Match[bytes] | None] | None, Splitter | None, _Node], ...] = ()
        self.catch_all: _Leaf | None = None
        self.leaf: _Leaf | None = None
        #: Nothing but fixed text can follow.
        self.single = True


#: All routers together.
_counters = {"static_hits": 0, "tree_hits": 0, "not_allowed": 0, "misses": 0}


@final
class RadixRouter:
    """Finds the endpoint for a method and a raw path; build it with `armature.routing.RoutePlan`.

    Args:
        tree: The routes.
        not_found: The endpoint for paths that match nothing.
        method_not_allowed: Makes the endpoint for methods that a path has no route for, from those it has.
        options: Makes the endpoint that answers OPTIONS where no route does, likewise; may be None.
    """

    __slots__ = (
        "__weakref__",
        "_bits",
        "_defaults",
        "_leaves",
        "_make_options",
        "_make_refusal",
        "_methods",
        "_misses",
        "_not_allowed",
        "_not_found",
        "_options",
        "_refusals",
        "_root",
        "_static_hits",
        "_statics",
        "_tree_hits",
    )

    def __init__(
        self,
        tree: RouteTree,
        not_found: Any,
        method_not_allowed: Callable[[tuple[str, ...]], Any],
        options: Callable[[tuple[str, ...]], Any] | None = None,
    ) -> None:
        self._methods = tree.methods
        self._bits = {method: 1 << number for number, method in enumerate(tree.methods)}
        self._not_found = not_found
        self._make_refusal = method_not_allowed
        self._make_options = options
        # Endpoints per set of methods. A set that only overlapping routes bring about is added when it is first met;
        # there are no more of them than the routes allow, whatever clients ask for.
        self._refusals: dict[int, Any] = {}
        self._options: dict[int, Any] = {}
        frozen: dict[int, _Leaf] = {}
        leaves: list[Leaf] = []
        self._root = self._freeze(tree.root, frozen, leaves)
        self._statics = {path: frozen[id(leaf)] for path, leaf in tree.statics.items()}
        self._leaves = tuple([(leaf.pattern, tuple(leaf.slots)) for leaf in leaves])
        self._defaults = None if tree.defaults is None else self._freeze(tree.defaults, frozen, [])
        self._static_hits = self._tree_hits = self._misses = self._not_allowed = 0

    def _freeze(self, node: Node, frozen: dict[int, _Leaf], leaves: list[Leaf]) -> _Node:
        made = _Node()
        made.leaf = self._freeze_leaf(node.leaf, frozen, leaves)
        made.statics = {text: self._freeze(child, frozen, leaves) for text, child in node.statics.items()}
        made.edges = tuple((*_splitter(edge), self._freeze(edge.node, frozen, leaves)) for edge in node.edges)
        made.catch_all = self._freeze_leaf(node.catch_all, frozen, leaves)
        made.single = not made.edges and made.catch_all is None
        return made

    def _freeze_leaf(self, leaf: Leaf | None, frozen: dict[int, _Leaf], leaves: list[Leaf]) -> _Leaf | None:
        if leaf is None:
            return None
        made = frozen.get(id(leaf))
        if made is None:
            made = frozen[id(leaf)] = _Leaf(leaf, self._bits)
            leaves.append(leaf)
            if made.any is None:
                self._refuse("", made.mask)
                if "OPTIONS" not in made.slots:
                    self._refuse("OPTIONS", made.mask)
        return made

    def find(self, method: str, raw_path: bytes) -> RouteMatch:
        """Find the endpoint for a request.

        Args:
            method: The method, as received.
            raw_path: The path of the target, undecoded, without the query.

        Raises:
            TypeError: An argument is of another type.
        """
        if not isinstance(method, str):
            raise TypeError(f"method must be str, not {type(method).__name__}")
        if not isinstance(raw_path, bytes):
            raise TypeError(f"raw_path must be bytes, not {type(raw_path).__name__}")
        leaf = self._statics.get(raw_path)
        if leaf is not None:
            slot = leaf.slots.get(method) or leaf.any
            if slot is not None:
                self._static_hits += 1
                _counters["static_hits"] += 1
                return RouteMatch(FOUND, slot.endpoint, slot.names, ())
        segments = raw_path.split(b"/")
        if segments[0] or len(segments) == 1:
            # Every route begins with a slash; `*` and an empty path do not.
            self._misses += 1
            _counters["misses"] += 1
            return RouteMatch(NOT_FOUND, self._not_found, (), ())
        if b"%" in raw_path:
            segments = [unquote_to_bytes(segment) for segment in segments]
        values: list[bytes] = []
        missed: list[int] = []
        slot = _walk(self._root, segments, 1, method, values, missed)
        if slot is not None:
            self._tree_hits += 1
            _counters["tree_hits"] += 1
            return RouteMatch(FOUND, slot.endpoint, slot.names, tuple([v.decode("utf-8", "replace") for v in values]))
        if missed:
            mask = 0
            for bits in missed:
                mask |= bits
            if method == "OPTIONS" and self._make_options is not None:
                self._tree_hits += 1
                _counters["tree_hits"] += 1
                return RouteMatch(FOUND, self._refuse(method, mask), (), ())
            self._not_allowed += 1
            _counters["not_allowed"] += 1
            return RouteMatch(METHOD_NOT_ALLOWED, self._refuse("", mask), (), ())
        self._misses += 1
        _counters["misses"] += 1
        if self._defaults is not None:
            slot = _walk(self._defaults, segments, 1, "", values, missed)
            if slot is not None:
                # The catch-all of a default has no name.
                found = tuple([v.decode("utf-8", "replace") for v in values[: len(slot.names)]])
                return RouteMatch(NOT_FOUND, slot.endpoint, slot.names, found)
        return RouteMatch(NOT_FOUND, self._not_found, (), ())

    def _refuse(self, method: str, mask: int) -> Any:
        """Return the endpoint that answers OPTIONS, or refuses the method, on a path with these methods."""
        make, made = self._make_refusal, self._refusals
        if method == "OPTIONS" and self._make_options is not None:
            make, made = self._make_options, self._options
        if mask in made:
            return made[mask]
        allowed = mask | self._bits["OPTIONS"] if self._make_options is not None else mask
        endpoint = made[mask] = make(tuple([name for name, bit in self._bits.items() if allowed & bit]))
        return endpoint

    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError(f"type '{__name__}.RadixRouter' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'RadixRouter' object")

    def stats(self) -> dict[str, int]:
        """Count the requests: fixed paths found in the table, paths found in the tree, methods refused, misses."""
        return {
            "static_hits": self._static_hits,
            "tree_hits": self._tree_hits,
            "not_allowed": self._not_allowed,
            "misses": self._misses,
        }

    def __len__(self) -> int:
        return len(self._leaves)

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Go through the paths: the template and the methods served."""
        return iter(self._leaves)

    def __repr__(self) -> str:
        return f"<RadixRouter of {len(self._leaves)} paths>"


def _splitter(edge: Edge) -> tuple[Callable[[bytes], re.Match[bytes] | None] | None, Splitter | None]:
    """Make what decides whether a segment fits an edge."""
    prefix, suffix, matcher = edge.prefix, edge.suffix, edge.matcher
    if edge.kind < len(NATIVE_REGEX):
        if edge.kind == MATCH_STR and not prefix and not suffix:
            return None, None
        language = re.escape(prefix) + b"(" + NATIVE_REGEX[edge.kind] + b")" + re.escape(suffix)
        return re.compile(language, re.DOTALL).fullmatch, None
    before, behind = len(prefix), len(suffix)
    fixed = before + behind

    if edge.kind == MATCH_TEXT:
        assert callable(matcher)

        def text(segment: bytes) -> tuple[bytes, ...] | None:
            if len(segment) <= fixed or not segment.startswith(prefix) or not segment.endswith(suffix):
                return None
            inner = segment[before : len(segment) - behind]
            return (inner,) if matcher(inner.decode("utf-8", "surrogateescape")) else None

        return None, text

    if edge.kind == MATCH_PIECES:
        assert isinstance(matcher, tuple)
        literals = matcher[::-1]

        def pieces(segment: bytes) -> list[bytes] | None:
            if len(segment) <= fixed or not segment.startswith(prefix) or not segment.endswith(suffix):
                return None
            # From the right: the rightmost place of every text leaves the most to the parameters before it, so the
            # first choice is the greedy one, and if it fails, all fail.
            end = len(segment) - behind
            found = []
            for literal in literals:
                place = segment.rfind(literal, before + 1, end - 1)
                if place < 0:
                    return None
                found.append(segment[place + len(literal) : end])
                end = place
            found.append(segment[before:end])
            found.reverse()
            return found

        return None, pieces

    assert edge.kind == MATCH_SPANS
    assert callable(matcher)

    def spans(segment: bytes) -> tuple[bytes, ...] | None:
        text = segment.decode("utf-8", "surrogateescape")
        places = matcher(text)
        if places is None:
            return None
        return tuple([text[start:end].encode("utf-8", "surrogateescape") for start, end in places])

    return None, spans


def _walk(
    node: _Node, segments: list[bytes], index: int, method: str, values: list[bytes], missed: list[int]
) -> Slot | None:
    """Find the slot for the segments from `index` on; leave the parameters in `values`.

    `missed` gathers the methods of the leaves whose path fits but which have no slot for the method.
    """
    while index < len(segments):
        segment = segments[index]
        child = node.statics.get(segment)
        if node.single:
            if child is None:
                return None
            node = child
            index += 1
            continue
        if child is not None:
            slot = _walk(child, segments, index + 1, method, values, missed)
            if slot is not None:
                return slot
        if segment:
            mark = len(values)
            for fullmatch, split, child in node.edges:
                if fullmatch is not None:
                    match = fullmatch(segment)
                    if match is None:
                        continue
                    values.append(match.group(1))
                elif split is not None:
                    found = split(segment)
                    if found is None:
                        continue
                    values.extend(found)
                else:
                    values.append(segment)
                slot = _walk(child, segments, index + 1, method, values, missed)
                if slot is not None:
                    return slot
                del values[mark:]
        leaf = node.catch_all
        if leaf is not None:
            slot = leaf.slots.get(method) or leaf.any
            if slot is not None:
                values.append(b"/".join(segments[index:]))
                return slot
            missed.append(leaf.mask)
        return None
    leaf = node.leaf
    if leaf is not None:
        slot = leaf.slots.get(method) or leaf.any
        if slot is not None:
            return slot
        missed.append(leaf.mask)
    return None


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began, over all routers; see `RadixRouter.stats`."""
    return dict(_counters)
