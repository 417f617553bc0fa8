"""Proactive negotiation: what a client accepts against what there is (RFC 9110 section 12.5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from armature.http.media import parse_media_type, split_quoted

if TYPE_CHECKING:
    from armature._impl import message

__all__ = ["accepts", "accepts_encoding", "add_vary"]

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def _weight(parameters: dict[str, str]) -> float | None:
    """Take the weight out of an element's parameters; None if it is malformed, and then the element does not count."""
    value = parameters.pop("q", None)
    if value is None:
        return 1.0
    return float(value) if _WEIGHT.fullmatch(value) else None


def _elements(header: str) -> list[tuple[str, dict[str, str], float]]:
    elements = []
    for piece in split_quoted(header, ","):
        name, parameters = parse_media_type(piece)
        weight = _weight(parameters)
        if weight is not None and name:
            elements.append((name, parameters, weight))
    return elements


def _quality(offer: str, elements: list[tuple[str, dict[str, str], float]]) -> float:
    """The weight of the most specific range that matches an offer (RFC 9110 section 12.5.1), 0 if none does."""
    name, parameters = parse_media_type(offer)
    family = name.partition("/")[0]
    found = (-1, -1)
    quality = 0.0
    for range_name, range_parameters, weight in elements:
        if range_name == name:
            if any(parameters.get(key, "").lower() != value.lower() for key, value in range_parameters.items()):
                continue
            specificity = (2, len(range_parameters))
        elif range_name == f"{family}/*":
            specificity = (1, 0)
        elif range_name in ("*/*", "*"):
            specificity = (0, 0)
        else:
            continue
        if specificity > found:
            found, quality = specificity, weight
    return quality


def accepts(header: str | None, offers: Sequence[str]) -> str | None:
    """Choose the media type that a client likes best.

    Args:
        header: The value of `Accept`; several lines joined by commas. None or empty: anything will do.
        offers: Media types such as `application/json`, the server's favourite first; it wins among equals.

    Returns:
        One of the offers, or None if none of them is acceptable.
    """
    if not offers:
        return None
    elements = _elements(header) if header else []
    if not elements:
        return offers[0]
    best, best_quality = None, 0.0
    for offer in offers:
        quality = _quality(offer, elements)
        if quality > best_quality:
            best, best_quality = offer, quality
    return best


def accepts_encoding(header: str | None, offers: Sequence[str]) -> str | None:
    """Choose the content coding that a client likes best (RFC 9110 section 12.5.3).

    Args:
        header: The value of `Accept-Encoding`; several lines joined by commas. Without one nothing is encoded.
        offers: Codings such as `br`, the server's favourite first; it wins among equals. `identity` need not be
            among them: it is the answer where no offer is liked at least as much.

    Returns:
        One of the offers, `"identity"`, or None if not even `identity` is acceptable.
    """
    if not header:
        return "identity"
    weights = {name: weight for name, _, weight in reversed(_elements(header))}
    # x-gzip and x-compress are the same codings (RFC 9110 section 8.4.1).
    for name in ("gzip", "compress"):
        if f"x-{name}" in weights:
            weights.setdefault(name, weights[f"x-{name}"])
    rest = weights.get("*")
    # identity is acceptable unless it is excluded by name, or by * without being named.
    identity = weights.get("identity")
    if identity is None:
        identity = 0.0 if rest == 0.0 else None
    best, best_quality = None, 0.0
    for offer in offers:
        quality = weights.get(offer, rest)
        if quality is not None and quality > best_quality and offer != "identity":
            best, best_quality = offer, quality
    if best is not None and (identity is None or best_quality >= identity):
        return best
    if identity == 0.0:
        return None
    return "identity"


def add_vary(response: message.Response, names: Sequence[bytes]) -> None:
    """Say in `Vary` that a response depends on fields of the request (RFC 9110 section 12.5.5).

    Args:
        response: The response.
        names: The fields, in lower case; those that are listed already are not listed again.
    """
    if not names:
        return
    fields = response.fields()
    present = [value for name, value in fields if name == b"vary"]
    listed = {part.strip().lower() for value in present for part in value.split(b",")}
    if b"*" in listed:
        return
    missing = [name for name in names if name not in listed]
    if missing:
        fields.append((b"vary", b", ".join(missing)))
