"""From a parameter's annotation to the convertor of its text, with its constraints folded in."""

from __future__ import annotations

import collections.abc
import enum
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from armature.binding.scalars import (
    SCALARS,
    Convertor,
    InvalidValue,
    choices_convertor,
    enum_convertor,
    inclusive_float,
    string,
)

__all__ = ["InvalidItems", "Kind", "interpret", "unwrap"]

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "allow_inf_nan")
_NONE_TYPE = type(None)

_CONTAINERS: dict[Any, tuple[str, Callable[[list[Any]], Any]]] = {
    list: ("List", list),
    set: ("Set", set),
    frozenset: ("Frozenset", frozenset),
    tuple: ("Tuple", tuple),
    collections.abc.Sequence: ("List", list),
    collections.abc.Collection: ("List", list),
    collections.abc.Iterable: ("List", list),
    collections.abc.MutableSequence: ("List", list),
    collections.abc.Set: ("Set", set),
}


class InvalidItems(ValueError):
    """Some of a repeated parameter's texts are no values of the wanted type.

    Args:
        items: Position, text and error of each.
    """

    def __init__(self, items: list[tuple[int, str, InvalidValue]]) -> None:
        self.items = items
        super().__init__(items)


@dataclass(eq=False, repr=False)
class Kind:
    """How the text, or the texts, of one parameter become a value.

    Args:
        convert: Takes a `str`, or a list of them if `many`.
        many: Whether the parameter takes every occurrence.
        optional: Whether the annotation allows None.
    """

    convert: Callable[[Any], Any]
    many: bool = False
    optional: bool = False


def unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Take `Annotated`, `NewType` and `type X = ...` off an annotation; return type and metadata, outermost last."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            metadata = [*annotation.__metadata__, *metadata]
            annotation = annotation.__origin__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation, metadata


def is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (typing.Union, types.UnionType)


def interpret(
    annotation: Any,
    bounds: dict[str, Any] | None = None,
    adapt: Callable[[Any, Convertor | None], Convertor] | None = None,
) -> Kind | None:
    """Find out how a parameter of this annotation is read from text.

    Args:
        annotation: The annotation, resolved.
        bounds: Constraints from outside the annotation, such as those of a marker given as the default.
        adapt: Takes each type of the annotation and its convertor, if it has one, and returns what is used instead.

    Returns:
        None if values of this type cannot be read from the text of a parameter.
    """
    annotation, metadata = unwrap(annotation)
    limits = collect_bounds(metadata)
    if bounds:
        limits.update(bounds)
    optional = False
    if is_union(annotation):
        members = [member for member in get_args(annotation) if unwrap(member)[0] is not _NONE_TYPE]
        optional = len(members) < len(get_args(annotation))
        if len(members) == 1:
            kind = interpret(members[0], limits, adapt)
            return None if kind is None else Kind(kind.convert, kind.many, optional or kind.optional)
        kinds = [interpret(member, limits, adapt) for member in members]
        convertors = [kind.convert for kind in kinds if kind is not None and not kind.many]
        if len(convertors) < len(kinds):
            return None
        return Kind(_first_of(convertors), False, optional)
    scalar = _scalar(annotation, limits)
    if adapt is not None:
        scalar = adapt(annotation, scalar)
    if scalar is not None:
        return Kind(_constrained(scalar, annotation, limits))
    return _container(annotation, limits)


def collect_bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    """Read the constraints off metadata by the field's common names.

    `annotated_types` (`Ge`, `Len`, `Interval`), `msgspec.Meta`, pydantic's `Field` and our own markers all spell
    them alike, so that none of those packages needs to be imported here.
    """
    limits: dict[str, Any] = {}
    for item in metadata:
        nested = getattr(item, "metadata", None)
        if isinstance(nested, (list, tuple)):
            limits.update(collect_bounds(nested))
        for name in _BOUNDS:
            value = getattr(item, name, None)
            if value is not None and value is not False and not callable(value):
                limits[name] = value
        if type(item).__name__ == "Predicate" and callable(getattr(item, "func", None)):
            limits["predicate"] = item.func
    return limits


def _scalar(annotation: Any, limits: dict[str, Any]) -> Convertor | None:
    if annotation is Any or annotation is object:
        return string
    if get_origin(annotation) is Literal:
        values = [value for value in get_args(annotation) if value is not None]
        pairs = [(value.value if isinstance(value, enum.Enum) else value, value) for value in values]
        return choices_convertor(pairs, "literal_error")
    if not isinstance(annotation, type) or get_origin(annotation) is not None:
        return None
    if issubclass(annotation, enum.Enum):
        return enum_convertor(annotation)
    if annotation is float and limits.get("allow_inf_nan"):
        return inclusive_float
    return SCALARS.get(annotation)


def _container(annotation: Any, limits: dict[str, Any]) -> Kind | None:
    origin = get_origin(annotation) or annotation
    try:
        named = _CONTAINERS.get(origin)
    except TypeError:
        return None
    if named is None:
        return None
    arguments = get_args(annotation)
    fixed: list[Convertor] | None = None
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        kinds = [interpret(argument) for argument in arguments]
        fixed = [kind.convert for kind in kinds if kind is not None and not kind.many]
        if len(fixed) < len(kinds):
            return None
    element = interpret(arguments[0]) if arguments and fixed is None else Kind(string)
    if element is None or element.many:
        return None
    of_element = element.convert
    name, build = named

    def convert(texts: Sequence[str]) -> Any:
        wrong: list[tuple[int, str, InvalidValue]] = []
        values: list[Any] = []
        if fixed is not None and len(fixed) != len(texts):
            kind, word = ("too_short", "at least") if len(texts) < len(fixed) else ("too_long", "at most")
            raise _wrong_length(name, kind, word, len(fixed), len(texts))
        for number, text in enumerate(texts):
            try:
                values.append(of_element(text) if fixed is None else fixed[number](text))
            except InvalidValue as error:
                wrong.append((number, text, error))
        if wrong:
            raise InvalidItems(wrong)
        result = build(values)
        least, most = limits.get("min_length"), limits.get("max_length")
        if least is not None and len(result) < least:
            raise _wrong_length(name, "too_short", "at least", least, len(result))
        if most is not None and len(result) > most:
            raise _wrong_length(name, "too_long", "at most", most, len(result))
        return result

    return Kind(convert, many=True)


def _wrong_length(name: str, kind: str, word: str, limit: int, actual: int) -> InvalidValue:
    items = "item" if limit == 1 else "items"
    return InvalidValue(
        kind,
        f"{name} should have {word} {limit} {items} after validation, not {actual}",
        {"field_type": name, "min_length" if kind == "too_short" else "max_length": limit, "actual_length": actual},
    )


def _first_of(convertors: list[Convertor]) -> Convertor:
    def convert(text: str) -> Any:
        failure: InvalidValue | None = None
        for convertor in convertors:
            try:
                return convertor(text)
            except InvalidValue as error:
                failure = failure or error
        assert failure is not None
        raise failure

    return convert


_COMPARISONS: dict[str, tuple[Callable[[Any, Any], bool], str, str]] = {
    "gt": (lambda value, limit: value > limit, "greater_than", "Input should be greater than {}"),
    "ge": (lambda value, limit: value >= limit, "greater_than_equal", "Input should be greater than or equal to {}"),
    "lt": (lambda value, limit: value < limit, "less_than", "Input should be less than {}"),
    "le": (lambda value, limit: value <= limit, "less_than_equal", "Input should be less than or equal to {}"),
    "multiple_of": (lambda value, limit: value % limit == 0, "multiple_of", "Input should be a multiple of {}"),
}


def _constrained(convert: Convertor, annotation: Any, limits: dict[str, Any]) -> Convertor:
    checks: list[Callable[[Any], InvalidValue | None]] = []
    for name, (holds, kind, template) in _COMPARISONS.items():
        if name in limits:
            checks.append(_comparison(holds, limits[name], kind, template, name))
    if annotation in (str, bytes):
        checks.extend(_length_checks(limits, "Data" if annotation is bytes else "String", annotation.__name__))
        if "pattern" in limits:
            checks.append(_pattern_check(limits["pattern"]))
    if "predicate" in limits:
        checks.append(_predicate_check(limits["predicate"]))
    if not checks:
        return convert
    if len(checks) == 1:
        (check,) = checks

        def convert_once(text: str) -> Any:
            value = convert(text)
            error = check(value)
            if error is not None:
                raise error
            return value

        return convert_once

    def convert_all(text: str) -> Any:
        value = convert(text)
        for check in checks:
            error = check(value)
            if error is not None:
                raise error
        return value

    return convert_all


def _comparison(
    holds: Callable[[Any, Any], bool], limit: Any, kind: str, template: str, name: str
) -> Callable[[Any], InvalidValue | None]:
    message = template.format(limit)

    def check(value: Any) -> InvalidValue | None:
        return None if holds(value, limit) else InvalidValue(kind, message, {name: limit})

    return check


def _length_checks(limits: dict[str, Any], noun: str, prefix: str) -> Iterable[Callable[[Any], InvalidValue | None]]:
    least: Any = limits.get("min_length")
    most: Any = limits.get("max_length")
    prefix = "string" if prefix == "str" else prefix
    unit = "byte" if prefix == "bytes" else "character"

    def too_short(value: Any) -> InvalidValue | None:
        if len(value) >= least:
            return None
        message = f"{noun} should have at least {least} {unit}{'' if least == 1 else 's'}"
        return InvalidValue(f"{prefix}_too_short", message, {"min_length": least})

    def too_long(value: Any) -> InvalidValue | None:
        if len(value) <= most:
            return None
        message = f"{noun} should have at most {most} {unit}{'' if most == 1 else 's'}"
        return InvalidValue(f"{prefix}_too_long", message, {"max_length": most})

    if least is not None:
        yield too_short
    if most is not None:
        yield too_long


def _pattern_check(pattern: str | re.Pattern[str]) -> Callable[[Any], InvalidValue | None]:
    source = pattern if isinstance(pattern, str) else pattern.pattern
    search = re.compile(pattern).search

    def check(value: Any) -> InvalidValue | None:
        if search(value) is not None:
            return None
        return InvalidValue("string_pattern_mismatch", f"String should match pattern '{source}'", {"pattern": source})

    return check


def _predicate_check(predicate: Callable[[Any], bool]) -> Callable[[Any], InvalidValue | None]:
    name = getattr(predicate, "__qualname__", repr(predicate))

    def check(value: Any) -> InvalidValue | None:
        return None if predicate(value) else InvalidValue("predicate_failed", f"Predicate {name} failed")

    return check
