"""The app's life: started before the server listens, stopped after the last answer, in one task throughout."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armature.types import Service

__all__ = ["Lifespan"]


class Lifespan:
    """Enters and leaves a service's lifespan in a task of its own.

    Task groups and cancel scopes must be left in the task that entered them, whoever calls `start` and `stop`. What
    the start-up puts into context variables is seen by every request, because requests get copies of this context.

    Args:
        service: What is served.
        enabled: Whether there is a lifespan to run.
    """

    def __init__(self, service: Service, enabled: bool = True) -> None:
        self._service = service
        self._enabled = enabled
        self._task: asyncio.Task[None] | None = None
        self._leave: asyncio.Event | None = None
        #: The context that the start-up ran in.
        self.context: Context = copy_context()

    async def start(self) -> None:
        """Run the start-up; what it raises is raised here."""
        if not self._enabled:
            return
        loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        started: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._live(started, self._leave), context=self.context)
        try:
            await asyncio.shield(started)
        except asyncio.CancelledError:
            if started.done():
                raise
            # Whoever waits for the start has given up: the start-up is cut short, its own clean-up runs.
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()
            if started.done() and not started.cancelled():
                started.exception()
            raise

    async def stop(self) -> None:
        """Run the shut-down; what it raises is raised here."""
        task = self._task
        if task is not None and self._leave is not None:
            self._leave.set()
            await task

    def cancel(self) -> None:
        """Cut the shut-down short."""
        if self._task is not None:
            self._task.cancel()

    async def _live(self, started: asyncio.Future[None], leave: asyncio.Event) -> None:
        try:
            async with self._service.lifespan():
                started.set_result(None)
                await leave.wait()
        except asyncio.CancelledError:
            if not started.done():
                started.cancel()
            raise
        except BaseException as error:
            if started.done():
                raise
            # Not raised in this task: `SystemExit` would tear the loop down before anybody could tell why.
            started.set_exception(error)
