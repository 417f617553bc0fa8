"""The byte buffers of a connection: what has arrived and cannot be used yet, and what is waiting to be sent."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["BodyBuffer", "Buffer", "stats"]

_counters = {"blocks_reused": 0, "blocks_allocated": 0}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


class Buffer:
    """Bytes in order: appended at the end, taken from the front.

    Memory follows use: a buffer that has been emptied keeps at most `KEEP` bytes for the next message.
    """

    __slots__ = ("_data",)

    #: Capacity that an empty buffer may keep, in bytes.
    KEEP = 4096

    def __init__(self) -> None:
        self._data = bytearray()

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Buffer' object")

    def __len__(self) -> int:
        return len(self._data)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end."""
        self._data += data

    def consume(self, count: int) -> None:
        """Drop bytes from the front.

        Raises:
            ValueError: There are not so many.
        """
        if not 0 <= count <= len(self._data):
            raise ValueError(f"cannot consume {count} of {len(self._data)} bytes")
        del self._data[:count]

    def take(self) -> bytes:
        """Return everything and leave the buffer empty."""
        data = bytes(self._data)
        self._data.clear()
        return data

    def peek(self) -> bytes:
        """Return everything and leave it where it is."""
        return bytes(self._data)

    def clear(self) -> None:
        """Drop everything."""
        self._data.clear()


class BodyBuffer:
    """Memory for a body of known length, which is received straight into it.

    Args:
        size: The length, in bytes.
    """

    __slots__ = ("_data", "_filled")

    def __init__(self, size: int) -> None:
        self._data = bytearray(size)
        self._filled = 0

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'BodyBuffer' object")

    @property
    def left(self) -> int:
        """How many bytes are still to come."""
        return len(self._data) - self._filled

    def view(self) -> memoryview:
        """Return the memory that is still to be filled, to receive into."""
        return memoryview(self._data)[self._filled :]

    def add(self, data: bytes) -> int:
        """Add received bytes; return how many of them belong to the body."""
        count = min(len(data), self.left)
        self._data[self._filled : self._filled + count] = data[:count]
        self._filled += count
        return count

    def advance(self, count: int) -> None:
        """Note that `count` bytes were received into the view.

        Raises:
            ValueError: That is more than the view has.
        """
        if not 0 <= count <= self.left:
            raise ValueError(f"cannot advance by {count}: {self.left} bytes are left")
        self._filled += count

    def take(self) -> bytes:
        """Return the body; the buffer is used up.

        Raises:
            ValueError: It is not complete.
        """
        if self.left:
            raise ValueError(f"{self.left} bytes of the body are missing")
        data, self._data, self._filled = bytes(self._data), bytearray(), 0
        return data
