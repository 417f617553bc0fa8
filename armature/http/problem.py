"""Problem details: errors in a form that programs read (RFC 9457)."""

from __future__ import annotations

from typing import Any

from armature._spec.status import REASONS

__all__ = ["PROBLEM_JSON", "problem_details"]

PROBLEM_JSON = "application/problem+json"


def problem_details(
    status: int = 500,
    title: str | None = None,
    detail: Any = None,
    type: str | None = None,
    instance: str | None = None,
    **extensions: Any,
) -> dict[str, Any]:
    """Put together the members of a problem details object.

    Args:
        status: The status code.
        title: A summary of the kind of problem; the reason phrase of the status by default.
        detail: What is wrong this time, for a person.
        type: A URI that identifies the kind of problem; absent means `about:blank`.
        instance: A URI that identifies this occurrence.
        extensions: Further members; they cannot replace those above.
    """
    members: dict[str, Any] = {}
    if type is not None:
        members["type"] = type
    members["title"] = REASONS.get(status, "Error") if title is None else title
    members["status"] = status
    if detail is not None:
        members["detail"] = detail
    if instance is not None:
        members["instance"] = instance
    members.update(extensions)
    return members
