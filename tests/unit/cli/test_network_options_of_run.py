"""Options of `armature run` about proxies, TLS and TCP: how they reach the server, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from armature.cli.main import armature as group


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The options that `armature run` would have served with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("armature.server.run", lambda app, **options: calls.append(options), raising=False)
    monkeypatch.chdir(tmp_path)
    return calls


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(group, ["run", "shop:app", *arguments])


def test_they_reach_the_server(served: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    result = invoke(
        "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "unix", "--forwarded-header", "forwarded", "--proxy-protocol",
        "--root-path", "/shop", "--ssl-sni", "a.example=a.pem", "--ssl-sni", "*.b.example=b.pem,b.key",
        "--ssl-ca-certs", "ca.pem", "--ssl-client-auth", "optional", "--ssl-ciphers", "HIGH", "--ssl-groups", "X25519",
        "--ssl-handshake-timeout", "2.5", "--backlog", "64", "--no-tcp-nodelay", "--tcp-quickack",
        "--tcp-defer-accept", "3", "--tcp-keepalive", "60,10,3", "--tcp-user-timeout", "1.5", "--tcp-fastopen", "8",
        "--tcp-send-buffer", "65536", "--tcp-receive-buffer", "32768", "--fd", "3,4",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (options,) = served
    expected = {
        "trusted_proxies": ("10.0.0.0/8", "unix"),
        "forwarded_headers": ("forwarded",),
        "proxy_protocol": True,
        "root_path": "/shop",
        "ssl_sni": {"a.example": ("a.pem", None), "*.b.example": ("b.pem", "b.key")},
        "ssl_ca_certs": "ca.pem",
        "ssl_client_auth": "optional",
        "ssl_ciphers": "HIGH",
        "ssl_groups": "X25519",
        "ssl_handshake_timeout": 2.5,
        "backlog": 64,
        "tcp_nodelay": False,
        "tcp_quickack": True,
        "tcp_defer_accept": 3,
        "tcp_keepalive": (60, 10, 3),
        "tcp_user_timeout": 1.5,
        "tcp_fastopen": 8,
        "tcp_send_buffer": 65536,
        "tcp_receive_buffer": 32768,
        "fd": (3, 4),
    }
    assert {name: options[name] for name in expected} == expected


def test_without_them_the_defaults_are_those_of_the_configuration(served: list[dict[str, Any]]) -> None:
    from armature.server import ServerConfig

    assert invoke().exit_code == 0
    (options,) = served
    fields = {name: value for name, value in options.items() if name.startswith(("ssl", "tcp", "trusted", "forwarded"))}
    assert len(fields) > 15
    fields |= {name: options[name] for name in ("proxy_protocol", "root_path", "backlog", "fd")}
    config = ServerConfig()
    given = ServerConfig(**fields)
    assert {name: getattr(given, name) or None for name in fields} == {
        name: getattr(config, name) or None for name in fields
    }


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--fd", "three"], "'three' is no file descriptor; write 3, or 3,4, or systemd"),
        (["--tcp-keepalive", "60"], "neither off nor IDLE,INTERVAL,COUNT"),
        (["--ssl-sni", "a.pem"], "is not NAME=CERTIFICATE or NAME=CERTIFICATE,KEY"),
        (["--ssl-client-auth", "perhaps"], "'perhaps' is not one of"),
        (["--fd", "3", "--port", "80"], "--port and --fd exclude each other"),
    ],
)
def test_a_wrong_option(served: list[dict[str, Any]], arguments: list[str], text: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert not served


def test_the_sockets_of_systemd(served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert invoke("--tcp-keepalive", "off").exit_code == 0
    assert served[0]["fd"] == "systemd"
    assert served[0]["tcp_keepalive"] is None
    for arguments in (["--port", "8001"], ["--host", "::1"], ["--uds", "socket"], ["--fd", "5"]):
        assert invoke(*arguments).exit_code == 0
        assert served.pop()["fd"] in (None, 5)
    monkeypatch.setenv("LISTEN_FDS", "many")
    result = invoke()
    assert result.exit_code == 2
    assert "LISTEN_FDS must be a number of sockets" in result.stderr
