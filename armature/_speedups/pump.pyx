"""From an async iterator to the wire: the pieces of a streamed answer, with backpressure and turns for the others."""

# `async for` in a coroutine costs a step of its Python frame, an awaitable and an exception per piece. Here the
# iterator is asked in C; only the producer's own code runs in the interpreter.

from cpython.object cimport PyObject

from armature._speedups.connection cimport Connection

from armature._spec.limits import STREAM_TURN as _STREAM_TURN

__all__ = ["pump", "stats"]

cdef extern from "Python.h":
    int PyIter_Send(PyObject* iterator, PyObject* value, PyObject** result) noexcept
    int PyErr_ExceptionMatches(PyObject* kind) noexcept
    void PyErr_Clear() noexcept
    PyObject* PyExc_StopAsyncIteration
    PyObject* Py_None

cdef extern from *:
    """
    /* What `aiter(source)`, `anext(iterator)` and `await awaitable` do first; NULL with an exception set on failure. */
    static inline PyObject *armature_async_slot(PyObject *value, int slot, const char *missing)
    {
        PyAsyncMethods *methods = Py_TYPE(value)->tp_as_async;
        unaryfunc function = NULL;
        if (methods != NULL) {
            function = slot == 0 ? methods->am_aiter : slot == 1 ? methods->am_anext : methods->am_await;
        }
        if (function == NULL) {
            PyErr_Format(PyExc_TypeError, missing, Py_TYPE(value)->tp_name);
            return NULL;
        }
        return function(value);
    }
    static inline PyObject *armature_aiter(PyObject *value)
    {
        return armature_async_slot(value, 0, "'async for' requires an object with __aiter__ method, got %.100s");
    }
    static inline PyObject *armature_anext(PyObject *value)
    {
        return armature_async_slot(value, 1, "'async for' requires an iterator with __anext__ method, got %.100s");
    }
    static inline PyObject *armature_await(PyObject *value)
    {
        /* A coroutine is what it is awaited by; so is what an async generator's __anext__ returns. */
        if (PyCoro_CheckExact(value)) {
            Py_INCREF(value);
            return value;
        }
        return armature_async_slot(value, 2, "object %.100s can't be used in 'await' expression");
    }
    static inline void armature_release(PyObject *value) { Py_DECREF(value); }
    """
    object aiter_of "armature_aiter"(object value)
    object anext_of "armature_anext"(object value)
    object await_of "armature_await"(object value)
    void release "armature_release"(PyObject* value) noexcept

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

cdef Py_ssize_t _turn = _STREAM_TURN

cdef long long _pieces = 0
cdef long long _drains = 0


def stats():
    """Return what this twin has counted since the process began."""
    return {"pieces": _pieces, "drains": _drains}


cdef class _Pump:
    cdef Connection _connection
    cdef object _source
    cdef object _iterator       # None before the first step
    cdef object _step           # what is being awaited: a piece, or the peer
    cdef bint _draining
    cdef Py_ssize_t _left       # of this turn

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.go(None, None)

    def send(self, value):
        return self.go(value, None)

    def throw(self, kind, value=None, traceback=None):
        error = kind if isinstance(kind, BaseException) else (value if value is not None else kind())
        if self._step is None:
            raise error
        return self.go(None, error)

    def close(self):
        step = self._step
        self._step = None
        close = getattr(step, "close", None)
        if close is not None:
            close()

    cdef object go(self, object value, object error):
        """Go on until something has to be waited for, which is returned."""
        global _pieces, _drains
        cdef Connection connection = self._connection
        cdef PyObject* sent
        cdef int outcome
        cdef object result
        cdef long long before
        if self._iterator is None:
            self._iterator = aiter_of(self._source)
        while True:
            if self._step is None:
                try:
                    self._step = await_of(anext_of(self._iterator))
                except StopAsyncIteration:
                    raise StopIteration from None
            if error is None:
                sent = NULL
                outcome = PyIter_Send(<PyObject*> self._step, <PyObject*> value, &sent)
                if outcome == SENT_ERROR:
                    self._step = None
                    if not self._draining and PyErr_ExceptionMatches(PyExc_StopAsyncIteration):
                        PyErr_Clear()
                        raise StopIteration
                    raise_current()
                result = <object> sent
                release(sent)
                if outcome == SENT_NEXT:
                    return result
            else:
                throw = getattr(self._step, "throw", None)
                try:
                    if throw is None:
                        raise error
                    return throw(error)
                except StopIteration as stop:
                    result = stop.value
                except StopAsyncIteration:
                    self._step = None
                    if self._draining:
                        raise
                    raise StopIteration from None
                except BaseException:
                    self._step = None
                    raise
                error = None
            self._step = value = None
            if self._draining:
                self._draining = False
                continue
            before = connection.stream_size
            connection.send_piece(result)
            _pieces += 1
            self._left -= 1 + ((connection.stream_size - before) >> 10)
            if self._left <= 0 or connection.write_paused:
                self._left = _turn
                _drains += 1
                self._step = await_of(connection.drain())
                self._draining = True


def pump(connection, source):
    """Send the pieces of an async iterator until it ends.

    Args:
        connection: Where `send_piece` sends them; waited for with `drain` while its peer does not read, and whenever
            the producer has gone on for a turn without waiting itself.
        source: The iterator.

    Raises:
        TypeError: The source is no async iterable, or produces something that is neither bytes nor str.
        RuntimeError: It is longer than the Content-Length it was announced with.
        ClientDisconnect: The client went away.
    """
    cdef _Pump made = _Pump.__new__(_Pump)
    made._connection = connection
    made._source = source
    made._left = _turn
    return made
