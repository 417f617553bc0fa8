"""The life of a hosted ASGI app, from the server's side (ASGI lifespan 2.0)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from armature._spec.asgi import VERSION

if TYPE_CHECKING:
    from armature.types import ASGIApp, Message

__all__ = ["run_lifespan"]

logger = logging.getLogger("armature.server")

SPEC_VERSION = "2.0"


@contextlib.asynccontextmanager
async def run_lifespan(app: ASGIApp, state: dict[str, Any], strict: bool) -> AsyncIterator[None]:
    """Run the app's start-up before the block and its shut-down after it.

    The app lives in a task of its own, so that context variables that it sets are not seen by requests; `state` is for
    that.

    Args:
        app: The app.
        state: What the app fills for its requests.
        strict: Whether an app without lifespan is an error.

    Raises:
        Exception: What the app raised in its start-up or shut-down.
        RuntimeError: It said that one of them failed, or has no lifespan and must have one.
    """
    life = _Life(app, state)
    task = asyncio.ensure_future(life.run())
    try:
        await life.startup(task, strict)
        yield
        await life.shutdown(task)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


class _Life:
    """The two exchanges of one app."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self.app = app
        self.state = state
        #: How far it is: `startup`, `serving`, `shutdown`, `over`.
        self.stage = "startup"
        self.failure: str | None = None
        self.raised: BaseException | None = None
        self._asked = False
        self._changed = asyncio.Event()
        self._leave = asyncio.Event()

    async def run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": VERSION, "spec_version": SPEC_VERSION},
            "state": self.state,
        }
        try:
            await self.app(scope, self.receive, self.send)
        except Exception as error:
            self.raised = error
            if self.stage == "serving":
                logger.error("the lifespan of the ASGI app ended while it was serving", exc_info=error)
        finally:
            self._changed.set()

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._leave.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == f"lifespan.{self.stage}.complete":
            self.stage = "serving" if self.stage == "startup" else "over"
        elif kind == f"lifespan.{self.stage}.failed":
            self.failure = str(message.get("message", ""))
        else:
            raise RuntimeError(f"the app sent {kind!r} in its lifespan, during {self.stage}")
        self._changed.set()

    async def startup(self, task: asyncio.Future[None], strict: bool) -> None:
        await self._changed.wait()
        if self.stage == "serving":
            return
        if self.failure is None:
            # It returned or raised without a word: it may not know the protocol.
            if strict:
                raise RuntimeError(
                    'the ASGI app has no lifespan; serve it with lifespan="auto", or "off"'
                ) from self.raised
            logger.debug("the ASGI app has no lifespan: %r", self.raised)
            return
        await self._fail(task, "start-up")

    async def shutdown(self, task: asyncio.Future[None]) -> None:
        if self.stage != "serving" or task.done():
            return
        self.stage = "shutdown"
        self._changed.clear()
        self._leave.set()
        await self._changed.wait()
        if self.stage != "over" and (self.failure is not None or self.raised is not None):
            await self._fail(task, "shut-down")
        # What it does after its last message is part of its end.
        await asyncio.wait([task])
        if self.raised is not None:
            raise self.raised

    async def _fail(self, task: asyncio.Future[None], what: str) -> None:
        # Frameworks say what failed and then raise it; the exception tells more than the text.
        await asyncio.wait([task], timeout=1.0)
        raise self.raised or RuntimeError(f"the ASGI app says that its {what} failed: {self.failure}")
