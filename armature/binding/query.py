"""Query strings, read for the parameters of one call: the same pairs as `HttpRequest.query`, without its objects."""

from __future__ import annotations

from armature.http.url import PAIR_LIMIT, parse_pairs

__all__ = ["last_values", "pairs_of"]

pairs_of = parse_pairs

_NONE: dict[str, str] = {}
# As numbers: `in` takes six times as long to look for a byte string.
_PERCENT, _PLUS = b"%+"


def last_values(query: bytes) -> dict[str, str]:
    """Return the last value of every name; the result is not to be changed.

    Args:
        query: The query string, undecoded.

    Raises:
        HTTPException: It has too many pairs; status 400.
    """
    if not query:
        return _NONE
    many = len(query) >= PAIR_LIMIT and query.count(b"&") >= PAIR_LIMIT
    if many or _PERCENT in query or _PLUS in query or not query.isascii():
        return dict(parse_pairs(query))
    values: dict[str, str] = {}
    for pair in query.decode("ascii").split("&"):
        if pair:
            name, _, value = pair.partition("=")
            values[name] = value
    return values
