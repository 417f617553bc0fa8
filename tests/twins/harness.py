"""A server without sockets around either connection twin: a small service, a transport that remembers, a loop by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from armature._spec.limits import JSON_LARGE
from armature._spec.plan import CALL_BARE, CALL_PARAMS, CALL_REQUEST, KIND_INT, KIND_STR
from armature._spec.routes import MATCH_STR, Edge, Leaf, Node, RouteTree, Slot
from armature._spec.states import Event, State

_DATE = re.compile(rb"\r\ndate: [^\r]+")


class Receiver:
    """The body of a request that arrives in pieces, as `armature.http.body.BodyReceiver` is to the connection."""

    def __init__(self, connection: Any, limit: int, length: int | None, high_water: int) -> None:
        self.connection = connection
        self.limit, self.length, self.high_water = limit, length, high_water
        self.chunks: list[bytes] = []
        self.error: BaseException | None = None
        self.complete = self.wanted = self.discarded = False
        self.waiter: asyncio.Future[None] | None = None

    def feed_data(self, chunk: bytes) -> bool:
        assert type(chunk) is bytes
        assert not self.complete
        assert not self.discarded
        if self.error is not None:
            return False
        self.chunks.append(chunk)
        return self.wanted or sum(map(len, self.chunks)) < self.high_water

    def feed_eof(self) -> None:
        assert not self.complete
        self.complete = True
        self._wake()

    def set_exception(self, error: BaseException) -> None:
        if not self.complete and self.error is None:
            self.error = error
            self._wake()

    def discard(self) -> None:
        self.chunks.clear()
        self.discarded = True

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def read(self) -> bytes:
        if not self.wanted:
            self.wanted = True
            if not self.complete and self.error is None:
                self.connection.resume_body()
        while not self.complete:
            if self.error is not None:
                raise self.error
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return b"".join(self.chunks)


class Transport:
    """Remembers what was written; `wire` is what a peer that reads everything has seen."""

    def __init__(self) -> None:
        self.wire = bytearray()
        self.writes: list[int] = []
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after close"
        assert data, "an empty write"
        self.wire += data
        self.writes.append(len(data))


def _tree(service: Any, room: Any) -> RouteTree:
    """The routes of `Service`, as `armature.routing.RoutePlan` would lay them out."""
    endpoint = service.endpoint
    leaves: dict[bytes, Leaf] = {}
    for path, (methods, made) in service.routes().items():
        slots = {method: Slot(made, ()) for method in methods}
        if "GET" in slots:
            slots["HEAD"] = slots["GET"]
        leaves[path] = Leaf(path.decode(), slots)
    number = endpoint(service.number, CALL_PARAMS, kinds=bytes([KIND_INT]), plan=service.number_plan)
    text = endpoint(service.text, CALL_PARAMS, kinds=bytes([KIND_STR, KIND_INT]), plan=service.number_plan)
    tail = Leaf("/text/{a}/{b}", {"GET": Slot(text, ("a", "b"))})
    second = Edge(MATCH_STR, b"", b"", None, 1, Node({}, (), None, tail))
    first = Edge(MATCH_STR, b"", b"", None, 1, Node({}, (second,), None, None))
    one = Edge(
        MATCH_STR,
        b"",
        b"",
        None,
        1,
        Node({}, (), None, Leaf("/number/{n}", {"GET": Slot(number, ("n",)), "HEAD": Slot(number, ("n",))})),
    )
    # Every method finds something under /any, so that its name is seen.
    everything = Leaf("/any", {"*": Slot(endpoint(service.echo), ())})
    rest = Leaf("/rest/{path}", {"*": Slot(endpoint(service.show), ("path",))})
    statics = {path[1:]: Node({}, (), None, leaf) for path, leaf in leaves.items()}
    statics |= {b"number": Node({}, (one,), None, None), b"text": Node({}, (first,), None, None)}
    statics |= {b"any": Node({}, (), None, everything), b"rest": Node({}, (), rest, None)}
    return RouteTree(Node(statics, (), None, None), {**leaves, b"/any": everything})


class Service:
    """What is served; the handlers tell what they were given."""

    def __init__(self, room: Any) -> None:
        self.room = room
        self.app = self
        self.request_class = room.message.Request
        self.gates: list[asyncio.Future[Any]] = []
        self.kept: list[Any] = []
        self.log: list[Any] = []
        self.before: Callable[[], None] | None = None
        refuse = self.endpoint(lambda: self.response(b"no such method", 405), CALL_BARE)
        self.router = room.router.RadixRouter(
            _tree(self, room),
            self.endpoint(lambda: self.response(b"not found", 404), CALL_BARE),
            lambda methods: refuse,
        )

    def response(self, *arguments: Any, **options: Any) -> Any:
        return self.room.message.Response(*arguments, **options)

    def endpoint(self, call: Any, mode: int = CALL_REQUEST, **options: Any) -> Any:
        plain: dict[str, Any] = {
            "encode": self.encode,
            "on_error": self.on_error,
            "dumps": lambda value: json.dumps(value).encode(),
        }
        return self.room.dispatch.Endpoint(call, mode, **(plain | options))

    def encode(self, value: Any) -> Any:
        if value is Ellipsis:
            raise ValueError("cannot be encoded")
        if isinstance(value, list):
            return self.encode_late(value)
        return self.response(f"encoded {value!r}")

    async def encode_late(self, value: list[Any]) -> Any:
        await self.gate()
        if value[-1] is Ellipsis:
            raise ValueError("cannot be encoded, late")
        return self.response(f"encoded {len(value)} items")

    def on_error(self, request: Any, error: BaseException) -> Any:
        self.log.append(("error", request.method, request.raw_path, type(error).__name__, str(error)))
        status = getattr(error, "status_code", 500)
        if isinstance(error, LookupError):
            raise error
        if isinstance(error, ArithmeticError):
            return self.late_answer(request)
        return self.response(f"{type(error).__name__}: {error}", status)

    async def late_answer(self, request: Any) -> Any:
        await self.gate()
        return self.response(b"answered late", 503)

    async def gate(self) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.gates.append(future)
        return await future

    # The handlers.

    def routes(self) -> dict[bytes, tuple[tuple[str, ...], Any]]:
        make = self.endpoint
        return {
            b"/": (("GET",), make(lambda: "hello", CALL_BARE)),
            b"/show": (("GET", "POST", "PUT"), make(self.show)),
            b"/dict": (("GET",), make(lambda: {"a": [1, None]}, CALL_BARE)),
            b"/bytes": (("GET",), make(lambda: b"\x00\x01", CALL_BARE)),
            b"/none": (("GET", "POST"), make(lambda: None, CALL_BARE)),
            b"/odd": (("GET",), make(lambda: 1.5, CALL_BARE)),
            b"/rows": (("GET",), make(lambda: [0] * JSON_LARGE, CALL_BARE)),
            b"/few-rows": (("GET",), make(lambda: [0] * (JSON_LARGE - 2), CALL_BARE)),
            b"/bad-rows": (("GET",), make(lambda: [0] * JSON_LARGE + [...], CALL_BARE)),
            b"/unencodable": (("GET",), make(lambda: ..., CALL_BARE)),
            b"/surrogate": (("GET",), make(lambda: "\ud800", CALL_BARE)),
            b"/created": (("POST",), make(lambda: None, CALL_BARE, status=201)),
            b"/reset": (("GET",), make(lambda: self.response(b"x", 205), CALL_BARE)),
            b"/unchanged": (("GET",), make(lambda: self.response(b"x", 304, {"etag": '"1"'}), CALL_BARE)),
            b"/fields": (("GET",), make(self.fields)),
            b"/large": (("GET",), make(lambda: b"x" * 100_000, CALL_BARE)),
            b"/close": (
                ("GET", "POST"),
                make(lambda: self.response(b"bye", headers={"connection": "close"}), CALL_BARE),
            ),
            b"/suspend": (("GET", "POST"), make(self.suspend)),
            b"/suspend-bare": (("GET", "POST"), make(self.suspend_bare, CALL_BARE)),
            b"/read": (("GET", "POST", "PUT"), make(self.read)),
            b"/small": (("POST",), make(self.read, body_limit=8)),
            b"/ignore": (("POST",), make(lambda request: "ignored")),
            b"/keep": (("GET", "POST"), make(self.keep)),
            b"/fail": (("GET", "POST"), make(self.fail)),
            b"/fail-late": (("GET", "POST"), make(self.fail_late)),
            b"/fail-twice": (("GET",), make(self.fail_twice)),
            b"/fail-slowly": (("GET",), make(self.fail_slowly)),
            b"/stream": (("GET", "POST"), make(self.stream)),
            b"/stream-length": (("GET",), make(self.stream_length)),
            b"/stream-fail": (("GET",), make(self.stream_fail)),
            b"/future": (("GET",), make(self.future)),
            b"/cancel": (("GET",), make(self.cancel)),
        }

    def tell(self, request: Any) -> dict[str, Any]:
        return {
            "method": request.method,
            "path": request.raw_path.decode("latin-1"),
            "decoded": request.path,
            "query": request.query_string.decode("latin-1"),
            "version": request.http_version,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers],
            "params": request.params,
            "body": None if request.body_bytes is None else request.body_bytes.decode("latin-1"),
        }

    def show(self, request: Any) -> Any:
        # One header by itself comes before all of them, as middleware would ask.
        host = request.header(b"host")
        return {"host": None if host is None else host.decode("latin-1"), **self.tell(request)}

    def number(self, number: int) -> str:
        assert type(number) is int
        return f"number {number}"

    def text(self, text: str, number: int) -> str:
        return f"text {text!a} {number}"

    async def number_plan(self, request: Any) -> str:
        return f"general plan {request.params!a}"

    def fields(self, request: Any) -> Any:
        response = self.response(b"x", 200, [("X-One", "1"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")], "text/html")
        response.fields().append((b"transfer-encoding", b"chunked"))
        response.fields().append((b"content-length", b"99"))
        response.fields().append((b"keep-alive", b"timeout=5"))
        return response

    async def suspend(self, request: Any) -> Any:
        before = self.tell(request)
        task = asyncio.current_task()
        answer = await self.gate()
        assert task is asyncio.current_task()
        assert self.tell(request) == before
        return answer if isinstance(answer, self.room.message.Response) else f"{request.raw_path!r} resumed {answer}"

    async def suspend_bare(self) -> Any:
        return f"resumed {await self.gate()}"

    async def read(self, request: Any) -> Any:
        body = request.body_bytes
        if body is None:
            body = await request.receiver.read()
        return f"{len(body)} " + body[:100].decode("latin-1")

    async def echo(self, request: Any) -> Any:
        body = request.body_bytes
        return body if body is not None else await request.receiver.read()

    def keep(self, request: Any) -> Any:
        self.kept.append(request)
        return "kept"

    def fail(self, request: Any) -> Any:
        raise ValueError("failed")

    async def fail_late(self, request: Any) -> Any:
        await self.gate()
        raise ValueError("failed late")

    async def fail_twice(self, request: Any) -> Any:
        raise KeyError("twice")

    async def fail_slowly(self, request: Any) -> Any:
        raise ZeroDivisionError

    def _streamed(self, headers: Any = None, pieces: tuple[bytes, ...] = (b"one", b"two")) -> Any:
        async def iterate() -> AsyncIterator[bytes]:
            for piece in pieces:
                if piece == b"!":
                    raise ValueError("the stream failed")
                if piece == b"?":
                    await self.gate()
                    continue
                yield piece

        response = self.response(b"", 200, headers)
        response.stream = iterate()
        return response

    def stream(self, request: Any) -> Any:
        return self._streamed(None, (b"one", b"?", b"", b"two"))

    def stream_length(self, request: Any) -> Any:
        return self._streamed({"content-length": "6"})

    def stream_fail(self, request: Any) -> Any:
        return self._streamed(None, (b"one", b"!"))

    def future(self, request: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.gates.append(future)
        return future

    async def cancel(self, request: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


def connection_class(room: Any) -> type[Any]:
    """The room's connection with the least cold half."""

    class HarnessConnection(room.connection.Connection):  # type: ignore[misc, name-defined]
        high_water = 64 * 1024
        log: list[Any]
        scheme, client, server = "http", None, None

        def open_body(self, request: Any, limit: int, length: int | None) -> Receiver:
            self.log.append(("body", limit, length))
            return Receiver(self, limit, length, self.high_water)

        async def send_stream(self, request: Any, response: Any) -> None:
            wanted = self.start_stream(response)
            try:
                if wanted:
                    async for piece in response.stream:
                        self.send_chunk(piece)
                        self.flush()
                    self.end_stream()
            finally:
                await response.stream.aclose()
            if self.report is not None:
                self.report(self, response.status, 0)
            self.complete()

        def pause_reading(self) -> None:
            super().pause_reading()
            assert self.transport.reading
            self.transport.reading = False

        def resume_reading(self) -> None:
            super().resume_reading()
            self.transport.reading = True

        def finish_closing(self) -> None:
            self.transport.closed = True

        def abort(self) -> None:
            super().abort()
            self.log.append("abort")
            self.transport.closed = True

        def discarded(self, count: int) -> None:
            self.log.append(("discarded", count))

        def refused(self, error: Any) -> None:
            self.log.append(("refused", error.status, error.message))

        def handler_failed(self, request: Any, error: BaseException) -> None:
            self.log.append(("handler failed", request.method, type(error).__name__))

        def stream_failed(self, error: BaseException) -> None:
            self.log.append(("stream failed", str(error)))

    return HarnessConnection


class Harness:
    """One connection of one room, driven step by step. The loop runs only inside these methods."""

    def __init__(
        self, room: Any, *, loop: asyncio.AbstractEventLoop | None = None, high_water: int = 64 * 1024
    ) -> None:
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self.own_loop = loop is None
        self.complaints: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.room = room
        self.service = Service(room)
        self.dispatcher = room.dispatch.Dispatcher(self.loop)
        self.transport = Transport()
        self.connection = connection_class(room)(self.service, self.dispatcher, room.writer.Writer())
        self.connection.high_water = high_water
        self.connection.log = self.service.log
        self.connection.report = lambda connection, status, size: connection.log.append(("answered", status, size))
        self.errors: list[BaseException] = []
        self.waiting: list[bytes] = []
        self._in_loop(lambda: self.connection.attach(self.transport))

    def _in_loop(self, call: Callable[[], Any]) -> None:
        """Call from a callback of the loop, as a transport does, and run the loop until nothing is left to do."""

        def guarded() -> None:
            try:
                call()
            except Exception as error:
                self.errors.append(error)

        self.loop.call_soon(guarded)
        for _ in range(12):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def feed(self, data: bytes, into_buffer: bool = False) -> None:
        """Let bytes arrive; a transport that was told to pause keeps them."""
        self.waiting.append(data)
        self._in_loop(lambda: self._deliver(into_buffer))

    def _deliver(self, into_buffer: bool = False) -> None:
        connection = self.connection
        while self.waiting and self.transport.reading and not self.transport.closed:
            data = self.waiting.pop(0)
            if into_buffer:
                view = memoryview(connection.get_buffer(-1))
                data, rest = data[: len(view)], data[len(view) :]
                if rest:
                    self.waiting.insert(0, rest)
                view[: len(data)] = data
                connection.buffer_updated(len(data))
                # The next connection's bytes come to the same place.
                view[:] = b"\xaa" * len(view)
            else:
                connection.data_received(data)

    def settle(self) -> None:
        """Deliver what waited for the transport to read again."""
        for _ in range(50):
            if not (self.waiting and self.transport.reading and not self.transport.closed):
                break
            self._in_loop(self._deliver)

    def open_gate(self, value: Any = "gate", index: int = 0) -> bool:
        gates = [gate for gate in self.service.gates if not gate.done()]
        if not gates:
            return False
        gate = gates[index % len(gates)]
        if isinstance(value, BaseException):
            self._in_loop(lambda: gate.set_exception(value))
        else:
            self._in_loop(lambda: gate.set_result(value))
        self.settle()
        return True

    def pause_writing(self) -> None:
        self.connection.write_paused = True

    def resume_writing(self) -> None:
        self.connection.write_paused = False
        if self.connection.state <= State.READING and (self.connection.carried or self.connection.reading_paused):
            self._in_loop(self.connection.resume)
        self.settle()

    def lose(self) -> None:
        """The peer goes away, as the cold half tells the connection."""
        if self.connection.state == State.CLOSED:
            return

        def lost() -> None:
            self.transport.closed = True
            self.connection.event(Event.CLOSE)
            self.connection.event(Event.CLOSE)
            self.connection.detach()

        self._in_loop(lost)

    @property
    def wire(self) -> bytes:
        """What the peer has seen, with one date for all."""
        return _DATE.sub(b"\r\ndate: now", bytes(self.transport.wire))

    def describe(self) -> dict[str, Any]:
        """All that can be seen of the connection from outside."""
        connection = self.connection
        return {
            "wire": self.wire,
            "state": int(connection.state),
            "closed": self.transport.closed,
            "reading": self.transport.reading,
            "busy": connection.busy,
            "carried": connection.carried,
            "must_linger": connection.must_linger,
            "disconnected": connection.is_disconnected(),
            "closing": bool(connection.closing),
            "request": None
            if not connection.busy or connection.request is None
            else self.service.tell(connection.request),
            "log": list(self.service.log),
            "gates": len([gate for gate in self.service.gates if not gate.done()]),
            "errors": [repr(error) for error in self.errors],
            "complaints": [repr(context.get("exception", context["message"])) for context in self.complaints],
            "tasks": self.dispatcher.suspended,
        }

    def close(self) -> None:
        """End the loop; whatever is suspended is cancelled, as at the end of `asyncio.run`."""
        self.dispatcher.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        for _ in range(12):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        assert all(task.done() for task in tasks), tasks
        if self.own_loop:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


def responses(wire: bytes, methods: list[str]) -> list[tuple[int, dict[str, str], bytes]]:
    """Take a peer's bytes apart with a reader that is not ours; one method per expected response."""
    import http.client
    import io

    class Reader(io.BytesIO):
        def close(self) -> None:
            """`http.client` closes what it reads from."""

    class Sock:
        def __init__(self) -> None:
            self.file = Reader(wire)

        def makefile(self, *_: Any) -> Reader:
            return self.file

    sock = Sock()
    found = []
    for method in methods:
        if sock.file.tell() >= len(wire):
            break
        response = http.client.HTTPResponse(sock, method=method)  # type: ignore[arg-type]
        response.begin()
        found.append((response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()))
    assert sock.file.read() == b"", "bytes are left behind the last response"
    return found
