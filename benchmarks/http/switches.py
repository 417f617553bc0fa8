"""The switches of OPS-05: every optimisation can be turned off, and what it brings is a measured number.

A switch is a row of the catalogue, the load that shows it, and how to start a server without it: by environment
variables or by options of `app.run`. A new optimisation adds its line here in the change that brings it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Switch:
    """One optimisation that can be turned off.

    Args:
        name: The row of the catalogue, such as `HOT-13`.
        title: What is turned off.
        loads: The loads that show it, names of `loads.LOADS`.
        variables: Environment variables that turn it off.
        options: Options of `app.run` that turn it off.
        peer: Which peer it is a switch of.
    """

    name: str
    title: str
    loads: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    peer: str = "armature"

    def off(self) -> dict[str, str]:
        """Return the environment that starts the server without it."""
        result = dict(self.variables)
        if self.options:
            result["BENCH_OPTIONS"] = json.dumps(self.options)
        return result


_ALL = (
    Switch(
        "OPS-11",
        "compiled twins (off: ARMATURE_PURE=1)",
        ("plaintext", "param", "post"),
        {"ARMATURE_PURE": "1", "ARMATURE_REQUIRE_SPEEDUPS": "0"},
    ),
    Switch("RUN-08", "uvloop (off: the stock loop)", ("plaintext", "future"), {"BENCH_LOOP": "asyncio"}),
    Switch("HOT-08", "our own head parser (off: httptools)", ("plaintext", "param"), options={"http": "httptools"}),
)
SWITCHES = {switch.name: switch for switch in _ALL}
