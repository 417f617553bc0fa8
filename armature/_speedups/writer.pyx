"""Writing the head of a response (RFC 9112 sections 4 to 6), and the framing of a chunked body (section 7.1)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.string cimport memcmp, memcpy

from armature._speedups.ascii cimport decimal, exact_bytes, hexadecimal
from armature._speedups.buffers cimport Buffer
from armature._speedups.switches cimport HOT_13_DATE

from armature._spec.abnf import FIELD_VALUE
from armature._spec.dates import format_http_date
from armature._spec.limits import SERVER_FIELD_LIMIT
from armature._spec.status import STATUS_LINES

__all__ = ["CHUNKED", "FROM_FIELDS", "NO_LENGTH", "Writer", "chunk"]

NO_LENGTH = LENGTH_NONE
CHUNKED = LENGTH_CHUNKED
FROM_FIELDS = LENGTH_FROM_FIELDS

cdef extern from *:
    """
    #include <time.h>
    static inline long long armature_seconds(void) { return (long long)time(NULL); }
    """
    long long seconds "armature_seconds"() noexcept nogil

cdef enum:
    SERVER_LIMIT = 256

assert SERVER_FIELD_LIMIT == SERVER_LIMIT
_not_value = bytes(byte for byte in range(256) if not FIELD_VALUE[byte])

cdef const char* _lines[900]
cdef unsigned char _line_sizes[900]
_kept_lines = STATUS_LINES


cdef void _fill() noexcept:
    cdef int i
    for i in range(900):
        _lines[i] = PyBytes_AS_STRING(_kept_lines[i])
        _line_sizes[i] = <unsigned char> PyBytes_GET_SIZE(_kept_lines[i])


_fill()

cdef const char* _continuations[3]
_continuations[0] = b"\r\n"
_continuations[1] = b"connection: close\r\n\r\n"
_continuations[2] = b"connection: keep-alive\r\n\r\n"
cdef int[3] _continuation_sizes = [2, 21, 26]


cdef inline bint _is(object name, const char* lower, Py_ssize_t size) noexcept:
    return PyBytes_GET_SIZE(name) == size and memcmp(PyBytes_AS_STRING(name), lower, size) == 0


cdef inline bint _own(object name) noexcept:
    """Whether a field belongs to the connection, whatever the application says (RFC 9110 section 7.6.1)."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    if size == 10:
        return _is(name, b"connection", 10) or _is(name, b"keep-alive", 10)
    if size == 14:
        return _is(name, b"content-length", 14)
    return size == 17 and _is(name, b"transfer-encoding", 17)


cdef class Writer:
    """Writes response heads; `Server` and `Date` are made once a second.

    Args:
        server: Value of the Server field, or None to leave it out.
        date: Whether to send Date (RFC 9110 section 6.6.1 asks an origin server with a clock to do so).
    """

    def __init__(self, server=b"armature", date=True):
        if server is not None:
            if len(server) > SERVER_LIMIT:
                raise ValueError(f"the Server field may be {SERVER_LIMIT} bytes long, not {len(server)}")
            if server.translate(None, _not_value) != server:
                raise ValueError("the Server field holds a control character")
        self._server_line = b"" if server is None else b"server: " + server + b"\r\n"
        self._date = date
        self._second = -1
        self._stamp_size = 0
        self._prefix_size = 0

    def head(self, status, fields, content_type, length, connection=0):
        """Return the head of a response, up to and with the empty line.

        Args:
            status: The status code, 100 to 999.
            fields: Checked field lines, names in lower case; those that frame the message are left out.
            content_type: Written before `fields`, or None.
            length: Length of the body in bytes, or `NO_LENGTH`, `CHUNKED`, `FROM_FIELDS`.
            connection: 0 to say nothing, 1 for `close`, 2 for `keep-alive`.
        """
        cdef Buffer out = Buffer()
        if not 100 <= status <= 999 or not 0 <= connection <= 2:
            raise IndexError("tuple index out of range")
        self.write_head(out, status, fields, content_type, length, connection)
        return out.take()

    cdef void refresh(self) noexcept:
        """Make the Date line of this second, and the lines that begin most heads."""
        cdef long long now = seconds()
        cdef Py_ssize_t size
        if HOT_13_DATE and now == self._second:
            return
        self._second = now
        if self._date:
            try:
                stamp = b"date: " + format_http_date(now).encode("ascii") + b"\r\n"
            except Exception:
                stamp = b""
            self._stamp_size = <int> PyBytes_GET_SIZE(stamp)
            memcpy(self._stamp, PyBytes_AS_STRING(stamp), self._stamp_size)
        size = PyBytes_GET_SIZE(self._server_line)
        memcpy(self._prefix, PyBytes_AS_STRING(self._server_line), size)
        memcpy(self._prefix + size, self._stamp, self._stamp_size)
        self._prefix_size = <int> size + self._stamp_size

    cdef int write_head(self, Buffer out, int status, list fields, bytes content_type, Py_ssize_t length, int connection) except -1:
        cdef char* p
        cdef Py_ssize_t size, room, i, count
        cdef bint server = True, date = True
        cdef object name, value
        self.refresh()
        room = _line_sizes[status - 100] + self._prefix_size + 96
        if content_type is not None:
            room += PyBytes_GET_SIZE(content_type) + 16
        if fields is not None:
            count = PyList_GET_SIZE(fields)
            for i in range(count):
                pair = <object> PyList_GET_ITEM(fields, i)
                if type(pair) is not tuple or len(<tuple> pair) != 2:
                    raise TypeError("the fields of a response must be pairs of bytes; use response.headers")
                name, value = <tuple> pair
                if not PyBytes_CheckExact(name) or not PyBytes_CheckExact(value):
                    raise TypeError("the fields of a response must be pairs of bytes; use response.headers")
                room += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + 4
                if server and _is(name, b"server", 6):
                    server = False
                elif date and _is(name, b"date", 4):
                    date = False
        out.reserve(room)
        p = out.data + out.end

        size = _line_sizes[status - 100]
        memcpy(p, _lines[status - 100], size)
        p += size
        if server and date:
            memcpy(p, self._prefix, self._prefix_size)
            p += self._prefix_size
        elif server:
            size = PyBytes_GET_SIZE(self._server_line)
            memcpy(p, PyBytes_AS_STRING(self._server_line), size)
            p += size
        elif date:
            memcpy(p, self._stamp, self._stamp_size)
            p += self._stamp_size
        if content_type is not None:
            memcpy(p, b"content-type: ", 14)
            p += 14
            size = PyBytes_GET_SIZE(content_type)
            memcpy(p, PyBytes_AS_STRING(content_type), size)
            p += size
            p[0] = c"\r"
            p[1] = c"\n"
            p += 2
        if length >= 0:
            memcpy(p, b"content-length: ", 16)
            p += 16
            p += decimal(p, length)
            p[0] = c"\r"
            p[1] = c"\n"
            p += 2
        elif length == LENGTH_CHUNKED:
            memcpy(p, b"transfer-encoding: chunked\r\n", 28)
            p += 28
        if fields is not None:
            for i in range(count):
                name, value = <tuple> <object> PyList_GET_ITEM(fields, i)
                if _own(name) and not (length == LENGTH_FROM_FIELDS and _is(name, b"content-length", 14)):
                    continue
                size = PyBytes_GET_SIZE(name)
                memcpy(p, PyBytes_AS_STRING(name), size)
                p += size
                p[0] = c":"
                p[1] = c" "
                p += 2
                size = PyBytes_GET_SIZE(value)
                memcpy(p, PyBytes_AS_STRING(value), size)
                p += size
                p[0] = c"\r"
                p[1] = c"\n"
                p += 2
        memcpy(p, _continuations[connection], _continuation_sizes[connection])
        p += _continuation_sizes[connection]
        out.end = p - out.data
        return 0


cdef int write_chunk(Buffer out, const char* data, Py_ssize_t count) except -1:
    """Add one chunk to `out`."""
    cdef char* p
    if count == 0:
        return out.add(b"0\r\n\r\n", 5)
    out.reserve(count + 20)
    p = out.data + out.end
    p += hexadecimal(p, count)
    p[0] = c"\r"
    p[1] = c"\n"
    p += 2
    memcpy(p, data, count)
    p += count
    p[0] = c"\r"
    p[1] = c"\n"
    p += 2
    out.end = p - out.data
    return 0


def chunk(data):
    """Return one chunk of a chunked body; `b""` makes the last one (RFC 9112 section 7.1)."""
    cdef Buffer out = Buffer()
    cdef bytes raw = exact_bytes(data)
    write_chunk(out, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
    return out.take()
