"""`armature.stats()`: what the running process has counted, by every system that a request passes through."""

from __future__ import annotations

import sys
import threading
from typing import Any

from armature import _impl

__all__ = ["COUNTERS", "count", "stats"]

#: Every counter: the module that counts, a dot, and what is counted; with its meaning.
COUNTERS: dict[str, str] = {
    "access_log.lines_lost": "Lines of the access log that could not be written.",
    "asgi.requests": "Requests to ASGI apps.",
    "asgi.whole_answers": "Answers of ASGI apps that were complete at once, and left as those of any handler do.",
    "buffers.blocks_allocated": "Blocks of memory that were allocated for bytes to be sent or kept.",
    "buffers.blocks_reused": "Such blocks that came from the pool.",
    "connection.bodies_in_pieces": "Bodies of requests that arrived in pieces.",
    "connection.bodies_in_place": "Bodies of requests that arrived with their head, and were read where they stood.",
    "connection.bodies_whole": "Bodies that were received straight into their own memory.",
    "connection.bytes_received": "Bytes received by the parser.",
    "connection.continues": "Interim answers 100 (Continue).",
    "connection.heads_in_pieces": "Reads that ended within the head of a request.",
    "connection.materialised": "Request objects that were made; a handler that needs none costs none.",
    "connection.pipelined": "Requests that were read together with the one before them.",
    "connection.reads": "Reads.",
    "connection.refused": "Requests that broke the protocol or a limit of it.",
    "connection.requests": "Requests whose head was read.",
    "dispatch.batches": "Batches of handlers that ran in one spare Task.",
    "dispatch.spares_replaced": "Spare Tasks that a handler used up by cancelling itself or hanging callbacks on it.",
    "dispatch.suspended": "Handlers that suspended, and so became Tasks.",
    "dispatch.tasks": "Tasks that were made for handlers.",
    "exchange.large_bodies": "Bodies that were too large to be copied behind their head.",
    "exchange.responses_joined": "Answers that left in one write with the one before them.",
    "exchange.stream_pieces": "Pieces of streamed answers.",
    "exchange.streams": "Streamed answers.",
    "pump.drains": "Pauses of async iterators for their peer, or for other connections.",
    "pump.pieces": "Pieces that came from async iterators.",
    "reactor.accepted": "Connections that the reactor accepted.",
    "reactor.batches": "Turns of the reactor.",
    "reactor.events": "Events that the reactor handled.",
    "reactor.rests": "Turns that the reactor ended to let the loop go on.",
    "reactor.stale": "Events of connections that were gone.",
    "report.answers_timed": "Answers that were measured for the metrics.",
    "report.lines": "Lines of the access log.",
    "report.lines_dropped": "Lines of the access log that found no room.",
    "router.misses": "Requests without a route.",
    "router.not_allowed": "Requests for a path that has no route for their method.",
    "router.static_hits": "Requests whose path stands in the table of fixed paths.",
    "router.tree_hits": "Requests whose path was found in the tree.",
    "sweep.aged_out": "Connections that ended because they were old.",
    "sweep.bodies_timed_out": "Bodies of requests that did not arrive in time.",
    "sweep.culled": "Idle connections that were closed to make room.",
    "sweep.handlers_timed_out": "Handlers that took longer than they may.",
    "sweep.heads_timed_out": "Heads of requests that did not arrive in time.",
    "sweep.idle_closed": "Connections that were closed because nothing was asked.",
    "sweep.slow_readers_cut": "Clients that were cut off because they read too slowly.",
    "sweep.turned_away": "Connections that were one too many.",
    "wire.bytes_sent": "Bytes handed to the socket or a transport, without files that the system sends.",
    "wire.closed": "Connections that ended.",
    "wire.direct_sends": "Writes that went straight to the socket.",
    "wire.opened": "Connections that began.",
    "wire.partial_sends": "Writes of which the socket took not everything.",
    "wire.transport_writes": "Writes that went through a transport.",
}

# What is counted where a step more or less does not show. A counter of a hot path belongs into the twins.
_counts = {"access_log.lines_lost": 0}
_lock = threading.Lock()


def count(name: str, amount: int = 1) -> None:
    """Count something that happens rarely; may be called from any thread.

    Args:
        name: One of `COUNTERS`.
        amount: How often it happened.
    """
    with _lock:
        _counts[name] += amount


def stats() -> dict[str, int]:
    """Return what this process has counted since it began, by every system that a request passes through.

    The names, such as `router.static_hits`, are listed with their meanings in the guide on observability. A counter
    only grows. May be called from any thread; it is read while requests are served, so that counters that belong
    together may differ by those under way.
    """
    found = dict.fromkeys(COUNTERS, 0)
    modules: dict[str, Any] = {twin: getattr(_impl, twin) for twin in _impl._TWINS}
    # Compiled only, and loaded only where it runs.
    modules["reactor"] = sys.modules.get("armature._speedups.reactor")
    # A room above this one, and loaded only where there is a server.
    modules["sweep"] = sys.modules.get("armature.server.sweep")
    for name, module in modules.items():
        counted = getattr(module, "stats", None)
        if counted is not None:
            found |= {f"{name}.{key}": number for key, number in counted().items()}
    with _lock:
        found |= _counts
    return found
