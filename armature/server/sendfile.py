"""Sending a file from the page cache to the socket, with no copy through the process where the system can do so.

`sendfile` does not wait for the socket, but it does wait for the disk, and all other connections with it. So each piece
is looked for in the page cache first, and what is not there is read in a thread before the loop sends it.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from armature.exceptions import ClientDisconnect

if TYPE_CHECKING:
    from armature.http.files import FileBody
    from armature.server.protocol import HTTPProtocol

__all__ = ["send_file"]

#: Bytes asked for at once; between two calls other connections get their turn.
PIECE = 1024 * 1024


async def send_file(protocol: HTTPProtocol, body: FileBody) -> int:
    """Send the part of a file that `body` stands for, after the head that was written already.

    Returns:
        How many bytes were sent.

    Raises:
        ClientDisconnect: The client went away.
        OSError: The file cannot be read, or became shorter.
    """
    transport = protocol.transport
    target = _descriptor(transport)
    if target < 0:
        return await _copy(protocol, body)
    protocol.flush()
    # The head must leave first, and nothing but us may write to the socket meanwhile.
    while transport.get_write_buffer_size():
        await _flushed(protocol)
    file, source = body.file, body.fileno()
    offset, end = body.offset, body.offset + body.count
    # A descriptor of our own, made when it is needed: loops refuse to watch one that belongs to a transport.
    watched = -1
    try:
        while offset < end:
            count = min(end - offset, PIECE)
            if not file.in_memory(offset, count):
                await asyncio.get_running_loop().run_in_executor(
                    None, file.bring_into_memory, offset, count, body.chunk_size
                )
            if protocol.transport is not transport:
                # It went away while this waited, and its descriptor may be another client's by now.
                raise ClientDisconnect("the client went away")
            try:
                sent = os.sendfile(target, source, offset, count)
            except BlockingIOError:
                sent = -1
            except ConnectionError as error:
                protocol.abort()
                raise ClientDisconnect("the client went away") from error
            if sent == 0:
                # The length has been promised already: only breaking off tells the client that bytes are missing.
                raise OSError("the file became shorter while it was sent")
            if sent > 0:
                offset += sent
                protocol.sent_outside(sent)
                protocol.progress = True
                if offset >= end:
                    break
            if sent == count:
                await asyncio.sleep(0)
                continue
            # It took less than it was given: it is full.
            if watched < 0:
                watched = os.dup(target)
            protocol.write_paused = True
            try:
                await _writable(protocol.server_state.loop, watched)
            finally:
                protocol.write_paused = False
    finally:
        if watched >= 0:
            os.close(watched)
    return offset - body.offset


def _descriptor(transport: Any) -> int:
    """The descriptor of a plain socket, -1 if there is none or the system does not send files to it."""
    if not hasattr(os, "sendfile"):
        return -1
    direct: int = getattr(transport, "direct_fd", -1)
    if direct >= 0:
        return direct
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("sslcontext") is not None:
        return -1
    return sock.fileno()  # type: ignore[no-any-return]


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
