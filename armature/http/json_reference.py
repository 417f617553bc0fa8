"""The JSON encoder that defines the output of all engines, in plain Python.

It is slow and so runs only where an engine cannot answer: for integers beyond 64 bits, times with an offset,
keys that an engine refuses, numbers that an engine spells in another way; and for an object that cannot be
encoded at all, because it knows the path to the culprit.
"""

from __future__ import annotations

from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import Any

from armature.http.json_types import as_builtin

__all__ = ["encode", "spell_float", "spell_path"]

_INFINITY = float("inf")
_Step = str | int


def spell_float(value: float) -> str:
    """Spell a float as orjson does: the shortest digits that read back the same; NaN and infinities are null."""
    if value != value or value in (_INFINITY, -_INFINITY):
        return "null"
    text = float.__repr__(value)
    mantissa, exponent, power = text.partition("e-")
    if not exponent:
        return text
    if power == "05":
        # repr changes to an exponent one power earlier.
        sign = "-" if mantissa[0] == "-" else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e-{power.lstrip('0')}"


def spell_path(path: list[_Step]) -> str:
    """Spell the way to a part of a value, such as `$.users[3].joined`."""
    parts = ["$"]
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif step.isidentifier():
            parts.append(f".{step}")
        else:
            parts.append(f"[{step!a}]")
    return "".join(parts)


class _Encoder:
    __slots__ = ("active", "out", "path")

    def __init__(self) -> None:
        self.out: list[str] = []
        self.path: list[_Step] = []
        self.active: set[int] = set()

    def fail(self, reason: str) -> TypeError:
        return TypeError(f"{spell_path(self.path)}: {reason}")

    def string(self, value: str) -> str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise self.fail("cannot encode a str that holds a lone surrogate") from None
        return encode_basestring(value)

    def scalar(self, value: Any) -> str | None:
        """Spell a value without parts, as a key or alone; None if it is none."""
        if value is None:
            return "null"
        if value is True:
            return "true"
        if value is False:
            return "false"
        if isinstance(value, int):
            try:
                return int.__repr__(value)
            except ValueError as error:
                raise self.fail(f"cannot encode an int: {error}") from None
        if isinstance(value, float):
            return spell_float(value)
        return None

    def key(self, value: Any) -> str:
        for _ in range(4):
            if hasattr(value, "_value_"):
                value = value.value
            if isinstance(value, str):
                return str.__str__(value)
            text = self.scalar(value)
            if text is not None:
                return text
            if isinstance(value, (tuple, list, dict)):
                break
            try:
                value = as_builtin(value)
            except TypeError:
                break
        raise self.fail(f"cannot encode a key of {type(value)!r}")

    def write(self, value: Any) -> None:
        # An enum member may be a str or an int as well; its value is what counts.
        if hasattr(value, "_value_") and hasattr(type(value), "__members__"):
            value = value.value
        if isinstance(value, str):
            self.out.append(self.string(value))
            return
        text = self.scalar(value)
        if text is not None:
            self.out.append(text)
            return
        identity = id(value)
        if identity in self.active:
            raise self.fail(f"cannot encode a circular reference to {type(value)!r}")
        self.active.add(identity)
        try:
            if isinstance(value, dict):
                self.parts("{", value.items(), "}")
            elif isinstance(value, (list, tuple)):
                self.parts("[", enumerate(value), "]")
            elif hasattr(type(value), "__struct_fields__"):
                self.struct(value)
            else:
                try:
                    plain = as_builtin(value)
                except TypeError as error:
                    raise self.fail(str(error)) from error
                self.write(plain)
        finally:
            self.active.discard(identity)

    def struct(self, value: Any) -> None:
        try:
            plain = as_builtin(value)
        except TypeError as error:
            # msgspec does not say where; the attribute that fails alone does.
            for name in type(value).__struct_fields__:
                self.path.append(name)
                _Encoder.write(self, getattr(value, name))
                self.path.pop()
            raise self.fail(str(error)) from error
        self.write(plain)

    def parts(self, opening: str, items: Iterable[tuple[Any, Any]], closing: str) -> None:
        out, path = self.out, self.path
        out.append(opening)
        separator = ""
        for step, value in items:
            if opening == "{":
                step = self.key(step)
                path.append(step)
                out.append(f"{separator}{self.string(step)}:")
            else:
                path.append(step)
                if separator:
                    out.append(separator)
            self.write(value)
            path.pop()
            separator = ","
        out.append(closing)


def encode(obj: Any) -> bytes:
    """Encode an object as JSON by the rules alone.

    Args:
        obj: The object.

    Raises:
        TypeError: Something in it cannot be encoded; the message begins with its path, such as `$.users[3].joined`.
    """
    encoder = _Encoder()
    try:
        encoder.write(obj)
    except RecursionError:
        raise TypeError(f"{spell_path(encoder.path[:8])}…: cannot encode, nested too deeply") from None
    return "".join(encoder.out).encode("utf-8")
