"""`armature deploy`: files that systemd, Docker, Kubernetes, Helm and Jenkins need to run an app."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
import string
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import click

from armature.cli.console import CommandError, find_target, reported

__all__ = ["deploy"]

_F = TypeVar("_F", bound=Callable[..., Any])

#: Seconds beside the delay and the timeout of a stop: for the app's own shut-down, and for the supervisor to end it.
SHUTDOWN_SPARE = 15

#: What the values of the files are made of. They go into commands, units, YAML and Groovy, so that nothing is let in
#: that has a meaning there: no space, no quote, no `$`, `%` or `{`, and no dash where an option could begin.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,51}[a-z0-9])?")
_IDENTIFIERS = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_TARGET = re.compile(
    rf"(?:{_IDENTIFIERS}|(?:[A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*\.py)(?::{_IDENTIFIERS})?", re.ASCII
)
_DIRECTORY = re.compile(r"(?:/[\w@+-][\w.@+-]*)+", re.ASCII)
_HEALTH = re.compile(r"(?:/[\w~-][\w.~-]*)+", re.ASCII)
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_REPOSITORY = re.compile(
    r"(?:(?P<registry>[a-z0-9-]+(?:\.[a-z0-9-]+)*:[0-9]{1,5}|localhost|[a-z0-9-]+(?:\.[a-z0-9-]+)+)/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
#: The most letters of a repository, by the rules of registries, and of what names an app.
LONGEST = 255
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def _checked(pattern: re.Pattern[str], what: str) -> Callable[..., str | None]:
    """Make the callback of an option whose value must match a pattern."""

    def check(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None and not pattern.fullmatch(value):
            raise click.BadParameter(f"{value!r} is not {what}", ctx, parameter)
        return value

    return check


def _address(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no address such as 127.0.0.1 or ::", ctx, parameter) from None
    if "%" in value:
        raise click.BadParameter(f"{value!r} names an interface; give the address alone", ctx, parameter)
    return str(address)


def _proxies(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    from armature.http.forwarded import TrustedProxies

    with reported():
        TrustedProxies(values)
    if unfit := [value for value in values if not re.fullmatch(r"[0-9A-Fa-f:./]+|unix|\*", value)]:
        raise click.BadParameter(f"{unfit[0]!r} is not a single address or network", ctx, parameter)
    return values


def _workers(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from armature.server.config import MOST_WORKERS

    if value != "auto" and not (re.fullmatch("[1-9][0-9]{0,5}", value) and int(value) <= MOST_WORKERS):
        raise click.BadParameter(f"{value!r} is neither auto nor a number from 1 to {MOST_WORKERS}", ctx, parameter)
    return value


def _image(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        repository, tag = _split_image(value)
        if len(repository) > LONGEST or not _REPOSITORY.fullmatch(repository) or not _TAG.fullmatch(tag):
            raise click.BadParameter(f"{value!r} is no image such as registry.example.org/shop:1.4", ctx, parameter)
    return value


def _split_image(image: str) -> tuple[str, str]:
    repository, colon, tag = image.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (image, "latest")


_common = (
    click.option(
        "--app", "target", metavar="APP", help="As for `armature run`.  [default: ARMATURE_APP, or the usual file]"
    ),
    click.option("--factory", is_flag=True, help="APP names a function that returns the app."),
    click.option(
        "--name",
        callback=_checked(_NAME, "a name of small letters, digits and dashes, 53 at most, that begins with a letter"),
        help="What the service is called.  [default: the name of this directory]",
    ),
    click.option("--force", is_flag=True, help="Replace files that exist."),
)

#: What subcommands take whose files hold the command that serves.
_serving = (
    click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="TCP port."),
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        multiple=True,
        metavar="ADDRESS",
        callback=_proxies,
        help="Proxy that may say who its client is; may be repeated.",
    ),
    click.option(
        "--shutdown-timeout",
        type=click.IntRange(0, 86400),
        default=30,
        show_default=True,
        metavar="SECONDS",
        help="How long requests may take after a stop was asked for.",
    ),
)


def _workers_option(default: str) -> Callable[[_F], _F]:
    return click.option(
        "--workers",
        default=default,
        show_default=True,
        metavar="NUMBER",
        callback=_workers,
        help="Number of processes; auto is one per processor.",
    )


def _output_option(default: str) -> Callable[[_F], _F]:
    return click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=True,
        metavar="DIR",
        help="Directory of the files.",
    )


def _delay_option(default: int) -> Callable[[_F], _F]:
    return click.option(
        "--shutdown-delay",
        type=click.IntRange(0, 3600),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="How long connections are still accepted after a stop was asked for.",
    )


_image_option = click.option(
    "--image", callback=_image, metavar="IMAGE", help="Repository and tag.  [default: NAME:latest]"
)
_python_option = click.option(
    "--python",
    default=f"{sys.version_info[0]}.{sys.version_info[1]}",
    callback=_checked(_PYTHON, "a version such as 3.13"),
    metavar="VERSION",
    help="Python's version.  [default: the one that runs]",
)
_health_option = click.option(
    "--health-path",
    default="/health",
    show_default=True,
    metavar="PATH",
    callback=_checked(_HEALTH, "a path such as /health"),
    help="Prefix of the app's HealthRouter.",
)


@dataclass(frozen=True)
class _Plan:
    """What a subcommand works with.

    Args:
        name: What the service is called.
        target: The app, as `armature run` takes it.
        options: The options of the subcommand.
    """

    name: str
    target: str
    options: Mapping[str, Any]

    @property
    def image(self) -> str:
        """The image, with its tag."""
        return ":".join(_split_image(self.options["image"] or self.name))

    @property
    def grace(self) -> int:
        """Seconds after SIGTERM until the process may be killed."""
        return int(self.options["shutdown_delay"] + self.options["shutdown_timeout"] + SHUTDOWN_SPARE)

    def arguments(self, **address: object) -> list[str]:
        """Return what `armature` is called with.

        Args:
            **address: Options that say where to listen.
        """
        options = {
            **address,
            "workers": self.options["workers"],
            "shutdown-delay": self.options["shutdown_delay"],
            "shutdown-timeout": self.options["shutdown_timeout"],
        }
        words = ["run", self.target, *(["--factory"] if self.options["factory"] else [])]
        return words + [f"--{option}={value}" for option, value in options.items()] + self.trust

    @property
    def trust(self) -> list[str]:
        """The options that name trusted proxies."""
        return [f"--trusted-proxy={proxy}" for proxy in self.options["trusted_proxies"]]

    def container_arguments(self) -> list[str]:
        """Return the whole command of a container."""
        return ["armature", *self.arguments(host="0.0.0.0", port=self.options["port"])]


def _subcommand(*options: Any) -> Callable[[Callable[[_Plan], None]], click.Command]:
    """Make a subcommand of a function that is given the plan."""

    def decorate(function: Callable[[_Plan], None]) -> click.Command:
        @functools.wraps(function)
        def call(**given: Any) -> None:
            function(_Plan(_name(given["name"]), _target(given["target"]), given))

        decorated: Any = call
        for option in reversed((*_common, *options)):
            decorated = option(decorated)
        return deploy.command(function.__name__)(decorated)

    return decorate


def _name(given: str | None) -> str:
    if given is not None:
        return given
    name = Path.cwd().name.lower().replace("_", "-").replace(".", "-")
    if not _NAME.fullmatch(name):
        raise CommandError(f"this directory's name, {Path.cwd().name!r}, does not do for a service", "give --name")
    return name


def _target(given: str | None) -> str:
    # Found on Windows, it is written for Linux.
    target = given or find_target(None, None).replace(os.sep, "/")
    if len(target) > LONGEST or not _TARGET.fullmatch(target):
        raise CommandError(
            f"{target!r} does not name an app in a way that every file can hold",
            "write module:attribute or a path from here such as src/shop.py, in letters, digits, _, . and -",
        )
    return target


def _render(template: str, values: Mapping[str, object]) -> str:
    source = resources.files("armature.cli").joinpath("templates", "deploy", f"{template}.tmpl")
    return string.Template(source.read_text("utf-8")).substitute(values)


def _write(files: Mapping[str, str], directory: Path, force: bool) -> None:
    """Write files, all of them or, because one is there and differs, none."""
    in_the_way = [
        (directory / name).as_posix()
        for name, text in files.items()
        if (directory / name).exists() and not _holds(directory / name, text)
    ]
    if in_the_way and not force:
        raise CommandError(
            f"{', '.join(in_the_way)} {'exists' if len(in_the_way) == 1 else 'exist'}",
            "choose another place with --output, or replace what is there with --force",
        )
    for name, text in files.items():
        target = directory / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise CommandError(
                f"{target.as_posix()} cannot be written: {error.strerror}", "choose another place with --output"
            ) from None
        click.echo(f"wrote {target.as_posix()}")


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _mention_health(prefix: str) -> None:
    argument = "" if prefix == "/health" else f'prefix="{prefix}"'
    click.echo(f"\n{prefix}/live and {prefix}/ready are asked for: app.include_router(HealthRouter({argument}))")


@click.group()
def deploy() -> None:
    """Make the files that run an app as a service.

    They are commented, and yours: nothing reads them again, and nothing replaces them unless told to by --force.
    """


#: Lines of the service that depend on whether a supervisor or the only process is the service's.
RELOAD = """\
# `systemctl reload` replaces the workers, one after the other: new code, and no connection is refused.
ExecReload=/bin/kill -HUP $MAINPID
"""
WATCHED_SUPERVISOR = "The supervisor gives signs of life, and replaces workers that end; if it hangs, all start anew."
WATCHED_LOOP = "The event loop gives signs of life; if it hangs, the service is started anew."


@_subcommand(
    *_serving,
    _workers_option("auto"),
    _delay_option(0),
    click.option(
        "--host", default="127.0.0.1", show_default=True, callback=_address, help="Address to listen on, with --port."
    ),
    click.option(
        "--uds",
        callback=_checked(_DIRECTORY, "an absolute path without spaces"),
        metavar="PATH",
        help="Unix socket to listen on, instead of an address.",
    ),
    click.option(
        "--group",
        callback=_checked(_USER, "the name of a group"),
        help="Group that may connect to the Unix socket.  [default: everybody]",
    ),
    click.option(
        "--directory",
        callback=_checked(_DIRECTORY, "an absolute path without spaces"),
        metavar="DIR",
        help="Where the app is, with its virtual environment in .venv.  [default: /srv/NAME]",
    ),
    click.option(
        "--user", callback=_checked(_USER, "the name of a user"), help="User to run as.  [default: one for this alone]"
    ),
    _output_option("deploy/systemd"),
)
def systemd(plan: _Plan) -> None:
    """Make a service and a socket for systemd: watched, restarted, reloaded without a refused connection."""
    options = plan.options
    source = click.get_current_context().get_parameter_source
    given = [f"--{name}" for name in ("host", "port") if source(name) is not click.core.ParameterSource.DEFAULT]
    if options["uds"] and given:
        raise CommandError(f"--uds and {given[0]} exclude each other", "listen on one of them")
    if options["group"] and not options["uds"]:
        raise CommandError("--group needs --uds", "name the Unix socket that the group may connect to")
    access = ""
    if options["uds"]:
        address = options["uds"]
        access = f"SocketMode=0660\nSocketGroup={options['group']}\n" if options["group"] else "SocketMode=0666\n"
    else:
        address = f"[{options['host']}]" if ":" in options["host"] else options["host"]
        address += f":{options['port']}"
    user, supervised = options["user"], options["workers"] != "1"
    directory = options["directory"] or f"/srv/{plan.name}"
    values = {
        "name": plan.name,
        "app": plan.target,
        "directory": directory,
        "home": "read-only" if directory.startswith(("/home/", "/root/")) else "yes",
        "arguments": " ".join(plan.arguments()),
        "shutdown_timeout": options["shutdown_timeout"],
        "grace": plan.grace,
        "address": address,
        "access": access,
        "user": "DynamicUser=yes" if user is None else f"User={user}",
        # A process that serves by itself has no workers to replace; without a handler SIGHUP would end it.
        "reload": RELOAD if supervised else "",
        "watched": WATCHED_SUPERVISOR if supervised else WATCHED_LOOP,
    }
    files = {f"{plan.name}.{kind}": _render(f"app.{kind}", values) for kind in ("service", "socket")}
    _write(files, options["output"], options["force"])
    service = (options["output"] / plan.name).as_posix()
    click.echo(f"\nNow: systemd-analyze verify {service}.service, and what its first lines say.")


@_subcommand(
    *_serving,
    _workers_option("1"),
    _delay_option(0),
    _health_option,
    _image_option,
    _python_option,
    _output_option("."),
)
def docker(plan: _Plan) -> None:
    """Make a Dockerfile: two stages, no root, SIGTERM reaches the server."""
    options = plan.options
    port, health, requirements = options["port"], options["health_path"], _requirements()
    ask = (
        f"import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=3); "
        f"c.request('GET', '{health}/live'); sys.exit(c.getresponse().status != 200)"
    )
    values = {
        "name": plan.name,
        "app": plan.target,
        "image": plan.image,
        "port": port,
        "grace": plan.grace,
        "python": options["python"],
        "sources": {".": "COPY . .\n", "-r requirements.txt": "COPY requirements.txt .\n"}.get(requirements, ""),
        "requirements": requirements,
        "healthcheck": json.dumps(["python", "-c", ask]),
        "command": json.dumps(plan.container_arguments()),
    }
    files = {"Dockerfile": _render("Dockerfile", values), ".dockerignore": _render("dockerignore", values)}
    _write(files, options["output"], options["force"])
    _mention_health(health)


def _requirements() -> str:
    """Return what pip is told to install: the project of this directory, or what it requires."""
    if Path("pyproject.toml").is_file():
        return "."
    return "-r requirements.txt" if Path("requirements.txt").is_file() else "armature-framework"


@_subcommand(*_serving, _workers_option("1"), _delay_option(0), _image_option, _output_option("."))
def compose(plan: _Plan) -> None:
    """Make a compose file beside the Dockerfile of `armature deploy docker`."""
    options = plan.options
    values = {
        "name": plan.name,
        "image": plan.image,
        "port": options["port"],
        "command": json.dumps(plan.container_arguments()),
        "shutdown_timeout": options["shutdown_timeout"],
        "grace": plan.grace,
    }
    _write({"compose.yaml": _render("compose.yaml", values)}, options["output"], options["force"])


#: The manifests of an app, which the chart holds as templates.
MANIFESTS = ("deployment", "service", "autoscaler", "disruption-budget")


def _manifests(values: Mapping[str, object]) -> dict[str, str]:
    return {f"{name}.yaml": _render(f"kubernetes/{name}.yaml", values) for name in MANIFESTS}


def _yaml_list(words: list[str]) -> str:
    return "\n".join(f"            - {json.dumps(word)}" for word in words)


@_subcommand(
    *_serving,
    _workers_option("1"),
    _delay_option(10),
    _health_option,
    _image_option,
    _output_option("deploy/kubernetes"),
)
def kubernetes(plan: _Plan) -> None:
    """Make manifests for Kubernetes: deployment with probes, service, autoscaler, disruption budget."""
    options = plan.options
    values = {
        "name": plan.name,
        "image": plan.image,
        "port": options["port"],
        "command": _yaml_list(plan.container_arguments()),
        "grace": plan.grace,
        "health": options["health_path"],
        "env": "[]",
        "least": 2,
        "most": 10,
        "busy": 70,
        "cpu": "250m",
        "memory": "128Mi",
        "memory_limit": "512Mi",
    }
    _write(_manifests(values), options["output"], options["force"])
    _mention_health(options["health_path"])


@_subcommand(
    *_serving, _workers_option("1"), _delay_option(10), _health_option, _image_option, _output_option("deploy/helm")
)
def helm(plan: _Plan) -> None:
    """Make a Helm chart of the same manifests."""
    options = plan.options
    repository, tag = _split_image(plan.image)
    values = {
        "name": plan.name,
        "app": plan.target,
        "repository": repository,
        "tag": tag,
        "port": options["port"],
        "workers": options["workers"],
        "shutdown_delay": options["shutdown_delay"],
        "shutdown_timeout": options["shutdown_timeout"],
        "extra": json.dumps(plan.trust),
        "health": options["health_path"],
    }
    command = ["armature", "run", plan.target, *(["--factory"] if options["factory"] else []), "--host=0.0.0.0"]
    command += [
        f"--{option}={{{{ .Values.{value} }}}}"
        for option, value in (
            ("port", "port"),
            ("workers", "workers"),
            ("shutdown-delay", "shutdownDelay"),
            ("shutdown-timeout", "shutdownTimeout"),
        )
    ]
    more = "{{- range .Values.arguments }}\n            - {{ . | quote }}\n            {{- end }}"
    expressions = {
        "name": "{{ .Release.Name }}",
        "image": "{{ .Values.image.repository }}:{{ .Values.image.tag }}",
        "port": "{{ .Values.port }}",
        "command": f"{_yaml_list(command)}\n            {more}",
        "grace": f"{{{{ add .Values.shutdownDelay .Values.shutdownTimeout {SHUTDOWN_SPARE} }}}}",
        "health": "{{ .Values.healthPath }}",
        "env": "{{ toJson .Values.env }}",
        "least": "{{ .Values.replicas.least }}",
        "most": "{{ .Values.replicas.most }}",
        "busy": "{{ .Values.replicas.busy }}",
        "cpu": "{{ .Values.resources.cpu }}",
        "memory": "{{ .Values.resources.memory }}",
        "memory_limit": "{{ .Values.resources.memoryLimit }}",
    }
    files = {f"{name}.yaml": _render(f"helm/{name}.yaml", values) for name in ("Chart", "values")}
    files |= {f"templates/{name}": text for name, text in _manifests(expressions).items()}
    _write(files, options["output"], options["force"])
    _mention_health(options["health_path"])


@_subcommand(_image_option, _python_option, _output_option("."))
def jenkins(plan: _Plan) -> None:
    """Make a Jenkinsfile: tests, image, roll-out of the chart that `armature deploy helm` makes."""
    options = plan.options
    repository, _ = _split_image(plan.image)
    match = _REPOSITORY.fullmatch(repository)
    assert match is not None
    values = {
        "name": plan.name,
        "target": plan.target + (" --factory" if options["factory"] else ""),
        "repository": repository,
        "registry": f" {match['registry']}" if match["registry"] else "",
        "python": options["python"],
        "requirements": _requirements(),
    }
    _write({"Jenkinsfile": _render("Jenkinsfile", values)}, options["output"], options["force"])
