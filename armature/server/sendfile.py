"""Sending a file from the page cache to the socket, with no copy through the process where the system can do so."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from armature.exceptions import ClientDisconnect

if TYPE_CHECKING:
    from armature.http.files import FileBody
    from armature.server.protocol import HTTPProtocol

__all__ = ["send_file"]

#: Bytes asked for at once; between two calls other connections get their turn.
PIECE = 512 * 1024


async def send_file(protocol: HTTPProtocol, body: FileBody) -> int:
    """Send the part of a file that `body` stands for, after the head that was written already.

    Returns:
        How many bytes were sent.

    Raises:
        ClientDisconnect: The client went away.
    """
    transport = protocol.transport
    sock = transport.get_extra_info("socket")
    if sock is None or protocol.scheme != "http" or not hasattr(os, "sendfile"):
        return await _copy(protocol, body)
    protocol.flush()
    # The head must leave first, and nothing but us may write to the socket meanwhile.
    while transport.get_write_buffer_size():
        await _flushed(protocol)
    loop = protocol.server_state.loop
    offset, left = body.offset, body.count
    source = body.fileno()
    # A descriptor of our own: loops refuse to watch one that belongs to a transport.
    target = os.dup(sock.fileno())
    try:
        while left:
            try:
                sent = os.sendfile(target, source, offset, min(left, PIECE))
            except BlockingIOError:
                protocol.write_paused = True
                try:
                    await _writable(loop, target)
                finally:
                    protocol.write_paused = False
                continue
            except ConnectionError as error:
                protocol.abort()
                raise ClientDisconnect("the client went away") from error
            if not sent:
                break
            offset += sent
            left -= sent
            protocol.sent_outside(sent)
            protocol.progress = True
            if left:
                await asyncio.sleep(0)
    finally:
        os.close(target)
    return offset - body.offset


async def _copy(protocol: HTTPProtocol, body: FileBody) -> int:
    size = 0
    async for piece in body:
        protocol.send_chunk(piece)
        protocol.flush()
        protocol.progress = True
        size += len(piece)
        if protocol.write_paused:
            await protocol.drain()
    return size


async def _flushed(protocol: HTTPProtocol) -> None:
    # With both marks at zero the transport calls resume_writing when its buffer is empty.
    transport = protocol.transport
    low, high = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(0, 0)
    try:
        await protocol.drain()
    finally:
        if protocol.transport is not None:
            transport.set_write_buffer_limits(high, low)


async def _writable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    waiter = loop.create_future()

    def ready() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop.add_writer(descriptor, ready)
    try:
        await waiter
    finally:
        loop.remove_writer(descriptor)
