"""What a server tells of its answers: the access log, the metrics, and the port that serves these."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from armature._impl import report
from armature.routing.router import Router
from armature.server.access_log import AccessLog
from armature.server.config import ServerConfig
from armature.server.metrics import ServerMetrics, metrics, serves_metrics
from armature.server.runner import Server

if TYPE_CHECKING:
    from armature.server.state import ServerState
    from armature.types import Service

__all__ = ["Reporting"]

#: Seconds that a scrape may hold up the end of the server.
SCRAPE_SECONDS = 1.0


class MetricsServer(Server):
    """Serves the metrics on an address of their own."""

    def banner(self) -> str:
        """One line that says where."""
        return f"Metrics at {self.url}{self.config.metrics_path}"

    def _reports(self) -> bool:
        # Scrapes are no requests of the app.
        return False


class Reporting:
    """The access log and the metrics of one server.

    Args:
        state: The server's; its `report` is set.
        service: What is served.
        shared: Whether other processes serve metrics on the same port.
    """

    def __init__(self, state: ServerState, service: Service, shared: bool = False) -> None:
        config = state.config
        self._log = AccessLog(config, state.loop) if config.access_log else None
        self._metrics: ServerMetrics | None = None
        self._server: MetricsServer | None = None
        if config.metrics_port is not None or serves_metrics(service):
            self._metrics = ServerMetrics(state, service)
        if config.metrics_port is not None:
            router = Router()
            router.add_route(config.metrics_path, metrics)
            self._server = MetricsServer(
                router,
                ServerConfig(
                    host=config.metrics_host,
                    port=config.metrics_port,
                    metrics_path=config.metrics_path,
                    io=config.io,
                    reuse_port=shared and hasattr(socket, "SO_REUSEPORT"),
                    lifespan="off",
                    shutdown_timeout=SCRAPE_SECONDS,
                ),
            )
        lines = None if self._log is None else self._log.lines
        call = None if self._log is None else self._log.call
        figures = None if self._metrics is None else self._metrics.figures
        if lines is not None or call is not None or figures is not None:
            state.report = report.Reporter(lines, figures, call).answered

    async def start(self) -> None:
        """Begin to measure, and listen on the metrics' port.

        Raises:
            ListenError: It cannot be listened on.
        """
        if self._server is not None:
            await self._server.startup()
        if self._metrics is not None:
            self._metrics.start()

    @property
    def url(self) -> str | None:
        """Where the metrics' own port is found."""
        return None if self._server is None else self._server.url

    async def close(self) -> None:
        """Write the last lines, and close the port."""
        try:
            if self._server is not None:
                await self._server.shutdown()
        finally:
            if self._metrics is not None:
                self._metrics.close()
            if self._log is not None:
                await self._log.close()
