"""The same app and the same requests on this server and on uvicorn: the answers agree, or differ as this file says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from counterparts import require_module
from wire_client import Peer, Running, eventually

Serve = Callable[..., Running]

#: What every server says of itself, or of its connection.
OWN = ("date", "server", "connection", "content-length", "transfer-encoding")

REQUESTS: dict[str, bytes] = {
    "plain": b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n",
    "path and query": b"GET /scope/%C3%A4%2F/x?a=%20&b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nCookie: c=d\r\n\r\n",
    "absolute form": b"GET http://h/scope?x HTTP/1.1\r\nHost: h\r\n\r\n",
    "http 1.0": b"GET /scope HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "head": b"HEAD /length HTTP/1.1\r\nHost: h\r\n\r\n",
    "options": b"OPTIONS /scope HTTP/1.1\r\nHost: h\r\n\r\n",
    "brew": b"PROPFIND /scope HTTP/1.1\r\nHost: h\r\n\r\n",
    "upgrade": b"GET /scope HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
    "body": b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nHello",
    "empty body": b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "chunked body": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n6\r\n, you!\r\n0\r\n\r\n"
    ),
    "large body": b"POST /size HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    "length": b"GET /length HTTP/1.1\r\nHost: h\r\n\r\n",
    "stream": b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n",
    "stream with length": b"GET /stream-length HTTP/1.1\r\nHost: h\r\n\r\n",
    "no content": b"GET /no-content HTTP/1.1\r\nHost: h\r\n\r\n",
    "headers": b"GET /headers HTTP/1.1\r\nHost: h\r\n\r\n",
    "date": b"GET /date HTTP/1.1\r\nHost: h\r\n\r\n",
    "failure": b"GET /fail HTTP/1.1\r\nHost: h\r\n\r\n",
    "nothing": b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n",
    "unread body": b"POST /plain HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nHello",
    "two requests": b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n",
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    path: str = scope["path"]

    async def start(status: int, *headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def body(data: bytes = b"", more: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def read() -> bytes:
        data, more = b"", True
        while more:
            event = await receive()
            assert event["type"] == "http.request"
            data += event.get("body", b"")
            more = event.get("more_body", False)
        return data

    if path.startswith("/scope"):
        told = {name: scope[name] for name in ("type", "http_version", "method", "scheme", "path", "root_path")}
        told |= {name: scope[name].decode("latin-1") for name in ("raw_path", "query_string")}
        told["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        told["state"] = scope["state"]
        await start(200, (b"content-type", b"application/json"))
        await body(json.dumps(told).encode())
    elif path == "/echo":
        await start(200)
        await body(await read())
    elif path == "/size":
        await start(200)
        await body(b"%d" % len(await read()))
    elif path == "/length":
        await start(200, (b"content-length", b"5"))
        await body(b"" if scope["method"] == "HEAD" else b"Hello")
    elif path == "/stream":
        await start(200)
        await body(b"one,", True)
        await asyncio.sleep(0)
        await body(b"two", True)
        await body()
    elif path == "/stream-length":
        await start(200, (b"content-length", b"6"))
        await body(b"one", True)
        await body(b"two")
    elif path == "/no-content":
        await start(204)
        await body()
    elif path == "/headers":
        await start(200, (b"set-cookie", b"a=b"), (b"x-a", b"\xe4"), (b"set-cookie", b"c=d"))
        await body(b"x")
    elif path == "/date":
        await start(200, (b"date", b"today"), (b"server", b"mine"))
        await body(b"x")
    elif path == "/fail":
        raise LookupError
    elif path == "/start-and-fail":
        await start(200)
        raise LookupError
    elif path != "/nothing":
        await start(200, (b"content-type", b"text/plain"))
        await body(b"Hello, World!")


@contextlib.contextmanager
def uvicorn() -> Iterator[tuple[str, int]]:
    """uvicorn in a thread; yields its address."""
    package = require_module("uvicorn")
    require_module("httptools")
    config = package.Config(app, log_level="critical", lifespan="off", http="httptools", ws="none", loop="asyncio")
    server = package.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            eventually(lambda: server.started)
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module")
def peer_address() -> Iterator[tuple[str, int]]:
    with uvicorn() as address:
        yield address


def ask(address: Any, request: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    with Peer(address) as peer:
        answer = peer.send(request).answer(request.split(b" ")[0].decode())
        return answer.status, [field for field in answer.fields if field[0] not in OWN], answer.body


@pytest.mark.parametrize("case", REQUESTS)
def test_the_answers_agree(serve: Serve, peer_address: Any, case: str) -> None:
    ours = ask(serve(app).address, REQUESTS[case])
    theirs = ask(peer_address, REQUESTS[case])
    if case in ("failure", "nothing"):
        # The text of a 500 is each server's own.
        ours, theirs = (ours[0], [], b""), (theirs[0], [], b"")
    assert ours == theirs


# ---- what differs, on purpose


def framing(address: Any, path: str, method: str = "GET") -> dict[str, str]:
    with Peer(address) as peer:
        answer = peer.request(method, path).answer(method)
        return {
            name: answer.headers[name] for name in ("content-length", "transfer-encoding") if name in answer.headers
        }


def test_a_complete_body_has_a_length(serve: Serve, peer_address: Any) -> None:
    """uvicorn frames it in chunks, although it is complete, and costs the client a parse."""
    assert framing(serve(app).address, "/plain") == {"content-length": "13"}
    assert framing(peer_address, "/plain") == {"transfer-encoding": "chunked"}


def test_a_status_without_body_has_no_framing(serve: Serve, peer_address: Any) -> None:
    assert framing(serve(app).address, "/no-content") == framing(peer_address, "/no-content") == {}


def test_a_failure_before_the_head_keeps_the_connection(serve: Serve) -> None:
    """uvicorn closes it, although the exchange is complete."""
    with Peer(serve(app).address) as peer:
        assert [peer.get("/fail").status, peer.get("/plain").status] == [500, 200]


def test_a_failure_between_the_head_and_the_body_is_a_500(serve: Serve, peer_address: Any) -> None:
    """uvicorn has sent the head by then; the specification asks servers to wait for the body."""
    assert serve(app).get("/start-and-fail").status == 500
    with Peer(peer_address) as peer:
        assert peer.request(path="/start-and-fail").head().status == 200
        assert peer.ended()
