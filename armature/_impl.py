"""The one place where the twins are chosen, for all of them at once.

`ARMATURE_PURE` set to anything but empty or `0` chooses the pure twins, as does an interpreter other than
CPython. `ARMATURE_REQUIRE_SPEEDUPS=1` forbids falling back. A compiled room that is absent is a reason to fall
back; one that is present but broken or stale is an error, never a silent fallback.
"""

from __future__ import annotations

import importlib
import os
import platform
from typing import TYPE_CHECKING, Any

_TWINS = (
    "asgi",
    "buffers",
    "chunked",
    "connection",
    "dispatch",
    "exchange",
    "message",
    "parser",
    "pump",
    "report",
    "router",
    "weight",
    "wire",
    "writer",
)

__all__ = [
    "IMPL",
    "PURE",
    "REASON",
    "asgi",
    "buffers",
    "chunked",
    "connection",
    "dispatch",
    "exchange",
    "load_reactor",
    "message",
    "parser",
    "pump",
    "report",
    "router",
    "weight",
    "wire",
    "writer",
]


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _choose() -> tuple[bool, str]:
    required = _flag("ARMATURE_REQUIRE_SPEEDUPS")
    if _flag("ARMATURE_PURE"):
        if required:
            raise ImportError("ARMATURE_PURE and ARMATURE_REQUIRE_SPEEDUPS contradict each other; unset one of them")
        return True, "ARMATURE_PURE is set"
    if platform.python_implementation() != "CPython":
        if required:
            raise ImportError(
                "ARMATURE_REQUIRE_SPEEDUPS is set, but the compiled twins need CPython; this interpreter is "
                + platform.python_implementation()
            )
        return True, "the interpreter is not CPython"
    try:
        import armature._speedups.connection
    except ModuleNotFoundError as error:
        # Only our own missing module means "not compiled"; anything else is a broken installation.
        if error.name is None or not error.name.startswith("armature._speedups"):
            raise
        from importlib.util import find_spec

        missing = [twin for twin in _TWINS if find_spec(f"armature._speedups.{twin}") is None]
        if len(missing) < len(_TWINS):
            # The compiled twins call each other in C: a part of them is no configuration.
            raise ImportError(
                f"the compiled twins are incomplete, {', '.join(missing) or error.name} is missing; "
                "install armature-framework again, or build them with: pip install -e ."
            ) from error
        if required:
            raise ImportError(
                "ARMATURE_REQUIRE_SPEEDUPS is set, but the compiled twins are not installed; "
                "build them with: pip install -e . (a C compiler is needed), or unset the variable"
            ) from error
        return True, "the compiled twins are not installed"
    return False, "compiled twins are installed"


if TYPE_CHECKING:
    from armature._pure import (
        asgi,
        buffers,
        chunked,
        connection,
        dispatch,
        exchange,
        message,
        parser,
        pump,
        report,
        router,
        weight,
        wire,
        writer,
    )

    PURE: bool
    REASON: str
else:
    PURE, REASON = _choose()
    if PURE:
        from armature._pure import (
            asgi,
            buffers,
            chunked,
            connection,
            dispatch,
            exchange,
            message,
            parser,
            pump,
            report,
            router,
            weight,
            wire,
            writer,
        )
    else:
        from armature._speedups import (
            asgi,
            buffers,
            chunked,
            connection,
            dispatch,
            exchange,
            message,
            parser,
            pump,
            report,
            router,
            weight,
            wire,
            writer,
        )

#: Which twins are running: `"c"` or `"py"`.
IMPL: str = "py" if PURE else "c"


def load_reactor() -> Any:
    """Return the module of the reactor, which is compiled and has no twin; None where the pure twins run."""
    if PURE:
        return None
    return importlib.import_module("armature._speedups.reactor")
