"""Metrics for Prometheus: what a server counts and measures, in its text format 0.0.4 and as OpenMetrics 1.0.

A process describes itself as a flat dict, from the name of a sample with its labels to its value (`collect`). Such
dicts travel between workers, and `aggregate` makes one of several, so that a scrape answers for the whole app,
whichever worker it reaches.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import armature
from armature import _stats
from armature._impl import IMPL, report
from armature.http.negotiation import accepts
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

if TYPE_CHECKING:
    from armature.server.state import ServerState
    from armature.types import Service

__all__ = [
    "FAMILIES",
    "ServerMetrics",
    "aggregate",
    "collect",
    "family_of",
    "is_measuring",
    "metrics",
    "render",
    "serves_metrics",
]

#: Upper bounds of the buckets of request durations, in seconds.
DURATION_BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

#: The same of the delays of the event loop.
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

#: Seconds between two measurements of the event loop's delay.
LAG_SECONDS = 0.25

#: Pairs of route and method that are told apart; what comes after them is one route, `_OTHER`.
MOST_ROUTES = 1000

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: Family -> its type and its meaning. Counters are named as their samples.
FAMILIES: dict[str, tuple[str, str]] = {
    "armature_info": ("gauge", "The version of Armature and the twins that run; always 1."),
    "armature_http_requests_total": ("counter", "Requests that were answered, by method, route and status class."),
    "armature_http_request_duration_seconds": (
        "histogram",
        "Time from the end of a request's head to the last byte of its answer.",
    ),
    "armature_http_response_body_bytes_total": ("counter", "Bytes of bodies that were sent, by method and route."),
    "armature_http_refusals_total": ("counter", "Requests that broke the protocol or a limit of it, by status."),
    "armature_http_requests_in_flight": ("gauge", "Requests that are being answered."),
    "armature_connections_open": ("gauge", "Connections that are open."),
    "armature_event_loop_lag_seconds": ("histogram", "How late the event loop calls what is due, four times a second."),
    "armature_thread_pool_threads": ("gauge", "The largest number of threads for blocking handlers."),
    "armature_thread_pool_busy": ("gauge", "Threads that run a handler."),
    "armature_thread_pool_waiting": ("gauge", "Handlers that wait for a thread."),
    "armature_thread_pool_calls_total": ("counter", "Handlers that threads have finished."),
    "process_cpu_seconds_total": ("counter", "User and system time."),
    "process_resident_memory_bytes": ("gauge", "Memory in use (resident set)."),
    "process_virtual_memory_bytes": ("gauge", "Address space in use."),
    "process_open_fds": ("gauge", "Open file descriptors."),
    "process_max_fds": ("gauge", "The most file descriptors that may be open."),
    "process_start_time_seconds": ("gauge", "When the process began, in seconds since the epoch."),
    "python_info": ("gauge", "The interpreter; always 1."),
    "python_gc_collections_total": ("counter", "Collections, by generation."),
    "python_gc_objects_collected_total": ("counter", "Objects that were collected, by generation."),
    "python_gc_objects_uncollectable_total": ("counter", "Objects that could not be collected, by generation."),
} | {f"armature_{name.replace('.', '_')}_total": ("counter", meaning) for name, meaning in _stats.COUNTERS.items()}

#: The servers of this process that measure.
_measuring: WeakSet[ServerMetrics] = WeakSet()

_IMPORTED_AT = time.time()


class ServerMetrics:
    """What one server measures while it runs.

    Args:
        state: The server's.
        service: What it serves.
    """

    def __init__(self, state: ServerState, service: Service) -> None:
        self._state = state
        self._service = service
        self.figures = report.RouteFigures(DURATION_BOUNDS)
        self._lag = [0] * (len(LAG_BOUNDS) + 1)
        self._lag_seconds = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure; called on the server's loop."""
        _measuring.add(self)
        self._schedule()

    def close(self) -> None:
        """Measure no more."""
        _measuring.discard(self)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _schedule(self) -> None:
        loop = self._state.loop
        self._due = loop.time() + LAG_SECONDS
        self._timer = loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        lag = max(0.0, self._state.loop.time() - self._due)
        self._lag[bisect_left(LAG_BOUNDS, lag)] += 1
        self._lag_seconds += lag
        self._schedule()

    def samples(self) -> Iterator[tuple[str, float]]:
        """Yield the samples of this server; a sample may come several times, and then counts as their sum."""
        state = self._state
        seen = 0
        for endpoint, method, buckets, statuses, nanoseconds, size in self.figures.collect():
            if endpoint is None:
                # It was refused before it had a route; the refusals tell.
                continue
            seen += 1
            route = getattr(endpoint.route, "path", "") if seen <= MOST_ROUTES else "_OTHER"
            labels = f'method="{method}",route="{_escaped(str(route))}"'
            for digit, number in enumerate(statuses):
                if number:
                    status = f"{digit}xx" if digit else "other"
                    yield f'armature_http_requests_total{{{labels},status="{status}"}}', number
            yield f"armature_http_response_body_bytes_total{{{labels}}}", size
            yield from _histogram(
                "armature_http_request_duration_seconds", labels, DURATION_BOUNDS, buckets, nanoseconds / 1e9
            )
        for code, number in list(state.refusals.items()):
            yield f'armature_http_refusals_total{{status="{code}"}}', number
        connections = list(state.connections)
        yield "armature_connections_open", len(connections)
        yield "armature_http_requests_in_flight", sum(connection.busy for connection in connections)
        yield from _histogram("armature_event_loop_lag_seconds", "", LAG_BOUNDS, self._lag, self._lag_seconds)
        for pool in getattr(self._service, "pools", ()):
            counted = pool.stats()
            yield "armature_thread_pool_threads", counted["size"]
            yield "armature_thread_pool_busy", counted["busy"]
            yield "armature_thread_pool_waiting", counted["waiting"]
            yield "armature_thread_pool_calls_total", counted["finished"]


def is_measuring() -> bool:
    """Whether a server of this process measures."""
    return bool(_measuring)


def serves_metrics(service: Any) -> bool:
    """Whether an app has `metrics` among its routes."""
    return any(getattr(route, "handler", None) is metrics for route in getattr(service, "routes", ()))


def collect() -> dict[str, float]:
    """Return what this process measures: the name of each sample with its labels, and its value."""
    found: dict[str, float] = {}
    for server in list(_measuring):
        for name, value in server.samples():
            found[name] = found.get(name, 0) + value
    found |= _process()
    for generation, counted in enumerate(gc.get_stats()):
        for name, value in (
            ("collections", counted["collections"]),
            ("objects_collected", counted["collected"]),
            ("objects_uncollectable", counted["uncollectable"]),
        ):
            found[f'python_gc_{name}_total{{generation="{generation}"}}'] = value
    version = platform.python_version()
    found[f'python_info{{implementation="{platform.python_implementation()}",version="{version}"}}'] = 1
    found[f'armature_info{{implementation="{IMPL}",version="{armature.__version__}"}}'] = 1
    for name, number in _stats.stats().items():
        found[f"armature_{name.replace('.', '_')}_total"] = number
    return found


def aggregate(workers: Sequence[Mapping[str, float]], retired: Mapping[str, float] | None = None) -> dict[str, float]:
    """Make one dict of those of several processes.

    Counters and histograms are summed. A gauge is told of each process, with a label `worker` from 0 on, if there are
    several; sum it in the query where a sum means something.

    Args:
        workers: What the processes that run have collected.
        retired: The sums of those that have ended; only counters and histograms of it count.
    """
    total: dict[str, float] = {}
    for number, found in enumerate(workers):
        for name, value in found.items():
            family = family_of(name)
            if family is None:
                continue
            if FAMILIES[family][0] == "gauge":
                total[name if len(workers) == 1 else _labelled(name, number)] = value
            else:
                total[name] = total.get(name, 0) + value
    for name, value in (retired or {}).items():
        family = family_of(name)
        if family is not None and FAMILIES[family][0] != "gauge":
            total[name] = total.get(name, 0) + value
    return total


def render(samples: Mapping[str, float], *, openmetrics: bool = False) -> bytes:
    """Write samples in Prometheus's text format.

    Args:
        samples: As of `collect` or `aggregate`.
        openmetrics: Whether it is to be OpenMetrics 1.0, instead of 0.0.4.
    """
    families: dict[str, list[str]] = {}
    for name in samples:
        family = family_of(name)
        if family is not None:
            families.setdefault(family, []).append(name)
    lines = []
    for family, (kind, meaning) in FAMILIES.items():
        names = families.get(family)
        if names is None:
            continue
        # OpenMetrics names the family of a counter without the suffix of its samples.
        title = family.removesuffix("_total") if openmetrics and kind == "counter" else family
        lines.append(f"# HELP {title} {meaning}")
        lines.append(f"# TYPE {title} {kind}")
        lines.extend(f"{name} {_number(samples[name])}" for name in names)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""]).encode()


async def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scrape, for all workers of the app: `app.add_route("/metrics", metrics)`.

    A server whose app has this route measures its requests; `metrics_port` serves the same on a port of its own.
    """
    workers = sys.modules.get("armature.server.workers")
    if workers is None or workers.worker is None:
        found = aggregate([collect()])
    else:
        gathered = await workers.gather_stats()
        found = aggregate(gathered.workers, gathered.retired)
    chosen = accepts(request.headers.get("accept"), (TEXT, OPENMETRICS))
    body = render(found, openmetrics=chosen == OPENMETRICS)
    return HttpResponse(body, content_type=chosen or TEXT, headers={"cache-control": "no-store", "vary": "accept"})


def family_of(name: str) -> str | None:
    """Return the family that a sample belongs to; None for a name that is none of a sample's."""
    bare = name.partition("{")[0]
    if bare in FAMILIES:
        return bare
    for suffix in ("_bucket", "_sum", "_count"):
        family = bare.removesuffix(suffix)
        if family != bare and family in FAMILIES:
            return family
    return None


def _histogram(
    family: str, labels: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> Iterator[tuple[str, float]]:
    number = 0
    comma = "," if labels else ""
    for bound, count in zip((*map(repr, bounds), "+Inf"), counts, strict=True):
        number += count
        yield f'{family}_bucket{{{labels}{comma}le="{bound}"}}', number
    place = f"{{{labels}}}" if labels else ""
    yield f"{family}_sum{place}", total
    yield f"{family}_count{place}", number


def _process() -> dict[str, float]:
    found: dict[str, float] = {
        "process_cpu_seconds_total": time.process_time(),
        "process_start_time_seconds": _IMPORTED_AT,
    }
    try:
        with open("/proc/self/stat", "rb") as file:
            # The second field, the program's name, may hold anything, brackets too.
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/stat", "rb") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        found["process_virtual_memory_bytes"] = int(fields[20])
        found["process_resident_memory_bytes"] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        found["process_start_time_seconds"] = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        found["process_open_fds"] = len(os.listdir("/proc/self/fd"))
    except (OSError, ValueError, IndexError, StopIteration):
        # Another system; it has what Python itself can tell.
        pass
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most != resource.RLIM_INFINITY:
            found["process_max_fds"] = most
    return found


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labelled(name: str, worker: int) -> str:
    if name.endswith("}"):
        return f'{name[:-1]},worker="{worker}"}}'
    return f'{name}{{worker="{worker}"}}'


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
