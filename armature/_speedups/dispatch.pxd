from cpython.object cimport PyObject

cdef class Owner:
    cdef object on_value(self, object value)
    cdef object on_error(self, object error)

cdef class Endpoint:
    cdef public object call, plan, encode, on_error, dumps, route
    cdef public bytes kinds
    cdef public int mode, status
    cdef public bint native
    cdef public long long body_limit

cdef class Driver:
    cdef object __weakref__
    cdef public bint _asyncio_future_blocking
    cdef Dispatcher _dispatcher
    cdef object _wakeup, _coroutine, _context, _owner, _awaited, _cancel_message
    cdef bint _blocking, _handed_over, _throw, _retired
    cdef public bint cancel_requested
    cdef readonly object task

    cdef object _step(self, object value, object error)
    cdef object _hand_over(self)
    cdef void _forget(self) noexcept

cdef class Dispatcher:
    cdef bint _entered
    cdef Driver _spare
    cdef readonly object context, loop, read_buffer
    cdef char* read_memory
    cdef public long long suspended, tasks
    cdef public double now          # of the loop's clock, as of the last sweep

    cdef int call(self, object owner, PyObject* function, PyObject** arguments, Py_ssize_t count) except -1
    cdef int drive(self, object owner, object context, object coroutine) except -1
    cdef int begin(self) except -1
    cdef int end(self) except -1
