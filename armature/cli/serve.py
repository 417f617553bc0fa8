"""`armature run` and `armature dev`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from armature.cli.console import CommandError, find_target, parse_size, reported, target_argument
from armature.cli.limits import LIMIT_OPTIONS
from armature.cli.network import NETWORK_OPTIONS, parse_descriptors

__all__ = ["dev", "prepare", "run"]

_F = TypeVar("_F", bound=Callable[..., Any])

#: What `dev` serves with besides the app.
PREPARE = "armature.cli.serve:prepare"
FAILURE_APP = "armature.cli.error_page:failed_app"

#: Seconds that a worker may take to finish its requests when it is replaced.
DEV_SHUTDOWN_TIMEOUT = 3.0

LEVELS = click.Choice(["critical", "error", "warning", "info", "debug"], case_sensitive=False)

_common = (
    click.option("--factory", is_flag=True, help="APP names a function that returns the app."),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        help="TCP port; 0 takes any free one.",
    ),
    click.option("--uds", type=click.Path(dir_okay=False), help="Unix socket to listen on, instead of an address."),
    click.option(
        "--fd",
        callback=parse_descriptors,
        metavar="NUMBERS",
        help="Inherited listening sockets, such as 3 or 3,4, or systemd, instead of an address.",
    ),
    click.option(
        "--loop",
        type=click.Choice(["auto", "uvloop", "asyncio"]),
        default="auto",
        show_default=True,
        help="Event loop.",
    ),
    click.option(
        "--io",
        type=click.Choice(["auto", "reactor", "asyncio"]),
        default="auto",
        show_default=True,
        help="What carries the bytes of plain sockets.",
    ),
    click.option(
        "--http",
        type=click.Choice(["auto", "armature", "httptools"]),
        default="auto",
        show_default=True,
        help="HTTP/1.1 engine.",
    ),
    click.option("--log-level", type=LEVELS, default="info", show_default=True, help="Level of Armature's loggers."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the log: lines of text, or JSON objects.",
    ),
    click.option(
        "--access-log-format",
        default="default",
        show_default=True,
        metavar="FORMAT",
        help="default, common, combined, or a text with places such as %(status)s.",
    ),
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="TCP port of the metrics for Prometheus, apart from the app.",
    ),
    click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Address of the metrics' port."),
    click.option("--metrics-path", default="/metrics", show_default=True, help="Path of the metrics there."),
    click.option("--body-limit", callback=parse_size, metavar="SIZE", help="Largest request body, such as 16MiB."),
    click.option(
        "--ssl-certfile", type=click.Path(exists=True, dir_okay=False), help="PEM certificate; switches TLS on."
    ),
    click.option("--ssl-keyfile", type=click.Path(exists=True, dir_okay=False), help="PEM key of the certificate."),
    click.option(
        "--lifespan",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Whether the app's start-up and shut-down run; auto lets an ASGI app have none.",
    ),
    click.option(
        "--interface",
        type=click.Choice(["auto", "armature", "asgi"]),
        default="auto",
        show_default=True,
        help="What kind of app APP is.",
    ),
    click.option(
        "--app-dir",
        type=click.Path(exists=True, file_okay=False),
        help="Directory to import APP from.  [default: the current one]",
    ),
)

_reloading = (
    click.option(
        "--reload-dir",
        "reload_dirs",
        multiple=True,
        type=click.Path(exists=True, file_okay=False),
        help="Directory to watch; may be repeated.  [default: that of the app]",
    ),
    click.option(
        "--reload-include",
        "reload_includes",
        multiple=True,
        metavar="PATTERN",
        help="Further files that cause a restart, such as '*.html'; may be repeated.",
    ),
)


def _parse_workers(ctx: click.Context, parameter: click.Parameter, value: str) -> int | str:
    if value == "auto":
        return value
    if not (value.isascii() and value.isdigit() and int(value)):
        raise click.BadParameter(f"{value!r} is no number of processes; write 4, or auto", ctx, parameter)
    return int(value)


_workers = (
    click.option(
        "--workers",
        callback=_parse_workers,
        default="1",
        show_default=True,
        metavar="NUMBER",
        help="Number of processes; auto is one per processor.",
    ),
    click.option("--worker-affinity", is_flag=True, help="Keep each worker on a processor of its own."),
    click.option(
        "--start-method",
        type=click.Choice(["auto", "spawn", "forkserver", "fork"]),
        default="auto",
        show_default=True,
        help="How workers are made.",
    ),
    click.option("--max-requests", type=click.IntRange(min=1), help="Replace a worker after so many requests."),
    click.option(
        "--max-requests-jitter",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Up to how many more, by chance.",
    ),
    click.option(
        "--max-memory",
        callback=parse_size,
        metavar="SIZE",
        help="Replace a worker that uses more memory, such as 512MiB.",
    ),
)


def _with(options: tuple[Callable[[_F], _F], ...]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _check_address(ctx: click.Context) -> list[str]:
    """Refuse options that contradict each other, instead of ignoring one of them; return those of the address."""
    given = [
        name
        for name in ("host", "port", "uds", "fd")
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT and ctx.params[name] is not None
    ]
    if len(given) > 1 and given != ["host", "port"]:
        flags = " and ".join(f"--{name}" for name in given)
        raise CommandError(f"{flags} exclude each other", "listen on one: --host and --port, --uds, or --fd")
    if ctx.params["ssl_keyfile"] and not ctx.params["ssl_certfile"]:
        raise CommandError("--ssl-keyfile needs --ssl-certfile", "name the certificate that the key belongs to")
    return given


@click.command()
@target_argument
@_with(_common)
@click.option("--reload", is_flag=True, help="Start afresh when a source file changes.")
@_with(_reloading)
@click.option("--access-log/--no-access-log", default=False, show_default=True, help="Log every request.")
@click.option(
    "--shutdown-delay",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds between the moment that readiness fails and the end of accepting connections.",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that requests may take after a stop was asked for.",
)
@click.option("--reuse-port", is_flag=True, help="Let several processes listen on the same port.")
@_with(LIMIT_OPTIONS)
@_with(NETWORK_OPTIONS)
@_with(_workers)
@click.pass_context
def run(ctx: click.Context, /, target: str | None, reload: bool, **options: Any) -> None:
    """Serve an app.

    APP is module:attribute, a module, or a Python file, such as shop:app or shop.py; by default ARMATURE_APP, or the
    app.py or main.py of the current directory.

    SIGINT (Ctrl-C) and SIGTERM finish the requests that are under way and stop; a second one cuts that short. The exit
    code is 0 after a stop that was asked for, 1 if the address cannot be listened on, 2 if the command line or the app
    is wrong, 3 if the app's start-up failed.

    Started by a systemd socket unit, it listens on the sockets of that unit unless an address is given.
    """
    given = _check_address(ctx)
    with reported():
        from armature.server import run as serve
        from armature.server.systemd import inherited_descriptors

        if not given and inherited_descriptors():
            options["fd"] = "systemd"
        serve(find_target(target, options["app_dir"]), reload=reload, **options)


@click.command()
@target_argument
@_with(_common)
@click.option("--reload/--no-reload", default=True, show_default=True, help="Start afresh when a source file changes.")
@_with(_reloading)
@click.option("--poll", is_flag=True, help="Compare modification times: for network drives and some containers.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="Log every request.")
@click.pass_context
def dev(
    ctx: click.Context,
    /,
    target: str | None,
    reload: bool,
    reload_dirs: tuple[str, ...],
    reload_includes: tuple[str, ...],
    poll: bool,
    factory: bool,
    app_dir: str | None,
    **options: Any,
) -> None:
    """Serve an app while it is being written: reload, error page, access log.

    APP is module:attribute, a module, or a Python file; by default ARMATURE_APP, or the app.py or main.py of the
    current directory. When a source file changes the app starts afresh, on the same socket. What nobody handles is
    shown in the browser with its source; that page is for developers, so do not listen on a public address.
    """
    _check_address(ctx)
    with reported():
        target = find_target(target, app_dir)
        options["shutdown_timeout"] = DEV_SHUTDOWN_TIMEOUT
        _warn_of_exposure(options)
        if reload:
            ctx.exit(_supervise(target, factory, app_dir, reload_dirs, reload_includes, poll or None, options))
        from armature.server import run as serve
        from armature.server.importer import load_app

        app = load_app(target, factory=factory, app_dir=app_dir, interface=options["interface"])
        serve(prepare(app), **options)


def prepare(app: Any) -> Any:
    """Return the app with the error page switched on; an app of another framework has a page of its own.

    Args:
        app: The app that is about to be served; not built yet.
    """
    from armature.cli.error_page import install
    from armature.routing.router import Router

    return install(app) if isinstance(app, Router) else app


def _supervise(
    target: str,
    factory: bool,
    app_dir: str | None,
    reload_dirs: tuple[str, ...],
    reload_includes: tuple[str, ...],
    polling: bool | None,
    options: dict[str, Any],
) -> int:
    from armature.server.config import ServerConfig
    from armature.server.listeners import ListenError
    from armature.server.reload import supervise

    # What is wrong with the options is found here, not by every worker again.
    ServerConfig.of(**options).tls()
    place = {name: options.pop(name) for name in ("host", "port", "uds", "fd")}
    try:
        return supervise(
            target,
            factory=factory,
            app_dir=app_dir,
            **place,
            options=options,
            reload_dirs=reload_dirs,
            reload_includes=reload_includes,
            prepare=PREPARE,
            failure_app=FAILURE_APP,
            polling=polling,
        )
    except ListenError as error:
        raise CommandError(str(error), exit_code=1) from None


def _warn_of_exposure(options: dict[str, Any]) -> None:
    if options["uds"] is None and options["fd"] is None and options["host"] not in ("127.0.0.1", "::1", "localhost"):
        click.echo(
            f"Warning: {options['host']} may be reached by others, and the error page shows them your source.", err=True
        )
