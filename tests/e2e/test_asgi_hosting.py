"""Any ASGI app on this server: scopes, answers, and what is made of messages that are wrong."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from e2e.asgi_messages import BODY, START, body, http_only, sending, start
from wire_client import Running, eventually

Serve = Callable[..., Running]


# ---- the scope


def scope_of(serve: Serve, request: bytes, **options: Any) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope)
        await send(START)
        await send(BODY)

    running = serve(app, **options)
    with running.connect() as peer:
        peer.send(request)
        assert peer.answer().body == b"Hello"
        local = peer.socket.getsockname()
    [scope] = found
    assert scope.pop("client") == local
    assert scope.pop("server") == running.address
    return scope


def test_the_scope(serve: Serve) -> None:
    request = b"get /a%2Fb/%C3%A4%FF?x=%20&y HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nx-two:  2 \r\nX-One: 3\r\n\r\n"
    assert scope_of(serve, request) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "get",
        "scheme": "http",
        "path": "/a/b/ä\ufffd",
        "raw_path": b"/a%2Fb/%C3%A4%FF",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [(b"host", b"h"), (b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3")],
        "state": {},
        "extensions": {"http.response.early_hint": {}, "http.response.pathsend": {}, "http.response.trailers": {}},
    }


def test_the_scope_below_a_root_path(serve: Serve) -> None:
    scope = scope_of(serve, b"GET /a HTTP/1.0\r\n\r\n", root_path="/shop")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/shop", "/shop/a", b"/shop/a")
    assert (scope["http_version"], scope["query_string"], scope["headers"]) == ("1.0", b"", [])


@pytest.mark.parametrize(("target", "path"), [(b"*", "*"), (b"http://h/a?b", "/a"), (b"http://h", "/")])
def test_the_path_of_unusual_targets(serve: Serve, target: bytes, path: str) -> None:
    assert scope_of(serve, b"OPTIONS %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)["path"] == path


def test_scopes_are_apart(serve: Serve) -> None:
    """What an app puts into its scope is not seen by the next request."""

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = [name for name in ("state", "extensions", "asgi") if "mark" in scope[name]]
        for name in ("state", "extensions", "asgi"):
            scope[name]["mark"] = 1
        scope["headers"].append((b"mark", b"1"))
        await send(START)
        await send(body(repr(seen).encode()))

    with serve(app).connect() as peer:
        assert [peer.get().text, peer.get().text] == ["[]", "[]"]


# ---- plain answers


def test_an_answer_is_one_write_with_its_length(serve: Serve) -> None:
    running = serve(sending(start((b"x-a", b"1"), (b"X-B", b"2"), (b"x-a", b"3")), BODY))
    answer = running.get()
    assert answer.status == 200
    assert answer.body == b"Hello"
    assert answer.headers["content-length"] == "5"
    assert "transfer-encoding" not in answer.headers
    assert [field for field in answer.fields if field[0].startswith("x-")] == [("x-a", "1"), ("x-b", "2"), ("x-a", "3")]


def test_date_and_server_are_not_doubled(serve: Serve) -> None:
    own = sending(start((b"date", b"today"), (b"Server", b"mine")), BODY)
    fields = serve(own).get().fields
    assert [field for field in fields if field[0] in ("date", "server")] == [("date", "today"), ("server", "mine")]


def test_headers_may_be_any_pairs(serve: Serve) -> None:
    message = {"type": "http.response.start", "status": 200, "headers": (pair for pair in [[b"x-a", b"1"]])}
    assert serve(sending(message, {"type": "http.response.body"})).get().headers["x-a"] == "1"


def test_a_body_may_be_any_bytes(serve: Serve) -> None:
    running = serve(sending(START, body(bytearray(b"ab"), True), body(memoryview(b"cd"), True), body(b"ef")))
    assert running.get().body == b"abcdef"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body(serve: Serve, status: int) -> None:
    with serve(sending(start((b"content-length", b"5"), status=status), BODY)).connect() as peer:
        for _ in range(2):
            answer = peer.get()
            assert answer.status == status
            assert "content-length" not in answer.headers
            assert "transfer-encoding" not in answer.headers


def test_head(serve: Serve) -> None:
    app = http_only(sending(start((b"content-length", b"7")), body()))
    with serve(app).connect() as peer:
        peer.request("HEAD").request("HEAD")
        assert peer.answer("HEAD").headers["content-length"] == "7"
        assert peer.answer("HEAD").headers["content-length"] == "7"


def test_head_of_a_body(serve: Serve) -> None:
    with serve(sending(START, BODY)).connect() as peer:
        answer = peer.request("HEAD").answer("HEAD")
        assert answer.headers["content-length"] == "5"
        assert peer.get().body == b"Hello"


def test_head_of_a_stream(serve: Serve) -> None:
    with serve(sending(START, body(b"ab", True), body(b"cd", True), body())).connect() as peer:
        peer.request("HEAD")
        assert peer.answer("HEAD").headers["transfer-encoding"] == "chunked"
        assert peer.get().body == b"abcd"


def test_connection_close_is_obeyed(serve: Serve) -> None:
    with serve(sending(start((b"Connection", b"close")), BODY)).connect() as peer:
        answer = peer.get()
        assert answer.headers["connection"] == "close"
        assert peer.ended()


def test_fields_of_the_connection_are_the_servers(serve: Serve) -> None:
    own = ((b"transfer-encoding", b"chunked"), (b"keep-alive", b"timeout=5"), (b"connection", b"keep-alive"))
    answer = serve(sending(start(*own), BODY)).get()
    assert answer.body == b"Hello"
    assert not {"transfer-encoding", "keep-alive", "connection"} & set(answer.headers)


def test_http_1_0(serve: Serve) -> None:
    running = serve(sending(START, body(b"ab", True), body(b"cd")))
    with running.connect() as peer:
        peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = peer.answer()
        assert (answer.body, "transfer-encoding" in answer.headers) == (b"abcd", False)
        assert peer.ended()


def test_pipelined_answers_keep_their_order(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        await asyncio.sleep(0.01 if number % 3 == 0 else 0)
        await send(START)
        if number % 2:
            await send(body(b"%d" % number))
        else:
            await send(body(b"%d" % number, True))
            await send(body(b""))

    with serve(app).connect() as peer:
        for number in range(20):
            peer.request(path=f"/{number}")
        assert [peer.answer().text for _ in range(20)] == [str(number) for number in range(20)]


def test_what_is_sent_need_not_be_awaited_at_once(serve: Serve) -> None:
    """Frameworks hand `send` and `receive` to tasks, gather them, or wait for them with a timeout."""

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = asyncio.create_task(receive())
        event = await asyncio.wait_for(first, 10)
        await asyncio.create_task(send(START))
        await asyncio.gather(send(body(event["body"], True)), send(body(b"!", True)))
        await asyncio.wait_for(send(body()), 10)

    with serve(app).connect() as peer:
        assert peer.request("POST", body=b"abc").answer().body == b"abc!"


def test_a_receive_that_was_cancelled_before_it_began_loses_nothing(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.create_task(receive())
        task.cancel()
        await asyncio.wait([task])
        event = await receive()
        await send(START)
        await send(body(event["body"]))

    with serve(app).connect() as peer:
        assert peer.request("POST", body=b"abc").answer().body == b"abc"


def test_send_and_receive_are_known_for_coroutine_functions(serve: Serve) -> None:
    """Adapters such as those of asgiref ask."""

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        import inspect
        import sys

        ask = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
        await send(START)
        await send(body(repr([ask(send), ask(receive)]).encode()))

    assert serve(app).get().text == "[True, True]"


def test_the_task_is_a_real_one(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        before = asyncio.current_task()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        assert before is not None
        await send(START)
        await send(body(repr(asyncio.current_task() is before).encode()))

    assert serve(app).get().text == "True"


# ---- abuses

WRONG: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "returned without sending a response"),
    "start alone": ([START], "returned before its response was complete"),
    "body first": ([BODY], "http.response.body before http.response.start"),
    "two starts": ([START, START], "http.response.start twice"),
    "no type": ([{"status": 200}], "a dict with a type"),
    "no dict": ([None], "a dict with a type"),
    "unknown": ([{"type": "http.response.push"}], "which is no message of an HTTP response"),
    "websocket": ([{"type": "websocket.accept"}], "which is no message of an HTTP response"),
    "no status": ([{"type": "http.response.start"}], "must be an int, not NoneType"),
    "text status": ([start(status="200")], "must be an int, not str"),
    "informational": ([start(status=103)], "must be 200 to 599, not 103"),
    "high status": ([start(status=600)], "must be 200 to 599, not 600"),
    "text header": ([start((b"x-a", "1"))], "must be bytes, not b'x-a' and '1'"),
    "text name": ([start(("x-a", b"1"))], "must be bytes"),
    "no pair": ([{**START, "headers": [b"abc"]}], "must be a pair of name and value"),
    "a mapping": ([{**START, "headers": {"x-a": "1"}}], "must be a pair of name and value"),
    "no headers": ([{**START, "headers": None}], "NoneType"),
    "line break": ([start((b"x-a", b"1\r\nx-b: 2"))], "control character"),
    "null": ([start((b"x-a", b"\x00"))], "control character"),
    "name with colon": ([start((b"x-a:", b"1"))], "invalid header name"),
    "empty name": ([start((b"", b"1"))], "invalid header name"),
    "length of letters": ([start((b"content-length", b"five"))], "content-length of the response is malformed"),
    "negative length": ([start((b"content-length", b"-5"))], "content-length of the response is malformed"),
    "two lengths": (
        [start((b"content-length", b"5"), (b"content-length", b"6"))],
        "content-length of the response is malformed",
    ),
    "too short": ([start((b"content-length", b"9")), BODY], "has 5 bytes, and its content-length says 9"),
    "too long": ([start((b"content-length", b"3")), BODY], "has 5 bytes, and its content-length says 3"),
    "text body": ([START, body("Hello")], "must be bytes, not str"),
    "no body": ([START, body(None)], "must be bytes, not NoneType"),
    "a number": ([START, body(5, True)], "must be bytes, not int"),
    "trailers unannounced": ([START, {"type": "http.response.trailers"}], "without announcing them"),
    "trailers too early": ([start(trailers=True), {"type": "http.response.trailers"}], "before the end of the body"),
    "relative path": ([START, {"type": "http.response.pathsend", "path": "a"}], "must be an absolute path"),
    "path first": ([{"type": "http.response.pathsend", "path": "/a"}], "before http.response.start"),
    "no such file": ([START, {"type": "http.response.pathsend", "path": "/no/such/file"}], "No such file"),
    "a directory": ([START, {"type": "http.response.pathsend", "path": "/"}], "is no regular file"),
    "hint with line break": ([{"type": "http.response.early_hint", "links": [b"a\r\nb"]}], "control character"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_before_the_head_has_left_is_a_500(
    serve: Serve, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    messages, said = WRONG[case]
    with caplog.at_level(logging.DEBUG, "armature.server"), serve(sending(*messages), lifespan="off").connect() as peer:
        for _ in range(2):
            answer = peer.get()
            assert (answer.status, answer.text) == (500, "Internal Server Error\n")
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    shown = record.getMessage() + (str(record.exc_info[1]) if record.exc_info else "")
    assert said in shown
    assert "GET '/'" in shown


LATE: dict[str, list[Any]] = {
    "no end": [START, body(b"ab", True)],
    "start again": [START, body(b"ab", True), START],
    "text": [START, body(b"ab", True), body("cd")],
    "too short": [start((b"content-length", b"9")), body(b"ab", True), body(b"cd")],
    "too long": [start((b"content-length", b"3")), body(b"ab", True), body(b"cd")],
    "a file": [START, body(b"ab", True), {"type": "http.response.pathsend", "path": "/etc/hostname"}],
    "no trailers": [start(trailers=True), body(b"ab")],
    "body behind the body": [start(trailers=True), body(b"ab"), body(b"cd")],
    "framing trailer": [
        start(trailers=True),
        body(b"ab"),
        {"type": "http.response.trailers", "headers": [(b"content-length", b"2")]},
    ],
}


@pytest.mark.parametrize("case", LATE)
def test_what_is_wrong_afterwards_cuts_the_connection(
    serve: Serve, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(sending(*LATE[case]), lifespan="off").connect() as peer:
        peer.request(te="trailers")
        head = peer.head()
        assert head.status == 200
        received = b""
        while True:
            try:
                if not peer.more():
                    break
            except ConnectionResetError:
                break
        received = peer.buffer
    # Neither the last chunk nor the announced length: the client can tell.
    assert not received.endswith(b"0\r\n\r\n")
    assert len(received) < int(head.headers.get("content-length", 1 << 30))
    assert "was cut off" in caplog.text


def test_an_error_is_logged_with_its_traceback(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        raise LookupError("a secret of the server")

    answer = serve(app).get("/where")
    assert (answer.status, answer.text) == (500, "Internal Server Error\n")
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.getMessage() == "GET '/where': the ASGI app failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_an_error_after_the_answer_is_logged_and_hurts_nobody(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        if scope["path"] == "/late":
            await asyncio.sleep(0.01)
        raise LookupError("afterwards")

    with serve(app).connect() as peer:
        assert [peer.get(path).body for path in ("/", "/late", "/")] == [b"Hello"] * 3
        eventually(lambda: caplog.text.count("the ASGI app failed after its response was complete") == 3)


def test_messages_after_the_end_are_errors(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(sending(START, BODY, BODY), lifespan="off").connect() as peer:
        assert [peer.get().body, peer.get().body] == [b"Hello", b"Hello"]
    eventually(lambda: "sent 'http.response.body' after the end of its response" in caplog.text)


def test_an_app_that_is_no_coroutine_function(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def app(scope: Any, receive: Any, send: Any) -> None:
        return None

    assert serve(app, lifespan="off").get().status == 500
    assert "can't be used in 'await' expression" in caplog.text


def test_an_app_that_cancels_itself(serve: Serve) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    assert serve(app).get().status == 500


def test_an_app_that_ends_the_server(loop_name: str) -> None:
    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        await asyncio.sleep(0.01)
        raise SystemExit(7)

    running = Running(app, loop_name)
    with running.connect() as peer:
        assert peer.get().body == b"Hello"
        with pytest.raises(SystemExit):
            running.join()


# ---- background work


def test_work_after_the_answer_does_not_hold_the_connection(serve: Serve) -> None:
    """The next request on the same connection is another one's, and is not answered by the end of the first."""
    release = threading.Event()
    ended: list[str] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(scope["path"].encode()))
        if scope["path"] == "/first":
            while not release.is_set():
                await asyncio.sleep(0.001)
        elif scope["path"] == "/wait":
            release.set()
            while not ended:
                await asyncio.sleep(0.001)
        ended.append(scope["path"])

    with serve(app).connect() as peer:
        assert peer.get("/first").text == "/first"
        assert peer.get("/second").text == "/second"
        assert eventually(lambda: ended) == ["/second"]
        assert peer.get("/wait").text == "/wait"
        eventually(lambda: len(ended) == 3)
        assert peer.get("/third").text == "/third"


def test_an_app_that_ends_while_the_next_request_is_answered(serve: Serve) -> None:
    """The end of one app must not be taken for that of the request that the connection is at by then."""
    first_may_end, second_may_answer = threading.Event(), threading.Event()
    ended = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            await send(START)
            await send(body(b"first"))
            while not first_may_end.is_set():
                await asyncio.sleep(0.001)
            ended.set()
            raise LookupError("the first one fails late")
        first_may_end.set()
        while not second_may_answer.is_set():
            await asyncio.sleep(0.001)
        await send(START)
        await send(body(b"second"))

    running = serve(app)
    with running.connect() as peer:
        assert peer.get("/first").text == "first"
        peer.request(path="/second")
        assert ended.wait(20)
        running.wait(asyncio.sleep(0.02))
        second_may_answer.set()
        assert peer.answer().text == "second"


def test_the_server_waits_for_work_after_the_answer(serve: Serve) -> None:
    done = threading.Event()

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        await asyncio.sleep(0.2)
        done.set()

    running = serve(app)
    assert running.get().body == b"Hello"
    running.stop()
    assert done.is_set()
