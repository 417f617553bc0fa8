"""The epoll feeder: brings bytes from plain sockets to connections, and back, without the loop's transports.

One epoll instance is registered with the asyncio loop. Its one callback takes the ready sockets in a tight loop:
receive into the shared buffer, feed the connection in C, send what it answers. Everything else stays with the loop:
timers, tasks, threads, TLS. What a protocol gets to see is an ordinary transport, `SocketTransport`.

It has no pure twin: the loop's own transports do the same, and are what runs wherever this does not.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.errno cimport EAGAIN, EBADF, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO, errno
from libc.stdint cimport uint32_t, uint64_t

import asyncio
import logging
import os
import socket
from asyncio.trsock import TransportSocket
from collections import deque

from armature._speedups.connection cimport Connection
from armature._speedups.dispatch cimport Dispatcher
from armature._speedups.switches cimport RUN_18_FEED

from armature._spec.limits import READ_BUFFER_SIZE as _READ_BUFFER_SIZE

__all__ = ["AVAILABLE", "Reactor", "SocketTransport", "stats"]

logger = logging.getLogger("armature.server")

cdef extern from *:
    """
    #if defined(__linux__)
    #define ARMATURE_EPOLL 1
    #include <errno.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef EPOLLEXCLUSIVE
    #define EPOLLEXCLUSIVE 0
    #endif
    enum {
        ARMATURE_IN = EPOLLIN, ARMATURE_OUT = EPOLLOUT, ARMATURE_ERR = EPOLLERR, ARMATURE_HUP = EPOLLHUP,
        ARMATURE_ADD = EPOLL_CTL_ADD, ARMATURE_DEL = EPOLL_CTL_DEL, ARMATURE_MOD = EPOLL_CTL_MOD
    };
    #define ARMATURE_EXCLUSIVE EPOLLEXCLUSIVE
    #define ARMATURE_EVENTS 64
    typedef struct { int count; struct epoll_event events[ARMATURE_EVENTS]; } armature_ready;
    static inline int armature_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }
    static inline int armature_control(int epoll, int what, int fd, unsigned mask, unsigned long long data)
    {
        struct epoll_event event;
        event.events = mask;
        event.data.u64 = data;
        return epoll_ctl(epoll, what, fd, &event);
    }
    static inline int armature_wait(int epoll, armature_ready *ready)
    {
        ready->count = epoll_wait(epoll, ready->events, ARMATURE_EVENTS, 0);
        return ready->count;
    }
    static inline unsigned armature_event(armature_ready *ready, int i, unsigned long long *data)
    {
        *data = ready->events[i].data.u64;
        return ready->events[i].events;
    }
    static inline int armature_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
    static inline Py_ssize_t armature_receive(int fd, char *memory, Py_ssize_t room)
    {
        return recv(fd, memory, (size_t)room, MSG_DONTWAIT);
    }
    typedef struct { int count; struct iovec pieces[16]; } armature_pieces;
    static inline void armature_piece(armature_pieces *pieces, void *memory, Py_ssize_t size)
    {
        pieces->pieces[pieces->count].iov_base = memory;
        pieces->pieces[pieces->count].iov_len = (size_t)size;
        pieces->count++;
    }
    static inline Py_ssize_t armature_send_pieces(int fd, armature_pieces *pieces)
    {
        struct msghdr message;
        memset(&message, 0, sizeof(message));
        message.msg_iov = pieces->pieces;
        message.msg_iovlen = pieces->count;
        return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    static inline int armature_shut_writing(int fd) { return shutdown(fd, SHUT_WR); }
    static inline int armature_pending_error(int fd)
    {
        int error = 0;
        socklen_t size = sizeof(error);
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
    }
    static inline long long armature_microseconds(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    }
    static inline int armature_close(int fd) { return close(fd); }
    #else
    /* Only so that it compiles: AVAILABLE is false, and nothing of this is called. */
    #define ARMATURE_EPOLL 0
    enum {
        ARMATURE_IN, ARMATURE_OUT, ARMATURE_ERR, ARMATURE_HUP, ARMATURE_ADD, ARMATURE_DEL, ARMATURE_MOD,
        ARMATURE_EXCLUSIVE
    };
    typedef struct { int count; } armature_ready;
    typedef struct { int count; } armature_pieces;
    static inline int armature_epoll(void) { return -1; }
    static inline int armature_control(int e, int w, int fd, unsigned m, unsigned long long d) { return -1; }
    static inline int armature_wait(int epoll, armature_ready *ready) { return -1; }
    static inline unsigned armature_event(armature_ready *ready, int i, unsigned long long *data) { return 0; }
    static inline int armature_accept(int fd) { return -1; }
    static inline Py_ssize_t armature_receive(int fd, char *memory, Py_ssize_t room) { return -1; }
    static inline void armature_piece(armature_pieces *pieces, void *memory, Py_ssize_t size) { }
    static inline Py_ssize_t armature_send_pieces(int fd, armature_pieces *pieces) { return -1; }
    static inline int armature_shut_writing(int fd) { return -1; }
    static inline int armature_pending_error(int fd) { return 0; }
    static inline long long armature_microseconds(void) { return 0; }
    static inline int armature_close(int fd) { return -1; }
    #endif
    """
    bint HAVE_EPOLL "ARMATURE_EPOLL"
    unsigned READABLE "ARMATURE_IN"
    unsigned WRITABLE "ARMATURE_OUT"
    unsigned BROKEN "ARMATURE_ERR"
    unsigned HUNG_UP "ARMATURE_HUP"
    unsigned EXCLUSIVE "ARMATURE_EXCLUSIVE"
    int ADD "ARMATURE_ADD"
    int REMOVE "ARMATURE_DEL"
    int MODIFY "ARMATURE_MOD"
    ctypedef struct Ready "armature_ready":
        int count
    ctypedef struct Pieces "armature_pieces":
        int count
    int epoll_new "armature_epoll"() noexcept
    int control "armature_control"(int epoll, int what, int fd, unsigned mask, unsigned long long data) noexcept
    int wait_now "armature_wait"(int epoll, Ready* ready) noexcept
    unsigned event_at "armature_event"(Ready* ready, int i, unsigned long long* data) noexcept
    int accept_now "armature_accept"(int fd) noexcept
    Py_ssize_t receive_now "armature_receive"(int fd, char* memory, Py_ssize_t room) noexcept
    void add_piece "armature_piece"(Pieces* pieces, void* memory, Py_ssize_t size) noexcept
    Py_ssize_t send_pieces "armature_send_pieces"(int fd, Pieces* pieces) noexcept
    int shut_writing "armature_shut_writing"(int fd) noexcept
    int pending_error "armature_pending_error"(int fd) noexcept
    long long microseconds "armature_microseconds"() noexcept
    int close_fd "armature_close"(int fd) noexcept

#: Whether this system has what the reactor needs.
AVAILABLE = bool(HAVE_EPOLL)

cdef enum:
    PIECES = 16             # the most that go out in one call
    READS = 4               # full buffers taken from one socket before the others get their turn
    ACCEPTS = 64            # connections taken from one listener, likewise
    EVENTS_PER_TURN = 256   # after so many events, or so many microseconds, the loop's other callbacks get theirs
    TURN_MICROSECONDS = 1000

# How long a listener rests when the process has no descriptor left for a connection.
_REST_SECONDS = 0.1

cdef Py_ssize_t _read_room = _READ_BUFFER_SIZE

cdef long long _batches = 0
cdef long long _events = 0
cdef long long _accepted = 0
cdef long long _stale = 0
cdef long long _rests = 0


def stats():
    """Return what the reactors of this process have counted since it began."""
    return {"batches": _batches, "events": _events, "accepted": _accepted, "stale": _stale, "rests": _rests}


cdef class _Listener:
    cdef int fd, family
    cdef bint resting


cdef class SocketTransport:
    """A transport of the reactor, as `asyncio.Transport` describes it.

    Made by the reactor for each connection that it accepts.
    """

    cdef object __weakref__
    cdef Reactor _reactor
    cdef object _protocol
    cdef Connection _connection         # the protocol, if it is fed in C
    cdef bint _buffered                 # the protocol is an asyncio.BufferedProtocol
    cdef int _fd, _family
    cdef uint32_t _generation           # tells this connection's events from those of one that had the same fd
    cdef unsigned _armed                # what epoll watches for
    cdef bint _reading, _closing, _dying, _ended, _eof, _write_paused
    cdef object _tail                   # a deque of what is still to be sent, or None
    cdef Py_ssize_t _tail_size, _high, _low
    cdef object _socket, _error

    def __init__(self):
        raise TypeError("the reactor makes its transports itself")

    def __repr__(self):
        state = "closed" if self._fd < 0 else "closing" if self._closing else "open"
        return f"<SocketTransport fd={self._fd} {state}>"

    # What a protocol asks.

    @property
    def direct_fd(self):
        """The socket's descriptor, for whoever sends straight to it while this transport holds nothing back."""
        return self._fd

    def get_extra_info(self, name, default=None):
        """Return `socket`, `peername` or `sockname`; the default for everything else."""
        if name != "socket" and name != "peername" and name != "sockname" or self._fd < 0:
            return default
        if self._socket is None:
            # It must never close the descriptor, which is ours: `_end` detaches it.
            self._socket = socket.socket(self._family, socket.SOCK_STREAM, 0, self._fd)
        if name == "socket":
            return TransportSocket(self._socket)
        try:
            return self._socket.getpeername() if name == "peername" else self._socket.getsockname()
        except OSError:
            return default

    def set_protocol(self, protocol):
        """Let another protocol have the bytes from now on."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._connection = None
        if (
            RUN_18_FEED
            and isinstance(protocol, Connection)
            and type(protocol).buffer_updated is Connection.buffer_updated
        ):
            self._connection = <Connection> protocol

    def get_protocol(self):
        """Return the current protocol."""
        return self._protocol

    def is_closing(self):
        """Whether the transport is closing or closed."""
        return self._closing

    # Reading.

    def is_reading(self):
        """Whether received bytes are passed on."""
        return self._reading and not self._closing

    def pause_reading(self):
        """Pass no received bytes on until `resume_reading`."""
        # Watching stops when there is something to be read: often reading is resumed before that.
        self._reading = False

    def resume_reading(self):
        """Pass received bytes on again."""
        if not self._closing and not self._reading and not self._ended:
            self._reading = True
            if not self._armed & READABLE:
                self.arm(self._armed | READABLE)

    # Writing.

    def get_write_buffer_size(self):
        """Return how many bytes wait for the peer."""
        return self._tail_size

    def get_write_buffer_limits(self):
        """Return the low and the high water mark, in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the marks above which the protocol is told to pause, and below which to resume.

        Raises:
            ValueError: They contradict each other.
        """
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self.check_high()

    def write(self, data):
        """Send bytes, now or when the peer takes them.

        Raises:
            TypeError: The data is not bytes-like.
            RuntimeError: `write_eof` was called.
        """
        cdef Pieces pieces
        cdef Py_buffer view
        cdef Py_ssize_t sent, size
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._eof:
            raise RuntimeError("cannot write after write_eof()")
        if self._dying or self._fd < 0:
            return
        if self._tail_size:
            self.queue(data, 0)
            return
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        size = view.len
        sent = 0
        if size:
            pieces.count = 0
            add_piece(&pieces, view.buf, size)
            sent = send_pieces(self._fd, &pieces)
        PyBuffer_Release(&view)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                self.fail(OSError(errno, os.strerror(errno)))
                return
            sent = 0
        if sent < size:
            self.queue(data, sent)

    def writelines(self, pieces):
        """Send several pieces of bytes, one after the other."""
        self.write(b"".join(pieces))

    def can_write_eof(self):
        """Whether `write_eof` works."""
        return True

    def write_eof(self):
        """Close the sending side, once everything is sent."""
        if not self._eof:
            self._eof = True
            if not self._tail_size and self._fd >= 0:
                shut_writing(self._fd)

    # The end.

    def close(self):
        """Read no more; close once everything is sent."""
        if not self._closing:
            self._closing = True
            self._reading = False
            if not self._tail_size:
                self.die(None)

    def abort(self):
        """Close at once, and lose what is unsent."""
        self.die(None)

    cdef int die(self, object error) except -1:
        """Nothing more can happen: have the protocol told, from outside of whatever runs now."""
        if not self._dying and self._fd >= 0:
            self._dying = self._closing = True
            self._reading = False
            self._error = error
            self._tail = None
            self._tail_size = 0
            self._reactor.bury_soon(self)
        return 0

    cdef int fail(self, object error) except -1:
        if not isinstance(error, OSError):
            self._reactor.loop.call_exception_handler({
                "message": "Fatal error: a protocol failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            })
        return self.die(error)

    cdef int finish(self) except -1:
        """Tell the protocol, and give the socket back."""
        cdef int fd = self._fd
        cdef object protocol = self._protocol
        try:
            if protocol is not None:
                protocol.connection_lost(self._error)
        finally:
            self._fd = -1
            self._protocol = self._connection = self._error = None
            self._reactor.forget(fd)
            if self._socket is not None:
                self._socket.detach()
                self._socket = None
            # Explicitly: a copy of the descriptor elsewhere, such as in a forked child, would keep it watched.
            control(self._reactor._epoll, REMOVE, fd, 0, 0)
            close_fd(fd)
        return 0

    # What happens on the socket.

    cdef int arm(self, unsigned mask) except -1:
        if mask != self._armed and self._fd >= 0:
            self._armed = mask
            if control(self._reactor._epoll, MODIFY, self._fd, mask, self.data()) < 0:
                return self.fail(OSError(errno, os.strerror(errno)))
        return 0

    cdef unsigned long long data(self) noexcept:
        return <unsigned long long> self._generation << 32 | <unsigned> self._fd

    cdef int queue(self, object data, Py_ssize_t offset) except -1:
        """Keep what the socket does not take now."""
        if type(data) is not bytes:
            # The caller may change it.
            data = bytes(data)
        if offset:
            data = memoryview(data)[offset:]
        if self._tail is None:
            self._tail = deque()
        self._tail.append(data)
        self._tail_size += len(data)
        if not self._armed & WRITABLE:
            self.arm(self._armed | WRITABLE)
        return self.check_high()

    cdef int check_high(self) except -1:
        if self._tail_size > self._high and not self._write_paused and self._protocol is not None:
            self._write_paused = True
            self._protocol.pause_writing()
        return 0

    cdef int flush(self) except -1:
        """The socket takes bytes again."""
        cdef Pieces pieces
        cdef Py_buffer views[PIECES]
        cdef Py_ssize_t sent, size
        cdef int i, made = 0
        while self._tail_size:
            pieces.count = made = 0
            try:
                for piece in self._tail:
                    if made == PIECES:
                        break
                    PyObject_GetBuffer(piece, &views[made], PyBUF_SIMPLE)
                    add_piece(&pieces, views[made].buf, views[made].len)
                    made += 1
                sent = send_pieces(self._fd, &pieces)
            finally:
                for i in range(made):
                    PyBuffer_Release(&views[i])
            if sent < 0:
                if errno == EAGAIN or errno == EINTR:
                    break
                return self.fail(OSError(errno, os.strerror(errno)))
            self._tail_size -= sent
            while sent:
                piece = self._tail[0]
                size = len(piece)
                if sent < size:
                    self._tail[0] = memoryview(piece)[sent:]
                    break
                self._tail.popleft()
                sent -= size
        if self._tail_size == 0:
            self._tail = None
            self.arm(self._armed & ~WRITABLE)
        if self._write_paused and self._tail_size <= self._low:
            self._write_paused = False
            self._protocol.resume_writing()
        if self._tail_size == 0 and self._fd >= 0 and not self._dying:
            if self._closing:
                self.die(None)
            elif self._eof:
                shut_writing(self._fd)
        return 0

    cdef int ready(self, unsigned events) except -1:
        if self._dying:
            return 0
        if events & WRITABLE and self._tail_size:
            self.flush()
        if events & READABLE and not self._dying:
            if self._reading:
                return self.receive()
            self.arm(self._armed & ~READABLE)
        elif events & (BROKEN | HUNG_UP) and not self._dying:
            error = pending_error(self._fd)
            return self.die(OSError(error, os.strerror(error)) if error else None)
        if events & BROKEN and not self._dying:
            error = pending_error(self._fd)
            return self.die(OSError(error, os.strerror(error)) if error else None)
        return 0

    cdef int receive(self) except -1:
        cdef Connection connection = self._connection
        cdef char* memory
        cdef Py_ssize_t room, received
        cdef int turn
        if connection is None:
            return self.receive_for_any()
        for turn in range(READS):
            if connection._whole is not None:
                memory = PyBytes_AS_STRING(connection._whole._data) + connection._whole._filled
                room = connection._whole._size - connection._whole._filled
                received = receive_now(self._fd, memory, room)
                if received > 0:
                    connection._whole._filled += received
                    connection.body_grown(received)
                    return 0
            else:
                room = _read_room
                received = receive_now(self._fd, self._reactor.memory, room)
                if received > 0:
                    connection.received(received)
                    if received == room and self._reading and not self._dying and self._connection is connection:
                        continue
                    return 0
            return self.received_none(received)
        return 0

    cdef int receive_for_any(self) except -1:
        """Receive for a protocol that is not ours."""
        cdef Py_ssize_t received
        cdef Py_buffer view
        if self._buffered:
            memory = self._protocol.get_buffer(-1)
            PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
            received = receive_now(self._fd, <char*> view.buf, view.len)
            PyBuffer_Release(&view)
            if received > 0:
                self._protocol.buffer_updated(received)
                return 0
        else:
            received = receive_now(self._fd, self._reactor.memory, _read_room)
            if received > 0:
                self._protocol.data_received(self._reactor.memory[:received])
                return 0
        return self.received_none(received)

    cdef int received_none(self, Py_ssize_t received) except -1:
        """The peer has ended, or the socket is broken, or there is nothing after all."""
        if received == 0:
            self._ended = True
            self._reading = False
            self.arm(self._armed & ~READABLE)
            if not self._protocol.eof_received():
                self.close()
        elif errno != EAGAIN and errno != EINTR:
            self.die(OSError(errno, os.strerror(errno)))
        return 0


cdef class Reactor:
    """Accepts connections and carries their bytes.

    Args:
        loop: The loop, which has to be able to watch a descriptor.
        dispatcher: Whose receive buffer is used.
        factory: Makes the protocol of a connection.

    Raises:
        OSError: The system has no epoll instance for us.
    """

    cdef object __weakref__
    cdef readonly object loop
    cdef Dispatcher _dispatcher
    cdef object _factory
    cdef int _epoll
    cdef char* memory
    cdef list _entries              # by descriptor: a transport, a listener, or None
    cdef list _dying
    cdef uint32_t _generations
    cdef bint _in_batch, _burying
    cdef readonly Py_ssize_t connections
    cdef Ready _ready

    def __init__(self, loop, dispatcher, factory):
        self.loop = loop
        self._dispatcher = dispatcher
        self._factory = factory
        self.memory = self._dispatcher.read_memory
        self._entries = []
        self._dying = []
        self._generations = 0
        self._epoll = epoll_new()
        if self._epoll < 0:
            raise OSError(errno, os.strerror(errno))
        loop.add_reader(self._epoll, self._on_ready)

    def __dealloc__(self):
        if self._epoll > 0:
            close_fd(self._epoll)

    def listen(self, sock):
        """Accept the connections of a listening socket from now on.

        Args:
            sock: The socket; it stays the caller's, who closes it after `ignore(sock)`.
        """
        cdef _Listener listener = _Listener.__new__(_Listener)
        listener.fd = sock.fileno()
        listener.family = sock.family
        if control(self._epoll, ADD, listener.fd, READABLE | EXCLUSIVE, <unsigned> listener.fd) < 0:
            raise OSError(errno, os.strerror(errno))
        self.remember(listener.fd, listener)

    def ignore(self, sock):
        """Take what a listening socket has accepted already, and nothing from then on."""
        cdef int fd = sock.fileno()
        listener = self._entries[fd] if 0 <= fd < len(self._entries) else None
        if isinstance(listener, _Listener):
            self.accept(listener)
            control(self._epoll, REMOVE, fd, 0, 0)
            self._entries[fd] = None

    def close(self):
        """Abort every connection and let go of the loop."""
        cdef int epoll = self._epoll
        if epoll < 0:
            return
        for entry in self._entries:
            if isinstance(entry, SocketTransport):
                (<SocketTransport> entry).die(None)
        self._bury()
        self.loop.remove_reader(epoll)
        self._epoll = -1
        close_fd(epoll)

    cdef int remember(self, int fd, object entry) except -1:
        while len(self._entries) <= fd:
            self._entries.extend([None] * 64)
        self._entries[fd] = entry
        return 0

    cdef int forget(self, int fd) except -1:
        self._entries[fd] = None
        self.connections -= 1
        return 0

    cdef int bury_soon(self, SocketTransport transport) except -1:
        if not self._dying and not self._in_batch and not self._burying:
            self.loop.call_soon(self._bury)
        self._dying.append(transport)
        return 0

    def _bury(self):
        """Tell the protocols of the connections that have ended."""
        cdef SocketTransport transport
        if self._burying:
            return
        self._burying = True
        try:
            # Those that end meanwhile are appended.
            while self._dying:
                transport = self._dying.pop(0)
                try:
                    transport.finish()
                except Exception as error:
                    self.loop.call_exception_handler({
                        "message": "Fatal error: connection_lost() failed",
                        "exception": error,
                        "transport": transport,
                    })
        finally:
            self._burying = False
            if self._dying:
                self.loop.call_soon(self._bury)

    def _on_ready(self):
        """Take what is ready, for one turn of the loop."""
        global _batches, _events
        cdef int i, count, budget = EVENTS_PER_TURN
        cdef long long until = microseconds() + TURN_MICROSECONDS
        if self._epoll < 0 or self._in_batch:
            return
        _batches += 1
        self._in_batch = True
        try:
            while budget > 0:
                count = wait_now(self._epoll, &self._ready)
                if count <= 0:
                    break
                _events += count
                budget -= count
                for i in range(count):
                    self.happened(i)
                if self._dying:
                    self._bury()
                if microseconds() >= until:
                    break
        finally:
            self._in_batch = False
            if self._dying:
                self.loop.call_soon(self._bury)

    cdef int happened(self, int i) except -1:
        global _stale
        cdef unsigned long long data = 0
        cdef unsigned events = event_at(&self._ready, i, &data)
        # By casts: a mask would be a Python int, and make one of all this.
        cdef Py_ssize_t fd = <Py_ssize_t> <uint32_t> data
        cdef uint32_t generation = <uint32_t> (data >> <int> 32)
        cdef object entry
        cdef SocketTransport transport
        if fd >= PyList_GET_SIZE(self._entries):
            return 0
        entry = <object> PyList_GET_ITEM(self._entries, fd)
        if type(entry) is SocketTransport:
            transport = <SocketTransport> entry
            if transport._generation != generation:
                # The descriptor was closed and given out again while its event lay in the array.
                _stale += 1
                return 0
            try:
                transport.ready(events)
            except Exception as error:
                transport.fail(error)
            except BaseException:
                # A handler ends the process; this connection has nothing to hope for.
                transport.die(None)
                raise
        elif type(entry) is _Listener and generation == 0:
            self.accept(entry)
        return 0

    cdef int accept(self, _Listener listener) except -1:
        global _accepted, _rests
        cdef int fd, turn
        for turn in range(ACCEPTS):
            fd = accept_now(listener.fd)
            if fd >= 0:
                _accepted += 1
                self.begin(fd, listener.family)
            elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                # What waits, waits in the kernel's queue. Asking again at once would ask for ever.
                if not listener.resting:
                    listener.resting = True
                    _rests += 1
                    control(self._epoll, REMOVE, listener.fd, 0, 0)
                    logger.error("cannot accept connections: %s; trying again soon", os.strerror(errno))
                    self.loop.call_later(_REST_SECONDS, self._rested, listener)
                break
            elif errno != EINTR and errno != ECONNABORTED and errno != EPERM and errno != EPROTO:
                # Nobody waits; or the network is down, of which the next event tells.
                break
        return 0

    def _rested(self, listener):
        cdef _Listener rested = listener
        rested.resting = False
        if (
            self._epoll >= 0
            and rested.fd < len(self._entries)
            and self._entries[rested.fd] is rested
            and control(self._epoll, ADD, rested.fd, READABLE | EXCLUSIVE, <unsigned> rested.fd) < 0
        ):
            raise OSError(errno, os.strerror(errno))

    cdef int begin(self, int fd, int family) except -1:
        """A connection was accepted."""
        cdef SocketTransport transport = SocketTransport.__new__(SocketTransport)
        self._generations += 1
        if self._generations == 0:
            # Listeners have it.
            self._generations = 1
        transport._reactor = self
        transport._fd = fd
        transport._family = family
        transport._generation = self._generations
        transport._high = 64 * 1024
        transport._low = 16 * 1024
        transport._reading = True
        transport._armed = READABLE
        self.remember(fd, transport)
        self.connections += 1
        if control(self._epoll, ADD, fd, READABLE, transport.data()) < 0:
            transport.fail(OSError(errno, os.strerror(errno)))
            return 0
        try:
            transport.set_protocol(self._factory())
            transport._protocol.connection_made(transport)
        except Exception as error:
            transport.fail(error)
        return 0
