"""Metrics on live servers, read by the parsers of Prometheus' own client; dashboards that ask for nothing else."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from armature import App, HttpResponse
from armature.server.listeners import ListenError
from armature.server.metrics import FAMILIES, MOST_ROUTES, aggregate, collect, family_of, metrics, render
from counterparts import require_module
from e2e.command_line import command, fetch
from wire_client import Peer, Running, eventually, serving

Serve = Callable[..., Running]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5"
DASHBOARDS = sorted((Path(__file__).parents[2] / "deploy" / "grafana").glob("*.json"))

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")


def make_app(own_route: bool = True) -> App:
    app = App(thread_pool_size=3)
    if own_route:
        app.add_route("/metrics", metrics)

    @app.get("/")
    async def index() -> str:
        return "hello"

    @app.get('/odd"path\\{number}')
    async def odd(number: int) -> str:
        return str(number)

    @app.post("/fail")
    async def fail() -> None:
        raise LookupError

    @app.get("/thread")
    def thread() -> str:
        return "thread"

    @app.get("/stream")
    async def stream() -> HttpResponse:
        async def pieces() -> Any:
            for _ in range(3):
                yield b"12345"

        return HttpResponse.stream(pieces())

    return app


def parsed(text: str, openmetrics: bool = False) -> tuple[Samples, dict[str, str]]:
    """What Prometheus' own parser reads: the samples, and the types of the families."""
    if openmetrics:
        families = list(require_module("prometheus_client.openmetrics.parser").text_string_to_metric_families(text))
    else:
        families = list(require_module("prometheus_client.parser").text_string_to_metric_families(text))
    samples: Samples = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples, "a sample that comes twice"
            samples[key] = sample.value
    return samples, {family.name: family.type for family in families}


def scrape(peer: Peer, **fields: str) -> Samples:
    answer = peer.get("/metrics", **fields)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    return parsed(answer.text, "openmetrics" in answer.headers["content-type"])[0]


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_what_a_scrape_tells_of_requests(serve: Serve) -> None:
    running = serve(make_app())
    with running.connect() as peer:
        for _ in range(3):
            peer.get("/")
        peer.request("HEAD", "/").answer("HEAD")
        peer.get('/odd"path\\7')
        peer.get('/odd"path\\x')
        peer.request("POST", "/fail").answer()
        peer.get("/stream")
        peer.get("/thread")
        peer.get("/nowhere/1")
        peer.get("/nowhere/2")
        peer.request("BREW", "/").answer()
        with running.connect() as other:
            assert other.send(b"GET / HTTP/1.1\r\n\r\n").answer().status == 400
        samples = scrape(peer)
    total = "armature_http_requests_total"
    assert value(samples, total, method="GET", route="/", status="2xx") == 3
    assert value(samples, total, method="HEAD", route="/", status="2xx") == 1
    assert value(samples, total, method="GET", route='/odd"path\\{number}', status="2xx") == 1
    assert value(samples, total, method="GET", route='/odd"path\\{number}', status="4xx") == 1
    assert value(samples, total, method="POST", route="/fail", status="5xx") == 1
    # What has no route is one route, however many paths clients make up.
    assert value(samples, total, method="GET", route="/*", status="4xx") == 2
    assert (
        sum(number for (name, labels), number in samples.items() if ("method", "_OTHER") in labels and name == total)
        == 1
    )
    assert value(samples, "armature_http_response_body_bytes_total", method="GET", route="/stream") == 15
    assert value(samples, "armature_http_refusals_total", status="400") == 1
    assert value(samples, "armature_http_requests_in_flight") == 1
    assert value(samples, "armature_connections_open") >= 1
    assert value(samples, "armature_thread_pool_threads") == 3
    assert value(samples, "armature_thread_pool_calls_total") == 1
    assert value(samples, "process_cpu_seconds_total") > 0
    assert value(samples, "process_start_time_seconds") > 1_600_000_000
    assert value(samples, "python_gc_collections_total", generation="0") > 0
    duration = "armature_http_request_duration_seconds"
    buckets = [
        number
        for (name, labels), number in samples.items()
        if name == f"{duration}_bucket" and {("method", "GET"), ("route", "/")} <= labels
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == value(samples, f"{duration}_count", method="GET", route="/") == 3
    assert 0 < value(samples, f"{duration}_sum", method="GET", route="/") < 60


def test_both_formats_tell_the_same(serve: Serve) -> None:
    running = serve(make_app())
    with running.connect() as peer:
        peer.get("/")
        plain = peer.get("/metrics")
        opened = peer.get("/metrics", Accept=OPENMETRICS)
        # Whoever accepts nothing of this gets the format that everybody reads.
        assert peer.get("/metrics", Accept="image/png").headers["content-type"] == plain.headers["content-type"]
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert opened.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert plain.headers["vary"] == "accept"
    assert opened.text.endswith("\n# EOF\n")
    samples, kinds = parsed(plain.text)
    others, other_kinds = parsed(opened.text, openmetrics=True)
    assert samples.keys() <= others.keys()
    assert {name.removesuffix("_total"): kind for name, kind in kinds.items()} == other_kinds
    # Every family is described, and belongs to the table that the documentation has.
    assert {re.sub("_total$", "", name) for name in FAMILIES} >= other_kinds.keys()


def test_a_port_of_its_own(serve: Serve) -> None:
    running = serve(make_app(own_route=False), metrics_port=0, metrics_path="/-/metrics")
    url = running.server._reporting.url  # type: ignore[union-attr]
    port = int(url.rpartition(":")[2])
    assert running.get("/metrics").status == 404
    running.get("/")
    with Peer(("127.0.0.1", port)) as peer:
        text = peer.get("/-/metrics").text
        assert peer.get("/").status == 404
        samples = parsed(peer.get("/-/metrics").text)[0]
    assert parsed(text)[0]
    assert value(samples, "armature_http_requests_total", method="GET", route="/", status="2xx") == 1
    # Scrapes are no requests of the app, and so is what else comes there.
    assert not any(("route", "/-/metrics") in labels for _, labels in samples)
    running.stop()
    with pytest.raises(OSError):
        Peer(("127.0.0.1", port))


def test_a_port_that_is_taken_is_told_at_the_start(serve: Serve, loop_name: str) -> None:
    running = serve(make_app(), io="asyncio")
    with pytest.raises(ListenError, match="is in use"), serving(make_app(), loop_name, metrics_port=running.port):
        pass


def test_without_metrics_nothing_is_measured(serve: Serve) -> None:
    running = serve(make_app(own_route=False))
    assert running.get("/").status == 200
    assert running.state.report is None


def test_the_delay_of_the_loop_is_measured(serve: Serve) -> None:
    import time

    app = make_app()

    @app.get("/block")
    async def block() -> str:
        time.sleep(0.4)  # noqa: ASYNC251 - the mistake to be seen
        return "blocked"

    running = serve(app)
    with running.connect() as peer:
        peer.get("/block")
        samples = eventually(
            lambda: found if value(found := scrape(peer), "armature_event_loop_lag_seconds_sum") > 0.1 else None
        )
    name = "armature_event_loop_lag_seconds_bucket"
    assert value(samples, name, le="0.1") < value(samples, name, le="+Inf")


def test_labels_are_bounded() -> None:
    class Endpoint:
        def __init__(self, path: str) -> None:
            self.route = type("Route", (), {"path": path})

    class Figures:
        def collect(self) -> Any:
            return [(Endpoint(f"/{number}"), "GET", (1,) * 17, (0, 0, 1, 0, 0, 0), 1, 1) for number in range(1500)]

    from armature.server.metrics import ServerMetrics, _measuring

    class State:
        connections: frozenset[Any] = frozenset()
        refusals: ClassVar[dict[int, int]] = {}

    measuring = ServerMetrics(State(), object())  # type: ignore[arg-type]
    measuring.figures = Figures()
    _measuring.add(measuring)
    try:
        found = collect()
    finally:
        _measuring.discard(measuring)
    routes = {name for name in found if name.startswith("armature_http_requests_total")}
    assert len(routes) == MOST_ROUTES + 1
    assert found['armature_http_requests_total{method="GET",route="_OTHER",status="2xx"}'] == 500
    samples, _ = parsed(render(found).decode())
    assert value(samples, "armature_http_request_duration_seconds_count", method="GET", route="_OTHER") == 500 * 17


def test_workers_are_added_up() -> None:
    name = 'armature_http_requests_total{method="GET",route="/",status="2xx"}'
    lag = 'armature_event_loop_lag_seconds_bucket{le="+Inf"}'
    one = {name: 1, lag: 2, "armature_connections_open": 3, 'python_info{version="3"}': 1, "router.misses": 9}
    two = {name: 10, lag: 20, "armature_connections_open": 30}
    assert aggregate([one]) == {name: 1, lag: 2, "armature_connections_open": 3, 'python_info{version="3"}': 1}
    assert aggregate([one, two], {name: 100, "armature_connections_open": 7, "worker.pid": 1}) == {
        name: 111,
        lag: 22,
        'armature_connections_open{worker="0"}': 3,
        'python_info{version="3",worker="0"}': 1,
        'armature_connections_open{worker="1"}': 30,
    }
    parsed(render(aggregate([one, two])).decode())
    parsed(render(aggregate([one, two]), openmetrics=True).decode(), openmetrics=True)
    assert family_of("armature_http_request_duration_seconds_sum{}") == "armature_http_request_duration_seconds"
    assert family_of("armature_unknown_sum") is None


def test_numbers_are_exact() -> None:
    text = render({"process_cpu_seconds_total": 0.1, "armature_connections_open": 2.0, "process_open_fds": 1 << 60})
    samples, _ = parsed(text.decode())
    assert b"process_cpu_seconds_total 0.1\n" in text
    assert b"armature_connections_open 2\n" in text
    assert f"process_open_fds {1 << 60}\n".encode() in text
    assert math.isclose(value(samples, "process_cpu_seconds_total"), 0.1)


@posix
def test_all_workers_answer_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from armature import App\nfrom armature.server.metrics import metrics\n"
        "app = App()\napp.add_route('/metrics', metrics)\n"
        "@app.get('/')\nasync def index() -> str:\n    return 'hello'\n"
    )
    with command("run", "shop:app", "--port", "0", "--workers", "2", cwd=tmp_path) as server:
        port = server.port
        for _ in range(20):
            assert fetch(port)[0] == 200
        name = "armature_http_requests_total"

        def counted() -> bool:
            text = fetch(port, "/metrics")[1]
            samples, _ = parsed(text)
            workers = {dict(labels)["worker"] for (which, labels), _ in samples.items() if which == "process_open_fds"}
            return value(samples, name, method="GET", route="/", status="2xx") == 20 and len(workers) == 2

        eventually(counted)
        assert server.stop(signal.SIGTERM) == 0


# ---------------------------------------------------------------------------------------------------- dashboards


def test_there_are_dashboards() -> None:
    assert [path.name for path in DASHBOARDS] == ["overview.json"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_query_of_a_dashboard_finds_its_metrics(
    path: Path, loop_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    board = json.loads(path.read_text("utf-8"))
    with serving(make_app(), loop_name) as running, running.connect() as peer:
        peer.get("/")
        peer.get("/thread")
        with running.connect() as other:
            other.send(b"GET / HTTP/1.1\r\n\r\n").answer()
        samples = scrape(peer)
    there = {name for name, _ in samples}
    labels_of: dict[str, set[str]] = {}
    for name, labels in samples:
        labels_of.setdefault(name, set()).update(key for key, _ in labels)
    expressions = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    expressions += [
        variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"
    ]
    assert expressions
    for expression in expressions:
        names = set(re.findall(r"\b(?:armature|process|python)_\w+", expression))
        assert names, expression
        assert names <= there, expression
        # Labels that a query groups or selects by exist as well; those that a scrape adds are Prometheus' own.
        chosen = set(re.findall(r"(?:[{,]\s*)(\w+)\s*[=!]~?\s*\"", expression))
        for group in re.findall(r"\bby\s*\(([^)]*)\)", expression):
            chosen |= {label.strip() for label in group.split(",")}
        assert chosen <= {"job", "instance", "worker"}.union(*(labels_of[name] for name in names)), expression


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_is_what_grafana_imports(path: Path) -> None:
    board = json.loads(path.read_text("utf-8"))
    assert board["schemaVersion"] >= 36
    assert board["title"].startswith("Armature")
    assert re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"])
    assert board["id"] is None
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert "datasource" in names
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            assert set(re.findall(r"\$(?:\{)?(\w+)", target["expr"])) <= names | {"__rate_interval", "__range"}


def panels(board: Any) -> list[Any]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]
