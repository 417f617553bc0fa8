"""Checks a peer's answers before anything is timed: a peer that answers wrongly is not compared."""

from __future__ import annotations

import http.client
import io
import json
import socket

from benchmarks.http.loads import JSON, Exchange, Load
from benchmarks.http.peers import HOST

TIMEOUT = 10.0


def check(port: int, load: Load, fixed: bool) -> str | None:
    """Ask everything that a load wants answered and return what is wrong, or None.

    Args:
        port: Where the peer listens.
        load: Which load.
        fixed: Whether the peer answers with fixed bytes, and so is spared the variations.
    """
    exchanges = [exchange for exchange in load.exchanges if exchange.fixed or not fixed]
    try:
        connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT)
        try:
            for exchange in exchanges:
                wrong = _ask(connection, exchange, load.close)
                if wrong:
                    return f"{exchange.path}: {wrong}"
        finally:
            connection.close()
        if load.depth > 1:
            return _pipeline(port, load)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _ask(connection: http.client.HTTPConnection, exchange: Exchange, close: bool) -> str | None:
    headers = {"Connection": "close"} if close else {}
    if exchange.payload is not None:
        headers["Content-Type"] = JSON if exchange.payload.startswith(b"{") else "application/octet-stream"
    connection.request("GET" if exchange.payload is None else "POST", exchange.path, exchange.payload, headers)
    response = connection.getresponse()
    wrong = _compare(response, response.read(), exchange)
    if wrong is None and not close and response.will_close and response.status == 200:
        wrong = "the connection is not kept alive"
    if wrong is None and close and connection.sock is not None and not _ends(connection.sock):
        wrong = "the connection is kept alive although the request says `close`"
    return wrong


def _ends(connection: socket.socket) -> bool:
    """Tell whether the server closes the connection; it need not announce it (RFC 9112 section 9.6)."""
    connection.settimeout(2.0)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def _compare(response: http.client.HTTPResponse, body: bytes, exchange: Exchange) -> str | None:
    expected = exchange.status
    if response.status != expected if isinstance(expected, int) else response.status not in expected:
        return f"status {response.status}, not {expected}: {body[:200]!r}"
    if exchange.media_type is not None:
        media_type = (response.getheader("content-type") or "").partition(";")[0].strip().lower()
        if media_type != exchange.media_type:
            return f"content-type {media_type!r}, not {exchange.media_type!r}"
    if isinstance(exchange.body, bytes):
        if body != exchange.body:
            return f"body of {len(body)} bytes {body[:60]!r}, not {len(exchange.body)} bytes {exchange.body[:60]!r}"
    elif exchange.body is not None:
        try:
            value = json.loads(body)
        except ValueError:
            return f"body {body[:60]!r} is no JSON"
        if value != exchange.body:
            return f"body {body[:60]!r}, not {exchange.body!r}"
    for name, value in exchange.headers:
        if response.getheader(name) != value:
            return f"header {name}: {response.getheader(name)!r}, not {value!r}"
    return None


class _Replies:
    """Gives `HTTPResponse` one buffered reader for many responses of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.reader = connection.makefile("rb")

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Unclosed(self.reader)  # type: ignore[return-value]


class _Unclosed:
    """A response closes its reader at its end; this one stays open for the next response."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self.reader = reader

    def __getattr__(self, name: str) -> object:
        return getattr(self.reader, name)

    def close(self) -> None:
        return None


def _pipeline(port: int, load: Load) -> str | None:
    """Send `depth` requests at once; every one must be answered in full."""
    exchange = load.exchanges[0]
    request = f"GET {exchange.path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    with socket.create_connection((HOST, port), timeout=TIMEOUT) as connection:
        connection.sendall(request * load.depth)
        replies = _Replies(connection)
        for number in range(load.depth):
            response = http.client.HTTPResponse(replies)  # type: ignore[arg-type]
            response.begin()
            wrong = _compare(response, response.read(), exchange)
            if wrong:
                return f"pipelined request {number + 1} of {load.depth}: {wrong}"
    return None
