from armature._speedups.dispatch cimport Dispatcher, Endpoint
from armature._speedups.message cimport Request
from armature._speedups.parser cimport Field, Head
from armature._speedups.wire cimport Wire
from armature._speedups.writer cimport Writer

cdef class Exchange(Wire):
    cdef Dispatcher _dispatcher
    cdef Writer _writer
    cdef Request _request
    cdef Endpoint _endpoint
    cdef unsigned char _minor
    cdef bint _keep_alive, _head_only, _continue, _failed, _streaming, _stream_chunked, _gathering, _flush_due
    cdef long long _stream_left
    cdef readonly long long _body_left  # of the request, not yet received; -1 if nobody knows
    cdef public bint closing, late, progress
    cdef public object report           # called for every answer; None for nobody
    cdef bytes client_text              # the client as `report` tells it; None until it has
    cdef public long long started       # when the request in flight began, in nanoseconds; kept only for `report`
    cdef public long long stream_size

    cdef int answer(self, int status, list fields, bytes content_type, bytes body) except -1
    cdef int persistence(self, list fields) except -1
    cdef int put_chunk(self, bytes data) except -1
    cdef int finish(self) except -1
    cdef int forget(self) except -1
    cdef const Head* head(self, const char** base, const Field** fields) noexcept
    cdef Request current(self)
    cdef Request materialise(self)

cdef bint decimal_number(const char* text, Py_ssize_t size, long long* number) noexcept
