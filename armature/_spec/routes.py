"""The frozen tree of routes as data: `routing/plan.py` builds it, both router twins read it.

A path is a list of segments, split at the `/` of the raw path and percent-decoded one by one, so that `%2F` is
never a separator. The tree has one level per segment. At every node the choices are tried in the order static
text, edges (in the order given), catch-all; a choice that leads nowhere is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from armature._spec.methods import METHODS

__all__ = [
    "ANY_METHOD",
    "MATCH_ALNUM",
    "MATCH_ALPHA",
    "MATCH_FLOAT",
    "MATCH_INT",
    "MATCH_PIECES",
    "MATCH_SPANS",
    "MATCH_STR",
    "MATCH_TEXT",
    "MATCH_UINT",
    "MATCH_UUID",
    "MAX_METHODS",
    "MAX_PARAMS",
    "NATIVE_REGEX",
    "Edge",
    "Leaf",
    "Node",
    "RouteTree",
    "Slot",
]

#: Parameters of one route; the compiled twin keeps their places in arrays of this size.
MAX_PARAMS = 16

#: Different methods of one router; a set of them is one 64-bit word.
MAX_METHODS = 64

#: The method of a slot that serves every method its leaf has no slot for.
ANY_METHOD = "*"

# How an edge decides whether it takes a segment. What remains between `prefix` and `suffix` is never empty.
#: Anything.
MATCH_STR = 0
#: Those whose language both twins know by heart; `NATIVE_REGEX` defines it.
MATCH_INT = 1
MATCH_UINT = 2
MATCH_FLOAT = 3
MATCH_ALPHA = 4
MATCH_ALNUM = 5
MATCH_UUID = 6
#: `matcher(text) -> bool`; the text is decoded as UTF-8 with `surrogateescape`.
MATCH_TEXT = 7
#: Several parameters, each anything, with the texts `matcher: tuple[bytes, ...]` between them; earlier ones are greedy.
MATCH_PIECES = 8
#: Several parameters: `matcher(text) -> tuple of (start, end) | None` for the whole segment, decoded likewise.
MATCH_SPANS = 9

#: The language of each native kind, in bytes; the index is the kind.
NATIVE_REGEX: tuple[bytes, ...] = (
    rb".+",
    rb"-?[0-9]+",
    rb"[0-9]+",
    rb"-?[0-9]+(?:\.[0-9]+)?",
    rb"[A-Za-z]+",
    rb"[A-Za-z0-9]+",
    rb"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
)


class Slot(NamedTuple):
    """What serves one method of one leaf; routes of one shape may name their parameters differently per method."""

    endpoint: Any
    names: tuple[str, ...]


class Leaf(NamedTuple):
    """The end of a route's path: one slot per method, HEAD filled in from GET."""

    pattern: str
    slots: dict[str, Slot]


class Edge(NamedTuple):
    """A segment with parameters."""

    kind: int
    prefix: bytes
    suffix: bytes
    matcher: Callable[[str], Any] | tuple[bytes, ...] | None
    params: int
    node: Node


class Node(NamedTuple):
    """What may follow after some segments; `leaf` ends the path here, `catch_all` takes the rest of it."""

    statics: dict[bytes, Node]
    edges: tuple[Edge, ...]
    catch_all: Leaf | None
    leaf: Leaf | None


class RouteTree(NamedTuple):
    """Everything a router is made of.

    `statics` holds the leaves whose whole path is fixed (and free of `%`), which are also in the tree. `methods`
    are `METHODS` and then every other registered token. `defaults` is a tree of its own for paths that match
    nothing: each leaf serves `ANY_METHOD`, its catch-all is not named.
    """

    root: Node
    statics: dict[bytes, Leaf]
    methods: tuple[str, ...] = METHODS
    defaults: Node | None = None
