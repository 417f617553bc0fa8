from libc.stdint cimport int64_t, uint32_t

cdef class ChunkedParser:
    cdef int _state
    cdef uint32_t _extension_limit, _trailer_limit
    cdef int64_t _left
    cdef Py_ssize_t _extensions, _trailer_size
    cdef object _line
    cdef readonly bint done
    cdef readonly list trailers

    cdef Py_ssize_t run(self, const char* data, Py_ssize_t size, list pieces) except -1
    cdef int _judge(self, bytes line) except -1
    cdef int _check_partial(self) except -1
    cdef int _size(self, bytes line) except -1
    cdef int _trailer(self, bytes line) except -1
