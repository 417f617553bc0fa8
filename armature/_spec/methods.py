"""Request methods that have a number (RFC 9110 section 9, RFC 5789); any other token is `OTHER`."""

from __future__ import annotations

__all__ = ["METHODS", "METHOD_IDS", "OTHER"]

#: The position of a method in this tuple is its number.
METHODS: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")

METHOD_IDS: dict[str, int] = {name: number for number, name in enumerate(METHODS)}

#: The number of every method that is not in `METHODS`.
OTHER = len(METHODS)
