from armature._speedups.buffers cimport Buffer

cdef enum:
    LENGTH_NONE = -1
    LENGTH_CHUNKED = -2
    LENGTH_FROM_FIELDS = -3

cdef class Writer:
    cdef object _server_line
    cdef bint _date
    cdef long long _second
    cdef char _prefix[384]      # Server and Date lines, ready
    cdef int _prefix_size
    cdef char _stamp[40]
    cdef int _stamp_size

    cdef int write_head(self, Buffer out, int status, list fields, bytes content_type, Py_ssize_t length, int connection) except -1
    cdef void refresh(self) noexcept

cdef int write_chunk(Buffer out, const char* data, Py_ssize_t count) except -1
