"""Options about proxies, TLS and TCP: what is wrong with them is said before anything starts."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from armature.exceptions import ConfigurationError
from armature.server import ServerConfig
from armature.server.tcp import TcpConfig, tuned
from armature.server.tls import check_sni


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"trusted_proxies": ["10.0.0.1/8"]}, "did you mean 10.0.0.0/8"),
        ({"trusted_proxies": "*", "forwarded_headers": ["via"]}, "forwarded_headers must be of"),
        ({"proxy_protocol": True}, "proxy_protocol needs trusted_proxies"),
        ({"root_path": "shop"}, "root_path must be a path such as '/shop'"),
        ({"root_path": "//evil.example"}, "root_path must be a path"),
        ({"ssl_keyfile": "key.pem"}, "ssl_keyfile needs ssl_certfile"),
        ({"ssl_client_auth": "required"}, "ssl_ca_certs and ssl_client_auth need each other"),
        ({"ssl_certfile": "c.pem", "ssl_ca_certs": "ca.pem"}, "ssl_ca_certs and ssl_client_auth need each other"),
        ({"ssl_client_auth": "maybe"}, "ssl_client_auth must be one of none, optional, required"),
        ({"ssl_ciphers": "HIGH"}, "ssl_ciphers needs ssl_certfile or ssl_sni"),
        ({"ssl_groups": "X25519"}, "ssl_groups needs ssl_certfile or ssl_sni"),
        ({"ssl_handshake_timeout": 0}, "ssl_handshake_timeout must be positive"),
        ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "ssl_sni": {"a.example": "a.pem"}}, "exclude each other"),
        ({"ssl_sni": ["a.example"]}, "ssl_sni must be a mapping"),
        ({"ssl_sni": {"a b": "a.pem"}}, "ssl_sni holds 'a b', which is no name"),
        ({"ssl_sni": {"*": "a.pem"}}, "which is no name"),
        ({"ssl_sni": {"": "a.pem"}}, "which is no name"),
        ({"ssl_sni": {"a.*.example": "a.pem"}}, "which is no name"),
        ({"ssl_sni": {"a.example": ("a", "b", "c")}}, "a pair of the certificate's and the key's"),
        ({"fd": -1}, "fd must be a number"),
        ({"fd": "3"}, "fd must be a number"),
        ({"fd": []}, "fd names no socket"),
        ({"tcp_defer_accept": -1}, "tcp_defer_accept must be a number from 0"),
        ({"tcp_fastopen": 1.5}, "tcp_fastopen must be a number"),
        ({"tcp_user_timeout": -1}, "tcp_user_timeout must be seconds"),
        ({"tcp_keepalive": 60}, "tcp_keepalive must be three numbers"),
        ({"tcp_keepalive": (60, 0, 3)}, "the second number of tcp_keepalive"),
        ({"tcp_keepalive": (60, 1, 1000)}, "the third number of tcp_keepalive"),
        ({"tcp_send_buffer": 0}, "tcp_send_buffer must be a number"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerConfig(**options)
    assert text in str(caught.value)


def test_names_of_certificates_are_normalised() -> None:
    assert check_sni({"A.Example.": "a.pem", "*.b.example": ("b.pem", "b.key"), "bücher.example": Path("c.pem")}) == {
        "a.example": ("a.pem", None),
        "*.b.example": ("b.pem", "b.key"),
        "xn--bcher-kva.example": ("c.pem", None),
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ssl_certfile": "/nowhere.pem"}, "the certificate /nowhere.pem or its key cannot be loaded"),
        ({"ssl_sni": {"a.example": "/nowhere.pem"}}, "the certificate /nowhere.pem or its key cannot be loaded"),
        ({"ssl_ciphers": "NONSENSE"}, "ssl_ciphers 'NONSENSE' names no cipher"),
        ({"ssl_groups": "nonsense"}, "ssl_groups 'nonsense' names no group"),
        ({"ssl_ca_certs": "/nowhere.pem", "ssl_client_auth": "required"}, "ssl_ca_certs /nowhere.pem cannot be loaded"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(options: dict[str, Any], text: str) -> None:
    config = ServerConfig(**{"ssl_certfile": "/nowhere.pem", **options})
    with pytest.raises(ConfigurationError) as caught:
        config.tls()
    assert text in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(ServerConfig(ssl_certfile="c.pem", ssl_keyfile_password="hunter2"))


def test_plain_tcp_has_no_context() -> None:
    assert ServerConfig().tls() is None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert ServerConfig(ssl_context=context).tls() is context


class FakeSocket:
    """A listener that remembers, on a system that refuses some options."""

    family = socket.AF_INET

    def __init__(self, refused: frozenset[int] = frozenset()) -> None:
        self.options: dict[tuple[int, int], int] = {}
        self.refused = refused

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if option in self.refused:
            raise OSError(92, "Protocol not available")
        self.options[level, option] = value


def test_what_the_system_lacks_is_left_out(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG, "armature.server")
    monkeypatch.delattr(socket, "TCP_DEFER_ACCEPT", raising=False)
    listener: Any = FakeSocket(refused=frozenset({socket.TCP_NODELAY}))
    TcpConfig(defer_accept=5, keepalive=None).prepare(listener)
    assert listener.options == {}
    assert "TCP_DEFER_ACCEPT is not available on this system" in caplog.text
    assert "TCP_NODELAY=1 was refused by the system: [Errno 92] Protocol not available" in caplog.text


def test_unix_sockets_are_left_alone() -> None:
    listener: Any = FakeSocket()
    listener.family = getattr(socket, "AF_UNIX", -1)
    TcpConfig(quickack=True, nodelay=False).prepare(listener)
    TcpConfig(quickack=True, nodelay=False).tune(listener)
    assert listener.options == {}


def test_a_peer_that_is_gone_does_not_matter() -> None:
    connection: Any = FakeSocket(refused=frozenset({socket.TCP_NODELAY}))
    TcpConfig(nodelay=False).tune(connection)
    assert connection.options == {}


def test_the_class_of_connections_stays_as_it_is_unless_each_needs_a_setting() -> None:
    class Base:
        __slots__ = ()

    assert tuned(Base, TcpConfig()) is Base
    assert tuned(Base, TcpConfig(defer_accept=1, fastopen=5, user_timeout=3)) is Base
    assert issubclass(tuned(Base, TcpConfig(nodelay=False)), Base)
    assert issubclass(tuned(Base, TcpConfig(quickack=False)), Base)
