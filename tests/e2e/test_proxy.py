"""A server behind proxies: who the client is, for native apps and ASGI apps, and who may say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature import App, HttpRequest, HttpResponse
from armature.server import proxy_protocol
from counterparts import require, require_module
from wire_client import REQUEST, Answer, Peer, Running, eventually, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

Serve = Callable[..., Running]

X_FIELDS = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix"]


def native() -> App:
    app = App()

    @app.get("/")
    async def index(request: HttpRequest) -> dict[str, Any]:
        return {
            "client": request.client,
            "scheme": request.scheme,
            "host": request.host,
            "url": str(request.url),
            "base_url": str(request.base_url),
            "index": str(request.url_for("index")),
        }

    @app.get("/client")
    def client(request: HttpRequest) -> HttpResponse:
        return HttpResponse.json(request.client)

    @app.get("/later")
    async def later(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse.json(request.client)

    return app


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers with its scope."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
        return
    shown = {name: scope[name] for name in ("client", "scheme", "path", "root_path")}
    shown["raw_path"] = scope["raw_path"].decode()
    shown["hosts"] = [value.decode() for name, value in scope["headers"] if name == b"host"]
    body = json.dumps(shown).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def read(answer: Answer) -> Any:
    assert answer.status == 200
    return json.loads(answer.body)


# ---- the fields


def test_the_request_is_the_clients(serve: Serve) -> None:
    running = serve(native(), trusted_proxies=["127.0.0.1"], forwarded_headers=X_FIELDS)
    found = read(
        running.get(
            "/?a=b",
            X_Forwarded_For="6.6.6.6, 192.0.2.1",
            X_Forwarded_Proto="https",
            X_Forwarded_Host="shop.example",
            X_Forwarded_Port="8443",
            X_Forwarded_Prefix="/shop",
        )
    )
    assert found == {
        "client": ["192.0.2.1", 0],
        "scheme": "https",
        "host": "shop.example:8443",
        "url": "https://shop.example:8443/shop/?a=b",
        "base_url": "https://shop.example:8443/shop/",
        "index": "https://shop.example:8443/shop/",
    }


def test_forwarded(serve: Serve) -> None:
    running = serve(native(), trusted_proxies="127.0.0.0/8", forwarded_headers="forwarded")
    found = read(running.get("/", Forwarded='for="[2001:db8::7]:47011";proto=https;host=shop.example'))
    assert found["client"] == ["2001:db8::7", 47011]
    assert found["url"] == "https://shop.example/"


def test_one_connection_carries_requests_of_many_clients(serve: Serve) -> None:
    running = serve(native(), trusted_proxies=["127.0.0.1"])
    with running.connect() as peer:
        own = peer.socket.getsockname()
        for number in range(1, 6):
            address = f"192.0.2.{number}"
            assert read(peer.get("/client", X_Forwarded_For=address)) == [address, 0]
            assert read(peer.get("/later", X_Forwarded_For=address)) == [address, 0]
        assert read(peer.get("/client")) == list(own)
        # Also of those that come in one read.
        for number in range(1, 6):
            peer.request("GET", "/later", X_Forwarded_For=f"192.0.2.{number}")
        assert [read(peer.answer())[0] for _ in range(5)] == [f"192.0.2.{number}" for number in range(1, 6)]


def test_nobody_is_believed_unless_the_operator_says_so(serve: Serve) -> None:
    running = serve(native())
    with running.connect() as peer:
        own = list(peer.socket.getsockname())
        found = read(peer.get("/", X_Forwarded_For="6.6.6.6", X_Forwarded_Proto="https", Forwarded="for=6.6.6.6"))
        assert (found["client"], found["scheme"], found["url"]) == (own, "http", "http://test/")


def test_a_peer_that_is_no_proxy_is_not_believed(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(native(), trusted_proxies=["192.0.2.0/24", "unix"], forwarded_headers=X_FIELDS)
    with running.connect() as peer:
        own = list(peer.socket.getsockname())
        for _ in range(3):
            found = read(peer.get("/", X_Forwarded_For="6.6.6.6", X_Forwarded_Proto="https", X_Forwarded_Host="evil"))
            assert (found["client"], found["url"]) == (own, "http://test/")
    [line] = [record.getMessage() for record in caplog.records if record.name == "armature.proxy"]
    assert line == (
        "ignored X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto from the peer 127.0.0.1, which is not in "
        "trusted_proxies"
    )


def test_a_peer_on_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for trusted, client in ((["unix"], ["192.0.2.1", 0]), (["127.0.0.1"], None)):
            path = f"{folder}/{len(trusted[0])}"
            serve(native(), uds=path, trusted_proxies=trusted)
            with Peer(path) as peer:
                assert read(peer.get("/client", X_Forwarded_For="192.0.2.1")) == client


def test_the_access_log_names_the_client(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "armature.access")
    running = serve(native(), trusted_proxies=["127.0.0.1"], access_log=True)
    assert running.get("/client", X_Forwarded_For="192.0.2.1").status == 200
    eventually(lambda: '192.0.2.1 "GET /client HTTP/1.1" 200' in caplog.text)


def test_llhttp_reads_the_requests(serve: Serve) -> None:
    require_module("httptools")
    running = serve(native(), trusted_proxies=["127.0.0.1"], proxy_protocol=True, http="httptools", tcp_quickack=True)
    with running.connect() as peer:
        assert read(peer.send(V1).get("/client")) == ["192.0.2.1", 5555]


def test_an_app_that_is_mounted(serve: Serve) -> None:
    app = native()
    app.mount("/other", asgi)
    running = serve(app, trusted_proxies=["127.0.0.1"])
    found = read(running.get("/other/x", X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https"))
    assert (found["client"], found["scheme"], found["root_path"]) == (["192.0.2.1", 0], "https", "/other")


def test_an_asgi_app(serve: Serve) -> None:
    running = serve(asgi, trusted_proxies=["127.0.0.1"], forwarded_headers=X_FIELDS, root_path="/own")
    found = read(
        running.get(
            "/a%20b",
            X_Forwarded_For="6.6.6.6, 192.0.2.1",
            X_Forwarded_Proto="https",
            X_Forwarded_Host="shop.example",
            X_Forwarded_Prefix="/shop/",
        )
    )
    assert found == {
        "client": ["192.0.2.1", 0],
        "scheme": "https",
        "path": "/shop/a b",
        "raw_path": "/shop/a%20b",
        "root_path": "/shop",
        "hosts": ["shop.example"],
    }
    with running.connect() as peer:
        found = read(peer.get("/x"))
        assert found["client"] == list(peer.socket.getsockname())
        assert (found["scheme"], found["path"], found["root_path"], found["hosts"]) == (
            "http",
            "/own/x",
            "/own",
            ["test"],
        )


def test_a_root_path_without_proxies(serve: Serve) -> None:
    found = read(serve(native(), root_path="/shop/").get("/", X_Forwarded_For="6.6.6.6"))
    assert found["url"] == "http://test/shop/"
    assert found["index"] == "http://test/shop/"
    assert found["client"][0] == "127.0.0.1"


def test_a_server_without_proxies_knows_nothing_of_them() -> None:
    code = (
        "import asyncio, sys\n"
        "from armature import App\n"
        "from armature.server import Server\n"
        "async def main():\n"
        "    async with Server(App(), port=0): pass\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if 'proxy' in name or 'forwarded' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# ---- nginx in front

NGINX = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    upstream app {{ server 127.0.0.1:{port}; keepalive 8; }}
    server {{
        listen unix:{home}/front proxy_protocol;
        set_real_ip_from unix:;
        real_ip_header proxy_protocol;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location / {{
            proxy_pass http://app;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
        }}
        location /below/ {{
            proxy_pass http://app/;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Prefix /below;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(port: int) -> Iterator[str]:
    """nginx before a server; yields the Unix socket of a port that takes clients' addresses from a PROXY header."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as folder:
        home = Path(folder)
        (home / "nginx.conf").write_text(NGINX.format(home=home, port=port))
        command = [require("nginx"), "-p", folder, "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
            try:
                eventually(lambda: process.poll() is not None or (home / "front").exists())
                assert process.poll() is None, (home / "error.log").read_text()
                yield str(home / "front")
            finally:
                process.terminate()


def through(front: str, client: str, path: str, **fields: str) -> Any:
    with Peer(front) as peer:
        peer.send(f"PROXY TCP4 {client} 203.0.113.7 5555 443\r\n".encode())
        return read(peer.get(path, **fields))


def test_behind_nginx(serve: Serve) -> None:
    fields = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-prefix"]
    running = serve(native(), trusted_proxies=["127.0.0.1"], forwarded_headers=fields)
    with nginx(running.port) as front:
        for number in range(1, 9):
            # What the client claims comes in front of what nginx appends.
            found = through(front, f"192.0.2.{number}", "/", X_Forwarded_For="6.6.6.6", X_Forwarded_Host="evil")
            assert found["client"] == [f"192.0.2.{number}", 0]
            assert found["url"] == "https://test/"
        found = through(front, "192.0.2.9", "/below/?a=b", X_Forwarded_Prefix="/evil")
        assert found["url"] == "https://test/below/?a=b"
        assert found["index"] == "https://test/below/"
        # All of that went over few connections.
        assert len(running.state.connections) <= 2


# ---- the PROXY protocol

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 203.0.113.7 5555 443\r\n"
V2 = (
    SIGNATURE
    + b"\x21\x11\x00\x0c"
    + socket.inet_aton("192.0.2.1")
    + socket.inet_aton("203.0.113.7")
    + b"\x15\xb3\x01\xbb"
)
V2_TLV = SIGNATURE + b"\x21\x11\x00\x12" + V2[16:] + b"\x04\x00\x03abc"
V2_LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
V2_UNIX = SIGNATURE + b"\x21\x31\x00\xd8" + b"/a".ljust(216, b"\0")
TRUSTING = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True}


@pytest.mark.parametrize("header", [V1, V2, V2_TLV])
def test_a_proxy_header(serve: Serve, header: bytes) -> None:
    running = serve(native(), **TRUSTING)
    with running.connect() as peer:
        for _ in range(3):
            peer.send(header + REQUEST.replace(b" / ", b" /client ") * 2)
            header = b""
            assert [read(peer.answer()) for _ in range(2)] == [["192.0.2.1", 5555]] * 2
        [connection] = running.state.connections
        assert connection.server == ("203.0.113.7", 443)


@pytest.mark.parametrize("header", [V1, V2_TLV])
def test_a_proxy_header_cut_anywhere(header: bytes) -> None:
    stream = header + REQUEST.replace(b" / ", b" /client ")
    with serving(native(), "asyncio", **TRUSTING) as running:
        for cut in range(1, len(header) + 2):
            with running.connect() as peer:
                peer.send(stream[:cut])
                # So that the server has seen the first part alone.
                eventually(lambda: len(running.server._gate._waiting) == 1 or running.state.connections)  # type: ignore[union-attr]
                assert read(peer.send(stream[cut:]).answer()) == ["192.0.2.1", 5555]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", V2_LOCAL])
def test_a_connection_of_the_proxy_itself(serve: Serve, header: bytes) -> None:
    with serve(native(), **TRUSTING).connect() as peer:
        peer.send(header)
        assert read(peer.get("/client")) == list(peer.socket.getsockname())


def test_a_client_on_a_unix_socket_of_the_proxy(serve: Serve) -> None:
    # It is the proxy's Unix socket, not ours: nobody there is trusted.
    with serve(native(), **{**TRUSTING, "trusted_proxies": ["127.0.0.1", "unix"]}).connect() as peer:
        assert read(peer.send(V2_UNIX).get("/client", X_Forwarded_For="6.6.6.6")) is None


def test_a_proxy_on_our_unix_socket(serve: Serve) -> None:
    with tempfile.TemporaryDirectory() as folder:
        serve(native(), uds=f"{folder}/socket", trusted_proxies=["unix"], proxy_protocol=True)
        with Peer(f"{folder}/socket") as peer:
            assert read(peer.send(V2).get("/client", X_Forwarded_For="6.6.6.6")) == ["192.0.2.1", 5555]


def test_curl_speaks_the_proxy_protocol(serve: Serve) -> None:
    running = serve(native(), **TRUSTING)
    command = [require("curl"), "-sS", "--haproxy-protocol", f"http://127.0.0.1:{running.port}/client"]
    command += [f"http://127.0.0.1:{running.port}/client", "-w", " %{local_port}\n"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    [address, port] = done.stdout.splitlines()[0].rsplit(" ", 1)
    assert json.loads(address) == ["127.0.0.1", int(port)]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (REQUEST, "its PROXY header cannot be read: there is none"),
        (b"PROXY TCP4 1 2 3 4\r\n" + REQUEST, "the line is malformed"),
        (SIGNATURE + b"\x11\x11\x00\x0c" + V2[16:], "its version is 1"),
        (SIGNATURE + b"\x21\x12\x00\x0c" + V2[16:], "it is not for a stream"),
        (SIGNATURE + b"\x21\x11\xff\xff", "it is 65551 bytes long"),
    ],
)
def test_what_is_no_header_ends_the_connection(
    serve: Serve, stream: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(native(), **TRUSTING)
    with running.connect() as peer:
        assert peer.send(stream).ended()
    assert f"cut off the peer 127.0.0.1: {reason}" in caplog.text or f": {reason}" in caplog.text
    assert not running.state.connections


def test_a_peer_that_is_no_proxy_is_cut_off(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(native(), trusted_proxies=["192.0.2.0/24"], proxy_protocol=True)
    for _ in range(3):
        with running.connect() as peer, contextlib.suppress(ConnectionError):
            assert peer.send(V1 + REQUEST).ended()
    assert caplog.text.count("only these may speak the PROXY protocol") == 1
    with pytest.raises((ConnectionError, EOFError)):
        running.get("/")


def test_a_header_that_does_not_come_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proxy_protocol, "HEADER_SECONDS", 0.05)
    running = serve(native(), **TRUSTING)
    with running.connect() as silent, running.connect() as slow:
        slow.send(V1[:20])
        assert silent.ended()
        assert slow.ended()
    assert "its PROXY header did not come in time" in caplog.text


def test_a_peer_that_only_looks_whether_somebody_listens(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "armature.proxy")
    running = serve(native(), **TRUSTING)
    with running.connect() as peer:
        assert peer.shut().ended()
    eventually(lambda: not running.server._gate._waiting)  # type: ignore[union-attr]
    assert "armature.proxy" not in [record.name for record in caplog.records]


def test_the_announced_address_is_a_proxy_only_if_it_is_named(serve: Serve) -> None:
    trusting = serve(native(), trusted_proxies=["*", "192.0.2.0/24"], proxy_protocol=True)
    with trusting.connect() as peer:
        assert read(peer.send(V1).get("/client", X_Forwarded_For="198.51.100.1")) == ["198.51.100.1", 0]
    careful = serve(native(), trusted_proxies=["*"], proxy_protocol=True)
    with careful.connect() as peer:
        assert read(peer.send(V1).get("/client", X_Forwarded_For="198.51.100.1")) == ["192.0.2.1", 5555]


# ---- the PROXY protocol before TLS


def test_a_proxy_header_before_tls(serve: Serve, pem: tuple[Path, Path]) -> None:
    running = serve(native(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), **TRUSTING)
    context = ssl.create_default_context(cafile=str(pem[0]))
    for header in (V1, V2_TLV):
        with socket.create_connection(running.address) as sock:
            sock.settimeout(20)
            sock.sendall(header)
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                peer = Peer.__new__(Peer)
                peer.socket, peer.buffer = tls, b""
                for _ in range(3):
                    found = read(peer.get("/"))
                    assert (found["client"], found["scheme"]) == (["192.0.2.1", 5555], "https")


def test_the_header_and_everything_else_byte_by_byte(serve: Serve, pem: tuple[Path, Path]) -> None:
    running = serve(native(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), **TRUSTING)
    context = ssl.create_default_context(cafile=str(pem[0]))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(running.address) as sock:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in V1:
            sock.sendall(bytes([byte]))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if data := outgoing.read():
                    sock.sendall(data)
                incoming.write(sock.recv(65536))
        # The end of the handshake and the first request in one piece: there is no moment to lose between the two.
        tls.write(REQUEST.replace(b" / ", b" /client "))
        sock.sendall(outgoing.read())
        answer = b""
        while b"\r\n\r\n" not in answer or b"]" not in answer:
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))
        assert answer.endswith(b'["192.0.2.1",5555]')


def test_a_client_that_breaks_off_in_the_handshake(serve: Serve, pem: tuple[Path, Path]) -> None:
    running = serve(native(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), **TRUSTING)
    gate: Any = running.server._gate
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
        with running.connect() as peer:
            peer.send(V1 + garbage)
            if garbage.startswith(b"GET"):
                assert peer.rest() is not None
    eventually(lambda: not gate._waiting)
    with running.connect() as peer:
        peer.send(V1)
        eventually(lambda: gate._waiting)
    eventually(lambda: not gate._waiting)


def test_curl_over_tls(serve: Serve, pem: tuple[Path, Path]) -> None:
    running = serve(native(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), **TRUSTING)
    command = [require("curl"), "-sS", "--haproxy-protocol", "--cacert", str(pem[0])]
    done = subprocess.run(
        [*command, f"https://localhost:{running.port}/client", "-4"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == "127.0.0.1"


# ---- the end


@pytest.mark.parametrize("tls", [False, True])
def test_a_stop_waits_for_a_header_that_is_on_its_way(serve: Serve, tls: bool, pem: tuple[Path, Path]) -> None:
    options = {"ssl_certfile": str(pem[0]), "ssl_keyfile": str(pem[1])} if tls else {}
    running = serve(native(), **TRUSTING, **options)
    gate: Any = running.server._gate
    with running.connect() as peer, running.connect() as silent:
        peer.send(V1[:20])
        eventually(lambda: len(gate._waiting) == 2)
        running.stop(wait=False)
        if not tls:
            assert read(peer.send(V1[20:]).get("/client")) == ["192.0.2.1", 5555]
        running.join()
        assert silent.ended()
    assert not gate._waiting
