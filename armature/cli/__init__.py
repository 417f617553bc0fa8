"""The `armature` command; what a subcommand needs is imported when it runs."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of the `armature` script."""
    from armature.cli.main import armature

    armature(prog_name="armature")
