"""The command group: names and summaries of the commands, and nothing that makes `--help` slow."""

from __future__ import annotations

import difflib
import importlib

import click

__all__ = ["armature"]

#: Command -> the module that holds it, and its line in the help text.
COMMANDS = {
    "bench": ("bench", "Put a load on an app, and show what a request costs."),
    "deploy": ("deploy", "Make the files that run an app as a service."),
    "dev": ("serve", "Serve an app while it is being written: reload, error page, access log."),
    "info": ("info", "Show versions, the twins that run, and what is installed."),
    "new": ("new", "Make a new project."),
    "routes": ("routes", "List the routes of an app."),
    "run": ("serve", "Serve an app."),
}

EPILOG = """\b
Completion in bash, zsh and fish (then in the shell's start-up file):
  eval "$(_ARMATURE_COMPLETE=bash_source armature)"
  eval "$(_ARMATURE_COMPLETE=zsh_source armature)"
  _ARMATURE_COMPLETE=fish_source armature | source"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"armature.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(COMMANDS))}."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from armature import __version__

        click.echo(f"armature {__version__}")
        ctx.exit()


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def armature() -> None:
    """Serve, inspect and make Armature apps."""
