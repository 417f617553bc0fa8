"""What every JSON engine makes of the types that JSON does not have.

The rules are those that orjson and msgspec agree on where they know a type; the rest is decided here, once:

- datetime, date and time as RFC 3339 says, an offset of zero as `Z`; an offset with seconds, which RFC 3339 does not
  have and nobody has used since the 1970s, is rounded to the minute, the halves as the engine likes;
- timedelta as an ISO 8601 duration of days and seconds, `P1DT3661.5S`;
- UUID, Decimal, paths and IP addresses as strings (a Decimal as a number would lose digits in the reader);
- bytes, bytearray and memoryview as base64 (RFC 4648 section 4);
- an Enum as its value, at any depth;
- a dataclass as an object of all its fields; an attrs class as one of its public attributes;
- a pydantic model as `model_dump(mode="json")` says, a msgspec Struct as msgspec encodes it;
- sets, deques, ranges, views and other sequences as arrays, other mappings as objects, NumPy values by `tolist()`;
- generators and other iterators are refused: encoding twice would lose what they held.

Classes are recognised by name, so that no optional package and no rarely used module is imported for them.
"""

from __future__ import annotations

import collections.abc
import os
from binascii import b2a_base64
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from operator import attrgetter
from typing import Any

__all__ = ["as_builtin"]

_Rule = Callable[[Any], Any]


def _offset(value: datetime | time) -> str:
    offset = value.utcoffset()
    if offset is None:
        return ""
    seconds = offset.days * 86400 + offset.seconds
    sign = "-" if seconds < 0 else "+"
    minutes = (abs(seconds) + 30) // 60
    return "Z" if minutes == 0 else f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"


def _datetime(value: datetime) -> str:
    text = value.isoformat()
    length = len(text)
    # 2000-01-02T03:04:05, with or without microseconds: 25 and 32 with an offset of hours and minutes.
    if length in (25, 32):
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if length in (19, 26):
        return text
    return value.replace(tzinfo=None, fold=0).isoformat() + _offset(value)


def _time(value: time) -> str:
    return value.replace(tzinfo=None, fold=0).isoformat() + _offset(value)


def _timedelta(value: timedelta) -> str:
    sign = ""
    if value.days < 0:
        sign, value = "-", -value
    text = f"{sign}P"
    if value.days or not (value.seconds or value.microseconds):
        text += f"{value.days}D"
    if value.seconds or value.microseconds:
        fraction = f".{value.microseconds:06d}".rstrip("0") if value.microseconds else ""
        text += f"T{value.seconds}{fraction}S"
    return text


def _base64(value: bytes | bytearray | memoryview) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


def _value(value: Any) -> Any:
    return value.value


def _model(value: Any) -> Any:
    return value.model_dump(mode="json")


def _struct(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value, enc_hook=as_builtin)


def _path(value: Any) -> str:
    return os.fsdecode(value)


def _tolist(value: Any) -> Any:
    return value.tolist()


def _attributes(names: tuple[str, ...]) -> _Rule:
    if not names:
        return lambda value: {}
    if len(names) == 1:
        name = names[0]
        return lambda value: {name: getattr(value, name)}
    values = attrgetter(*names)
    return lambda value: dict(zip(names, values(value), strict=True))


#: By module and name of a class or one of its bases, the most derived first.
_BY_NAME: dict[tuple[str, str], _Rule] = {
    ("enum", "Enum"): _value,
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): date.isoformat,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): _timedelta,
    ("uuid", "UUID"): str,
    ("decimal", "Decimal"): str,
    ("builtins", "bytes"): _base64,
    ("builtins", "bytearray"): _base64,
    ("builtins", "memoryview"): _base64,
    ("builtins", "str"): str.__str__,
    ("builtins", "int"): int.__int__,
    ("builtins", "float"): float.__float__,
    ("builtins", "tuple"): list,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("builtins", "set"): list,
    ("builtins", "frozenset"): list,
    ("builtins", "range"): list,
    ("collections", "deque"): list,
    ("ipaddress", "_IPAddressBase"): str,
}

_ARRAYS = (collections.abc.Set, collections.abc.Sequence, collections.abc.MappingView)


def _find(cls: type) -> _Rule | None:
    if cls is bool:
        # An engine that asks about it has found it as a key, where it must not become the int that it also is.
        return None
    if hasattr(cls, "__dataclass_fields__"):
        from dataclasses import fields

        return _attributes(tuple(field.name for field in fields(cls)))
    if hasattr(cls, "model_dump"):
        return _model
    if hasattr(cls, "__struct_fields__"):
        return _struct
    attributes = getattr(cls, "__attrs_attrs__", None)
    if attributes is not None:
        return _attributes(tuple(item.name for item in attributes if not item.name.startswith("_")))
    # An Enum that is a str or an int as well is its value first of all.
    bases = sorted(cls.__mro__, key=lambda base: base.__module__ != "enum")
    for base in bases:
        rule = _BY_NAME.get((base.__module__, base.__qualname__))
        if rule is not None:
            return rule
        if base.__module__.partition(".")[0] == "numpy" and hasattr(base, "tolist"):
            return _tolist
    if issubclass(cls, os.PathLike):
        return _path
    if issubclass(cls, collections.abc.Mapping):
        return dict
    if issubclass(cls, _ARRAYS):
        return list
    return None


# Classes made at run time (a namedtuple per call) must not pile up here.
_RULES_LIMIT = 1024
_rules: dict[type, _Rule] = {}


def as_builtin(value: Any) -> Any:
    """Turn a value into one that is nearer to JSON; every engine calls this for what it does not know.

    Args:
        value: Anything but the types of JSON itself.

    Raises:
        TypeError: There is no rule for its class.
    """
    cls = type(value)
    rule = _rules.get(cls)
    if rule is None:
        rule = _find(cls)
        if rule is None:
            raise TypeError(f"cannot encode {cls!r}")
        if len(_rules) >= _RULES_LIMIT:
            _rules.clear()
        _rules[cls] = rule
    return rule(value)
