from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef enum:
    MAX_PARAMS = 16

cdef struct Match:
    PyObject* endpoint      # borrowed: the router owns it
    PyObject* names         # borrowed: tuple of the parameters' names
    PyObject* values        # OWNED tuple of str where the path was percent-decoded and has parameters, else NULL
    int nparams
    uint32_t start[16]      # where a parameter begins in the path, and its length; meaningless if `values` is set
    uint32_t length[16]

# What may follow after some segments. A single fixed child is kept here, and a chain of nodes that have nothing but
# a single fixed child is one child whose text spans several segments.
cdef struct Node:
    int32_t leaf            # number of a leaf, or -1
    int32_t catch_all
    uint32_t static_count
    uint32_t text           # of the single fixed child: place and length in the block of texts
    uint32_t text_length
    uint32_t child
    uint32_t edges          # number of the first edge
    uint32_t edge_count

cdef struct Edge:
    uint32_t kind
    uint32_t child
    uint32_t prefix
    uint32_t prefix_length
    uint32_t suffix
    uint32_t suffix_length
    uint32_t count
    PyObject* matcher

# One entry of an open-addressing hash table: text below an owner -> target.
cdef struct Entry:
    uint32_t hash
    uint32_t owner
    uint32_t text
    uint32_t length
    int32_t target          # -1: the entry is free

cdef struct Table:
    Entry* entries
    uint64_t mask

cdef struct Slot:
    PyObject* endpoint
    PyObject* names

cdef struct Walk:
    const unsigned char* path   # decides the structure: an octet that was %2F is 0xFF here
    const unsigned char* text   # gives the values; the same bytes where nothing was decoded
    Py_ssize_t size
    int method
    bint refused                # a leaf fitted that has no slot for the method
    uint64_t missed             # the methods of such leaves
    Match* out

cdef class RadixRouter:
    cdef Node* nodes
    cdef Edge* edges
    cdef Slot* slots
    cdef int32_t* leaf_slots    # a row per leaf: a slot per method, then the slot for every other method; -1 is none
    cdef uint64_t* leaf_masks
    cdef unsigned char* texts
    cdef Table statics
    cdef Table children
    cdef uint64_t static_lengths
    cdef int32_t defaults       # the root of the tree of defaults, or -1
    cdef int method_count
    cdef int options_number
    cdef uint64_t static_hits
    cdef uint64_t tree_hits
    cdef uint64_t misses
    cdef uint64_t not_allowed
    cdef object owned           # tuple: keeps alive what the arrays borrow
    cdef object not_found
    cdef object make_refusal
    cdef object make_options
    cdef dict refusals
    cdef dict options
    cdef dict numbers
    cdef tuple methods
    cdef tuple leaves
    cdef object __weakref__

    # 0 found, 1 no such path, 2 method not allowed (the endpoint is then the one that says so), -1 exception.
    # `method` is a number of armature/_spec/methods.py; for OTHER, `name` is the token.
    cdef int match(
        self, int method, const char* name, Py_ssize_t name_len, const char* path, Py_ssize_t path_len, Match* out
    ) except -1
    cdef int match_number(self, int method, const unsigned char* path, Py_ssize_t size, Match* out) except -1
    cdef int match_decoded(self, int method, const unsigned char* path, Py_ssize_t size, Match* out) except -1
    cdef int walk_root(self, Walk* walk, bint decoded) except -1
    cdef int walk_defaults(self, Walk* walk) except -1
    cdef int32_t walk(self, uint32_t node, Py_ssize_t place, int count, Walk* walk) except -2
    cdef int take(self, Edge* edge, Py_ssize_t start, Py_ssize_t end, int count, Walk* walk) except -1
    cdef int32_t slot_of(self, int32_t leaf, Walk* walk) noexcept
    cdef PyObject* refuse(self, bint options, uint64_t mask) except NULL
    cdef int allocate(
        self, list nodes, list edges, list children, list endpoints, list names, bytes texts
    ) except -1
