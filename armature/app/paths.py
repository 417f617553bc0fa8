"""Paths as bytes, and what is left of them below the path that the app itself stands at."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

__all__ = ["below_root", "own_path", "quote_path"]


def quote_path(path: str) -> bytes:
    """Percent-encode a decoded path (RFC 3986 section 3.3)."""
    return quote(path, safe="/!$&'()*+,;=:@~").encode("ascii")


def below_root(raw_path: bytes, root_path: str) -> bytes:
    """Take the root path off; some ASGI servers leave it out of the path, and so does this then.

    Args:
        raw_path: The whole path, undecoded.
        root_path: Where the app stands, decoded, without a slash at its end.
    """
    if not root_path:
        return raw_path
    root = quote_path(root_path.rstrip("/"))
    if raw_path == root:
        return b"/"
    return raw_path[len(root) :] if raw_path.startswith(root + b"/") else raw_path


def own_path(request: Any) -> bytes:
    """The part of a request's path that the app's router matches."""
    return below_root(request.raw_path, getattr(request.connection, "root_path", ""))
