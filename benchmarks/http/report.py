"""Turns a report into Markdown: an overview, then each load with spread, ratios, latencies and memory."""

from __future__ import annotations

from typing import Any

from benchmarks.http.registry import BASELINE, LIMIT

UNITS = {"requests": "CPU µs/request", "start": "ms to the first answer", "memory": "MB resident"}
#: What Armature is held to, by load: at most so many times the CPU of the limit, and so many times less than
#: uvicorn + Starlette and than FastAPI. None: no such promise.
BUDGETS: dict[str, tuple[float | None, float | None, float | None]] = {
    "plaintext": (1.25, 7, 18),
    "json": (1.35, 7, 18),
    "param": (1.35, 7, 18),
    "routes": (1.35, 7, 18),
    "post": (1.8, 5, 20),
    "middleware": (1.7, 6, 14),
    "sleep": (2.0, 5, 18),
    "future": (2.0, 5, 18),
    "pipelined": (1.8, 50, 100),
    "connect": (1.5, 3, None),
    "upload": (1.5, None, None),
    "download": (1.15, None, None),
    "stream": (3.0, 3, None),
}
#: Servers that Armature is to be ahead of on every load.
RIVALS = ("socketify", "granian-rsgi", "blacksheep-granian", "blacksheep", "robyn", "aiohttp", "sanic")
#: Pure Python is to be level at least with a pure-Python server.
PURE, PURE_PEER = "armature-pure", "uvicorn-h11"


def number(value: float) -> str:
    """Print three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    align = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(row) + " |" for row in [head, align, *rows]]


def _median(report: dict[str, Any], load: str, peer: str) -> float | None:
    found = report["loads"].get(load, {}).get("peers", {}).get(peer)
    return None if found is None else float(found["median"])


def _ratio(value: float | None, of: float | None, form: str) -> str:
    return "-" if value is None or not of else form.format(value / of)


def overview(report: dict[str, Any], kind: str) -> list[str]:
    """One row per peer, one column per load of this kind: the median, and below it the ratio to the limit."""
    loads = {name: load for name, load in report["loads"].items() if load["kind"] == kind}
    if not loads:
        return []
    peers = [peer for peer in report["peers"] if any(peer in load["peers"] for load in loads.values())]

    def rank(peer: str) -> float:
        """Geometric mean of the ratios to the best, over the loads that the peer takes part in."""
        product, count = 1.0, 0
        for load in loads.values():
            if peer in load["peers"]:
                product *= load["peers"][peer]["median"] / min(one["median"] for one in load["peers"].values())
                count += 1
        return product ** (1 / count)

    rows = []
    for peer in sorted(peers, key=rank):
        title = report["peers"][peer]["title"]
        row = [f"**{title}**" if report["peers"][peer]["kind"] == "armature" else title]
        for name in loads:
            value, limit = _median(report, name, peer), _median(report, name, LIMIT)
            cell = "-" if value is None else number(value)
            if kind == "requests" and value is not None and limit and peer != LIMIT:
                cell += f" ({value / limit:.2f}x)"
            row.append(cell)
        rows.append(row)
    return _table([UNITS[kind], *(load["title"] for load in loads.values())], rows)


def _load_table(report: dict[str, Any], name: str) -> list[str]:
    load = report["loads"][name]
    limit, baseline = _median(report, name, LIMIT), _median(report, name, BASELINE)
    requests = load["kind"] == "requests"
    head = [load["title"], UNITS[load["kind"]], "min-max", "÷ limit", "uvicorn + Starlette ÷ it"]
    if requests:
        head += ["req/s", "p50 ms", "p99 ms", "RSS MB"]
    rows = []
    for peer, one in sorted(load["peers"].items(), key=lambda pair: pair[1]["median"]):
        value = one["median"]
        row = [
            report["peers"][peer]["title"],
            number(value),
            f"{number(min(one['values']))}-{number(max(one['values']))}",
            _ratio(value, limit, "{:.2f}x"),
            "-" if baseline is None else f"{baseline / value:.1f}x",
        ]
        if requests:
            row += [
                f"{_middle(one['rates']):,.0f}",
                f"{_middle(one['p50']) / 1e3:.2f}",
                f"{_middle(one['p99']) / 1e3:.2f}",
                f"{one['resident'][-1]:.0f}",
            ]
        rows.append(row)
    return _table(head, rows)


def _middle(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def goals(report: dict[str, Any]) -> list[str]:
    """Hold the medians against what the project promises; what the limit itself would reach stands beside it."""
    rows: list[list[str]] = []
    for name, load in report["loads"].items():
        if load["kind"] != "requests":
            continue
        ours, limit = _median(report, name, "armature"), _median(report, name, LIMIT)
        if ours is not None:
            bounds = BUDGETS.get(name, (None, None, None))
            if limit and bounds[0]:
                rows.append(_verdict(load, "CPU against the limit", bounds[0], ours / limit, None, True))
            for peer, bound in ((BASELINE, bounds[1]), ("fastapi", bounds[2])):
                other = _median(report, name, peer)
                if other is not None and bound:
                    what = f"less CPU than {report['peers'][peer]['title']}"
                    rows.append(_verdict(load, what, bound, other / ours, limit and other / limit, False))
            rivals = [(value, rival) for rival in RIVALS if (value := _median(report, name, rival)) is not None]
            if rivals:
                value, rival = min(rivals)
                what = f"ahead of all peers, the nearest being {report['peers'][rival]['title']}"
                rows.append(_verdict(load, what, 1.0, value / ours, limit and value / limit, False))
        pure, peer_of_pure = _median(report, name, PURE), _median(report, name, PURE_PEER)
        if pure is not None and peer_of_pure is not None:
            what = f"pure Python level with {report['peers'][PURE_PEER]['title']}"
            rows.append(_verdict(load, what, 1.0, peer_of_pure / pure, limit and peer_of_pure / limit, False))
    return _table(["load", "goal", "bound", "measured", "the limit's", ""], rows) if rows else []


def _verdict(
    load: dict[str, Any], what: str, bound: float, value: float, of_limit: float | None, at_most: bool
) -> list[str]:
    met = value <= bound if at_most else value >= bound
    verdict = "met" if met else "NOT met"
    if not met and of_limit is not None and of_limit < bound:
        verdict += ", nor by the limit"
    ceiling = f"{of_limit:.2f}x" if of_limit is not None else "-"
    return [load["title"], what, f"{'≤' if at_most else '≥'} {bound:g}x", f"{value:.2f}x", ceiling, verdict]


def _left_out(report: dict[str, Any]) -> list[str]:
    lines = []
    for load, reasons in report["left_out"].items():
        where = "all loads" if load == "all" else report["loads"].get(load, {}).get("title", load)
        for peer, reason in reasons.items():
            lines.append(f"- **{report['peers'].get(peer, {}).get('title', peer)}**, {where}: {reason}")
    return lines


def markdown(report: dict[str, Any], chart: str | None) -> str:
    """Return the whole report as Markdown.

    Args:
        report: What `compare.run` returned.
        chart: The file name of the chart, if there is one.
    """
    machine, settings = report["machine"], report["settings"]
    host = f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}; {machine['wrk']}; {machine['python']}."
    method = (
        f"Server on core {settings['server_core']}, load on core {settings['load_core']}, one worker, access logs off. "
        f"Medians of {settings['rounds']} interleaved rounds of {settings['duration']} s, {settings['connections']} "
        "keep-alive connections where a load does not say otherwise. Every answer was checked before it was timed. "
        "CPU is user + system time of the server's process tree ÷ requests; smaller is better. "
        "In brackets: the ratio to the limit."
    )
    lines = ["# Comparison", "", f"`{settings['command']}`", "", f"{host} {method}", ""]
    if chart:
        lines += [f"![CPU per request]({chart})", ""]
    for kind in UNITS:
        table = overview(report, kind)
        if table:
            lines += [*table, ""]
    held = goals(report)
    if held:
        lines += ["## Goals", "", *held, ""]
    left_out = _left_out(report)
    lines += ["## Left out", "", *(left_out or ["Nothing."]), ""]
    lines += ["## By load", ""]
    for name, load in report["loads"].items():
        note = f"{load['connections']} connections, " if load["kind"] == "requests" else ""
        disturbed = max((one["disturbed"] for one in load["peers"].values()), default=0.0)
        if disturbed > 0.05:
            note += f"other programs used up to {disturbed:.0%} of the server's core during a round, "
        lines += [*_load_table(report, name), "", f"{note}{load['date']}".strip(), ""]
    lines += ["## Versions", ""]
    for peer in report["peers"].values():
        lines.append(
            f"- {peer['title']}: " + ", ".join(f"{name} {version}" for name, version in peer["versions"].items())
        )
    return "\n".join(lines) + "\n"
