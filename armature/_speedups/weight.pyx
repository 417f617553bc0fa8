"""How much JSON a value makes, estimated: what is large is encoded in slices, so that the loop is not held up.

The unit is about what a number or a short text takes. A list or tuple is taken to be made of items like its first and
its last one; a dict is looked through. No code of a value's class runs.
"""

from cpython.bool cimport PyBool_Check
from cpython.dict cimport PyDict_CheckExact, PyDict_Next, PyDict_Size
from cpython.float cimport PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_GET_LENGTH

__all__ = ["fitting", "weigh"]

cdef enum:
    TEXT_SHIFT = 6
    OTHER = 8


def weigh(value, most):
    """Estimate how much JSON a value makes.

    Args:
        value: Any value.
        most: Where to stop counting; the largest number returned.
    """
    cdef long long bound = most
    return min(weight(value, bound, LEVELS), bound)


def fitting(items, most):
    """Return how many items, from the first one on, make less JSON than `most` together.

    Args:
        items: The items.
        most: The bound, in the unit of `weigh`.
    """
    cdef long long bound = most, total = 0
    cdef Py_ssize_t count = 0
    for item in items:
        total += weight(item, bound, LEVELS)
        if total >= bound:
            return count
        count += 1
    return count


cdef long long weight(object value, long long most, int levels) except? -1:
    """The estimate, which may be above `most` once it has reached it."""
    cdef long long total
    cdef Py_ssize_t at = 0, size
    cdef PyObject* key
    cdef PyObject* item
    if PyUnicode_CheckExact(value):
        return 1 + (PyUnicode_GET_LENGTH(value) >> TEXT_SHIFT)
    if PyLong_CheckExact(value) or PyFloat_CheckExact(value) or PyBool_Check(value) or value is None:
        return 1
    if PyDict_CheckExact(value):
        if levels == 0:
            return 1 + PyDict_Size(value)
        total = 1
        size = PyDict_Size(value)
        while size > 0 and total < most and PyDict_Next(value, &at, &key, &item):
            total += weight(<object> item, most - total, levels - 1)
            size -= 1
        return total
    if PyList_CheckExact(value):
        size = PyList_GET_SIZE(value)
        if levels == 0 or size == 0:
            return 1 + size
        total = weight((<list> value)[0], most, levels - 1) + weight((<list> value)[size - 1], most, levels - 1)
    elif PyTuple_CheckExact(value):
        size = PyTuple_GET_SIZE(value)
        if levels == 0 or size == 0:
            return 1 + size
        total = weight((<tuple> value)[0], most, levels - 1) + weight((<tuple> value)[size - 1], most, levels - 1)
    else:
        return OTHER
    # Bounded, so that the product cannot overflow.
    return 1 + size * min(total, 2 * most) // 2
