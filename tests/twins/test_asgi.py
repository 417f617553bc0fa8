"""The hot half of hosting ASGI apps: scopes, answers and refusals, the same from both twins."""

from __future__ import annotations

import asyncio
import collections.abc
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature._spec.asgi import Phase
from armature._spec.routes import Node, RouteTree
from twins.harness import Transport

_DATE = re.compile(rb"\r\ndate: [^\r]+")

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"Hello"}


class Rig:
    """A connection of one room that hosts an app, and what came of a read."""

    def __init__(
        self, room: Any, app: Any, data: bytes, root_path: str = "", wait: Callable[[], bool] = lambda: True
    ) -> None:
        self.room = room
        self.wait = wait
        self.log: list[Any] = []
        self.cycles: list[Any] = []
        self.transport = Transport()
        asyncio.run(self._run(app, data, root_path))

    async def _run(self, app: Any, data: bytes, root_path: str) -> None:
        room, log = self.room, self.log

        class Cycle(room.asgi.Cycle):  # type: ignore[misc, name-defined]
            __slots__ = ()

            def send_other(self, message: Any) -> Any:
                log.append(("other", message))
                return asyncio.sleep(0) if message is None else None

            async def receive_more(self) -> dict[str, Any]:
                log.append("more")
                await asyncio.sleep(0)
                return {"type": "http.disconnect"}

            def ended(self) -> None:
                log.append("ended")

        class Connection(room.connection.Connection):  # type: ignore[misc, name-defined]
            addresses = ("http", ("1.2.3.4", 5), None)

            def open_body(self, request: Any, limit: int, length: int | None) -> Any:
                raise AssertionError("a body did not come in one piece")

        def call(request: Any) -> Any:
            cycle = Cycle(request, root_path, {"shared": 1}, {"extension": {}})
            self.cycles.append(cycle)
            return app(cycle)

        def refuse(request: Any, error: BaseException) -> Any:
            log.append(("error", type(error).__name__, str(error)))
            return room.message.Response(b"failed", 500)

        def encode(value: Any) -> Any:
            raise RuntimeError("no answer")

        endpoint = room.dispatch.Endpoint(call, native=False, encode=encode, dumps=encode, on_error=refuse)
        service: Any = type("Service", (), {})()
        service.app = None
        service.request_class = room.message.Request
        service.router = room.router.RadixRouter(
            RouteTree(Node({}, (), None, None), {}), endpoint, lambda methods: endpoint
        )
        loop = asyncio.get_running_loop()
        dispatcher = room.dispatch.Dispatcher(loop)
        connection = Connection(service, dispatcher, room.writer.Writer(b"test"))
        connection.attach(self.transport)
        done = loop.create_future()

        def feed() -> None:
            # A batch begins outside of any Task.
            try:
                connection.data_received(data)
            finally:
                done.set_result(None)

        loop.call_soon(feed)
        await done
        for _ in range(10):
            await asyncio.sleep(0)
        while not self.wait():
            await asyncio.sleep(0.001)
        dispatcher.close()
        await asyncio.sleep(0)

    @property
    def wire(self) -> bytes:
        return _DATE.sub(b"", bytes(self.transport.wire))


def get(
    path: bytes = b"/", *fields: bytes, method: bytes = b"GET", version: bytes = b"1.1", body: bytes = b""
) -> bytes:
    if body:
        fields += (b"Content-Length: %d" % len(body),)
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, path, version), b"Host: h", *fields, b"", b""]) + body


def telling(*messages: Any) -> Any:
    """An app that sends messages and notes what came of each."""

    async def app(cycle: Any) -> None:
        for message in messages:
            try:
                assert await cycle.send(message) is None
            except Exception as error:
                cycle.cold = None
                app.log.append((type(error).__name__, str(error)))  # type: ignore[attr-defined]
            else:
                app.log.append(int(cycle.phase))  # type: ignore[attr-defined]

    app.log = []  # type: ignore[attr-defined]
    return app


def outcome(room: Any, messages: list[Any], data: bytes) -> Any:
    app = telling(*messages)
    rig = Rig(room, app, data)
    return app.log, rig.log, rig.wire, [int(cycle.phase) for cycle in rig.cycles]


# ---- the scope

SCOPES = [
    get(),
    get(b"/a%2Fb/%C3%A4?x=%20"),
    get(b"/%FF%zz"),
    get(b"//x/"),
    get(b"*", method=b"OPTIONS"),
    get(b"http://h/a"),
    get(b"http://h"),
    get(b"/", b"X-A: 1", b"x-a:  2 ", b"Cookie: a=b", method=b"BREW"),
    b"GET / HTTP/1.0\r\n\r\n",
]


@pytest.mark.parametrize("root_path", ["", "/shop", "/ä"])
@pytest.mark.parametrize("data", SCOPES)
def test_the_scope_is_the_same(both: Any, data: bytes, root_path: str) -> None:
    scopes = []
    for room in both:

        async def app(cycle: Any) -> None:
            await cycle.send(START)
            await cycle.send(BODY)

        [cycle] = Rig(room, app, data, root_path).cycles
        scopes.append(cycle.scope)
    assert scopes[0] == scopes[1]
    assert list(scopes[0]) == list(scopes[1])
    assert [type(value) for value in scopes[0].values()] == [type(value) for value in scopes[1].values()]
    assert scopes[0]["path"].startswith(root_path)
    assert (scopes[0]["scheme"], scopes[0]["client"], scopes[0]["server"]) == ("http", ("1.2.3.4", 5), None)


def test_what_is_in_a_scope_is_its_own(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        assert cycle.scope["state"] == {"shared": 1}
        assert cycle.scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
        for name in ("state", "asgi", "extensions"):
            cycle.scope[name].clear()
        await cycle.send(START)
        await cycle.send(BODY)

    assert Rig(impl, app, get() + get()).wire.count(b"Hello") == 2


# ---- answers

PAIRS: list[Any] = [
    (b"content-type", b"text/plain"),
    (b"X-Upper", b"1"),
    [b"x-list", b"2"],
    (b"content-length", b"5"),
    (b"Content-Length", b"5"),
    (b"content-length", b"7"),
    (b"content-length", b""),
    (b"content-length", b"-5"),
    (b"content-length", b"+5"),
    (b"content-length", b"5 "),
    (b"content-length", b"9" * 19),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"date", b"now"),
    (b"x", b"\xff\t "),
    (b"x", b"\r\n"),
    (b"x", b"\x00"),
    (b"", b"x"),
    (b"x y", b"x"),
    (b"x\x80", b"x"),
    ("x", b"x"),
    (b"x", "x"),
    (b"x", None),
    (bytearray(b"x"), b"x"),
    (b"x",),
    (b"x", b"y", b"z"),
    b"ab",
    "ab",
    None,
    5,
]

MESSAGES: list[Any] = [
    START,
    BODY,
    {"type": "http.response.start", "status": 201},
    {"type": "http.response.start"},
    {"type": "http.response.start", "status": "200"},
    {"type": "http.response.start", "status": 199},
    {"type": "http.response.start", "status": 600},
    {"type": "http.response.start", "status": 1 << 70},
    {"type": "http.response.start", "status": True},
    {"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"5")]},
    {"type": "http.response.start", "status": 205},
    {"type": "http.response.start", "status": 304, "headers": []},
    {"type": "http.response.start", "status": 200, "headers": None},
    {"type": "http.response.start", "status": 200, "headers": {"a": "b"}},
    {"type": "http.response.start", "status": 200, "trailers": True},
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]},
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]},
    {"type": "http.response.body"},
    {"type": "http.response.body", "body": b"x" * 50_000},
    {"type": "http.response.body", "body": b"", "more_body": True},
    {"type": "http.response.body", "body": b"x", "more_body": 1},
    {"type": "http.response.body", "body": bytearray(b"x")},
    {"type": "http.response.body", "body": "x"},
    {"type": "http.response.body", "body": None},
    {"type": "http.response.pathsend", "path": "/x"},
    {"type": b"http.response.body"},
    {"type": None},
    {},
]

REQUESTS = [
    get(),
    get(method=b"HEAD"),
    get(version=b"1.0"),
    get(b"/", b"Connection: close"),
    get(method=b"POST", body=b"abc"),
    get() + get(method=b"HEAD") + get(b"/third"),
]


@pytest.mark.parametrize("data", REQUESTS)
@pytest.mark.parametrize("first", range(len(MESSAGES)))
def test_what_two_messages_lead_to(both: Any, first: int, data: bytes) -> None:
    for second in MESSAGES:
        py, c = (outcome(room, [MESSAGES[first], second], data) for room in both)
        assert py == c, second


@settings(deadline=None, max_examples=60)
@given(data=st.sampled_from(REQUESTS), messages=st.lists(st.sampled_from(MESSAGES), max_size=6))
def test_what_messages_lead_to(both: Any, data: bytes, messages: list[Any]) -> None:
    py, c = (outcome(room, messages, data) for room in both)
    assert py == c


def checked(room: Any, headers: Any) -> Any:
    try:
        return room.asgi.check_fields(headers)
    except Exception as error:
        return type(error).__name__, str(error)


@settings(max_examples=300)
@given(headers=st.lists(st.sampled_from(PAIRS) | st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4))
def test_fields_are_checked_alike(both: Any, headers: list[Any]) -> None:
    py, c = (checked(room, headers) for room in both)
    assert py == c
    if isinstance(py[0], list):
        assert all(type(field) is tuple and type(field[0]) is type(field[1]) is bytes for field in c[0])


@pytest.mark.parametrize("headers", [None, 5, b"abc", "ab", {b"a": b"b"}, iter([(b"A", b"1")]), (pair for pair in [])])
def test_fields_may_be_any_iterable(both: Any, headers: Any) -> None:
    if isinstance(headers, collections.abc.Iterator):
        headers = list(headers)
    py, c = (checked(room, headers) for room in both)
    assert py == c


def test_a_subclass_of_bytes_is_copied(impl: Any) -> None:
    class Bytes(bytes):
        pass

    fields, _ = impl.asgi.check_fields([(Bytes(b"A"), Bytes(b"1"))])
    assert fields == [(b"a", b"1")]
    assert {type(part) for part in fields[0]} == {bytes}


def test_an_answer_is_one_write(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        await cycle.send(START)
        await cycle.send(BODY)

    rig = Rig(impl, app, get() * 3)
    assert len(rig.transport.writes) == 1
    assert rig.wire == (
        b"HTTP/1.1 200 OK\r\nserver: test\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nHello" * 3
    )


def test_the_end_is_told_to_whoever_watches(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        cycle.watched = True
        await cycle.send(START)
        await cycle.send(BODY)
        assert cycle.phase == Phase.ENDED
        assert cycle.request is None

    assert Rig(impl, app, get()).log == ["ended"]


def test_no_answer(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        pass

    rig = Rig(impl, app, get())
    assert rig.log == [("error", "RuntimeError", "no answer")]
    assert rig.wire.endswith(b"failed")


# ---- the awaitables


def test_the_body_is_handed_out_once(impl: Any) -> None:
    events: list[Any] = []

    async def app(cycle: Any) -> None:
        events.append(await cycle.receive())
        assert cycle.body_taken
        events.append(await cycle.receive())
        await cycle.send(START)
        await cycle.send(BODY)
        events.append(await cycle.receive())

    rig = Rig(impl, app, get(method=b"POST", body=b"abc"))
    gone = {"type": "http.disconnect"}
    assert events == [{"type": "http.request", "body": b"abc", "more_body": False}, gone, gone]
    assert rig.log == ["more", "more"]
    assert rig.wire.endswith(b"Hello")


def test_receive_takes_nothing_before_it_is_awaited(impl: Any) -> None:
    events: list[Any] = []

    async def app(cycle: Any) -> None:
        unused = cycle.receive()
        unused.close()
        task = asyncio.ensure_future(cycle.receive())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        events.append((await cycle.receive())["body"])
        await cycle.send(START)
        await cycle.send(BODY)

    Rig(impl, app, get(method=b"POST", body=b"abc"))
    assert events == [b"abc"]


def test_receive_can_be_cancelled_while_it_waits(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        await cycle.receive()
        task = asyncio.ensure_future(cycle.receive())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await cycle.send(START)
        await cycle.send(BODY)

    assert Rig(impl, app, get()).wire.endswith(b"Hello")


def test_what_receive_returns_is_a_coroutine(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        coroutine = cycle.receive()
        assert isinstance(coroutine, collections.abc.Coroutine)
        assert asyncio.iscoroutine(coroutine)
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        assert stopped.value.value["type"] == "http.request"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            coroutine.send(None)
        thrown = cycle.receive()
        with pytest.raises(LookupError, match="thrown in"):
            thrown.throw(LookupError("thrown in"))
        waiting = cycle.receive()
        waiting.send(None)
        with pytest.raises(LookupError, match="thrown in"):
            waiting.throw(LookupError("thrown in"))
        waiting.close()
        await cycle.send(START)
        await cycle.send(BODY)

    assert Rig(impl, app, get()).wire.endswith(b"Hello")


def test_what_send_returns_is_a_coroutine(impl: Any) -> None:
    async def app(cycle: Any) -> None:
        unused = cycle.send(START)
        unused.close()
        assert cycle.phase == Phase.WAITING
        thrown = cycle.send(START)
        with pytest.raises(LookupError, match="thrown in"):
            thrown.throw(LookupError("thrown in"))
        assert cycle.phase == Phase.WAITING
        sent = cycle.send(START)
        assert isinstance(sent, collections.abc.Coroutine)
        assert asyncio.iscoroutine(sent)
        assert cycle.phase == Phase.WAITING
        await sent
        assert cycle.phase == Phase.STARTED
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await sent
        # What has to be waited for is waited for, however it is driven.
        await cycle.send(None)
        assert await asyncio.gather(cycle.send(None), asyncio.create_task(cycle.send(None))) == [None, None]
        task = asyncio.create_task(cycle.send(None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.create_task(cycle.send(BODY))
        assert cycle.phase == Phase.ENDED

    assert Rig(impl, app, get()).wire.endswith(b"Hello")


def test_a_message_from_another_thread_is_taken_on_the_loop(impl: Any) -> None:
    """`run_coroutine_threadsafe(send(...), loop)` calls `send` in the thread, and awaits it on the loop."""

    async def app(cycle: Any) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            starting = cycle.send(START)
            assert cycle.phase == Phase.WAITING
            asyncio.run_coroutine_threadsafe(starting, loop).result(10)
            asyncio.run_coroutine_threadsafe(cycle.send(BODY), loop).result(10)

        await asyncio.to_thread(work)
        ended.append(int(cycle.phase))

    ended: list[int] = []
    rig = Rig(impl, app, get(), wait=lambda: bool(ended))
    assert ended == [Phase.ENDED]
    assert rig.wire.endswith(b"Hello")


def test_counters(both: Any) -> None:
    async def app(cycle: Any) -> None:
        await cycle.send(START)
        await cycle.send(BODY)

    for room in both:
        before = room.asgi.stats()
        Rig(room, app, get() * 3)
        after = room.asgi.stats()
        assert {name: after[name] - before[name] for name in after} == {"requests": 3, "whole_answers": 3}
    assert list(both.py.asgi.stats()) == list(both.c.asgi.stats())
