from armature._speedups.buffers cimport Buffer
from armature._speedups.exchange cimport Exchange
from armature._speedups.parser cimport Field, Head

cdef struct Part:
    const char* text        # of one of the `_parts`, which are kept
    Py_ssize_t size
    int field               # number of the field behind it, or -1

cdef class AccessLines:
    cdef tuple _parts
    cdef Part* _plan
    cdef int _count
    cdef bint _json, _by_request
    cdef Py_ssize_t _limit
    cdef object _on_first, _on_full
    cdef Buffer _out
    cdef long long _second, _offset
    cdef bytes _time, _common
    cdef public long long dropped
    cdef public Py_ssize_t held

    cdef int append(self, Exchange exchange, int status, long long size, long long now, long long duration) except -1
    cdef int write(self, Exchange exchange, int status, long long size, long long wall, long long duration) except -1
    cdef int header(self, int number, const Head* head, const char* base, const Field* fields) except -1
    cdef int client(self, Exchange exchange) except -1
    cdef int address(self, object client) except -1
    cdef int field(self, int number, Exchange exchange) except -1
    cdef int time(self, int number, long long wall) except -1
    cdef int value(self, const char* data, Py_ssize_t size) except -1
    cdef int raw(self, bytes raw) except -1
    cdef int text(self, object text) except -1
    cdef int absent(self) except -1
    cdef int number(self, long long value) except -1

cdef class RouteFigures:
    cdef readonly tuple bounds
    cdef long long _bounds[64]
    cdef int _count
    cdef dict _figures

    cdef int count(self, object endpoint, int method, int status, long long size, long long duration) except -1

cdef class Reporter:
    cdef AccessLines _lines
    cdef RouteFigures _figures
    cdef object _call
