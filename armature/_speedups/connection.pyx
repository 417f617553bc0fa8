"""The hot half of an HTTP/1.1 connection: bytes in, requests dispatched, answers out (RFC 9112).

It does no I/O. A feeder gives it what was received (`feed_data`, or `get_buffer` and `buffer_updated`) and takes
what is to be sent through `transport.write`. `armature.server.protocol.HTTPProtocol` is the subclass with the cold
half: streams, timeouts, disconnects, shutdown. One request is in flight at a time; what the peer sends behind it
waits, so that answers leave in order whatever the handlers do (RFC 9112 section 9.3.2).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8

from armature._speedups.ascii cimport exact_bytes
from armature._speedups.buffers cimport BodyBuffer, Buffer
from armature._speedups.chunked cimport ChunkedParser
from armature._speedups.clock cimport monotonic_ns
from armature._speedups.dispatch cimport Endpoint
from armature._speedups.exchange cimport Exchange, decimal_number
from armature._speedups.message cimport Request
from armature._speedups.parser cimport Field, Head, HeadParser
from armature._speedups.router cimport Match, RadixRouter
from armature._speedups.switches cimport HOT_12, HOT_19, HOT_30, HOT_30_BODY, HOT_30_WHOLE, HOT_35

from armature._spec import plan as _plan
from armature._spec.deadlines import Wait as _Wait
from armature._spec.limits import (
    PIPELINE_HIGH_WATER as _PIPELINE_HIGH_WATER,
    UNREAD_BODY_LIMIT as _UNREAD_BODY_LIMIT,
    WHOLE_BODY_MAXIMUM as _WHOLE_BODY_MAXIMUM,
    WHOLE_BODY_MINIMUM as _WHOLE_BODY_MINIMUM,
    WRITE_HIGH_WATER as _WRITE_HIGH_WATER,
)
from armature._spec.states import Event as _Event, State as _State
from armature.exceptions import ClientDisconnect, PayloadTooLarge, ProtocolError

__all__ = ["Connection", "stats"]

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* value) noexcept
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyLong_FromLongLong(long long value)
    void Py_DECREF(PyObject* value) noexcept
    void Py_INCREF(PyObject* value) noexcept

cdef extern from *:
    """
    /* Make an object of a class that is our base class or a Python subclass of it, without calling __init__. */
    static inline PyObject *armature_new(PyObject *cls, PyObject *arguments)
    {
        return ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, arguments, NULL);
    }
    """
    object new_object "armature_new"(object cls, object arguments)

# The numbers of armature/_spec, as C constants; the assertions hold them to their source.
cdef enum:
    CONNECTED = 1
    READING = 2
    PROCESSING = 3
    WRITING = 4
    DRAINING = 5
    CLOSING = 6
    CLOSED = 7
    ON_DATA_READY = 1
    ON_REQUEST_COMPLETE = 2
    ON_RESPONSE_READY = 3
    ON_WRITE_COMPLETE = 4
    ON_KEEP_ALIVE = 5
    ON_ERROR = 7
    ON_CLOSE = 8
    BARE = 0
    TAKES_REQUEST = 1
    TAKES_PARAMS = 2
    STR = 0
    INT = 1
    WAIT_NOTHING = 0
    WAIT_IDLE = 1
    WAIT_HEAD = 2
    WAIT_BODY = 3
    WAIT_UNSENT = 4
    HEAD_METHOD = 1
    CONNECT_METHOD = 5

assert [state.value for state in (_State.CONNECTED, _State.READING, _State.PROCESSING)] == [1, 2, 3]
assert [state.value for state in (_State.WRITING, _State.DRAINING, _State.CLOSING, _State.CLOSED)] == [4, 5, 6, 7]
assert [event.value for event in (_Event.DATA_READY, _Event.REQUEST_COMPLETE)] == [1, 2]
assert [event.value for event in (_Event.RESPONSE_READY, _Event.WRITE_COMPLETE, _Event.KEEP_ALIVE)] == [3, 4, 5]
assert [_Wait.NOTHING, _Wait.IDLE, _Wait.HEAD, _Wait.BODY, _Wait.UNSENT] == [0, 1, 2, 3, 4]
assert (_Event.ERROR.value, _Event.CLOSE.value) == (7, 8)
assert (_plan.CALL_BARE, _plan.CALL_REQUEST, _plan.CALL_PARAMS, _plan.KIND_STR, _plan.KIND_INT) == (0, 1, 2, 0, 1)

cdef Py_ssize_t _pipeline_high_water = _PIPELINE_HIGH_WATER
cdef Py_ssize_t _unread_body_limit = _UNREAD_BODY_LIMIT
cdef Py_ssize_t _write_high_water = _WRITE_HIGH_WATER
cdef Py_ssize_t _whole_body_minimum = _WHOLE_BODY_MINIMUM
cdef Py_ssize_t _whole_body_maximum = _WHOLE_BODY_MAXIMUM
cdef tuple _nothing = ()

# A cache line apart from everything else, so that threads of a free-threaded build share none by accident.
cdef struct Counters:
    char before[64]
    long long requests
    long long pipelined
    long long refused
    long long materialised
    long long reads
    long long bytes_received
    long long heads_in_pieces
    long long bodies_in_place
    long long bodies_in_pieces
    long long bodies_whole
    long long continues
    char after[64]

cdef Counters _counts


def stats():
    """Return what this twin has counted since the process began."""
    return {
        "requests": _counts.requests,
        "pipelined": _counts.pipelined,
        "refused": _counts.refused,
        "materialised": _counts.materialised,
        "reads": _counts.reads,
        "bytes_received": _counts.bytes_received,
        "heads_in_pieces": _counts.heads_in_pieces,
        "bodies_in_place": _counts.bodies_in_place,
        "bodies_in_pieces": _counts.bodies_in_pieces,
        "bodies_whole": _counts.bodies_whole,
        "continues": _counts.continues,
    }


def _raise(error):
    raise error


cdef class Connection(Exchange):
    """One connection of an HTTP/1.1 server, without its I/O.

    Args:
        service: What is served.
        dispatcher: What runs the handlers of this loop.
        writer: What writes the heads of this server's responses.
    """

    def __init__(self, service, dispatcher, writer):
        Exchange.__init__(self, dispatcher, writer)
        self._service = service
        self._app = service.app
        self._router = service.router
        self._request_class = service.request_class
        if not issubclass(self._request_class, Request):
            raise TypeError(f"{self._request_class.__name__} is no subclass of {Request.__module__}.Request")
        self._parser = HeadParser()
        self._carry = Buffer()
        self._base = NULL
        self._body_in_place = -1
        self.allowance = -1
        self.since = self._dispatcher.now

    # What the connection is.

    @property
    def app(self):
        """The app that is served."""
        return self._app

    @property
    def busy(self):
        """Whether a request is in flight."""
        return PROCESSING <= self._state <= DRAINING

    @property
    def carried(self):
        """How many received bytes wait behind the request in flight."""
        return len(self._carry)

    @property
    def must_linger(self):
        """Whether the peer may still be sending what will never be read."""
        return self._unread

    def overdue(self, now, idle, head, body, rate):
        """Say what the connection has been waiting for longer than it may; a `Wait`.

        Args:
            now: The time, by the loop's clock.
            idle: Seconds that it may be without a request.
            head: Seconds for a whole head, from its first byte.
            body: Seconds for a whole body, and for as many more as its bytes would take at `rate`.
            rate: The slowest that a peer may be, in bytes a second.
        """
        cdef double waited = <double> now - self.since
        cdef int state = self._state
        if state == CONNECTED:
            return WAIT_IDLE if waited > <double> idle else WAIT_NOTHING
        if state == READING:
            return WAIT_HEAD if waited > <double> head else WAIT_NOTHING
        if (
            self._body_left
            and not self.reading_paused
            and not self._continue
            and PROCESSING <= state <= DRAINING
            and waited > <double> body + self._body_size / <double> rate
        ):
            return WAIT_BODY
        return WAIT_UNSENT if self.unsent() else WAIT_NOTHING

    def unsent(self):
        """Whether bytes wait for the peer to take them."""
        if self.write_paused:
            return True
        return self._through_transport and self.transport is not None and self.transport.get_write_buffer_size() > 0

    def timed_out(self):
        """Refuse what has not arrived in time: a head, or a body (RFC 9110 section 15.5.9)."""
        if self._state == READING:
            self.refuse(ProtocolError(408, "the request did not arrive in time"))
        else:
            self.body_failed(ProtocolError(408, "the body of the request did not arrive in time"))
        if self._state == CLOSING:
            self.push()

    # Bytes in.

    def get_buffer(self, sizehint):
        """Return memory to receive into; the connections of a loop share it, but for large bodies."""
        if self._whole is not None:
            return self._whole.view()
        return self._dispatcher.read_buffer

    def buffer_updated(self, nbytes):
        """Take `nbytes` bytes that were received into the buffer."""
        cdef Py_ssize_t size = nbytes
        if self._whole is not None:
            self._whole.advance(size)
            self.body_grown(size)
            return
        if not 0 <= size <= len(self._dispatcher.read_buffer):
            raise ValueError(f"the buffer does not have {nbytes} bytes")
        self.received(size)

    cdef int received(self, Py_ssize_t size) except -1:
        """Take what was received into the shared buffer."""
        if self._state == CLOSING:
            self.discarded(size)
            return 0
        self.feed(self._dispatcher.read_memory, size)
        if self._out.data != NULL or self._state == CLOSING:
            self.push()
        return 0

    def data_received(self, data):
        """Take received bytes, answer every request that is complete, and send the answers together."""
        cdef bytes raw = exact_bytes(data)
        if self._state == CLOSING:
            self.discarded(len(data))
            return
        self.feed(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
        if self._out.data != NULL or self._state == CLOSING:
            self.push()

    def feed_data(self, data):
        """Take received bytes; what is to be sent waits for `flush`."""
        cdef bytes raw = exact_bytes(data)
        self.feed(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))

    def resume(self):
        """Go on with the bytes that waited; called when a request that had suspended is answered."""
        cdef Buffer waiting
        if self._dispatcher._entered:
            self._dispatcher.loop.call_soon(self.resume)
        elif (self._state == CONNECTED or self._state == READING) and not self.write_paused:
            if self._carry.data != NULL:
                waiting = Buffer()
                waiting.steal(self._carry)
                self.feed_heads(waiting.data + waiting.start, waiting.end - waiting.start)
            elif self.reading_paused:
                self.resume_reading()
            if self._out.data != NULL or self._state == CLOSING:
                self.push()

    cdef int feed(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t used
        cdef Buffer waiting
        _counts.reads += 1
        _counts.bytes_received += size
        if self._state == CONNECTED:
            self.since = self._dispatcher.now
        if self._state == CONNECTED or self._state == READING:
            if self._dispatcher._entered or self.write_paused:
                # A handler of this loop feeds us from inside its own step, or the peer does not read: later.
                self.keep(data, size)
                if not self.write_paused:
                    self._dispatcher.loop.call_soon(self.resume)
                return 0
            if self._carry.data != NULL:
                # Requests point into what is being parsed, so the carry must be free for what comes meanwhile.
                self._carry.add(data, size)
                waiting = Buffer()
                waiting.steal(self._carry)
                return self.feed_heads(waiting.data + waiting.start, waiting.end - waiting.start)
            return self.feed_heads(data, size)
        if PROCESSING <= self._state <= DRAINING:
            used = self.feed_body(data, size) if self._body_left else 0
            if self._state == CONNECTED:
                return self.feed(data + used, size - used)
            if used < size and self._state != CLOSING:
                return self.keep(data + used, size - used)
        # In any other state the bytes have no reader: they are dropped.
        return 0

    cdef int keep(self, const char* data, Py_ssize_t size) except -1:
        self._carry.add(data, size)
        if self._carry.end - self._carry.start > _pipeline_high_water and not self.reading_paused:
            self.pause_reading()
        return 0

    cdef int feed_heads(self, const char* data, Py_ssize_t size) except -1:
        self._feeding = True
        try:
            self.run_heads(data, size)
        finally:
            self._feeding = False
            self._dispatcher.end()
        if self.reading_paused and self._state <= READING and not self.write_paused:
            self.resume_reading()
        return 0

    cdef int run_heads(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t position = 0, end
        cdef HeadParser parser = self._parser
        while position < size:
            self.move(ON_DATA_READY)
            try:
                end = parser.run(data + position, size - position)
            except ProtocolError as error:
                parser.clear()
                self.refuse(error)
                return 0
            if end < 0:
                _counts.heads_in_pieces += 1
                self._carry.add(data + position, size - position)
                return 0
            position += end
            try:
                position += self.dispatch(data + position - end, end, data + position, size - position)
            finally:
                self._base = NULL
                if self._request is not None:
                    self._request.detach()
                parser.clear()
            if self._state != CONNECTED:
                if position < size and PROCESSING <= self._state <= DRAINING:
                    self.keep(data + position, size - position)
                return 0
            if not HOT_19 or self._out.end - self._out.start >= _write_high_water:
                self.push()
            if self.write_paused:
                if position < size:
                    self.keep(data + position, size - position)
                return 0
            if position < size:
                _counts.pipelined += 1
        return 0

    cdef Py_ssize_t dispatch(self, const char* base, Py_ssize_t head_size, const char* rest, Py_ssize_t size) except -1:
        """Dispatch the request whose head was just parsed; return how many bytes of `rest` are its body."""
        cdef HeadParser parser = self._parser
        cdef Match* match = &self._match
        cdef Endpoint endpoint
        cdef Py_ssize_t used = 0
        cdef PyObject* argument
        cdef int done
        cdef object error
        _counts.requests += 1
        self.move(ON_REQUEST_COMPLETE)
        if parser.head.path_size:
            self._router.match(
                parser.head.method_id, base + parser.head.method, parser.head.method_size,
                base + parser.head.path, parser.head.path_size, match,
            )
        else:
            self._router.match(
                parser.head.method_id, base + parser.head.method, parser.head.method_size, b"/", 1, match,
            )
        endpoint = <Endpoint?> <object> match.endpoint
        self._endpoint = endpoint
        self._base = base
        self._head_size = head_size
        self._body_in_place = -1
        self._minor = parser.head.minor
        self.allowance -= 1
        if self.allowance == 0:
            self.closing = True
        self._keep_alive = parser.head.keep_alive and not self.closing
        self._head_only = parser.head.method_id == HEAD_METHOD
        self._continue = parser.head.expect_continue
        self._failed = self._streaming = False
        self._body_left = 0
        if self.report is not None:
            self.started = monotonic_ns()
        try:
            if parser.head.method_id == CONNECT_METHOD:
                # What follows the head of a CONNECT is no HTTP (RFC 9110 section 9.3.6).
                self.refuse(ProtocolError(501, "CONNECT is not supported"))
                return size
            if parser.head.content_length > 0 or parser.head.chunked:
                self._body_limit = endpoint.body_limit
                self._body_size = 0
                if parser.head.content_length > endpoint.body_limit:
                    self._keep_alive = False
                    self._body_left = parser.head.content_length
                    self.materialise().body_bytes = None
                    error = PayloadTooLarge(endpoint.body_limit)
                    self._receiver = self._request.receiver = self.open_body(
                        self._request, endpoint.body_limit, self._body_left
                    )
                    self._receiver.set_exception(error)
                    argument = <PyObject*> error
                    self._dispatcher.call(self, <PyObject*> _raise, &argument, 1)
                    return size
                used = self.begin_body(rest, size, parser.head.content_length, endpoint.body_limit)
                if self._state != PROCESSING:
                    return used
            if not HOT_12:
                self.materialise()
            if endpoint.mode == BARE:
                done = self._dispatcher.call(self, <PyObject*> endpoint.call, NULL, 0)
            elif endpoint.mode == TAKES_PARAMS:
                done = self.call_with_params(endpoint)
            else:
                # No reference of our own: one more would look like somebody who keeps the request.
                self.materialise()
                if not HOT_30:
                    self._request.detach()
                argument = <PyObject*> self._request
                done = self._dispatcher.call(self, <PyObject*> endpoint.call, &argument, 1)
            if not done and self._base != NULL:
                # The request outlives this read, and the memory that it stands in does not.
                self.materialise().detach()
        finally:
            if match.values != NULL:
                Py_DECREF(match.values)
                match.values = NULL
        return used

    cdef const Head* head(self, const char** base, const Field** fields) noexcept:
        if self._request is not None or self._base == NULL:
            return Exchange.head(self, base, fields)
        base[0] = self._base
        fields[0] = self._parser.fields
        return &self._parser.head

    cdef Request current(self):
        if self._request is None and self._base != NULL:
            return self.materialise()
        return self._request

    cdef Request materialise(self):
        """Make the object for the request in flight."""
        cdef Request request = self._request
        cdef Match* match
        cdef Py_ssize_t i
        if request is not None:
            return request
        _counts.materialised += 1
        request = <Request> new_object(self._request_class, _nothing)
        request.connection = self
        request.endpoint = self._endpoint
        request.attach(self._base, self._head_size, &self._parser.head, self._parser.fields)
        request._body_size = self._body_in_place
        match = &self._match
        if match.nparams:
            request._names = <object> match.names
            if match.values != NULL:
                request._values = <object> match.values
            else:
                for i in range(match.nparams):
                    request._starts[i] = match.start[i]
                    request._sizes[i] = match.length[i]
        self._request = request
        return request

    cdef int call_with_params(self, Endpoint endpoint) except -1:
        """Call a handler with the path parameters, converted here; what does not convert goes the general way."""
        cdef Match* match = &self._match
        cdef const char* path = self._base + self._parser.head.path
        cdef const char* text = NULL
        cdef const unsigned char* kinds = <const unsigned char*> PyBytes_AS_STRING(endpoint.kinds)
        cdef Py_ssize_t count = PyBytes_GET_SIZE(endpoint.kinds), size = 0, i, made = 0
        cdef PyObject* arguments[16]
        cdef PyObject* argument
        cdef object value
        cdef long long number
        cdef int done
        if count != match.nparams:
            raise SystemError("the plan of a route and its path have different parameters")
        try:
            for i in range(count):
                if match.values != NULL:
                    value = (<tuple> <object> match.values)[i]
                    if kinds[i] == INT:
                        text = PyUnicode_AsUTF8AndSize(value, &size)
                else:
                    value = None
                    text = path + match.start[i]
                    size = match.length[i]
                if kinds[i] == INT:
                    if not HOT_35 or not decimal_number(text, size, &number):
                        self.materialise()
                        argument = <PyObject*> self._request
                        return self._dispatcher.call(self, <PyObject*> endpoint.plan, &argument, 1)
                    value = PyLong_FromLongLong(number)
                elif value is None:
                    value = PyUnicode_DecodeUTF8(text, size, "replace")
                Py_INCREF(<PyObject*> value)
                arguments[i] = <PyObject*> value
                made += 1
            value = None
            done = self._dispatcher.call(self, <PyObject*> endpoint.call, arguments, count)
        finally:
            for i in range(made):
                Py_DECREF(arguments[i])
        return done

    # The request's body.

    cdef Py_ssize_t begin_body(self, const char* data, Py_ssize_t size, long long length, long long limit) except -1:
        cdef Request request
        if length > 0:
            if HOT_30_BODY and size >= length:
                self._body_in_place = length
                _counts.bodies_in_place += 1
                return length
            self._body_left = length
            self._chunks = None
        else:
            self._body_left = -1
            self._chunks = ChunkedParser()
        _counts.bodies_in_pieces += 1
        self.since = self._dispatcher.now
        request = self.materialise()
        request.body_bytes = None
        self._receiver = request.receiver = self.open_body(request, limit, length if length > 0 else None)
        return self.feed_body(data, size)

    cdef Py_ssize_t feed_body(self, const char* data, Py_ssize_t size) except -1:
        """Give body bytes to the receiver; return how many bytes are of the body."""
        cdef Py_ssize_t used
        cdef list pieces
        cdef bint complete, room = True
        cdef bytes piece
        if self._whole is not None:
            used = self._whole.put(data, size)
            self.body_grown(used)
            return used
        if self._chunks is None:
            used = size if size < self._body_left else <Py_ssize_t> self._body_left
            pieces = [PyBytes_FromStringAndSize(data, used)]
            self._body_left -= used
            complete = self._body_left == 0
        else:
            pieces = []
            try:
                used = self._chunks.run(data, size, pieces)
            except ProtocolError as error:
                self.body_failed(error)
                return size
            complete = self._chunks.done
        for piece in pieces:
            if PyBytes_GET_SIZE(piece):
                self._continue = False
                self._body_size += PyBytes_GET_SIZE(piece)
                if self._body_size > self._body_limit:
                    self.body_overrun()
                    return size
                if self._state != DRAINING:
                    room = self._receiver.feed_data(piece)
        if complete:
            self._body_left = 0
            self._continue = False
            self._receiver.feed_eof()
            self._chunks = None
            if self._state == DRAINING:
                self.next_request()
        elif self._state == DRAINING:
            if self._body_size > _unread_body_limit:
                self.shut()
        elif not room and not self.reading_paused:
            self.pause_reading()
        return used

    cdef int receive_whole(self) except -1:
        """From here on the body goes straight into the memory that it will have as a whole."""
        _counts.bodies_whole += 1
        self._whole = BodyBuffer(self._body_size + self._body_left)
        for chunk in self._receiver.hand_back():
            self._whole.add(chunk)
        return 0

    cdef int body_grown(self, Py_ssize_t count) except -1:
        cdef BodyBuffer whole
        self._body_left -= count
        self._body_size += count
        if self._body_left == 0:
            whole = self._whole
            self._whole = None
            self._receiver.feed_whole(whole.take())
        return 0

    cdef int body_failed(self, object error) except -1:
        """The framing of the body is broken: nothing after it can be understood."""
        self._body_left = 0
        self._keep_alive = False
        self._receiver.set_exception(ClientDisconnect(str(error)))
        if self._state == PROCESSING:
            self.refuse(error)
        else:
            self.shut()
        return 0

    cdef int body_overrun(self) except -1:
        self._keep_alive = False
        self._receiver.set_exception(PayloadTooLarge(self._body_limit))
        self._body_size = 0
        self._body_limit = <long long> 1 << 62
        if self._state == DRAINING:
            self.shut()
        return 0

    def resume_body(self):
        """The receiver has room, or somebody began to read: let the peer send."""
        self.since = self._dispatcher.now
        if self._continue and self._state == PROCESSING:
            # RFC 9110 section 10.1.1
            self._continue = False
            _counts.continues += 1
            self._out.add(b"HTTP/1.1 100 Continue\r\n\r\n", 25)
            if not self._feeding:
                self.push()
        if (
            HOT_30_WHOLE
            and _whole_body_minimum <= self._body_left <= _whole_body_maximum
            and self._whole is None
            and self._receiver.reads_whole
        ):
            self.receive_whole()
        if self.reading_paused and self._carry.end - self._carry.start <= _pipeline_high_water:
            self.resume_reading()

    # The end of a request, and of the connection.

    cdef int finish(self) except -1:
        self._streaming = False
        if self._state != WRITING:
            return 0
        self.move(ON_WRITE_COMPLETE)
        if self.closing or not self._keep_alive:
            self.shut()
        elif self._body_left == 0:
            self.next_request()
        else:
            self.drop_request()
            self._whole = None
            self._receiver.discard()
            self.since = self._dispatcher.now
            if self.reading_paused:
                self.resume_reading()
        if not self._feeding:
            self.since = self._dispatcher.now
            self.push()
            if self._state == CONNECTED and (self._carry.data != NULL or self.reading_paused):
                self._dispatcher.loop.call_soon(self.resume)
        return 0

    cdef int next_request(self) except -1:
        self.move(ON_KEEP_ALIVE)
        return self.forget()

    cdef int forget(self) except -1:
        self.drop_request()
        self._receiver = None
        self._chunks = None
        self._whole = None
        return Exchange.forget(self)

    cdef int drop_request(self) except -1:
        """Let go of the request; one that somebody kept moves out of the receive buffer first."""
        cdef Request request = self._request
        if request is not None:
            self._request = None
            # One reference is ours, here; any other belongs to somebody who may still read the request.
            if self._base != NULL and Py_REFCNT(<PyObject*> request) > 1:
                request.detach()
        self._base = NULL
        return 0

    def refuse(self, error):
        """Answer a peer that broke the protocol, and close."""
        cdef bytes body = error.message.encode("ascii") + b"\n"
        _counts.refused += 1
        self.move(ON_ERROR)
        self._keep_alive = False
        self._unread = True
        self.move(ON_RESPONSE_READY)
        self._writer.write_head(
            self._out, error.status, None, b"text/plain; charset=utf-8", PyBytes_GET_SIZE(body), 1
        )
        if not (self._head_only and (self._request is not None or self._base != NULL)):
            self._out.add(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
        self.refused(error)
        if not self._feeding:
            self.push()

    def close(self):
        """Stop reading; close once everything is sent."""
        self.shut()

    cdef int shut(self) except -1:
        if self._body_left:
            self._unread = True
        self.move(ON_CLOSE)
        self._carry.release()
        return 0

    # The cold half, in the subclass.

    def open_body(self, request, limit, length):
        """Make what receives a body that has not arrived whole."""
        raise TypeError("a Connection without a cold half cannot receive a body in pieces; use HTTPProtocol")

    def pause_reading(self):
        """Ask the feeder for no more bytes."""
        self.reading_paused = True

    def resume_reading(self):
        """Ask the feeder for bytes again."""
        self.reading_paused = False

    def discarded(self, count):
        """The peer still sends to a connection that is closing; `count` bytes were thrown away."""

    def refused(self, error):
        """A peer that broke the protocol was answered."""
