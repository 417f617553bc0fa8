from armature._speedups.buffers cimport BodyBuffer, Buffer
from armature._speedups.chunked cimport ChunkedParser
from armature._speedups.dispatch cimport Endpoint
from armature._speedups.exchange cimport Exchange
from armature._speedups.parser cimport Field, Head, HeadParser
from armature._speedups.router cimport Match, RadixRouter

cdef class Connection(Exchange):
    cdef object _service, _app, _request_class
    cdef RadixRouter _router
    cdef HeadParser _parser
    cdef Buffer _carry
    cdef BodyBuffer _whole              # where a large body is received as a whole
    cdef ChunkedParser _chunks
    cdef Match _match
    cdef const char* _base              # the head being answered, while it stands in the receive buffer
    cdef Py_ssize_t _head_size
    cdef Py_ssize_t _body_in_place      # size of a body that stands behind it, or -1
    cdef bint _feeding, _unread
    cdef long long _body_size, _body_limit
    cdef readonly object _receiver
    cdef public bint reading_paused, write_paused
    cdef public long long allowance     # how many more requests are answered; below zero, any number
    cdef public double since            # when the present wait began, by the dispatcher's `now`

    cdef int received(self, Py_ssize_t size) except -1
    cdef const Head* head(self, const char** base, const Field** fields) noexcept
    cdef int feed(self, const char* data, Py_ssize_t size) except -1
    cdef int feed_heads(self, const char* data, Py_ssize_t size) except -1
    cdef int run_heads(self, const char* data, Py_ssize_t size) except -1
    cdef int keep(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t dispatch(self, const char* base, Py_ssize_t head_size, const char* rest, Py_ssize_t size) except -1
    cdef int call_with_params(self, Endpoint endpoint) except -1
    cdef Py_ssize_t begin_body(self, const char* data, Py_ssize_t size, long long length, long long limit) except -1
    cdef Py_ssize_t feed_body(self, const char* data, Py_ssize_t size) except -1
    cdef int receive_whole(self) except -1
    cdef int body_grown(self, Py_ssize_t count) except -1
    cdef int body_failed(self, object error) except -1
    cdef int body_overrun(self) except -1
    cdef int next_request(self) except -1
    cdef int drop_request(self) except -1
    cdef int shut(self) except -1
