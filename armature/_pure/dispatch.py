"""How a request becomes a call: the route's endpoint, and the driver that runs a handler without a Task of its own.

A handler that never suspends needs no Task, but it must see one: `asyncio.current_task()`, `asyncio.timeout()`,
`TaskGroup` and anyio all ask for it. So each loop keeps one *spare*: a real, parked `Task` whose coroutine is a
`Driver`. A batch of requests enters the spare once, steps each handler inside a Context of its own, and leaves
it at the end. A handler that returns leaves the spare as it was. A handler that suspends takes the spare over:
the driver hands the future it waits for to the Task, which from then on *is* that request's Task, and a new
spare is made. The parked Task waits on the driver itself, which is also what a Task expects of a future.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
import collections.abc
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn

from armature._spec.limits import BODY_LIMIT, READ_BUFFER_SIZE
from armature._spec.plan import CALL_BARE, CALL_PARAMS, CALL_REQUEST

if TYPE_CHECKING:
    from armature._pure.message import Request, Response

__all__ = ["Dispatcher", "Driver", "Endpoint", "stats"]

_counters = {"batches": 0, "suspended": 0, "tasks": 0, "spares_replaced": 0}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


_enter_task = asyncio.tasks._enter_task
_leave_task = asyncio.tasks._leave_task

# From 3.12 on a Task can make its first step while it is created, and so parks at once.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
_UNCANCEL_CLEARS = sys.version_info >= (3, 13)


class Endpoint:
    """One route's compiled call plan, as the connection uses it.

    Args:
        call: What is called for a request; returns a value or a coroutine.
        mode: One of `CALL_BARE`, `CALL_REQUEST`, `CALL_PARAMS` of `armature._spec.plan`.
        kinds: For `CALL_PARAMS`: one `KIND_*` per path parameter.
        plan: For `CALL_PARAMS`: the general way, `plan(request)`, taken when a parameter does not convert.
        encode: Turns a returned value that is no `Response` into one, or into a coroutine that returns one, where the
            native rules do not do.
        native: Whether dict, list, str, bytes and None are answered by the connection itself.
        on_error: Turns an exception into a response, or into a coroutine that returns one.
        dumps: Encodes a dict or list as JSON.
        status: The status of a returned value that is no `Response`.
        body_limit: The largest request body, in bytes.
        route: Whatever the owner wants to find again as `request.endpoint.route`.
    """

    __slots__ = (
        "body_limit",
        "call",
        "dumps",
        "encode",
        "kinds",
        "mode",
        "native",
        "on_error",
        "plan",
        "route",
        "status",
    )

    def __init__(
        self,
        call: Callable[..., Any],
        mode: int = CALL_REQUEST,
        *,
        kinds: bytes = b"",
        plan: Callable[[Request], Any] | None = None,
        encode: Callable[[Any], Response | Coroutine[Any, Any, Response]],
        native: bool = True,
        on_error: Callable[[Request, BaseException], Response | Coroutine[Any, Any, Response]],
        dumps: Callable[[Any], bytes],
        status: int = 200,
        body_limit: int = BODY_LIMIT,
        route: Any = None,
    ) -> None:
        if mode not in (CALL_BARE, CALL_REQUEST, CALL_PARAMS):
            raise ValueError(f"unknown call mode {mode}")
        if mode == CALL_PARAMS and plan is None:
            raise ValueError("CALL_PARAMS needs a plan for parameters that do not convert")
        self.call = call
        self.mode = mode
        self.kinds = kinds
        self.plan = plan
        self.encode = encode
        self.native = native
        self.on_error = on_error
        self.dumps = dumps
        self.status = status
        self.body_limit = body_limit
        self.route = route

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Endpoint' object")


class Driver:
    """The coroutine of a spare Task, and the future that the Task waits on while it is spare."""

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "_awaited",
        "_blocking",
        "_cancel_message",
        "_context",
        "_coroutine",
        "_dispatcher",
        "_handed_over",
        "_owner",
        "_retired",
        "_throw",
        "_wakeup",
        "cancel_requested",
        "task",
    )

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._asyncio_future_blocking = False
        self._wakeup: Callable[[Any], object] | None = None
        self._coroutine: Any = None
        self._context: Context = dispatcher.context
        self._owner: Any = None
        self._awaited: Any = None
        self._blocking = False
        self._handed_over = True
        self._throw = False
        self._retired = False
        self._cancel_message: Any = None
        self.cancel_requested = False
        coroutine: Any = self  # by registration, which type checkers do not see
        loop, context = dispatcher.loop, dispatcher.context
        self.task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context, **_EAGER)
        # A spare that is dropped with its loop has lost no work, so there is nothing to warn of.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Driver' object")

    # The coroutine's side: what the Task calls.

    def send(self, value: Any) -> Any:
        """Make one step; called by the Task."""
        if self._coroutine is None:
            if self._retired:
                raise StopIteration
            self._asyncio_future_blocking = True
            return self
        if not self._handed_over:
            return self._hand_over()
        if self._throw:
            self._throw = False
            return self._step(None, asyncio.CancelledError(*_message(self._cancel_message)))
        return self._step(value, None)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise an exception where the handler waits; called by the Task."""
        error = kind if isinstance(kind, BaseException) else (value if value is not None else kind())
        if self._coroutine is None:
            self._retired = True
            raise error
        if not self._handed_over:
            # The Task was cancelled before it got to see the future: do what it would have done.
            awaited = self._hand_over()
            if awaited is not None and awaited.cancel(*error.args[:1]):
                return awaited
        return self._step(None, error)

    def close(self) -> None:
        """Close the handler, if one is suspended here."""
        self._retired = True
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            self._context.run(coroutine.close)

    def __await__(self) -> Driver:
        return self

    def _step(self, value: Any, error: BaseException | None) -> Any:
        run, coroutine = self._context.run, self._coroutine
        while True:
            try:
                awaited = run(coroutine.send, value) if error is None else run(coroutine.throw, error)
            except StopIteration as stop:
                # Asked now: the step may have given the Task to another owner.
                coroutine = self._owner.resolve(stop.value)
            except BaseException as raised:
                coroutine = self._owner.reject(raised)
                if coroutine is None and not isinstance(raised, Exception):
                    self._forget()
                    raise
            else:
                return awaited
            if coroutine is None:
                self._forget()
                raise StopIteration
            self._coroutine, value, error = coroutine, None, None

    def _hand_over(self) -> Any:
        self._handed_over = True
        awaited, self._awaited = self._awaited, None
        if self._blocking:
            self._blocking = False
            awaited._asyncio_future_blocking = True
        return awaited

    def _forget(self) -> None:
        self._retired = True
        self._coroutine = self._owner = self._awaited = None

    # The future's side: what the parked Task asks of the thing it waits on.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._dispatcher.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._wakeup = callback

    def cancel(self, msg: Any = None) -> bool:
        """Note that the parked Task was cancelled: by the handler that runs in it now, or from outside."""
        self.cancel_requested = True
        self._cancel_message = msg
        if not self._dispatcher.holds(self):
            self._dispatcher.drop(self)
            self._dispatcher.loop.call_soon(self.retire)
        return True

    def result(self) -> None:
        if self.cancel_requested:
            raise asyncio.CancelledError(*_message(self._cancel_message))

    # The dispatcher's side.

    @property
    def parked(self) -> bool:
        return self._wakeup is not None

    @property
    def coroutine(self) -> Any:
        """The suspended coroutine, if there is one."""
        return self._coroutine

    @property
    def owner(self) -> Any:
        """What gets the outcome of the suspended handler; None for a spare."""
        return self._owner

    def adopt(self, owner: Any, context: Context, coroutine: Any, awaited: Any) -> None:
        """Make the spare Task the Task of a handler that suspended; it waits for `awaited` from now on."""
        self._owner = owner
        self._context = context
        self._coroutine = coroutine
        self._awaited = awaited
        self._handed_over = False
        if not self.parked and getattr(awaited, "_asyncio_future_blocking", None):
            # The Task gets to see the future later; until then others may begin to wait for it.
            self._blocking = True
            awaited._asyncio_future_blocking = False
        self.task._log_destroy_pending = True  # type: ignore[attr-defined]
        if self.cancel_requested:
            # The handler cancelled itself before it waited: a Task cancels the first thing it waits for.
            self.cancel_requested = False
            if not (_UNCANCEL_CLEARS and self.task.cancelling() == 0) and (
                awaited is None or not awaited.cancel(msg=self._cancel_message)
            ):
                self._throw = True
        self.wake()

    def wake(self) -> None:
        """Let the parked Task make its next step now; a Task that has not parked yet will step by itself."""
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None:
            wakeup(self)

    def retire(self) -> None:
        """End a spare Task that shall not be used again."""
        self._retired = True
        self.wake()


collections.abc.Coroutine.register(Driver)


def _message(message: Any) -> tuple[Any, ...]:
    return () if message is None else (message,)


class Dispatcher:
    """Runs the handlers of one event loop, each in a Context of its own and inside a real Task.

    Args:
        loop: The loop; it must be running whenever requests are run.
        context: What every request's Context is a copy of. Default: a copy of the current one.
    """

    __slots__ = ("_entered", "_spare", "context", "loop", "now", "read_buffer", "suspended", "tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context | None = None) -> None:
        self.loop = loop
        self.context = copy_context() if context is None else context
        self._spare: Driver | None = None
        self._entered = False
        #: What the connections of this loop receive into: a read is used up before the next one begins.
        self.read_buffer = memoryview(bytearray(READ_BUFFER_SIZE))
        #: Requests that suspended, and Tasks made, since the start.
        self.suspended = 0
        self.tasks = 0
        #: The time by the loop's clock, as of the last sweep for deadlines.
        self.now = 0.0

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Dispatcher' object")

    @property
    def entered(self) -> bool:
        """Whether a batch is running now."""
        return self._entered

    def holds(self, driver: Driver) -> bool:
        """Whether a handler is running inside this driver's Task at this moment."""
        return self._entered and self._spare is driver

    def drop(self, driver: Driver) -> None:
        """Forget a spare that was cancelled from outside."""
        if self._spare is driver:
            self._spare = None

    def leave(self) -> None:
        """End the batch: the loop's current task is what it was before."""
        if self._entered:
            self._entered = False
            spare = self._spare
            assert spare is not None
            _leave_task(self.loop, spare.task)

    def run(self, owner: Any, call: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
        """Call a handler and drive what it returns; begins a batch that `leave()` ends.

        Args:
            owner: Gets the outcome by `resolve(value)` or `reject(error)`; either may return a coroutine, which is
                driven next in the same Task and Context, or None.
            call: The handler.
            arguments: Its positional arguments.

        Returns:
            Whether everything is done; False if the handler suspended and goes on in a Task.
        """
        if not self._entered:
            self._enter()
        context = self.context.copy()
        try:
            value = context.run(call, *arguments)
        except BaseException as raised:
            coroutine = owner.reject(raised)
            if coroutine is None and not isinstance(raised, (Exception, asyncio.CancelledError)):
                raise
        else:
            coroutine = value if type(value) is CoroutineType else owner.resolve(value)
        while coroutine is not None:
            try:
                awaited = context.run(coroutine.send, None)
            except StopIteration as stop:
                coroutine = owner.resolve(stop.value)
            except BaseException as raised:
                coroutine = owner.reject(raised)
                if coroutine is None and not isinstance(raised, (Exception, asyncio.CancelledError)):
                    raise
            else:
                self._suspend(owner, context, coroutine, awaited)
                return False
        spare = self._spare
        assert spare is not None
        if spare.cancel_requested or spare.task._callbacks or not spare.parked:
            self._replace(spare)
        return True

    def close(self) -> None:
        """End the spare Task, soon; requests that are suspended go on."""
        if self._entered:
            # A handler asks for it, from inside the spare.
            self.loop.call_soon(self.close)
            return
        spare, self._spare = self._spare, None
        if spare is not None and not self.loop.is_closed():
            # Not at once: the caller may be a Task, and inside a Task no other can make a step.
            self.loop.call_soon(spare.retire)

    def _enter(self) -> None:
        spare = self._spare
        if spare is None:
            self.tasks += 1
            _counters["tasks"] += 1
            spare = self._spare = Driver(self)
        _enter_task(self.loop, spare.task)
        self._entered = True
        _counters["batches"] += 1

    def _suspend(self, owner: Any, context: Context, coroutine: Any, awaited: Any) -> None:
        self.suspended += 1
        _counters["suspended"] += 1
        spare = self._spare
        assert spare is not None
        self.leave()
        self._spare = None
        spare.adopt(owner, context, coroutine, awaited)

    def _replace(self, spare: Driver) -> None:
        # A handler that cancelled its own Task, or hung callbacks on it, has used it up.
        if spare.cancel_requested or spare.task._callbacks or spare.task._must_cancel:  # type: ignore[attr-defined]
            _counters["spares_replaced"] += 1
            self.leave()
            self._spare = None
            spare.retire()
