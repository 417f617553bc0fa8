from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    INLINE_FIELDS = 16

cdef struct Field:
    uint32_t name           # offsets from the beginning of the head
    uint32_t value
    uint32_t value_size
    uint32_t name_size
    uint8_t known           # number of the name in armature/_spec/fields.py, or 255

cdef struct Head:
    uint32_t method
    uint32_t method_size
    uint32_t path
    uint32_t path_size
    uint32_t query
    uint32_t query_size
    int64_t content_length  # -1 without one
    int method_id
    int minor               # -1 until the request line is complete
    int count               # of fields
    bint chunked
    bint keep_alive
    bint expect_continue
    bint upgrade

cdef class HeadParser:
    cdef Head head
    cdef Field* fields
    cdef Field _inline[INLINE_FIELDS]
    cdef int _capacity
    cdef uint32_t _line_limit, _head_limit
    cdef int _count_limit
    cdef Py_ssize_t _at, _scanned
    cdef int _empty, _hosts, _host_at
    cdef uint32_t _target_host, _target_host_size
    cdef bint _options, _close, _keep, _upgrade_option
    cdef object _codings            # joined Transfer-Encoding values
    cdef object _data               # what `parse` was given: the attributes are read from it
    cdef Py_ssize_t _start

    cdef const char* _base(self) noexcept
    cdef void clear(self) noexcept
    cdef Py_ssize_t run(self, const char* data, Py_ssize_t size) except -2
    cdef int _request_line(self, const char* data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int _target(self, const char* data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int _field_line(self, const char* data, Py_ssize_t at, Py_ssize_t end) except -1
    cdef int _field(self, const char* data, Py_ssize_t name, Py_ssize_t name_size, uint8_t known, Py_ssize_t value, Py_ssize_t end) except -1
    cdef int _connection(self, const char* p, const char* end) noexcept
    cdef int _finish(self, const char* data) except -1
    cdef int _transfer_encoding(self) except -1

cdef int refuse(int status, str message) except -1
cdef uint8_t field_id(const char* name, Py_ssize_t size) noexcept
cdef object field_name(const char* data, const Field* field)
cdef object method_name(const char* data, const Head* head)
