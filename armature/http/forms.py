"""Submitted forms: `application/x-www-form-urlencoded` (WHATWG URL section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armature.exceptions import HTTPException
from armature.http.multidict import MultiDict
from armature.http.url import PAIR_LIMIT, parse_pairs

if TYPE_CHECKING:
    from armature.http.request import HttpRequest

__all__ = ["FormData", "read_form"]


class FormData(MultiDict):
    """The fields of a form, read-only; `[]` and `get` answer the last value of a name, `getall` every one.

    Args:
        pairs: Names and values.
    """

    __slots__ = ()


async def read_form(request: HttpRequest, limit: int = PAIR_LIMIT) -> FormData:
    """Read the form that a request submits.

    Args:
        request: The request; its body is read whole.
        limit: The largest number of fields.

    Raises:
        HTTPException: The body is of another media type (415), or has more fields than the limit (400).
    """
    media_type = request.content_type
    if media_type is None and await request.body() == b"":
        return FormData()
    if media_type != "application/x-www-form-urlencoded":
        said = "has no content type" if not media_type else f"is {media_type}"
        raise HTTPException(
            415,
            f"The request body {said}; this route reads application/x-www-form-urlencoded.",
            headers={"accept": "application/x-www-form-urlencoded"},
        )
    return FormData(parse_pairs(await request.body(), limit, "form"))
