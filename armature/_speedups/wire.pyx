"""The sending side of a connection: its state, and the bytes on their way out.

What is answered during one read is gathered and leaves in one write. The transport's own rules (buffering, errors,
closing) stay in force: bytes pass it by only where it holds none back and the socket takes them at once.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from armature._speedups.ascii cimport exact_bytes
from armature._speedups.buffers cimport Buffer
from armature._speedups.dispatch cimport Owner
from armature._speedups.switches cimport HOT_21

from armature._spec.states import Event as _Event, State as _State, table

__all__ = ["Wire", "stats"]

cdef extern from *:
    """
    #if defined(_WIN32)
    #define ARMATURE_SOCKETS 0
    static inline Py_ssize_t armature_send(int fd, const char *head, Py_ssize_t n, const char *body, Py_ssize_t m)
    {
        return -1;
    }
    #else
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #define ARMATURE_SOCKETS 1
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    /* Send without waiting; returns how much went out, or -1. The second piece may be empty. */
    static inline Py_ssize_t armature_send(int fd, const char *head, Py_ssize_t n, const char *body, Py_ssize_t m)
    {
        struct iovec pieces[2];
        struct msghdr message;
        if (m == 0) return send(fd, head, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
        memset(&message, 0, sizeof(message));
        pieces[0].iov_base = (void *)head;
        pieces[0].iov_len = (size_t)n;
        pieces[1].iov_base = (void *)body;
        pieces[1].iov_len = (size_t)m;
        message.msg_iov = pieces;
        message.msg_iovlen = 2;
        return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    #endif
    """
    Py_ssize_t send_now "armature_send"(int fd, const char* head, Py_ssize_t n, const char* body, Py_ssize_t m) noexcept
    bint HAVE_SOCKETS "ARMATURE_SOCKETS"

# The numbers of armature/_spec, as C constants; the assertions hold them to their source.
cdef enum:
    IDLE = 0
    CLOSING = 6
    CLOSED = 7
    ON_ACCEPT = 0
    ON_CLOSE = 8
    EVENTS = 10
    CELLS = 100

assert (_State.IDLE.value, _State.CLOSING.value, _State.CLOSED.value) == (IDLE, CLOSING, CLOSED)
assert (_Event.ACCEPT.value, _Event.CLOSE.value, len(_Event)) == (ON_ACCEPT, ON_CLOSE, EVENTS)

cdef unsigned char _transitions[CELLS]
cdef bytes _table = table()
assert len(_table) == CELLS
memcpy(_transitions, PyBytes_AS_STRING(_table), CELLS)

# A cache line apart from everything else, so that threads of a free-threaded build share none by accident.
cdef struct Counters:
    char before[64]
    long long opened
    long long closed
    long long direct_sends
    long long partial_sends
    long long transport_writes
    long long bytes_sent
    char after[64]

cdef Counters _counts


def stats():
    """Return what this twin has counted since the process began."""
    return {
        "opened": _counts.opened,
        "closed": _counts.closed,
        "direct_sends": _counts.direct_sends,
        "partial_sends": _counts.partial_sends,
        "transport_writes": _counts.transport_writes,
        "bytes_sent": _counts.bytes_sent,
    }


cdef class Wire(Owner):
    """A connection's state and its output."""

    def __init__(self):
        self._state = IDLE
        self._out = Buffer()
        self._through_transport = False
        self._fd = -1
        self.transport = None

    @property
    def state(self):
        """The connection's state, a number of `armature._spec.states.State`."""
        return self._state

    def event(self, event):
        """Move to the state that `event` leads to."""
        cdef int number = event
        if not 0 <= number < EVENTS:
            raise IndexError("index out of range")
        self.move(number)

    cdef void move(self, int event) noexcept:
        self._state = _transitions[self._state * EVENTS + event]

    def is_disconnected(self):
        """Whether the peer is gone, so that no answer can reach it."""
        return self._state == CLOSED

    def attach(self, transport):
        """Begin: from now on what is written goes to `transport`."""
        self.transport = transport
        self.move(ON_ACCEPT)
        _counts.opened += 1
        if HOT_21 and HAVE_SOCKETS:
            fd = getattr(transport, "direct_fd", None)
            if fd is not None:
                self._fd = fd
                return
            extra = getattr(transport, "get_extra_info", None)
            if extra is not None and hasattr(transport, "get_write_buffer_size") and extra("sslcontext") is None:
                sock = extra("socket")
                if sock is not None:
                    # Plain TCP or a Unix socket: what the transport does not hold back may go straight to it.
                    self._fd = sock.fileno()

    def detach(self):
        """The transport is gone."""
        if self.transport is not None:
            _counts.closed += 1
        self.transport = None
        self._fd = -1
        self._out.release()

    def write(self, data):
        """Add bytes to what the next `flush` sends."""
        cdef bytes raw = exact_bytes(data)
        self._out.add(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))

    def take_output(self):
        """Return what is to be sent and forget it; for feeders without a transport."""
        return self._out.take()

    def flush(self):
        """Hand what is to be sent to the transport."""
        self.push()

    cdef bint direct(self) except -1:
        """Whether bytes may go straight to the socket: the transport must hold none back."""
        if self._fd < 0:
            return False
        if self._through_transport:
            if self.transport.get_write_buffer_size():
                return False
            self._through_transport = False
        return True

    cdef int push(self) except -1:
        cdef Buffer out = self._out
        cdef Py_ssize_t sent
        if out.data != NULL and self.transport is not None and self._state != CLOSED:
            self.written += out.end - out.start
            if self.direct():
                sent = send_now(self._fd, out.data + out.start, out.end - out.start, NULL, 0)
                if sent > 0:
                    _counts.direct_sends += 1
                    _counts.bytes_sent += sent
                    out.drop(sent)
                if out.data != NULL:
                    _counts.partial_sends += 1
            if out.data != NULL:
                _counts.transport_writes += 1
                _counts.bytes_sent += out.end - out.start
                # What the socket does not take now, and every error, is the transport's.
                self._through_transport = True
                self.transport.write(out.take())
        if self._state == CLOSING:
            self.finish_closing()
        return 0

    cdef int send_large(self, bytes body) except -1:
        """Send what is waiting, and a body too large to be worth copying."""
        cdef Buffer out = self._out
        cdef Py_ssize_t head = out.end - out.start, sent, size = PyBytes_GET_SIZE(body)
        self.written += head + size
        if self.direct():
            sent = send_now(self._fd, out.data + out.start, head, PyBytes_AS_STRING(body), size)
            if sent > 0:
                _counts.direct_sends += 1
            if sent < head + size:
                _counts.partial_sends += 1
            if sent >= head:
                _counts.bytes_sent += head + size
                out.release()
                if sent < head + size:
                    _counts.transport_writes += 1
                    self._through_transport = True
                    self.transport.write(memoryview(body)[sent - head:])
                return 0
            if sent > 0:
                out.drop(sent)
        _counts.bytes_sent += head + size
        _counts.transport_writes += 2
        self._through_transport = True
        self.transport.write(out.take())
        self.transport.write(body)
        return 0

    # The cold half, in the subclass.

    def finish_closing(self):
        """Close the transport; everything has been handed to it."""

    def abort(self):
        """Close the transport at once."""
        self.move(ON_CLOSE)
