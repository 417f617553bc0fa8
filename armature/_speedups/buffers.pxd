cdef class BodyBuffer:
    cdef bytes _data            # written to before anybody else can see it
    cdef Py_ssize_t _size
    cdef Py_ssize_t _filled

    cdef Py_ssize_t put(self, const char* data, Py_ssize_t count) noexcept

cdef class Buffer:
    cdef char* data          # NULL while nothing is held
    cdef Py_ssize_t start    # the first byte that is still there
    cdef Py_ssize_t end      # one past the last
    cdef Py_ssize_t capacity

    cdef int reserve(self, Py_ssize_t count) except -1
    cdef int add(self, const char* data, Py_ssize_t count) except -1
    cdef void drop(self, Py_ssize_t count) noexcept
    cdef void release(self) noexcept
    cdef void steal(self, Buffer other) noexcept
