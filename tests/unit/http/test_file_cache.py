"""The cache of files: its bounds, who closes a descriptor, and which version of a file is which."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from armature._spec.limits import SMALL_FILE_LIMIT
from armature.exceptions import ConfigurationError
from armature.http import file_cache
from armature.http.file_cache import FileCache, OpenFile, open_version, signature_of


class Entry:
    def __init__(self, memory: int = 0, descriptors: int = 0, used: float | None = None) -> None:
        self.memory = memory
        self.descriptors = descriptors
        self.used = self.placed = time.monotonic() if used is None else used
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# ---- bounds


def test_an_entry_takes_the_place_of_its_predecessor() -> None:
    cache = FileCache()
    first, second = Entry(10, 1), Entry(20, 0)
    cache.put("a", first)
    assert cache.get("a") is first
    assert cache.get("b") is None
    cache.put("a", second)
    assert cache.get("a") is second
    assert (first.closed, second.closed) == (1, 0)
    assert cache.stats() == {"entries": 1, "memory": 20, "descriptors": 0}
    cache.clear()
    assert second.closed == 1
    assert cache.stats() == {"entries": 0, "memory": 0, "descriptors": 0}


@pytest.mark.parametrize(
    ("cache", "entry", "fit"),
    [
        (FileCache(entries=5), lambda: Entry(1), 5),
        (FileCache(memory=100), lambda: Entry(30), 3),
        (FileCache(descriptors=4), lambda: Entry(0, 1), 4),
    ],
)
def test_bounds(cache: FileCache, entry: type[Entry], fit: int) -> None:
    entries = [entry() for _ in range(50)]
    for number, one in enumerate(entries):
        cache.put(number, one)
        stats = cache.stats()
        assert stats["entries"] <= cache.entries
        assert stats["memory"] <= cache.memory
        assert stats["descriptors"] <= cache.descriptors
    assert cache.stats()["entries"] == fit
    assert [one.closed for one in entries] == [1] * (50 - fit) + [0] * fit


def test_what_is_too_large_for_the_cache_is_not_kept() -> None:
    cache = FileCache(memory=100, descriptors=1)
    kept = Entry(50, 1)
    cache.put("kept", kept)
    for large in (Entry(101), Entry(0, 2)):
        cache.put("large", large)
        assert (large.closed, cache.get("large")) == (1, None)
    assert cache.get("kept") is kept
    cache.put("kept", Entry(101))
    assert (kept.closed, cache.get("kept")) == (1, None)
    nothing = FileCache(entries=0)
    nothing.put("a", entry := Entry())
    assert (entry.closed, nothing.get("a")) == (1, None)


def test_what_is_used_stays() -> None:
    cache = FileCache(entries=10)
    favourite = Entry()
    cache.put("favourite", favourite)
    for number in range(100):
        cache.put(number, Entry())
        favourite.used += 1
    assert cache.get("favourite") is favourite
    assert cache.stats()["entries"] == 10


def test_everything_is_used_and_something_has_to_go() -> None:
    cache = FileCache(entries=3)
    entries = [Entry() for _ in range(4)]
    for number, entry in enumerate(entries):
        for one in entries:
            one.used += 1
        cache.put(number, entry)
    assert cache.stats()["entries"] == 3
    assert sum(entry.closed for entry in entries) == 1


def test_idle_entries_are_dropped_when_others_come() -> None:
    cache = FileCache(idle=60)
    idle = [Entry(1, 1, used=time.monotonic() - 61) for _ in range(5)]
    busy = Entry()
    cache.put("busy", busy)
    for number, entry in enumerate(idle):
        # As if they had been used when they came.
        used, entry.used = entry.used, time.monotonic()
        cache.put(number, entry)
        entry.used = used
    for number in range(5):
        busy.used += 1
        cache.put(f"new {number}", Entry())
    assert [entry.closed for entry in idle] == [1] * 5
    assert cache.get("busy") is busy


@pytest.mark.parametrize("name", ["entries", "memory", "descriptors", "ttl", "idle"])
def test_bounds_that_make_no_sense(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} of a FileCache must be a number from 0 on, not -1"):
        FileCache(**{name: -1})  # type: ignore[arg-type]


# ---- open files


def test_the_last_user_closes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    file = OpenFile(os.open(tmp_path / "a", os.O_RDONLY))
    fd = file.fileno()
    assert file.acquire() is file
    file.release()
    assert is_open(fd)
    assert file.read(2, 1) == b"bc"
    file.release()
    assert not is_open(fd)
    file.release()
    for use in (file.fileno, file.acquire, lambda: file.read(1, 0)):
        with pytest.raises(ValueError, match="the file is closed"):
            use()


def test_a_file_that_nobody_released_is_closed_with_its_last_reference(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    file = OpenFile(os.open(tmp_path / "a", os.O_RDONLY))
    fd = file.acquire().fileno()
    del file
    assert not is_open(fd)


def test_many_threads_share_one_descriptor(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "a").write_bytes(content)
    file = OpenFile(os.open(tmp_path / "a", os.O_RDONLY))
    fd = file.fileno()
    wrong: list[int] = []

    def use(file: OpenFile, start: int) -> None:
        offsets = range(start, 100_000, 8000)
        wrong.extend(offset for offset in offsets if file.read(1000, offset) != content[offset : offset + 1000])
        file.release()

    threads = [threading.Thread(target=use, args=(file.acquire(), start * 1000)) for start in range(8)]
    for thread in threads:
        thread.start()
    file.release()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert not is_open(fd)


def test_systems_without_pread_share_one_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    (tmp_path / "a").write_bytes(b"0123456789")
    file = OpenFile(os.open(tmp_path / "a", os.O_RDONLY))
    assert [file.read(3, 4), file.read(3, 0)] == [b"456", b"012"]
    file.release()


def test_what_is_not_in_memory_is_seen_and_brought_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    file = OpenFile(os.open(tmp_path / "a", os.O_RDONLY))
    asked: list[tuple[int, int]] = []
    missing = 700_000

    def preadv(fd: int, buffers: object, offset: int, flags: int) -> int:
        asked.append((offset, flags))
        if offset >= missing:
            raise BlockingIOError
        return 1

    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
    monkeypatch.setattr(os, "preadv", preadv, raising=False)
    assert file.in_memory(0, 700_000)
    assert not file.in_memory(0, 700_001)
    assert asked == [(0, 8), (699_999, 8), (0, 8), (700_000, 8)]
    # What has just been seen is not asked for again.
    assert file.in_memory(1000, 699_000)
    assert len(asked) == 4
    monkeypatch.setattr(file_cache, "PRESENT", 0.0)
    file.bring_into_memory(0, 1, 1)

    def unsupported(*arguments: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", unsupported)
    missing = 0
    assert file.in_memory(0, 1 << 20)
    monkeypatch.delattr(os, "preadv")
    assert file.in_memory(0, 1 << 20)
    read: list[tuple[int, int]] = []
    real = OpenFile.read
    monkeypatch.setattr(
        OpenFile, "read", lambda self, count, offset: read.append((offset, count)) or real(self, count, offset)
    )
    file.bring_into_memory(100_000, 500_000, 200_000)
    assert read == [(100_000, 200_000), (300_000, 200_000), (500_000, 100_000)]
    # A file that has become shorter ends it.
    file.bring_into_memory(2 << 20, 500_000, 200_000)
    assert len(read) == 4
    file.release()


@pytest.mark.skipif(not hasattr(os, "preadv") or not hasattr(os, "RWF_NOWAIT"), reason="only Linux can tell")
def test_the_system_is_asked_whether_a_file_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    file = OpenFile(os.open(tmp_path / "a", os.O_RDONLY))
    file.bring_into_memory(0, 1 << 20, 1 << 17)
    assert file.in_memory(0, 1 << 20)
    file.release()


# ---- versions


def test_a_small_file_is_read_and_a_large_one_is_kept_open(tmp_path: Path) -> None:
    for size in (0, 1, SMALL_FILE_LIMIT, SMALL_FILE_LIMIT + 1):
        (tmp_path / "a").write_bytes(b"x" * size)
        version = open_version(str(tmp_path / "a"))
        assert version.size == size
        assert version.signature == signature_of(os.stat(tmp_path / "a"))
        if size <= SMALL_FILE_LIMIT:
            assert (version.content, version.file) == (b"x" * size, None)
            assert version.acquire()
        else:
            assert version.content is None
            assert version.file is not None
            assert version.unchanged()
            assert version.acquire()
            version.close()
        version.close()
        if version.file is not None:
            assert not version.acquire()
            assert not version.unchanged()


def test_an_open_file_that_changes_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for change in (
        lambda: os.truncate(path, 70_000),
        lambda: path.write_bytes(b"y" * 80_001),
        lambda: os.utime(path, ns=(1, 1)),
        path.unlink,
    ):
        path.write_bytes(b"x" * 80_000)
        version = open_version(str(path))
        change()
        assert not version.unchanged()
        version.close()


def test_a_fresh_file_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert not open_version(str(tmp_path / "a")).settled
    now = time.time()
    monkeypatch.setattr(file_cache.time, "time", lambda: now + 3)
    assert open_version(str(tmp_path / "a")).settled


def test_a_small_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old" * 100)
    real = os.read
    changes = [lambda: path.write_bytes(b"newer" * 100)]

    def read(fd: int, count: int) -> bytes:
        data = real(fd, count)
        if changes:
            changes.pop()()
        return data

    monkeypatch.setattr(os, "read", read)
    version = open_version(str(path))
    assert version.content == b"newer" * 100
    assert version.signature == signature_of(os.stat(path))


def test_a_small_file_that_grows_large_while_it_is_read_is_kept_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    real = os.read

    def read(fd: int, count: int) -> bytes:
        path.write_bytes(b"x" * (SMALL_FILE_LIMIT + 1))
        return real(fd, count)

    monkeypatch.setattr(os, "read", read)
    version = open_version(str(path))
    assert (version.content, version.size) == (None, SMALL_FILE_LIMIT + 1)
    version.close()


def test_a_file_that_never_holds_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    real = os.read

    def growing(fd: int, count: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"x")
        return real(fd, count)

    monkeypatch.setattr(os, "read", growing)
    version = open_version(str(path))
    assert version.content == b"x" * version.size

    def shrinking(fd: int, count: int) -> bytes:
        os.truncate(path, 0)
        path.write_bytes(b"xx")
        os.truncate(path, 1)
        data = real(fd, count)
        os.truncate(path, 0)
        path.write_bytes(b"xxx")
        return data[:1] if count > 1 else b""

    monkeypatch.setattr(os, "read", shrinking)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="became shorter"):
        open_version(str(path))
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
