"""Health endpoints: whether the process lives, and whether it should get requests."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from armature.exceptions import ConfigurationError
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from armature.routing.route import callers_place
from armature.routing.router import Router

__all__ = ["HealthRouter"]

logger = logging.getLogger("armature.health")

_F = TypeVar("_F", bound=Callable[[], Any])


@dataclass(eq=False)
class _Indicator:
    name: str
    check: Callable[[], Any]
    timeout: float
    live: bool
    #: The run that is under way; whoever asks meanwhile gets its outcome, so that probes cannot pile up.
    running: asyncio.Task[str | None] | None = None

    async def outcome(self) -> str | None:
        """Run the check, unless it runs, and wait for it; return what is wrong, or None."""
        if self.running is None or self.running.done() or self.running.get_loop() is not asyncio.get_running_loop():
            self.running = asyncio.get_running_loop().create_task(self._run(), name=f"health indicator {self.name}")
        running = self.running
        done, _ = await asyncio.wait([running], timeout=self.timeout)
        if done:
            return running.result()
        if inspect.iscoroutinefunction(self.check):
            # A function in a thread cannot be cancelled; it is waited for by the next probe.
            running.cancel()
        logger.warning("the health indicator %s did not answer within %g s", self.name, self.timeout)
        return f"no answer within {self.timeout:g} s"

    async def _run(self) -> str | None:
        try:
            if inspect.iscoroutinefunction(self.check):
                value = await self.check()
            else:
                value = await asyncio.to_thread(self.check)
                if inspect.isawaitable(value):
                    value = await value
        except asyncio.CancelledError:
            return "cancelled"
        except Exception as error:
            # The message may hold a password, an address, a query: it is for the log, the class is for everybody.
            logger.warning("the health indicator %s failed", self.name, exc_info=error)
            return type(error).__name__
        if value is None or value is True:
            return None
        if value is False:
            return "down"
        logger.error(
            "the health indicator %s returned %s; it must return True, False or None, or raise an exception",
            self.name,
            type(value).__name__,
        )
        return "the indicator is wrong"


class HealthRouter(Router):
    """Answers `/health/live` and `/health/ready`; include it into an app: `app.include_router(HealthRouter())`.

    `live` answers 200 as long as the event loop runs. `ready` answers 200 while the server welcomes requests and all
    indicators are well, else 503; it fails first when the server is told to stop (see `shutdown_delay`), so that a load
    balancer turns away before connections are refused.

    Args:
        indicators: Name -> a function without arguments, `async def` or `def`, that raises or returns False where
            something is wrong. A `def` runs in a thread.
        prefix: What the paths begin with.
        timeout: Seconds that an indicator may take, if it names no deadline of its own.

    Raises:
        ConfigurationError: The timeout is not a positive number.
        RouteError: The prefix is malformed.
    """

    def __init__(
        self,
        indicators: Mapping[str, Callable[[], Any]] | None = None,
        *,
        prefix: str = "/health",
        timeout: float = 2.0,
    ) -> None:
        super().__init__(prefix, include_in_schema=False)
        self.timeout = _positive(timeout)
        self._indicators: dict[str, _Indicator] = {}
        self.add_route("/live", self._live)
        self.add_route("/ready", self._ready)
        for name, check in (indicators or {}).items():
            self.add_indicator(name, check)

    def add_indicator(
        self, name: str, check: Callable[[], Any], *, timeout: float | None = None, live: bool = False
    ) -> None:
        """Add an indicator.

        Args:
            name: What it is called in the answer.
            check: A function without arguments that raises or returns False where something is wrong.
            timeout: Seconds that it may take.
            live: Whether `/live` fails with it too, which makes most orchestrators restart the process.

        Raises:
            ConfigurationError: There is one of this name, or it cannot be called without arguments.
        """
        if name in self._indicators:
            raise ConfigurationError(f"there is a health indicator {name!r} already; added at {callers_place()}")
        try:
            inspect.signature(check).bind()
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"the health indicator {name!r}, added at {callers_place()}, must be a function without arguments, "
                f"not {check!r}"
            ) from None
        seconds = self.timeout if timeout is None else _positive(timeout)
        self._indicators[name] = _Indicator(name, check, seconds, live)

    def indicator(self, name: str, *, timeout: float | None = None, live: bool = False) -> Callable[[_F], _F]:
        """Make the function below an indicator; arguments as of `add_indicator`."""

        def decorate(check: _F) -> _F:
            self.add_indicator(name, check, timeout=timeout, live=live)
            return check

        return decorate

    async def _live(self, request: HttpRequest) -> HttpResponse:
        return await _answer([one for one in self._indicators.values() if one.live])

    async def _ready(self, request: HttpRequest) -> HttpResponse:
        # A carrier that knows nothing of a stop, such as another ASGI server, sends no requests after it.
        if not getattr(request.connection, "ready", True):
            return _response(503, {"status": "shutting_down"})
        return await _answer(list(self._indicators.values()))


async def _answer(indicators: list[_Indicator]) -> HttpResponse:
    outcomes = await asyncio.gather(*(one.outcome() for one in indicators))
    details: dict[str, dict[str, str]] = {
        one.name: {"status": "up"} if reason is None else {"status": "down", "reason": reason}
        for one, reason in zip(indicators, outcomes, strict=True)
    }
    well = not any(outcomes)
    content: dict[str, Any] = {"status": "ok" if well else "error"}
    if details:
        content["details"] = details
    return _response(200 if well else 503, content)


def _response(status: int, content: dict[str, Any]) -> HttpResponse:
    return HttpResponse.json(content, status=status, headers={"cache-control": "no-store"})


def _positive(timeout: Any) -> float:
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout > 0:
        raise ConfigurationError(f"the timeout of a health indicator must be a positive number, not {timeout!r}")
    return timeout
