"""From an async iterator to the wire: the pieces of a streamed answer, with backpressure and turns for the others."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from armature._spec.limits import STREAM_TURN

if TYPE_CHECKING:
    from armature.server.protocol import HTTPProtocol

__all__ = ["pump", "stats"]

_counters = {"pieces": 0, "drains": 0}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


async def pump(connection: HTTPProtocol, source: AsyncIterable[Any]) -> None:
    """Send the pieces of an async iterator until it ends.

    Args:
        connection: Where `send_piece` sends them; waited for with `drain` while its peer does not read, and whenever
            the producer has gone on for a turn without waiting itself.
        source: The iterator.

    Raises:
        TypeError: The source is no async iterable, or produces something that is neither bytes nor str.
        RuntimeError: It is longer than the Content-Length it was announced with.
        ClientDisconnect: The client went away.
    """
    send_piece = connection.send_piece
    turn = STREAM_TURN
    async for piece in source:
        before = connection.stream_size
        send_piece(piece)
        _counters["pieces"] += 1
        turn -= 1 + (connection.stream_size - before >> 10)
        if turn <= 0 or connection.write_paused:
            turn = STREAM_TURN
            _counters["drains"] += 1
            await connection.drain()
