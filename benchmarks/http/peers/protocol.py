"""A bare asyncio Protocol with fixed bytes: what a transport costs before any framework."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.http import peers


def answer(content_type: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n" % (content_type, more, len(body))
    return head + body


TEXT, JSON, BYTES = b"text/plain; charset=utf-8", b"application/json", b"application/octet-stream"
MORE = b""
if peers.VARIANT == "middleware":
    MORE = b"".join(
        b"%b: %b\r\n" % (n.encode(), v.encode()) for n, v in map(peers.middleware_header, range(peers.MIDDLEWARE_COUNT))
    )
HELLO = answer(TEXT, peers.HELLO_BYTES, MORE)
HELLO_CLOSE = answer(TEXT, peers.HELLO_BYTES, b"Connection: close\r\n")
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_CHUNK = b"%x\r\n%b\r\n" % (len(peers.CHUNK), peers.CHUNK)
ANSWERS = {
    b"/": HELLO,
    b"/json": answer(JSON, b'{"message":"Hello, World!"}'),
    b"/items": answer(JSON, b'{"name":"Ada Lovelace","age":37}'),
    b"/download": answer(BYTES, peers.MEBIBYTE),
}
ANSWERS |= {
    peers.route_path(i).encode(): answer(TEXT, peers.route_answer(i).encode()) for i in range(peers.ROUTE_COUNT)
}


class FixedBytes(asyncio.Protocol):
    """Answer by path; heads are cut at the empty line and otherwise not read."""

    transport: asyncio.Transport
    carry = b""
    body_left = 0
    body_size = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.carry:
            data = self.carry + data
            self.carry = b""
        replies = []
        at = 0
        while at < len(data):
            if self.body_left:
                taken = min(self.body_left, len(data) - at)
                at += taken
                self.body_left -= taken
                if not self.body_left and self.body_size > 4096:
                    replies.append(answer(TEXT, b"%d" % self.body_size))
                continue
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                self.carry = data[at:]
                break
            start = data.index(b" ", at) + 1
            path = data[start : data.index(b" ", start)]
            head = data[at:end]
            at = end + 4
            if head.startswith(b"POST"):
                where = head.lower().index(b"content-length:") + 15
                self.body_left = self.body_size = int(head[where:].split(b"\r\n", 1)[0])
                if path == b"/upload":
                    continue
            elif path.startswith(b"/suspend/"):
                loop = asyncio.get_running_loop()
                loop.call_soon(self.transport.write, HELLO)
                continue
            elif path.startswith(b"/users/"):
                if path[7:].isdigit():
                    replies.append(answer(JSON, b'{"id":%b}' % path[7:]))
                else:
                    replies.append(NOT_FOUND)
                continue
            elif path == b"/stream":
                self.transport.write(STREAM_HEAD)
                for _ in range(peers.CHUNK_COUNT):
                    self.transport.write(STREAM_CHUNK)
                self.transport.write(b"0\r\n\r\n")
                continue
            if b"\r\nConnection: close" in head:
                self.transport.write(b"".join([*replies, HELLO_CLOSE]))
                self.transport.close()
                return
            replies.append(ANSWERS.get(path, NOT_FOUND))
        if replies:
            self.transport.write(replies[0] if len(replies) == 1 else b"".join(replies))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(FixedBytes, peers.HOST, peers.PORT, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    if peers.LOOP == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
