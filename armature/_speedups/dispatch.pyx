"""How a request becomes a call: the route's endpoint, and the driver that runs a handler without a Task of its own.

A handler that never suspends needs no Task, but it must see one: `asyncio.current_task()`, `asyncio.timeout()`,
`TaskGroup` and anyio all ask for it. So each loop keeps one *spare*: a real, parked `Task` whose coroutine is a
`Driver`. A batch of requests enters the spare once, steps each handler inside a Context of its own, and leaves
it at the end. A handler that returns leaves the spare as it was. A handler that suspends takes the spare over:
the driver hands the future it waits for to the Task, which from then on *is* that request's Task, and a new
spare is made. The parked Task waits on the driver itself, which is also what a Task expects of a future.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.contextvars cimport PyContext_Copy, PyContext_Enter, PyContext_Exit
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from armature._speedups.switches cimport RUN_09, RUN_09_BATCH

import asyncio
import asyncio.tasks
import collections.abc
import sys
from contextvars import copy_context

from armature._spec.limits import BODY_LIMIT as _BODY_LIMIT, READ_BUFFER_SIZE as _READ_BUFFER_SIZE
from armature._spec.plan import CALL_BARE, CALL_PARAMS, CALL_REQUEST

__all__ = ["Dispatcher", "Driver", "Endpoint", "stats"]

cdef extern from "Python.h":
    int PyCoro_CheckExact(PyObject* value) noexcept
    int PyIter_Send(PyObject* iterator, PyObject* value, PyObject** result) noexcept
    PyObject* PyObject_Vectorcall(PyObject* function, PyObject** arguments, size_t count, PyObject* names) noexcept
    PyObject* Py_None

cdef extern from *:
    """
    /* Lets `except` see an exception that C left behind. */
    static inline int armature_raised(void) { return -1; }
    """
    int raise_current "armature_raised"() except -1

cdef enum:
    SENT_RETURN = 0
    SENT_ERROR = -1
    SENT_NEXT = 1

cdef object _enter_task = asyncio.tasks._enter_task
cdef object _leave_task = asyncio.tasks._leave_task
cdef object _Task = asyncio.Task
cdef object _CancelledError = asyncio.CancelledError
cdef object _callbacks = sys.intern("_callbacks")

# From 3.12 on a Task can make its first step while it is created, and so parks at once.
cdef dict _EAGER = {"eager_start": True} if sys.version_info >= (3, 12) else {}
cdef bint _UNCANCEL_CLEARS = sys.version_info >= (3, 13)

# A cache line apart from everything else, so that threads of a free-threaded build share none by accident.
cdef struct Counters:
    char before[64]
    long long batches
    long long suspended
    long long tasks
    long long spares_replaced
    char after[64]

cdef Counters _counts


def stats():
    """Return what this twin has counted since the process began."""
    return {
        "batches": _counts.batches,
        "suspended": _counts.suspended,
        "tasks": _counts.tasks,
        "spares_replaced": _counts.spares_replaced,
    }


cdef object _caught():
    """Take the exception that C left behind."""
    try:
        raise_current()
    except BaseException as error:
        return error


cdef class Owner:
    """What has a handler run; its outcome comes back here."""

    cdef object on_value(self, object value):
        raise TypeError("an owner must say what it does with a value")

    cdef object on_error(self, object error):
        raise TypeError("an owner must say what it does with an error")


cdef inline object _resolve(object owner, object value):
    if isinstance(owner, Owner):
        return (<Owner> owner).on_value(value)
    return owner.resolve(value)


cdef inline object _reject(object owner, object error):
    if isinstance(owner, Owner):
        return (<Owner> owner).on_error(error)
    return owner.reject(error)


cdef class Endpoint:
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

    def __init__(
        self,
        call,
        mode=CALL_REQUEST,
        *,
        kinds=b"",
        plan=None,
        encode,
        native=True,
        on_error,
        dumps,
        status=200,
        body_limit=_BODY_LIMIT,
        route=None,
    ):
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


cdef class Driver:
    """The coroutine of a spare Task, and the future that the Task waits on while it is spare."""

    def __init__(self, dispatcher):
        cdef Dispatcher home = dispatcher
        self._dispatcher = home
        self._asyncio_future_blocking = False
        self._wakeup = None
        self._coroutine = None
        self._context = home.context
        self._owner = None
        self._awaited = None
        self._blocking = False
        self._handed_over = True
        self._throw = False
        self._retired = False
        self._cancel_message = None
        self.cancel_requested = False
        self.task = _Task(self, loop=home.loop, context=home.context, **_EAGER)
        # A spare that is dropped with its loop has lost no work, so there is nothing to warn of.
        self.task._log_destroy_pending = False

    # The coroutine's side: what the Task calls.

    def send(self, value):
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
            return self._step(None, _CancelledError(*_message(self._cancel_message)))
        return self._step(value, None)

    def throw(self, kind, value=None, traceback=None):
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

    def close(self):
        """Close the handler, if one is suspended here."""
        self._retired = True
        coroutine = self._coroutine
        self._coroutine = None
        if coroutine is not None:
            self._context.run(coroutine.close)

    def __await__(self):
        return self

    cdef object _step(self, object value, object error):
        cdef PyObject* sent = NULL
        cdef int outcome
        cdef object coroutine, raised, result
        while True:
            coroutine = self._coroutine
            PyContext_Enter(self._context)
            if error is None:
                outcome = PyIter_Send(<PyObject*> coroutine, <PyObject*> value, &sent)
            else:
                outcome = SENT_NEXT
                try:
                    result = coroutine.throw(error)
                    Py_INCREF(result)
                    sent = <PyObject*> result
                except StopIteration as stop:
                    outcome = SENT_RETURN
                    result = stop.value
                    Py_INCREF(result)
                    sent = <PyObject*> result
                except BaseException as thrown:
                    outcome = SENT_ERROR
                    raised = thrown
            PyContext_Exit(self._context)
            if outcome == SENT_ERROR:
                if error is None:
                    raised = _caught()
                coroutine = _reject(self._owner, raised)
                if coroutine is None and not isinstance(raised, Exception):
                    self._forget()
                    raise raised
            else:
                result = <object> sent
                _drop(sent)
                sent = NULL
                if outcome == SENT_NEXT:
                    return result
                coroutine = _resolve(self._owner, result)
            if coroutine is None:
                self._forget()
                raise StopIteration
            self._coroutine = coroutine
            value = None
            error = None

    cdef object _hand_over(self):
        cdef object awaited = self._awaited
        self._handed_over = True
        self._awaited = None
        if self._blocking:
            self._blocking = False
            awaited._asyncio_future_blocking = True
        return awaited

    cdef void _forget(self) noexcept:
        self._retired = True
        self._coroutine = None
        self._owner = None
        self._awaited = None

    # The future's side: what the parked Task asks of the thing it waits on.

    def get_loop(self):
        return self._dispatcher.loop

    def add_done_callback(self, callback, *, context=None):
        self._wakeup = callback

    def cancel(self, msg=None):
        """Note that the parked Task was cancelled: by the handler that runs in it now, or from outside."""
        self.cancel_requested = True
        self._cancel_message = msg
        if not self._dispatcher.holds(self):
            self._dispatcher.drop(self)
            self._dispatcher.loop.call_soon(self.retire)
        return True

    def result(self):
        if self.cancel_requested:
            raise _CancelledError(*_message(self._cancel_message))

    # The dispatcher's side.

    @property
    def parked(self):
        return self._wakeup is not None

    @property
    def owner(self):
        """What gets the outcome of the suspended handler; None for a spare."""
        return self._owner

    @property
    def coroutine(self):
        """The suspended coroutine, if there is one."""
        return self._coroutine

    def adopt(self, owner, context, coroutine, awaited):
        """Make the spare Task the Task of a handler that suspended; it waits for `awaited` from now on."""
        self._owner = owner
        self._context = context
        self._coroutine = coroutine
        self._awaited = awaited
        self._handed_over = False
        if self._wakeup is None and getattr(awaited, "_asyncio_future_blocking", None):
            # The Task gets to see the future later; until then others may begin to wait for it.
            self._blocking = True
            awaited._asyncio_future_blocking = False
        self.task._log_destroy_pending = True
        if self.cancel_requested:
            # The handler cancelled itself before it waited: a Task cancels the first thing it waits for.
            self.cancel_requested = False
            if not (_UNCANCEL_CLEARS and self.task.cancelling() == 0) and (
                awaited is None or not awaited.cancel(msg=self._cancel_message)
            ):
                self._throw = True
        self.wake()

    def wake(self):
        """Let the parked Task make its next step now; a Task that has not parked yet will step by itself."""
        wakeup = self._wakeup
        self._wakeup = None
        if wakeup is not None:
            wakeup(self)

    def retire(self):
        """End a spare Task that shall not be used again."""
        self._retired = True
        self.wake()


collections.abc.Coroutine.register(Driver)


cdef extern from *:
    """
    static inline void armature_drop(PyObject *object) { Py_DECREF(object); }
    """
    void _drop "armature_drop"(PyObject* value) noexcept


cdef tuple _message(object message):
    return () if message is None else (message,)


cdef class Dispatcher:
    """Runs the handlers of one event loop, each in a Context of its own and inside a real Task.

    Args:
        loop: The loop; it must be running whenever requests are run.
        context: What every request's Context is a copy of. Default: a copy of the current one.
    """

    def __init__(self, loop, context=None):
        self.loop = loop
        self.context = copy_context() if context is None else context
        self._spare = None
        self._entered = False
        memory = bytearray(_READ_BUFFER_SIZE)
        # The memoryview keeps the bytearray, and keeps it from being resized.
        self.read_buffer = memoryview(memory)
        self.read_memory = PyByteArray_AS_STRING(memory)
        self.suspended = 0
        self.tasks = 0
        self.now = 0.0

    @property
    def entered(self):
        """Whether a batch is running now."""
        return self._entered

    def holds(self, driver):
        """Whether a handler is running inside this driver's Task at this moment."""
        return self._entered and self._spare is driver

    def drop(self, driver):
        """Forget a spare that was cancelled from outside."""
        if self._spare is driver:
            self._spare = None

    def leave(self):
        """End the batch: the loop's current task is what it was before."""
        self.end()

    def run(self, owner, call, arguments):
        """Call a handler and drive what it returns; begins a batch that `leave()` ends.

        Args:
            owner: Gets the outcome by `resolve(value)` or `reject(error)`; either may return a coroutine, which is
                driven next in the same Task and Context, or None.
            call: The handler.
            arguments: Its positional arguments.

        Returns:
            Whether everything is done; False if the handler suspended and goes on in a Task.
        """
        cdef PyObject* pointers[16]
        cdef tuple values = arguments
        cdef Py_ssize_t i, count = len(values)
        if count > 16:
            raise ValueError("a handler has at most 16 positional arguments")
        for i in range(count):
            pointers[i] = <PyObject*> values[i]
        return self.call(owner, <PyObject*> call, pointers, count) != 0

    def close(self):
        """End the spare Task, soon; requests that are suspended go on."""
        if self._entered:
            # A handler asks for it, from inside the spare.
            self.loop.call_soon(self.close)
            return
        spare = self._spare
        self._spare = None
        if spare is not None and not self.loop.is_closed():
            # Not at once: the caller may be a Task, and inside a Task no other can make a step.
            self.loop.call_soon(spare.retire)

    cdef int begin(self) except -1:
        if self._spare is None:
            self.tasks += 1
            _counts.tasks += 1
            self._spare = Driver(self)
        _enter_task(self.loop, self._spare.task)
        self._entered = True
        _counts.batches += 1
        return 0

    cdef int end(self) except -1:
        if self._entered:
            self._entered = False
            _leave_task(self.loop, self._spare.task)
        return 0

    cdef int call(self, object owner, PyObject* function, PyObject** arguments, Py_ssize_t count) except -1:
        """Run a handler; return 1 if everything is done, 0 if it suspended."""
        cdef object context, coroutine, value, raised
        cdef PyObject* called
        cdef PyObject* sent = NULL
        cdef int outcome
        cdef Driver spare
        if not self._entered:
            self.begin()
        context = PyContext_Copy(self.context)
        PyContext_Enter(context)
        called = PyObject_Vectorcall(function, arguments, count, NULL)
        if called == NULL:
            PyContext_Exit(context)
            raised = _caught()
            coroutine = _reject(owner, raised)
            if coroutine is None and not isinstance(raised, (Exception, _CancelledError)):
                raise raised
        elif PyCoro_CheckExact(called):
            coroutine = <object> called
            _drop(called)
            outcome = PyIter_Send(<PyObject*> coroutine, Py_None, &sent)
            PyContext_Exit(context)
            if outcome == SENT_ERROR:
                raised = _caught()
                coroutine = _reject(owner, raised)
                if coroutine is None and not isinstance(raised, (Exception, _CancelledError)):
                    raise raised
            else:
                value = <object> sent
                _drop(sent)
                if outcome == SENT_NEXT:
                    self._suspend(owner, context, coroutine, value)
                    return 0
                coroutine = _resolve(owner, value)
        else:
            PyContext_Exit(context)
            value = <object> called
            _drop(called)
            coroutine = _resolve(owner, value)
        if coroutine is not None and not self.drive(owner, context, coroutine):
            return 0
        spare = self._spare
        if (
            not RUN_09
            or spare.cancel_requested
            or spare._wakeup is None
            or getattr(spare.task, _callbacks) is not None
        ):
            self._replace(spare)
        if not RUN_09_BATCH:
            self.end()
        return 1

    cdef int drive(self, object owner, object context, object coroutine) except -1:
        """Drive a coroutine that came after the handler; return 1 if everything is done, 0 if it suspended."""
        cdef PyObject* sent
        cdef int outcome
        cdef object value, raised
        while coroutine is not None:
            sent = NULL
            PyContext_Enter(context)
            outcome = PyIter_Send(<PyObject*> coroutine, Py_None, &sent)
            PyContext_Exit(context)
            if outcome == SENT_ERROR:
                raised = _caught()
                coroutine = _reject(owner, raised)
                if coroutine is None and not isinstance(raised, (Exception, _CancelledError)):
                    raise raised
                continue
            value = <object> sent
            _drop(sent)
            if outcome == SENT_NEXT:
                self._suspend(owner, context, coroutine, value)
                return 0
            coroutine = _resolve(owner, value)
        return 1

    def _suspend(self, owner, context, coroutine, awaited):
        cdef Driver spare = self._spare
        self.suspended += 1
        _counts.suspended += 1
        self.end()
        self._spare = None
        spare.adopt(owner, context, coroutine, awaited)

    def _replace(self, spare):
        # A handler that cancelled its own Task, or hung callbacks on it, has used it up.
        if not RUN_09 or spare.cancel_requested or spare.task._callbacks or spare.task._must_cancel:
            _counts.spares_replaced += 1
            self.end()
            self._spare = None
            spare.retire()
