"""What is around the requests of an ASGI app: its lifespan, what serves it, and who its clients are."""

from __future__ import annotations

import asyncio
import contextvars
import http.client
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armature.exceptions import ConfigurationError
from armature.server import Server
from counterparts import require, require_module
from e2e.asgi_messages import BODY, START, App, body, echo, http_only
from wire_client import Running

Serve = Callable[..., Running]


# ---- the lifespan


def lifespan_app(log: list[str], startup: Any = None, shutdown: Any = None, state: dict[str, Any] | None = None) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send(START)
            await send(body(repr(scope["state"]).encode()))
            scope["state"]["mark"] = 1
            return
        assert await receive() == {"type": "lifespan.startup"}
        log.append("startup")
        scope["state"].update(state or {})
        if isinstance(startup, Exception):
            raise startup
        await send(startup or {"type": "lifespan.startup.complete"})
        if startup is not None:
            return
        assert await receive() == {"type": "lifespan.shutdown"}
        log.append("shutdown")
        if isinstance(shutdown, Exception):
            raise shutdown
        await send(shutdown or {"type": "lifespan.shutdown.complete"})
        log.append("over")

    return app


def test_the_lifespan_and_its_state(serve: Serve) -> None:
    log: list[str] = []
    running = serve(lifespan_app(log, state={"answer": 42}), lifespan="on")
    assert log == ["startup"]
    with running.connect() as peer:
        assert [peer.get().text, peer.get().text] == ["{'answer': 42}"] * 2
    running.stop()
    assert log == ["startup", "shutdown", "over"]


def test_the_lifespan_may_be_off(serve: Serve) -> None:
    log: list[str] = []
    running = serve(lifespan_app(log), lifespan="off")
    assert running.get().text == "{}"
    running.stop()
    assert log == []


@pytest.mark.parametrize("how", ["raises", "returns"])
def test_an_app_without_lifespan(loop_name: str, serve: Serve, how: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if how == "raises":
                raise ValueError("what is that?")
            return
        await send(START)
        await send(BODY)

    assert serve(app).get().body == b"Hello"
    with pytest.raises(RuntimeError, match="has no lifespan"):
        Running(app, loop_name, lifespan="on")


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_start_up_that_fails(loop_name: str, mode: str) -> None:
    failed = {"type": "lifespan.startup.failed", "message": "no database"}
    with pytest.raises(RuntimeError, match="start-up failed: no database"):
        Running(lifespan_app([], startup=failed), loop_name, lifespan=mode)


def test_the_exception_of_a_start_up_is_told(loop_name: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback ..."})
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        Running(app, loop_name)


@pytest.mark.parametrize(
    ("shutdown", "error"),
    [
        ({"type": "lifespan.shutdown.failed", "message": "stuck"}, "shut-down failed: stuck"),
        (RuntimeError("stuck for ever"), "stuck for ever"),
    ],
)
def test_a_shut_down_that_fails(loop_name: str, shutdown: Any, error: str) -> None:
    running = Running(lifespan_app([], shutdown=shutdown), loop_name)
    with pytest.raises(RuntimeError, match=error):
        running.stop()


def test_a_message_that_does_not_belong_into_the_lifespan(loop_name: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    with pytest.raises(RuntimeError) as caught:
        Running(app, loop_name, lifespan="on")
    assert "during startup" in str(caught.value.__cause__)


def test_context_variables_of_the_lifespan_are_its_own(serve: Serve) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            variable.set("set")
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        value, _ = variable.get(), variable.set("of a request")
        await send(START)
        await send(body(value.encode()))

    with serve(app).connect() as peer:
        assert [peer.get().text, peer.get().text] == ["unset", "unset"]


# ---- which callables are apps, and what serves them


def test_asgi_2(serve: Serve) -> None:
    class App:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            assert self.scope["type"] == "http"
            await send(START)
            await send(body(self.scope["asgi"]["version"].encode()))

    assert serve(App).get().text == "2.0"


def test_a_wsgi_app_is_refused_with_a_mend() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        return []

    with pytest.raises(ConfigurationError, match="a2wsgi.WSGIMiddleware"):
        Server(app).load()


def test_what_does_not_look_like_an_app() -> None:
    def app(*arguments: Any) -> None: ...

    with pytest.raises(ConfigurationError, match='say interface="asgi"'):
        Server(app).load()
    assert Server(app, interface="asgi").load().app is app
    with pytest.raises(ConfigurationError, match="neither an App nor a Router nor a service"):
        Server(app, interface="armature").load()


def test_our_own_app_as_an_asgi_app(serve: Serve) -> None:
    """The two halves of ASGI that the framework has meet."""
    from armature import App

    own = App()

    @own.get("/users/{number}")
    async def user(number: int) -> dict[str, int]:
        return {"number": number}

    @own.get("/stream")
    async def stream() -> Any:
        from armature import HttpResponse

        async def pieces() -> Any:
            for letter in (b"a", b"b"):
                yield letter

        return HttpResponse.stream(pieces())

    running = serve(own, interface="asgi", lifespan="on")
    assert running.get("/users/7").text == '{"number":7}'
    assert running.get("/stream").body == b"ab"
    assert running.get("/no").status == 404


def test_the_httptools_engine(serve: Serve) -> None:
    require_module("httptools")
    with serve(echo, http="httptools").connect() as peer:
        assert peer.request("POST", body=b"x" * 100_000).answer().body == b"x" * 100_000


def test_the_loops_own_transports(serve: Serve) -> None:
    with serve(echo, io="asyncio").connect() as peer:
        assert peer.request("POST", body=b"x" * 100_000).answer().body == b"x" * 100_000


def test_every_answer_is_reported(serve: Serve) -> None:
    """What the access log and the metrics are made of."""
    seen: list[tuple[int, int]] = []

    @http_only
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if scope["path"] != "/whole":
            await send(body(b"ab", True))
        if scope["path"] == "/broken":
            raise LookupError
        await send(BODY)

    running = serve(app)
    running.state.report = lambda connection, status, size: seen.append((status, size))
    with running.connect() as peer:
        assert [peer.get("/whole").body, peer.get("/stream").body] == [b"Hello", b"abHello"]
        peer.request(path="/broken")
        peer.rest()
    assert seen == [(200, 5), (200, 7), (200, 2)]


# ---- other clients


def test_curl(serve: Serve, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 8000)
    running = serve(echo)
    command = [require("curl"), "-sS", "--max-time", "20", "--data-binary", f"@{source}"]
    result = subprocess.run(
        [*command, f"http://127.0.0.1:{running.port}/", "-H", "Expect: 100-continue"], capture_output=True, check=True
    )
    assert result.stdout == source.read_bytes()


def test_http_client(serve: Serve) -> None:
    running = serve(echo)
    connection = http.client.HTTPConnection(*running.address, timeout=20)
    try:
        for _ in range(3):
            connection.request("POST", "/", iter([b"ab", b"cd"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
            assert connection.getresponse().read() == b"abcd"
    finally:
        connection.close()


def test_aiohttp(serve: Serve) -> None:
    aiohttp = require_module("aiohttp")
    running = serve(echo)

    async def ask() -> list[bytes]:
        async with aiohttp.ClientSession() as session:

            async def one(number: int) -> bytes:
                async with session.post(f"http://127.0.0.1:{running.port}/", data=b"%d" % number * 1000) as answer:
                    found: bytes = await answer.read()
                    return found

            return await asyncio.gather(*[one(number) for number in range(20)])

    assert asyncio.run(ask()) == [b"%d" % number * 1000 for number in range(20)]
