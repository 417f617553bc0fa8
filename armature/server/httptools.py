"""The second engine: requests are read by llhttp, the parser of Node.js, through the package httptools.

What llhttp understood is written out again in the strictest spelling and handed to the connection, whose own parser
applies every rule once more. So a request is served only if both readers agree on it, no rule exists twice, and
whatever two servers could read differently never gets as far as the connection.
"""

from __future__ import annotations

import logging
from typing import Any

from armature._spec.limits import CHUNK_EXTENSION_LIMIT, HEAD_LIMIT, REQUEST_LINE_LIMIT, TRAILER_LIMIT
from armature._spec.states import State
from armature.exceptions import MissingDependencyError, ProtocolError
from armature.server.protocol import HTTPProtocol
from armature.server.state import ServerState

try:
    import httptools
except ImportError as error:
    raise MissingDependencyError("httptools", "httptools") from error

__all__ = ["HTTPToolsProtocol"]

logger = logging.getLogger("armature.server")

#: What makes the connection's own parser refuse with a status, in its turn behind the requests that are waiting.
_FAULTS = {
    400: b"\0 / HTTP/1.1\r\n",
    414: b"GET /%b" % (b"-" * REQUEST_LINE_LIMIT),
    431: b"GET / HTTP/1.1\r\n-: %b\r\n" % (b"-" * HEAD_LIMIT),
    505: b"GET / HTTP/9.9\r\n",
}

#: Bytes of a body that may be framing alone, one piece after the other.
_FRAMING_LIMIT = CHUNK_EXTENSION_LIMIT + TRAILER_LIMIT


class HTTPToolsProtocol(HTTPProtocol):
    """One connection of a server, read by llhttp.

    Args:
        server: What the server's connections share.
    """

    __slots__ = ("_broken", "_chunked", "_fields", "_in_body", "_llhttp", "_rewritten", "_since", "_target")

    def __init__(self, server: ServerState) -> None:
        super().__init__(server)
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._rewritten: list[bytes] = []
        self._fields: list[bytes] = []
        self._target = b""
        self._chunked = False
        self._in_body = False
        self._broken = False
        #: Bytes read since llhttp last reported something that was passed on.
        self._since = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return memory to receive into; a body cannot be received in place, llhttp is to see it first."""
        return self.server_state.dispatcher.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take received bytes; called by the loop."""
        self.data_received(bytes(self.server_state.dispatcher.read_buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take received bytes."""
        if self.state == State.CLOSING:
            self.discarded(len(data))
            return
        if not self._broken:
            try:
                self._read(data)
            except ProtocolError as error:
                self._broken = True
                if not self._rewritten and not self._in_body and not self.carried and self.state <= State.READING:
                    self.refuse(error)
                    return
                logger.debug("llhttp refused a request: %s", error)
                # A bare LF is neither the size of a chunk nor the end of one.
                self._rewritten.append(b"\n" if self._in_body else _FAULTS[error.status])
        if self._rewritten:
            rewritten, self._rewritten = b"".join(self._rewritten), []
            super().data_received(rewritten)

    def _read(self, data: bytes) -> None:
        while data:
            self._since += len(data)
            try:
                self._llhttp.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # No protocol to change to is offered, so what follows is the next request (RFC 9110 section 7.8).
                data = data[upgrade.args[0] :]
                self._llhttp = httptools.HttpRequestParser(self)
                continue
            except httptools.HttpParserError as error:
                text = str(error.__context__ or error)
                raise ProtocolError(505 if text == "Invalid HTTP version" else 400, text) from error
            break
        if self._in_body:
            if self._chunked and self._since > _FRAMING_LIMIT:
                raise ProtocolError(400, "the chunk extensions are too long")
        elif len(self._target) > REQUEST_LINE_LIMIT:
            raise ProtocolError(414, "the request line is too long")
        elif self._since > HEAD_LIMIT:
            raise ProtocolError(431, "the request head is too large")

    # What llhttp reports.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target = b""
        self._fields.clear()
        self._chunked = False

    def on_url(self, part: bytes) -> None:
        """A part of the request target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or trailer field."""
        self._fields.append(b"%b: %b\r\n" % (name, value))
        if name.lower() == b"transfer-encoding":
            self._chunked = True

    def on_headers_complete(self) -> None:
        """The head is complete: pass it on."""
        if self._chunked and self._llhttp.should_upgrade():
            # llhttp takes what follows such a head for the other protocol, the client for the request's body.
            raise ValueError("a request for an upgrade has a chunked body")
        version = self._llhttp.get_http_version()
        # To llhttp a request line without a version is HTTP/0.9.
        ending = b"\r\n" if version == "0.9" else b" HTTP/%b\r\n" % version.encode("ascii")
        self._rewritten += (self._llhttp.get_method(), b" ", self._target, ending, *self._fields, b"\r\n")
        self._fields.clear()
        self._in_body = True
        self._since = 0

    def on_body(self, data: bytes) -> None:
        """A piece of the body: pass it on."""
        if self._chunked:
            self._rewritten += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._rewritten.append(data)
        self._since = 0

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._chunked:
            self._rewritten += (b"0\r\n", *self._fields, b"\r\n")
        self._fields.clear()
        self._in_body = False
        self._since = 0
