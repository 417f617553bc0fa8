"""Parsing of HTTP/1.1 request heads (RFC 9112), strictly.

The parser works line by line, in place, and can be stopped and continued anywhere: a line is judged as soon as it
is complete, so that what is refused, and when, does not depend on how the stream was cut. Whatever two readers of
the same bytes could understand differently is refused (RFC 9112 sections 2.2, 5.1, 5.2, 6.1, 6.3).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from armature._speedups.ascii cimport exact_bytes, find_control, find_not_in, same_token
from armature._speedups.switches cimport HOT_08, HOT_09, HOT_09_NAMES, HOT_10

import re
import sys

from armature._spec.abnf import HEX_VALUE, HOST, LOWER, TARGET, TOKEN
from armature._spec.fields import FIELDS, FRAMING
from armature._spec.limits import (
    EMPTY_LINE_LIMIT as _EMPTY_LINE_LIMIT,
    HEAD_LIMIT as _HEAD_LIMIT,
    HEADER_COUNT_LIMIT as _HEADER_COUNT_LIMIT,
    REQUEST_LINE_LIMIT as _REQUEST_LINE_LIMIT,
)
from armature._spec.methods import METHODS, OTHER
from armature.exceptions import ProtocolError

__all__ = ["HeadParser"]

# The tables of armature/_spec, as C arrays; the bytes objects behind them live as long as the module.
_kept_tables = (TOKEN, TARGET, HOST, HEX_VALUE)
cdef const unsigned char* _token = <const unsigned char*> PyBytes_AS_STRING(TOKEN)
cdef const unsigned char* _target_chars = <const unsigned char*> PyBytes_AS_STRING(TARGET)
cdef const unsigned char* _host_chars = <const unsigned char*> PyBytes_AS_STRING(HOST)
cdef const unsigned char* _hex = <const unsigned char*> PyBytes_AS_STRING(HEX_VALUE)

cdef int _empty_limit = _EMPTY_LINE_LIMIT
cdef int _other = OTHER
cdef int _method_count = len(METHODS)
cdef tuple _methods = tuple(sys.intern(name) for name in METHODS)
cdef const char* _method_bytes[16]
cdef Py_ssize_t _method_sizes[16]
_kept_methods = [name.encode("ascii") for name in METHODS]

# Known field names: a perfect hash over length and four characters, found when the module is loaded.
cdef enum:
    SLOTS = 1024
    UNKNOWN = 255
    KNOWN_HOST = 0
    KNOWN_CONTENT_LENGTH = 1
    KNOWN_TRANSFER_ENCODING = 2
    KNOWN_CONNECTION = 3
    KNOWN_EXPECT = 4
    KNOWN_UPGRADE = 5

assert FRAMING == ("host", "content-length", "transfer-encoding", "connection", "expect", "upgrade")
assert len(FIELDS) < UNKNOWN

cdef uint8_t _slots[SLOTS]
cdef uint64_t _multiplier = 0
cdef const char* _names[256]
cdef uint8_t _name_sizes[256]
cdef tuple _name_objects = tuple(name.encode("ascii") for name in FIELDS)
cdef uint8_t _name_count = len(FIELDS)


cdef inline uint32_t _hash(const char* name, Py_ssize_t size, uint64_t multiplier) noexcept:
    cdef uint64_t key = <uint64_t> size
    key = key << 8 | <unsigned char> name[0] | 0x20
    key = key << 8 | <unsigned char> name[size >> 1] | 0x20
    key = key << 8 | <unsigned char> name[size * 3 >> 2] | 0x20
    key = key << 8 | <unsigned char> name[size - 1] | 0x20
    return <uint32_t> (key * multiplier >> 54)


cdef int _fill() except -1:
    global _multiplier
    cdef uint64_t multiplier = 0x9E3779B97F4A7C15ULL
    cdef uint32_t slot
    cdef int i, attempt
    cdef bint good
    for i in range(_method_count):
        _method_bytes[i] = PyBytes_AS_STRING(_kept_methods[i])
        _method_sizes[i] = PyBytes_GET_SIZE(_kept_methods[i])
    for i in range(len(_name_objects)):
        _names[i] = PyBytes_AS_STRING(_name_objects[i])
        _name_sizes[i] = <uint8_t> PyBytes_GET_SIZE(_name_objects[i])
    for attempt in range(1000000):
        for slot in range(SLOTS):
            _slots[slot] = UNKNOWN
        good = True
        for i in range(len(_name_objects)):
            slot = _hash(_names[i], _name_sizes[i], multiplier)
            if _slots[slot] != UNKNOWN:
                good = False
                break
            _slots[slot] = <uint8_t> i
        if good:
            _multiplier = multiplier
            return 0
        multiplier = multiplier * 6364136223846793005ULL + 1442695040888963407ULL
    raise SystemError("no perfect hash for armature._spec.fields.FIELDS; add a character to _hash")


_fill()


cdef uint8_t field_id(const char* name, Py_ssize_t size) noexcept:
    """Return the number of a field name (token bytes, any case), or 255."""
    cdef uint8_t known
    if size <= 0 or size > 255:
        return UNKNOWN
    if not HOT_09:
        for known in range(_name_count):
            if _name_sizes[known] == size and same_token(name, _names[known], size):
                return known
        return UNKNOWN
    known = _slots[_hash(name, size, _multiplier)]
    if known != UNKNOWN and _name_sizes[known] == size and same_token(name, _names[known], size):
        return known
    return UNKNOWN


cdef object field_name(const char* data, const Field* field):
    """Return a field's name in lower case; the same object for a known name every time."""
    if HOT_09_NAMES and field.known != UNKNOWN:
        return _name_objects[field.known]
    return PyBytes_FromStringAndSize(data + field.name, field.name_size).translate(LOWER)


cdef object method_name(const char* data, const Head* head):
    """Return the method as text."""
    if head.method_id < _method_count:
        return _methods[head.method_id]
    return PyBytes_FromStringAndSize(data + head.method, head.method_size).decode("ascii")


cdef int refuse(int status, str message) except -1:
    """Refuse what the peer sent."""
    raise ProtocolError(status, message)


cdef class HeadParser:
    """Parses one request head after another.

    After `parse` has returned an end, the attributes describe the message: `method`, `method_id`, `raw_path`,
    `query_string`, `minor` (the 0 or 1 of HTTP/1.x), `headers`, `content_length` (-1 without one), `chunked`,
    `keep_alive`, `expect_continue`, `upgrade`.

    Args:
        line_limit: Longest request line, in bytes.
        head_limit: Longest head, in bytes.
        count_limit: Most field lines.
    """

    def __cinit__(self):
        self.fields = self._inline
        self._capacity = INLINE_FIELDS if HOT_10 else 1

    def __init__(self, line_limit=_REQUEST_LINE_LIMIT, head_limit=_HEAD_LIMIT, count_limit=_HEADER_COUNT_LIMIT):
        self._line_limit = line_limit
        self._head_limit = head_limit
        self._count_limit = count_limit
        self.clear()

    def __dealloc__(self):
        if self.fields != self._inline:
            PyMem_Free(self.fields)

    def reset(self):
        """Forget everything; the next bytes begin a new head."""
        self.clear()

    def parse(self, data, start=0):
        """Go on with the head that begins at `start`.

        The bytes of an unfinished head must be given again, with more behind them; they are not scanned again.

        Args:
            data: The received bytes.
            start: Where the head begins.

        Returns:
            Where the head ends, or -1 if it is not complete.

        Raises:
            ProtocolError: The head is malformed or over a limit. The parser must be reset before it is used again.
        """
        cdef bytes raw = exact_bytes(data)
        cdef Py_ssize_t at, end
        if not 0 <= start <= PyBytes_GET_SIZE(raw):
            raise ValueError(f"start {start} is outside of the data")
        at = start
        self._data = raw
        self._start = at
        end = self.run(PyBytes_AS_STRING(raw) + at, PyBytes_GET_SIZE(raw) - at)
        return -1 if end < 0 else at + end

    cdef const char* _base(self) noexcept:
        return PyBytes_AS_STRING(self._data) + self._start

    @property
    def method(self):
        if self._data is None or self.head.minor < 0:
            return ""
        return method_name(self._base(), &self.head)

    @property
    def method_id(self):
        return self.head.method_id

    @property
    def raw_path(self):
        if self._data is None or self.head.minor < 0:
            return b""
        if self.head.path_size == 0:
            return b"/"
        return PyBytes_FromStringAndSize(self._base() + self.head.path, self.head.path_size)

    @property
    def query_string(self):
        if self._data is None:
            return b""
        return PyBytes_FromStringAndSize(self._base() + self.head.query, self.head.query_size)

    @property
    def minor(self):
        return self.head.minor

    @property
    def headers(self):
        cdef int i
        cdef Field* field
        cdef list headers = []
        if self._data is not None:
            for i in range(self.head.count):
                field = &self.fields[i]
                headers.append((
                    field_name(self._base(), field),
                    PyBytes_FromStringAndSize(self._base() + field.value, field.value_size),
                ))
        return headers

    @property
    def content_length(self):
        return self.head.content_length

    @property
    def chunked(self):
        return self.head.chunked

    @property
    def keep_alive(self):
        return self.head.keep_alive

    @property
    def expect_continue(self):
        return self.head.expect_continue

    @property
    def upgrade(self):
        return self.head.upgrade

    cdef void clear(self) noexcept:
        cdef Head* head = &self.head
        head.method = head.method_size = head.path = head.path_size = head.query = head.query_size = 0
        head.content_length = -1
        head.method_id = _other
        head.minor = -1
        head.count = 0
        head.chunked = head.keep_alive = head.expect_continue = head.upgrade = False
        self._at = self._scanned = 0
        self._empty = self._hosts = 0
        self._host_at = -1
        self._target_host_size = 0
        self._options = self._close = self._keep = self._upgrade_option = False
        self._codings = None
        self._data = None
        if self.fields != self._inline:
            PyMem_Free(self.fields)
            self.fields = self._inline
            self._capacity = INLINE_FIELDS if HOT_10 else 1

    cdef Py_ssize_t run(self, const char* data, Py_ssize_t size) except -2:
        """Parse the head at `data`; return its size, or -1 if it is not complete."""
        cdef const char* newline
        cdef const char* p
        cdef const char* colon
        cdef const char* value
        cdef const char* end = data + size
        cdef const char* line
        cdef Py_ssize_t at
        cdef uint8_t known
        while True:
            line = data + self._at
            # The usual field line in one pass: token ":" OWS value CRLF. Whatever is not usual, or not complete,
            # is left to the judgement below, which looks for the end of the line first.
            if HOT_08 and self.head.minor >= 0 and self.head.count < self._count_limit:
                colon = find_not_in(line, end, _token)
                if colon < end and colon[0] == c":" and colon != line:
                    value = colon + 1
                    while value < end and (value[0] == c" " or value[0] == c"\t"):
                        value += 1
                    p = find_control(value, end)
                    if end - p >= 2 and p[0] == c"\r" and p[1] == c"\n" and p + 2 - data <= self._head_limit:
                        self._at = self._scanned = p + 2 - data
                        while p > value and ((p - 1)[0] == c" " or (p - 1)[0] == c"\t"):
                            p -= 1
                        known = field_id(line, colon - line)
                        self._field(data, line - data, colon - line, known, value - data, p - data)
                        continue
                elif end - line >= 2 and line[0] == c"\r" and line[1] == c"\n" and line + 2 - data <= self._head_limit:
                    self._at = self._scanned = line + 2 - data
                    self._finish(data)
                    return self._at
            newline = NULL
            if self._scanned < size:
                newline = <const char*> memchr(data + self._scanned, c"\n", size - self._scanned)
            if newline == NULL:
                self._scanned = size
                if self.head.minor < 0 and size - self._at > self._line_limit:
                    refuse(414, "the request line is too long")
                if size > self._head_limit:
                    refuse(431, "the request head is too large")
                return -1
            at = newline - data
            self._at = self._scanned = at + 1
            if self.head.minor < 0 and newline - line > self._line_limit:
                refuse(414, "the request line is too long")
            if self._at > self._head_limit:
                refuse(431, "the request head is too large")
            if newline == line or (newline - 1)[0] != c"\r":
                refuse(400, "a line ends in a bare LF")
            at -= 1
            if self.head.minor < 0:
                if line - data < at:
                    self._request_line(data, line - data, at)
                    continue
                self._empty += 1
                if self._empty > _empty_limit:
                    refuse(400, "too many empty lines before the request line")
            elif line - data < at:
                self._field_line(data, line - data, at)
            else:
                self._finish(data)
                return self._at

    cdef int _request_line(self, const char* data, Py_ssize_t at, Py_ssize_t end) except -1:
        # method SP request-target SP HTTP-version (RFC 9112 section 3)
        cdef const char* line = data + at
        cdef const char* stop = data + end
        cdef const char* p = find_not_in(line, stop, _token)
        cdef const char* target
        cdef int i, minor
        if p == line or (p < stop and p[0] != c" "):
            refuse(400, "the method is malformed")
        self.head.method = <uint32_t> at
        self.head.method_size = <uint32_t> (p - line)
        target = p + 1 if p < stop else p
        p = find_not_in(target, stop, _target_chars)
        if p == target or (p < stop and p[0] != c" "):
            refuse(400, "the request target is malformed")
        if p == stop:
            refuse(400, "the HTTP version is missing")
        end = p - data
        p += 1
        if stop - p == 8 and memcmp(p, b"HTTP/1.1", 8) == 0:
            minor = 1
        elif stop - p == 8 and memcmp(p, b"HTTP/1.0", 8) == 0:
            minor = 0
        elif (
            stop - p == 8 and memcmp(p, b"HTTP/", 5) == 0 and p[6] == c"." and c"0" <= p[5] <= c"9" and c"0" <= p[7] <= c"9"
        ):
            return refuse(505, "the HTTP version is not supported")
        else:
            return refuse(400, "the HTTP version is malformed")
        for i in range(_method_count):
            if self.head.method_size == _method_sizes[i] and memcmp(line, _method_bytes[i], _method_sizes[i]) == 0:
                self.head.method_id = i
                break
        self.head.minor = minor
        return self._target(data, target - data, end)

    cdef int _target(self, const char* data, Py_ssize_t at, Py_ssize_t end) except -1:
        # The four forms of RFC 9112 section 3.2.
        cdef const char* p
        cdef const char* stop = data + end
        cdef const char* host
        cdef Py_ssize_t size = end - at, skip
        self.head.path = <uint32_t> at
        self.head.path_size = <uint32_t> size
        self.head.query = <uint32_t> end
        if self.head.method_id == 5:
            if find_not_in(data + at, stop, _host_chars) != stop or not _authority(
                PyBytes_FromStringAndSize(data + at, size)
            ):
                refuse(400, "CONNECT needs a target of the form host:port")
            return 0
        if data[at] != c"/":
            if size == 1 and data[at] == c"*":
                if self.head.method_id != 6:
                    refuse(400, "the request target * is for OPTIONS alone")
                return 0
            if size >= 7 and _http_scheme(data + at, b"http://", 7):
                skip = 7
            elif size >= 8 and _http_scheme(data + at, b"https://", 8):
                skip = 8
            else:
                return refuse(400, "the request target is malformed")
            host = data + at + skip
            p = host
            while p < stop and p[0] != c"/" and p[0] != c"?" and p[0] != c"#":
                p += 1
            if p == host or not _is_host(host, p):
                refuse(400, "the host of the request target is malformed")
            self._target_host = <uint32_t> (host - data)
            self._target_host_size = <uint32_t> (p - host)
            at = p - data
        self.head.path = <uint32_t> at
        p = <const char*> memchr(data + at, c"#", end - at) if end > at else NULL
        if p != NULL:
            end = p - data
        p = <const char*> memchr(data + at, c"?", end - at) if end > at else NULL
        if p == NULL:
            self.head.path_size = <uint32_t> (end - at)
            self.head.query = <uint32_t> end
            self.head.query_size = 0
        else:
            self.head.path_size = <uint32_t> (p - data - at)
            self.head.query = <uint32_t> (p + 1 - data)
            self.head.query_size = <uint32_t> (end - (p + 1 - data))
        return 0

    cdef int _field_line(self, const char* data, Py_ssize_t at, Py_ssize_t end) except -1:
        # field-name ":" OWS field-value OWS (RFC 9112 section 5)
        cdef const char* line = data + at
        cdef const char* stop = data + end
        cdef const char* colon
        cdef const char* value
        if self.head.count >= self._count_limit:
            refuse(431, "the request has too many header fields")
        colon = find_not_in(line, stop, _token)
        if colon == line or colon == stop or colon[0] != c":":
            if line[0] == c" " or line[0] == c"\t":
                refuse(400, "a header line begins with white space (obsolete folding)")
            refuse(400, "a header name is malformed")
        value = colon + 1
        while value < stop and (value[0] == c" " or value[0] == c"\t"):
            value += 1
        if find_control(value, stop) != stop:
            refuse(400, "a header value holds a control character")
        while stop > value and ((stop - 1)[0] == c" " or (stop - 1)[0] == c"\t"):
            stop -= 1
        return self._field(data, at, colon - line, field_id(line, colon - line), value - data, stop - data)

    cdef int _field(self, const char* data, Py_ssize_t name, Py_ssize_t name_size, uint8_t known, Py_ssize_t value, Py_ssize_t end) except -1:
        """Keep a field, and act on it if it frames the message."""
        cdef Field* fields
        cdef Field* field
        cdef const char* p
        cdef int64_t number
        cdef int capacity
        if self.head.count == self._capacity:
            capacity = 2 * self._capacity if HOT_10 or self._capacity > 1 else INLINE_FIELDS
            fields = <Field*> PyMem_Malloc(capacity * sizeof(Field))
            if fields == NULL:
                raise MemoryError()
            memcpy(fields, self.fields, self._capacity * sizeof(Field))
            if self.fields != self._inline:
                PyMem_Free(self.fields)
            self.fields = fields
            self._capacity = capacity
        field = &self.fields[self.head.count]
        field.name = <uint32_t> name
        field.name_size = <uint32_t> name_size
        field.value = <uint32_t> value
        field.value_size = <uint32_t> (end - value)
        field.known = known
        self.head.count += 1
        if known > KNOWN_UPGRADE:
            return 0
        p = data + value
        if known == KNOWN_HOST:
            self._hosts += 1
            if self._hosts > 1:
                refuse(400, "the request has more than one Host field")
            if not _is_host(p, data + end):
                refuse(400, "the Host field is malformed")
            self._host_at = self.head.count - 1
        elif known == KNOWN_CONTENT_LENGTH:
            if self.head.content_length >= 0:
                refuse(400, "the request has more than one Content-Length field")
            if not 1 <= end - value <= 18:
                refuse(400, "the Content-Length field is malformed")
            number = 0
            while p < data + end:
                if not c"0" <= p[0] <= c"9":
                    refuse(400, "the Content-Length field is malformed")
                number = number * 10 + (p[0] - c"0")
                p += 1
            self.head.content_length = number
        elif known == KNOWN_TRANSFER_ENCODING:
            coding = PyBytes_FromStringAndSize(p, end - value)
            self._codings = coding if self._codings is None else self._codings + b"," + coding
        elif known == KNOWN_CONNECTION:
            self._connection(p, data + end)
        elif known == KNOWN_EXPECT:
            if end - value != 12 or not same_token_or_not(p, b"100-continue", 12):
                refuse(417, "the only expectation supported is 100-continue")
            self.head.expect_continue = True
        else:
            self.head.upgrade = True
        return 0

    cdef int _connection(self, const char* p, const char* end) noexcept:
        """Note the options of a Connection field (RFC 9110 section 7.6.1)."""
        cdef const char* comma
        cdef const char* stop
        self._options = True
        while True:
            comma = <const char*> memchr(p, c",", end - p) if end > p else NULL
            stop = end if comma == NULL else comma
            while p < stop and (p[0] == c" " or p[0] == c"\t"):
                p += 1
            while stop > p and ((stop - 1)[0] == c" " or (stop - 1)[0] == c"\t"):
                stop -= 1
            if stop - p == 5 and same_token_or_not(p, b"close", 5):
                self._close = True
            elif stop - p == 10 and same_token_or_not(p, b"keep-alive", 10):
                self._keep = True
            elif stop - p == 7 and same_token_or_not(p, b"upgrade", 7):
                self._upgrade_option = True
            if comma == NULL:
                return 0
            p = comma + 1

    cdef int _finish(self, const char* data) except -1:
        cdef Head* head = &self.head
        cdef Field* field
        if self._codings is not None:
            self._transfer_encoding()
        if self._hosts == 0 and head.minor == 1:
            refuse(400, "the request has no Host field")
        if self._target_host_size and self._host_at >= 0:
            # RFC 9112 section 3.2.2: the target's host wins over the Host field.
            field = &self.fields[self._host_at]
            field.value = self._target_host
            field.value_size = self._target_host_size
        head.keep_alive = head.minor == 1
        if self._options:
            head.upgrade = head.upgrade and self._upgrade_option
            if self._close:
                head.keep_alive = False
            elif self._keep:
                head.keep_alive = True
        else:
            head.upgrade = False
        if head.minor == 0:
            # RFC 9110 sections 7.8 and 10.1.1: neither exists for an HTTP/1.0 client.
            head.expect_continue = head.upgrade = False
        return 0

    cdef int _transfer_encoding(self) except -1:
        # RFC 9112 sections 6.1 and 6.3
        if self.head.content_length >= 0:
            refuse(400, "the request has both Transfer-Encoding and Content-Length")
        if self.head.minor == 0:
            refuse(400, "an HTTP/1.0 request cannot have Transfer-Encoding")
        codings = [coding.strip(b" \t") for coding in self._codings.translate(LOWER).split(b",")]
        if b"chunked" in codings[:len(codings) - 1] or b"" in codings:
            refuse(400, "the Transfer-Encoding field is malformed: chunked must be last, and once")
        if codings != [b"chunked"]:
            if codings[len(codings) - 1] != b"chunked":
                # Section 6.3, rule 4: the end of such a body cannot be known.
                refuse(400, "the Transfer-Encoding field is malformed: chunked must be last, and once")
            refuse(501, "the only transfer coding supported is chunked")
        self.head.chunked = True
        return 0


_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#]+):[0-9]{1,5}").fullmatch


cdef bint _is_host(const char* p, const char* end) noexcept:
    """Whether bytes are a host with an optional port (RFC 9110 section 7.2); it may be empty."""
    cdef const char* q
    if find_not_in(p, end, _host_chars) != end:
        return False
    if p < end and p[0] == c"[":
        q = p = p + 1
        while p < end and (_hex[<unsigned char> p[0]] != 255 or p[0] == c":" or p[0] == c"."):
            p += 1
        if p == q or p == end or p[0] != c"]":
            return False
        p += 1
    else:
        while p < end and p[0] != c":" and p[0] != c"[" and p[0] != c"]":
            p += 1
    if p == end:
        return True
    if p[0] != c":":
        return False
    p += 1
    while p < end and c"0" <= p[0] <= c"9":
        p += 1
    return p == end


cdef bint same_token_or_not(const char* p, const char* lower, Py_ssize_t size) noexcept:
    """Compare bytes that need not be token bytes: folding must not make a control byte look like a letter."""
    cdef Py_ssize_t i
    for i in range(size):
        if not _token[<unsigned char> p[i]]:
            return False
    return same_token(p, lower, size)


cdef bint _http_scheme(const char* p, const char* lower, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    cdef unsigned char byte
    for i in range(size):
        byte = <unsigned char> p[i]
        if c"A" <= byte <= c"Z":
            byte |= 0x20
        if byte != <unsigned char> lower[i]:
            return False
    return True
