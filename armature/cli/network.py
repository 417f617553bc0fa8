"""Options of `armature run` about what stands between the app and its clients: proxies, TLS, TCP."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["NETWORK_OPTIONS", "parse_descriptors"]


def parse_descriptors(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Read `3`, `3,4` or `systemd`; the callback of `--fd`."""
    if value is None or value == "systemd":
        return value
    parts = value.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is no file descriptor; write 3, or 3,4, or systemd", ctx, parameter)
    numbers = tuple(map(int, parts))
    return numbers[0] if len(numbers) == 1 else numbers


def _keepalive(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...] | None:
    if value == "off":
        return None
    parts = value.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is neither off nor IDLE,INTERVAL,COUNT such as 120,30,4", ctx, parameter)
    return tuple(map(int, parts))


def _names(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[str, str | None]]:
    """Read certificates by name: `a.example=cert.pem` or `a.example=cert.pem,key.pem`."""
    found = {}
    for value in values:
        name, equals, files = value.partition("=")
        certificate, _, key = files.partition(",")
        if not equals or not name or not certificate:
            raise click.BadParameter(f"{value!r} is not NAME=CERTIFICATE or NAME=CERTIFICATE,KEY", ctx, parameter)
        found[name] = certificate, key or None
    return found


NETWORK_OPTIONS = (
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        multiple=True,
        metavar="ADDRESS",
        help="Proxy that may say who its client is: an address, a network, unix, or * for any peer; may be repeated.",
    ),
    click.option(
        "--forwarded-header",
        "forwarded_headers",
        multiple=True,
        metavar="FIELD",
        default=("x-forwarded-for", "x-forwarded-proto"),
        show_default=True,
        help="Field that the trusted proxies set: forwarded, or x-forwarded-...; may be repeated.",
    ),
    click.option("--proxy-protocol", is_flag=True, help="Expect a PROXY header before every connection."),
    click.option("--root-path", default="", metavar="PATH", help="Path below which clients see the app."),
    click.option(
        "--ssl-sni",
        multiple=True,
        metavar="NAME=CERT[,KEY]",
        callback=_names,
        help="Certificate for a name, such as a.example or *.example; may be repeated.",
    ),
    click.option(
        "--ssl-ca-certs", type=click.Path(exists=True, dir_okay=False), help="PEM authorities of client certificates."
    ),
    click.option(
        "--ssl-client-auth",
        type=click.Choice(["none", "optional", "required"]),
        default="none",
        show_default=True,
        help="Whether clients need a certificate.",
    ),
    click.option("--ssl-ciphers", metavar="LIST", help="Ciphers for TLS 1.2.  [default: those with forward secrecy]"),
    click.option("--ssl-groups", metavar="LIST", help="Groups for the key exchange.  [default: OpenSSL's]"),
    click.option(
        "--ssl-handshake-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        help="Seconds that a TLS handshake may take.",
    ),
    click.option("--backlog", type=click.IntRange(min=1), default=2048, show_default=True, help="Waiting connections."),
    click.option("--tcp-nodelay/--no-tcp-nodelay", default=True, show_default=True, help="Send small writes at once."),
    click.option("--tcp-quickack/--no-tcp-quickack", default=None, help="Acknowledge at once, or with an answer."),
    click.option(
        "--tcp-defer-accept",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="SECONDS",
        help="Leave connections without data to the kernel for so long.",
    ),
    click.option(
        "--tcp-keepalive",
        callback=_keepalive,
        default="120,30,4",
        show_default=True,
        metavar="IDLE,INTERVAL,COUNT",
        help="When silent peers are probed, or off.",
    ),
    click.option(
        "--tcp-user-timeout",
        type=click.FloatRange(min=0),
        default=0,
        metavar="SECONDS",
        help="How long data may stay unacknowledged.  [default: the system's]",
    ),
    click.option("--tcp-fastopen", type=click.IntRange(min=0), default=0, help="Connections with data in their SYN."),
    click.option("--tcp-send-buffer", type=click.IntRange(min=1), help="Bytes.  [default: the system's]"),
    click.option("--tcp-receive-buffer", type=click.IntRange(min=1), help="Bytes.  [default: the system's]"),
)
