"""The body receiver: order, bounds, backpressure, errors, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature._spec.limits import BODY_HIGH_WATER
from armature.exceptions import ClientDisconnect, PayloadTooLarge
from armature.http import BodyReceiver


class Source:
    """A connection that records when it is told to go on."""

    def __init__(self) -> None:
        self.resumed = 0

    def resume_body(self) -> None:
        self.resumed += 1


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 10))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_whole_body_in_pieces() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 100, 6)
        assert not receiver.wanted
        task = asyncio.ensure_future(receiver.read())
        await turns()
        assert receiver.wanted
        assert source.resumed == 1, "the first want is told, so that 100 Continue can be sent"
        assert receiver.feed_data(b"abc")
        assert receiver.feed_data(b"def")
        await turns()
        assert not task.done()
        assert not receiver.complete
        receiver.feed_eof()
        assert await task == b"abcdef"
        assert receiver.complete
        assert receiver.drained
        assert receiver.size == 6
        assert await receiver.read() is await receiver.read()
        assert source.resumed == 1

    run(main())


def test_a_body_that_is_complete_before_it_is_wanted() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 100)
        receiver.feed_data(b"a")
        receiver.feed_data(b"b")
        receiver.feed_eof()
        assert receiver.complete
        assert not receiver.drained
        assert await receiver.read() == b"ab"
        assert source.resumed == 0, "there is nothing to continue with"
        assert [chunk async for chunk in receiver] == [b"ab"], "a body read whole can be iterated over"
        assert [chunk async for chunk in receiver] == [b"ab"]

    run(main())


def test_one_chunk_is_handed_on_uncopied() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        chunk = b"x" * 50
        receiver.feed_data(chunk)
        receiver.feed_eof()
        assert await receiver.read() is chunk

    run(main())


def test_empty_body() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        receiver.feed_eof()
        assert await receiver.read() == b""
        other = BodyReceiver(Source(), 100)
        other.feed_eof()
        assert [chunk async for chunk in other] == []

    run(main())


def test_pauses_while_nobody_reads_and_goes_on_when_half_is_taken() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 1 << 30)
        chunk = b"x" * (BODY_HIGH_WATER // 4)
        assert [receiver.feed_data(chunk) for _ in range(4)] == [True, True, True, False]
        assert source.resumed == 0
        iterator = aiter(receiver)
        await anext(iterator)
        assert source.resumed == 1, "the first want"
        before = source.resumed
        while receiver.feed_data(chunk):
            pass
        await anext(iterator)
        assert source.resumed == before, "still more than half"
        await anext(iterator)
        assert source.resumed == before + 1
        await anext(iterator)
        assert source.resumed == before + 1, "told once for each pause"

    run(main())


def test_memory_is_bounded_by_the_water_mark_while_streaming() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 1 << 30)
        room = asyncio.Event()
        source.resume_body = room.set  # type: ignore[method-assign]
        most = 0

        async def feed() -> None:
            nonlocal most
            for _ in range(200):
                room.clear()
                if not receiver.feed_data(b"y" * 4096):
                    most = max(most, receiver._buffered)
                    await room.wait()
                await asyncio.sleep(0)
            receiver.feed_eof()

        feeder = asyncio.ensure_future(feed())
        size = 0
        async for chunk in receiver:
            size += len(chunk)
            await turns(3)
        await feeder
        assert size == 200 * 4096
        assert most <= BODY_HIGH_WATER + 4096

    run(main())


def test_reading_whole_does_not_pause() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 1 << 30)
        while receiver.feed_data(b"x" * 65536):
            pass
        task = asyncio.ensure_future(receiver.read())
        await turns()
        assert source.resumed == 1
        assert all(receiver.feed_data(b"x" * 65536) for _ in range(20))
        receiver.feed_eof()
        assert len(await task) == receiver.size

    run(main())


def test_limit_by_received_bytes() -> None:
    async def main() -> None:
        for reads in (True, False):
            receiver = BodyReceiver(Source(), 10)
            assert receiver.feed_data(b"x" * 10)
            assert not receiver.feed_data(b"x")
            assert not receiver.feed_data(b"x")
            reading = receiver.read() if reads else anext(aiter(receiver))
            with pytest.raises(PayloadTooLarge) as caught:
                await reading
            assert caught.value.status_code == 413
            assert caught.value.limit == 10
            assert receiver._buffered == 0

    run(main())


def test_limit_by_declared_length() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 10, 11)
        with pytest.raises(PayloadTooLarge):
            await receiver.read()
        assert source.resumed == 0, "no 100 Continue for a body that is refused"
        exact = BodyReceiver(source, 10, 10)
        exact.feed_data(b"x" * 10)
        exact.feed_eof()
        assert await exact.read() == b"x" * 10

    run(main())


def test_a_reader_waiting_is_told_of_a_limit_and_of_a_disconnect() -> None:
    async def main() -> None:
        for error in (PayloadTooLarge(5), ClientDisconnect("gone")):
            whole, stream = BodyReceiver(Source(), 100), BodyReceiver(Source(), 100)
            tasks = [asyncio.ensure_future(whole.read()), asyncio.ensure_future(anext(aiter(stream)))]
            await turns()
            for receiver in (whole, stream):
                receiver.set_exception(error)
                receiver.set_exception(RuntimeError("only the first error counts"))
            for task in tasks:
                with pytest.raises(type(error)):
                    await task
            with pytest.raises(type(error)):
                await whole.read()

    run(main())


def test_an_error_after_the_end_changes_nothing() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        receiver.feed_data(b"a")
        receiver.feed_eof()
        receiver.set_exception(ClientDisconnect())
        assert await receiver.read() == b"a"

    run(main())


def test_a_stream_is_read_once() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        receiver.feed_data(b"a")
        receiver.feed_eof()
        assert [chunk async for chunk in receiver] == [b"a"]
        with pytest.raises(RuntimeError, match="read once"):
            aiter(receiver)
        with pytest.raises(RuntimeError, match="choose one"):
            await receiver.read()

    run(main())


def test_whole_and_stream_at_once_is_refused() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        task = asyncio.ensure_future(receiver.read())
        await turns()
        with pytest.raises(RuntimeError, match="being read whole"):
            aiter(receiver)
        receiver.feed_eof()
        assert await task == b""

    run(main())


def test_several_readers_and_one_that_is_cancelled() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        tasks = [asyncio.ensure_future(receiver.read()) for _ in range(3)]
        await turns()
        tasks[0].cancel()
        await turns()
        receiver.feed_data(b"ab")
        receiver.feed_eof()
        assert await asyncio.gather(*tasks[1:]) == [b"ab", b"ab"]
        assert tasks[0].cancelled()
        assert receiver._waiters == []

    run(main())


def test_a_read_that_timed_out_can_be_asked_again() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receiver.read()
        receiver.feed_data(b"late")
        receiver.feed_eof()
        assert await receiver.read() == b"late"

    run(main())


def test_discarding_frees_and_goes_on() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 1 << 20)
        while receiver.feed_data(b"x" * 16384):
            pass
        receiver.discard()
        assert source.resumed == 1, "the connection must be able to read on to the next request"
        assert receiver.feed_data(b"x" * 100_000)
        assert receiver._buffered == 0
        with pytest.raises(RuntimeError, match="discarded"):
            await receiver.read()
        waiting = BodyReceiver(source, 100)
        task = asyncio.ensure_future(waiting.read())
        await turns()
        waiting.discard()
        with pytest.raises(RuntimeError, match="discarded"):
            await task

    run(main())


def test_a_paused_connection_is_released_after_a_limit() -> None:
    async def main() -> None:
        source = Source()
        receiver = BodyReceiver(source, 10)
        assert not receiver.feed_data(b"x" * 11)
        receiver.discard()
        assert source.resumed == 1

    run(main())


def test_abandoned_iteration_can_be_closed() -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 100)
        receiver.feed_data(b"a")
        receiver.feed_data(b"b")
        iterator: Any = aiter(receiver)
        assert await anext(iterator) == b"a"
        await iterator.aclose()
        receiver.feed_eof()

    run(main())


@settings(max_examples=50)
@given(
    st.lists(st.binary(max_size=20), max_size=12),
    st.lists(st.booleans(), max_size=12),
    st.booleans(),
)
def test_nothing_is_lost_or_reordered(chunks: list[bytes], yields: list[bool], whole: bool) -> None:
    async def main() -> None:
        receiver = BodyReceiver(Source(), 1 << 20)

        async def feed() -> None:
            for number, chunk in enumerate(chunks):
                receiver.feed_data(chunk)
                if number < len(yields) and yields[number]:
                    await asyncio.sleep(0)
            receiver.feed_eof()

        feeder = asyncio.ensure_future(feed())
        if whole:
            body = await receiver.read()
        else:
            pieces = [piece async for piece in receiver]
            assert all(pieces), "an empty piece would end a chunked stream"
            body = b"".join(pieces)
        await feeder
        assert body == b"".join(chunks)
        assert receiver.drained

    run(main())
