"""A worker: one of several processes that serve the same app, and the way they and their supervisor talk.

Each worker has one end of a socket pair, over which go lines of JSON, and on Linux listening sockets with them. A
thread reads it, so that a worker learns at once that its supervisor is gone, whatever its event loop is busy with.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import armature
from armature._impl import connection
from armature.exceptions import ConfigurationError, MissingDependencyError
from armature.logs import configure_logging
from armature.server import metrics
from armature.server.config import MEMORY_FILE, ServerConfig
from armature.server.importer import format_import_error
from armature.server.runner import Server, run_server

__all__ = [
    "Decoder",
    "MainAttribute",
    "Task",
    "Worker",
    "WorkerStats",
    "encode",
    "gather_stats",
    "signals_of",
    "work",
]

logger = logging.getLogger("armature.server")

#: Exit code of a worker whose app or options are wrong, as that of the command.
CANNOT_LOAD = 2

#: Seconds that a worker whose supervisor is gone may take for its shut-down, beside `shutdown_timeout`.
GRACE = 10.0

#: Seconds between two looks at what a worker has served and how much memory it uses.
CHECK_SECONDS = 0.5

#: Seconds that the supervisor, and so `gather_stats`, waits for a worker that is busy.
GATHER_SECONDS = 0.5

#: The most descriptors that one message brings; Linux's own limit.
MOST_DESCRIPTORS = 253

#: What a terminal, or whoever means the supervisor, may send to a whole process group; the supervisor decides.
LEFT_TO_SUPERVISOR = ("SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGBREAK")

#: What is held back while a process is made.
HELD_BACK = ("SIGTERM", "SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU")

#: The worker that this process is, from the moment before it imports the app.
worker: Worker | None = None


# What goes over the socket pair.


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as it goes over the socket pair."""
    return json.dumps(message).encode() + b"\n"


class Decoder:
    """Cuts what arrives at one end of the socket pair into messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yield the messages that are complete now."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


# What a worker is told at its start.


@dataclass(frozen=True)
class MainAttribute:
    """An app that stands in the program's main module, which is imported anew in each process."""

    name: str

    def load(self) -> Any:
        """Return the app.

        Raises:
            ConfigurationError: The module has no such attribute when it is not the main one.
        """
        module = sys.modules["__main__"]
        try:
            return getattr(module, self.name)
        except AttributeError:
            raise ConfigurationError(
                f"{getattr(module, '__file__', None) or 'the main module'} defines no {self.name!r} when a worker "
                'imports it; define the app above `if __name__ == "__main__":`'
            ) from None


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Args:
        target: An import string, where the main module has the app, or the app itself.
        factory: Whether an import string names a function that returns the app.
        app_dir: Where the module of an import string is looked for first.
        config: The options of its server.
        number: Which of the workers it is, from 1 on.
        cpu: The processor that it stays on; None for any.
        max_requests: Requests after which it asks to be replaced.
        max_requests_jitter: How many more these may be.
        max_memory: Bytes of memory above which it asks to be replaced.
        inherited: Sockets that a forked process has and must not keep.
    """

    target: Any
    factory: bool
    app_dir: str | None
    config: ServerConfig
    number: int
    cpu: int | None = None
    max_requests: int | None = None
    max_requests_jitter: int = 0
    max_memory: int | None = None
    inherited: tuple[socket.socket, ...] = ()


def work(task: Task, channel: socket.socket, sockets: list[socket.socket]) -> None:
    """Serve as a worker until the supervisor says otherwise; the target of its process.

    Args:
        task: What to do.
        channel: This worker's end of the socket pair.
        sockets: What to listen on.
    """
    global worker
    _settle(task)
    # A program that the app starts must not keep the port, nor the supervisor from noticing this worker's end.
    for sock in (channel, *sockets):
        sock.set_inheritable(False)
    configure_logging(task.config.log_level, task.config.log_format, processes=True)
    worker = Worker(task, channel)
    try:
        target = task.target.load() if isinstance(task.target, MainAttribute) else task.target
        server = WorkerServer(worker, target, task.config, task.factory, task.app_dir, sockets)
        code = worker.run(server)
    except (ConfigurationError, MissingDependencyError) as error:
        sys.stderr.write(format_import_error(error))
        sys.stderr.flush()
        code = CANNOT_LOAD
    raise SystemExit(code)


def _settle(task: Task) -> None:
    """Become a process of its own, whatever this one has from its parent."""
    for number in signals_of(LEFT_TO_SUPERVISOR):
        # Not ignored, which programs that the app starts would inherit.
        signal.signal(number, lambda number, frame: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The supervisor held them back until this process could tell them apart.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals_of(HELD_BACK))
    for sock in task.inherited:
        sock.close()
    if task.cpu is not None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {task.cpu})


def signals_of(names: Iterable[str]) -> set[signal.Signals]:
    """Return those of the signals that this system has.

    Args:
        names: Their names.
    """
    return {getattr(signal, name) for name in names if hasattr(signal, name)}


class WorkerServer(Server):
    """The server of a worker.

    Args:
        worker: The worker.
        app: An app, or an import string.
        config: The options.
        factory: Whether an import string names a function that returns the app.
        app_dir: Where the module of an import string is looked for first.
        sockets: What to listen on.
    """

    # The others are for the supervisor.
    stop_signals = (signal.SIGTERM,)

    def __init__(
        self,
        worker: Worker,
        app: Any,
        config: ServerConfig,
        factory: bool,
        app_dir: str | None,
        sockets: Sequence[socket.socket],
    ) -> None:
        super().__init__(app, config, factory=factory, app_dir=app_dir, sockets=sockets)
        self._worker = worker
        self._adopted: dict[int, list[socket.socket]] = {}
        self._adopting = asyncio.Lock()
        self._leaving = False

    def banner(self) -> str:
        """One line that says which process this worker is."""
        return f"worker {self._worker.task.number} serves in process {os.getpid()}"

    def stop(self) -> None:
        """Ask the supervisor for a successor, as SIGTERM does; before there are requests to serve, shut down.

        Service managers send SIGTERM to all processes: to the supervisor too, which then sees to the end.
        """
        if self.ready and self.failed is None:
            self._worker.renew("it got SIGTERM")
        elif not self._leaving:
            self.leave()

    def leave(self) -> None:
        """Shut down as the supervisor says; told a second time, cut it short."""
        self._leaving = True
        super().stop()

    def turn_away(self) -> None:
        """Say to whoever asks that requests should go elsewhere."""
        self._turn_away()

    async def startup(self) -> None:
        """Start as any server does, and tell the supervisor."""
        await super().startup()
        self._worker.started()

    async def adopt(self, number: int, sockets: list[socket.socket]) -> None:
        """Serve also what arrives for a worker that is not there.

        Args:
            number: That worker's.
            sockets: Its listening sockets.
        """
        async with self._adopting:
            if self._listeners is not None and self.ready and number not in self._adopted:
                self._adopted[number] = sockets
                await self._listeners.add(sockets)
                return
        for sock in sockets:
            sock.close()

    async def release(self, number: int) -> None:
        """Leave a worker's connections to it again.

        Args:
            number: The worker's.
        """
        async with self._adopting:
            sockets = self._adopted.pop(number, None)
            if sockets is not None and self._listeners is not None:
                await self._listeners.remove(sockets)


@dataclass
class WorkerStats:
    """What the workers of one app have counted.

    Args:
        workers: The counters of each process that serves, also of those that finish their last requests.
        retired: The sums of those that have ended.
    """

    workers: list[dict[str, float]]
    retired: dict[str, float] = field(default_factory=dict)


class Worker:
    """This process as a worker: its end of the socket pair, and what the supervisor asks for.

    Args:
        task: What it is to do.
        channel: Its end.
    """

    def __init__(self, task: Task, channel: socket.socket) -> None:
        self.task = task
        self._channel = channel
        self._sending = threading.Lock()
        self._server: WorkerServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = 0
        self._asked: list[Future[WorkerStats]] = []
        # A forked process has the numbers of its parent.
        self._served_before = connection.stats()["requests"]
        most = task.max_requests
        self._most_requests = None if most is None else most + random.randint(0, task.max_requests_jitter)
        channel.setblocking(True)
        threading.Thread(target=self._follow, name="armature-supervisor", daemon=True).start()

    def run(self, server: WorkerServer) -> int:
        """Serve; return the exit code of the process.

        Args:
            server: The server.
        """
        with self._sending:
            self._server = server
            stops = self._stops
        for _ in range(stops):
            server.leave()
        try:
            return run_server(server)
        finally:
            self._loop = None
            self._say({"type": "ended", "counters": counters()})

    def started(self) -> None:
        """Tell the supervisor that requests are welcome; called on the loop."""
        self._loop = asyncio.get_running_loop()
        self._say({"type": "ready"})
        if self._most_requests is not None or self.task.max_memory is not None:
            self._check(self._loop)

    async def gather(self) -> WorkerStats:
        """Ask the supervisor for the counters of all workers."""
        asked: Future[WorkerStats] = Future()
        with self._sending:
            first = not self._asked
            self._asked.append(asked)
        if first:
            # One question is enough for all who wait.
            self._say({"type": "gather"})
        return await asyncio.wrap_future(asked)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        why = self._excess()
        if why is None:
            loop.call_later(CHECK_SECONDS, self._check, loop)
        else:
            self.renew(why)

    def renew(self, why: str) -> None:
        """Ask for a successor, once that one serves the supervisor will say stop.

        Args:
            why: What the log says.
        """
        self._say({"type": "renew", "why": why})

    def _excess(self) -> str | None:
        if self._most_requests is not None:
            served = connection.stats()["requests"] - self._served_before
            if served >= self._most_requests:
                return f"it has served {served} requests"
        if self.task.max_memory is not None:
            used = memory()
            if used > self.task.max_memory:
                return f"it uses {used >> 20} MiB of memory"
        return None

    def _say(self, message: Mapping[str, Any]) -> None:
        # If the supervisor is gone, the thread that reads will notice.
        with contextlib.suppress(OSError), self._sending:
            self._channel.sendall(encode(message))

    def _follow(self) -> None:
        """Do what the supervisor says, and end this process when there is none any more."""
        decoder = Decoder()
        received: list[int] = []
        with contextlib.suppress(OSError):
            while data := self._receive(received):
                for message in decoder.feed(data):
                    self._obey(message, received)
        logger.warning("worker %d: the supervisor is gone; stopping", self.task.number)
        self._answer(WorkerStats([]))
        self._stop()
        time.sleep(self.task.config.shutdown_timeout + GRACE)
        os._exit(1)

    def _receive(self, received: list[int]) -> bytes:
        if not hasattr(socket, "recv_fds"):
            return self._channel.recv(65536)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        data, descriptors, _, _ = socket.recv_fds(self._channel, 65536, MOST_DESCRIPTORS, flags)
        received += descriptors
        return data

    def _obey(self, message: dict[str, Any], received: list[int]) -> None:
        match message["type"]:
            case "stop":
                self._stop()
            case "unready" if self._server is not None:
                self._on_loop(self._server.turn_away)
            case "adopt":
                # Descriptors arrive in the order of the messages that they belong to.
                count = message["descriptors"]
                sockets = [socket.socket(fileno=descriptor) for descriptor in received[:count]]
                del received[:count]
                for sock in sockets:
                    sock.setblocking(False)
                self._on_server(functools.partial(_adopt, number=message["number"], sockets=sockets))
            case "release":
                self._on_server(functools.partial(_release, number=message["number"]))
            case "count":
                self._on_loop(self._tell_counters)
            case "gathered":
                self._answer(WorkerStats(message["workers"], message["retired"]))

    def _answer(self, stats: WorkerStats) -> None:
        with self._sending:
            asked, self._asked = self._asked, []
        for future in asked:
            if future.set_running_or_notify_cancel():
                future.set_result(stats)

    def _stop(self) -> None:
        with self._sending:
            self._stops += 1
            server = self._server
        if server is not None:
            server.leave()

    def _on_loop(self, function: Callable[[], object]) -> None:
        loop = self._loop
        if loop is None:
            function()
            return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(function)

    def _on_server(self, change: Callable[[WorkerServer], Coroutine[Any, Any, None]]) -> None:
        server, loop = self._server, self._loop
        if server is not None and loop is not None:
            with contextlib.suppress(RuntimeError):
                done = asyncio.run_coroutine_threadsafe(change(server), loop)
                done.add_done_callback(functools.partial(_log_failure, server))

    def _tell_counters(self) -> None:
        self._say({"type": "counters", "counters": counters()})


async def _adopt(server: WorkerServer, number: int, sockets: list[socket.socket]) -> None:
    await server.adopt(number, sockets)


async def _release(server: WorkerServer, number: int) -> None:
    await server.release(number)


def _log_failure(server: WorkerServer, future: Future[None]) -> None:
    # A server that has begun to stop closes these sockets with its own.
    if server.ready and not future.cancelled() and (error := future.exception()) is not None:
        logger.error("cannot serve the connections of another worker", exc_info=error)


# What workers count.


def counters() -> dict[str, float]:
    """Return what this process has counted, as `armature.stats()` does, what it measures, and which worker it is."""
    found: dict[str, float] = dict(armature.stats())
    if metrics.is_measuring():
        found |= metrics.collect()
    found["worker.number"] = 0 if worker is None else worker.task.number
    found["worker.pid"] = os.getpid()
    found["worker.memory"] = memory()
    return found


async def gather_stats() -> WorkerStats:
    """Return the counters of all workers of this app, from whichever of them it is called in.

    A worker that is too busy to answer is told of with its last known numbers. Without workers the only numbers are
    those of this process.
    """
    if worker is None:
        return WorkerStats([counters()])
    return await worker.gather()


def memory() -> int:
    """Return how many bytes of memory this process uses (its resident set); 0 where the system does not say."""
    try:
        with open(MEMORY_FILE, "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
