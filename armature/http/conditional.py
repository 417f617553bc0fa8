"""Conditional requests: entity tags, dates, and the order in which preconditions count (RFC 9110 section 13)."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from armature._spec.dates import parse_http_date
from armature.exceptions import HTTPException

if TYPE_CHECKING:
    from armature.http.headers import Headers
    from armature.http.request import HttpRequest
    from armature.http.response import HttpResponse

__all__ = ["check_preconditions", "conditional", "evaluate", "format_etag", "matches_if_range", "not_modified"]

# entity-tag (RFC 9110 section 8.8.3): no space and no double quote within.
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_TAG_LIST = re.compile(rf"[ \t,]*{_TAG.pattern}[ \t]*(?=,|$)")


def format_etag(tag: str, weak: bool = False) -> str:
    """Spell an entity tag, such as `"abc"` or `W/"abc"`.

    Args:
        tag: The opaque tag; one that is quoted already is taken as it is.
        weak: Whether it is a weak one.

    Raises:
        ValueError: It holds a space, a double quote or a control character.
    """
    if _TAG.fullmatch(tag):
        return tag
    quoted = f'W/"{tag}"' if weak else f'"{tag}"'
    if not _TAG.fullmatch(quoted):
        raise ValueError(f"invalid entity tag {tag!r}: it must not hold spaces, double quotes or control characters")
    return quoted


def _tags(header: str) -> list[tuple[bool, str]]:
    """The tags of a list, each with whether it is weak; what is malformed and follows is not looked at."""
    tags: list[tuple[bool, str]] = []
    position = 0
    while match := _TAG_LIST.match(header, position):
        tags.append((match[1] is not None, match[2]))
        position = match.end()
    return tags


def _listed(header: str, etag: str | None, strong: bool) -> bool:
    if etag is None:
        return False
    current = _TAG.fullmatch(etag)
    if current is None:
        return False
    if strong and current[1] is not None:
        return False
    return any(tag == current[2] and not (strong and weak) for weak, tag in _tags(header))


def evaluate(
    method: str, headers: Headers, etag: str | None, last_modified: int | None, exists: bool = True
) -> int | None:
    """Evaluate a request's preconditions in the order of RFC 9110 section 13.2.2, but for `If-Range`.

    Args:
        method: The request's method.
        headers: The request's fields.
        etag: The entity tag of the selected representation as it stands in `ETag`, or None if it has none.
        last_modified: When it was last modified, in seconds since the epoch, or None if that is not known.
        exists: Whether there is a representation at all, which `*` asks.

    Returns:
        304 or 412, or None if the request is to be performed.
    """
    reads = method in ("GET", "HEAD")
    if_match = headers.joined("if-match")
    if if_match is not None:
        if not (exists if if_match.strip() == "*" else _listed(if_match, etag, strong=True)):
            return 412
    else:
        if_unmodified_since = headers.getall("if-unmodified-since")
        if len(if_unmodified_since) == 1 and last_modified is not None:
            date = parse_http_date(if_unmodified_since[0])
            if date is not None and last_modified > date:
                return 412
    if_none_match = headers.joined("if-none-match")
    if if_none_match is not None:
        if exists if if_none_match.strip() == "*" else _listed(if_none_match, etag, strong=False):
            return 304 if reads else 412
    elif reads and last_modified is not None:
        if_modified_since = headers.getall("if-modified-since")
        if len(if_modified_since) == 1:
            date = parse_http_date(if_modified_since[0])
            if date is not None and last_modified <= date:
                return 304
    return None


def matches_if_range(headers: Headers, etag: str | None, last_modified: int | None) -> bool:
    """Say whether `If-Range` lets a `Range` count; it does where there is no `If-Range` (RFC 9110 section 13.1.5).

    Args:
        headers: The request's fields.
        etag: The entity tag of the selected representation, or None.
        last_modified: When it was last modified, in seconds since the epoch, or None.
    """
    values = headers.getall("if-range")
    if not values:
        return True
    if len(values) > 1:
        return False
    value = values[0].strip()
    if _TAG.fullmatch(value):
        # A weak tag never matches here: ranges of two representations must not be mixed.
        return etag is not None and value == etag and not value.startswith("W/")
    date = parse_http_date(value)
    # A date is a strong validator only if it is older than the clock's step (RFC 9110 section 8.8.2.2).
    return date is not None and date == last_modified and date < int(time.time())


# What describes a body that a 304 does not have (RFC 9110 section 15.4.5).
_DROPPED = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"content-language", b"content-range", b"accept-ranges"}
)


def not_modified(response: HttpResponse) -> HttpResponse:
    """Make the 304 that stands for a response: its fields but those that describe the body.

    Args:
        response: The response that would be sent.
    """
    from armature.http.response import HttpResponse

    fields = response.fields()
    has_etag = any(name == b"etag" for name, _ in fields)
    answer = HttpResponse(b"", 304)
    answer.fields().extend(
        field for field in fields if field[0] not in _DROPPED and not (has_etag and field[0] == b"last-modified")
    )
    return answer


def conditional(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Answer 304 or 412 in place of a response if the request's preconditions say so.

    Only responses to GET and HEAD with a 2xx status count; for a method that changes something, 412 would come too
    late: call `check_preconditions` before the change.

    Args:
        request: The request.
        response: The response that would be sent, with `ETag` or `Last-Modified` or both.

    Returns:
        The response itself, or one in its place.
    """
    if request.method not in ("GET", "HEAD") or not 200 <= response.status <= 299:
        return response
    headers = response.headers
    modified = headers.get("last-modified")
    status = evaluate(
        request.method, request.headers, headers.get("etag"), None if modified is None else parse_http_date(modified)
    )
    if status is None:
        return response
    if status == 304:
        return not_modified(response)
    return type(response).problem(412)


def check_preconditions(
    request: HttpRequest, etag: str | None = None, last_modified: int | None = None, exists: bool = True
) -> None:
    """Refuse a request whose preconditions do not hold; call it before changing what the request names.

    Args:
        request: The request.
        etag: The current entity tag, quoted or not, or None.
        last_modified: When it was last modified, in seconds since the epoch, or None.
        exists: Whether it exists.

    Raises:
        HTTPException: The request must not be performed: 412, or 304 for GET and HEAD.
    """
    tag = None if etag is None else format_etag(etag)
    status = evaluate(request.method, request.headers, tag, last_modified, exists)
    if status is not None:
        raise HTTPException(status, headers=None if tag is None else {"etag": tag})
