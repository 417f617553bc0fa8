"""TLS: what is spoken, which certificate is shown to whom, and new certificates while the server runs."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from armature import App, HttpRequest
from armature.exceptions import ConfigurationError
from armature.server import ServerConfig
from counterparts import require
from wire_client import PATIENCE, Peer, Running, eventually

Serve = Callable[..., Running]


class Authority:
    """A certificate authority for one test run.

    Args:
        folder: Where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._serial = 100
        # What Python 3.13 insists on (RFC 5280 sections 4.2.1.3 and 4.2.1.9).
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        self._openssl("ca", "Test authority", 1, extensions)

    def _openssl(self, stem: str, name: str, serial: int, more: list[str]) -> None:
        command = [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-set_serial", str(serial)]
        command += ["-keyout", str(self.folder / f"{stem}.key"), "-out", str(self.folder / f"{stem}.pem")]
        subprocess.run([*command, *more], check=True, capture_output=True)

    def issue(self, stem: str, *names: str) -> tuple[str, str]:
        """Make a certificate and its key, with a serial number of its own; a second call replaces the files."""
        self._serial += 1
        signed = ["-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key")]
        alternatives = ",".join(f"DNS:{name}" for name in names)
        extensions = ["basicConstraints=CA:FALSE", "authorityKeyIdentifier=keyid", f"subjectAltName={alternatives}"]
        for extension in extensions:
            signed += ["-addext", extension]
        self._openssl(stem, names[0], self._serial, signed)
        return str(self.folder / f"{stem}.pem"), str(self.folder / f"{stem}.key")

    @property
    def serial(self) -> str:
        """The serial number of the latest certificate, as `getpeercert` shows it."""
        return f"{self._serial:02X}"

    def context(self, *client: str) -> ssl.SSLContext:
        """What a client uses that trusts this authority, perhaps with a certificate of its own."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if client:
            context.load_cert_chain(*client)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def make_app() -> App:
    app = App()

    @app.get("/")
    async def index(request: HttpRequest) -> dict[str, Any]:
        certificate = request.connection.get_extra_info("peercert")
        return {"scheme": request.scheme, "peer": dict(pair[0] for pair in (certificate or {}).get("subject", ()))}

    return app


class SecurePeer(Peer):
    """A peer that asks for a name of its choice, or for none."""

    def __init__(self, running: Running, context: ssl.SSLContext, name: str | None, **options: Any) -> None:
        sock = socket.create_connection(running.address)
        sock.settimeout(PATIENCE)
        try:
            self.socket = context.wrap_socket(sock, server_hostname=name, **options)
        except BaseException:
            sock.close()
            raise
        self.buffer = b""

    @property
    def serial(self) -> str:
        return str(self.socket.getpeercert()["serialNumber"])


def name_shown(running: Running, authority: Authority, name: str | None) -> str:
    """The name in the certificate that a client is shown which asks for `name`."""
    context = authority.context()
    context.check_hostname = False
    with SecurePeer(running, context, name) as peer:
        subject: Any = peer.socket.getpeercert()["subject"]
        return str(subject[0][0][1])


def s_client(running: Running, *arguments: str, told: str = "") -> str:
    """What openssl says of a connection."""
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{running.port}", *arguments]
    done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


# ---- what is spoken


@pytest.fixture
def secure(serve: Serve, pem: tuple[Path, Path]) -> Running:
    return serve(make_app(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-tls1_3"], "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"),
        (["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "Cipher is TLS_CHACHA20_POLY1305_SHA256"),
        (["-tls1_3", "-groups", "X25519"], "Server Temp Key: X25519"),
        (["-tls1_3", "-groups", "P-256"], "Server Temp Key: ECDH, prime256v1"),
        (["-tls1_2"], "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        # The client's hardware decides what is best.
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384"], "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"),
        (["-alpn", "h2,http/1.1"], "ALPN protocol: http/1.1"),
        (["-tls1_2"], "Secure Renegotiation IS supported"),
        (["-tls1_2", "-comp"], "Compression: NONE"),
    ],
)  # fmt: skip
def test_what_is_spoken(secure: Running, arguments: list[str], shown: str) -> None:
    assert shown in s_client(secure, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES128-SHA"],
        ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"],
        ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
        ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
    ],
)
def test_what_is_not_spoken(secure: Running, arguments: list[str]) -> None:
    assert "Cipher is (NONE)" in s_client(secure, *arguments)


def test_a_client_cannot_make_the_server_negotiate_again(secure: Running) -> None:
    shown = s_client(secure, "-tls1_2", told="R\n")
    assert "RENEGOTIATING" in shown
    assert "no renegotiation" in shown


def test_ciphers_and_groups_of_the_operators_choice(serve: Serve, pem: tuple[Path, Path]) -> None:
    running = serve(
        make_app(),
        ssl_certfile=str(pem[0]),
        ssl_keyfile=str(pem[1]),
        ssl_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
        ssl_groups="prime256v1",
    )
    both = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"
    # With a list of one's own, its order counts.
    assert "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256" in s_client(running, "-tls1_2", "-cipher", both)
    assert "Cipher is (NONE)" in s_client(running, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305")
    assert "Cipher is (NONE)" in s_client(running, "-tls1_3", "-groups", "X25519")
    assert "prime256v1" in s_client(running, "-tls1_3", "-groups", "X25519:P-256")


def test_sessions_are_resumed(secure: Running, pem: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=str(pem[0]))
    assert resumed(secure, context, "localhost")


def resumed(running: Running, context: ssl.SSLContext, name: str) -> bool:
    """Whether a second connection goes on with the session of the first."""
    with SecurePeer(running, context, name) as peer:
        assert peer.get("/").status == 200
        session = peer.socket.session
    with SecurePeer(running, context, name, session=session) as peer:
        assert peer.get("/").status == 200
        return bool(peer.socket.session_reused)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_slow_handshake_is_cut(serve: Serve, pem: tuple[Path, Path], sent: bytes) -> None:
    running = serve(make_app(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), ssl_handshake_timeout=0.1)
    with running.connect() as peer:
        assert peer.send(sent).ended()
    context = ssl.create_default_context(cafile=str(pem[0]))
    with running.connect(context=context) as peer:
        assert peer.get("/").status == 200


# ---- which certificate


@pytest.fixture
def several(serve: Serve, authority: Authority) -> Running:
    certificate, key = authority.issue("default", "default.example")
    both = authority.folder / "both.pem"
    both.write_text("".join(Path(part).read_text() for part in authority.issue("b", "*.b.example", "b.example")))
    return serve(
        make_app(),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_sni={
            "a.example": authority.issue("a", "a.example"),
            "*.b.example": str(both),
            "x.b.example": authority.issue("x", "x.b.example"),
        },
    )


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("a.example", "a.example"),
        ("A.EXAMPLE", "a.example"),
        ("www.b.example", "*.b.example"),
        # An exact name is stronger than a pattern, and a pattern stands for one label.
        ("x.b.example", "x.b.example"),
        ("deep.www.b.example", "default.example"),
        ("b.example", "default.example"),
        ("www.a.example", "default.example"),
        ("other.example", "default.example"),
        (None, "default.example"),
    ],
)
def test_the_certificate_of_a_name(several: Running, authority: Authority, asked: str | None, shown: str) -> None:
    assert name_shown(several, authority, asked) == shown


def test_a_server_without_a_default_refuses_other_names(serve: Serve, authority: Authority) -> None:
    running = serve(make_app(), ssl_sni={"a.example": authority.issue("a", "a.example")})
    assert name_shown(running, authority, "a.example") == "a.example"
    for name in ("b.example", None):
        # The loops close without sending the alert that says why.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            name_shown(running, authority, name)
    assert name_shown(running, authority, "a.example") == "a.example"


# ---- clients with certificates


def test_certificates_of_clients(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("server", "localhost")
    options = {"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ca_certs": str(authority.certificate)}
    known = authority.context(*authority.issue("client", "client.example"))
    unknown = authority.context()
    (authority.folder / "other").mkdir()
    foreign = Authority(authority.folder / "other").issue("client", "client.example")
    strange = authority.context(*foreign)

    required = serve(make_app(), **options, ssl_client_auth="required")
    with SecurePeer(required, known, "localhost") as peer:
        assert peer.get("/").body == b'{"scheme":"https","peer":{"commonName":"client.example"}}'
    for context in (unknown, strange):
        # With TLS 1.3 a client learns of it after its own part of the handshake.
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            with SecurePeer(required, context, "localhost") as peer:
                peer.get("/")

    optional = serve(make_app(), **options, ssl_client_auth="optional")
    with SecurePeer(optional, known, "localhost") as peer:
        assert b"client.example" in peer.get("/").body
    with SecurePeer(optional, unknown, "localhost") as peer:
        assert peer.get("/").body == b'{"scheme":"https","peer":{}}'
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        with SecurePeer(optional, strange, "localhost") as peer:
            peer.get("/")


def test_a_client_is_verified_on_every_connection(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("server", "localhost")
    options = {"ssl_certfile": certificate, "ssl_keyfile": key, "ssl_ca_certs": str(authority.certificate)}
    running = serve(make_app(), **options, ssl_client_auth="required")
    context = authority.context(*authority.issue("client", "client.example"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert not resumed(running, context, "localhost")


# ---- new certificates


@pytest.fixture
def renewed(serve: Serve, authority: Authority) -> Running:
    certificate, key = authority.issue("server", "localhost")
    return serve(make_app(), ssl_certfile=certificate, ssl_keyfile=key)


def serial_of(running: Running, authority: Authority) -> str:
    with SecurePeer(running, authority.context(), "localhost") as peer:
        assert peer.get("/").status == 200
        return peer.serial


def test_new_certificates_under_load(renewed: Running, authority: Authority) -> None:
    """Connections that exist go on with what they have; every new one gets the new certificate from then on."""
    stop = threading.Event()
    started = threading.Barrier(5)

    def keep_asking() -> tuple[str, int]:
        count = 0
        with SecurePeer(renewed, authority.context(), "localhost") as peer:
            assert peer.get("/").status == 200
            started.wait(PATIENCE)
            while not stop.is_set():
                assert peer.get("/").status == 200
                count += 1
            return peer.serial, count

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking) for _ in range(4)]
        try:
            started.wait(PATIENCE)
            first = authority.serial
            for _ in range(4):
                authority.issue("server", "localhost")
                assert renewed.call(renewed.server.reload_certificates) is True
                for _ in range(3):
                    assert serial_of(renewed, authority) == authority.serial
        finally:
            stop.set()
    for asked in asking:
        serial, count = asked.result()
        assert serial == first
        assert count > 0


def settle(*paths: str) -> None:
    """Make files look as if they had been written a while ago, and later than any other."""
    settle.past += 1  # type: ignore[attr-defined]
    for path in paths:
        status = os.stat(path)
        moment = status.st_mtime - 10_000 + settle.past  # type: ignore[attr-defined]
        os.utime(path, (moment, moment))


settle.past = 0  # type: ignore[attr-defined]


def test_files_that_have_changed_are_noticed(renewed: Running, authority: Authority) -> None:
    certificates: Any = renewed.server._certificates
    first = authority.serial
    files = authority.issue("server", "localhost")
    settle(*files)
    # Looked at once in a while.
    assert serial_of(renewed, authority) == first
    certificates.check_seconds = 0
    assert serial_of(renewed, authority) == authority.serial
    # Whoever is about to write the second file has just written the first one.
    second = authority.serial
    authority.issue("server", "localhost")
    now = max(os.stat(path).st_mtime for path in files) + 3600
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("armature.server.tls.time.time", lambda: now - 3600 + 0.5)
        assert serial_of(renewed, authority) == second
        patch.setattr("armature.server.tls.time.time", lambda: now)
        assert serial_of(renewed, authority) == authority.serial


def test_a_bad_certificate_replaces_nothing(
    renewed: Running, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificates: Any = renewed.server._certificates
    certificates.check_seconds = 0
    good = authority.serial
    certificate, key = authority.folder / "server.pem", authority.folder / "server.key"
    kept = certificate.read_bytes(), key.read_bytes()
    other, other_key = authority.issue("other", "localhost")
    for bad, bad_key in (
        (b"no certificate", kept[1]),
        (kept[0], b"no key"),
        # Both are good, and do not belong together.
        (Path(other).read_bytes(), kept[1]),
        (b"", b""),
    ):
        certificate.write_bytes(bad)
        key.write_bytes(bad_key)
        settle(str(certificate), str(key))
        caplog.clear()
        for _ in range(3):
            assert serial_of(renewed, authority) == good
        # Said once for each change, not for each connection.
        assert caplog.text.count("the certificates are not replaced: the certificate") == 1
        assert renewed.call(renewed.server.reload_certificates) is False
    key.unlink()
    assert renewed.call(renewed.server.reload_certificates) is False
    shutil.copy(other, certificate)
    shutil.copy(other_key, key)
    settle(str(certificate), str(key))
    assert serial_of(renewed, authority) == authority.serial


def test_all_names_are_loaded_again(several: Running, authority: Authority) -> None:
    serials = {}
    for stem, name in (("a", "a.example"), ("x", "x.b.example"), ("default", "default.example")):
        authority.issue(stem, name)
        serials[name] = authority.serial
    assert several.call(several.server.reload_certificates) is True
    for name, serial in serials.items():
        with SecurePeer(several, authority.context(), name) as peer:
            assert peer.serial == serial


def test_new_authorities_of_clients(serve: Serve, authority: Authority) -> None:
    certificate, key = authority.issue("server", "localhost")
    (authority.folder / "new").mkdir()
    new = Authority(authority.folder / "new")
    trusted = authority.folder / "clients.pem"
    shutil.copy(authority.certificate, trusted)
    running = serve(
        make_app(), ssl_certfile=certificate, ssl_keyfile=key, ssl_ca_certs=str(trusted), ssl_client_auth="required"
    )
    old_client = authority.context(*authority.issue("client", "old.example"))
    new_client = authority.context(*new.issue("client", "new.example"))

    def accepted(context: ssl.SSLContext) -> bool:
        try:
            with SecurePeer(running, context, "localhost") as peer:
                return peer.get("/").status == 200
        except (ssl.SSLError, ConnectionError, EOFError):
            return False

    assert (accepted(old_client), accepted(new_client)) == (True, False)
    shutil.copy(new.certificate, trusted)
    assert running.call(running.server.reload_certificates) is True
    assert (accepted(old_client), accepted(new_client)) == (False, True)


def test_a_server_without_files_has_nothing_to_load(serve: Serve) -> None:
    running = serve(make_app())
    assert running.call(running.server.reload_certificates) is False


def test_a_key_with_a_password(authority: Authority) -> None:
    certificate, key = authority.issue("server", "localhost")
    locked = str(authority.folder / "locked.key")
    command = [require("openssl"), "ec", "-in", key, "-aes256", "-passout", "pass:hunter2", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    assert ServerConfig(ssl_certfile=certificate, ssl_keyfile=locked, ssl_keyfile_password="hunter2").tls() is not None
    # OpenSSL would ask on the terminal and wait for ever.
    with pytest.raises(ConfigurationError, match="the key is encrypted; give ssl_keyfile_password"):
        ServerConfig(ssl_certfile=certificate, ssl_keyfile=locked).tls()
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        ServerConfig(ssl_certfile=certificate, ssl_keyfile=locked, ssl_keyfile_password="wrong").tls()


# ---- SIGHUP


@contextlib.contextmanager
def command_serving(folder: Path, *arguments: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    (folder / "main.py").write_text(
        "from armature import App\napp = App()\n@app.get('/')\ndef index(): return 'hello'\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "armature", "run", "main:app", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "Armature" in line)
            yield process, int(line.rsplit(":", 1)[1])
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_sighup_loads_the_certificates_again(authority: Authority) -> None:
    certificate, key = authority.issue("server", "localhost")
    arguments = ["--ssl-certfile", certificate, "--ssl-keyfile", key]
    with command_serving(authority.folder, *arguments, start_new_session=True) as (process, port):

        def serial() -> str:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                with authority.context().wrap_socket(sock, server_hostname="localhost") as tls:
                    return str(tls.getpeercert()["serialNumber"])  # type: ignore[index]

        with Peer(("127.0.0.1", port), context=authority.context()) as kept:
            assert kept.get("/").text == "hello"
            assert serial() == authority.serial
            authority.issue("server", "localhost")
            process.send_signal(signal.SIGHUP)
            eventually(lambda: serial() == authority.serial)
            assert kept.get("/").text == "hello"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of this kind")
def test_a_server_does_not_outlive_its_terminal(authority: Authority) -> None:
    import pty

    certificate, key = authority.issue("server", "localhost")
    (authority.folder / "main.py").write_text("from armature import App\napp = App()\n")
    ready = authority.folder / "log"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(authority.folder)
        os.dup2(os.open(ready, os.O_CREAT | os.O_WRONLY), 2)
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        arguments = ["run", "main:app", "--port", "0", "--ssl-certfile", certificate, "--ssl-keyfile", key]
        os.execv(sys.executable, [sys.executable, "-m", "armature", *arguments])
    try:
        eventually(lambda: ready.exists() and "Armature" in ready.read_text())
        # The window is closed: the kernel sends SIGHUP.
        os.close(terminal)
        eventually(lambda: os.waitpid(pid, os.WNOHANG) == (pid, 0))
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def test_a_slow_client_does_not_fill_the_log(
    serve: Serve, pem: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = serve(make_app(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), ssl_handshake_timeout=0.1)
    with running.connect() as silent, running.connect() as plain:
        plain.request()
        assert silent.ended()
        plain.rest()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
