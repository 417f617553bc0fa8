"""Options of `armature run` about how long and how many: deadlines and limits of connections."""

from __future__ import annotations

from typing import Any

import click

from armature.cli.console import parse_size

__all__ = ["LIMIT_OPTIONS"]


def _seconds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Read seconds above zero, or `none` for no deadline."""
    if value is None or value == "none":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise click.BadParameter(f"{value!r} is no number of seconds; write 10, 0.5, or none", ctx, parameter)
    return seconds


def _number(ctx: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """Read a number above zero, or `none` for no limit."""
    if value == "none":
        return None
    if not (value.isascii() and value.isdigit() and int(value)):
        raise click.BadParameter(f"{value!r} is no number; write 1000, or none", ctx, parameter)
    return int(value)


def _limit(name: str, default: str, help: str, callback: Any = _seconds, metavar: str = "SECONDS") -> Any:
    return click.option(name, default=default, show_default=True, callback=callback, metavar=metavar, help=help)


LIMIT_OPTIONS = (
    _limit("--head-timeout", "10", "How long a request's head may take; none for any time."),
    _limit("--body-timeout", "60", "How long a request's body may take, at its slowest."),
    _limit("--idle-timeout", "60", "How long a connection may be without a request."),
    _limit("--write-timeout", "60", "How long a client may read too slowly."),
    _limit("--handler-timeout", "none", "How long a handler may take."),
    click.option(
        "--minimum-rate",
        callback=parse_size,
        default="4KiB",
        show_default=True,
        metavar="SIZE",
        help="What a client that is not too slow sends or takes in a second.",
    ),
    _limit("--max-connections", "10000", "Connections above which clients get 503.", _number, "NUMBER"),
    _limit("--keep-alive-requests", "10000", "Requests after which a connection ends.", _number, "NUMBER"),
    _limit("--keep-alive-age", "3600", "Seconds after which a connection ends."),
    click.option(
        "--keep-memory",
        callback=parse_size,
        default="64MiB",
        show_default=True,
        metavar="SIZE",
        help="Freed memory that is kept for large bodies (glibc).",
    ),
)
