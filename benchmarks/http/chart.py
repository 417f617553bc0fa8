"""Draws a report as SVG by hand: one panel per load, one bar per peer, a logarithmic axis of CPU per request."""

from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _COLUMNS, _GAP = 460, 2, 28
_BAR, _HEAD, _LABEL = 17, 34, 178
_COLOURS = {"armature": "#c2410c", "c": "#64748b", "rust": "#a8a29e", "python": "#93b4d8"}


def _panel(load: dict[str, Any], peers: dict[str, Any], x: float, y: float) -> list[str]:
    ordered = sorted(load["peers"].items(), key=lambda pair: pair[1]["median"])
    low = min(min(one["values"]) for _, one in ordered)
    high = max(max(one["values"]) for _, one in ordered)
    floor = math.log10(low) - 0.25
    scale = (_WIDTH - _LABEL - 52) / max(math.log10(high) - floor, 0.1)

    def at(value: float) -> float:
        return x + _LABEL + (math.log10(value) - floor) * scale

    lines = [f'<text x="{x:.0f}" y="{y + 16:.0f}" class="title">{escape(load["title"])}</text>']
    for row, (name, one) in enumerate(ordered):
        top = y + _HEAD + row * _BAR
        end = at(one["median"])
        peer = peers[name]
        weight = ' class="ours"' if peer["kind"] == "armature" else ""
        colour = _COLOURS[peer["kind"]]
        first, last = at(min(one["values"])), at(max(one["values"]))
        x0, length, text_y, middle = x + _LABEL, end - x - _LABEL, f"{top + 10:.1f}", f"{top + 6:.1f}"
        lines += [
            f'<text x="{x0 - 6:.0f}" y="{text_y}" text-anchor="end"{weight}>{escape(peer["title"])}</text>',
            f'<rect x="{x0:.1f}" y="{top:.1f}" width="{length:.1f}" height="{_BAR - 5}" fill="{colour}"/>',
            f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{middle}" y2="{middle}" stroke="#1e293b"/>',
            f'<text x="{last + 5:.1f}" y="{text_y}"{weight}>{one["median"]:.3g}</text>',
        ]
    return lines


def draw(report: dict[str, Any]) -> str | None:
    """Return the chart of all loads measured in CPU per request, or None if there are none."""
    loads = [load for load in report["loads"].values() if load["kind"] == "requests" and load["peers"]]
    if not loads:
        return None
    body: list[str] = []
    y = 48.0
    for start in range(0, len(loads), _COLUMNS):
        row = loads[start : start + _COLUMNS]
        for column, load in enumerate(row):
            body += _panel(load, report["peers"], _GAP + column * (_WIDTH + _GAP), y)
        y += _HEAD + _BAR * max(len(load["peers"]) for load in row) + 22
    width = _GAP + _COLUMNS * (_WIDTH + _GAP)
    size = f'viewBox="0 0 {width} {y:.0f}" width="{width}" height="{y:.0f}"'
    title = "CPU µs per request, one worker (logarithmic; the thin line is the spread; shorter is better)"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{title}</title>",
        "<style>",
        "text { font: 11px system-ui, sans-serif; fill: #334155 }",
        ".title { font-size: 14px; font-weight: 600; fill: #0f172a }",
        ".ours { font-weight: 700; fill: #9a3412 }",
        "</style>",
        f'<rect width="{width}" height="{y:.0f}" fill="#ffffff"/>',
        f'<text x="{_GAP}" y="28" class="title">{title}</text>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"
