"""The running server against a peer that breaks every rule: the corpus over real sockets, and cases of our own beside it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from armature import App, HttpRequest, HttpResponse
from corpus import CASES, Case
from twins.harness import responses
from wire_client import Peer, Running, serving

Serve = Callable[..., Running]

#: How long a peer that was answered may be left open before we believe that it stays open.
STILL = 0.15


def make_app() -> App:
    app = App()

    @app.any("/{rest:path}")
    async def echo(request: HttpRequest) -> HttpResponse:
        return HttpResponse(
            await request.body(),
            headers={"x-host": request.header(b"host").decode("latin-1") if request.header(b"host") else ""},
        )

    return app


@pytest.fixture(scope="module", params=["armature", "httptools"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving(make_app(), "asyncio", http=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """The server with our own parser, for what the other engine does not promise."""
    with serving(make_app(), "asyncio") as running:
        yield running


def exchange(server: Running, parts: list[bytes], expected: int) -> tuple[bytes, bool]:
    """Send parts as packets of their own; return what came back, and whether the server closed."""
    peer = Peer(server.address)
    try:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.002)
            try:
                peer.send(part)
            except (BrokenPipeError, ConnectionResetError):
                break
        data = b""
        # No answer is known to be the last: wait for the end, and give up when nothing more comes.
        peer.socket.settimeout(2.0 if expected else STILL)
        while True:
            try:
                piece = peer.socket.recv(65536)
            except TimeoutError:
                return data, False
            except ConnectionResetError:
                return data, True
            if not piece:
                return data, True
            data += piece
            if data.count(b"HTTP/1.1 ") - data.count(b"HTTP/1.1 100") >= expected:
                peer.socket.settimeout(STILL)
    finally:
        peer.socket.close()


def statuses(wire: bytes, count: int) -> list[int]:
    wire = wire.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    return [status for status, _, _ in responses(wire, ["GET"] * (count + 1))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_corpus(own: Running, case: Case) -> None:
    wire, closed = exchange(own, [case.data], len(case.statuses))
    found = statuses(wire, len(case.statuses))
    # An app answers `OPTIONS *` by itself.
    assert found == ([204] if case.name == "valid-asterisk" else case.statuses)
    assert closed is case.closes


HOST = b"Host: example.com\r\n"

#: name, request, whether it is one that must be accepted.
RULES: list[tuple[str, bytes, bool]] = [
    ("simple GET", b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", True),
    ("white space around values", b"GET / HTTP/1.1\r\nHost: \texample.com \t\r\nX:a\r\n\r\n", True),
    ("header names in any case", b"GET / HTTP/1.1\r\nhOsT: example.com\r\n\r\n", True),
    ("percent-encoded target", b"GET /a%20b%2F?c=%26 HTTP/1.1\r\n" + HOST + b"\r\n", True),
    ("body with a length", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", True),
    (
        "body in chunks",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        True,
    ),
    ("absolute form", b"GET http://example.com/path HTTP/1.1\r\n" + HOST + b"\r\n", True),
    ("negative length", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n", False),
    ("length with a letter", b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5x\r\n\r\nhello", False),
    (
        "length and chunks",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        False,
    ),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", False),
    ("two hosts", b"GET / HTTP/1.1\r\n" + HOST + b"Host: other\r\n\r\n", False),
    ("space before the colon", b"GET / HTTP/1.1\r\nHost : example.com\r\n\r\n", False),
    ("folded header", b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", False),
    ("space in a name", b"GET / HTTP/1.1\r\n" + HOST + b"X Y: a\r\n\r\n", False),
    ("no version", b"GET /\r\n" + HOST + b"\r\n", False),
    ("another version", b"GET / HTTP/3.1\r\n" + HOST + b"\r\n", False),
    ("no target", b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", False),
    ("NUL in a value", b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", False),
    (
        "chunk size that is no number",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        False,
    ),
    (
        "chunked is not last",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        False,
    ),
]


@pytest.mark.parametrize("packets", ["one", "two", "bytes"])
@pytest.mark.parametrize(("request_bytes", "good"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_rules(own: Running, request_bytes: bytes, good: bool, packets: str) -> None:
    middle = len(request_bytes) // 2
    parts = {
        "one": [request_bytes],
        "two": [request_bytes[:middle], request_bytes[middle:]],
        "bytes": [request_bytes[at : at + 1] for at in range(len(request_bytes))],
    }[packets]
    wire, closed = exchange(own, parts, 1)
    status = statuses(wire, 1)[0]
    assert (200 <= status < 300) if good else (400 <= status < 600)
    assert closed is not good


@pytest.mark.parametrize(
    ("request_bytes", "good"), [rule[1:] for rule in RULES if rule[2]], ids=[rule[0] for rule in RULES if rule[2]]
)
def test_both_engines_take_what_is_right(server: Running, request_bytes: bytes, good: bool) -> None:
    wire, closed = exchange(server, [request_bytes], 1)
    assert statuses(wire, 1) == [200]
    assert not closed


SMUGGLING = [
    case
    for case in CASES
    if case.name
    in (
        "cl-te",
        "te-cl",
        "te-cl-zero",
        "te-http10",
        "content-length-conflict",
        "content-length-list",
        "chunk-smuggled-request",
    )
    or case.name.startswith(("transfer-encoding-", "te-te", "obs-fold-smuggled", "space-before-colon-te"))
]


@pytest.mark.parametrize("case", SMUGGLING, ids=lambda case: case.name)
def test_no_engine_lets_a_request_through_behind_another(server: Running, case: Case) -> None:
    """Whatever an engine makes of the framing, the bytes behind it are not answered as a request."""
    wire, closed = exchange(server, [case.data + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"], 1)
    assert wire.count(b"HTTP/1.1 200") == 0
    assert closed


def test_the_answer_reaches_a_peer_that_is_still_sending(own: Running) -> None:
    """RFC 9112 section 9.6: closing at once would make the peer's kernel discard the answer."""
    with socket.create_connection(own.address) as sock:
        sock.settimeout(10)
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n")
        try:
            for _ in range(20):
                sock.sendall(b"x" * 16384)
        except OSError:
            pass
        data = b""
        while piece := sock.recv(65536):
            data += piece
    assert data.startswith(b"HTTP/1.1 413 ")


def test_the_target_names_the_host(own: Running) -> None:
    wire, _ = exchange(own, [b"GET http://target.example/ HTTP/1.1\r\nHost: field.example\r\n\r\n"], 1)
    assert responses(wire, ["GET"])[0][1]["x-host"] == "target.example"


def test_a_body_is_echoed_however_it_is_framed(server: Running) -> None:
    body = bytes(range(256)) * 20
    framed = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    for at in range(0, len(body), 500):
        piece = body[at : at + 500]
        chunked += b"%X;part=%d\r\n%b\r\n" % (len(piece), at, piece)
    chunked += b"0\r\nDigest: x\r\n\r\n"
    wire, closed = exchange(server, [framed + chunked], 2)
    assert [found[2] for found in responses(wire, ["POST", "POST"])] == [body, body]
    assert not closed


def test_requests_of_all_kinds_in_one_packet(server: Running) -> None:
    parts = [b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(20)]
    parts[5:5] = [b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"]
    wire, _ = exchange(server, [b"".join(parts)], len(parts))
    methods = [part.split()[0].decode() for part in parts]
    assert [status for status, _, _ in responses(wire, methods)] == [200] * len(parts)
