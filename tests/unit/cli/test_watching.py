"""Which files cause a reload, and noticing that they changed, with and without file events."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
import threading
from pathlib import Path

import pytest

from armature.exceptions import ConfigurationError
from armature.server import reload
from armature.server.reload import poll_changes, scan, watch_events
from counterparts import require_module


def touch(path: Path, text: str = "x = 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def age(path: Path, seconds: int) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("app.py", True),
        ("pkg/deep/views.py", True),
        ("page.html", True),
        ("notes.txt", False),
        ("app.pyc", False),
        (".venv/lib/site.py", False),
        ("venv/lib/site.py", False),
        ("node_modules/x.py", False),
        ("pkg/__pycache__/app.py", False),
        (".git/hooks.py", False),
    ],
)
def test_which_files_count(tmp_path: Path, name: str, wanted: bool) -> None:
    root = tmp_path / ".hidden" / "project"
    path = touch(root / name)
    chosen = reload._wanted_filter([root], ["*.html"])
    assert chosen(str(path)) is wanted
    assert (str(path) in scan([root], chosen)) is wanted


def test_a_scan_survives_what_vanishes(tmp_path: Path) -> None:
    touch(tmp_path / "app.py")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nowhere.py")
    found = scan([tmp_path, tmp_path / "gone"], lambda path: path.endswith(".py"))
    assert set(found) == {str(tmp_path / "app.py")}


def test_polling_sees_edits_new_files_and_deletions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "POLL_INTERVAL", 0.0)
    one, two = touch(tmp_path / "one.py"), touch(tmp_path / "two.py")
    stopping = threading.Event()
    changes = poll_changes([tmp_path], lambda path: path.endswith(".py"), stopping)
    assert next(changes) == set()
    assert next(changes) == set()
    age(one, 5)
    assert next(changes) == {str(one)}
    two.unlink()
    three = touch(tmp_path / "three.py")
    assert next(changes) == {str(two), str(three)}
    stopping.set()
    assert next(changes, None) is None


def test_polling_rests_longer_after_a_costly_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rests.append(timeout or 0.0)
            return False

    clock = iter([0.0, 0.0001, 1.0, 1.1])
    monkeypatch.setattr(reload.time, "thread_time", lambda: next(clock))
    changes = poll_changes([tmp_path], lambda path: True, Event())
    for _ in range(3):
        next(changes)
    # The pause comes when the next set is asked for.
    with pytest.raises(RuntimeError):
        next(changes)
    assert rests[0] == reload.POLL_INTERVAL
    assert rests[1] == pytest.approx(0.1 / reload.POLL_SHARE)
    # A tenth of a second of work, then more than ten of rest: below one percent.
    assert 0.1 / (0.1 + rests[1]) < 0.01


def test_events_are_reported(tmp_path: Path) -> None:
    require_module("watchfiles")
    stopping = threading.Event()
    changes = watch_events([tmp_path], lambda path: path.endswith(".py"), stopping)
    assert next(changes) == set()
    # The watcher begins when it is asked for the first change.
    seen: list[set[str]] = []

    def edit() -> None:
        touch(tmp_path / "ignored.txt")
        touch(tmp_path / "app.py")

    timer = threading.Timer(0.3, edit)
    timer.start()
    for changed in changes:
        if changed:
            seen.append(changed)
            stopping.set()
    timer.join()
    assert seen == [{str(tmp_path / "app.py")}]


def test_without_watchfiles_there_is_an_import_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ImportError):
        next(watch_events([tmp_path], lambda path: True, threading.Event()))


def test_what_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = touch(tmp_path.parent / f"{tmp_path.name}-other" / "app.py")
    (tmp_path / "a" / "b").mkdir(parents=True)
    watched = reload._watched
    assert watched("app:app", None, ()) == [tmp_path]
    assert watched("sub/app.py", None, ()) == [tmp_path]
    assert watched(f"{other}:app", None, ()) == [other.parent]
    assert watched("app:app", "a", ()) == [tmp_path / "a"]
    assert watched("app:app", "a", ("a", "a/b")) == [tmp_path / "a"]
    with pytest.raises(ConfigurationError, match="does not exist"):
        watched("app:app", None, ("nowhere",))


def test_stale_bytecode_is_forgotten(tmp_path: Path) -> None:
    source = touch(tmp_path / "app.py")
    py_compile.compile(str(source))
    cached = Path(importlib.util.cache_from_source(str(source)))
    assert cached.exists()
    reload._forget_bytecode(str(source))
    assert not cached.exists()
    reload._forget_bytecode(str(source))


def test_exit_codes_are_named() -> None:
    assert reload._exit_text(-9) == "SIGKILL"
    assert reload._exit_text(1) == "exit code 1"
    assert reload._exit_text(-999) == "exit code -999"
