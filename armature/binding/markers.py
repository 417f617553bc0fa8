"""What stands in `Annotated[...]` (or as a default) to say where a parameter comes from and what it must satisfy.

`Query`, `Path`, `Header` and `Cookie` are functions that return Any, so that `limit: int = Query(10)` satisfies a
type checker; what they make is a `Marker`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from armature.exceptions import ConfigurationError

__all__ = ["MISSING", "Cookie", "Header", "Location", "Marker", "Path", "Query"]

Location: TypeAlias = Literal["path", "query", "header", "cookie"]


class _Missing:
    """The absence of a default, where None is a default like any other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(eq=False, kw_only=True)
class Marker:
    """Where a parameter comes from, under which name, within which bounds."""

    location: Location
    default: Any = MISSING
    default_factory: Callable[[], Any] | None = None
    alias: str | None = None
    gt: Any = None
    ge: Any = None
    lt: Any = None
    le: Any = None
    multiple_of: Any = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    allow_inf_nan: bool = False
    convert_underscores: bool = True
    title: str | None = None
    description: str | None = None
    deprecated: bool | str | None = None
    include_in_schema: bool = True
    example: Any = MISSING
    examples: Sequence[Any] = ()
    openapi_examples: Mapping[str, Any] = field(default_factory=dict)
    json_schema_extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.default is not MISSING and self.default_factory is not None:
            raise ConfigurationError(f"{self.location.title()}(...) takes default or default_factory, not both")


def _marker(location: Location, default: Any, options: dict[str, Any]) -> Marker:
    # FastAPI spells "required" as an ellipsis; `regex` is its old name of `pattern`.
    if default is ...:
        default = MISSING
    if "validation_alias" in options:
        alias = options.pop("validation_alias")
        options.setdefault("alias", alias)
    if "regex" in options:
        options.setdefault("pattern", options.pop("regex"))
    unknown = sorted(options.keys() - Marker.__dataclass_fields__.keys())
    if unknown:
        raise ConfigurationError(
            f"{location.title()}(...) does not know {', '.join(unknown)}; it takes "
            + ", ".join(sorted(Marker.__dataclass_fields__.keys() - {"location"}))
        )
    return Marker(location=location, default=default, **options)


def Query(default: Any = MISSING, **options: Any) -> Any:
    """Take the parameter from the query string.

    Args:
        default: The value if the request carries none; without one the parameter is required.
        **options: `alias`, `default_factory`, `gt`, `ge`, `lt`, `le`, `multiple_of`, `min_length`, `max_length`,
            `pattern`, `allow_inf_nan`; and for the schema `title`, `description`, `deprecated`, `examples`,
            `include_in_schema`, `json_schema_extra`.

    Raises:
        ConfigurationError: An option is unknown, or contradicts another.
    """
    return _marker("query", default, options)


def Path(default: Any = MISSING, **options: Any) -> Any:
    """Take the parameter from the path; options as for `Query`, but a path parameter is always there."""
    if (default is not MISSING and default is not ...) or options.get("default_factory") is not None:
        raise ConfigurationError("Path(...) takes no default: a route only matches when the parameter is there")
    return _marker("path", default, options)


def Header(default: Any = MISSING, **options: Any) -> Any:
    """Take the parameter from a header field: `user_agent` reads `user-agent` unless `convert_underscores=False`.

    Other options as for `Query`. A list takes every field line of the name.
    """
    return _marker("header", default, options)


def Cookie(default: Any = MISSING, **options: Any) -> Any:
    """Take the parameter from a cookie; options as for `Query`."""
    return _marker("cookie", default, options)
