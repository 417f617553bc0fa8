"""The byte buffers of a connection: what has arrived and cannot be used yet, and what is waiting to be sent."""

from __future__ import annotations

__all__ = ["Buffer"]


class Buffer:
    """Bytes in order: appended at the end, taken from the front.

    Memory follows use: a buffer that has been emptied keeps at most `KEEP` bytes for the next message.
    """

    __slots__ = ("_data",)

    #: Capacity that an empty buffer may keep, in bytes.
    KEEP = 4096

    def __init__(self) -> None:
        self._data = bytearray()

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
