from armature._speedups.buffers cimport Buffer
from armature._speedups.dispatch cimport Owner

cdef class Wire(Owner):
    cdef object __weakref__
    cdef Buffer _out
    cdef unsigned char _state
    cdef bint _through_transport    # the transport was given bytes, and may still hold some
    cdef int _fd                    # of a socket that may be written to directly, or -1
    cdef readonly object transport
    cdef public long long written   # bytes that went to the socket or the transport so far

    cdef void move(self, int event) noexcept
    cdef bint direct(self) except -1
    cdef int push(self) except -1
    cdef int send_large(self, bytes body) except -1
