"""Draw the tables of states and of deadlines into docs/internals/connection-states.md; `--check` compares instead.

Each drawing stands between two marks of the page; the prose around them is written by hand. The deadlines are not
copied from anywhere: a connection is put into each state, one deadline after the other is switched on, and what comes
of the sweep is written down.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from armature._pure.connection import Connection  # noqa: E402
from armature._spec.states import TRANSITIONS, Event, State  # noqa: E402
from armature.exceptions import ProtocolError  # noqa: E402
from armature.server import protocol, proxy_protocol  # noqa: E402
from armature.server.config import DEADLINES, ServerConfig  # noqa: E402
from armature.server.sweep import Sweep  # noqa: E402

PAGE = ROOT / "docs" / "internals" / "connection-states.md"
BEGIN = "<!-- drawn by tools/draw_states.py from {source}; do not edit by hand -->"
END = "<!-- end of the drawing -->"

#: What besides its state decides what a connection is waited for.
CONDITIONS = ("nothing else", "its body is incomplete", "bytes are unsent")


def transitions() -> str:
    """The transitions as Markdown: one row per state, one column per event; an empty cell leads to ERROR."""
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


class Transport:
    """What a connection sends through.

    Args:
        unsent: How many bytes it holds.
    """

    def __init__(self, unsent: int) -> None:
        self.unsent = unsent

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        return None


class Watched(Connection):
    """A connection that writes down how it ends.

    Args:
        state: The state that it is in.
        condition: One of `CONDITIONS`.
    """

    accepted = 0.0
    peer = "a peer"

    def __init__(self, state: State, condition: str) -> None:
        super().__init__(SimpleNamespace(router=None), SimpleNamespace(now=0.0), None)  # type: ignore[arg-type]
        self._state = state
        self._body_left = int(condition == CONDITIONS[1])
        if state not in (State.IDLE, State.CLOSED):
            self.transport = Transport(int(condition == CONDITIONS[2]))
        self._receiver = SimpleNamespace(set_exception=lambda error: None)
        self.end = ""

    def refuse(self, error: ProtocolError) -> None:
        self.end = str(error.status)

    def close(self) -> None:
        self.end = "closes"

    shutdown = close

    def abort(self) -> None:
        self.end = "cut off"


def outcome(state: State, condition: str, option: str) -> str:
    """How a connection ends that has been in a state for long, if there is only this deadline; "" if it does not."""
    connection = Watched(state, condition)
    clock = [0.0]
    loop = SimpleNamespace(time=lambda: clock[0], call_later=lambda seconds, callback: None)
    server: Any = SimpleNamespace(
        config=ServerConfig(**{name: 1.0 if name == option else None for name in DEADLINES}),
        dispatcher=SimpleNamespace(now=0.0),
        loop=loop,
        connections={connection},
        handlers=list,
    )
    sweep = Sweep(server)
    # Two looks: a slow reader is one that has taken nothing in between.
    for now in (1000.0, 2000.0):
        clock[0] = now
        sweep._sweep()
    return connection.end


def deadlines() -> str:
    """The deadlines as Markdown: which one runs in which state, and what it does."""
    options = [name for name in DEADLINES if name not in ("handler_timeout", "keep_alive_age")]
    lines = ["| state | " + " | ".join(CONDITIONS) + " |", "|---" * (len(CONDITIONS) + 1) + "|"]
    for state in State:
        cells = []
        for condition in CONDITIONS:
            ends = [(option, outcome(state, condition, option)) for option in options]
            cells.append(", ".join(f"`{option}`: {end}" for option, end in ends if end))
        lines.append(f"| **{state.name}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def timers() -> str:
    """The rare deadlines that have a timer of their own, as Markdown."""
    handshake = ServerConfig().ssl_handshake_timeout
    rows = [
        ("before IDLE", proxy_protocol.HEADER_SECONDS, "a header of the PROXY protocol", "cut off"),
        ("before IDLE", handshake, "a TLS handshake, by `ssl_handshake_timeout`", "cut off"),
        (
            "CONNECTED, READING",
            protocol.LATE_SECONDS,
            "the request of a connection that came during the stop",
            "closes",
        ),
        ("WRITING", protocol.HALF_CLOSED_SECONDS, "the next piece, to a peer that has closed its side", "cut off"),
        ("CLOSING", protocol.LINGER_SECONDS, "the end of what a refused peer still sends", "cut off"),
    ]
    lines = ["| state | seconds | what is waited for | then |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {state} | {seconds:g} | {what} | {end} |" for state, seconds, what, end in rows)])


DRAWINGS = {
    "armature/_spec/states.py": transitions,
    "armature/server/sweep.py": deadlines,
    "the timers of armature/server": timers,
}


def page_with_drawing(text: str) -> str:
    """The page with its drawings replaced by the present ones."""
    for source, draw in DRAWINGS.items():
        before, begin, rest = text.partition(BEGIN.format(source=source))
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{PAGE.name} lacks the marks of the drawing from {source}")
        text = f"{before}{begin}\n\n{draw()}\n\n{END}{after}"
    return text


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
