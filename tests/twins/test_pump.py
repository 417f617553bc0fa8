"""The pump does what `async for` in a coroutine does, for every kind of async iterator, and waits where it has to."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import pytest

from armature._spec.limits import STREAM_TURN
from armature.exceptions import ClientDisconnect
from twins.harness import Service


def sink(room: Any, *, paused: Callable[[list[Any]], bool] = lambda pieces: False) -> Any:
    """A connection that remembers its pieces; `paused` tells whether its peer has stopped reading."""

    class Sink(room.connection.Connection):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(Service(room), dispatcher, room.writer.Writer())
            self.pieces: list[Any] = []
            self.drained: list[int] = []
            self.drain_error: BaseException | None = None

        def send_piece(self, piece: Any) -> None:
            if not isinstance(piece, (bytes, str)):
                raise TypeError("no piece")
            self.pieces.append(piece)
            self.stream_size += len(piece)
            self.write_paused = paused(self.pieces)

        async def drain(self) -> None:
            self.drained.append(len(self.pieces))
            await asyncio.sleep(0)
            if self.drain_error is not None:
                raise self.drain_error

    dispatcher = room.dispatch.Dispatcher(asyncio.get_running_loop())
    return Sink()


def run(room: Any, source: Any, **options: Any) -> Any:
    """Pump a source dry; return the connection."""

    async def main() -> Any:
        connection = sink(room, **options)
        assert await room.pump.pump(connection, source) is None
        return connection

    return asyncio.run(main())


class Counter:
    """An async iterator by hand, whose `__anext__` returns what `wrap` makes of a coroutine."""

    def __init__(self, count: int, wrap: Callable[[Any], Any] = lambda coroutine: coroutine) -> None:
        self.left = count
        self.wrap = wrap

    def __aiter__(self) -> Counter:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        result: Awaitable[bytes] = self.wrap(self._next())
        return result

    async def _next(self) -> bytes:
        if self.left % 2:
            await asyncio.sleep(0)
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return b"%d" % self.left


class Wrapped:
    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, None, bytes]:
        result: bytes = yield from self.coroutine.__await__()
        return result


class AtOnce:
    """Ends by raising from `__anext__` itself, which `async for` takes for an end too."""

    def __init__(self) -> None:
        self.left = 3

    def __aiter__(self) -> AtOnce:
        return self

    def __anext__(self) -> Any:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        future = asyncio.get_running_loop().create_future()
        future.set_result(b"%d" % self.left)
        return future


async def generate(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("source", "pieces"),
    [
        (lambda: generate(), []),
        (lambda: generate(b"a", "b", b""), [b"a", "b", b""]),
        (lambda: Counter(5), [b"4", b"3", b"2", b"1", b"0"]),
        (lambda: Counter(3, Wrapped), [b"2", b"1", b"0"]),
        (lambda: Counter(3, asyncio.ensure_future), [b"2", b"1", b"0"]),
        (AtOnce, [b"2", b"1", b"0"]),
    ],
)
def test_every_kind_of_iterator(impl: Any, source: Callable[[], Any], pieces: list[Any]) -> None:
    async def main() -> Any:
        connection = sink(impl)
        await impl.pump.pump(connection, source())
        return connection.pieces

    assert asyncio.run(main()) == pieces


class NoIterator:
    def __aiter__(self) -> int:
        return 5


class NoAwaitable:
    def __aiter__(self) -> NoAwaitable:
        return self

    def __anext__(self) -> int:
        return 5


@pytest.mark.parametrize("source", [5, NoIterator(), NoAwaitable(), [b"sync"]])
def test_what_is_no_async_iterable(impl: Any, source: Any) -> None:
    with pytest.raises(TypeError, match=r"async for|await"):
        run(impl, source)


def test_the_error_of_the_producer(impl: Any) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken") as caught:
        run(impl, failing())
    assert any(entry.name == "failing" for entry in caught.traceback)


def test_a_piece_that_is_refused_ends_it(impl: Any) -> None:
    with pytest.raises(TypeError, match="no piece"):
        run(impl, generate(b"one", 2))


def test_the_end_of_another_iterator_is_no_end(impl: Any) -> None:
    """A generator cannot let StopAsyncIteration escape; what drains the connection could, and it is an error there."""

    async def main() -> None:
        connection = sink(impl, paused=lambda pieces: True)
        connection.drain_error = StopAsyncIteration()
        await impl.pump.pump(connection, generate(b"one", b"two"))

    with pytest.raises((StopAsyncIteration, RuntimeError)):
        asyncio.run(main())


def test_a_producer_that_never_waits_gives_turns(impl: Any) -> None:
    connection = run(impl, generate(*[b"x"] * (2 * STREAM_TURN + 1)))
    assert connection.drained == [STREAM_TURN, 2 * STREAM_TURN]
    connection = run(impl, generate(*[b"x" * 1024] * (STREAM_TURN + 1)))
    assert connection.drained == [STREAM_TURN // 2, STREAM_TURN]
    connection = run(impl, generate(*["x" * 1024 * STREAM_TURN] * 3))
    assert connection.drained == [1, 2, 3]


def test_a_peer_that_does_not_read_is_waited_for(impl: Any) -> None:
    connection = run(impl, generate(b"1", b"2", b"3", b"4"), paused=lambda pieces: len(pieces) % 2 == 0)
    assert connection.drained == [2, 4]
    assert connection.pieces == [b"1", b"2", b"3", b"4"]


def test_a_peer_that_goes_away_meanwhile(impl: Any) -> None:
    async def main() -> None:
        connection = sink(impl, paused=lambda pieces: True)
        connection.drain_error = ClientDisconnect("gone")
        await impl.pump.pump(connection, generate(b"one", b"two"))

    with pytest.raises(ClientDisconnect):
        asyncio.run(main())


def test_cancellation_reaches_the_producer(impl: Any) -> None:
    events: list[str] = []

    async def waiting() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        finally:
            events.append("finally")

    async def main() -> None:
        connection = sink(impl)

        async def pumping() -> None:
            await impl.pump.pump(connection, waiting())

        task = asyncio.ensure_future(pumping())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert connection.pieces == [b"one"]
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert events == ["cancelled", "finally"]

    asyncio.run(main())


def test_a_producer_may_survive_its_cancellation(impl: Any) -> None:
    async def stubborn() -> AsyncIterator[bytes]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        yield b"survived"
        await asyncio.sleep(0)
        yield b"and went on"

    async def main() -> Any:
        connection = sink(impl)

        async def pumping() -> None:
            await impl.pump.pump(connection, stubborn())

        task = asyncio.ensure_future(pumping())
        await asyncio.sleep(0)
        task.cancel()
        await task
        return connection.pieces

    assert asyncio.run(main()) == [b"survived", b"and went on"]


def test_an_iterator_whose_wait_ends_by_the_end(impl: Any) -> None:
    """An awaitable that answers the cancellation with StopAsyncIteration ends the stream, as in `async for`."""

    class Ending:
        def __aiter__(self) -> Ending:
            return self

        async def __anext__(self) -> bytes:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise StopAsyncIteration from None
            return b""

    async def main() -> None:
        async def pumping() -> str:
            await impl.pump.pump(sink(impl), Ending())
            return "ended"

        task = asyncio.ensure_future(pumping())
        await asyncio.sleep(0)
        task.cancel()
        assert await task == "ended"

    asyncio.run(main())


def test_closing_it_closes_the_step(impl: Any) -> None:
    events: list[str] = []

    class Waiting:
        def __aiter__(self) -> Waiting:
            return self

        async def __anext__(self) -> bytes:
            try:
                await asyncio.sleep(3600)
            finally:
                events.append("finally")
            return b""

    async def main() -> None:
        async def pumping() -> None:
            await impl.pump.pump(sink(impl), Waiting())

        coroutine = pumping()
        coroutine.send(None)
        coroutine.close()
        assert events == ["finally"]

    asyncio.run(main())


def test_the_producer_runs_in_the_context_of_who_awaits(impl: Any) -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place")

    async def asking() -> AsyncIterator[str]:
        yield place.get()
        await asyncio.sleep(0)
        yield place.get()

    async def main() -> Any:
        place.set("here")
        connection = sink(impl)
        await impl.pump.pump(connection, asking())
        return connection.pieces

    assert asyncio.run(main()) == ["here", "here"]


def test_what_it_counts(impl: Any) -> None:
    before = impl.pump.stats()
    run(impl, generate(*[b"x"] * STREAM_TURN))
    after = impl.pump.stats()
    assert {name: after[name] - before[name] for name in after} == {"pieces": STREAM_TURN, "drains": 1}
