"""Requests over real sockets: what every client may rely on, on both loops and with both parsers."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armature.app import App
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from counterparts import require, require_module
from wire_client import REQUEST, Peer, Running, eventually

Serve = Callable[..., Running]


def make_app() -> App:
    app = App(body_limit=100_000)
    gate: dict[str, Any] = {}
    app.state.gate = gate

    @app.get("/")
    async def index() -> str:
        return "Hello, World!"

    @app.get("/json")
    async def answer() -> dict[str, Any]:
        return {"message": "Hello, World!", "list": [1, 2, 3]}

    @app.get("/users/{user_id}")
    async def user(user_id: int) -> dict[str, int]:
        return {"id": user_id}

    @app.get("/slow/{name}")
    async def slow(name: str) -> str:
        await asyncio.sleep(0.05)
        return name

    @app.get("/name/{name}")
    async def quick(name: str) -> str:
        return name

    @app.get("/thread")
    def in_thread() -> str:
        return threading.current_thread().name

    @app.get("/nothing")
    async def nothing() -> None:
        return None

    @app.get("/big")
    async def big() -> bytes:
        return b"x" * 3_000_000

    @app.get("/bye")
    async def bye() -> HttpResponse:
        return HttpResponse("bye", headers={"connection": "close"})

    @app.get("/who")
    async def who(req: HttpRequest) -> dict[str, Any]:
        return {"client": req.client, "server": req.server, "scheme": req.scheme, "version": req.http_version}

    @app.get("/fail")
    async def fail() -> None:
        raise ValueError("on purpose")

    @app.post("/echo")
    async def echo(req: HttpRequest) -> bytes:
        return await req.body()

    @app.post("/length")
    async def length(req: HttpRequest) -> str:
        return str(len(await req.body()))

    @app.post("/pieces")
    async def pieces(req: HttpRequest) -> str:
        size = 0
        async for piece in req.stream():
            size += len(piece)
        return str(size)

    @app.post("/ignore")
    async def ignore() -> str:
        return "ignored"

    @app.post("/small", body_limit=10)
    async def small(req: HttpRequest) -> bytes:
        return await req.body()

    return app


@pytest.fixture(params=["armature", "httptools"])
def running(request: pytest.FixtureRequest, serve: Serve) -> Running:
    if request.param == "httptools":
        require_module("httptools")
    return serve(make_app(), http=request.param)


# ---- clients of others


def test_curl(running: Running) -> None:
    url = f"http://127.0.0.1:{running.port}"
    curl = [require("curl"), "--silent", "--show-error", "--max-time", "20"]
    result = subprocess.run([*curl, "-i", f"{url}/"], capture_output=True, check=True)
    head, _, body = result.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"Hello, World!"
    result = subprocess.run([*curl, "-d", "a=1", f"{url}/echo"], capture_output=True, check=True)
    assert result.stdout == b"a=1"
    chunked = [*curl, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", f"{url}/echo"]
    assert subprocess.run(chunked, input=b"z" * 90_000, capture_output=True, check=True).stdout == b"z" * 90_000
    result = subprocess.run([*curl, "-I", f"{url}/"], capture_output=True, check=True)
    assert b"content-length: 13" in result.stdout
    assert subprocess.run([*curl, "--http1.0", f"{url}/"], capture_output=True, check=True).stdout == b"Hello, World!"
    # Twenty requests over one connection.
    many = subprocess.run([*curl, "-w", "%{num_connects}", *[f"{url}/json"] * 20], capture_output=True, check=True)
    assert many.stdout.count(b"message") == 20
    assert many.stdout.count(b"}1") == 1
    assert many.stdout.count(b"}0") == 19


def test_http_client(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    try:
        for _ in range(3):
            connection.request("GET", "/json")
            response = connection.getresponse()
            assert response.status == 200
            assert response.headers["content-type"] == "application/json"
            assert json.loads(response.read()) == {"message": "Hello, World!", "list": [1, 2, 3]}
        connection.request("POST", "/echo", body=iter([b"one", b"two"]), encode_chunked=True)
        assert connection.getresponse().read() == b"onetwo"
        connection.request("HEAD", "/big")
        response = connection.getresponse()
        assert response.headers["content-length"] == "3000000"
        assert response.read() == b""
        connection.request("GET", "/big")
        assert len(connection.getresponse().read()) == 3_000_000
    finally:
        connection.close()


def test_aiohttp_client(running: Running) -> None:
    aiohttp = require_module("aiohttp")

    async def talk() -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{running.port}") as session:

            async def one(number: int) -> None:
                async with session.get(f"/users/{number}") as response:
                    assert await response.json() == {"id": number}
                async with session.post("/echo", data=b"y" * number * 1000) as response:
                    assert len(await response.read()) == number * 1000

            await asyncio.gather(*(one(number) for number in range(1, 40)))

    asyncio.run(talk())


def test_wrk(running: Running) -> None:
    wrk = require("wrk")
    for path in ("/", "/slow/x", "/thread"):
        url = f"http://127.0.0.1:{running.port}{path}"
        result = subprocess.run([wrk, "-t1", "-c16", "-d1s", url], capture_output=True, text=True, check=True)
        assert "requests in" in result.stdout
        assert "Socket errors" not in result.stdout
        assert "Non-2xx" not in result.stdout
    # wrk leaves in the middle of its last requests.
    eventually(lambda: not running.call(running.state.handlers))
    eventually(lambda: not running.state.connections)


# ---- the shape of answers


def test_the_head_of_an_answer(running: Running) -> None:
    answer = running.get("/")
    assert answer.version == "HTTP/1.1"
    assert answer.headers["server"] == "armature"
    assert answer.headers["date"].endswith(" GMT")
    assert answer.headers["content-length"] == "13"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "connection" not in answer.headers


def test_what_a_handler_knows_of_its_connection(running: Running) -> None:
    with running.connect() as peer:
        known = json.loads(peer.get("/who").body)
        assert known == {
            "client": list(peer.socket.getsockname()),
            "server": list(running.address),
            "scheme": "http",
            "version": "1.1",
        }


def test_a_def_handler_runs_in_a_thread(running: Running) -> None:
    assert running.get("/thread").text not in ("MainThread", f"server on {running.loop_name}")


def test_no_content(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.get("/nothing")
        assert answer.status == 204
        assert "content-length" not in answer.headers
        assert peer.get("/").status == 200


def test_head(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.request("HEAD", "/big").answer("HEAD")
        assert answer.headers["content-length"] == "3000000"
        assert peer.get("/").text == "Hello, World!"


def test_misses(running: Running) -> None:
    with running.connect() as peer:
        assert peer.get("/absent").status == 404
        answer = peer.request("POST", "/json", b"{}").answer()
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
        assert peer.get("/users/abc").status == 422
        assert json.loads(peer.get("/users/-12").body) == {"id": -12}


def test_a_handler_that_fails(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as peer:
        assert peer.get("/fail").status == 500
        assert peer.get("/").status == 200


# ---- persistence (RFC 9112 section 9.3)


def test_keep_alive_is_the_rule_of_1_1(running: Running) -> None:
    with running.connect() as peer:
        for _ in range(3):
            assert "connection" not in peer.get("/").headers
        answer = peer.get("/", Connection="close")
        assert answer.headers["connection"] == "close"
        assert peer.ended()


def test_close_is_the_rule_of_1_0(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.send(b"GET / HTTP/1.0\r\n\r\n").answer()
        assert answer.version == "HTTP/1.1"
        assert answer.headers["connection"] == "close"
        assert peer.ended()


def test_a_1_0_client_may_ask_to_keep_alive(running: Running) -> None:
    with running.connect() as peer:
        for _ in range(2):
            answer = peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer()
            assert answer.headers["connection"] == "keep-alive"
        assert peer.send(b"GET / HTTP/1.0\r\n\r\n").answer().headers["connection"] == "close"
        assert peer.ended()


def test_an_app_may_close(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"GET /bye HTTP/1.1\r\nHost: test\r\n\r\n" + REQUEST)
        answer = peer.answer()
        assert answer.headers["connection"] == "close"
        assert [name for name, _ in answer.fields].count("connection") == 1
        assert peer.ended()


# ---- pipelining (RFC 9112 section 9.3.2)


def pipeline(count: int) -> tuple[bytes, list[str]]:
    requests, names = [], []
    for number in range(count):
        kind = "slow" if number in (0, 7, 8, 30) else "name"
        names.append(f"n{number}")
        requests.append(f"GET /{kind}/n{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if number % 5 == 3:
            names.append("x" * number)
            requests.append(
                f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {number}\r\n\r\n".encode() + b"x" * number
            )
        if number % 9 == 4:
            names.append("chunked")
            requests.append(
                b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nchun\r\n3\r\nked\r\n0\r\n\r\n"
            )
    return b"".join(requests), names


def test_answers_leave_in_the_order_of_requests(running: Running) -> None:
    data, names = pipeline(48)
    with running.connect() as peer:
        peer.send(data)
        assert [peer.answer().text for _ in names] == names


@pytest.mark.parametrize("size", [1, 7, 61])
def test_pipelined_requests_in_fragments(running: Running, size: int) -> None:
    data, names = pipeline(12)
    with running.connect() as peer:

        def send() -> None:
            for start in range(0, len(data), size):
                peer.send(data[start : start + size])

        sender = threading.Thread(target=send)
        sender.start()
        assert [peer.answer().text for _ in names] == names
        sender.join()


def test_more_pipelined_requests_than_are_kept(running: Running) -> None:
    count = 6000
    with running.connect() as peer:
        first = b"GET /slow/first HTTP/1.1\r\nHost: test\r\n\r\n"
        sender = threading.Thread(target=peer.send, args=(first + REQUEST * count,))
        sender.start()
        assert peer.answer().text == "first"
        for _ in range(count):
            assert peer.answer().text == "Hello, World!"
        sender.join()


def test_a_peer_that_pipelines_and_does_not_read(running: Running) -> None:
    """Requests are not answered into the void: the server stops reading until the peer reads."""
    count = 200
    with running.connect(receive_buffer=4096) as peer:
        sender = threading.Thread(target=peer.send, args=(b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n" * count,))
        sender.start()
        connection = eventually(lambda: next(iter(running.state.connections), None))
        eventually(lambda: connection.write_paused)
        assert running.call(connection.transport.get_write_buffer_size) < 10_000_000
        for _ in range(5):
            assert len(peer.answer().body) == 3_000_000
        peer.close()
        sender.join()


# ---- bodies


def test_an_expectation_is_met_when_the_handler_asks(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert peer.answer().status == 100
        assert peer.send(b"hello").answer().text == "hello"
        assert peer.get("/").status == 200


def test_an_expectation_of_a_chunked_body(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /pieces HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert peer.answer().status == 100
        assert peer.send(b"5\r\nhello\r\n0\r\n\r\n").answer().text == "5"
        assert peer.get("/").status == 200


def test_an_expectation_that_is_not_needed(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /ignore HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        answer = peer.answer()
        assert (answer.status, answer.text) == (200, "ignored")
        assert answer.headers["connection"] == "close"
        assert peer.ended()


def test_an_expectation_with_a_body_too_large(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /small HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        answer = peer.answer()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        assert peer.ended()


def test_another_expectation(running: Running) -> None:
    with running.connect() as peer:
        assert peer.get("/", Expect="a-pony").status == 417
        assert peer.ended()


def test_a_declared_body_over_the_limit(running: Running) -> None:
    with running.connect() as peer:
        assert peer.request("POST", "/small", b"x" * 10).answer().text == "x" * 10
        assert peer.request("POST", "/small", b"x" * 11).answer().status == 413
        assert peer.ended()


def test_a_chunked_body_over_the_limit(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /small HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n")
        peer.send(b"3\r\n901\r\n")
        assert peer.answer().status == 413
        assert peer.ended()


def test_a_large_upload_that_is_refused_still_gets_its_answer(running: Running) -> None:
    """A client that sends all before it reads must not find a reset where its answer should be."""
    with running.connect() as peer:
        peer.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(20):
            peer.send(b"x" * 1_000_000)
        assert peer.answer().status == 413


def test_a_large_upload_to_a_handler_that_ignores_it(running: Running) -> None:
    with running.connect() as peer:
        answer = peer.request("POST", "/ignore", b"x" * 90_000).answer()
        assert answer.text == "ignored"
        assert "connection" not in answer.headers
        assert peer.get("/").status == 200


def test_a_body_in_pieces(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 90000\r\n\r\n")
        for _ in range(90):
            peer.send(b"x" * 1000)
        assert peer.answer().text == "90000"
        for size in (1, 2, 50_000):
            peer.send(b"POST /pieces HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
            peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
            assert peer.answer().text == str(size)


# ---- refusals


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"a" * 17_000, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 70_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_what_is_refused_and_how(running: Running, data: bytes, status: int) -> None:
    with running.connect() as peer:
        peer.send(data if data[:1] != b"\x16" else data + b"\r\n")
        answer = peer.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert peer.ended()


def test_a_fault_waits_for_its_turn(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"GET /slow/first HTTP/1.1\r\nHost: test\r\n\r\n" + REQUEST + b"BAD\r\n\r\n")
        assert peer.answer().text == "first"
        assert peer.answer().text == "Hello, World!"
        assert peer.answer().status == 400
        assert peer.ended()


def test_empty_lines_before_a_request(running: Running) -> None:
    with running.connect() as peer:
        assert peer.send(b"\r\n\r\n" + REQUEST).answer().status == 200


def test_an_upgrade_that_is_not_offered(running: Running) -> None:
    with running.connect() as peer:
        upgrade = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
        peer.send(upgrade + REQUEST)
        assert peer.answer().status == 200
        assert peer.answer().status == 200


# ---- half-closed connections


def test_a_peer_that_closes_its_side_gets_its_answers(running: Running) -> None:
    with running.connect() as peer:
        peer.send(
            b"GET /slow/a HTTP/1.1\r\nHost: test\r\n\r\n" + REQUEST + b"GET /slow/b HTTP/1.1\r\nHost: test\r\n\r\n"
        ).shut()
        assert [peer.answer().text for _ in range(3)] == ["a", "Hello, World!", "b"]
        assert peer.ended()
    eventually(lambda: not running.state.connections)


def test_a_peer_that_closes_its_side_behind_many_requests(running: Running) -> None:
    with running.connect() as peer:
        peer.send(REQUEST * 50).shut()
        assert peer.rest().count(b"Hello, World!") == 50
    eventually(lambda: not running.state.connections)


def test_a_peer_that_closes_its_side_in_a_head(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"GET /slow/a HTTP/1.1\r\nHost: test\r\n\r\nGET / HT").shut()
        assert peer.answer().text == "a"
        assert peer.ended()
    with running.connect() as peer:
        peer.send(b"GET / HT").shut()
        assert peer.ended()
    eventually(lambda: not running.state.connections)


def test_a_peer_that_closes_its_side_in_a_body(running: Running) -> None:
    with running.connect() as peer:
        peer.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf").shut()
        assert b"half" not in peer.rest()
    eventually(lambda: not running.state.connections)


# ---- TLS


class TestTLS:
    @pytest.fixture(params=["armature", "httptools"])
    def secure(self, request: pytest.FixtureRequest, serve: Serve, pem: tuple[Path, Path]) -> Running:
        if request.param == "httptools":
            require_module("httptools")
        return serve(make_app(), ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]), http=request.param)

    @pytest.fixture
    def context(self, pem: tuple[Path, Path]) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(pem[0]))

    def test_requests(self, secure: Running, context: ssl.SSLContext) -> None:
        assert secure.server.url == f"https://127.0.0.1:{secure.port}"
        with secure.connect(context=context) as peer:
            assert peer.get("/").text == "Hello, World!"
            assert json.loads(peer.get("/who").body)["scheme"] == "https"
            assert peer.request("POST", "/echo", b"x" * 90_000).answer().body == b"x" * 90_000
            assert len(peer.get("/big").body) == 3_000_000
            data, names = pipeline(20)
            peer.send(data)
            assert [peer.answer().text for _ in names] == names

    def test_curl(self, secure: Running, pem: tuple[Path, Path]) -> None:
        command = [require("curl"), "--silent", "--show-error", "--cacert", str(pem[0])]
        command += ["--resolve", f"localhost:{secure.port}:127.0.0.1", f"https://localhost:{secure.port}/"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"Hello, World!"

    def test_a_refused_upload_gets_its_answer(self, secure: Running, context: ssl.SSLContext) -> None:
        with secure.connect(context=context) as peer:
            peer.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 500_000)
            assert peer.answer().status == 413

    def test_plain_http_to_a_tls_port(self, secure: Running) -> None:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        try:
            with secure.connect() as peer:
                peer.send(REQUEST)
                # All that a TLS server can say is an alert, in TLS.
                assert not peer.rest().startswith(b"HTTP/")
        finally:
            logging.getLogger("asyncio").setLevel(logging.NOTSET)
        eventually(lambda: not secure.state.connections)


# ---- other ways in


def test_ipv6(serve: Serve) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    running = serve(make_app(), host="::1")
    assert running.server.url == f"http://[::1]:{running.port}"
    with Peer(("::1", running.port)) as peer:
        assert json.loads(peer.get("/who").body)["client"][0] == "::1"


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    running = serve(make_app(), uds=str(path))
    assert running.server.url == f"unix:{path}"
    with Peer(str(path)) as peer:
        assert json.loads(peer.get("/who").body) == {"client": None, "server": None, "scheme": "http", "version": "1.1"}
        data, names = pipeline(10)
        peer.send(data)
        assert [peer.answer().text for _ in names] == names
        assert len(peer.get("/big").body) == 3_000_000
