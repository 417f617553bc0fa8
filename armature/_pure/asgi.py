"""The hot half of hosting an ASGI app: a request becomes a scope, a complete answer becomes bytes (ASGI 3.0).

Bodies that are still arriving, streams, extensions, waiting and everything unusual are the cold half's, which is
`armature.server.asgi.RequestCycle`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from armature._pure.message import check_field
from armature._spec.asgi import SPEC_VERSION, VERSION, Phase
from armature._spec.states import State

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from armature._pure.connection import Connection
    from armature._pure.dispatch import Driver
    from armature._pure.message import Request

__all__ = ["Cycle", "check_fields", "stats"]

# Members of an enumeration take long to look up (until Python 3.12).
_WAITING, _STARTED, _ENDED = int(Phase.WAITING), int(Phase.STARTED), int(Phase.ENDED)
_PROCESSING = int(State.PROCESSING)

_digits = re.compile(rb"[0-9]{1,18}").fullmatch

_counters = {"requests": 0, "whole_answers": 0}


def stats() -> dict[str, int]:
    """Return what this twin has counted since the process began."""
    return dict(_counters)


def check_fields(headers: Iterable[Any]) -> tuple[list[tuple[bytes, bytes]], int]:
    """Check the field lines of a message.

    Args:
        headers: Pairs of bytes.

    Returns:
        The field lines with names in lower case, and the Content-Length among them, or -1 without one.

    Raises:
        TypeError: Something is no pair of bytes.
        ValueError: A name is no token, a value holds a control character, or a Content-Length is no number.
    """
    fields = []
    declared = -1
    for pair in headers:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise TypeError(f"a header of an ASGI message must be a pair of name and value, not {pair!r}") from None
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"name and value of an ASGI header must be bytes, not {name!r} and {value!r}")
        field = check_field(name, value)
        if field[0] == b"content-length":
            if not _digits(value) or 0 <= declared != int(value):
                raise ValueError(f"the content-length of the response is malformed: {value!r}")
            declared = int(value)
        fields.append(field)
    return fields, declared


class Cycle:
    """One request of an ASGI app, from its scope to the end of the response.

    Args:
        request: The request.
        root_path: What stands before the path, for the client (`SCRIPT_NAME`).
        state: What the lifespan left for requests; each gets a copy.
        extensions: What `scope["extensions"]` is a copy of.
    """

    __slots__ = (
        "_driver",
        "body_taken",
        "cold",
        "connection",
        "declared",
        "fields",
        "phase",
        "request",
        "scope",
        "status",
        "watched",
    )

    def __init__(self, request: Request, root_path: str, state: dict[str, Any], extensions: dict[str, Any]) -> None:
        _counters["requests"] += 1
        # A connection that hosts ASGI apps has `addresses` as well: scheme, client and server of its socket.
        connection: Any = request.connection
        self.connection: Connection = connection
        self.request: Request | None = request
        # What runs the app now; should the app suspend, it goes on in this driver's Task.
        self._driver: Driver | None = connection._dispatcher._spare
        self.phase: int = _WAITING
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] | None = None
        #: The Content-Length that the app named, or -1.
        self.declared = -1
        #: All of the request's body has been handed out.
        self.body_taken = False
        #: What the cold half keeps with this request, once it has to.
        self.cold: Any = None
        #: Somebody waits in `receive`; `ended` is called at the end of the response.
        self.watched = False
        path, raw_path = request.path, request.raw_path
        if root_path:
            path, raw_path = root_path + path, root_path.encode("utf-8") + raw_path
        scheme, client, server = connection.addresses
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": VERSION, "spec_version": SPEC_VERSION},
            "http_version": request.http_version,
            "method": request.method,
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": request.query_string,
            "root_path": root_path,
            "headers": request.raw_headers,
            "client": client,
            "server": server,
            "state": state.copy(),
            "extensions": extensions.copy(),
        }

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'Cycle' object")

    async def receive(self) -> dict[str, Any]:
        """Return the next event of the request; what the app is given as `receive`."""
        if not self.body_taken and self.request is not None:
            body = self.request.body_bytes
            if body is not None:
                self.body_taken = True
                return {"type": "http.request", "body": body, "more_body": False}
        return await self.receive_more()

    async def send(self, message: Any) -> None:
        """Take a message of the response; what the app is given as `send`."""
        waiting = self._take(message)
        if waiting is not None:
            await waiting

    def _take(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Take a message; return what is to be waited for, if there is anything."""
        if type(message) is not dict or self.connection._state != _PROCESSING:
            return self.send_other(message)
        kind = message.get("type")
        if kind == "http.response.body":
            body = message.get("body", b"")
            if (
                self.phase == _STARTED
                and self.cold is None
                and type(body) is bytes
                and not message.get("more_body", False)
            ):
                self.answer(body)
                return None
        elif kind == "http.response.start" and self.phase == _WAITING and not message.get("trailers", False):
            self.start(message)
            return None
        return self.send_other(message)

    def start(self, message: dict[str, Any]) -> None:
        """Take the head of the response; it leaves with the first piece of the body.

        Raises:
            TypeError: The status is no int, or a header no pair of bytes.
            ValueError: They are malformed.
        """
        status = message.get("status")
        if not isinstance(status, int):
            raise TypeError(f"the status of http.response.start must be an int, not {type(status).__name__}")
        if not 200 <= status <= 599:
            raise ValueError(f"the status of http.response.start must be 200 to 599, not {int(status)}")
        self.fields, self.declared = check_fields(message.get("headers", ()))
        self.status = int(status)
        self.phase = _STARTED

    def answer(self, body: bytes) -> None:
        """Send the response, whose body is complete.

        Raises:
            RuntimeError: The body has not the length that its Content-Length says.
        """
        status = self.status
        if self.declared >= 0 and self.declared != len(body) and status not in (204, 205, 304):
            if not self.connection._head_only:
                raise RuntimeError(
                    f"the response's body has {len(body)} bytes, and its content-length says {self.declared}"
                )
            # The length of a HEAD response is that of the body that GET would have had (RFC 9110 section 9.3.2).
            body = b""
        fields, self.fields, self.request = self.fields, None, None
        self.connection._answer(status, fields, None, body)
        self.phase = _ENDED
        _counters["whole_answers"] += 1
        if self.watched:
            self.ended()

    def release(self) -> None:
        """Take over the Task from the connection, which has gone on to other requests: the app's end is not theirs."""
        driver, self._driver = self._driver, None
        if driver is not None and driver._owner is self.connection:
            driver._owner = self

    # What a driver tells its owner, once that is the cycle.

    def resolve(self, value: Any) -> None:
        """The app has ended; there is nothing left to answer."""

    def reject(self, error: BaseException) -> None:
        """The app has ended; there is nothing left to answer."""

    # The cold half, in the subclass.

    def receive_more(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """Wait for the next event of a request whose body has not arrived whole, or has been handed out."""
        raise TypeError("a Cycle without a cold half cannot wait; use RequestCycle")

    def send_other(self, message: Any) -> Coroutine[Any, Any, None] | None:
        """Take a message that is not part of a plain, complete answer; return what is to be waited for, if anything."""
        raise TypeError("a Cycle without a cold half cannot stream; use RequestCycle")

    def ended(self) -> None:
        """The response is complete; called if it is watched."""
