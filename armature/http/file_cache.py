"""Open files and the content of small ones: one version of a file, shared by every answer under way, and kept for more.

A descriptor is closed by the last one who uses it: a file that was replaced, or pushed out of the cache, is sent to its
end to whoever is receiving it. What a name stands for may change at any time; a version, once opened, keeps its bytes,
its length and its entity tag together.
"""

from __future__ import annotations

import os
import stat
import time
from threading import Lock
from typing import Any, Protocol, TypeAlias

from armature._spec.limits import SMALL_FILE_LIMIT
from armature.exceptions import ConfigurationError

__all__ = ["FileCache", "FileVersion", "OpenFile", "Signature", "open_version", "signature_of"]

#: What tells two versions of a file apart.
Signature: TypeAlias = tuple[int, int, int, int, int]

#: Seconds after a change in which another one may leave the same time stamps behind: file systems count in steps, of
#: milliseconds where they are new, of two seconds where they are FAT.
_UNSETTLED = 2.0

#: Seconds for which what is in memory is expected to stay there.
PRESENT = 1.0

#: How often a small file that changes under the reader is read again.
_ATTEMPTS = 3

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

#: What is read into to learn whether a page is in memory; nobody reads it.
_probe = [bytearray(1)]


def signature_of(status: os.stat_result) -> Signature:
    """Return what differs between two versions of a file, or between two files of one name.

    The change time finds out what the modification time does not: content replaced by a tool that sets the latter
    back, as `rsync --times` and `cp --preserve` do.

    Args:
        status: What `stat` said.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class OpenFile:
    """An open descriptor with several users, each of whom calls `release` once; the last one closes it.

    Args:
        fd: The descriptor; it belongs to this object from now on. Its maker is the first user.
    """

    __slots__ = ("_fd", "_lock", "_present", "_users")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: A part that is in memory, by its start and end, and until when this is believed.
        self._present = (0, 0, 0.0)
        self._lock = Lock()
        self._users = 1

    def acquire(self) -> OpenFile:
        """Become another user.

        Raises:
            ValueError: The file is closed.
        """
        with self._lock:
            if self._users == 0:
                raise ValueError("the file is closed")
            self._users += 1
        return self

    def release(self) -> None:
        """Use it no longer."""
        with self._lock:
            if self._users == 0:
                return
            self._users -= 1
            if self._users:
                return
            fd, self._fd = self._fd, -1
        os.close(fd)

    def fileno(self) -> int:
        """The descriptor.

        Raises:
            ValueError: The file is closed.
        """
        if self._fd < 0:
            raise ValueError("the file is closed")
        return self._fd

    def read(self, count: int, offset: int) -> bytes:
        """Read at a position; called in a thread.

        A descriptor closed under a running read could be another file by the time the kernel looks at it, so the
        reader is a user of its own.

        Args:
            count: How many bytes at most.
            offset: Where.

        Raises:
            ValueError: The file is closed.
        """
        self.acquire()
        try:
            if hasattr(os, "pread"):
                return os.pread(self._fd, count, offset)
            # One position for all users.
            with self._lock:
                os.lseek(self._fd, offset, os.SEEK_SET)
                return os.read(self._fd, count)
        finally:
            self.release()

    def in_memory(self, offset: int, count: int) -> bool:
        """Say whether a part of the file can be read without waiting for a disk, as far as can be told cheaply.

        Its first and its last byte are asked for: pages come in order and in long runs, so that what lies between two
        that are there is nearly always there as well. A system or a file system that cannot say so says yes. An answer
        holds for a second, since many may be sent the same file at once.

        Args:
            offset: Where the part begins.
            count: Its length, more than zero.
        """
        now = time.monotonic()
        start, end, until = self._present
        if start <= offset and offset + count <= end and now < until:
            return True
        preadv, flag = getattr(os, "preadv", None), getattr(os, "RWF_NOWAIT", None)
        if preadv is None or flag is None:
            return True
        try:
            preadv(self.fileno(), _probe, offset, flag)
            preadv(self.fileno(), _probe, offset + count - 1, flag)
        except BlockingIOError:
            return False
        except OSError:
            # Not every file system knows.
            pass
        self._present = (offset, offset + count, now + PRESENT)
        return True

    def bring_into_memory(self, offset: int, count: int, step: int) -> None:
        """Read a part of the file so that it is in memory afterwards, and have what follows it read; for a thread.

        Args:
            offset: Where the part begins.
            count: Its length.
            step: Bytes of one read.
        """
        end = offset + count
        for position in range(offset, end, step):
            if not self.read(min(step, end - position), position):
                return
        self._present = (offset, end, time.monotonic() + PRESENT)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.fileno(), end, count, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class FileVersion:
    """A file as it was when it was opened: its content if it is small, or else a descriptor of it.

    Args:
        status: What `fstat` said of it.
        content: All its bytes, or None.
        file: The open file, of which the version is a user, or None.
        settled: Whether a later change is sure to give it another signature.
    """

    __slots__ = ("content", "file", "mtime", "settled", "signature", "size")

    def __init__(self, status: os.stat_result, content: bytes | None, file: OpenFile | None, settled: bool) -> None:
        self.signature = signature_of(status)
        self.size = status.st_size
        self.mtime = status.st_mtime
        self.content = content
        self.file = file
        self.settled = settled

    @property
    def etag(self) -> str:
        """The entity tag, a strong one: other bytes have another size, another time, or stand in another file."""
        _, inode, size, modified, _ = self.signature
        return f'"{inode:x}-{size:x}-{modified:x}"'

    def unchanged(self) -> bool:
        """Say whether the open file still is what it was; one whose content was read is."""
        if self.file is None:
            return True
        try:
            return signature_of(os.fstat(self.file.fileno())) == self.signature
        except (OSError, ValueError):
            return False

    def acquire(self) -> bool:
        """Become another user of the open file, if there is one; False if it is closed."""
        try:
            if self.file is not None:
                self.file.acquire()
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Let go of the open file."""
        if self.file is not None:
            self.file.release()


def open_version(path: str) -> FileVersion:
    """Open a regular file, and read it if it is small; may wait for a disk.

    Args:
        path: The file.

    Raises:
        IsADirectoryError: It is a directory, or anything else than a regular file.
        OSError: It cannot be opened, or shrinks faster than it can be read.
    """
    # Looking before opening: to open a device or a pipe may do something.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise IsADirectoryError(path)
    fd = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise IsADirectoryError(path)
        content = None
        if status.st_size <= SMALL_FILE_LIMIT:
            content, status = _read(fd, status)
    except BaseException:
        os.close(fd)
        raise
    settled = time.time() - (status.st_mtime if os.name == "nt" else status.st_ctime) > _UNSETTLED
    if content is None:
        return FileVersion(status, None, OpenFile(fd), settled)
    os.close(fd)
    return FileVersion(status, content, None, settled)


def _read(fd: int, status: os.stat_result) -> tuple[bytes | None, os.stat_result]:
    """Read all of a small file, such that what is read and what `fstat` says belong together; None if it grew large.

    A file that never holds still, such as a log, is taken as long as it was when the last attempt began.
    """
    for attempt in range(_ATTEMPTS):
        size = status.st_size
        if attempt:
            os.lseek(fd, 0, os.SEEK_SET)
        pieces: list[bytes] = []
        left = size
        while left and (piece := os.read(fd, left)):
            pieces.append(piece)
            left -= len(piece)
        before, status = status, os.fstat(fd)
        if not left and (signature_of(before) == signature_of(status) or attempt == _ATTEMPTS - 1):
            return b"".join(pieces), before
        if status.st_size > SMALL_FILE_LIMIT:
            return None, status
    raise OSError("the file became shorter while it was read, each time it was tried")


class Cached(Protocol):
    """What a `FileCache` keeps."""

    #: When it was last asked for, by the monotonic clock; and the same, when the cache last looked.
    used: float
    placed: float

    @property
    def memory(self) -> int:
        """Bytes of content."""

    @property
    def descriptors(self) -> int:
        """Open descriptors."""

    def close(self) -> None:
        """Let go of everything."""


class FileCache:
    """Keeps small files and open descriptors of large ones, within bounds; the longest unused go first.

    For `ttl` seconds a file goes out as it was found; then its name is looked at again. A file that is replaced is
    thus served in its new version after that time at the latest, and never as a mixture of two. Entries that nobody
    asked for in `idle` seconds are dropped when the cache is next added to, so that it does not keep the disk space
    of deleted files for ever.

    Args:
        entries: The largest number of files; 0 keeps none.
        memory: The largest number of bytes of small files' content, all together.
        descriptors: The largest number of descriptors kept open. Those of answers under way come on top.
        ttl: Seconds for which a file is not looked at again; 0 looks for every request.
        idle: Seconds after which an unused file is dropped.

    Raises:
        ConfigurationError: A number is negative.
    """

    __slots__ = ("_descriptors", "_found", "_lock", "_memory", "descriptors", "entries", "idle", "memory", "ttl")

    def __init__(
        self,
        entries: int = 1024,
        memory: int = 16 * 1024 * 1024,
        descriptors: int = 128,
        ttl: float = 1.0,
        idle: float = 60.0,
    ) -> None:
        bounds = {"entries": entries, "memory": memory, "descriptors": descriptors, "ttl": ttl, "idle": idle}
        for name, value in bounds.items():
            if not value >= 0:
                raise ConfigurationError(f"{name} of a FileCache must be a number from 0 on, not {value!r}")
        self.entries = entries
        self.memory = memory
        self.descriptors = descriptors
        self.ttl = ttl
        self.idle = idle
        self._found: dict[Any, Cached] = {}
        self._lock = Lock()
        self._memory = 0
        self._descriptors = 0

    def get(self, key: Any) -> Any:
        """Return what is kept for a key, or None; whoever takes it sets its `used`.

        Args:
            key: The key.
        """
        # No lock and no reordering: this is asked for every request, and a dict gives one answer or the other.
        return self._found.get(key)

    def put(self, key: Any, entry: Cached) -> None:
        """Keep an entry, in place of the one of the same key; others make room for it.

        Args:
            key: The key.
            entry: It belongs to the cache from now on.
        """
        with self._lock:
            old = self._found.pop(key, None)
            if old is not None:
                self._forget(old)
            if entry.memory > self.memory or entry.descriptors > self.descriptors or not self.entries:
                entry.close()
                return
            self._memory += entry.memory
            self._descriptors += entry.descriptors
            entry.placed = entry.used
            self._found[key] = entry
            self._make_room()

    def remove(self, key: Any, entry: Cached) -> None:
        """Drop an entry, if it is still the one of its key.

        Args:
            key: The key.
            entry: The entry.
        """
        with self._lock:
            if self._found.get(key) is entry:
                del self._found[key]
                self._forget(entry)

    def clear(self) -> None:
        """Drop everything; answers under way are sent to their end."""
        with self._lock:
            for entry in self._found.values():
                self._forget(entry)
            self._found.clear()

    def stats(self) -> dict[str, int]:
        """Return how many entries, bytes and descriptors are kept."""
        with self._lock:
            return {"entries": len(self._found), "memory": self._memory, "descriptors": self._descriptors}

    def _forget(self, entry: Cached) -> None:
        self._memory -= entry.memory
        self._descriptors -= entry.descriptors
        entry.close()

    def _full(self) -> bool:
        return len(self._found) > self.entries or self._memory > self.memory or self._descriptors > self.descriptors

    def _make_room(self) -> None:
        """Drop what is too much, and what nobody uses: the hand of a clock goes round the entries in order of age.

        An entry that was used since the hand last passed is spared once. Where nothing has to go, the hand moves on by
        two, which finds idle entries in the end and costs next to nothing.
        """
        deadline = time.monotonic() - self.idle
        passed = 0
        while self._found:
            full = self._full()
            if not full and passed >= 2:
                return
            passed += 1
            key, entry = next(iter(self._found.items()))
            idle = entry.used <= deadline
            spared = entry.used > entry.placed and (not full or passed <= len(self._found))
            if not full and not idle and not spared:
                return
            del self._found[key]
            if spared and not idle:
                entry.placed = entry.used
                self._found[key] = entry
            else:
                self._forget(entry)

    def __repr__(self) -> str:
        return f"<FileCache of {len(self._found)} files>"
