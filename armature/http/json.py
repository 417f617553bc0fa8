"""JSON by the fastest engine that is installed, with the same bytes from each.

orjson is preferred, then msgspec, then the standard library. The engine is imported when the first object is
encoded or decoded, or by `use`. Output is compact, UTF-8 is not escaped, NaN and infinities are `null`; other
types are encoded as `armature.http.json_types` says. `armature.http.json_reference` defines the bytes: an engine
answers what it spells in the same way, and hands over the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from armature._impl import message, weight
from armature._spec.limits import JSON_LARGE

__all__ = ["ENGINES", "Engine", "dumps", "engine", "is_large", "loads", "use"]

#: Names of the engines, the preferred one first.
ENGINES: tuple[str, ...] = ("orjson", "msgspec", "stdlib")


class Engine(NamedTuple):
    """A JSON engine: its name, its encoder and its decoder."""

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes | bytearray | memoryview | str], Any]


# As a number: `in` takes six times as long to look for a byte string.
_DOT = 0x2E
# A time of day with five digits of microseconds; other times have six of them, or none.
_CUT_TIME = re.compile(rb'\.[0-9]{5}"(?<="[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{5}")')


def _orjson() -> Engine:
    from datetime import time

    import orjson

    from armature.http.json_reference import encode
    from armature.http.json_types import as_builtin

    # Passing dataclasses through: orjson's own way leaves out private fields and adds whatever stands in
    # __dict__, so that a cached_property changes the output once it has been read.
    options = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS
    options_keys = options | orjson.OPT_NON_STR_KEYS
    encode_fast, decode = orjson.dumps, orjson.loads

    def encode_rest(obj: Any, problem: str) -> bytes:
        if problem.startswith("Dict key"):
            try:
                text = encode_fast(obj, as_builtin, options_keys)
            except TypeError:
                pass
            else:
                if cuts_zeros and _CUT_TIME.search(text) is not None:
                    return encode(obj)
                return text
        return encode(obj)

    def dumps(obj: Any) -> bytes:
        try:
            return encode_fast(obj, as_builtin, options)
        except TypeError as error:
            problem = str(error)
        return encode_rest(obj, problem)

    def dumps_checked(obj: Any) -> bytes:
        try:
            text = encode_fast(obj, as_builtin, options)
        except TypeError as error:
            problem = str(error)
        else:
            if _DOT in text and _CUT_TIME.search(text) is not None:
                return encode(obj)
            return text
        return encode_rest(obj, problem)

    # orjson 3.13 writes time(0, 0, 0, 10000), a hundredth of a second, as a tenth of one.
    cuts_zeros = encode_fast(time(0, 0, 0, 10000)) != b'"00:00:00.010000"'

    def loads(data: bytes | bytearray | memoryview | str) -> Any:
        return decode(data)

    return Engine("orjson", dumps_checked if cuts_zeros else dumps, loads)


# msgspec writes 1e16 where orjson (and Python) write 1e+16, also inside keys made of floats.
_EXPONENT = re.compile(rb'[0-9]e[0-9]|"(?:nan|-?inf)":')
_STRING_OR_EXPONENT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(:?)|(-?[0-9]+(?:\.[0-9]+)?)e([0-9]+)')
_FLOAT_KEY = re.compile(rb'"(?:-?[0-9]+(?:\.[0-9]+)?e[0-9]+|nan|-?inf)":')
# repr, and so the json module, writes 1e-05 and 1e-07 where orjson writes 0.00001 and 1e-7.
_SHORT_EXPONENT = re.compile(r"[0-9]e-0[5-9]")


def _msgspec() -> Engine:
    import msgspec

    from armature.http.json_reference import encode
    from armature.http.json_types import as_builtin

    encode_fast = msgspec.json.Encoder(enc_hook=as_builtin).encode
    decode = msgspec.json.Decoder().decode

    class FloatKey(Exception):
        pass

    def respell(match: re.Match[bytes]) -> bytes:
        token = match[0]
        if token[0] == 0x22:
            if match[1] and _FLOAT_KEY.fullmatch(token):
                raise FloatKey
            return token
        return b"%be+%b" % (match[2], match[3])

    def dumps(obj: Any) -> bytes:
        try:
            text = encode_fast(obj)
            if _EXPONENT.search(text) is not None:
                text = _STRING_OR_EXPONENT.sub(respell, text)
        except (TypeError, ValueError, OverflowError, RecursionError, FloatKey):
            return encode(obj)
        return text

    def loads(data: bytes | bytearray | memoryview | str) -> Any:
        if not _long_integer(data):
            try:
                return decode(data)
            except (ValueError, RecursionError):
                # The strict decoder below says the line and the column.
                pass
        return _strict_loads(data)

    return Engine("msgspec", dumps, loads)


def _stdlib() -> Engine:
    from json import JSONEncoder

    from armature.http.json_reference import encode
    from armature.http.json_types import as_builtin

    encode_fast = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=as_builtin).encode

    def dumps(obj: Any) -> bytes:
        try:
            text = encode_fast(obj)
            if _SHORT_EXPONENT.search(text) is None:
                return text.encode("utf-8")
        except (TypeError, ValueError, RecursionError):
            pass
        return encode(obj)

    return Engine("stdlib", dumps, _strict_loads)


# An integer beyond 64 bits becomes a float in orjson, and so in every engine (RFC 8259 section 6).
_LONG_BYTES = re.compile(rb"[0-9]{19}")
_LONG_TEXT = re.compile(r"[0-9]{19}")
_HUGE_FLOAT = re.compile(r"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")


def _long_integer(data: bytes | bytearray | memoryview | str) -> bool:
    if isinstance(data, str):
        return _LONG_TEXT.search(data) is not None
    return _LONG_BYTES.search(data) is not None


def _strict_loads(data: bytes | bytearray | memoryview | str) -> Any:
    """Decode with the standard library, which by itself takes NaN, lone surrogates and infinite numbers."""
    from json import JSONDecodeError, JSONDecoder

    if isinstance(data, str):
        text = data
    else:
        raw = bytes(data)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JSONDecodeError("not valid UTF-8", raw.decode("utf-8", "replace"), error.start) from None

    def refuse(constant: str) -> NoReturn:
        raise JSONDecodeError(f"{constant} is not JSON", text, max(text.find(constant), 0))

    def integer(digits: str) -> int | float:
        if len(digits) <= 18:
            return int(digits)
        if len(digits) <= 20:
            number = int(digits)
            if -(2**63) <= number < 2**64:
                return number
        return finite(digits)

    def finite(digits: str) -> float:
        number = float(digits)
        if number in (float("inf"), float("-inf")):
            raise JSONDecodeError("number out of range", text, max(text.find(digits), 0))
        return number

    decoder = JSONDecoder(
        parse_constant=refuse,
        parse_int=integer if _LONG_TEXT.search(text) else None,
        parse_float=finite if _HUGE_FLOAT.search(text) else None,
    )
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise JSONDecodeError("nested too deeply", text, 0) from None
    if "\\ud" in text or "\\uD" in text or isinstance(data, str):
        _refuse_surrogates(value, text)
    return value


def _refuse_surrogates(value: Any, text: str) -> None:
    from json import JSONDecodeError, JSONEncoder

    try:
        JSONEncoder(ensure_ascii=False).encode(value).encode("utf-8")
    except UnicodeEncodeError:
        found = re.search(r"\\u[dD]|[\ud800-\udfff]", text)
        position = found.start() if found else 0
        raise JSONDecodeError("lone surrogate in a string", text, position) from None


_LOADERS: dict[str, Callable[[], Engine]] = {"orjson": _orjson, "msgspec": _msgspec, "stdlib": _stdlib}
_chosen: Engine | None = None


def engine(name: str) -> Engine:
    """Load an engine by name, without choosing it.

    Args:
        name: One of `ENGINES`.

    Raises:
        ValueError: There is no engine of this name.
        ImportError: Its package is not installed.
    """
    try:
        load = _LOADERS[name]
    except KeyError:
        raise ValueError(f"unknown JSON engine {name!r}; there are {', '.join(ENGINES)}") from None
    return load()


def use(name: str | None = None) -> Engine:
    """Choose the engine that encodes and decodes from now on, for all responses and requests.

    Args:
        name: One of `ENGINES`; None takes the first that is installed, unless one has been chosen already.

    Raises:
        ValueError: There is no engine of this name.
        ImportError: Its package is not installed.
    """
    global _chosen, _decode, _encode
    if name is None:
        if _chosen is not None:
            return _chosen
        chosen = _first()
    else:
        chosen = engine(name)
    _chosen, _encode, _decode = chosen, chosen.dumps, chosen.loads
    # From now on responses call the engine's own function, not the one below that chooses.
    message.set_json_encoder(chosen.dumps)
    return chosen


def _first() -> Engine:
    for name in ENGINES:
        try:
            return engine(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise AssertionError("the standard library is an engine")


def _choose_and_encode(obj: Any) -> bytes:
    return use().dumps(obj)


def _choose_and_decode(data: bytes | bytearray | memoryview | str) -> Any:
    return use().loads(data)


_encode: Callable[[Any], bytes] = _choose_and_encode
_decode: Callable[[bytes | bytearray | memoryview | str], Any] = _choose_and_decode


def dumps(obj: Any) -> bytes:
    """Encode an object as JSON.

    Args:
        obj: Any JSON value; also the types that `armature.http.json_types` lists.

    Raises:
        TypeError: Something in it cannot be encoded; the message begins with its path, such as `$.users[3].joined`.
    """
    return _encode(obj)


def is_large(obj: Any) -> bool:
    """Whether an object is to be encoded in slices, as `armature.http.json_large` does; quick to tell."""
    return weight.weigh(obj, JSON_LARGE) >= JSON_LARGE


def loads(data: bytes | bytearray | memoryview | str) -> Any:
    """Decode JSON (RFC 8259), strictly; of repeated keys the last one wins, integers beyond 64 bits become floats.

    Args:
        data: The document, UTF-8.

    Raises:
        json.JSONDecodeError: It is malformed, holds a number out of range, or is nested too deeply (about a
            thousand levels); the message and the attributes `lineno` and `colno` say where.
    """
    return _decode(data)
