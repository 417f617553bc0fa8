"""The hot halves of request and response: what the connection fills in and reads for every message.

`armature.http.HttpRequest` and `HttpResponse` are plain Python subclasses that add the cold half.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsLatin1String, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcpy

from armature._speedups.ascii cimport find_not_in
from armature._speedups.parser cimport Field, Head, field_id, field_name, method_name
from armature._speedups.switches cimport HOT_13_CHECKED

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from armature._spec.abnf import FIELD_VALUE, LOWER, TOKEN

__all__ = ["Request", "Response", "check_field", "set_field", "set_json_encoder"]

_kept_tables = (TOKEN, FIELD_VALUE, LOWER)
cdef const unsigned char* _token = <const unsigned char*> PyBytes_AS_STRING(TOKEN)
cdef const unsigned char* _field_value = <const unsigned char*> PyBytes_AS_STRING(FIELD_VALUE)
cdef const unsigned char* _lower = <const unsigned char*> PyBytes_AS_STRING(LOWER)

cdef object _dumps = None


def set_json_encoder(dumps):
    """Choose the function that `Response.json` encodes with; `armature.http` does so when it is imported."""
    global _dumps
    _dumps = dumps


def check_field(name, value):
    """Check one field line of a response and return it as bytes, the name in lower case (RFC 9110 section 5).

    Args:
        name: A token.
        value: Visible characters, spaces and tabs; `str` is encoded as Latin-1, or as UTF-8 where that fails.

    Raises:
        ValueError: The name is no token, or the value holds CR, LF, NUL or another control character.
        TypeError: One of them is neither `str` nor `bytes`.
    """
    cdef bytes raw_name, raw_value
    cdef const char* end
    raw_name = _field_name(name)
    if isinstance(value, str):
        try:
            raw_value = PyUnicode_AsLatin1String(value) if type(value) is str else value.encode("latin-1")
        except UnicodeEncodeError:
            try:
                raw_value = value.encode("utf-8")
            except UnicodeEncodeError:
                raise ValueError(f"invalid value for header {_spelt(name)}: it holds a lone surrogate") from None
    elif isinstance(value, bytes):
        raw_value = bytes(value)
    else:
        raise TypeError(f"the value of header {_spelt(name)} must be str or bytes, not {type(value).__name__}")
    end = PyBytes_AS_STRING(raw_value) + PyBytes_GET_SIZE(raw_value)
    if find_not_in(PyBytes_AS_STRING(raw_value), end, _field_value) != end:
        raise ValueError(f"invalid value for header {_spelt(name)}: it holds a control character such as CR, LF or NUL")
    return raw_name, raw_value


# Names that were checked before, to what is written for them; bounded, since a program has few of them.
cdef dict _checked_names = {}


cdef bytes _field_name(object name):
    """Check a field's name and return it in lower case."""
    cdef bytes raw
    cdef const char* end
    cdef PyObject* known
    if HOT_13_CHECKED and type(name) is str:
        known = PyDict_GetItem(_checked_names, name)
        if known != NULL:
            return <bytes> <object> known
    if isinstance(name, str):
        raw = name.encode("latin-1", "replace") if name.isascii() else b""
    elif isinstance(name, bytes):
        raw = bytes(name)
    else:
        raise TypeError(f"a header name must be str or bytes, not {type(name).__name__}")
    end = PyBytes_AS_STRING(raw) + PyBytes_GET_SIZE(raw)
    if not raw or find_not_in(PyBytes_AS_STRING(raw), end, _token) != end:
        raise ValueError(f"invalid header name {name!r}: a name is made of letters, digits and !#$%&'*+-.^_`|~")
    raw = raw.lower()
    if type(name) is str and len(_checked_names) < 256:
        _checked_names[name] = raw
    return raw


cdef object _spelt(object name):
    return name if isinstance(name, str) else name.decode()


def set_field(fields, name, value):
    """Set one field line of a response: it takes the place of the first line of its name, the others go.

    Args:
        fields: The field lines, as `Response.fields` returns them; changed in place.
        name: As for `check_field`.
        value: As for `check_field`.

    Raises:
        ValueError: As `check_field`.
        TypeError: As `check_field`.
    """
    cdef list lines = fields
    cdef tuple field = check_field(name, value)
    cdef Py_ssize_t i, count = len(lines)
    cdef object key = field[0]
    for i in range(count):
        if (<tuple?> lines[i])[0] == key:
            lines[i] = field
            if i + 1 < count:
                lines[i + 1:] = [line for line in lines[i + 1:] if line[0] != key]
            return
    lines.append(field)


cdef class Request:
    """One HTTP request, as it stands on the wire; everything else is made from it when asked for.

    Args:
        connection: What carries the request: has `scheme`, `client`, `server`, `app` and `is_disconnected()`.
        method: The method, upper case as received.
        raw_path: The path of the target, undecoded, without the query.
        query_string: What follows the first `?`, undecoded.
        raw_headers: Field lines in order, names in lower case.
        http_version: `"1.0"`, `"1.1"`, `"2"` or `"3"`.
        body: The body, if it is already complete.
        receiver: What the body is read from, if it is not.
    """

    def __cinit__(self):
        self._head = NULL
        self._fields = NULL
        self._base = NULL
        self._block = NULL
        self._head_size = 0
        self._body_size = -1

    def __init__(
        self,
        connection,
        method,
        raw_path,
        query_string=b"",
        raw_headers=None,
        http_version="1.1",
        body=b"",
        receiver=None,
    ):
        self.connection = connection
        self._method = method
        self._raw_path = raw_path
        self._query = query_string
        self._version = http_version
        self._body = body
        self._body_size = -1
        self.receiver = receiver
        self.endpoint = None
        self._headers = [] if raw_headers is None else raw_headers
        self._names = ()
        self._values = ()
        self._path = None
        self._state = None
        self._view = None

    def __dealloc__(self):
        if self._block != NULL:
            PyMem_Free(self._block)

    def __reduce__(self):
        raise TypeError("a request cannot be pickled or copied: it belongs to its connection")

    cdef void attach(self, const char* base, Py_ssize_t head_size, const Head* head, const Field* fields) noexcept:
        """Stand for the head at `base`, which stays where it is until `detach`."""
        self._base = base
        self._head_size = head_size
        self._head = head
        self._fields = fields
        self._body = b""
        self._names = ()

    cdef int detach(self) except -1:
        """Move the head, and a body that stands behind it, into memory of our own."""
        cdef Py_ssize_t fields, text
        cdef char* block
        if self._head == NULL or self._block != NULL:
            return 0
        fields = self._head.count * sizeof(Field)
        text = self._head_size
        if self._body_size > 0:
            text += self._body_size
        block = <char*> PyMem_Malloc(sizeof(Head) + fields + text)
        if block == NULL:
            raise MemoryError()
        memcpy(block, self._head, sizeof(Head))
        memcpy(block + sizeof(Head), self._fields, fields)
        memcpy(block + sizeof(Head) + fields, self._base, text)
        self._block = block
        self._head = <const Head*> block
        self._fields = <const Field*> (block + sizeof(Head))
        self._base = block + sizeof(Head) + fields
        return 0

    cdef tuple values(self):
        """The values of the path parameters, decoded."""
        cdef Py_ssize_t i, count
        cdef const char* path
        cdef list values
        if self._values is None:
            count = len(self._names)
            path = self._base + self._head.path
            values = []
            for i in range(count):
                values.append(PyUnicode_DecodeUTF8(path + self._starts[i], self._sizes[i], "replace"))
            self._values = tuple(values)
        return self._values

    @property
    def method(self):
        if self._method is None and self._head != NULL:
            self._method = method_name(self._base, self._head)
        return self._method

    @method.setter
    def method(self, value):
        self._method = value

    @property
    def raw_path(self):
        if self._raw_path is None and self._head != NULL:
            if self._head.path_size == 0:
                self._raw_path = b"/"
            else:
                self._raw_path = PyBytes_FromStringAndSize(self._base + self._head.path, self._head.path_size)
        return self._raw_path

    @raw_path.setter
    def raw_path(self, value):
        self._raw_path = value

    @property
    def query_string(self):
        if self._query is None and self._head != NULL:
            self._query = PyBytes_FromStringAndSize(self._base + self._head.query, self._head.query_size)
        return self._query

    @query_string.setter
    def query_string(self, value):
        self._query = value

    @property
    def http_version(self):
        if self._version is None and self._head != NULL:
            self._version = "1.1" if self._head.minor else "1.0"
        return self._version

    @http_version.setter
    def http_version(self, value):
        self._version = value

    @property
    def body_bytes(self):
        if self._body_size >= 0:
            self._body = PyBytes_FromStringAndSize(self._base + self._head_size, self._body_size)
            self._body_size = -1
        return self._body

    @body_bytes.setter
    def body_bytes(self, value):
        self._body = value
        self._body_size = -1

    @property
    def raw_headers(self):
        """The field lines in the order received: lower-case name and value, undecoded."""
        cdef int i
        cdef const Field* field
        cdef list headers
        if self._headers is None:
            headers = []
            if self._head != NULL:
                for i in range(self._head.count):
                    field = &self._fields[i]
                    headers.append((
                        field_name(self._base, field),
                        PyBytes_FromStringAndSize(self._base + field.value, field.value_size),
                    ))
            self._headers = headers
        return self._headers

    def header(self, name):
        """Return the value of the first field line of this (lower-case) name, or None."""
        cdef int i
        cdef uint8_t known
        cdef uint32_t at
        cdef Py_ssize_t size
        cdef const Field* field
        cdef const char* wanted
        cdef const unsigned char* found
        if self._headers is not None:
            for key, value in self._headers:
                if key == name:
                    return value
            return None
        if not PyBytes_CheckExact(name) or self._head == NULL:
            return None
        wanted = PyBytes_AS_STRING(name)
        size = PyBytes_GET_SIZE(name)
        known = field_id(wanted, size) if find_not_in(wanted, wanted + size, _token) == wanted + size else 255
        for i in range(self._head.count):
            field = &self._fields[i]
            if field.known != known or field.name_size != size:
                continue
            found = <const unsigned char*> self._base + field.name
            at = 0
            while at < size and _lower[found[at]] == <unsigned char> wanted[at]:
                at += 1
            if at == size:
                return PyBytes_FromStringAndSize(self._base + field.value, field.value_size)
        return None

    @property
    def path(self):
        """The path, percent-decoded; octets that are no UTF-8 become U+FFFD."""
        if self._path is None:
            if (
                self._raw_path is None
                and self._head != NULL
                and self._head.path_size
                and memchr(self._base + self._head.path, c"%", self._head.path_size) == NULL
            ):
                self._path = PyUnicode_DecodeUTF8(self._base + self._head.path, self._head.path_size, "replace")
            else:
                self._path = unquote_to_bytes(self.raw_path).decode("utf-8", "replace")
        return self._path

    def bind(self, names, values):
        """Set the path parameters that the router found."""
        self._names = names
        self._values = values

    @property
    def params(self):
        """The path parameters, percent-decoded, as a new dict."""
        return dict(zip(self._names, self.values(), strict=True))

    def param(self, name):
        """Return one path parameter, percent-decoded.

        Raises:
            KeyError: The route has no parameter of this name.
        """
        cdef Py_ssize_t i
        cdef tuple names = self._names
        for i in range(len(names)):
            if names[i] is name or names[i] == name:
                return self.values()[i]
        raise KeyError(name)

    @property
    def app(self):
        """The app that serves the request."""
        return self.connection.app

    @property
    def scheme(self):
        """`"http"` or `"https"`."""
        return self.connection.scheme

    @property
    def client(self):
        """Address and port of the peer, if it has one."""
        return self.connection.client

    @property
    def server(self):
        """Address and port that the peer connected to, if there is one."""
        return self.connection.server


cdef class Response:
    """One HTTP response: a status, field lines and a body.

    Args:
        body: The whole body; `str` is encoded as UTF-8.
        status: The status code, 200 to 599.
        headers: Field lines to send; values are checked here.
        content_type: The media type, or None for none.

    Raises:
        ValueError: The status is out of range, or a header is malformed.
        TypeError: The body is neither `str` nor bytes-like.
    """

    def __init__(self, body=b"", status=200, headers=None, content_type=None):
        self._body = body if PyBytes_CheckExact(body) else _check_body(body)
        self._status = _check_status(status)
        if content_type is None and isinstance(body, str):
            self._content_type = b"text/plain; charset=utf-8"
        else:
            self._content_type = None if content_type is None else _media_type(content_type)
        self.stream = None
        self._fields = None
        self._view = None
        if headers is not None:
            self._add(headers)

    def __reduce__(self):
        if self.stream is not None:
            raise TypeError("a streamed response cannot be pickled or copied")
        return _restore, (type(self), self._body, self._status, self._content_type, self._fields)

    @property
    def status(self):
        """The status code, 200 to 599."""
        return self._status

    @status.setter
    def status(self, status):
        self._status = _check_status(status)

    @property
    def body(self):
        """The whole body; `str` may be assigned and is encoded as UTF-8."""
        return self._body

    @body.setter
    def body(self, body):
        self._body = _check_body(body)

    def _add(self, headers):
        cdef list fields = self.fields()
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"headers must be a mapping, or pairs of a name and a value, not {pair!r}")
            field = check_field(pair[0], pair[1])
            if field[0] == b"content-type":
                fields[:] = [kept for kept in fields if kept[0] != b"content-type"]
            fields.append(field)

    def fields(self):
        """Return the field lines as a list that may be changed; names are lower case, values are checked bytes."""
        if self._fields is None:
            self._fields = []
            if self._content_type is not None:
                self._fields.append((b"content-type", self._content_type))
                self._content_type = None
        return self._fields

    @classmethod
    def json(cls, obj, status=200, headers=None, content_type="application/json"):
        """Answer with `obj` encoded as JSON.

        Args:
            obj: Any JSON value; also dataclasses, models, datetimes, UUIDs, enums.
            status: The status code.
            headers: Field lines to add.
            content_type: The media type.

        Raises:
            TypeError: `obj` cannot be encoded; the message names the path to the culprit.
        """
        return cls(_dumps(obj), status, headers, content_type)

    @classmethod
    def text(cls, body, status=200, headers=None):
        """Answer with plain text, UTF-8."""
        return cls(body, status, headers, "text/plain; charset=utf-8")


# Media types that were checked before; bounded, since a program has few of them.
cdef dict _media_types = {}


cdef bytes _media_type(object content_type):
    cdef object known
    if type(content_type) is not str:
        return check_field("content-type", content_type)[1]
    known = _media_types.get(content_type) if HOT_13_CHECKED else None
    if known is None:
        known = check_field("content-type", content_type)[1]
        if len(_media_types) < 64:
            _media_types[content_type] = known
    return known


cdef bytes _check_body(object body):
    if isinstance(body, bytes):
        return bytes(body)
    if isinstance(body, str):
        return body.encode("utf-8")
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    kind = type(body).__name__
    raise TypeError(f"the body of a response must be str or bytes, not {kind}; use HttpResponse.json(...)")


cdef int _check_status(object status) except -1:
    if not isinstance(status, int):
        raise TypeError(f"a status must be an int, not {type(status).__name__}")
    if not 200 <= status <= 599:
        raise ValueError(f"a status must be 200 to 599, not {status}")
    return status


def _restore(cls, body, status, content_type, fields):
    cdef Response response = cls(body, status)
    response._content_type = content_type
    response._fields = None if fields is None else list(fields)
    return response
