"""What the connections of one server have in common."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from armature._impl import dispatch, writer
from armature.server.config import ServerConfig

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
    """

    __slots__ = ("access_log", "config", "connections", "dispatcher", "failure", "loop", "scheme", "service", "writer")

    def __init__(
        self, service: Service, config: ServerConfig, loop: asyncio.AbstractEventLoop, scheme: str = "http"
    ) -> None:
        self.service = service
        self.config = config
        self.loop = loop
        self.scheme = scheme
        self.access_log = config.access_log
        server = config.server_header
        self.writer = writer.Writer(None if server is None else server.encode("latin-1"), config.date_header)
        self.dispatcher = dispatch.Dispatcher(loop)
        self.connections: set[HTTPProtocol] = set()
        #: Set when a handler raised `SystemExit` or `KeyboardInterrupt`: the server is to stop.
        self.failure: BaseException | None = None

    def close(self) -> None:
        """End what does not end with the last connection."""
        self.dispatcher.close()
