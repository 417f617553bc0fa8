"""The in-memory transport keeps the promises that asyncio's transports make to a protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import pytest

from armature.testing.transport import READ_SIZE, MemoryTransport


class Recorder(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.tasks: list[Any] = []
        self.keep_open = False
        self.transport: MemoryTransport | None = None
        self.lost: list[Exception | None] = []

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.tasks.append(asyncio.current_task())

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._note("data")

    def eof_received(self) -> bool:
        self._note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        self._note("lost")


class Buffered(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = bytearray(10)
        self.data = b""

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]


def connect(protocol: Any, received: Callable[[], None] = lambda: None, **extra: Any) -> MemoryTransport:
    return MemoryTransport(asyncio.get_running_loop(), protocol, copy_context(), received, extra)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@on_loop
async def test_the_protocol_is_never_called_from_a_task() -> None:
    protocol = Recorder()
    transport = connect(protocol)
    transport.send(b"a")
    transport.send_eof()
    await turns()
    assert protocol.calls == ["made", "data", "eof", "lost"]
    assert protocol.tasks == [None] * 4
    assert protocol.lost == [None]


@on_loop
async def test_large_data_arrives_as_a_socket_would_give_it() -> None:
    protocol = Recorder()
    transport = connect(protocol)
    transport.send(b"x" * (READ_SIZE * 2 + 1))
    await turns()
    assert protocol.calls == ["made", "data", "data", "data"]
    assert len(protocol.data) == READ_SIZE * 2 + 1


@on_loop
async def test_a_buffered_protocol_is_filled_buffer_by_buffer() -> None:
    protocol = Buffered()
    transport = connect(protocol)
    transport.send(b"0123456789abc")
    await turns()
    assert protocol.data == b"0123456789abc"


@on_loop
async def test_reading_can_be_paused() -> None:
    protocol = Recorder()
    transport = connect(protocol)
    await turns()
    transport.pause_reading()
    transport.send(b"a")
    await turns()
    assert protocol.data == b""
    assert not transport.is_reading()
    transport.resume_reading()
    await turns()
    assert protocol.data == b"a"


@on_loop
async def test_a_sender_waits_while_the_server_does_not_read() -> None:
    transport = connect(Recorder())
    await turns()
    transport.pause_reading()
    transport.send(b"x" * READ_SIZE * 40)
    waiting = asyncio.ensure_future(transport.drain())
    await turns()
    assert not waiting.done()
    transport.resume_reading()
    await waiting


@on_loop
async def test_writing_pauses_above_the_mark_and_goes_on_below() -> None:
    protocol = Recorder()
    transport = connect(protocol)
    transport.set_write_buffer_limits(high=10, low=5)
    assert transport.get_write_buffer_limits() == (5, 10)
    transport.write(b"x" * 11)
    assert protocol.calls == ["pause"]
    assert transport.get_write_buffer_size() == 11
    assert transport.receive() == b"x" * 11
    await turns()
    assert protocol.calls == ["pause", "made", "resume"]


@on_loop
async def test_closing_delivers_what_was_written() -> None:
    protocol = Recorder()
    transport = connect(protocol)
    await turns()
    transport.writelines([b"a", bytearray(b"b")])
    transport.close()
    assert transport.is_closing()
    await turns()
    assert protocol.lost == []
    assert transport.receive() == b"ab"
    await turns()
    assert protocol.lost == [None]
    transport.write(b"late")
    assert transport.receive() == b""


@on_loop
async def test_a_half_closed_connection_still_answers() -> None:
    protocol = Recorder()
    protocol.keep_open = True
    transport = connect(protocol)
    transport.send_eof()
    await turns()
    transport.write(b"answer")
    assert transport.receive() == b"answer"
    assert not transport.lost


@on_loop
async def test_the_server_can_half_close_without_tls() -> None:
    notices: list[int] = []
    transport = connect(Recorder(), lambda: notices.append(1))
    assert transport.can_write_eof()
    transport.write_eof()
    assert transport.ended
    assert notices
    secure = connect(Recorder(), sslcontext=True)
    assert not secure.can_write_eof()
    with pytest.raises(NotImplementedError):
        secure.write_eof()


@on_loop
async def test_a_reset_loses_the_connection_at_once() -> None:
    protocol = Recorder()
    transport = connect(protocol)
    transport.send(b"unread")
    transport.reset()
    transport.reset()
    await turns()
    assert protocol.data == b""
    assert [type(error) for error in protocol.lost] == [ConnectionResetError]


@on_loop
async def test_an_exception_of_the_protocol_breaks_the_connection() -> None:
    class Broken(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    protocol = Broken()
    transport = connect(protocol)
    transport.send(b"a")
    await turns()
    assert isinstance(transport.failure, ZeroDivisionError)
    assert [type(error) for error in protocol.lost] == [ZeroDivisionError]
