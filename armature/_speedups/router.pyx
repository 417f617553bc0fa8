"""From method and raw path to the endpoint: a frozen tree with one level per segment, and a table of fixed paths.

`armature.routing.plan` builds the tree; nothing is ever added to a router.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from armature._speedups.switches cimport HOT_02, HOT_02_LENGTHS, HOT_07


from armature._spec import abnf, methods as _methods, routes as _routes

__all__ = ["FOUND", "METHOD_NOT_ALLOWED", "NOT_FOUND", "RadixRouter", "RouteMatch", "stats"]

FOUND = 0
NOT_FOUND = 1
METHOD_NOT_ALLOWED = 2

if MAX_PARAMS != _routes.MAX_PARAMS:
    raise ImportError("armature._speedups.router is stale: build the compiled twins again")

# All routers together. A cache line apart from everything else, so that threads of a free-threaded build share none by
# accident.
cdef struct Counters:
    char before[64]
    uint64_t static_hits
    uint64_t tree_hits
    uint64_t not_allowed
    uint64_t misses
    char after[64]

cdef Counters _counts

cdef object ANY_METHOD = _routes.ANY_METHOD
cdef tuple NO_NAMES = ()
cdef int NUMBERED = len(_methods.METHODS)

cdef uint32_t MATCH_STR = _routes.MATCH_STR
cdef uint32_t MATCH_INT = _routes.MATCH_INT
cdef uint32_t MATCH_UINT = _routes.MATCH_UINT
cdef uint32_t MATCH_FLOAT = _routes.MATCH_FLOAT
cdef uint32_t MATCH_ALPHA = _routes.MATCH_ALPHA
cdef uint32_t MATCH_ALNUM = _routes.MATCH_ALNUM
cdef uint32_t MATCH_UUID = _routes.MATCH_UUID
cdef uint32_t MATCH_TEXT = _routes.MATCH_TEXT
cdef uint32_t MATCH_PIECES = _routes.MATCH_PIECES
cdef uint32_t MATCH_SPANS = _routes.MATCH_SPANS

cdef enum:
    # Percent-decoded copies of paths up to this size live on the stack.
    STACK_SIZE = 1024
    # Never in the UTF-8 of a template, hence equal to no fixed text, and in no native kind but "anything".
    ENCODED_SLASH = 0xFF

cdef unsigned char HEX[256]
cdef int _byte
for _byte in range(256):
    HEX[_byte] = abnf.HEX_VALUE[_byte]


# --- The languages of the native kinds; `_spec.routes.NATIVE_REGEX` defines them -----------------------------------

cdef inline bint is_digit(unsigned char byte) noexcept nogil:
    return <unsigned char>(byte - 0x30) < 10


cdef inline bint is_alpha(unsigned char byte) noexcept nogil:
    return <unsigned char>((byte | 0x20) - 0x61) < 26


cdef bint all_digits(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if not is_digit(text[i]):
            return False
    return size > 0


cdef bint is_int(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    if size and text[0] == c"-":
        return all_digits(text + 1, size - 1)
    return all_digits(text, size)


cdef bint is_float(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef const unsigned char* dot = <const unsigned char*>memchr(text, c".", size)
    if dot == NULL:
        return is_int(text, size)
    return is_int(text, dot - text) and all_digits(dot + 1, size - (dot - text) - 1)


cdef bint all_alpha(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if not is_alpha(text[i]):
            return False
    return size > 0


cdef bint all_alnum(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if not (is_alpha(text[i]) or is_digit(text[i])):
            return False
    return size > 0


cdef bint is_uuid(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    """32 hexadecimal digits; a hyphen may stand behind the 8th, 12th, 16th and 20th."""
    cdef Py_ssize_t i
    cdef int digits = 0
    cdef bint hyphen = False    # the last octet was one
    if size < 32 or size > 36:
        return False
    for i in range(size):
        if text[i] == c"-":
            if hyphen or not (digits == 8 or digits == 12 or digits == 16 or digits == 20):
                return False
            hyphen = True
        else:
            if HEX[text[i]] == 0xFF:
                return False
            digits += 1
            hyphen = False
    return digits == 32 and not hyphen


cdef inline bint is_native(uint32_t kind, const unsigned char* text, Py_ssize_t size) noexcept nogil:
    if kind == MATCH_STR:
        return size > 0
    if kind == MATCH_INT:
        return is_int(text, size)
    if kind == MATCH_UINT:
        return all_digits(text, size)
    if kind == MATCH_FLOAT:
        return is_float(text, size)
    if kind == MATCH_ALPHA:
        return all_alpha(text, size)
    if kind == MATCH_ALNUM:
        return all_alnum(text, size)
    return is_uuid(text, size)


# --- Hash tables -----------------------------------------------------------------------------------------------------
# Only registered texts are ever in a table, so that clients cannot make its chains longer, and the hash needs no secret.

cdef inline uint64_t load64(const unsigned char* text) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, text, 8)
    return word


cdef inline uint64_t load32(const unsigned char* text) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, text, 4)
    return word


cdef inline uint64_t mixed(uint64_t state, uint64_t word) noexcept nogil:
    state = (state ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return state ^ (state >> 32)


cdef inline uint64_t hash_text(const unsigned char* text, Py_ssize_t size, uint32_t owner) noexcept nogil:
    cdef uint64_t state = (<uint64_t>owner << 32) ^ <uint64_t>size
    cdef Py_ssize_t i = 0
    if size >= 8:
        # The last word may overlap the one before it: every load is within the text.
        while i + 8 <= size:
            state = mixed(state, load64(text + i))
            i += 8
        if i < size:
            state = mixed(state, load64(text + size - 8))
    elif size >= 4:
        state = mixed(state, load32(text) | (load32(text + size - 4) << 32))
    elif size:
        state = mixed(state, text[0] | (<uint64_t>text[size >> 1] << 8) | (<uint64_t>text[size - 1] << 16))
    return mixed(state, 0)


cdef inline int32_t look_up(
    const Table* table, const unsigned char* texts, uint32_t owner, const unsigned char* text, Py_ssize_t size
) noexcept nogil:
    cdef uint64_t hashed = hash_text(text, size, owner)
    cdef uint64_t i = hashed & table.mask
    cdef const Entry* entry
    while True:
        entry = &table.entries[i]
        if entry.target < 0:
            return -1
        if (
            entry.hash == <uint32_t>(hashed >> 32)
            and entry.length == <uint32_t>size
            and entry.owner == owner
            and memcmp(texts + entry.text, text, size) == 0
        ):
            return entry.target
        # At most half of the entries are taken, so that a free one ends every chain.
        i = (i + 1) & table.mask


cdef int fill(Table* table, const unsigned char* texts, list rows) except -1:
    """Make a table of rows (owner, place of the text, its length, target)."""
    cdef uint64_t size = 4
    cdef uint64_t i, hashed
    cdef uint32_t owner, text, length
    cdef int32_t target
    while size < 2 * <uint64_t>len(rows):
        size *= 2
    table.entries = <Entry*>PyMem_Malloc(size * sizeof(Entry))
    if table.entries == NULL:
        raise MemoryError
    table.mask = size - 1
    for i in range(size):
        table.entries[i].target = -1
    for owner, text, length, target in rows:
        hashed = hash_text(texts + text, length, owner)
        i = hashed & table.mask
        while table.entries[i].target >= 0:
            i = (i + 1) & table.mask
        table.entries[i] = Entry(<uint32_t>(hashed >> 32), owner, text, length, target)
    return 0


@cython.final
cdef class RouteMatch:
    """What `RadixRouter.find` found.

    Args:
        outcome: `FOUND`, `NOT_FOUND` or `METHOD_NOT_ALLOWED`.
        endpoint: The route's endpoint, or the one that answers for the outcome.
        names: The names of the path parameters.
        values: Their values, percent-decoded; octets that are no UTF-8 become U+FFFD.
    """

    cdef public object endpoint
    cdef public object names
    cdef public object outcome
    cdef public object values

    def __init__(self, outcome, endpoint, names, values):
        self.outcome = outcome
        self.endpoint = endpoint
        self.names = names
        self.values = values

    def __repr__(self):
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("outcome", "endpoint", "names", "values"))
        return f"RouteMatch({fields})"


cdef class _Flattener:
    """Turns the tree of `_spec.routes` into rows for the arrays."""

    cdef list nodes         # (leaf, catch_all, static_count, text, text_length, child, edges, edge_count)
    cdef list edges         # (kind, child, prefix, prefix_length, suffix, suffix_length, count, matcher)
    cdef list children      # (owner, text, length, target)
    cdef list leaves
    cdef dict leaf_numbers
    cdef bytearray block
    cdef dict places

    def __cinit__(self):
        self.nodes = []
        self.edges = []
        self.children = []
        self.leaves = []
        self.leaf_numbers = {}
        self.block = bytearray()
        self.places = {}

    cdef object place(self, bytes text):
        """Keep a text once, and say where."""
        found = self.places.get(text)
        if found is None:
            found = self.places[text] = len(self.block)
            self.block += text
        return found

    cdef int leaf(self, leaf) except -2:
        if leaf is None:
            return -1
        number = self.leaf_numbers.get(id(leaf))
        if number is None:
            number = self.leaf_numbers[id(leaf)] = len(self.leaves)
            self.leaves.append(leaf)
        return number

    cdef object node(self, node):
        number = len(self.nodes)
        self.nodes.append(None)
        leaf = self.leaf(node.leaf)
        text = b""
        child_number = 0
        if HOT_07 and len(node.statics) == 1:
            ((text, child),) = node.statics.items()
            while len(child.statics) == 1 and not child.edges and child.catch_all is None and child.leaf is None:
                ((more, child),) = child.statics.items()
                text += b"/" + more
            child_number = self.node(child)
        else:
            for more, child in node.statics.items():
                self.children.append((number, self.place(more), len(more), self.node(child)))
        rows = []
        for edge in node.edges:
            rows.append((
                edge.kind, self.node(edge.node), self.place(edge.prefix), len(edge.prefix),
                self.place(edge.suffix), len(edge.suffix), edge.params, edge.matcher,
            ))
        first = len(self.edges)
        self.edges += rows
        self.nodes[number] = (
            leaf, self.leaf(node.catch_all), len(node.statics), self.place(text), len(text), child_number,
            first, len(rows),
        )
        return number


# The arrays borrow what `owned` holds, and finalizers may ask the router while a cycle is being cleared: a tuple is
# never cleared by the collector, and neither is the router. The cycle is broken elsewhere, in the app's or a
# handler's dict.
@cython.final
@cython.no_gc_clear
cdef class RadixRouter:
    """Finds the endpoint for a method and a raw path; build it with `armature.routing.RoutePlan`.

    Args:
        tree: The routes.
        not_found: The endpoint for paths that match nothing.
        method_not_allowed: Makes the endpoint for methods that a path has no route for, from those it has.
        options: Makes the endpoint that answers OPTIONS where no route does, likewise; may be None.
    """

    def __cinit__(self, tree, not_found, method_not_allowed, options=None):
        cdef _Flattener flat
        cdef Py_ssize_t number, i
        cdef uint64_t mask
        self.methods = tree.methods
        self.method_count = len(self.methods)
        self.numbers = {method: number for number, method in enumerate(self.methods)}
        self.options_number = self.numbers["OPTIONS"]
        self.not_found = not_found
        self.make_refusal = method_not_allowed
        self.make_options = options
        # Endpoints per set of methods. A set that only overlapping routes bring about is added when it is first met;
        # there are no more of them than the routes allow, whatever clients ask for.
        self.refusals = {}
        self.options = {}
        flat = _Flattener()
        flat.node(tree.root)
        # A fixed path is in the tree as well, so that every leaf of the table has its number already.
        statics = [(0, flat.place(path), len(path), flat.leaf(leaf)) for path, leaf in tree.statics.items()]
        shared = {}     # equal tuples are kept once
        leaves = []
        for leaf in flat.leaves:
            served = tuple(leaf.slots)
            leaves.append((leaf.pattern, shared.setdefault(served, served)))
        self.leaves = tuple(leaves)
        self.defaults = -1 if tree.defaults is None else flat.node(tree.defaults)
        endpoints = []
        names = []
        rows = []
        masks = []
        for leaf in flat.leaves:
            any_slot = -1
            row = [-1] * (self.method_count + 1)
            mask = 0
            for method, slot in leaf.slots.items():
                if method == ANY_METHOD:
                    any_slot = len(endpoints)
                else:
                    number = self.numbers[method]
                    row[number] = len(endpoints)
                    mask |= <uint64_t>1 << number
                endpoints.append(slot.endpoint)
                names.append(shared.setdefault(slot.names, slot.names))
            rows.append([any_slot if number < 0 else number for number in row])
            masks.append(mask)
            if any_slot < 0:
                self.refuse(False, mask)
                if "OPTIONS" not in leaf.slots:
                    self.refuse(True, mask)
        self.owned = (tuple(endpoints), tuple(names), tuple([row[7] for row in flat.edges]))
        self.allocate(flat.nodes, flat.edges, flat.children, endpoints, names, bytes(flat.block))
        fill(&self.statics, self.texts, statics)
        for _, _, number, _ in statics:
            self.static_lengths |= <uint64_t>1 << (number & 63)
        self.leaf_slots = <int32_t*>PyMem_Malloc((len(rows) * (self.method_count + 1) + 1) * sizeof(int32_t))
        self.leaf_masks = <uint64_t*>PyMem_Malloc((len(rows) + 1) * sizeof(uint64_t))
        if self.leaf_slots == NULL or self.leaf_masks == NULL:
            raise MemoryError
        i = 0
        for row in rows:
            for number in row:
                self.leaf_slots[i] = <int32_t>number
                i += 1
        for i in range(len(masks)):
            self.leaf_masks[i] = masks[i]

    cdef int allocate(
        self, list nodes, list edges, list children, list endpoints, list names, bytes texts
    ) except -1:
        cdef Py_ssize_t i
        self.nodes = <Node*>PyMem_Calloc(len(nodes), sizeof(Node))
        self.edges = <Edge*>PyMem_Calloc(len(edges) + 1, sizeof(Edge))
        self.slots = <Slot*>PyMem_Calloc(len(names) + 1, sizeof(Slot))
        self.texts = <unsigned char*>PyMem_Malloc(len(texts) + 1)
        if self.nodes == NULL or self.edges == NULL or self.slots == NULL or self.texts == NULL:
            raise MemoryError
        memcpy(self.texts, PyBytes_AS_STRING(texts), len(texts))
        for i, row in enumerate(nodes):
            self.nodes[i] = Node(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7])
        for i, row in enumerate(edges):
            self.edges[i] = Edge(row[0], row[1], row[2], row[3], row[4], row[5], row[6], <PyObject*>row[7])
        for i in range(len(names)):
            self.slots[i] = Slot(<PyObject*>endpoints[i], <PyObject*>names[i])
        return fill(&self.children, self.texts, children)

    def __dealloc__(self):
        PyMem_Free(self.nodes)
        PyMem_Free(self.edges)
        PyMem_Free(self.slots)
        PyMem_Free(self.texts)
        PyMem_Free(self.leaf_slots)
        PyMem_Free(self.leaf_masks)
        PyMem_Free(self.statics.entries)
        PyMem_Free(self.children.entries)

    def find(self, method, raw_path):
        """Find the endpoint for a request.

        Args:
            method: The method, as received.
            raw_path: The path of the target, undecoded, without the query.

        Raises:
            TypeError: An argument is of another type.
        """
        cdef Match match
        cdef int outcome, number, i
        cdef const char* path
        if not isinstance(method, str):
            raise TypeError(f"method must be str, not {type(method).__name__}")
        if not isinstance(raw_path, bytes):
            raise TypeError(f"raw_path must be bytes, not {type(raw_path).__name__}")
        number = self.numbers.get(method, self.method_count)
        path = PyBytes_AS_STRING(raw_path)
        outcome = self.match_number(number, <const unsigned char*>path, PyBytes_GET_SIZE(raw_path), &match)
        if match.values != NULL:
            values = <object>match.values
            Py_XDECREF(match.values)
        else:
            values = make_values(path, &match)
        return RouteMatch(outcome, <object>match.endpoint, <object>match.names, values)

    cdef int match(
        self, int method, const char* name, Py_ssize_t name_len, const char* path, Py_ssize_t path_len, Match* out
    ) except -1:
        if method >= NUMBERED:
            # Tokens without a number are rare enough to be made a str.
            method = self.numbers.get(name[:name_len].decode("latin-1"), self.method_count)
        return self.match_number(method, <const unsigned char*>path, path_len, out)

    cdef int match_number(self, int method, const unsigned char* path, Py_ssize_t size, Match* out) except -1:
        cdef Walk walk
        cdef int32_t leaf, slot
        out.values = NULL
        out.nparams = 0
        if HOT_02 and (not HOT_02_LENGTHS or (self.static_lengths >> (size & 63)) & 1):
            leaf = look_up(&self.statics, self.texts, 0, path, size)
            if leaf >= 0:
                slot = self.leaf_slots[leaf * (self.method_count + 1) + method]
                if slot >= 0:
                    self.static_hits += 1
                    _counts.static_hits += 1
                    out.endpoint = self.slots[slot].endpoint
                    out.names = self.slots[slot].names
                    return 0
        if size == 0 or path[0] != c"/":
            # Every route begins with a slash; `*` and an empty path do not.
            self.misses += 1
            _counts.misses += 1
            out.endpoint = <PyObject*>self.not_found
            out.names = <PyObject*>NO_NAMES
            return 1
        if memchr(path, c"%", size) != NULL:
            return self.match_decoded(method, path, size, out)
        walk.path = walk.text = path
        walk.size = size
        walk.method = method
        walk.out = out
        return self.walk_root(&walk, False)

    cdef int match_decoded(self, int method, const unsigned char* path, Py_ssize_t size, Match* out) except -1:
        """Match a path with percent signs as if every segment had been decoded."""
        cdef unsigned char stack[2 * STACK_SIZE]
        cdef unsigned char* heap = NULL
        cdef unsigned char* structure = stack
        cdef unsigned char* text
        cdef unsigned char byte, high, low
        cdef Py_ssize_t i = 0, end = 0
        cdef Walk walk
        if size > STACK_SIZE:
            heap = structure = <unsigned char*>PyMem_Malloc(2 * size)
            if heap == NULL:
                raise MemoryError
        # Decoding never lengthens: both copies fit.
        text = structure + size
        while i < size:
            byte = path[i]
            i += 1
            if byte == c"%" and i + 2 <= size:
                high, low = HEX[path[i]], HEX[path[i + 1]]
                if high != 0xFF and low != 0xFF:
                    byte = (high << 4) | low
                    i += 2
                    if byte == c"/":
                        structure[end] = ENCODED_SLASH
                        text[end] = byte
                        end += 1
                        continue
            structure[end] = text[end] = byte
            end += 1
        walk.path = structure
        walk.text = text
        walk.size = end
        walk.method = method
        walk.out = out
        try:
            return self.walk_root(&walk, True)
        finally:
            PyMem_Free(heap)

    cdef int walk_root(self, Walk* walk, bint decoded) except -1:
        cdef Match* out = walk.out
        cdef int32_t slot
        cdef int outcome = 0
        walk.refused = False
        walk.missed = 0
        slot = self.walk(0, 0, 0, walk)
        if slot >= 0:
            self.tree_hits += 1
            _counts.tree_hits += 1
            out.endpoint = self.slots[slot].endpoint
            out.names = self.slots[slot].names
        else:
            out.names = <PyObject*>NO_NAMES
            if walk.refused:
                if walk.method == self.options_number and self.make_options is not None:
                    self.tree_hits += 1
                    _counts.tree_hits += 1
                    out.endpoint = self.refuse(True, walk.missed)
                    return 0
                self.not_allowed += 1
                _counts.not_allowed += 1
                out.endpoint = self.refuse(False, walk.missed)
                return 2
            self.misses += 1
            _counts.misses += 1
            outcome = 1
            out.endpoint = <PyObject*>self.not_found
            if self.defaults < 0 or not self.walk_defaults(walk):
                return 1
        out.nparams = <int>PyTuple_GET_SIZE(<object>out.names)
        if decoded and out.nparams:
            values = make_values(<const char*>walk.text, out)
            Py_INCREF(values)
            out.values = <PyObject*>values
        return outcome

    cdef int walk_defaults(self, Walk* walk) except -1:
        """Find the default of the longest prefix; its catch-all has a place in the match but no name."""
        cdef int32_t slot
        walk.method = self.method_count
        slot = self.walk(<uint32_t>self.defaults, 0, 0, walk)
        if slot < 0:
            return 0
        walk.out.endpoint = self.slots[slot].endpoint
        walk.out.names = self.slots[slot].names
        return 1

    cdef int32_t slot_of(self, int32_t leaf, Walk* walk) noexcept:
        cdef int32_t slot = self.leaf_slots[leaf * (self.method_count + 1) + walk.method]
        if slot < 0:
            walk.refused = True
            walk.missed |= self.leaf_masks[leaf]
        return slot

    cdef int32_t walk(self, uint32_t number, Py_ssize_t place, int count, Walk* walk) except -2:
        """Find the slot for the path from the slash at `place` on; `count` parameters are taken already.

        Every node is visited once at most, so that no path costs more than the number of nodes.
        """
        cdef const unsigned char* path = walk.path
        cdef const unsigned char* slash
        cdef Py_ssize_t size = walk.size
        cdef Py_ssize_t start, end
        cdef Node* node
        cdef Edge* edge
        cdef int64_t child
        cdef int32_t slot
        cdef uint32_t i
        while True:
            node = &self.nodes[number]
            if place == size:
                return -1 if node.leaf < 0 else self.slot_of(node.leaf, walk)
            start = place + 1
            end = -1
            child = -1
            if HOT_07 and node.static_count == 1:
                end = start + node.text_length
                if (
                    end <= size
                    and (end == size or path[end] == c"/")
                    and memcmp(self.texts + node.text, path + start, node.text_length) == 0
                ):
                    child = node.child
                    place = end
                end = -1
            elif node.static_count:
                slash = <const unsigned char*>memchr(path + start, c"/", size - start)
                end = size if slash == NULL else slash - path
                child = look_up(&self.children, self.texts, number, path + start, end - start)
                place = end
            if child >= 0:
                if node.edge_count == 0 and node.catch_all < 0:
                    number = <uint32_t>child
                    continue
                slot = self.walk(<uint32_t>child, place, count, walk)
                if slot >= 0:
                    return slot
            if node.edge_count:
                if end < 0:
                    slash = <const unsigned char*>memchr(path + start, c"/", size - start)
                    end = size if slash == NULL else slash - path
                # A parameter is never empty.
                if end > start:
                    for i in range(node.edge_count):
                        edge = &self.edges[node.edges + i]
                        if self.take(edge, start, end, count, walk):
                            if i + 1 == node.edge_count and node.catch_all < 0:
                                break
                            slot = self.walk(edge.child, end, count + edge.count, walk)
                            if slot >= 0:
                                return slot
                    else:
                        edge = NULL
                    if edge != NULL:
                        # The last choice: nothing to come back to.
                        number = edge.child
                        count += edge.count
                        place = end
                        continue
            if node.catch_all < 0:
                return -1
            slot = self.slot_of(node.catch_all, walk)
            if slot >= 0:
                walk.out.start[count] = <uint32_t>start
                walk.out.length[count] = <uint32_t>(size - start)
            return slot

    cdef int take(self, Edge* edge, Py_ssize_t start, Py_ssize_t end, int count, Walk* walk) except -1:
        """Say whether an edge takes the segment, and note the places of its parameters.

        A route has at most MAX_PARAMS parameters, and every edge on the way to it brings its own: `count` plus
        `edge.count` stays within the arrays.
        """
        cdef const unsigned char* path = walk.path
        cdef const unsigned char* literal
        cdef Match* out = walk.out
        cdef Py_ssize_t size, found
        cdef int i
        cdef tuple literals
        if edge.kind == MATCH_SPANS:
            text = PyUnicode_DecodeUTF8(<const char*>walk.text + start, end - start, "surrogateescape")
            places = (<object>edge.matcher)(text)
            if places is None:
                return 0
            for first, last in places:
                # From characters to octets, which differ once one character is not ASCII.
                if len(text) != end - start:
                    first, last = [len(text[:place].encode("utf-8", "surrogateescape")) for place in (first, last)]
                out.start[count] = <uint32_t>(start + <Py_ssize_t>first)
                out.length[count] = <uint32_t>(<Py_ssize_t>last - <Py_ssize_t>first)
                count += 1
            return 1
        if edge.prefix_length or edge.suffix_length:
            if end - start <= <Py_ssize_t>edge.prefix_length + <Py_ssize_t>edge.suffix_length:
                return 0
            if memcmp(path + start, self.texts + edge.prefix, edge.prefix_length) != 0:
                return 0
            start += edge.prefix_length
            end -= edge.suffix_length
            if memcmp(path + end, self.texts + edge.suffix, edge.suffix_length) != 0:
                return 0
        if edge.kind == MATCH_PIECES:
            # From the right: the rightmost place of every text leaves the most to the parameters before it, so the
            # first choice is the greedy one, and if it fails, all fail.
            literals = <tuple>edge.matcher
            for i in range(<int>edge.count - 1, 0, -1):
                literal = <const unsigned char*>PyBytes_AS_STRING(literals[i - 1])
                size = PyBytes_GET_SIZE(literals[i - 1])
                found = end - 1 - size
                while found > start and memcmp(path + found, literal, size) != 0:
                    found -= 1
                if found <= start:
                    return 0
                out.start[count + i] = <uint32_t>(found + size)
                out.length[count + i] = <uint32_t>(end - found - size)
                end = found
        elif edge.kind == MATCH_TEXT:
            text = PyUnicode_DecodeUTF8(<const char*>walk.text + start, end - start, "surrogateescape")
            if not (<object>edge.matcher)(text):
                return 0
        elif edge.kind != MATCH_STR and not is_native(edge.kind, path + start, end - start):
            return 0
        out.start[count] = <uint32_t>start
        out.length[count] = <uint32_t>(end - start)
        return 1

    cdef PyObject* refuse(self, bint options, uint64_t mask) except NULL:
        """Return the endpoint that answers OPTIONS, or refuses the method, on a path with these methods."""
        make = self.make_refusal
        made = self.refusals
        if options and self.make_options is not None:
            make = self.make_options
            made = self.options
        if mask not in made:
            allowed = mask
            if self.make_options is not None:
                allowed |= <uint64_t>1 << self.options_number
            made[mask] = make(tuple([name for number, name in enumerate(self.methods) if (allowed >> number) & 1]))
        # Nothing is ever removed from the dict, so that the endpoint stays alive.
        return <PyObject*>made[mask]

    def __reduce__(self):
        raise TypeError("cannot pickle 'RadixRouter' object")

    def stats(self):
        """Count the requests: fixed paths found in the table, paths found in the tree, methods refused, misses."""
        return {
            "static_hits": self.static_hits,
            "tree_hits": self.tree_hits,
            "not_allowed": self.not_allowed,
            "misses": self.misses,
        }

    def __len__(self):
        return len(self.leaves)

    def __iter__(self):
        """Go through the paths: the template and the methods served."""
        return iter(self.leaves)

    def __repr__(self):
        return f"<RadixRouter of {len(self.leaves)} paths>"


cdef tuple make_values(const char* text, const Match* match):
    cdef int i
    cdef tuple values
    cdef object value
    if not match.nparams:
        return ()
    values = PyTuple_New(match.nparams)
    for i in range(match.nparams):
        value = PyUnicode_DecodeUTF8(text + match.start[i], match.length[i], "replace")
        Py_INCREF(value)
        PyTuple_SET_ITEM(values, i, value)
    return values


def stats():
    """Return what this twin has counted since the process began, over all routers; see `RadixRouter.stats`."""
    return {
        "static_hits": _counts.static_hits,
        "tree_hits": _counts.tree_hits,
        "not_allowed": _counts.not_allowed,
        "misses": _counts.misses,
    }
