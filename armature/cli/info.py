"""`armature info`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from typing import Any

import click

__all__ = ["info"]

#: Optional packages, and what each is for.
PACKAGES = {
    "uvloop": "event loop",
    "httptools": "second HTTP/1.1 engine (--http httptools)",
    "orjson": "JSON",
    "msgspec": "structs as bodies and answers",
    "pydantic": "models as bodies and answers",
    "attrs": "classes as bodies and answers",
    "watchfiles": "file events for reload",
    "click": "this command",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def info(as_json: bool) -> None:
    """Show versions, the twins that run, and what is installed; put this into a bug report."""
    facts = collect()
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    lines = [
        ("Armature", facts["version"]),
        ("Twins", f"{facts['implementation']} ({facts['reason']})"),
        ("Python", f"{facts['python_implementation']} {facts['python']}, {facts['executable']}"),
        ("Platform", facts["platform"]),
        ("Event loop", facts["loop"]),
        ("Installed at", facts["location"]),
    ]
    width = max(len(name) for name in (*dict(lines), *PACKAGES)) + 2
    for name, value in lines:
        click.echo(f"{name:<{width}}{value}")
    click.echo("\nOptional packages")
    for name, use in PACKAGES.items():
        click.echo(f"{name:<{width}}{facts['packages'][name] or 'not installed':<16}{use}")


def collect() -> dict[str, Any]:
    """Return what the command shows."""
    import armature

    implementation, reason = _twins()
    packages = {name: _version(name) for name in PACKAGES}
    return {
        "version": armature.__version__,
        "implementation": implementation,
        "reason": reason,
        "python": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "loop": f"uvloop {packages['uvloop']}" if _loop_is_uvloop() else "asyncio",
        "location": str(armature.__path__[0]),
        "packages": packages,
    }


def _twins() -> tuple[str, str]:
    try:
        from armature import _impl
    except ImportError as error:
        # The one command that must not fail when the installation is broken.
        return "none", f"cannot be loaded: {error}"
    return _impl.IMPL, _impl.REASON


def _loop_is_uvloop() -> bool:
    try:
        from armature.server.runner import loop_factory
    except ImportError:
        return False
    return loop_factory("auto") is not None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
