"""Serving an app and starting it afresh whenever its source changes.

Two processes: the *supervisor* holds the listening socket and watches the files, the *worker* serves the app.
A change stops the worker and starts another one, as a new interpreter, on the same inherited socket: a client
that connects in between waits in the socket's backlog and is never refused. The interpreter starts while the old
worker stops, and imports the app once that has ended. The worker holds the reading end of
a pipe whose writing end only the supervisor has, so it learns of the supervisor's death however that came about,
and no orphan keeps the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from armature.exceptions import ConfigurationError
from armature.server.config import ServerConfig
from armature.server.listeners import Listeners

__all__ = ["serve_worker", "supervise"]

#: Directories that never hold the app's own source.
IGNORED_DIRECTORIES = frozenset(
    {"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist", "htmlcov", "target"}
)

#: Seconds a worker is given to finish its requests and run its shutdown hooks, before it is killed.
GRACE = 5.0

#: Seconds between two looks at the worker while nothing changes.
TICK = 0.5

#: Seconds between two scans of the polling watcher at the least, and scans' share of one core at the most.
POLL_INTERVAL = 0.3
POLL_SHARE = 0.008

#: Exit code of a worker whose app could not be loaded or started.
FAILED = 3

_WORKER = "from armature.server.reload import serve_worker; serve_worker()"

Snapshot = dict[str, int]
Filter = Callable[[str], bool]


def supervise(
    target: str,
    *,
    factory: bool = False,
    app_dir: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | None = None,
    fd: int | None = None,
    options: Mapping[str, Any] | None = None,
    reload_dirs: Sequence[str] = (),
    reload_includes: Sequence[str] = (),
    prepare: str | None = None,
    failure_app: str | None = None,
    polling: bool | None = None,
) -> int:
    """Serve the app that `target` names, and start it afresh whenever a source file changes; return an exit code.

    Args:
        target: An import string; see `armature.server.importer.load_app`.
        factory: Whether the import string names a function that returns the app.
        app_dir: The directory that modules are looked for in first.
        host: The address to listen on.
        port: The port to listen on; 0 lets the system choose.
        uds: The path of a Unix socket to listen on, instead of an address.
        fd: A listening socket that was inherited, instead of an address.
        options: Keyword arguments of `armature.server.run` for the worker; values that JSON can carry.
        reload_dirs: Directories to watch. Default: the one that the app is imported from.
        reload_includes: File patterns that cause a restart, besides `*.py`.
        prepare: Import string of a function that is given the app and returns the one to serve.
        failure_app: Import string of a function that makes, from the error, an app to serve while the real one
            cannot be imported. Without one, connections wait for the mend.
        polling: Whether to compare modification times instead of asking the system for events. Default: only if
            watchfiles is not installed.

    Raises:
        ConfigurationError: A directory to watch does not exist.
        ListenError: The address cannot be bound.
    """
    roots = _watched(target, app_dir, reload_dirs)
    config = ServerConfig(host=host, port=port, uds=uds, fd=fd)
    listeners = Listeners(config)
    spec = {
        "target": target,
        "factory": factory,
        "app_dir": app_dir,
        "options": dict(options or {}),
        "prepare": prepare,
        "failure_app": failure_app,
    }
    try:
        return Supervisor(spec, _bind(listeners, config.backlog), roots, reload_includes, polling).run()
    finally:
        asyncio.run(listeners.close())


class Supervisor:
    """The process that owns the socket, watches the files and keeps one worker.

    Args:
        spec: What the worker is told, besides its file descriptors.
        listener: The listening socket that every worker inherits.
        roots: Directories to watch.
        includes: File patterns that cause a restart, besides `*.py`.
        polling: See `supervise`.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        listener: socket.socket,
        roots: Sequence[Path],
        includes: Sequence[str] = (),
        polling: bool | None = None,
    ) -> None:
        self.spec = spec
        self.listener = listener
        self.roots = list(roots)
        self.wanted = _wanted_filter(self.roots, includes)
        self.polling = polling
        self.worker: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()
        self.interrupts = 0
        self.terminated = False
        self._guard: int | None = None
        self._ended = False

    def run(self) -> int:
        """Serve until told to stop; return 0, or 130 if a second interrupt cut the shutdown short."""
        previous = {number: signal.signal(number, self._on_signal) for number in _stop_signals()}
        try:
            with contextlib.suppress(KeyboardInterrupt):
                self._loop()
            self._stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return 130 if self.interrupts > 1 else 0

    def _loop(self) -> None:
        changes = self._changes()
        # The first look fixes what a change is measured against, so it comes before the worker reads its source.
        next(changes)
        self._start()
        for changed in changes:
            if self.stopping.is_set():
                return
            if changed:
                self._restart(changed)
            else:
                self._check()

    def _changes(self) -> Iterator[set[str]]:
        if not self.polling:
            try:
                yield from watch_events(self.roots, self.wanted, self.stopping)
                return
            except ImportError:
                how = "install watchfiles for quicker reloads: pip install 'armature-framework[dev]'"
            except OSError as error:
                # The number of inotify watches is limited per user, and a large tree exhausts it.
                how = f"file events are not available ({error}); comparing modification times instead"
            if self.polling is None and not self.stopping.is_set():
                _say(how)
        yield from poll_changes(self.roots, self.wanted, self.stopping)

    def _start(self) -> None:
        self._enter(*self._boot())

    def _boot(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start a worker that waits for the word; return it and the end of the pipe that gives it."""
        reader, writer = os.pipe()
        try:
            return _spawn(self.spec, self.listener, reader), writer
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)

    def _enter(self, worker: subprocess.Popen[bytes], guard: int) -> None:
        self.worker, self._guard, self._ended = worker, guard, False
        # One that has ended already is found out when it is looked at.
        with contextlib.suppress(OSError):
            os.write(guard, b"\n")

    def _restart(self, changed: Iterable[str]) -> None:
        names = sorted(_shown(name) for name in changed)
        _say(f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} changed; restarting")
        for name in changed:
            _forget_bytecode(name)
        successor, guard = self._boot()
        self._stop()
        if not self.stopping.is_set():
            self._enter(successor, guard)
            return
        successor.kill()
        successor.wait()
        os.close(guard)

    def _check(self) -> None:
        if self.worker is not None and not self._ended and (code := self.worker.poll()) is not None:
            self._ended = True
            if code == FAILED:
                _say("waiting for a change")
            else:
                _say(f"the worker ended by itself ({_exit_text(code)}); waiting for a change")

    def _stop(self) -> None:
        worker = self.worker
        if worker is not None:
            if self.interrupts and _in_foreground() and not self.terminated:
                # Ctrl-C in a terminal reaches the whole foreground group: the worker is stopping already, and
                # a second signal would tell it to hurry.
                self._wait(worker, GRACE)
            if worker.poll() is None:
                worker.terminate()
                self._wait(worker, GRACE)
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            self.worker = None
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    def _wait(self, worker: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        pause = 0.002
        while worker.poll() is None and self.interrupts < 2 and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.interrupts += 1
        else:
            self.terminated = True
        self.stopping.set()


def watch_events(roots: Sequence[Path], wanted: Filter, stopping: threading.Event) -> Iterator[set[str]]:
    """Yield sets of changed files as the system reports them, and empty sets in between.

    Raises:
        ImportError: watchfiles is not installed.
        OSError: The system has no file events to give.
    """
    import watchfiles

    yield set()
    events = watchfiles.watch(
        *roots,
        watch_filter=lambda change, path: wanted(path),
        # Editors write a file in several steps; what happens within `step` milliseconds is one change.
        debounce=400,
        step=30,
        stop_event=stopping,
        rust_timeout=int(TICK * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    for changes in events:
        yield {path for _, path in changes}


def poll_changes(roots: Sequence[Path], wanted: Filter, stopping: threading.Event) -> Iterator[set[str]]:
    """Yield sets of files whose modification time changed, and empty sets in between.

    The pause between two scans grows with what a scan costs, so that watching a large tree stays cheap.
    """
    before = scan(roots, wanted)
    yield set()
    while not stopping.is_set():
        started = time.thread_time()
        after = scan(roots, wanted)
        cost = time.thread_time() - started
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        before = after
        yield changed
        stopping.wait(max(POLL_INTERVAL, cost / POLL_SHARE))


def scan(roots: Sequence[Path], wanted: Filter) -> Snapshot:
    """Return the modification times, in nanoseconds, of the wanted files below `roots`."""
    found: Snapshot = {}
    pending = [str(root) for root in roots]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not _is_ignored(entry.name):
                            pending.append(entry.path)
                    elif wanted(entry.path):
                        with contextlib.suppress(OSError):
                            found[entry.path] = entry.stat().st_mtime_ns
        except OSError:
            continue
    return found


def serve_worker() -> None:
    """Serve as the supervisor's worker; the specification is the first argument of the command."""
    spec = json.loads(sys.argv[1])
    word = _follow_supervisor(spec["guard"])
    del sys.argv[1:]
    from armature.server import Server, run
    from armature.server.importer import format_import_error, load_app, load_object

    prepare = None if spec["prepare"] is None else load_object(spec["prepare"])
    try:
        word.wait()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    options: dict[str, Any] = spec["options"]
    # What is needed for building the app; the rest is for serving it.
    building: dict[str, Any] = {name: options.pop(name) for name in ("body_limit", "interface") if name in options}
    building |= {name: options[name] for name in ("lifespan", "root_path") if name in options}
    interface = building.get("interface", "auto")
    try:
        app = load_app(spec["target"], factory=spec["factory"], app_dir=spec["app_dir"], interface=interface)
        if prepare is not None:
            app = prepare(app)
        # Built here, so that routes that do not fit together are treated like a module that does not import.
        served: Any = Server(app, **building).load()
    except ConfigurationError as error:
        sys.stderr.write(format_import_error(error))
        sys.stderr.flush()
        if spec["failure_app"] is None:
            raise SystemExit(FAILED) from None
        _say("waiting for a change")
        served = load_object(spec["failure_app"])(error)
        options["lifespan"] = "off"
    run(served, fd=spec["fd"], **options)


def _follow_supervisor(guard: int) -> threading.Event:
    """End this process when the supervisor is gone, for whatever reason; return what is set at its word."""
    word = threading.Event()

    def follow() -> None:
        with contextlib.suppress(OSError):
            while os.read(guard, 64):
                word.set()
        with contextlib.suppress(OSError):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    if sys.platform == "win32":
        import msvcrt

        guard = msvcrt.open_osfhandle(guard, os.O_RDONLY)
    threading.Thread(target=follow, name="armature-supervisor", daemon=True).start()
    return word


def _spawn(spec: Mapping[str, Any], listener: socket.socket, guard: int) -> subprocess.Popen[bytes]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # Standard input stays the terminal's, so that `breakpoint()` in a handler works.
    if sys.platform == "win32":
        import msvcrt

        handles = [listener.fileno(), msvcrt.get_osfhandle(guard)]
        for handle in handles:
            os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": handles})
        return subprocess.Popen([sys.executable, *flags, "-c", _WORKER, _told(spec, handles)], startupinfo=startup)
    descriptors = [listener.fileno(), guard]
    command = [sys.executable, *flags, "-c", _WORKER, _told(spec, descriptors)]
    return subprocess.Popen(command, pass_fds=descriptors)


def _told(spec: Mapping[str, Any], descriptors: list[int]) -> str:
    return json.dumps({**spec, "fd": descriptors[0], "guard": descriptors[1]})


def _bind(listeners: Listeners, backlog: int) -> socket.socket:
    asyncio.run(listeners.bind())
    # A worker inherits one socket. Of a name with addresses of both families the one that every client reaches.
    listener = next((sock for sock in listeners.sockets if sock.family != socket.AF_INET6), listeners.sockets[0])
    # From here on clients may connect: they wait in the backlog until a worker serves them.
    listener.listen(backlog)
    return listener


def _watched(target: str, app_dir: str | None, reload_dirs: Sequence[str]) -> list[Path]:
    if reload_dirs:
        roots = [Path(name).resolve() for name in reload_dirs]
    elif app_dir is not None:
        roots = [Path(app_dir).resolve()]
    else:
        location = target.rpartition(":")[0] or target
        inside = Path.cwd()
        if location.endswith(".py") and not (file := Path(location).resolve()).is_relative_to(inside):
            inside = file.parent
        roots = [inside]
    for root in roots:
        if not root.is_dir():
            raise ConfigurationError(f"the directory {str(root)!r} cannot be watched: it does not exist")
    return [root for root in roots if not any(root != other and root.is_relative_to(other) for other in roots)]


def _wanted_filter(roots: Sequence[Path], includes: Sequence[str]) -> Filter:
    prefixes = tuple(str(root) for root in roots)

    def wanted(path: str) -> bool:
        name = os.path.basename(path)
        if not name.endswith(".py") and not any(fnmatch.fnmatch(name, pattern) for pattern in includes):
            return False
        prefix = next((prefix for prefix in prefixes if path.startswith(prefix)), "")
        return not any(map(_is_ignored, path[len(prefix) :].split(os.sep)[1:-1]))

    return wanted


def _is_ignored(directory: str) -> bool:
    return directory.startswith(".") or directory in IGNORED_DIRECTORIES


def _forget_bytecode(path: str) -> None:
    # Bytecode is matched to its source by size and whole seconds of the modification time, so two quick edits
    # of equal length would run the first one.
    with contextlib.suppress(OSError, NotImplementedError, ValueError):
        os.unlink(importlib.util.cache_from_source(path))


def _stop_signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C comes to this process, and so to its worker as well."""
    if os.name != "posix":
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _shown(path: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


def _exit_text(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _say(text: str) -> None:
    sys.stderr.write(f"armature: {text}\n")
    sys.stderr.flush()
