"""ASGI apps that stream: bodies that arrive, answers that go on, clients that go away, files and trailers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armature.server.asgi import Disconnected
from e2e.asgi_messages import BODY, START, App, body, collect, echo, http_only, sending, start
from wire_client import Peer, Running, eventually

Serve = Callable[..., Running]


# ---- the request's body


@pytest.mark.parametrize("size", [0, 1, 5000, 70_000, 3_000_000])
def test_bodies_of_any_size(serve: Serve, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    with serve(echo).connect() as peer:
        for _ in range(2):
            assert peer.request("POST", body=data[:size]).answer().body == data[:size]


def test_a_chunked_body(serve: Serve) -> None:
    with serve(echo).connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"one,", b"two,", b"x" * 100_000):
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert not peer.buffer
        peer.send(b"0\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n")
        assert peer.answer().body == b"one,two," + b"x" * 100_000
        assert peer.answer().body == b""


def test_a_body_arrives_piece_by_piece(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        more = True
        while more:
            event = await receive()
            more = event["more_body"]
            await send(body(event["body"].upper(), more))

    with serve(app).connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\none")
        assert peer.head().status == 200
        assert peer.chunk() == b"ONE"
        peer.send(b"two")
        assert peer.chunk() == b"TWO"
        peer.send(b"six")
        assert peer.chunk() == b"SIX"
        assert peer.chunk() == b""


def test_a_body_that_nobody_reads_waits_with_the_client(serve: Serve) -> None:
    """Backpressure: the server keeps a bound of it, whatever the client sends."""
    go = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not go.is_set():
            await asyncio.sleep(0.001)
        _, sizes = await collect(receive)
        await send(START)
        await send(body(repr((sum(sizes), max(sizes) < 1_000_000)).encode()))

    running = serve(app)
    with running.connect() as peer:
        data = b"x" * 8_000_000
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(data))
        sender = threading.Thread(target=peer.send, args=(data,))
        sender.start()
        eventually(lambda: running.call(lambda: any(c.reading_paused for c in running.state.connections)))
        assert sender.is_alive()
        go.set()
        assert peer.answer().text == "(8000000, True)"
        sender.join()


def test_continue_is_sent_when_the_body_is_asked_for(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/read":
            await echo(scope, receive, send)
        else:
            await send(START)
            await send(BODY)

    running = serve(app)
    head = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with running.connect() as peer:
        peer.send(head % b"/read")
        assert peer.head().status == 100
        assert peer.send(b"abc").answer().body == b"abc"
        peer.send(head % b"/other")
        assert peer.answer().body == b"Hello"
        assert peer.ended()


def test_a_limit_of_the_body(serve: Serve) -> None:
    called: list[str] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["path"])
        while (await receive())["type"] != "http.disconnect":
            pass
        with pytest.raises(Disconnected):
            await send(START)

    running = serve(app, body_limit=1000)
    with running.connect() as peer:
        answer = peer.request("POST", "/declared", body=b"x" * 1001).answer()
        assert (answer.status, called) == (413, [])
    with running.connect() as peer:
        peer.send(b"POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n")
        peer.send(b"x\r\n")
        answer = peer.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert called == ["/chunked"]


def test_without_a_limit_bodies_are_as_large_as_they_like(serve: Serve) -> None:
    """The limit of our own apps is not that of others."""

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        _, sizes = await collect(receive)
        await send(START)
        await send(body(b"%d" % sum(sizes)))

    with serve(app).connect() as peer:
        assert peer.request("POST", body=bytes(20 << 20)).answer().text == str(20 << 20)


def test_a_broken_body(serve: Serve) -> None:
    seen: list[str] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            seen.append(event["type"])
            if event["type"] == "http.disconnect":
                return

    with serve(app).connect() as peer:
        peer.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        eventually(lambda: seen)
        assert peer.send(b"nonsense\r\n").answer().status == 400
        eventually(lambda: seen[-1] == "http.disconnect")


# ---- streams and their readers


def test_a_stream(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(300):
            await send(body(b"x" * 1000, True))
        await send(body())

    with serve(app).connect() as peer:
        for _ in range(2):
            answer = peer.get()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"x" * 300_000


def test_the_head_of_a_stream_leaves_without_a_body(serve: Serve) -> None:
    go = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start((b"content-type", b"text/event-stream")))
        await send(body(b"", True))
        while not go.is_set():
            await asyncio.sleep(0.001)
        await send(body(b"data: 1\n\n"))

    with serve(app).connect() as peer:
        peer.request()
        assert peer.head().headers["content-type"] == "text/event-stream"
        go.set()
        assert peer.chunk() == b"data: 1\n\n"
        assert peer.chunk() == b""


def test_a_stream_with_its_length(serve: Serve) -> None:
    running = serve(sending(start((b"content-length", b"4")), body(b"ab", True), body(b"cd", True), body()))
    answer = running.get()
    assert (answer.body, answer.headers["content-length"]) == (b"abcd", "4")


def test_a_slow_reader_slows_the_app_down(serve: Serve) -> None:
    sent = 0

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        for _ in range(2000):
            await send(body(b"x" * 10_000, True))
            sent += 1
        await send(body())

    running = serve(app)
    with running.connect(receive_buffer=8192) as peer:
        peer.request()
        peer.head()
        before = -1
        while before != sent:
            before = sent
            running.wait(asyncio.sleep(0.1))
        assert sent < 1500
        size = 0
        while piece := peer.chunk():
            size += len(piece)
        assert size == 20_000_000


def test_two_tasks_may_send_to_a_slow_reader(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)

        async def produce(letter: bytes) -> None:
            for _ in range(50):
                await send(body(letter * 20_000, True))

        async with asyncio.TaskGroup() as group:
            group.create_task(produce(b"a"))
            group.create_task(produce(b"b"))
        await send(body())

    with serve(app).connect(receive_buffer=8192) as peer:
        found = peer.get().body
        assert (found.count(b"a"), found.count(b"b")) == (1_000_000, 1_000_000)


def test_an_app_that_never_waits_lets_others_have_their_turn(serve: Serve) -> None:
    stop = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if scope["path"] == "/endless":
            while not stop.is_set():
                await send(body(b"x" * 100, True))
        await send(BODY)

    running = serve(app)
    with running.connect() as peer:
        peer.request(path="/endless")
        reader = threading.Thread(target=peer.rest)
        reader.start()
        assert running.get("/other").body == b"Hello"
        stop.set()
        running.stop(wait=False)
        reader.join()


# ---- the end of the client


def gone(close: Callable[[Peer], object], serve: Serve, handler: App, request: bytes = b"") -> list[Any]:
    seen: list[Any] = []
    entered = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        try:
            await handler(scope, receive, send)
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            seen.append("end")

    running = serve(app)
    with running.connect() as peer:
        peer.send(request or b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert entered.wait(20)
        close(peer)
        eventually(lambda: "end" in seen)
        eventually(lambda: not running.call(lambda: len(running.state.connections)))
    assert running.call(running.state.handlers) == []
    return seen


CLOSINGS = pytest.mark.parametrize("close", [Peer.close, Peer.reset], ids=["closed", "reset"])


@CLOSINGS
def test_receive_tells_that_the_client_is_gone(serve: Serve, close: Any) -> None:
    events: list[str] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        events.append((await receive())["type"])
        events.append((await receive())["type"])
        events.append((await receive())["type"])

    assert gone(close, serve, handler) == ["end"]
    assert events == ["http.request", "http.disconnect", "http.disconnect"]


@CLOSINGS
def test_receive_tells_it_in_the_middle_of_the_body(serve: Serve, close: Any) -> None:
    events: list[str] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        while not events or events[-1] != "http.disconnect":
            events.append((await receive())["type"])

    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
    assert gone(close, serve, handler, request) == ["end"]
    assert events[-1] == "http.disconnect"


@CLOSINGS
def test_receive_tells_it_while_a_stream_goes_on(serve: Serve, close: Any) -> None:
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(body(b"first", True))
        assert (await receive())["type"] == "http.disconnect"

    assert gone(close, serve, handler) == ["end"]


@CLOSINGS
def test_send_raises_once_the_client_is_gone(serve: Serve, close: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send(body(b"x" * 1000, True))
            await asyncio.sleep(0.001)

    error, end = gone(close, serve, handler)
    assert end == "end"
    assert isinstance(error, Disconnected)
    assert isinstance(error, OSError)
    # The app did what it is expected to do; that is no error of its own.
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_answer_to_a_client_that_is_gone(serve: Serve) -> None:
    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        # Until it is gone for good the answer is written, as to one that has only closed its sending side.
        with pytest.raises(OSError):
            while True:
                await send(START)
                await send(body(b"x" * 100_000))

    gone(Peer.reset, serve, handler)


def test_a_failure_when_the_client_is_gone_is_still_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        while not closed.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        raise LookupError("nobody was told of the client")

    def close(peer: Peer) -> None:
        peer.reset()
        closed.set()

    assert isinstance(gone(close, serve, handler)[0], LookupError)
    eventually(lambda: "the ASGI app failed" in caplog.text)


def test_a_client_that_closes_its_sending_side_is_answered(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send(START)
        await send(BODY)

    with serve(app).connect() as peer:
        assert peer.request().shut().answer().body == b"Hello"
        assert peer.ended()


def test_receive_tells_of_the_end_of_the_response(serve: Serve) -> None:
    """Whoever waits for the client learns as well that there is nothing left to wait for."""
    events: list[str] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def watch() -> None:
            events.append((await receive())["type"])

        await receive()
        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            group.create_task(watch())
            await asyncio.sleep(0)
            await send(START)
            if scope["path"] == "/stream":
                await send(body(b"a", True))
            await send(BODY)
        events.append((await receive())["type"])

    with serve(app).connect() as peer:
        assert peer.get().body == b"Hello"
        eventually(lambda: events == ["http.disconnect"] * 3)
        assert peer.get("/stream").body == b"aHello"
        eventually(lambda: events == ["http.disconnect"] * 6)


def test_shutdown_cancels_what_does_not_end(serve: Serve) -> None:
    cancelled = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = serve(app, shutdown_timeout=0.1)
    with running.connect() as peer:
        peer.request()
        eventually(lambda: running.call(running.state.handlers))
        running.stop()
    assert cancelled.is_set()


# ---- extensions


def test_a_file(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4000)
    app = http_only(sending(start((b"content-type", b"x/y")), {"type": "http.response.pathsend", "path": str(path)}))
    with serve(app).connect() as peer:
        for _ in range(2):
            answer = peer.get()
            assert answer.body == path.read_bytes()
            assert answer.headers["content-length"] == "1024000"
            assert answer.headers["content-type"] == "x/y"
        peer.request("HEAD")
        assert peer.answer("HEAD").headers["content-length"] == "1024000"
        assert peer.get().body == path.read_bytes()


def test_nothing_else_is_sent_while_a_file_is(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5_000_000))
    refused: list[str] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        file = asyncio.ensure_future(send({"type": "http.response.pathsend", "path": str(path)}))
        await asyncio.sleep(0)
        while not file.done():
            try:
                await send(body(b"x", True))
            except RuntimeError as error:
                refused.append(str(error))
            await asyncio.sleep(0)
        await file

    with serve(app).connect(receive_buffer=65536) as peer:
        assert peer.get().body == path.read_bytes()
    assert len(refused) > 1


def test_a_file_over_tls(serve: Serve, tmp_path: Path, pem: tuple[Path, Path]) -> None:
    import ssl

    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 50_000)
    app = http_only(sending(START, {"type": "http.response.pathsend", "path": str(path)}))
    running = serve(app, ssl_certfile=str(pem[0]), ssl_keyfile=str(pem[1]))
    context = ssl.create_default_context(cafile=str(pem[0]))
    with running.connect(context=context) as peer:
        assert peer.get().body == path.read_bytes()


def test_a_file_that_is_not_as_long_as_was_said(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    app = sending(start((b"content-length", b"5")), {"type": "http.response.pathsend", "path": str(path)})
    assert serve(app, lifespan="off").get().status == 500


def test_a_file_that_is_missing_may_be_answered_otherwise(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(status=404))
        try:
            await send({"type": "http.response.pathsend", "path": "/no/such/file"})
        except FileNotFoundError:
            await send(body(b"it is not there"))

    answer = serve(app).get()
    assert (answer.status, answer.text) == (404, "it is not there")


def test_early_hints(serve: Serve) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}
    app = http_only(sending(hint, START, {"type": "http.response.early_hint", "links": []}, hint, BODY))
    running = serve(app)
    with running.connect() as peer:
        peer.request()
        for _ in range(2):
            early = peer.head()
            assert early.status == 103
            assert [value for name, value in early.fields if name == "link"] == [
                link.decode() for link in hint["links"]
            ]
        assert peer.answer().body == b"Hello"
    with running.connect() as peer:
        # HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
        assert peer.send(b"GET / HTTP/1.0\r\n\r\n").answer().status == 200


def test_trailers(serve: Serve) -> None:
    app = http_only(
        sending(
            start((b"trailer", b"x-sum, x-more"), trailers=True),
            body(b"ab", True),
            body(b"cd"),
            {"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")], "more_trailers": True},
            {"type": "http.response.trailers", "headers": [(b"x-more", b"2")]},
        )
    )
    with serve(app).connect() as peer:
        peer.request(te="gzip, trailers;q=0.5")
        assert peer.head().headers["trailer"] == "x-sum, x-more"
        assert (peer.chunk(), peer.chunk()) == (b"ab", b"cd")
        assert peer.until(b"\r\n\r\n") == b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"
        # Without having been asked they are left out.
        assert peer.get().body == b"abcd"
        peer.request("HEAD", te="trailers")
        peer.answer("HEAD")
        assert peer.get().body == b"abcd"
