"""What the connections of one server have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from armature._impl import dispatch, writer
from armature.server.config import ServerConfig
from armature.server.sweep import Sweep

if TYPE_CHECKING:
    from armature.server.protocol import HTTPProtocol
    from armature.types import Service

__all__ = ["ServerState"]


class ServerState:
    """The service, the loop and everything that the connections of a server share.

    Args:
        service: What is served.
        config: The server's options.
        loop: The loop that the connections live on.
        scheme: `"http"` or `"https"`.
        context: What every request's context is a copy of. Default: a copy of the current one.
    """

    __slots__ = (
        "_empty",
        "closed",
        "config",
        "connections",
        "dispatcher",
        "failure",
        "loop",
        "on_failure",
        "reactor",
        "ready",
        "refusals",
        "report",
        "scheme",
        "service",
        "stopping",
        "sweep",
        "writer",
    )

    def __init__(
        self,
        service: Service,
        config: ServerConfig,
        loop: asyncio.AbstractEventLoop,
        scheme: str = "http",
        context: Context | None = None,
    ) -> None:
        self.service = service
        self.config = config
        self.loop = loop
        self.scheme = scheme
        server = config.server_header
        self.writer = writer.Writer(None if server is None else server.encode("latin-1"), config.date_header)
        self.dispatcher = dispatch.Dispatcher(loop, context)
        self.connections: set[HTTPProtocol] = set()
        self._empty: asyncio.Future[None] | None = None
        #: Everything has ended; a connection that the listener still hands over is dropped.
        self.closed = False
        #: What carries the bytes of the connections, if that is not the loop.
        self.reactor: Any = None
        #: Ends what takes too long.
        self.sweep = Sweep(self)
        #: A stop was asked for: no connection takes another request.
        self.stopping = False
        #: New requests are welcome; no longer true from the moment that a stop is asked for.
        self.ready = True
        #: Called for every answer with the connection, the status and the size of the body; None for nobody.
        self.report: Callable[[Any, int, int], object] | None = None
        #: Requests that could not be read, by the status that they were refused with.
        self.refusals: dict[int, int] = {}
        #: Set when a handler raised `SystemExit` or `KeyboardInterrupt`: the server is to stop.
        self.failure: BaseException | None = None
        #: Called once when that happens.
        self.on_failure: Callable[[], object] | None = None

    def forget(self, protocol: HTTPProtocol) -> None:
        """A connection is over."""
        self.connections.discard(protocol)
        if not self.connections and self._empty is not None:
            if not self._empty.done():
                self._empty.set_result(None)
            self._empty = None

    def fail(self, error: BaseException) -> None:
        """Note that a handler wants the process to end."""
        if self.failure is None:
            self.failure = error
            if self.on_failure is not None:
                self.on_failure()

    def handlers(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of the requests that have suspended, also of those whose peer is gone."""
        found = []
        for task in asyncio.all_tasks(self.loop):
            driver = task.get_coro()
            if isinstance(driver, dispatch.Driver) and _server_of(driver) is self:
                found.append(task)
        return found

    async def finished(self) -> None:
        """Wait until there is neither a connection nor a handler left."""
        while True:
            if self.connections:
                if self._empty is None:
                    self._empty = self.loop.create_future()
                await asyncio.shield(self._empty)
            elif tasks := self.handlers():
                await asyncio.wait(tasks)
            else:
                return

    def close(self) -> None:
        """End what is left: connections that came too late to be drained, and the spare task."""
        self.closed = True
        self.sweep.stop()
        for connection in list(self.connections):
            connection.abort()
        if self.reactor is not None:
            self.reactor.close()
        self.dispatcher.close()


def _server_of(driver: dispatch.Driver) -> object:
    return getattr(driver.owner, "server_state", None)
