"""The tuning guide names every option of the server, with its default, and every option of `armature run`."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

from armature.cli.serve import run
from armature.server import ServerConfig

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "guides" / "tuning.md").read_text("utf-8")
ROW = re.compile(r"^\| `([a-z_]+)`( †)? \| `([^`]*)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = {name: (bool(dagger), default) for name, dagger, default, *_ in ROW.findall(GUIDE)}


def test_every_option_stands_in_a_table_with_its_default() -> None:
    defaults: dict[str, Any] = {
        one.name: one.default if one.default is not MISSING else one.default_factory()  # type: ignore[misc]
        for one in fields(ServerConfig)
    }
    assert len(ROWS) == len(ROW.findall(GUIDE))
    assert {name: ast.literal_eval(default) for name, (_, default) in ROWS.items()} == defaults


def test_the_dagger_marks_what_the_command_lacks() -> None:
    parameters = {parameter.name for parameter in run.params}
    assert {name for name, (dagger, _) in ROWS.items() if dagger} == set(ROWS) - parameters


def test_what_only_the_command_has() -> None:
    options = {
        parameter.name: parameter.opts[0]
        for parameter in run.params
        if isinstance(parameter, click.Option) and parameter.name not in ROWS
    }
    section = GUIDE.partition("## What only the command has")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(--[a-z-]+)`", section)) == set(options.values())


def test_options_are_spelled_as_the_guide_says() -> None:
    exceptions = {"trusted_proxies": "--trusted-proxy", "forwarded_headers": "--forwarded-header"}
    for parameter in run.params:
        if parameter.name in ROWS:
            expected = exceptions.get(parameter.name, f"--{parameter.name.replace('_', '-')}")
            assert parameter.opts[0] == expected
            assert parameter.name not in exceptions or f"`{expected}`" in GUIDE
