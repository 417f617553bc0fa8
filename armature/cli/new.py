"""`armature new`."""

from __future__ import annotations

import keyword
import re
import string
import sys
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from armature.cli.console import CommandError

__all__ = ["new"]

#: A project's name is that of its distribution, and part of texts in its files (PEP 508).
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")

#: Names that would hide a module the project needs.
_TAKEN = frozenset({"armature", "test", "tests", "app"})

#: Entries that do not keep a directory from being used.
_HARMLESS = frozenset({".git", ".hg", ".DS_Store", ".idea", ".vscode", ".venv", "venv"})


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Make a new project: an app, a test for it, and what packaging needs.

    NAME is the name of the project or the path of its directory, whose last part is the name; "." makes it in the
    current directory. Nothing that exists is overwritten.
    """
    directory = Path(name)
    project = directory.resolve().name
    _check_name(project)
    _check_directory(directory)
    source = resources.files("armature.cli").joinpath("templates", "minimal")
    for path, text in _files(source):
        target = directory / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(string.Template(text).substitute(_values(project)), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{target} cannot be written: {error.strerror}", "choose another directory") from None
    click.echo(f"{project} is ready. Now:\n")
    if directory.resolve() != Path.cwd():
        click.echo(f"  cd {directory}")
    click.echo("  armature dev\n  python -m pytest")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} is not the name of a project",
            "begin with a letter; then letters, digits, dashes and underscores, 64 characters at most",
        )
    module = name.lower().replace("-", "_")
    if module in _TAKEN or module in sys.stdlib_module_names or keyword.iskeyword(name):
        raise CommandError(f"the name {name!r} is taken: a module of that name would be hidden", "choose another name")


def _check_directory(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise CommandError(f"{str(directory)!r} exists and is not a directory", "choose another name")
    if directory.is_dir() and (
        found := sorted(entry.name for entry in directory.iterdir() if entry.name not in _HARMLESS)
    ):
        raise CommandError(
            f"the directory {str(directory)!r} is not empty: it holds {', '.join(found[:3])}",
            "choose another name, or empty it",
        )


def _values(project: str) -> dict[str, str]:
    return {"project": project, "distribution": project.lower().replace("_", "-")}


def _files(source: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give the path and the text of every file of a template."""
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".tmpl"):
            # A template is no module, and its dot files are no dot files of this package.
            name = entry.name.removesuffix(".tmpl")
            yield (
                f"{prefix}{name.replace('dot-', '.', 1) if name.startswith('dot-') else name}",
                entry.read_text("utf-8"),
            )
