cdef long long weight(object value, long long most, int levels) except? -1

cdef enum:
    LEVELS = 4
