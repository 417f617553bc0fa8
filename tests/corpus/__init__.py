"""Raw requests, right and hostile, with what must come of each; see `index.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent


class Case(NamedTuple):
    name: str
    data: bytes
    statuses: list[int]
    closes: bool
    rfc: str
    why: str


def load() -> list[Case]:
    """Read the index and the requests."""
    entries = tomllib.loads((ROOT / "index.toml").read_text("utf-8"))["case"]
    return [Case(data=(ROOT / "requests" / f"{entry['name']}.http").read_bytes(), **entry) for entry in entries]


CASES = load()
