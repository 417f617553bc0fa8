"""The hot half of hosting an ASGI app: a request becomes a scope, a complete answer becomes bytes (ASGI 3.0).

Bodies that are still arriving, streams, extensions, waiting and everything unusual are the cold half's, which is
`armature.server.asgi.RequestCycle`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject

from armature._speedups.ascii cimport find_not_in
from armature._speedups.connection cimport Connection
from armature._speedups.dispatch cimport Driver
from armature._speedups.exchange cimport decimal_number
from armature._speedups.message cimport Request

import collections.abc
import inspect

from armature._spec.abnf import FIELD_VALUE, LOWER, TOKEN
from armature._spec.asgi import SPEC_VERSION as _SPEC_VERSION, VERSION as _VERSION, Phase as _Phase
from armature._spec.states import State as _State
from armature._speedups.message import check_field

__all__ = ["Cycle", "check_fields", "stats"]

cdef extern from "Python.h":
    int PyIter_Send(PyObject* iterator, PyObject* value, PyObject** result) noexcept

cdef extern from *:
    """
    /* Lets `except` see an exception that C left behind. */
    static inline int armature_raised(void) { return -1; }
    static inline void armature_release(PyObject *value) { Py_DECREF(value); }
    """
    int raise_current "armature_raised"() except -1
    void release "armature_release"(PyObject* value) noexcept

# The numbers of armature/_spec, as C constants; the assertions hold them to their source.
cdef enum:
    WAITING = 0
    STARTED = 1
    ENDED = 5
    PROCESSING = 3
    SENT_RETURN = 0
    SENT_ERROR = -1

assert (_Phase.WAITING.value, _Phase.STARTED.value, _Phase.ENDED.value) == (WAITING, STARTED, ENDED)
assert _State.PROCESSING.value == PROCESSING

cdef dict _asgi = {"version": _VERSION, "spec_version": _SPEC_VERSION}
cdef dict _scope = {
    "type": "http",
    "asgi": None,
    "http_version": None,
    "method": None,
    "scheme": None,
    "path": None,
    "raw_path": None,
    "query_string": None,
    "root_path": None,
    "headers": None,
    "client": None,
    "server": None,
    "state": None,
    "extensions": None,
}

# A token in lower case is what most apps send, and needs no copy.
_lower_token = bytes(TOKEN[byte] and LOWER[byte] == byte for byte in range(256))
_kept_tables = (_lower_token, FIELD_VALUE)
cdef const unsigned char* _name = <const unsigned char*> PyBytes_AS_STRING(_lower_token)
cdef const unsigned char* _value = <const unsigned char*> PyBytes_AS_STRING(FIELD_VALUE)

cdef long long _asgi_requests = 0
cdef long long _asgi_whole_answers = 0


def stats():
    """Return what this twin has counted since the process began."""
    return {"requests": _asgi_requests, "whole_answers": _asgi_whole_answers}


# Exhausted, and so shared: who awaits it goes on at once.
cdef object _nothing = iter(())


@cython.final
@cython.freelist(16)
cdef class Sending:
    """What `send` returns: a coroutine that takes the message when it is awaited, on the loop's own thread."""

    cdef Cycle _cycle
    cdef object _message, _waiting

    cdef object begin(self):
        cdef Cycle cycle = self._cycle
        message = self._message
        if cycle is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self._cycle = None
        self._message = None
        return cycle.take(message)

    def __await__(self):
        waiting = self.begin()
        return _nothing if waiting is None else waiting.__await__()

    def send(self, value):
        """Make one step; called by a Task that was made of it."""
        if self._waiting is None:
            self._waiting = self.begin()
            if self._waiting is None:
                raise StopIteration
        return self._waiting.send(value)

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where it waits."""
        error = kind if value is None else value
        if self._waiting is not None:
            return self._waiting.throw(error)
        self._cycle = None
        raise error

    def close(self):
        """Stop waiting."""
        self._cycle = None
        if self._waiting is not None:
            self._waiting.close()


collections.abc.Coroutine.register(Sending)


@cython.final
@cython.freelist(16)
cdef class Receiving:
    """What `receive` returns: a coroutine that takes the event when it is awaited."""

    cdef Cycle _cycle
    cdef object _waiting

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.step(None)

    def send(self, value):
        """Make one step."""
        return self.step(value)

    cdef object step(self, object value):
        cdef Cycle cycle = self._cycle
        cdef PyObject* sent = NULL
        cdef int outcome
        if self._waiting is None:
            if cycle is None:
                raise RuntimeError("cannot reuse already awaited coroutine")
            if not cycle.body_taken and cycle.request is not None:
                body = cycle.request.body_bytes
                if body is not None:
                    self._cycle = None
                    cycle.body_taken = True
                    raise StopIteration({"type": "http.request", "body": body, "more_body": False})
            self._waiting = cycle.receive_more()
            value = None
        outcome = PyIter_Send(<PyObject*> self._waiting, <PyObject*> value, &sent)
        if outcome == SENT_ERROR:
            self.over()
            raise_current()
        result = <object> sent
        release(sent)
        if outcome == SENT_RETURN:
            self.over()
            raise StopIteration(result)
        return result

    cdef void over(self) noexcept:
        self._cycle = None
        self._waiting = None

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where it waits."""
        error = kind if value is None else value
        waiting = self._waiting
        if waiting is None:
            self._cycle = None
            raise error
        try:
            return waiting.throw(error)
        except BaseException:
            self.over()
            raise

    def close(self):
        """Stop waiting."""
        waiting = self._waiting
        self.over()
        if waiting is not None:
            waiting.close()


collections.abc.Coroutine.register(Receiving)


def check_fields(headers):
    """Check the field lines of a message.

    Args:
        headers: Pairs of bytes.

    Returns:
        The field lines with names in lower case, and the Content-Length among them, or -1 without one.

    Raises:
        TypeError: Something is no pair of bytes.
        ValueError: A name is no token, a value holds a control character, or a Content-Length is no number.
    """
    cdef long long declared = -1
    cdef list fields = _check(headers, &declared)
    return fields, declared


cdef list _check(object headers, long long* declared):
    cdef list fields = []
    cdef long long length
    cdef const char* start
    cdef const char* end
    cdef const char* text
    cdef bint plain
    for pair in headers:
        plain = False
        if type(pair) is tuple and len(<tuple> pair) == 2:
            name, value = <tuple> pair
            plain = PyBytes_CheckExact(name) and PyBytes_CheckExact(value)
            if plain:
                start = PyBytes_AS_STRING(name)
                end = start + PyBytes_GET_SIZE(name)
                plain = start != end and find_not_in(start, end, _name) == end
                if plain:
                    start = PyBytes_AS_STRING(value)
                    end = start + PyBytes_GET_SIZE(value)
                    plain = find_not_in(start, end, _value) == end
        if not plain:
            try:
                name, value = pair
            except (TypeError, ValueError):
                raise TypeError(
                    f"a header of an ASGI message must be a pair of name and value, not {pair!r}"
                ) from None
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                raise TypeError(f"name and value of an ASGI header must be bytes, not {name!r} and {value!r}")
            pair = check_field(name, value)
            name, value = <tuple> pair
        if PyBytes_GET_SIZE(name) == 14 and name == b"content-length":
            text = PyBytes_AS_STRING(value)
            if (
                text[0] == c"-"
                or not decimal_number(text, PyBytes_GET_SIZE(value), &length)
                or 0 <= declared[0] != length
            ):
                raise ValueError(f"the content-length of the response is malformed: {value!r}")
            declared[0] = length
        fields.append(pair)
    return fields


cdef class Cycle:
    """One request of an ASGI app, from its scope to the end of the response.

    Args:
        request: The request.
        root_path: What stands before the path, for the client (`SCRIPT_NAME`).
        state: What the lifespan left for requests; each gets a copy.
        extensions: What `scope["extensions"]` is a copy of.
    """

    cdef Driver _driver
    cdef readonly Connection connection
    cdef public Request request
    cdef public list fields
    cdef public dict scope
    cdef public object cold
    cdef public int phase, status
    cdef public long long declared
    cdef public bint body_taken, watched

    def __init__(self, request, root_path, state, extensions):
        global _asgi_requests
        cdef Request asked = request
        cdef Connection connection = asked.connection
        cdef dict scope
        _asgi_requests += 1
        self.connection = connection
        self.request = asked
        # What runs the app now; should the app suspend, it goes on in this driver's Task.
        self._driver = connection._dispatcher._spare
        self.phase = WAITING
        self.status = 0
        self.fields = None
        self.declared = -1
        self.body_taken = False
        self.cold = None
        self.watched = False
        path = asked.path
        raw_path = asked.raw_path
        if root_path:
            path = root_path + path
            raw_path = root_path.encode("utf-8") + raw_path
        scheme, client, server = connection.addresses
        # A copy has its table already, in which only values are replaced.
        scope = _scope.copy()
        scope["asgi"] = _asgi.copy()
        scope["http_version"] = asked.http_version
        scope["method"] = asked.method
        scope["scheme"] = scheme
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = asked.query_string
        scope["root_path"] = root_path
        scope["headers"] = asked.raw_headers
        scope["client"] = client
        scope["server"] = server
        scope["state"] = (<dict?> state).copy()
        scope["extensions"] = (<dict?> extensions).copy()
        self.scope = scope

    def __reduce__(self):
        raise TypeError("cannot pickle 'Cycle' object")

    def receive(self):
        """Return the next event of the request; what the app is given as `receive`."""
        cdef Receiving receiving = Receiving.__new__(Receiving)
        receiving._cycle = self
        return receiving

    def send(self, message):
        """Take a message of the response; what the app is given as `send`."""
        cdef Sending sending = Sending.__new__(Sending)
        sending._cycle = self
        sending._message = message
        return sending

    cdef object take(self, object message):
        """Take a message; return what is to be waited for, if there is anything."""
        cdef dict given
        if type(message) is not dict or self.connection._state != PROCESSING:
            return self.send_other(message)
        given = <dict> message
        kind = given.get("type")
        if kind == "http.response.body":
            body = given.get("body", b"")
            if (
                self.phase == STARTED
                and self.cold is None
                and type(body) is bytes
                and not given.get("more_body", False)
            ):
                self.give(<bytes> body)
                return None
        elif kind == "http.response.start" and self.phase == WAITING and not given.get("trailers", False):
            self.begin(given)
            return None
        return self.send_other(message)

    def start(self, message):
        """Take the head of the response; it leaves with the first piece of the body.

        Raises:
            TypeError: The status is no int, or a header no pair of bytes.
            ValueError: They are malformed.
        """
        self.begin(<dict?> message)

    cdef int begin(self, dict message) except -1:
        cdef long long declared = -1
        status = message.get("status")
        if not isinstance(status, int):
            raise TypeError(f"the status of http.response.start must be an int, not {type(status).__name__}")
        if not 200 <= status <= 599:
            raise ValueError(f"the status of http.response.start must be 200 to 599, not {int(status)}")
        self.fields = _check(message.get("headers", ()), &declared)
        self.declared = declared
        self.status = status
        self.phase = STARTED
        return 0

    def answer(self, body):
        """Send the response, whose body is complete.

        Raises:
            RuntimeError: The body has not the length that its Content-Length says.
        """
        self.give(body)

    cdef int give(self, bytes body) except -1:
        global _asgi_whole_answers
        cdef int status = self.status
        cdef list fields = self.fields
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
        if self.declared >= 0 and self.declared != size and status != 204 and status != 205 and status != 304:
            if not self.connection._head_only:
                raise RuntimeError(
                    f"the response's body has {size} bytes, and its content-length says {self.declared}"
                )
            # The length of a HEAD response is that of the body that GET would have had (RFC 9110 section 9.3.2).
            body = b""
        self.fields = None
        self.request = None
        self.connection.answer(status, fields, None, body)
        self.phase = ENDED
        _asgi_whole_answers += 1
        if self.watched:
            self.ended()
        return 0

    def release(self):
        """Take over the Task from the connection, which has gone on to other requests: the app's end is not theirs."""
        cdef Driver driver = self._driver
        self._driver = None
        if driver is not None and driver._owner is self.connection:
            driver._owner = self

    # What a driver tells its owner, once that is the cycle.

    def resolve(self, value):
        """The app has ended; there is nothing left to answer."""

    def reject(self, error):
        """The app has ended; there is nothing left to answer."""

    # The cold half, in the subclass.

    def receive_more(self):
        """Wait for the next event of a request whose body has not arrived whole, or has been handed out."""
        raise TypeError("a Cycle without a cold half cannot wait; use RequestCycle")

    def send_other(self, message):
        """Take a message that is not part of a plain, complete answer; return what is to be waited for, if anything."""
        raise TypeError("a Cycle without a cold half cannot stream; use RequestCycle")

    def ended(self):
        """The response is complete; called if it is watched."""


def _mark(function):
    # What they return is no native coroutine; adapters ask the functions what they are.
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:
        from asyncio import coroutines

        function._is_coroutine = coroutines._is_coroutine
    else:
        mark(function)


_mark(Cycle.send)
_mark(Cycle.receive)
