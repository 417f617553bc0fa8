"""`armature routes`."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from armature.cli.console import find_target, reported, table, target_argument

__all__ = ["routes"]


@click.command()
@target_argument
@click.option("--factory", is_flag=True, help="APP names a function that returns the app.")
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False),
    help="Directory to import APP from.  [default: the current one]",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def routes(target: str | None, factory: bool, app_dir: str | None, as_json: bool) -> None:
    """List the routes of an app: methods, path, name, and where the handler stands.

    APP is module:attribute, a module, or a Python file; by default ARMATURE_APP, or the app.py or main.py of the
    current directory. The app is built as for serving, so a mistake in a route is reported here too.
    """
    with reported():
        from armature.server.importer import load_app

        service = load_app(find_target(target, app_dir), factory=factory, app_dir=app_dir, interface="armature")
        if hasattr(service, "build"):
            service = service.build()
    found = [_described(route) for route in service.routes]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif not found:
        click.echo("The app has no routes.", err=True)
    else:
        rows = [
            (", ".join(route["methods"]), route["path"], route["name"], f"{route['handler']} ({route['location']})")
            for route in found
        ]
        click.echo(table(("METHODS", "PATH", "NAME", "HANDLER"), rows))


def _described(route: Any) -> dict[str, Any]:
    return {
        "methods": ["ANY" if method == "*" else method for method in route.methods],
        "path": route.path,
        "name": route.name,
        "handler": route.described,
        "location": _relative(route.location),
        "mounted": route.mounted,
    }


def _relative(location: str | None) -> str | None:
    if location is None:
        return None
    here = os.path.join(os.getcwd(), "")
    return location.removeprefix(here)
