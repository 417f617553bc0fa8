"""What a handler returns, turned into a response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from armature._impl import message
from armature.exceptions import ConfigurationError
from armature.http import json
from armature.http.response import HttpResponse

__all__ = ["encoder"]

_Response = message.Response


def encoder(
    status: int = 200,
    *,
    nullable: bool = False,
    response_class: Any = None,
    handler: str | None = None,
    dumps: Callable[[Any], bytes] = json.dumps,
) -> Callable[[Any], message.Response]:
    """Make the function that turns a route's returned values into responses.

    Args:
        status: The status of a value that names none itself.
        nullable: Whether None is a value, JSON `null`, rather than the absence of one.
        response_class: A subclass of `HttpResponse` that is called with the value and `status=`.
        handler: Qualified name of the handler, for error messages.
        dumps: Encodes JSON.

    Raises:
        ConfigurationError: `response_class` is no response class.
    """
    if response_class is None or response_class is HttpResponse or response_class is _Response:
        make = None
    elif isinstance(response_class, type) and issubclass(response_class, _Response):
        make = response_class
    else:
        raise ConfigurationError(f"response_class must be a subclass of HttpResponse, not {response_class!r}")

    def as_json(value: Any, status: int) -> message.Response:
        try:
            return HttpResponse(dumps(value), status, None, "application/json")
        except TypeError as error:
            error.add_note(f"returned by {handler or 'an exception handler'}")
            raise

    def encode_as(value: Any, status: int) -> message.Response:
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

    def encode(value: Any) -> message.Response:
        kind = type(value)
        if make is None and (kind is dict or kind is list):
            return as_json(value, status)
        if kind is tuple and len(value) in (2, 3) and _is_status(value[1]):
            return with_status(value)
        return encode_as(value, status)

    def with_status(value: tuple[Any, ...]) -> message.Response:
        own_status = int(value[1])
        response = encode_as(value[0], own_status)
        if response is value[0]:
            response.status = own_status
        if len(value) == 3 and value[2] is not None:
            if not isinstance(value[2], Mapping):
                raise TypeError(
                    f"{handler or 'the handler'} returned (body, status, headers) with headers of type "
                    f"{type(value[2]).__name__}; they must be a mapping of str to str"
                )
            _add_headers(response, value[2])
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
