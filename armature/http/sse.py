"""Server-sent events: the encoder of an event stream (WHATWG HTML section 9.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from armature.http.json import dumps

__all__ = ["EventInput", "ServerSentEvent", "encode_event"]

# The format ends lines at CRLF, CR or LF, and at nothing else that str.splitlines knows.
_LINE_END = re.compile(r"\r\n|\r|\n")


class ServerSentEvent:
    """One event of an event stream.

    Args:
        data: The payload; a `str` as it is, anything else as JSON. None sends no data, so that no event fires.
        event: The event's type; `message` in the browser if it is None.
        id: What the browser sends back as `Last-Event-ID` when it reconnects.
        retry: Milliseconds the browser waits before it reconnects.
        comment: A line that browsers ignore, such as a heartbeat.

    Raises:
        ValueError: `event` or `id` holds a line break, `id` holds NUL, or `retry` is negative.
    """

    __slots__ = ("comment", "data", "event", "id", "retry")

    def __init__(
        self,
        data: Any = None,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        if event is not None and _LINE_END.search(event):
            raise ValueError(f"the type of an event must not hold a line break: {event!r}")
        if id is not None:
            id = str(id)
            if _LINE_END.search(id) or "\0" in id:
                raise ValueError(f"the id of an event must not hold a line break or NUL: {id!r}")
        if retry is not None:
            retry = int(retry)
            if retry < 0:
                raise ValueError(f"retry must be a number of milliseconds, not {retry}")
        self.data = data
        self.event = event
        self.id = id
        self.retry = retry
        self.comment = comment

    def encode(self) -> bytes:
        """Return the event as it stands in the stream, UTF-8 with an empty line at its end.

        Raises:
            TypeError: `data` cannot be encoded as JSON.
        """
        lines: list[str] = []
        if self.comment is not None:
            lines.extend(f": {line}" for line in _LINE_END.split(self.comment))
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        data = self.data
        if data is not None:
            text = data if isinstance(data, str) else dumps(data).decode("utf-8")
            lines.extend(f"data: {line}" for line in _LINE_END.split(text))
        lines.append("\n")
        # A lone surrogate cannot be sent; it must not break the stream either.
        return "\n".join(lines).encode("utf-8", "replace")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServerSentEvent):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ((name, getattr(self, name)) for name in self.__slots__)
        return f"ServerSentEvent({', '.join(f'{name}={value!r}' for name, value in values if value is not None)})"


#: What `HttpResponse.sse` takes: text for the data, a mapping of an event's fields, or an event.
EventInput: TypeAlias = str | Mapping[str, Any] | ServerSentEvent

_FIELDS = frozenset(ServerSentEvent.__slots__)


def encode_event(event: EventInput) -> bytes:
    """Encode one event of a stream.

    Args:
        event: A `ServerSentEvent`, a `str` (its data), or a mapping: one with only the keys `data`, `event`, `id`,
            `retry` and `comment` gives an event's fields, any other one is the data, sent as JSON.

    Raises:
        TypeError: It is something else, or cannot be encoded as JSON.
        ValueError: A field is malformed.
    """
    if isinstance(event, str):
        return ServerSentEvent(event).encode()
    if isinstance(event, Mapping):
        if event and event.keys() <= _FIELDS:
            return ServerSentEvent(**event).encode()
        return ServerSentEvent(dict(event)).encode()
    encode = getattr(event, "encode", None)
    if encode is None or isinstance(event, (bytes, bytearray)):
        raise TypeError(f"an event must be a str, a mapping or a ServerSentEvent, not {type(event).__name__}")
    return encode()  # type: ignore[no-any-return]
