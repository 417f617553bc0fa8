"""Deprecate a name with a version, a replacement and a removal date, always in the same words."""

from __future__ import annotations

import warnings

__all__ = ["warn_deprecated"]


def warn_deprecated(name: str, *, since: str, removal: str, instead: str | None, stacklevel: int = 1) -> None:
    """Tell the caller's caller that something will go away.

    Args:
        name: What is deprecated, as the user writes it.
        since: The version that deprecated it.
        removal: The version that removes it.
        instead: What to write in its place, or None if there is no replacement.
        stacklevel: Frames between this call and the user's line; 1 for a public function that calls this directly.
    """
    message = f"{name} is deprecated since Armature {since} and will be removed in {removal}"
    message += f"; use {instead} instead" if instead is not None else "; there is no replacement"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 2)
