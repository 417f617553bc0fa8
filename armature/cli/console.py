"""What the commands share: errors that say how to mend them, tables, sizes, the app that is meant."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import click

from armature.exceptions import ConfigurationError, MissingDependencyError

__all__ = ["CommandError", "find_target", "parse_size", "reported", "table", "target_argument"]

#: Files that hold the app if nobody says which one, in the order they are looked for.
USUAL_PLACES = ("app.py", "main.py", "app/__init__.py", "app/main.py", "src/app.py", "src/main.py")

target_argument = click.argument("target", metavar="[APP]", required=False)


class CommandError(click.ClickException):
    """A command cannot do what it was told.

    Args:
        message: What is wrong.
        hint: How to mend it.
        shown: What to show before, such as a traceback.
        exit_code: The exit code of the process.
    """

    def __init__(self, message: str, hint: str | None = None, shown: str = "", exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self.hint = hint
        self.shown = shown

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the error to stderr."""
        text = f"{self.shown}Error: {self.message}"
        if self.hint is not None:
            text += f"\n  mend: {self.hint}"
        click.echo(text, file=file, err=True)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn errors that tell the user what is wrong into a message and exit code 2."""
    from armature.server.importer import AppImportError, format_user_traceback

    try:
        yield
    except AppImportError as error:
        cause = error.__cause__
        shown = "" if cause is None else format_user_traceback(cause) + "\n"
        raise CommandError(error.message, error.hint, shown) from None
    except (ConfigurationError, MissingDependencyError) as error:
        raise CommandError(str(error)) from None


def find_target(target: str | None, app_dir: str | None) -> str:
    """Return the import string of the app that is meant: the one named, that of ARMATURE_APP, or the usual file.

    Args:
        target: The import string from the command line.
        app_dir: The directory from the command line.

    Raises:
        CommandError: None is named, and there is none of the usual files.
    """
    named = target or os.environ.get("ARMATURE_APP")
    if named:
        return named
    root = Path(app_dir or ".")
    for place in USUAL_PLACES:
        if (root / place).is_file():
            return str(root / place)
    raise CommandError(
        f"no app is named, and there is none of {', '.join(USUAL_PLACES)} here",
        "name the app as module:attribute or as a file, or make one: armature new NAME",
    )


_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}


def parse_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read a number of bytes, with a unit or without: `1000`, `10MB`, `16MiB`; the callback of an option.

    Args:
        ctx: The context of the command.
        parameter: The option.
        value: What was given.

    Raises:
        BadParameter: It is no size.
    """
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,15})\s*(|[kmg]|[kmg]i)b?", value.strip().lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write bytes, or 10MB, or 16MiB", ctx, parameter)
    return int(match[1]) * _UNITS[match[2]]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in aligned columns.

    Args:
        headings: The first line.
        rows: The other lines; as many cells each as there are headings.
    """
    lines = [tuple(headings), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
