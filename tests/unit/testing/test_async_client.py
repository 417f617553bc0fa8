"""AsyncTestClient runs the app on the loop of the test, and many requests at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from armature import App, HttpRequest, HttpResponse
from armature.testing import AsyncTestClient, ClientError, RequestTimeout

Run = Any


def test_requests_of_every_method(app: App, run: Run) -> None:
    async def test() -> None:
        async with AsyncTestClient(app) as client:
            assert (await client.get("/")).json() == {"hello": "world"}
            assert (await client.head("/")).content == b""
            for method in ("post", "put", "patch", "delete", "options"):
                response = await getattr(client, method)("/echo", params={"a": 1})
                assert (response.json()["method"], response.json()["query"]) == (method.upper(), "a=1")
            assert (await client.request("GET", "/sync")).text == "from a thread"
            assert (await client.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")

    run(test())


def test_the_app_lives_on_the_loop_of_the_test(app: App, run: Run, events: list[str]) -> None:
    async def test() -> None:
        async with AsyncTestClient(app):
            assert app.state.loop is asyncio.get_running_loop()
            assert events == ["start"]
        assert events == ["start", "stop"]

    run(test())


def test_what_test_and_handler_share_is_on_one_loop(run: Run) -> None:
    async def test() -> None:
        app = App()
        queue: asyncio.Queue[str] = asyncio.Queue()
        lock = asyncio.Lock()

        @app.post("/")
        async def put(req: HttpRequest) -> str:
            async with lock:
                await queue.put(await req.text())
            return "queued"

        async with AsyncTestClient(app) as client:
            async with lock:
                pending = asyncio.ensure_future(client.post("/", content="job"))
                await asyncio.sleep(0.01)
                assert not pending.done()
            assert await queue.get() == "job"
            assert (await pending).text == "queued"

    run(test())


def test_requests_run_at_the_same_time(run: Run) -> None:
    async def test() -> None:
        app = App()
        barrier = asyncio.Barrier(20)

        @app.get("/{number}")
        async def meet(number: int) -> dict[str, int]:
            await barrier.wait()
            return {"number": number}

        async with AsyncTestClient(app) as client:
            answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(20)))
            assert [answer.json()["number"] for answer in answers] == list(range(20))

    run(test())


def test_first_requests_share_one_start(app: App, run: Run, events: list[str]) -> None:
    async def test() -> None:
        client = AsyncTestClient(app)
        assert not client.is_open
        await asyncio.gather(*(client.get("/") for _ in range(5)))
        assert events == ["start"]
        assert client.is_open
        await client.aclose()
        await client.aclose()
        assert events == ["start", "stop"]

    run(test())


def test_a_failed_start_can_be_tried_again(run: Run) -> None:
    tries: list[int] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        tries.append(1)
        if len(tries) == 1:
            raise LookupError("not yet")
        yield

    async def test() -> None:
        client = AsyncTestClient(App(lifespan=lifespan))
        with pytest.raises(LookupError):
            await client.get("/")
        async with client:
            assert (await client.get("/")).status_code == 404

    run(test())


def test_exceptions_belong_to_their_requests(app: App, run: Run) -> None:
    async def test() -> None:
        async with AsyncTestClient(app) as client:
            results = await asyncio.gather(
                *(client.get(path) for path in ("/", "/boom", "/items/1", "/boom", "/sync")), return_exceptions=True
            )
            kinds = [type(result).__name__ for result in results]
            assert kinds == [
                "ClientResponse",
                "ZeroDivisionError",
                "ClientResponse",
                "ZeroDivisionError",
                "ClientResponse",
            ]

    run(test())


def test_streams_side_by_side(app: App, run: Run, events: list[str]) -> None:
    async def test() -> None:
        async with AsyncTestClient(app) as client:
            async with client.stream("GET", "/lines") as one, client.stream("GET", "/lines") as two:
                assert [line async for line in one.aiter_lines()] == [f"line {number}" for number in range(100)]
                assert len(await two.aread()) == 790
            async with client.stream("GET", "/forever") as response:
                async for piece in response.aiter_bytes():
                    assert piece == b"first\n"
                    break
            await asyncio.sleep(0)
        assert events[-2:] == ["closed", "stop"]

    run(test())


def test_synchronous_reading_is_refused(app: App, run: Run) -> None:
    async def test() -> None:
        async with AsyncTestClient(app) as client, client.stream("GET", "/lines") as response:
            with pytest.raises(ClientError, match="begin with `a`"):
                response.read()

    run(test())


def test_a_cancelled_request_disconnects(run: Run) -> None:
    async def test() -> None:
        app = App()
        entered = asyncio.Event()
        seen: list[bool] = []

        @app.get("/")
        async def index(req: HttpRequest) -> None:
            entered.set()
            while not await req.is_disconnected():
                await asyncio.sleep(0)
            seen.append(True)

        async with AsyncTestClient(app) as client:
            request = asyncio.ensure_future(client.get("/"))
            await entered.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            for _ in range(5):
                await asyncio.sleep(0)
            assert seen == [True]

    run(test())


def test_a_timeout_per_request(run: Run) -> None:
    async def test() -> None:
        app = App()

        @app.get("/")
        async def index() -> None:
            await asyncio.Event().wait()

        async with AsyncTestClient(app) as client:
            with pytest.raises(RequestTimeout):
                await client.get("/", timeout=0.02)

    run(test())


def test_a_client_belongs_to_its_loop(app: App) -> None:
    client = AsyncTestClient(app)

    async def start() -> None:
        await client.get("/")

    asyncio.run(start())
    with pytest.raises(ClientError, match="another event loop"):
        asyncio.run(start())


def test_a_client_nobody_closed_ends_with_its_loop(app: App, events: list[str]) -> None:
    async def test() -> None:
        await AsyncTestClient(app).get("/")

    asyncio.run(test())
    assert events[0] == "start"


def test_closing_ends_streams(app: App, run: Run, events: list[str]) -> None:
    async def test() -> None:
        client = AsyncTestClient(app)
        async with client.stream("GET", "/forever") as response:
            await anext(response.aiter_bytes())
            await client.aclose()
            assert events == ["start", "closed", "stop"]

    run(test())


def test_an_asynchronous_upload_answers_while_it_runs(run: Run) -> None:
    async def test() -> None:
        app = App()
        gate = asyncio.Event()

        @app.post("/")
        async def echo(req: HttpRequest) -> HttpResponse:
            async def produce() -> AsyncIterator[bytes]:
                async for chunk in req.stream():
                    yield chunk
                    gate.set()

            return HttpResponse.stream(produce())

        async def upload() -> AsyncIterator[bytes]:
            yield b"one"
            await gate.wait()
            yield b"two"

        async with AsyncTestClient(app) as client:
            assert (await client.post("/", content=upload())).content == b"onetwo"

    run(test())
