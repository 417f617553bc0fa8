"""What a handler returns, turned into a response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from enum import Enum
from typing import Any, Literal, TypeAlias, overload

from armature._impl import message
from armature.exceptions import ConfigurationError
from armature.http import json
from armature.http.json_types import as_builtin
from armature.http.response import HttpResponse

__all__ = ["encoder"]

_Response = message.Response

#: What an engine does not ask about, whatever else it is.
_SPELLED_BY_ENGINES = (str, int, float, dict, list, tuple, Enum)

#: A response, or a coroutine that returns one: JSON that is large is encoded in slices.
_Answer: TypeAlias = message.Response | Coroutine[Any, Any, message.Response]


@overload
def encoder(
    status: int = 200,
    *,
    nullable: bool = False,
    response_class: Any = None,
    handler: str | None = None,
    dumps: Callable[[Any], bytes] = json.dumps,
    at_once: Literal[True],
) -> Callable[[Any], message.Response]: ...
@overload
def encoder(
    status: int = 200,
    *,
    nullable: bool = False,
    response_class: Any = None,
    handler: str | None = None,
    dumps: Callable[[Any], bytes] = json.dumps,
    at_once: bool = False,
) -> Callable[[Any], _Answer]: ...
def encoder(
    status: int = 200,
    *,
    nullable: bool = False,
    response_class: Any = None,
    handler: str | None = None,
    dumps: Callable[[Any], bytes] = json.dumps,
    at_once: bool = False,
) -> Callable[[Any], _Answer]:
    """Make the function that turns a route's returned values into responses.

    For JSON that is large it returns a coroutine that returns the response.

    Args:
        status: The status of a value that names none itself.
        nullable: Whether None is a value, JSON `null`, rather than the absence of one.
        response_class: A subclass of `HttpResponse` that is called with the value and `status=`.
        handler: Qualified name of the handler, for error messages.
        dumps: Encodes JSON.
        at_once: Whether a response is returned in any case.

    Raises:
        ConfigurationError: `response_class` is no response class.
    """
    if response_class is None or response_class is HttpResponse or response_class is _Response:
        make = None
    elif isinstance(response_class, type) and issubclass(response_class, _Response):
        make = response_class
    else:
        raise ConfigurationError(f"response_class must be a subclass of HttpResponse, not {response_class!r}")
    returned_by = f"returned by {handler or 'an exception handler'}"

    def as_json(value: Any, status: int) -> _Answer:
        try:
            if not at_once:
                if hasattr(type(value), "__dataclass_fields__") and not isinstance(value, _SPELLED_BY_ENGINES):
                    # What the encoder would do first: a page of rows is as large as its rows.
                    value = as_builtin(value)
                if json.is_large(value):
                    return in_slices(encode_large_json(value), status)
            return HttpResponse(dumps(value), status, None, "application/json")
        except TypeError as error:
            error.add_note(returned_by)
            raise

    def encode_large_json(value: Any) -> Coroutine[Any, Any, list[bytes]]:
        from armature.http.json_large import encode_large

        return encode_large(value, dumps)

    async def in_slices(encoding: Coroutine[Any, Any, list[bytes]], status: int) -> message.Response:
        from armature.http.json_large import SegmentedResponse

        try:
            return SegmentedResponse.of(await encoding, status, "application/json")
        except TypeError as error:
            error.add_note(returned_by)
            raise

    def encode_as(value: Any, status: int) -> _Answer:
        if isinstance(value, _Response):
            return value
        if make is not None:
            return make(value, status=status)
        if value is None and not nullable:
            return HttpResponse(b"", 204 if status == 200 else status)
        if isinstance(value, str) and type(value).__str__ is str.__str__:
            return HttpResponse.text(value, status)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return HttpResponse(value, status, content_type="application/octet-stream")
        if isinstance(value, (AsyncIterator, Iterator)):
            return HttpResponse.stream(value, status=status)
        return as_json(value, status)

    def encode(value: Any) -> _Answer:
        kind = type(value)
        if make is None and (kind is dict or kind is list):
            return as_json(value, status)
        if kind is tuple and len(value) in (2, 3) and _is_status(value[1]):
            return with_status(value)
        return encode_as(value, status)

    def with_status(value: tuple[Any, ...]) -> _Answer:
        own_status = int(value[1])
        headers = value[2] if len(value) == 3 else None
        if headers is not None and not isinstance(headers, Mapping):
            raise TypeError(
                f"{handler or 'the handler'} returned (body, status, headers) with headers of type "
                f"{type(headers).__name__}; they must be a mapping of str to str"
            )
        response = encode_as(value[0], own_status)
        if not isinstance(response, _Response):
            return response if headers is None else with_headers(response, headers)
        if response is value[0]:
            response.status = own_status
        if headers is not None:
            _add_headers(response, headers)
        return response

    async def with_headers(
        answer: Coroutine[Any, Any, message.Response], headers: Mapping[str, str]
    ) -> message.Response:
        response = await answer
        _add_headers(response, headers)
        return response

    return encode


def _is_status(value: Any) -> bool:
    # HTTPStatus is an int; True is one as well, but nobody means it as a status.
    return isinstance(value, int) and not isinstance(value, bool)


def _add_headers(response: message.Response, headers: Mapping[str, str]) -> None:
    fields = response.fields()
    for name, value in headers.items():
        field = message.check_field(name, value)
        if field[0] == b"content-type":
            fields[:] = [kept for kept in fields if kept[0] != b"content-type"]
        fields.append(field)
