"""The process above the workers: it starts them, replaces them, and serves nothing itself.

It holds every listening socket open, and hands each worker its copy. So a connection is never refused or lost while
workers come and go: what the system has accepted waits in the socket until the successor, which is ready before its
predecessor leaves, takes it. On Linux each worker has sockets of its own on the same port (`SO_REUSEPORT`), between
which the kernel divides the connections evenly; while there is no worker at such a socket, the others serve it too.
Elsewhere, and on Unix and inherited sockets, all workers share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from typing import Any

import armature
from armature._impl import IMPL
from armature.exceptions import ConfigurationError
from armature.logs import configure_logging
from armature.server.config import MOST_WORKERS, ServerConfig
from armature.server.cpus import allowed_cpus, available_cpus
from armature.server.listeners import ListenError, Listeners, url_of
from armature.server.runner import CANNOT_LISTEN, CANNOT_START, has_terminal
from armature.server.systemd import Notifier
from armature.server.workers import (
    CANNOT_LOAD,
    GATHER_SECONDS,
    HELD_BACK,
    Decoder,
    MainAttribute,
    Task,
    encode,
    signals_of,
    work,
)

__all__ = ["supervise"]

logger = logging.getLogger("armature.server")

#: Seconds that a worker may take, beside `shutdown_timeout`, until it is killed: for its app's shut-down.
KILL_SECONDS = 10.0

#: Seconds from a second signal, or a third, until those that have not ended are killed.
HURRY_SECONDS = 3.0

#: A worker that ends by itself within so many seconds counts as one that keeps failing.
STABLE_SECONDS = 60.0

#: Pauses before the second, third, ... start of a worker that keeps failing; the last one goes on.
PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

#: Messages that may wait for a worker.
MOST_MESSAGES = 1000

#: Seconds until a worker that could not be replaced is tried again.
RETRY_SECONDS = 30.0


class Process:
    """A worker process as its supervisor sees it.

    Args:
        number: The number of its place.
    """

    def __init__(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.process: Any = None
        self.pid = 0
        #: This end of the socket pair.
        self.channel: socket.socket | None = None
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        #: It was told to stop; whatever its exit code is, it did.
        self.leaving = False
        self.ready_at = 0.0
        #: The places of other workers that it serves meanwhile.
        self.adopted: set[int] = set()
        self.counters: dict[str, float] = {}
        #: What it is to be told, with sockets to go along.
        self.messages: asyncio.Queue[tuple[bytes, Sequence[socket.socket]]] = asyncio.Queue(MOST_MESSAGES)
        #: An answer to the question for its counters is on the way.
        self.asked: asyncio.Future[None] | None = None

    @property
    def serves(self) -> bool:
        """Whether it takes connections."""
        return self.ready.done() and not self.leaving and not self.ended.done()

    def tell(self, message: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        """Send it a message; one that has not read any for long is stuck, and ended."""
        try:
            self.messages.put_nowait((encode(message), sockets))
        except asyncio.QueueFull:
            self.kill()

    def stop(self) -> None:
        """Let it finish its requests and end; a second time it is told to hurry."""
        self.leaving = True
        if self.ready.done():
            self.tell({"type": "stop"})
        else:
            self.kill(hard=False)

    def kill(self, hard: bool = True) -> None:
        """End it."""
        if self.process is not None and not self.ended.done():
            with contextlib.suppress(OSError):
                (self.process.kill if hard else self.process.terminate)()


class Place:
    """Where one worker serves: a number, a processor, and listening sockets.

    Args:
        number: From 1 on.
        listeners: The sockets.
    """

    def __init__(self, number: int, listeners: Listeners) -> None:
        self.number = number
        self.listeners = listeners
        self.process: Process | None = None
        #: Whether there should be a worker.
        self.wanted = True
        #: Whether connections arrive here: from the first time a worker was ready.
        self.listening = False
        #: Starts that failed, and workers that ended soon, one after the other.
        self.failures = 0
        self.changing = asyncio.Lock()


class StartFailure(Exception):
    """A worker ended before it was ready.

    Args:
        code: Its exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Supervisor:
    """Keeps the workers of one app.

    Args:
        task: What each worker is to do; number, processor and inherited sockets are filled in.
        config: The options.
        listeners: The bound sockets.
        context: How processes are made.
        count: How many workers there should be.
    """

    def __init__(
        self, task: Task, config: ServerConfig, listeners: Listeners, context: BaseContext, count: int
    ) -> None:
        self.task = task
        self.config = config
        self.context = context
        self.count = count
        self.places = [Place(1, listeners)]
        self.processes: set[Process] = set()
        self.retired: dict[str, float] = {}
        self.code = 0
        self.own_sockets = sys.platform == "linux" and config.uds is None and config.fd is None
        self._notifier = Notifier()
        self._had_terminal = os.name == "posix" and has_terminal()
        self._cpus = allowed_cpus() if config.worker_affinity else []
        self._ending = asyncio.Event()
        self._hurried = asyncio.Event()
        self._signals = 0
        self._replacing = asyncio.Lock()
        #: Reloads that were asked for, the one under way included.
        self._reloads = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._followers: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        with contextlib.ExitStack() as stack:
            self._listen_to_signals(stack)
            try:
                while len(self.places) < self.count:
                    self._add_place()
                self._do(self._start())
                await self._ending.wait()
            finally:
                await self._stop()
        return self.code

    async def _start(self) -> None:
        # The first one alone: what is wrong with the app is said once.
        try:
            await self._enter(self.places[0])
            await asyncio.gather(*(self._enter(place) for place in self.places[1:]))
        except StartFailure as failure:
            self._give_up(failure.code)
            return
        logger.info("%s", self._banner())
        self._notifier.ready(self._banner())
        self._notifier.start_watchdog(asyncio.get_running_loop())

    def _banner(self) -> str:
        tls = self.config.ssl_context is not None or self.config.ssl_certfile is not None
        workers = "1 worker" if self.count == 1 else f"{self.count} workers"
        url = url_of(self.places[0].listeners.sockets[0], "https" if tls else "http")
        return f"Armature {armature.__version__} ({IMPL}) on {url}, {workers}, supervised by process {os.getpid()}"

    # Signals.

    def _listen_to_signals(self, stack: contextlib.ExitStack) -> None:
        self._on_signal(stack, "SIGINT", self._on_stop)
        self._on_signal(stack, "SIGTERM", self._on_stop)
        self._on_signal(stack, "SIGBREAK", self._on_stop)
        self._on_signal(stack, "SIGHUP", self._on_hang_up)
        self._on_signal(stack, "SIGTTIN", self._on_more)
        self._on_signal(stack, "SIGTTOU", self._one_less)
        self._on_signal(stack, "SIGCHLD", self._look_for_ended)

    def _on_signal(self, stack: contextlib.ExitStack, name: str, function: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        for number in signals_of([name]):
            before = signal.getsignal(number)
            stack.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
            try:
                loop.add_signal_handler(number, function)
            except NotImplementedError:
                # Windows.
                signal.signal(number, lambda received, frame: loop.call_soon_threadsafe(function))
            else:
                stack.callback(loop.remove_signal_handler, number)

    def _on_stop(self) -> None:
        self._signals += 1
        self._ending.set()
        if self._signals > 1:
            self._hurried.set()
            for process in self.processes:
                process.stop()
                asyncio.get_running_loop().call_later(HURRY_SECONDS, process.kill)

    def _on_hang_up(self) -> None:
        if self._had_terminal and not has_terminal():
            self._on_stop()
            return
        # During a reload: what has changed since that began must not be missed.
        self._reloads += 1
        if self._reloads == 1 and not self._ending.is_set():
            self._do(self._reload())

    def _on_more(self) -> None:
        if not self._ending.is_set():
            self._do(self._one_more())

    def _look_for_ended(self) -> None:
        for process in list(self.processes):
            self._look_at(process)

    def _do(self, work: Coroutine[Any, Any, None], following: bool = False) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks = self._followers if following else self._tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("the supervisor failed; stopping", exc_info=error)
            self._end(1)

    # Places.

    def _add_place(self) -> Place:
        first = self.places[0].listeners
        place = Place(len(self.places) + 1, first.sibling() if self.own_sockets else first)
        self.places.append(place)
        return place

    async def _one_more(self) -> None:
        place = next((place for place in self.places if not place.wanted), None)
        if place is None:
            if len(self.places) >= MOST_WORKERS:
                logger.warning("there are %d workers already", MOST_WORKERS)
                return
            try:
                place = self._add_place()
            except ListenError as error:
                logger.error("%s", error)
                return
        place.wanted = True
        place.failures = 0
        self.count += 1
        logger.info("one worker more, %d", self.count)
        try:
            await self._enter(place)
        except StartFailure as failure:
            logger.error("worker %d could not start (%s)", place.number, exit_text(failure.code))
            place.wanted = False
            self.count -= 1

    def _one_less(self) -> None:
        if self.count == 1 or self._ending.is_set():
            logger.warning("the last worker stays; SIGTERM stops the server")
            return
        place = next(place for place in reversed(self.places) if place.wanted)
        place.wanted = False
        self.count -= 1
        logger.info("one worker less, %d", self.count)
        self._settle(place)

    def _share(self) -> None:
        """See to it that connections are served which arrive at a place without a worker."""
        if not self.own_sockets or self._ending.is_set():
            return
        left = {
            place.number: place
            for place in self.places
            if place.listening and (place.process is None or not place.process.serves)
        }
        for process in self.processes:
            if not process.serves:
                continue
            for number in process.adopted - left.keys():
                process.tell({"type": "release", "number": number})
            for number in left.keys() - process.adopted:
                sockets = left[number].listeners.sockets
                process.tell({"type": "adopt", "number": number, "descriptors": len(sockets)}, sockets)
            process.adopted = set(left)

    # Workers.

    async def _enter(self, place: Place) -> None:
        """Start a worker at a place.

        Raises:
            StartFailure: It ended before it was ready.
        """
        async with place.changing:
            if place.process is None and place.wanted and not self._ending.is_set():
                place.process = await self._launch(place)
        self._settle(place)

    async def _launch(self, place: Place) -> Process:
        process = Process(place.number)
        # A plain callback, not a task: a forked process must not be inside of one.
        asyncio.get_running_loop().call_soon(self._spawn, process, place)
        outcomes: list[asyncio.Future[Any]] = [process.ready, process.ended]
        try:
            await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            process.stop()
            raise
        if not process.ready.done():
            raise StartFailure(process.ended.result())
        return process

    def _spawn(self, process: Process, place: Place) -> None:
        if process.leaving:
            process.ended.set_result(0)
            return
        ours, theirs = socket.socketpair()
        sockets = place.listeners.sockets
        inherited: tuple[socket.socket, ...] = ()
        if self.context.get_start_method() == "fork":
            channels = [other.channel for other in self.processes if other.channel is not None]
            others = {
                id(sock): sock for other in self.places for sock in other.listeners.sockets if sock not in sockets
            }
            inherited = (ours, *channels, *others.values())
        cpu = self._cpus[(place.number - 1) % len(self._cpus)] if self._cpus else None
        task = replace(self.task, number=place.number, cpu=cpu, inherited=inherited)
        made = self.context.Process(  # type: ignore[attr-defined]
            target=work, args=(task, theirs, sockets), name=f"worker-{place.number}"
        )
        try:
            with _held_back():
                made.start()
        except Exception as error:
            # No memory, no more processes, or an option that cannot be handed to another one.
            logger.error("worker %d cannot be started: %s: %s", place.number, type(error).__name__, error)
            ours.close()
            process.ended.set_result(CANNOT_START if isinstance(error, OSError) else CANNOT_LOAD)
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        process.process, process.pid, process.channel = made, made.pid, ours
        self.processes.add(process)
        self._do(self._follow(process), following=True)

    async def _follow(self, process: Process) -> None:
        """Hear what a worker says, until it has ended."""
        loop = asyncio.get_running_loop()
        assert process.channel is not None
        telling = loop.create_task(self._tell(process, process.channel))
        decoder = Decoder()
        watched = False
        with contextlib.suppress(NotImplementedError):
            # A child of the worker may keep the socket pair open; and the worker of a fork server is not our child.
            loop.add_reader(process.process.sentinel, self._look_at, process)
            watched = True
        try:
            with contextlib.suppress(OSError):
                while data := await self._receive(process, process.channel):
                    for message in decoder.feed(data):
                        self._hear(process, message)
            pause = 0.001
            while not process.ended.done():
                # It has closed its end, so it is about to end.
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.1)
                self._look_at(process)
        finally:
            if watched:
                loop.remove_reader(process.process.sentinel)
            telling.cancel()
            await asyncio.wait([telling])
        process.channel.close()
        self.processes.discard(process)
        process.process.close()
        self._ended(process)

    async def _receive(self, process: Process, channel: socket.socket) -> bytes:
        receiving = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(channel, 65536))
        outcomes: list[asyncio.Future[Any]] = [receiving, process.ended]
        try:
            await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            receiving.cancel()
            # The loop lets go of the socket before anybody closes it.
            await asyncio.wait([receiving])
        # What it said last may be unread, and its end of the pair may live on in a child.
        return channel.recv(65536) if receiving.cancelled() else receiving.result()

    async def _tell(self, process: Process, channel: socket.socket) -> None:
        """Send a worker what it is to be told."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                data, sockets = await process.messages.get()
                # Sockets that were closed meanwhile have lost their numbers: the end has begun.
                numbers = [sock.fileno() for sock in sockets]
                if -1 in numbers:
                    continue
                sent = 0
                while numbers and not sent:
                    try:
                        sent = socket.send_fds(channel, [data], numbers)
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
                await loop.sock_sendall(channel, data[sent:])

    def _look_at(self, process: Process) -> None:
        if not process.ended.done() and (code := process.process.exitcode) is not None:
            process.ended.set_result(code)

    def _hear(self, process: Process, message: dict[str, Any]) -> None:
        match message["type"]:
            case "ready":
                process.ready_at = time.monotonic()
                process.ready.set_result(None)
                if process.leaving:
                    # It was ready when SIGTERM came, which it then takes for the wish for a successor.
                    process.stop()
            case "renew":
                self._do(self._renew(process, message["why"]))
            case "counters" | "ended":
                process.counters = message["counters"]
                if process.asked is not None and not process.asked.done():
                    process.asked.set_result(None)
            case "gather":
                self._do(self._gather(process))

    def _ended(self, process: Process) -> None:
        for name, number in process.counters.items():
            if not name.startswith("worker."):
                self.retired[name] = self.retired.get(name, 0) + number
        place = self.places[process.number - 1]
        if place.process is process and not self._ending.is_set():
            self._share()
            if place.wanted:
                code = process.ended.result()
                logger.error("worker %d (process %d) ended by itself, %s", place.number, process.pid, exit_text(code))
                self._do(self._revive(place, process))

    async def _revive(self, place: Place, ended: Process) -> None:
        """Start another worker in the place of one that has ended."""
        async with place.changing:
            if place.process is not ended:
                # It was to be replaced anyway.
                return
            place.process = None
        if time.monotonic() - ended.ready_at > STABLE_SECONDS:
            place.failures = 0
        while place.wanted and place.process is None:
            await asyncio.sleep(pause_after(place.failures))
            place.failures += 1
            try:
                await self._enter(place)
            except StartFailure as failure:
                if not any(process.serves for process in self.processes):
                    self._give_up(failure.code)
                    return
                logger.error(
                    "worker %d could not start (%s); trying again in %g seconds",
                    place.number,
                    exit_text(failure.code),
                    pause_after(place.failures),
                )

    def _settle(self, place: Place) -> None:
        """A worker has come to its place; but what is wanted may have changed meanwhile."""
        if place.process is not None:
            place.listening = True
            if not place.wanted:
                self._dismiss(place.process)
                place.process = None
        self._share()

    async def _replace(self, place: Place, old: Process) -> bool:
        """Put a new worker in the place of one that serves; False if the new one could not start."""
        async with self._replacing, place.changing:
            if place.process is not old or not place.wanted or self._ending.is_set():
                return True
            try:
                place.process = await self._launch(place)
            except StartFailure as failure:
                logger.error(
                    "the successor of worker %d could not start (%s); the old one stays",
                    place.number,
                    exit_text(failure.code),
                )
                return False
            self._dismiss(old)
        self._settle(place)
        return True

    async def _reload(self) -> None:
        """Replace all workers, one after the other."""
        while self._reloads:
            asked = self._reloads
            logger.info("replacing the workers")
            self._notifier.reloading()
            for place in list(self.places):
                if place.process is not None and not await self._replace(place, place.process):
                    logger.error("the workers are not replaced; mend what is wrong and send SIGHUP again")
                    break
            else:
                logger.info("the workers are replaced")
            self._notifier.ready(self._banner())
            # Those that were asked for together are done together.
            self._reloads = 0 if self._reloads == asked else 1

    async def _renew(self, process: Process, why: str) -> None:
        """Replace one worker that has served enough."""
        if self._ending.is_set():
            return
        place = self.places[process.number - 1]
        logger.info("replacing worker %d: %s", place.number, why)
        if not await self._replace(place, process):
            # Nobody will tell when what is wrong is mended.
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_SECONDS, lambda: self._do(self._renew(process, why)))

    def _dismiss(self, process: Process) -> None:
        if not process.leaving:
            process.stop()
        # Whether it has ended by then or not.
        asyncio.get_running_loop().call_later(self.config.shutdown_timeout + KILL_SECONDS, process.kill)

    async def _gather(self, asking: Process) -> None:
        """Tell a worker what all of them have counted."""
        questions = []
        for process in self.processes:
            if process.ready.done() and not process.ended.done():
                if process.asked is None or process.asked.done():
                    process.asked = asyncio.get_running_loop().create_future()
                    process.tell({"type": "count"})
                questions.append(process.asked)
        if questions:
            await asyncio.wait(questions, timeout=GATHER_SECONDS)
        found = [process.counters for process in self.processes if process.counters and not process.ended.done()]
        asking.tell({"type": "gathered", "workers": found, "retired": self.retired})

    # The end.

    def _give_up(self, code: int) -> None:
        """End because no worker can start; with the exit code of the last one, as a shell would have it."""
        if not self._ending.is_set():
            logger.critical("the worker could not start (%s); stopping", exit_text(code))
            self._end(128 - code if code < 0 else code or CANNOT_START)

    def _end(self, code: int) -> None:
        if not self._ending.is_set():
            self.code = code
            self._ending.set()

    async def _stop(self) -> None:
        """Let all workers finish their requests and end."""
        self._ending.set()
        self._notifier.stopping()
        for task in self._tasks:
            task.cancel()
        # Those that have not begun would keep sockets open in which nobody accepts.
        starting = [process for process in self.processes if not process.ready.done()]
        for process in starting:
            process.stop()
        if starting:
            await asyncio.wait([process.ended for process in starting], timeout=1.0)
        if self.config.shutdown_delay and not self._hurried.is_set():
            # Load balancers get the time to notice; what they still send is served.
            for process in self.processes:
                process.tell({"type": "unready"})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), self.config.shutdown_delay)
        # First nobody new comes in, then the workers serve those that wait.
        for listeners in dict.fromkeys(place.listeners for place in self.places):
            await listeners.close()
        for process in self.processes:
            self._dismiss(process)
        if waiting := self._tasks | self._followers:
            await asyncio.wait(waiting)
        self._notifier.stop_watchdog()


def supervise(app: Any, config: ServerConfig, factory: bool = False, app_dir: str | None = None) -> int:
    """Serve an app with workers until told to stop; return the exit code.

    SIGINT and SIGTERM stop all workers, a second one cuts that short. SIGHUP replaces them one after the other, SIGTTIN
    and SIGTTOU make one more or one less.

    Args:
        app: An import string, or an app that the new processes can find or inherit.
        config: The options.
        factory: Whether an import string names a function that returns the app.
        app_dir: Where the module of an import string is looked for first.

    Raises:
        ConfigurationError: The workers cannot have this app or these options.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("workers can only be started in the main thread, which gets the signals")
    method, target = _how(app, config)
    if config.ssl_context is not None and method != "fork":
        raise ConfigurationError(
            "an ssl_context cannot be handed to another process; use ssl_certfile and ssl_keyfile, or, on Linux, "
            "start_method='fork'"
        )
    # What is wrong with the certificate is said once.
    config.tls()
    count = available_cpus() if config.workers == "auto" else config.workers
    inner = replace(
        config,
        workers=1,
        max_requests=None,
        max_requests_jitter=0,
        max_memory=None,
        reuse_port=False,
        uds=None,
        fd=None,
        shutdown_delay=0,
    )
    task = Task(
        target,
        factory,
        app_dir,
        inner,
        number=0,
        max_requests=config.max_requests,
        max_requests_jitter=config.max_requests_jitter,
        max_memory=config.max_memory,
    )
    context = multiprocessing.get_context(method)
    _prepare(context)
    # The standard loop: uvloop wants SIGCHLD for itself.
    loop_factory = asyncio.SelectorEventLoop if os.name == "posix" else None
    listeners = Listeners(config)
    this = multiprocessing.current_process()
    before, this.name = this.name, "supervisor"
    configure_logging(config.log_level, config.log_format, processes=True)
    try:
        # On a loop of its own, which takes with it the thread that has looked up the host: none may be there in a fork.
        asyncio.run(listeners.bind())
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(Supervisor(task, config, listeners, context, count).run())
    except ListenError as error:
        logger.critical("%s", error)
        return CANNOT_LISTEN
    finally:
        this.name = before


def _how(app: Any, config: ServerConfig) -> tuple[str, Any]:
    """Decide how processes are made, and what the app is called in them."""
    method = config.start_method
    if isinstance(app, str):
        return ("spawn" if method == "auto" else method), app
    if method == "fork":
        return method, app
    name = _name_of(app)
    if name is not None:
        return ("spawn" if method == "auto" else method), name
    if method == "auto" and sys.platform == "linux" and len(os.listdir("/proc/self/task")) == 1:
        return "fork", app
    raise ConfigurationError(
        f"workers cannot find {app!r}: it is not an attribute of a module that they can import; give run() an import "
        'string such as "shop:app", put the app at the top level of a module, or, on Linux and without threads, choose '
        "start_method='fork'"
    )


def _name_of(app: Any) -> str | MainAttribute | None:
    """Where a new process finds an app, or None."""
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None:
        for name, value in list(vars(main).items()):
            if value is app:
                return MainAttribute(name)
    for module_name, module in list(sys.modules.items()):
        if module is not main and getattr(module, "__spec__", None) is not None:
            for name, value in list(vars(module).items()):
                if value is app:
                    return f"{module_name}:{name}"
    return None


def _prepare(context: BaseContext) -> None:
    """Start what processes are made with, before signals are held back."""
    method = context.get_start_method()
    if method != "fork" and os.name == "posix":
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()
        if method == "forkserver":
            # The server: not the app, which every worker imports as it is then.
            context.set_forkserver_preload(["armature.server.workers"])
            forkserver.ensure_running()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Keep signals from a new process until it can tell what is meant for it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals_of(HELD_BACK))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pause_after(failures: int) -> float:
    """Return how many seconds to wait before the next start."""
    return PAUSES[min(failures, len(PAUSES) - 1)]


def exit_text(code: int) -> str:
    """Return how a process ended, in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
