"""What the C library does with memory that was freed: a server that receives large bodies needs it again at once."""

from __future__ import annotations

import os
import sys

__all__ = ["keep_freed"]

# The numbers of malloc.h, and the greatest threshold that glibc takes.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MOST_MMAP_THRESHOLD = 32 * 1024 * 1024


def keep_freed(size: int) -> bool:
    """Let the C library keep up to `size` bytes of freed memory, instead of giving large blocks back to the system.

    A body of a megabyte is otherwise received into fresh pages each time, and having those made costs more than
    receiving it. Whoever has set glibc's own variables for it is not overruled.

    Args:
        size: Bytes, 0 to leave everything as it is.

    Returns:
        Whether that was possible: it is with glibc.
    """
    if not size or sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, min(size, _MOST_MMAP_THRESHOLD)) and mallopt(_TRIM_THRESHOLD, size))
