"""One request and its answer: what a handler returns or raises becomes bytes (RFC 9112 sections 6, 7 and 9.3)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from armature._speedups.ascii cimport exact_bytes
from armature._speedups.dispatch cimport Endpoint
from armature._speedups.message cimport Request, Response
from armature._speedups.parser cimport Field, Head
from armature._speedups.switches cimport HOT_22, HOT_27, HOT_35_NATIVE
from armature._speedups.weight cimport LEVELS, weight
from armature._speedups.wire cimport Wire
from armature._speedups.writer cimport LENGTH_CHUNKED, LENGTH_FROM_FIELDS, LENGTH_NONE, write_chunk

from armature._spec.limits import (
    JOIN_LIMIT as _JOIN_LIMIT,
    JSON_LARGE as _JSON_LARGE,
    STREAM_GATHER as _STREAM_GATHER,
    UNREAD_BODY_LIMIT as _UNREAD_BODY_LIMIT,
)
from armature._spec.states import Event as _Event, State as _State

__all__ = ["Exchange", "stats"]

# The numbers of armature/_spec, as C constants; the assertions hold them to their source.
cdef enum:
    PROCESSING = 3
    WRITING = 4
    DRAINING = 5
    ON_RESPONSE_READY = 3

assert (_State.PROCESSING.value, _State.WRITING.value, _State.DRAINING.value) == (PROCESSING, WRITING, DRAINING)
assert _Event.RESPONSE_READY.value == ON_RESPONSE_READY

cdef Py_ssize_t _unread_body_limit = _UNREAD_BODY_LIMIT
cdef Py_ssize_t _stream_gather = _STREAM_GATHER
cdef Py_ssize_t _join_limit = _JOIN_LIMIT
cdef long long _json_large = _JSON_LARGE

# A cache line apart from everything else, so that threads of a free-threaded build share none by accident.
cdef struct Counters:
    char before[64]
    long long responses_joined
    long long large_bodies
    long long streams
    long long stream_pieces
    char after[64]

cdef Counters _counts


def stats():
    """Return what this twin has counted since the process began."""
    return {
        "responses_joined": _counts.responses_joined,
        "large_bodies": _counts.large_bodies,
        "streams": _counts.streams,
        "stream_pieces": _counts.stream_pieces,
    }


async def _await(value):
    return await value


cdef class Exchange(Wire):
    """The request in flight on a connection, and its answer.

    Args:
        dispatcher: What runs the handlers of this loop.
        writer: What writes the heads of this server's responses.
    """

    def __init__(self, dispatcher, writer):
        Wire.__init__(self)
        self._dispatcher = dispatcher
        self._writer = writer
        self._minor = 1
        self._stream_left = -1

    @property
    def request(self):
        """The request in flight."""
        return self.current()

    # The answer. The dispatcher calls `resolve` with what a handler returned and `reject` with what it raised.

    def resolve(self, value):
        """Answer with what the handler returned; return a coroutine if the answer needs one."""
        return self.on_value(value)

    def reject(self, error):
        """Answer for a handler that raised; return a coroutine if the error handler is one."""
        return self.on_error(error)

    cdef object on_value(self, object value):
        cdef Endpoint endpoint = self._endpoint
        cdef object kind
        cdef Response response
        if self._streaming and self._state == WRITING:
            self.finish()
            return None
        if self._state != PROCESSING:
            # It has been answered, or nobody is there to answer: the peer broke the request's body, or went away.
            if self._state > DRAINING:
                self.forget()
            return None
        try:
            if isinstance(value, Response):
                response = <Response> value
                if response.stream is not None:
                    self._streaming = True
                    return self.send_stream(self.materialise(), response)
                self.answer(response._status, response._fields, response._content_type, response._body)
                return None
            if HOT_35_NATIVE and endpoint.native:
                kind = type(value)
                if (kind is dict or kind is list) and weight(value, _json_large, LEVELS) < _json_large:
                    self.answer(endpoint.status, None, b"application/json", endpoint.dumps(value))
                    return None
                if kind is str:
                    self.answer(endpoint.status, None, b"text/plain; charset=utf-8", (<str> value).encode("utf-8"))
                    return None
                if kind is bytes:
                    self.answer(endpoint.status, None, b"application/octet-stream", value)
                    return None
                if value is None:
                    self.answer(204 if endpoint.status == 200 else endpoint.status, None, None, b"")
                    return None
            if hasattr(type(value), "__await__"):
                return _await(value)
            answer = endpoint.encode(value)
            if isinstance(answer, Response):
                return self.on_value(answer)
            if hasattr(type(answer), "__await__"):
                # JSON that is large is encoded in slices.
                return _await(answer)
            raise TypeError(f"the encoder returned {type(answer).__name__}, not a response")
        except Exception as error:
            return self.on_error(error)

    cdef object on_error(self, object error):
        cdef Endpoint endpoint = self._endpoint
        if self._state != PROCESSING:
            if self._state == WRITING:
                # The head is out: the only honest answer is a body that does not end.
                self.stream_failed(error)
                self.abort()
            if self._state > DRAINING:
                self.forget()
            return None
        self._streaming = False
        if self._failed or not isinstance(error, Exception):
            self.handler_failed(self.materialise(), error)
            self._keep_alive = False
            if self.late:
                self.answer(503, None, b"text/plain; charset=utf-8", b"Service Unavailable")
            else:
                self.answer(500, None, b"text/plain; charset=utf-8", b"Internal Server Error")
            return None
        self._failed = True
        try:
            answer = endpoint.on_error(self.materialise(), error)
        except Exception as second:
            return self.on_error(second)
        if isinstance(answer, Response):
            return self.on_value(answer)
        return answer

    def respond(self, response):
        """Answer with a response whose body is complete."""
        cdef Response complete = response
        self.answer(complete._status, complete._fields, complete._content_type, complete._body)

    cdef int answer(self, int status, list fields, bytes content_type, bytes body) except -1:
        cdef Py_ssize_t length, size
        exact_bytes(body)
        size = length = PyBytes_GET_SIZE(body)
        if status == 204 or status == 304:
            length = LENGTH_NONE
            size = 0
        else:
            if status == 205:
                size = length = 0
            if self._head_only:
                if length == 0 and _declared_length(fields) >= 0:
                    length = LENGTH_FROM_FIELDS
                size = 0
        if self._out.data != NULL:
            _counts.responses_joined += 1
        self._writer.write_head(self._out, status, fields, content_type, length, self.persistence(fields))
        # From here on nothing can fail: what cannot be written was an error of the handler.
        self.move(ON_RESPONSE_READY)
        if HOT_22 and size >= _join_limit and self.transport is not None:
            _counts.large_bodies += 1
            self.send_large(body)
        elif size:
            self._out.add(PyBytes_AS_STRING(body), size)
        if self.report is not None:
            self.report(self, status, size)
        return self.finish()

    cdef int persistence(self, list fields) except -1:
        """Decide whether the connection outlives this answer (RFC 9112 section 9.3), and how to say so."""
        if fields is not None:
            for name, value in fields:
                if name == b"connection" and b"close" in value.lower():
                    self._keep_alive = False
        if self._body_left and (self._continue or self._body_left > _unread_body_limit):
            # The unread body is too long to be thrown away, or may never come.
            self._keep_alive = False
        if self.closing or not self._keep_alive:
            self._keep_alive = False
            return 1
        return 0 if self._minor else 2

    # Streams: called by the cold half.

    def start_stream(self, response):
        """Send the head of a streamed response; return whether a body is to follow."""
        cdef Response streamed = response
        cdef list fields = streamed._fields
        cdef int status = streamed._status
        cdef Py_ssize_t length
        self._stream_left = -1
        self._stream_chunked = False
        self._gathering = False
        self.stream_size = 0
        _counts.streams += 1
        if status == 204 or status == 304:
            length = LENGTH_NONE
        else:
            length = LENGTH_CHUNKED
            self._stream_left = _declared_length(fields)
            if self._stream_left >= 0:
                length = LENGTH_FROM_FIELDS
            else:
                if self._minor:
                    self._stream_chunked = True
                else:
                    length = LENGTH_NONE
                    if not self._head_only:
                        self._keep_alive = False
        if self._out.data != NULL:
            _counts.responses_joined += 1
        self._writer.write_head(self._out, status, fields, streamed._content_type, length, self.persistence(fields))
        self.move(ON_RESPONSE_READY)
        return not self._head_only and status != 204 and status != 304

    def send_chunk(self, data):
        """Send a piece of a streamed body.

        Raises:
            RuntimeError: The body is longer than its Content-Length.
        """
        self.put_chunk(exact_bytes(data))

    cdef int put_chunk(self, bytes data) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if self._stream_chunked:
            if size:
                write_chunk(self._out, PyBytes_AS_STRING(data), size)
            return 0
        if self._stream_left >= 0:
            self._stream_left -= size
            if self._stream_left < 0:
                raise RuntimeError("the streamed body is longer than its content-length")
        return self._out.add(PyBytes_AS_STRING(data), size)

    def send_piece(self, piece):
        """Send a piece of a streamed body: the first one at once, later ones together.

        Raises:
            TypeError: The piece is neither `str` nor bytes-like.
            RuntimeError: The body is longer than its Content-Length.
        """
        cdef bytes data
        if type(piece) is bytes:
            data = <bytes> piece
        elif isinstance(piece, str):
            data = piece.encode("utf-8")
        elif isinstance(piece, (bytes, bytearray, memoryview)):
            data = bytes(piece)
        else:
            raise TypeError(f"a streamed body is made of bytes or str, not {type(piece).__name__}")
        if PyBytes_GET_SIZE(data) == 0:
            return
        self.put_chunk(data)
        _counts.stream_pieces += 1
        self.stream_size += PyBytes_GET_SIZE(data)
        if not HOT_27 or not self._gathering or self._out.end - self._out.start >= _stream_gather:
            self._gathering = True
            self.progress = True
            self.push()
        elif not self._flush_due:
            self._flush_due = True
            self._dispatcher.loop.call_soon(self._flush_gathered)

    def _flush_gathered(self):
        self._flush_due = False
        self.progress = True
        self.push()

    def end_stream(self):
        """Send the end of a streamed body.

        Raises:
            RuntimeError: The body is shorter than its Content-Length.
        """
        if self._stream_left > 0:
            raise RuntimeError("the streamed body is shorter than its content-length")
        if self._stream_chunked:
            write_chunk(self._out, NULL, 0)

    def sent_outside(self, count):
        """Note that `count` bytes of the streamed body were sent by other means, such as `sendfile`."""
        self._stream_left -= count
        self.stream_size += count
        self.written += count

    # What the connection does next.

    def complete(self):
        """The answer is complete: go on to the next request, or close."""
        self.finish()

    cdef int finish(self) except -1:
        raise TypeError("an Exchange without a connection cannot go on; use Connection")

    cdef int forget(self) except -1:
        self._request = None
        self._endpoint = None
        self._streaming = False
        return 0

    cdef const Head* head(self, const char** base, const Field** fields) noexcept:
        """The head of the request in flight, with where it stands, and its fields; NULL if there is none."""
        cdef Request request = self._request
        if request is None:
            return NULL
        base[0] = request._base
        fields[0] = request._fields
        return request._head

    cdef Request current(self):
        """The request in flight, or None."""
        return self._request

    cdef Request materialise(self):
        """The request in flight, made now if need be."""
        return self._request

    # The cold half, in the subclass.

    def send_stream(self, request, response):
        """Send a streamed response."""
        raise TypeError("a Connection without a cold half cannot stream; use HTTPProtocol")

    def handler_failed(self, request, error):
        """A handler and its error handler both failed."""

    def stream_failed(self, error):
        """A stream failed after its head was sent."""


cdef bint decimal_number(const char* text, Py_ssize_t size, long long* number) noexcept:
    """Read `-?[0-9]{1,18}`."""
    cdef Py_ssize_t i = 0
    cdef long long value = 0
    cdef bint negative = size > 0 and text[0] == c"-"
    if negative:
        i = 1
    if not 1 <= size - i <= 18:
        return False
    while i < size:
        if not c"0" <= text[i] <= c"9":
            return False
        value = value * 10 + (text[i] - c"0")
        i += 1
    number[0] = -value if negative else value
    return True


cdef long long _declared_length(list fields) except -2:
    """The Content-Length that the application set, or -1 without one."""
    cdef long long declared = -1, length
    cdef bytes digits
    if fields is not None:
        for name, value in fields:
            if name == b"content-length":
                digits = exact_bytes(value)
                if (
                    PyBytes_GET_SIZE(digits) == 0
                    or PyBytes_AS_STRING(digits)[0] == c"-"
                    or not decimal_number(PyBytes_AS_STRING(digits), PyBytes_GET_SIZE(digits), &length)
                    or 0 <= declared != length
                ):
                    raise ValueError(f"the content-length of the response is malformed: {value!r}")
                declared = length
    return declared
