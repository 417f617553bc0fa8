"""Serving an app: `run` blocks until stopped, `Server` is the same for those who have a loop already."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import armature
from armature._impl import IMPL
from armature.exceptions import ConfigurationError, MissingDependencyError
from armature.server.config import ServerConfig
from armature.server.lifespan import Lifespan
from armature.server.listeners import ListenError, Listeners
from armature.server.state import ServerState
from armature.types import Service

__all__ = ["Server", "run"]

logger = logging.getLogger("armature.server")

#: Exit codes of `run`.
CANNOT_LISTEN = 1
CANNOT_START = 3

#: Seconds that idle connections stay open when a stop was asked for.
IDLE_SECONDS = 0.1

#: Seconds that handlers get to clean up after they were cancelled, because the shutdown took too long.
CLEANUP_SECONDS = 1.0


class Server:
    """A server for one app, on the running event loop.

    Use it as `await server.serve()`, which ends when a signal or `stop()` says so, or with `async with`, which
    serves inside the block.

    Args:
        app: What has `build()` (an `App` or a `Router`), a service, or an import string such as `"shop:app"`.
        config: The options.
        factory: Whether an import string names a function that returns the app.
        app_dir: Where the module of an import string is looked for first.
        **options: Options of `ServerConfig`, instead of `config`.

    Raises:
        ConfigurationError: An option is wrong.
    """

    def __init__(
        self,
        app: Any,
        config: ServerConfig | None = None,
        *,
        factory: bool = False,
        app_dir: str | None = None,
        **options: Any,
    ) -> None:
        if config is not None and options:
            raise ConfigurationError("give the server a config or single options, not both")
        self.config = ServerConfig.of(**options) if config is None else config
        self._app = app
        self._factory = factory
        self._app_dir = app_dir
        self._service: Service | None = None
        self._lifespan: Lifespan | None = None
        self._listeners: Listeners | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._forced: asyncio.Event | None = None
        #: What the connections share, once the server has started.
        self.state: ServerState | None = None
        #: Whether requests are welcome: from the end of the start-up until a stop is asked for.
        self.ready = False

    # What it is.

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets; none before `startup` and after `shutdown`."""
        return () if self._listeners is None else tuple(self._listeners.sockets)

    @property
    def port(self) -> int:
        """The TCP port that the server listens on.

        Raises:
            RuntimeError: It does not run, or listens on a Unix socket.
        """
        for sock in self.sockets:
            name = sock.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
        raise RuntimeError("the server does not listen on a TCP port")

    @property
    def url(self) -> str:
        """Where the server is found, such as `http://127.0.0.1:8000` or `unix:/run/shop.sock`."""
        scheme = "http" if self.state is None else self.state.scheme
        for sock in self.sockets:
            name = sock.getsockname()
            if isinstance(name, tuple):
                host = f"[{name[0]}]" if ":" in name[0] else name[0]
                return f"{scheme}://{host}:{name[1]}"
            return f"unix:{name.decode(errors='replace') if isinstance(name, bytes) else name}"
        raise RuntimeError("the server does not run")

    def load(self) -> Service:
        """Import and build the app, unless that has been done.

        Raises:
            ConfigurationError: The app cannot be imported or built; says why.
        """
        if self._service is None:
            self._service = _service_of(self._app, self.config, self._factory, self._app_dir)
        return self._service

    # What it does.

    async def serve(self) -> None:
        """Start, serve until `stop()` or a signal says so, and shut down.

        In the main thread SIGINT and SIGTERM stop the server; a second one cuts the shutdown short.

        Raises:
            ListenError: The address cannot be listened on.
        """
        self._begin()
        assert self._stopping is not None
        with self._signals():
            starting = asyncio.ensure_future(self.startup())
            stopped = asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
                if not starting.done():
                    starting.cancel()
                    await asyncio.wait([starting])
                    if not starting.cancelled() and (error := starting.exception()) is not None:
                        raise error
                    return
                await starting
                await stopped
            finally:
                starting.cancel()
                stopped.cancel()
                await self.shutdown()
        if self.failed is not None:
            raise self.failed

    @property
    def failed(self) -> BaseException | None:
        """The `SystemExit` or `KeyboardInterrupt` that a handler raised to end the server."""
        return None if self.state is None else self.state.failure

    async def startup(self) -> None:
        """Build the app, run its start-up and listen.

        Raises:
            ListenError: The address cannot be listened on.
            ConfigurationError: The app cannot be imported or built, or an option is wrong.
        """
        self._begin()
        if self._listeners is not None:
            raise RuntimeError("the server runs already")
        service, config = self.load(), self.config
        context = config.tls()
        protocol = protocol_class(config)
        listeners = Listeners(config)
        await listeners.bind()
        self._listeners = listeners
        try:
            self._lifespan = Lifespan(service, config.lifespan == "on")
            try:
                await self._lifespan.start()
            except BaseException:
                self._lifespan = None
                raise
            loop = asyncio.get_running_loop()
            state = ServerState(
                service, config, loop, "http" if context is None else "https", self._lifespan.context.copy()
            )
            state.on_failure = self.stop
            self.state = state
            await listeners.listen(lambda: protocol(state), context)
        except BaseException:
            await self.shutdown()
            raise
        self.ready = not self._stop.is_set()
        logger.info("%s", self.banner())

    def banner(self) -> str:
        """One line that says what is served where, and by which twins."""
        return f"Armature {armature.__version__} ({IMPL}) on {self.url}"

    def stop(self) -> None:
        """Ask a server that serves to shut down; asking a second time cuts it short. May be called from any thread."""
        first = not self._stop.is_set()
        self._stop.set()
        self.ready = False
        event = self._stopping if first else self._forced
        if event is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(event.set)

    async def shutdown(self) -> None:
        """Stop listening, finish what is being answered, run the app's shut-down.

        Idle connections are closed at once. Requests in flight have `shutdown_timeout` seconds; what is not done by
        then is cancelled.
        """
        self._begin()
        self.ready = False
        listeners, self._listeners = self._listeners, None
        state = self.state
        try:
            if listeners is not None:
                await listeners.close()
            if state is not None and not state.stopping:
                await self._drain(state)
        finally:
            lifespan, self._lifespan = self._lifespan, None
            try:
                if lifespan is not None:
                    await self._leave(lifespan)
            finally:
                if state is not None:
                    state.close()

    async def _drain(self, state: ServerState) -> None:
        state.stopping = True
        for connection in list(state.connections):
            connection.closing = True
        assert self._forced is not None
        finished = asyncio.ensure_future(state.finished())
        forced = asyncio.ensure_future(self._forced.wait())
        try:
            # A client that has just got an answer may be sending its next request: that one is answered too.
            await asyncio.wait([finished, forced], timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for connection in list(state.connections):
                connection.shutdown()
            await asyncio.wait(
                [finished, forced], timeout=self.config.shutdown_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not finished.done():
                left = len(state.connections)
                logger.warning(
                    "%s; cutting off %d connection%s",
                    "told to hurry" if forced.done() else f"not done after {self.config.shutdown_timeout:g} seconds",
                    left,
                    "" if left == 1 else "s",
                )
                for connection in list(state.connections):
                    connection.abort()
                for task in state.handlers():
                    task.cancel()
                await asyncio.wait([finished], timeout=CLEANUP_SECONDS)
        finally:
            # Also if whoever waits for the shutdown is cancelled: no connection survives it.
            for connection in list(state.connections):
                connection.abort()
            finished.cancel()
            forced.cancel()

    async def _leave(self, lifespan: Lifespan) -> None:
        """Run the app's shut-down, which a second request to stop cuts short."""
        assert self._forced is not None
        forced = asyncio.ensure_future(self._forced.wait())
        stopping = asyncio.ensure_future(lifespan.stop())
        try:
            await asyncio.wait([stopping, forced], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                logger.warning("told to hurry; cancelling the app's shut-down")
                lifespan.cancel()
            await stopping
        except asyncio.CancelledError:
            if not stopping.done() or not forced.done():
                raise
        finally:
            forced.cancel()

    async def __aenter__(self) -> Self:
        await self.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    def _begin(self) -> None:
        if self._stopping is None:
            self._loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            self._forced = asyncio.Event()
            if self._stop.is_set():
                self._stopping.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM stop the server; only the main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in numbers}
        try:
            for number in numbers:
                loop.add_signal_handler(number, self.stop)
        except NotImplementedError:
            # Windows: the handler runs between two bytecodes of the main thread, which must be woken up.
            for number in numbers:
                signal.signal(number, lambda received, frame: self.stop())
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                if handler is not None:
                    signal.signal(number, handler)


def run(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    factory: bool = False,
    app_dir: str | None = None,
    reload: bool = False,
    reload_dirs: tuple[str, ...] | list[str] = (),
    reload_includes: tuple[str, ...] | list[str] = (),
    **options: Any,
) -> None:
    """Serve an app until SIGINT or SIGTERM.

    Args:
        app: An `App`, a `Router`, a service, or an import string such as `"shop:app"`.
        host: Address to listen on.
        port: TCP port, 0 for any free one.
        factory: Whether an import string names a function that returns the app.
        app_dir: Where the module of an import string is looked for first.
        reload: Whether to start afresh when a source file changes; needs an import string.
        reload_dirs: Directories to watch. Default: the one that the app is imported from.
        reload_includes: File patterns that cause a restart, besides `*.py`.
        **options: The other options of `ServerConfig`: `uds`, `fd`, `loop`, `http`, `access_log`, `log_level`,
            `ssl_certfile`, `ssl_keyfile`, `body_limit`, `lifespan`, and more.

    Raises:
        ConfigurationError: An option is wrong, or the app cannot be imported or built.
        SystemExit: With 1, the address cannot be listened on; with 3, the app's start-up failed.
    """
    config = ServerConfig.of(host=host, port=port, **options)
    if reload:
        _run_reloading(app, config, options, factory, app_dir, reload_dirs, reload_includes)
        return
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError("run() starts a loop of its own; on a running loop use: await Server(app).serve()")
    configure_logging(config)
    server = Server(app, config, factory=factory, app_dir=app_dir)
    server.load()
    with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
        loop = runner.get_loop()
        serving = loop.create_task(_serve(server))
        code = None
        while code is None:
            try:
                code = loop.run_until_complete(serving)
            except (SystemExit, KeyboardInterrupt):
                # Raised in a handler it leaves the loop at once, on most loops. The others get their graceful end,
                # after which `serve` raises it again.
                if serving.done() or server.failed is None:
                    raise
    if code:
        raise SystemExit(code)


async def _serve(server: Server) -> int:
    """Serve, and say what went wrong; return the exit code."""
    try:
        await server.serve()
    except ListenError as error:
        logger.critical("%s", error)
        return CANNOT_LISTEN
    except (ConfigurationError, MissingDependencyError):
        raise
    except Exception as error:
        if server.state is None:
            logger.critical("the app's start-up failed", exc_info=error)
            return CANNOT_START
        logger.error("the app's shut-down failed", exc_info=error)
        return CANNOT_LISTEN
    return 0


def _run_reloading(
    app: Any,
    config: ServerConfig,
    options: dict[str, Any],
    factory: bool,
    app_dir: str | None,
    reload_dirs: tuple[str, ...] | list[str],
    reload_includes: tuple[str, ...] | list[str],
) -> None:
    if not isinstance(app, str):
        raise ConfigurationError(
            "reload needs an import string, because each new process imports the app afresh: "
            'run("module:app", reload=True), or on the command line: armature dev module:app'
        )
    if config.ssl_context is not None:
        raise ConfigurationError("reload cannot hand over an ssl_context; use ssl_certfile and ssl_keyfile")
    if config.reuse_port:
        raise ConfigurationError("reload and reuse_port exclude each other")
    supervise = importlib.import_module("armature.server.reload").supervise
    passed = {name: value for name, value in options.items() if name not in ("uds", "fd")}
    code = supervise(
        app,
        factory=factory,
        app_dir=app_dir,
        host=config.host,
        port=config.port,
        uds=config.uds,
        fd=config.fd,
        options=passed,
        reload_dirs=reload_dirs,
        reload_includes=reload_includes,
    )
    if code:
        raise SystemExit(code)


def _service_of(app: Any, config: ServerConfig, factory: bool, app_dir: str | None) -> Service:
    if isinstance(app, str):
        from armature.server.importer import load_app

        app = load_app(app, factory=factory, app_dir=app_dir)
    build = getattr(app, "build", None)
    if callable(build) and not isinstance(app, type):
        if config.body_limit is not None:
            if not hasattr(app, "body_limit"):
                raise ConfigurationError(
                    f"{type(app).__name__} has no body_limit that the server's could replace; give it to an App, or "
                    "to the routes"
                )
            app.body_limit = config.body_limit
        service: Service = build()
        return service
    if not all(hasattr(app, name) for name in ("router", "request_class", "lifespan")):
        raise ConfigurationError(f"cannot serve {app!r}: it is neither an App nor a Router nor a service")
    if config.body_limit is not None:
        raise ConfigurationError("a service is built already; give body_limit to the App, or to its routes")
    built: Service = app
    return built


def protocol_class(config: ServerConfig) -> Callable[[ServerState], Any]:
    """Return the class of the connections, by the parser that was chosen.

    Raises:
        MissingDependencyError: It needs a package that is not installed.
    """
    name = "httptools:HTTPToolsProtocol" if config.http == "httptools" else "protocol:HTTPProtocol"
    module, _, attribute = name.partition(":")
    found: Callable[[ServerState], Any] = getattr(importlib.import_module(f"armature.server.{module}"), attribute)
    return found


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the chosen event loop; None stands for asyncio's own default.

    Args:
        name: `"uvloop"`, `"asyncio"` or `"auto"`.

    Raises:
        MissingDependencyError: uvloop was asked for and is not installed.
    """
    if name == "asyncio" or (name == "auto" and sys.platform == "win32"):
        return None
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        if name == "uvloop":
            raise MissingDependencyError("uvloop", "full") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def configure_logging(config: ServerConfig) -> None:
    """Set the level of Armature's loggers; without any handler in the process, log to stderr."""
    root = logging.getLogger("armature")
    root.setLevel(config.log_level.upper())
    if config.access_log:
        logging.getLogger("armature.access").setLevel(logging.INFO)
    if not root.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(message)s"))
        root.addHandler(handler)
