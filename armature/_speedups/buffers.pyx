"""The byte buffers of a connection: what has arrived and cannot be used yet, and what is waiting to be sent."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy, memmove

from armature._speedups.ascii cimport exact_bytes
from armature._speedups.switches cimport HOT_14

__all__ = ["BodyBuffer", "Buffer", "stats"]

# An empty buffer holds no memory, so that an idle connection costs none. Blocks of the usual size go through a
# small free-list instead of the allocator.
cdef enum:
    BLOCK = 4096
    POOLED = 64

cdef char* _pool[POOLED]
cdef int _pooled = 0

# A cache line apart from everything else, so that threads of a free-threaded build share none by accident.
cdef struct Counters:
    char before[64]
    long long blocks_reused
    long long blocks_allocated
    char after[64]

cdef Counters _counts


def stats():
    """Return what this twin has counted since the process began."""
    return {"blocks_reused": _counts.blocks_reused, "blocks_allocated": _counts.blocks_allocated}


cdef class Buffer:
    """Bytes in order: appended at the end, taken from the front.

    Memory follows use: a buffer that has been emptied keeps at most `KEEP` bytes for the next message.
    """

    KEEP = BLOCK

    def __cinit__(self):
        self.data = NULL
        self.start = self.end = self.capacity = 0

    def __init__(self):
        pass

    def __dealloc__(self):
        self.release()

    def __len__(self):
        return self.end - self.start

    def append(self, data):
        """Add bytes at the end."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.add(<const char*> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def consume(self, count):
        """Drop bytes from the front.

        Raises:
            ValueError: There are not so many.
        """
        if not 0 <= count <= self.end - self.start:
            raise ValueError(f"cannot consume {count} of {self.end - self.start} bytes")
        self.drop(count)

    def take(self):
        """Return everything and leave the buffer empty."""
        data = PyBytes_FromStringAndSize(self.data + self.start if self.data != NULL else NULL, self.end - self.start)
        self.release()
        return data

    def peek(self):
        """Return everything and leave it where it is."""
        return PyBytes_FromStringAndSize(self.data + self.start if self.data != NULL else NULL, self.end - self.start)

    def clear(self):
        """Drop everything."""
        self.release()

    cdef int reserve(self, Py_ssize_t count) except -1:
        """Make room for `count` more bytes behind `end`."""
        global _pooled
        cdef Py_ssize_t size = self.end - self.start
        cdef Py_ssize_t capacity
        cdef char* data
        if self.end + count <= self.capacity:
            return 0
        if self.data == NULL and count <= BLOCK:
            if HOT_14 and _pooled:
                _pooled -= 1
                self.data = _pool[_pooled]
                _counts.blocks_reused += 1
            else:
                self.data = <char*> PyMem_Malloc(BLOCK)
                _counts.blocks_allocated += 1
                if self.data == NULL:
                    raise MemoryError()
            self.capacity = BLOCK
            return 0
        if self.start and size + count <= self.capacity:
            memmove(self.data, self.data + self.start, size)
            self.start = 0
            self.end = size
            return 0
        capacity = self.capacity * 2
        if capacity < size + count:
            capacity = size + count
        data = <char*> PyMem_Malloc(capacity)
        if data == NULL:
            raise MemoryError()
        if size:
            memcpy(data, self.data + self.start, size)
        self.release()
        self.data = data
        self.capacity = capacity
        self.start = 0
        self.end = size
        return 0

    cdef int add(self, const char* data, Py_ssize_t count) except -1:
        if count:
            self.reserve(count)
            memcpy(self.data + self.end, data, count)
            self.end += count
        return 0

    cdef void drop(self, Py_ssize_t count) noexcept:
        self.start += count
        if self.start >= self.end:
            self.release()

    cdef void release(self) noexcept:
        """Give the memory back."""
        global _pooled
        if self.data != NULL:
            if HOT_14 and self.capacity == BLOCK and _pooled < POOLED:
                _pool[_pooled] = self.data
                _pooled += 1
            else:
                PyMem_Free(self.data)
            self.data = NULL
        self.start = self.end = self.capacity = 0

    cdef void steal(self, Buffer other) noexcept:
        """Take over what `other` holds."""
        self.release()
        self.data = other.data
        self.start = other.start
        self.end = other.end
        self.capacity = other.capacity
        other.data = NULL
        other.start = other.end = other.capacity = 0


cdef class BodyBuffer:
    """Memory for a body of known length, which is received straight into it.

    Args:
        size: The length, in bytes.
    """

    def __init__(self, size):
        self._size = size
        if self._size < 0:
            raise ValueError("negative count")
        self._data = PyBytes_FromStringAndSize(NULL, self._size)
        self._filled = 0

    @property
    def left(self):
        """How many bytes are still to come."""
        return self._size - self._filled

    def view(self):
        """Return the memory that is still to be filled, to receive into."""
        return memoryview(self)

    def __getbuffer__(self, Py_buffer* view, int flags):
        if self._data is None:
            raise BufferError("the body has been taken")
        PyBuffer_FillInfo(
            view, self, PyBytes_AS_STRING(self._data) + self._filled, self._size - self._filled, False, flags
        )

    def add(self, data):
        """Add received bytes; return how many of them belong to the body."""
        cdef bytes raw = exact_bytes(data)
        return self.put(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))

    def advance(self, count):
        """Note that `count` bytes were received into the view.

        Raises:
            ValueError: That is more than the view has.
        """
        if not 0 <= count <= self._size - self._filled:
            raise ValueError(f"cannot advance by {count}: {self._size - self._filled} bytes are left")
        self._filled += count

    def take(self):
        """Return the body; the buffer is used up.

        Raises:
            ValueError: It is not complete.
        """
        if self._filled < self._size:
            raise ValueError(f"{self._size - self._filled} bytes of the body are missing")
        data = b"" if self._data is None else self._data
        self._data = None
        self._size = self._filled = 0
        return data

    cdef Py_ssize_t put(self, const char* data, Py_ssize_t count) noexcept:
        if self._data is None:
            return 0
        if count > self._size - self._filled:
            count = self._size - self._filled
        memcpy(PyBytes_AS_STRING(self._data) + self._filled, data, count)
        self._filled += count
        return count
