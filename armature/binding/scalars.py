"""From the text of one parameter to a Python value, strictly and with FastAPI's error types.

A convertor takes a `str` and returns a value, or raises `InvalidValue`. Texts accepted are ASCII and say exactly
one value: Python's own leniencies (`int("1_000")`, digits of other scripts, `float("nan")`) are refused.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

__all__ = [
    "SCALARS",
    "Convertor",
    "InvalidValue",
    "choices_convertor",
    "enum_convertor",
    "finite_float",
    "inclusive_float",
]

Convertor: TypeAlias = Callable[[str], Any]


class InvalidValue(ValueError):
    """A text that is no value of the wanted type.

    Args:
        kind: The machine-readable type of the error, in pydantic's words (`int_parsing`).
        message: What was expected, in one sentence without a full stop.
        context: Figures that the message is made of.
    """

    def __init__(self, kind: str, message: str, context: Mapping[str, Any] | None = None) -> None:
        self.kind = kind
        self.message = message
        self.context = context
        super().__init__(message)


_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII).fullmatch
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII).fullmatch
_NOT_FINITE = re.compile(r"\s*[+-]?(?:inf|infinity|nan)\s*", re.ASCII | re.IGNORECASE).fullmatch

_BOOLEANS: dict[str, bool] = {
    spelling: value
    for value, words in (
        (True, ("1", "true", "t", "yes", "y", "on")),
        (False, ("0", "false", "f", "no", "n", "off")),
    )
    for word in words
    for spelling in {word, word.upper(), word.capitalize()}
}

# ISO 8601 durations without years and months, whose length is not fixed; the clock form `[-][days ]hh:mm[:ss[.f]]`.
_ISO_DURATION = (
    r"(?P<sign>[+-])?P(?!$)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?!$)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d{1,6})?)S)?)?"
)
_CLOCK_DURATION = (
    r"(?P<sign>[+-])?(?:(?P<days>\d+) (?:days?,? )?)?"
    r"(?P<hours>\d{1,2}):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d(?:\.\d{1,6})?))?"
)


def integer(text: str) -> int:
    # Most are digits alone; the regular expression takes three times as long to see it.
    if (text.isascii() and text.isdigit()) or _INTEGER(text):
        try:
            return int(text)
        except ValueError:  # longer than sys.get_int_max_str_digits()
            raise InvalidValue(
                "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"
            ) from None
    raise InvalidValue("int_parsing", "Input should be a valid integer, unable to parse string as an integer")


def finite_float(text: str) -> float:
    if _NUMBER(text):
        value = float(text)
        if value - value == 0.0:
            return value
    elif not _NOT_FINITE(text):
        raise InvalidValue("float_parsing", "Input should be a valid number, unable to parse string as a number")
    raise InvalidValue("finite_number", "Input should be a finite number")


def inclusive_float(text: str) -> float:
    if _NUMBER(text) or _NOT_FINITE(text):
        return float(text)
    raise InvalidValue("float_parsing", "Input should be a valid number, unable to parse string as a number")


def boolean(text: str) -> bool:
    value = _BOOLEANS.get(text)
    if value is None:
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise InvalidValue("bool_parsing", "Input should be a valid boolean, unable to interpret input")
    return value


def string(text: str) -> str:
    return text


def octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def unique_id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidValue("uuid_parsing", "Input should be a valid UUID") from None


def decimal_number(text: str) -> decimal.Decimal:
    if _NUMBER(text):
        return decimal.Decimal(text.strip())
    if _NOT_FINITE(text):
        raise InvalidValue("finite_number", "Input should be a finite number")
    raise InvalidValue("decimal_parsing", "Input should be a valid decimal")


def date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InvalidValue(
            "date_parsing", f"Input should be a valid date in the format YYYY-MM-DD, {_reason(error)}"
        ) from None


def time(text: str) -> datetime.time:
    try:
        return datetime.time.fromisoformat(text)
    except ValueError as error:
        raise InvalidValue("time_parsing", f"Input should be in a valid time format, {_reason(error)}") from None


def timestamp(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidValue("datetime_parsing", f"Input should be a valid datetime, {_reason(error)}") from None


def duration(text: str) -> datetime.timedelta:
    try:
        match = re.fullmatch(_ISO_DURATION, text, re.ASCII) or re.fullmatch(_CLOCK_DURATION, text, re.ASCII)
        if match is not None:
            parts = match.groupdict()
            negative = parts.pop("sign") == "-"
            length = datetime.timedelta(**{unit: float(part) for unit, part in parts.items() if part is not None})
            return -length if negative else length
        if _NUMBER(text):
            return datetime.timedelta(seconds=float(text))
    except OverflowError:
        raise InvalidValue("time_delta_parsing", "Input should be a valid duration, it is too long") from None
    raise InvalidValue("time_delta_parsing", "Input should be a valid duration, such as PT1H30M, 01:30:00 or 5400")


def _reason(error: ValueError) -> str:
    # The interpreter's words differ between versions and repeat the input; what a client can act on is short.
    return "it is out of range" if "range" in str(error) or "must be in" in str(error) else "invalid format"


SCALARS: dict[Any, Convertor] = {
    str: string,
    int: integer,
    float: finite_float,
    bool: boolean,
    bytes: octets,
    uuid.UUID: unique_id,
    decimal.Decimal: decimal_number,
    datetime.date: date,
    datetime.time: time,
    datetime.datetime: timestamp,
    datetime.timedelta: duration,
}


def _spelled(choices: list[Any]) -> str:
    words = [repr(choice) for choice in choices]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def choices_convertor(choices: list[tuple[Any, Any]], kind: str) -> Convertor:
    """Make a convertor that accepts the spellings of a closed set of values.

    Args:
        choices: Pairs of a plain value (as it is spelled on the wire) and what to return for it.
        kind: The type of the error, `"enum"` or `"literal_error"`.
    """
    table: dict[str, Any] = {}
    for plain, result in choices:
        if isinstance(plain, bool):
            for spelling, value in _BOOLEANS.items():
                if value is plain:
                    table.setdefault(spelling, result)
        elif isinstance(plain, bytes):
            table.setdefault(plain.decode("utf-8", "surrogateescape"), result)
        else:
            table.setdefault(str(plain), result)
    expected = _spelled([plain for plain, _ in choices])
    message = f"Input should be {expected}"
    missing = object()

    def convert(text: str) -> Any:
        value = table.get(text, missing)
        if value is missing:
            raise InvalidValue(kind, message, {"expected": expected})
        return value

    return convert


def enum_convertor(kind: type[enum.Enum]) -> Convertor:
    """Make a convertor that accepts the values of an enumeration's members."""
    return choices_convertor([(member.value, member) for member in kind], "enum")
