"""Numbers that a route's compiled plan and the connection share: how a handler is called, how a parameter is read."""

from __future__ import annotations

__all__ = ["CALL_BARE", "CALL_PARAMS", "CALL_REQUEST", "KIND_INT", "KIND_STR"]

#: `call()`
CALL_BARE = 0
#: `call(request)`
CALL_REQUEST = 1
#: `call(*path_parameters)`, each converted by its kind; what does not convert goes through the general plan.
CALL_PARAMS = 2

#: A percent-decoded `str`.
KIND_STR = 0
#: An `int` of 1 to 18 decimal digits with an optional minus sign.
KIND_INT = 1
