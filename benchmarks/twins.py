"""Both twins side by side, and a whole connection core of either: no socket, no loop turn, nothing else measured."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from types import ModuleType
from typing import Any, TypeVar

from armature.http import json as codec
from armature.routing.plan import RoutePlan
from benchmarks.http.loads import BROWSER

T = TypeVar("T")

ROOMS = {"py": "armature._pure", "c": "armature._speedups"}
HOST = b"Host: 127.0.0.1:8000\r\n"
ITEM = b'{"name":"Ada Lovelace","email":"ada@example.org","age":36}'


def twin(impl: str, stem: str) -> ModuleType:
    """Return one twin: `twin("c", "parser")`.

    Raises:
        ModuleNotFoundError: The compiled twins are not built.
    """
    return importlib.import_module(f"{ROOMS[impl]}.{stem}")


def get(path: str, fields: bytes = HOST) -> bytes:
    """Return the bytes of a GET request."""
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), fields)


def post(path: str, body: bytes, fields: bytes = HOST) -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    head = b"POST %b HTTP/1.1\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), fields, len(body)) + body


class Sink:
    """A transport that keeps the last answer and nothing else.

    `write` is a C function, as a transport's is: Python code here would be counted as the server's.
    """

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque(maxlen=1)
        self.write = self._kept.append

    @property
    def last(self) -> bytes:
        """What was sent last."""
        return bytes(self._kept[0]) if self._kept else b""

    def forget(self) -> None:
        """Drop it."""
        self._kept.clear()

    def pause_reading(self) -> None:
        """Nobody reads."""

    def resume_reading(self) -> None:
        """Nobody reads."""

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Nothing is buffered."""

    def get_extra_info(self, name: str) -> None:
        """There is no socket."""

    def is_closing(self) -> bool:
        """Stays open."""
        return False


class CoreService:
    """The least service there is: a few routes, each with another kind of handler, straight on the connection core."""

    def __init__(self, impl: str) -> None:
        message, dispatch, plan = (
            twin(impl, "message"),
            twin(impl, "dispatch"),
            importlib.import_module("armature._spec.plan"),
        )
        message.set_json_encoder(codec.dumps)
        self.request_class = message.Request
        self.app = self

        def failed(request: Any, error: BaseException) -> Any:
            raise error

        def endpoint(call: Callable[..., Any], mode: int, kinds: bytes = b"") -> Any:
            def converted(request: Any) -> Any:
                return message.Response(b"", 404)

            return dispatch.Endpoint(
                call, mode, kinds=kinds, plan=converted, encode=failed, on_error=failed, dumps=codec.dumps
            )

        async def plaintext() -> str:
            return "Hello, World!"

        def plaintext_sync() -> str:
            return "Hello, World!"

        async def json() -> dict[str, str]:
            return {"message": "Hello, World!"}

        async def user(user_id: int) -> dict[str, int]:
            return {"id": user_id}

        async def items(request: Any) -> Any:
            item = codec.loads(request.body_bytes)
            return {"name": item["name"], "age": item["age"] + 1}

        async def with_response(request: Any) -> Any:
            return message.Response(b"Hello, World!", 200, None, "text/plain; charset=utf-8")

        async def with_header(request: Any) -> Any:
            return message.Response(request.header(b"user-agent") or b"", 200)

        routes = RoutePlan()
        for path, served in {
            "/": {"GET": endpoint(plaintext, plan.CALL_BARE)},
            "/sync": {"GET": endpoint(plaintext_sync, plan.CALL_BARE)},
            "/json": {"GET": endpoint(json, plan.CALL_BARE)},
            "/users/{user_id:int}": {"GET": endpoint(user, plan.CALL_PARAMS, bytes([plan.KIND_INT]))},
            "/items": {"POST": endpoint(items, plan.CALL_REQUEST)},
            "/response": {"GET": endpoint(with_response, plan.CALL_REQUEST)},
            "/header": {"GET": endpoint(with_header, plan.CALL_REQUEST)},
        }.items():
            routes.add(path, served)
        missing = endpoint(plaintext, plan.CALL_BARE)
        self.router = routes.build(
            not_found=missing,
            method_not_allowed=lambda methods: missing,
            router_class=twin(impl, "router").RadixRouter,
        )

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Nothing to start."""
        return nullcontext()


#: Requests by name: one of each kind that the core treats differently.
REQUESTS = {
    "plaintext": get("/"),
    "sync": get("/sync"),
    "browser": get("/", HOST + BROWSER),
    "json": get("/json"),
    "param": get("/users/1234"),
    "post": post("/items", ITEM),
    "response": get("/response"),
    "header": get("/header", HOST + BROWSER),
    "pipelined": get("/") * 16,
}

#: The same for the whole App of `http/peers/armature.py`: its variant, and the request.
APP_REQUESTS = {
    "app-plaintext": ("base", get("/")),
    "app-browser": ("base", get("/", HOST + BROWSER)),
    "app-json": ("base", get("/json")),
    "app-param": ("base", get("/users/1234")),
    "app-post": ("base", post("/items", ITEM)),
    "app-routes": ("routes", get("/api/resource499/items")),
    "app-middleware": ("middleware", get("/")),
}


class Core:
    """One connection of either twin with its service, fed with bytes; make and use it inside `in_loop`.

    Args:
        impl: `py` or `c`.
        loop: The running loop.
    """

    def __init__(self, impl: str, loop: asyncio.AbstractEventLoop) -> None:
        self.dispatcher = twin(impl, "dispatch").Dispatcher(loop)
        self.sink = Sink()
        self.connection = twin(impl, "connection").Connection(
            CoreService(impl), self.dispatcher, twin(impl, "writer").Writer()
        )
        self.connection.attach(self.sink)
        #: Feeds received bytes and sends the answers to `sink`.
        self.feed: Callable[[bytes], None] = self.connection.data_received

    def check(self, name: str) -> None:
        """Feed one request and make sure that it is answered.

        Raises:
            AssertionError: It is not, or not with 200.
        """
        self.sink.forget()
        self.feed(REQUESTS[name])
        answers = self.sink.last.count(b"HTTP/1.1 200 ")
        assert answers == REQUESTS[name].count(b" HTTP/1.1\r\n"), self.sink.last[:200]


def in_loop(call: Callable[[asyncio.AbstractEventLoop], T]) -> T:
    """Call a plain function from inside a running loop, outside any task, as a transport calls its protocol."""
    loop = asyncio.new_event_loop()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((call(loop), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            loop.stop()

    try:
        loop.call_soon(run)
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(_settle())
    finally:
        loop.close()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _settle() -> Coroutine[Any, Any, None]:
    return asyncio.sleep(0)


def peer_app(variant: str) -> Any:
    """Return the App that `compare` measures; once per process, since it chooses its variant when it is imported."""
    os.environ["BENCH_VARIANT"] = variant
    return importlib.import_module("benchmarks.http.peers.armature").app


class AppCore:
    """One connection of the running server's protocol with a whole App behind it, on the twin that the process chose.

    Args:
        app: An `App` or a `Router`.
        loop: The running loop.
        sink: What takes the answers; a new one if not given.
    """

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop, sink: Sink | None = None) -> None:
        config = importlib.import_module("armature.server.config").ServerConfig()
        self.state = importlib.import_module("armature.server.state").ServerState(app.build(), config, loop)
        self.sink = Sink() if sink is None else sink
        protocol = importlib.import_module("armature.server.protocol").HTTPProtocol(self.state)
        protocol.connection_made(self.sink)
        self.feed: Callable[[bytes], None] = protocol.data_received

    def check(self, data: bytes, status: int = 200) -> None:
        """Feed one request and make sure that it is answered.

        Raises:
            AssertionError: It is not, or with another status.
        """
        self.sink.forget()
        self.feed(data)
        assert self.sink.last.startswith(b"HTTP/1.1 %d " % status), self.sink.last[:200]
