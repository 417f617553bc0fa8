"""Serving an app: `run` blocks until stopped, `Server` is the same for those who have a loop already."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import armature
from armature._impl import IMPL
from armature.exceptions import ConfigurationError, MissingDependencyError
from armature.logs import configure_logging
from armature.server.asgi_interface import interface_of, is_native, single_callable
from armature.server.config import ServerConfig
from armature.server.feeders import make_reactor
from armature.server.lifespan import Lifespan
from armature.server.listeners import ListenError, Listeners, url_of
from armature.server.memory import keep_freed
from armature.server.state import ServerState
from armature.server.systemd import Notifier
from armature.server.tcp import tuned
from armature.types import Service

if TYPE_CHECKING:
    from armature.server.proxy_protocol import ProxyProtocolGate
    from armature.server.reporting import Reporting
    from armature.server.tls import Certificates

__all__ = ["Server", "run", "run_server"]

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
        sockets: Bound sockets to serve on, instead of those that the options describe; the server closes them.
        **options: Options of `ServerConfig`, instead of `config`.

    Raises:
        ConfigurationError: An option is wrong.
    """

    #: What stops `serve`.
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)

    def __init__(
        self,
        app: Any,
        config: ServerConfig | None = None,
        *,
        factory: bool = False,
        app_dir: str | None = None,
        sockets: Sequence[socket.socket] = (),
        **options: Any,
    ) -> None:
        if config is not None and options:
            raise ConfigurationError("give the server a config or single options, not both")
        self.config = ServerConfig.of(**options) if config is None else config
        if self.config.supervised:
            raise ConfigurationError(
                "a Server serves in the process it is in; workers, max_requests and max_memory are for run(), which "
                "starts processes"
            )
        self._sockets = sockets
        self._app = app
        self._factory = factory
        self._app_dir = app_dir
        self._service: Service | None = None
        self._lifespan: Lifespan | None = None
        self._listeners: Listeners | None = None
        self._certificates: Certificates | None = None
        self._gate: ProxyProtocolGate | None = None
        self._reporting: Reporting | None = None
        self._welcoming = False
        self._notifier = Notifier({})
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
        if not self.sockets:
            raise RuntimeError("the server does not run")
        return url_of(self.sockets[0], scheme)

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
        # Of several workers none is the service: its supervisor speaks for it.
        notifier = self._notifier = Notifier({} if _in_worker() else None)
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
                notifier.ready(self.banner())
                notifier.start_watchdog(asyncio.get_running_loop())
                await stopped
            finally:
                starting.cancel()
                stopped.cancel()
                notifier.stopping()
                await self.shutdown()
                notifier.stop_watchdog()
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
        self._certificates = config.certificates()
        context = config.ssl_context if self._certificates is None else self._certificates.context
        protocol = protocol_class(config)
        if (connection_class := getattr(service, "connection_class", None)) is not None:
            protocol = connection_class(protocol)
        protocol = tuned(protocol, config.tcp())
        listeners = Listeners(config, self._sockets)
        await listeners.bind()
        self._listeners = listeners
        try:
            self._lifespan = Lifespan(service, config.lifespan != "off")
            try:
                await self._lifespan.start()
            except BaseException:
                self._lifespan = None
                raise
            loop = asyncio.get_running_loop()
            if config.behind_proxies:
                from armature.server.proxy_headers import ForwardedService

                service = ForwardedService(service, config)
            state = ServerState(
                service, config, loop, "http" if context is None else "https", self._lifespan.context.copy()
            )
            state.on_failure = self.stop
            self.state = state
            if self._reports():
                from armature.server.reporting import Reporting

                self._reporting = Reporting(state, self.load(), shared=_in_worker())
                await self._reporting.start()
            factory: Callable[[], Any] = functools.partial(protocol, state)
            if config.proxy_protocol:
                from armature.server.proxy_protocol import ProxyProtocolGate

                factory = self._gate = ProxyProtocolGate(factory, config, context)
            state.reactor = make_reactor(config, state, context, factory)
            # Behind the gate TLS begins when the header has been read.
            await listeners.listen(factory, None if self._gate is not None else context, state.reactor)
        except BaseException:
            await self.shutdown()
            raise
        self._welcoming = True
        self.ready = state.ready = not self._stop.is_set()
        logger.info("%s", self.banner())

    def banner(self) -> str:
        """One line that says what is served where, and by which twins."""
        return f"Armature {armature.__version__} ({IMPL}) on {self.url}"

    def stop(self) -> None:
        """Ask a server that serves to shut down; asking a second time cuts it short. May be called from any thread."""
        first = not self._stop.is_set()
        self._stop.set()
        self._turn_away()
        event = self._stopping if first else self._forced
        if event is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(event.set)

    async def shutdown(self) -> None:
        """Stop listening, after `shutdown_delay`, finish what is being answered, run the app's shut-down.

        Idle connections are closed at once. Requests in flight have `shutdown_timeout` seconds; what is not done by
        then is cancelled.
        """
        self._begin()
        self._turn_away()
        if self._welcoming and self.config.shutdown_delay:
            self._welcoming = False
            assert self._forced is not None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._forced.wait(), self.config.shutdown_delay)
        listeners, self._listeners = self._listeners, None
        state = self.state
        try:
            if listeners is not None:
                await listeners.close()
            if self._gate is not None:
                await self._gate.close()
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
                reporting, self._reporting = self._reporting, None
                if reporting is not None:
                    await reporting.close()

    def _reports(self) -> bool:
        """Whether there may be something to tell of the answers; an app with metrics has imported them."""
        config = self.config
        return config.access_log or config.metrics_port is not None or "armature.server.metrics" in sys.modules

    def _turn_away(self) -> None:
        """Say to whoever asks that requests should go elsewhere; those that come are still answered."""
        self.ready = False
        if self.state is not None:
            self.state.ready = False

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
                connection.shutdown_soon()
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

    def reload_certificates(self) -> bool:
        """Load the TLS certificates from their files again; what cannot be loaded replaces nothing, and is logged.

        Returns:
            Whether new connections get what was loaded.
        """
        if self._certificates is None:
            return False
        self._notifier.reloading()
        try:
            return self._certificates.reload()
        finally:
            self._notifier.ready(self.banner())

    def _hang_up(self, had_terminal: bool) -> None:
        """Take SIGHUP: an operator asks for new certificates, unless the terminal of the server is gone."""
        if had_terminal and not has_terminal():
            self.stop()
        else:
            self.reload_certificates()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals stop the server; only the main thread gets them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = self.stop_signals
        before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in numbers}
        try:
            for number in numbers:
                loop.add_signal_handler(number, self.stop)
            if hasattr(signal, "SIGHUP") and (self.config.ssl_certfile is not None or self.config.ssl_sni):
                before[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)
                # A worker is not a terminal's business: that is for its supervisor to notice.
                loop.add_signal_handler(signal.SIGHUP, self._hang_up, not _in_worker() and has_terminal())
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

    With more than one worker this process supervises those that serve; see `ServerConfig.workers`.

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
            `ssl_certfile`, `ssl_keyfile`, `body_limit`, `lifespan`, `workers`, and more.

    Raises:
        ConfigurationError: An option is wrong, or the app cannot be imported or built.
        SystemExit: With 1, the address cannot be listened on; with 3, the app's start-up failed; with another code,
            that of a worker which could not start.
    """
    _refuse_nesting()
    config = ServerConfig.of(host=host, port=port, **options)
    if reload:
        _run_reloading(app, config, options, factory, app_dir, reload_dirs, reload_includes)
        return
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError("run() starts a loop of its own; on a running loop use: await Server(app).serve()")
    if config.supervised:
        code = importlib.import_module("armature.server.supervisor").supervise(app, config, factory, app_dir)
    else:
        configure_logging(config.log_level, config.log_format)
        code = run_server(Server(app, config, factory=factory, app_dir=app_dir))
    if code:
        raise SystemExit(code)


def run_server(server: Server) -> int:
    """Serve on a loop of its own; return the exit code of the process.

    Args:
        server: What is to serve.

    Raises:
        ConfigurationError: The app cannot be imported or built.
    """
    server.load()
    keep_freed(server.config.keep_memory)
    with asyncio.Runner(loop_factory=loop_factory(server.config.loop)) as runner:
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
    return code


def has_terminal() -> bool:
    """Whether this process belongs to a terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _in_worker() -> bool:
    """Whether this process is one of a supervisor's workers."""
    workers = sys.modules.get("armature.server.workers")
    return workers is not None and workers.worker is not None


def _refuse_nesting() -> None:
    """Refuse to serve from a module that a new worker is only importing."""
    process = sys.modules.get("multiprocessing.process")
    if _in_worker() or (
        # The spawned process executes the main module again, before it comes to its work.
        process is not None and getattr(process.current_process(), "_inheriting", False)
    ):
        raise ConfigurationError(
            "the module starts a server while a worker imports it; put that below "
            '`if __name__ == "__main__":`, so that only the program itself does it'
        )


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
    if config.supervised:
        raise ConfigurationError(
            "reload is for one process that an app is developed in; workers, max_requests and max_memory are not"
        )
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

        app = load_app(app, factory=factory, app_dir=app_dir, interface=config.interface)
    if config.interface == "asgi" or (config.interface == "auto" and not is_native(app)):
        return _host(app, config)
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
    if not is_native(app):
        raise ConfigurationError(f"cannot serve {app!r}: it is neither an App nor a Router nor a service")
    if config.body_limit is not None:
        raise ConfigurationError("a service is built already; give body_limit to the App, or to its routes")
    built: Service = app
    return built


def _host(app: Any, config: ServerConfig) -> Service:
    """Wrap an ASGI app into a service."""
    from armature.server.asgi import ASGIService

    interface = interface_of(app)
    if interface is None and (config.interface == "auto" or not callable(app)):
        raise ConfigurationError(
            f"cannot serve {app!r}: it is neither an App nor a Router nor a service, and does not look like an ASGI "
            'app, which is called with scope, receive and send; if it is one nevertheless, say interface="asgi"'
        )
    adapt: Callable[[Any, dict[str, Any]], None] | None = None
    if config.behind_proxies:
        from armature.server.proxy_headers import adapt_scope

        adapt = adapt_scope
    return ASGIService(
        single_callable(app, interface or "asgi3"),
        lifespan=config.lifespan,
        body_limit=config.body_limit,
        root_path=config.root_path,
        adapt=adapt,
    )


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
