from libc.stdint cimport uint32_t

from armature._speedups.parser cimport Field, Head

cdef enum:
    MOST_PARAMS = 16

cdef class Request:
    cdef object __weakref__
    cdef public object connection, endpoint, receiver, _state, _view
    cdef object _method, _raw_path, _query, _version, _path, _headers, _body
    cdef object _names, _values         # of the path parameters; no values: they are offsets into the path
    cdef const Head* _head              # NULL for a request that no connection of ours has brought
    cdef const Field* _fields
    cdef const char* _base              # where the head stands
    cdef Py_ssize_t _head_size
    cdef Py_ssize_t _body_size          # of a body that stands right behind the head, or -1
    cdef char* _block                   # memory of our own that holds all of these, or NULL
    cdef uint32_t _starts[MOST_PARAMS]
    cdef uint32_t _sizes[MOST_PARAMS]

    cdef void attach(self, const char* base, Py_ssize_t head_size, const Head* head, const Field* fields) noexcept
    cdef int detach(self) except -1
    cdef tuple values(self)

cdef class Response:
    cdef object __weakref__
    cdef public object stream, _view
    cdef public list _fields
    cdef public bytes _content_type
    cdef bytes _body
    cdef int _status
