"""What is told about every answer: a line of the access log, and the figures of its route.

A connection whose `report` is set calls it as `report(connection, status, size)` when an answer is complete; without
one nothing here costs anything.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from armature._speedups.buffers cimport Buffer
from armature._speedups.clock cimport monotonic_ns, wall_ns
from armature._speedups.exchange cimport Exchange
from armature._speedups.message cimport Request
from armature._speedups.parser cimport Field, Head, field_id

from armature._spec.access import (
    FIELD_LIMIT as _FIELD_LIMIT,
    FIELD_NUMBERS as _FIELD_NUMBERS,
    FIELDS as _FIELDS,
    HEADER_OF as _HEADER_OF,
    HISTOGRAM_BOUNDS as _HISTOGRAM_BOUNDS,
    JSON_ESCAPES as _JSON_ESCAPES,
    LINES_GATHER as _LINES_GATHER,
    LINES_LIMIT as _LINES_LIMIT,
    TEXT_ESCAPES as _TEXT_ESCAPES,
    time_texts as _time_texts,
)
from armature._spec.methods import METHOD_IDS as _METHOD_IDS, METHODS as _METHODS, OTHER as _OTHER

__all__ = ["AccessLines", "Reporter", "RouteFigures", "stats"]

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

# The numbers of armature/_spec, as C constants; the assertions hold them to their source.
cdef enum:
    CLIENT = 0
    METHOD = 1
    PATH = 2
    QUERY = 3
    TARGET = 4
    USER_AGENT = 5
    HOST = 8
    ROUTE = 9
    VERSION = 10
    STATUS = 11
    BYTES = 12
    DURATION_US = 13
    TIME = 14
    TIME_COMMON = 15
    FIELDS = 16
    OTHER = 9
    MOST_BOUNDS = 63

assert _FIELDS[CLIENT:TARGET + 1] == ("client", "method", "path", "query", "target")
assert _FIELDS[USER_AGENT:HOST + 1] == tuple(_HEADER_OF)
assert _FIELDS[ROUTE:] == ("route", "version", "status", "bytes", "duration_us", "time", "time_common")
assert (len(_FIELDS), _OTHER, _HISTOGRAM_BOUNDS) == (FIELDS, OTHER, MOST_BOUNDS)

cdef Py_ssize_t _field_limit = _FIELD_LIMIT
cdef Py_ssize_t _lines_gather = _LINES_GATHER
cdef dict _method_ids = _METHOD_IDS
cdef list _headers = [_HEADER_OF.get(name) for name in _FIELDS]
# Which bytes a value may hold as they are; the same in text and in JSON.
_plain_table = bytes(len(escape) == 1 for escape in _TEXT_ESCAPES)
assert _plain_table == bytes(len(escape) == 1 for escape in _JSON_ESCAPES)
cdef const unsigned char* _plain = <const unsigned char*> PyBytes_AS_STRING(_plain_table)

# A cache line apart from everything else, so that threads of a free-threaded build share none by accident.
cdef struct Counters:
    char before[64]
    long long lines
    long long lines_dropped
    long long answers_timed
    char after[64]

cdef Counters _counts


def stats():
    """Return what this twin has counted since the process began."""
    return {"lines": _counts.lines, "lines_dropped": _counts.lines_dropped, "answers_timed": _counts.answers_timed}


cdef inline int put(Buffer out, const char* data, Py_ssize_t size) except -1:
    if size == 0:
        # There may be no memory yet, and memcpy takes no null pointer, not even for nothing.
        return 0
    if out.end + size > out.capacity:
        out.reserve(size)
    memcpy(out.data + out.end, data, size)
    out.end += size
    return 0


cdef class AccessLines:
    """Lines of the access log, gathered until somebody writes them.

    Args:
        parts: What a line is made of: pairs of a literal text and the field that follows it, or None after the last.
        json: Whether values are written as JSON.
        limit: Bytes of lines that may wait; further ones are dropped.
        on_first: Called when a line came and none was waiting.
        on_full: Called when so much waits that it is worth a write.
        by_request: Whether the requests of one connection may come from different clients.

    Raises:
        ValueError: There is no such field.
    """

    def __cinit__(self):
        self._plan = NULL

    def __init__(self, parts, json=False, limit=_LINES_LIMIT, on_first=None, on_full=None, by_request=False):
        cdef int i, count
        for _, name in parts:
            if name is not None and name not in _FIELD_NUMBERS:
                raise ValueError(f"an access log has no field {name!r}; it has {', '.join(_FIELDS)}")
        kept = tuple(parts)
        count = len(kept)
        if self._plan != NULL:
            PyMem_Free(self._plan)
            self._plan = NULL
        self._count = 0
        self._plan = <Part*> PyMem_Malloc((count or 1) * sizeof(Part))
        if self._plan == NULL:
            raise MemoryError()
        for i in range(count):
            literal, name = kept[i]
            self._plan[i].text = PyBytes_AS_STRING(<bytes?> literal)
            self._plan[i].size = PyBytes_GET_SIZE(literal)
            self._plan[i].field = -1 if name is None else _FIELD_NUMBERS[name]
        self._parts = kept
        self._count = count
        self._json = json
        self._limit = limit
        self._by_request = by_request
        self._on_first = on_first
        self._on_full = on_full
        self._out = Buffer()
        self._second = -1
        self._time = self._common = b""
        self._offset = wall_ns() - monotonic_ns()
        self.dropped = 0
        self.held = 0

    def __dealloc__(self):
        if self._plan != NULL:
            PyMem_Free(self._plan)

    def __reduce__(self):
        raise TypeError("cannot pickle 'AccessLines' object")

    def __len__(self):
        return self._out.end - self._out.start

    def add(self, exchange, status, size, now, duration):
        """Add a line.

        Args:
            exchange: What was answered.
            status: The status.
            size: Bytes of the body that were sent.
            now: The present, in nanoseconds of a clock that only grows.
            duration: What the answer took, in nanoseconds.
        """
        self.append(<Exchange?> exchange, status, size, now, duration)

    cdef int append(self, Exchange exchange, int status, long long size, long long now, long long duration) except -1:
        cdef Buffer out = self._out
        cdef Py_ssize_t before = out.end - out.start, after
        if before + self.held >= self._limit:
            self.dropped += 1
            _counts.lines_dropped += 1
            return 0
        try:
            self.write(exchange, status, size, now + self._offset, duration)
        except BaseException:
            # No half of a line.
            out.end = out.start + before
            raise
        _counts.lines += 1
        after = out.end - out.start
        if before == 0:
            if self._on_first is not None:
                self._on_first()
        elif before < _lines_gather <= after and self._on_full is not None:
            self._on_full()
        return 0

    def take(self):
        """Return the lines that wait, and forget them."""
        # The clocks drift apart, and the wall clock may be set.
        self._offset = wall_ns() - monotonic_ns()
        return self._out.take()

    cdef int write(self, Exchange exchange, int status, long long size, long long wall, long long duration) except -1:
        cdef int i
        cdef Part* part
        cdef const char* base = NULL
        cdef const Field* fields = NULL
        cdef const Head* head = exchange.head(&base, &fields)
        for i in range(self._count):
            part = &self._plan[i]
            put(self._out, part.text, part.size)
            if part.field < 0:
                continue
            if part.field == STATUS:
                self.number(status)
            elif part.field == BYTES:
                self.number(size)
            elif part.field == DURATION_US:
                self.number(duration // 1000)
            elif part.field >= TIME:
                self.time(part.field, wall)
            elif part.field == CLIENT:
                self.client(exchange)
            elif head == NULL or exchange._request is not None:
                self.field(part.field, exchange)
            # As long as there is no object for the request, all of it stands in the head.
            elif part.field == METHOD:
                self.value(base + head.method, head.method_size)
            elif part.field == PATH and head.path_size:
                self.value(base + head.path, head.path_size)
            elif part.field == VERSION:
                self.value(b"1.1" if head.minor else b"1.0", 3)
            elif USER_AGENT <= part.field <= HOST:
                self.header(part.field, head, base, fields)
            else:
                self.field(part.field, exchange)
        return put(self._out, b"\n", 1)

    cdef int header(self, int number, const Head* head, const char* base, const Field* fields) except -1:
        """Write the value of the first field line of a name."""
        cdef bytes name = _headers[number]
        cdef const char* wanted = PyBytes_AS_STRING(name)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name), at
        cdef uint8_t known = field_id(wanted, size)
        cdef const unsigned char* found
        cdef int i
        for i in range(head.count):
            if fields[i].known != known or fields[i].name_size != size:
                continue
            found = <const unsigned char*> base + fields[i].name
            at = 0
            # What differs in one bit from a letter in lower case is that letter: names are tokens.
            while at < size and (found[at] | 0x20) == <unsigned char> wanted[at]:
                at += 1
            if at == size:
                return self.value(base + fields[i].value, fields[i].value_size)
        return self.absent()

    cdef int client(self, Exchange exchange) except -1:
        cdef Request request
        if self._by_request:
            request = exchange.current()
            if request is not None:
                return self.address(getattr(request, "client", None))
        if exchange.client_text is None:
            client = getattr(exchange, "client", None)
            if client is None:
                # It may be known later; at the end of a connection it no longer is.
                return self.absent()
            exchange.client_text = str(client[0]).encode("utf-8", "replace")
        return self.raw(exchange.client_text)

    cdef int address(self, object client) except -1:
        return self.absent() if client is None else self.text(str(client[0]))

    cdef int field(self, int number, Exchange exchange) except -1:
        cdef Request request = exchange.current()
        if request is None:
            return self.absent()
        if number == METHOD:
            return self.text(request.method)
        if number == VERSION:
            return self.text(request.http_version)
        if number == PATH:
            return self.raw(request.raw_path)
        if number == QUERY or number == TARGET:
            query = request.query_string
            if number == TARGET:
                return self.raw(b"%b?%b" % (request.raw_path, query) if query else request.raw_path)
            return self.raw(query) if query else self.absent()
        if number == ROUTE:
            path = getattr(getattr(exchange._endpoint, "route", None), "path", None)
            return self.absent() if path is None else self.text(str(path))
        raw = request.header(_headers[number])
        return self.absent() if raw is None else self.raw(raw)

    cdef int raw(self, bytes raw) except -1:
        return self.value(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))

    cdef int text(self, object text) except -1:
        cdef const char* data
        cdef Py_ssize_t size = 0
        try:
            data = PyUnicode_AsUTF8AndSize(text, &size)
        except UnicodeEncodeError:
            return self.raw(text.encode("utf-8", "replace"))
        return self.value(data, size)

    cdef int absent(self) except -1:
        return put(self._out, b"null", 4) if self._json else put(self._out, b"-", 1)

    cdef int value(self, const char* data, Py_ssize_t size) except -1:
        cdef Buffer out = self._out
        cdef const char* end
        cdef const char* stop
        cdef bint cut = size > _field_limit
        cdef bytes escape
        if cut:
            size = _field_limit
        end = data + size
        if self._json:
            put(out, b'"', 1)
        while True:
            stop = data
            while stop < end and _plain[<unsigned char> stop[0]]:
                stop += 1
            put(out, data, stop - data)
            if stop == end:
                break
            escape = (_JSON_ESCAPES if self._json else _TEXT_ESCAPES)[<unsigned char> stop[0]]
            put(out, PyBytes_AS_STRING(escape), PyBytes_GET_SIZE(escape))
            data = stop + 1
        if cut:
            put(out, b"...", 3)
        if self._json:
            put(out, b'"', 1)
        return 0

    cdef int time(self, int number, long long wall) except -1:
        cdef Buffer out = self._out
        cdef long long second = wall // 1000000000
        cdef int rest = <int> (wall % 1000000000 // 1000000)
        cdef char* at
        if second != self._second:
            self._time, self._common = _time_texts(second)
            self._second = second
        if self._json:
            put(out, b'"', 1)
        if number == TIME_COMMON:
            put(out, PyBytes_AS_STRING(self._common), PyBytes_GET_SIZE(self._common))
        else:
            put(out, PyBytes_AS_STRING(self._time), PyBytes_GET_SIZE(self._time))
            out.reserve(5)
            at = out.data + out.end
            at[0] = c"."
            at[1] = <char> (c"0" + rest // 100)
            at[2] = <char> (c"0" + rest // 10 % 10)
            at[3] = <char> (c"0" + rest % 10)
            at[4] = c"Z"
            out.end += 5
        if self._json:
            put(out, b'"', 1)
        return 0

    cdef int number(self, long long value) except -1:
        cdef char digits[24]
        cdef int at = 24
        cdef bint negative = value < 0
        cdef unsigned long long left = <unsigned long long> value
        if negative:
            # The lowest number has no positive counterpart.
            left = 0 - left
        while True:
            at -= 1
            digits[at] = <char> (c"0" + left % 10)
            left //= 10
            if left == 0:
                break
        if negative:
            at -= 1
            digits[at] = c"-"
        return put(self._out, digits + at, 24 - at)


cdef class _Figures:
    cdef long long buckets[64]
    cdef long long statuses[6]
    cdef long long total, size


cdef class RouteFigures:
    """How many requests each route answered, with which statuses, and how long that took.

    Args:
        bounds: The upper bounds of the histogram's buckets, in seconds, in ascending order, at most 63; one without a
            bound follows them.

    Raises:
        ValueError: There are more.
    """

    def __init__(self, bounds):
        cdef int i
        kept = tuple(bounds)
        if len(kept) > MOST_BOUNDS:
            raise ValueError(f"a histogram has at most {MOST_BOUNDS} bounds, not {len(kept)}")
        self.bounds = kept
        self._count = len(kept)
        for i in range(self._count):
            self._bounds[i] = round(kept[i] * 1000000000)
        # Endpoint -> a list with one place per method; bounded by the routes.
        self._figures = {}

    def __reduce__(self):
        raise TypeError("cannot pickle 'RouteFigures' object")

    def add(self, endpoint, method, status, size, duration):
        """Count one answer.

        Args:
            endpoint: What answered; None for a request that could not be read.
            method: The number of the method, as of `armature._spec.methods`.
            status: The status.
            size: Bytes of the body that were sent.
            duration: What it took, in nanoseconds.
        """
        cdef int number = method
        if not 0 <= number <= OTHER:
            raise IndexError("index out of range")
        self.count(endpoint, number, status, size, duration)

    cdef int count(self, object endpoint, int method, int status, long long size, long long duration) except -1:
        cdef object methods = self._figures.get(endpoint)
        cdef _Figures figures
        cdef int i = 0
        if methods is None:
            methods = self._figures[endpoint] = [None] * (OTHER + 1)
        if (<list> methods)[method] is None:
            (<list> methods)[method] = _Figures()
        figures = <_Figures> (<list> methods)[method]
        while i < self._count and duration > self._bounds[i]:
            i += 1
        figures.buckets[i] += 1
        figures.statuses[status // 100 if 100 <= status < 600 else 0] += 1
        figures.total += duration
        figures.size += size
        _counts.answers_timed += 1
        return 0

    def collect(self):
        """Return the figures so far.

        Returns:
            For every endpoint and method that was asked for: both, the answers by bucket, the answers by the first
            digit of their status, the nanoseconds and the bytes of all together. A method without a number is
            `"_OTHER"`.
        """
        cdef _Figures figures
        cdef int method, i
        collected = []
        for endpoint, methods in list(self._figures.items()):
            for method in range(OTHER + 1):
                if methods[method] is not None:
                    figures = <_Figures> methods[method]
                    collected.append((
                        endpoint,
                        _METHODS[method] if method < OTHER else "_OTHER",
                        tuple([figures.buckets[i] for i in range(self._count + 1)]),
                        tuple([figures.statuses[i] for i in range(6)]),
                        figures.total,
                        figures.size,
                    ))
        return collected


cdef class Reporter:
    """Passes on what is told about every answer.

    Args:
        lines: Gets a line per answer.
        figures: Counts every answer.
        call: Called for every answer with what `AccessLines.add` takes.
    """

    def __init__(self, lines=None, figures=None, call=None):
        self._lines = lines
        self._figures = figures
        self._call = call

    def __reduce__(self):
        raise TypeError("cannot pickle 'Reporter' object")

    def answered(self, exchange, status, size):
        """Tell of one answer.

        Args:
            exchange: The connection, with the request that was answered; without one the request could not be read.
            status: The status.
            size: Bytes of the body that were sent.
        """
        cdef Exchange told = exchange
        cdef const char* base = NULL
        cdef const Field* fields = NULL
        cdef const Head* head = told.head(&base, &fields)
        cdef Request request = told._request
        cdef long long now = monotonic_ns(), duration = 0, count = size
        cdef int number = status, method = OTHER
        cdef object endpoint = None
        cdef bint known = head != NULL or request is not None
        if known:
            duration = now - told.started
        if self._lines is not None:
            self._lines.append(told, number, count, now, duration)
        if self._figures is not None:
            if known:
                endpoint = told._endpoint
                if head != NULL and (request is None or request._method is None):
                    method = head.method_id
                else:
                    method = _method_ids.get(request.method, OTHER)
            self._figures.count(endpoint, method, number, count, duration)
        if self._call is not None:
            self._call(exchange, status, size, now, duration)
