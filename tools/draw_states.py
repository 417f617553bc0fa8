"""Draw the connection's state table into docs/internals/connection-states.md; `--check` compares instead.

The drawing stands between two marks of the page; the prose around them is written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from armature._spec.states import TRANSITIONS, Event, State  # noqa: E402

PAGE = ROOT / "docs" / "internals" / "connection-states.md"
BEGIN = "<!-- drawn by tools/draw_states.py from armature/_spec/states.py; do not edit by hand -->"
END = "<!-- end of the drawing -->"


def drawing() -> str:
    """The table as Markdown: one row per state, one column per event; an empty cell leads to ERROR."""
    events = list(Event)
    lines = [
        "| state | " + " | ".join(f"`{event.name}`" for event in events) + " |",
        "|---" * (len(events) + 1) + "|",
    ]
    for state in State:
        cells = [TRANSITIONS.get((state, event)) for event in events]
        names = ["" if cell is None else cell.name if cell is not state else "·" for cell in cells]
        lines.append(f"| **{state.name}** | " + " | ".join(names) + " |")
    return "\n".join(lines)


def page_with_drawing(text: str) -> str:
    """The page with its drawing replaced by the present one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} lacks the marks of the drawing")
    return f"{before}{BEGIN}\n\n{drawing()}\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    text = PAGE.read_text("utf-8")
    drawn = page_with_drawing(text)
    if arguments == ["--check"]:
        if text != drawn:
            print(f"{PAGE.name} is out of date: run python tools/draw_states.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(drawn, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
