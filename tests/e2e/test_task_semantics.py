"""A handler finds itself in a Task, as asyncio promises, although most requests never get one of their own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from armature.app import App
from counterparts import require_module
from wire_client import Answer, Running, eventually

Serve = Callable[..., Running]
Handler = Callable[[], Coroutine[Any, Any, Any]]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Ask:
    """Serve one handler and ask for it, over one connection."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.running: Running | None = None

    def __call__(self, *handlers: Handler) -> list[Answer]:
        app = App()
        for number, handler in enumerate(handlers):
            app.get(f"/{number}")(handler)

        async def plain() -> str:
            return "plain"

        app.get("/plain")(plain)
        self.running = self._serve(app)
        with self.running.connect() as peer:
            answers = [peer.get(f"/{number}") for number in range(len(handlers))]
            # Whatever a handler did to its task, the next request does not feel it.
            assert peer.get("/plain").text == "plain"
        return answers

    def one(self, handler: Handler) -> str:
        (answer,) = self(handler)
        assert answer.status == 200, answer
        return answer.text


@pytest.fixture
def ask(serve: Serve) -> Ask:
    return Ask(serve)


# ---- the current task


def test_there_is_a_current_task(ask: Ask) -> None:
    async def handler() -> str:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        assert task in asyncio.all_tasks()
        assert task.get_loop() is asyncio.get_running_loop()
        assert not task.done()
        assert not task.cancelled()
        assert task.cancelling() == 0
        return "yes"

    assert ask.one(handler) == "yes"


@pytest.mark.parametrize("delay", [0, 0.001])
def test_it_is_the_same_before_and_after_an_await(ask: Ask, delay: float) -> None:
    async def handler() -> str:
        before = asyncio.current_task()
        await asyncio.sleep(delay)
        between = asyncio.current_task()
        await asyncio.sleep(delay)
        return str(before is between is asyncio.current_task())

    assert ask.one(handler) == "True"


def test_it_is_the_same_behind_a_future(ask: Ask) -> None:
    async def handler() -> str:
        before = asyncio.current_task()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        done = loop.create_future()
        done.set_result(None)
        await done
        return str(before is asyncio.current_task())

    assert ask.one(handler) == "True"


def test_requests_at_the_same_time_have_tasks_of_their_own(ask: Ask) -> None:
    tasks: list[Any] = []
    everybody = threading.Event()

    async def handler() -> str:
        task = asyncio.current_task()
        tasks.append(task)
        while not everybody.is_set():
            await asyncio.sleep(0.001)
        return str(task is asyncio.current_task())

    ask(
        _returning("start"),
    )
    assert ask.running is not None
    app = App()
    app.get("/")(handler)
    running = ask._serve(app)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(running.get, "/") for _ in range(8)]
        eventually(lambda: len(tasks) == 8)
        everybody.set()
        assert [answer.result().text for answer in answers] == ["True"] * 8
    assert len({id(task) for task in tasks}) == 8


def _returning(value: str) -> Handler:
    async def handler() -> str:
        return value

    return handler


def test_the_loop_has_no_current_task_between_requests(ask: Ask) -> None:
    ask(_returning("a"))
    assert ask.running is not None
    running = ask.running
    seen: list[Any] = []
    assert running.loop is not None
    done = threading.Event()

    def look() -> None:
        seen.append(asyncio.current_task(running.loop))
        done.set()

    running.loop.call_soon_threadsafe(look)
    assert done.wait(10)
    assert seen == [None]


def test_a_request_that_does_not_suspend_costs_no_task(ask: Ask) -> None:
    ask(_returning("a"))
    assert ask.running is not None
    dispatcher = ask.running.state.dispatcher
    before = dispatcher.tasks, dispatcher.suspended
    with ask.running.connect() as peer:
        for _ in range(200):
            assert peer.get("/0").text == "a"
    assert (dispatcher.tasks, dispatcher.suspended) == before


def test_a_request_that_suspends_costs_one_task(ask: Ask) -> None:
    async def handler() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "slept"

    assert ask.one(handler) == "slept"
    assert ask.running is not None
    dispatcher = ask.running.state.dispatcher
    tasks, suspended = dispatcher.tasks, dispatcher.suspended
    with ask.running.connect() as peer:
        for _ in range(50):
            assert peer.get("/0").text == "slept"
    assert dispatcher.suspended - suspended == 50
    # The first one takes over the spare that the last request left.
    assert dispatcher.tasks - tasks in (49, 50)


# ---- asyncio


def test_timeouts(ask: Ask) -> None:
    async def fired() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            return f"fired {task.cancelling()}"
        return "not fired"

    async def not_fired() -> str:
        async with asyncio.timeout(10):
            await asyncio.sleep(0.001)
        return "not fired"

    async def without_suspending() -> str:
        async with asyncio.timeout(10) as timeout:
            pass
        return f"expired: {timeout.expired()}"

    async def already_over() -> str:
        try:
            async with asyncio.timeout(-1):
                await asyncio.sleep(10)
        except TimeoutError:
            return "over"
        return "not over"

    async def behind_a_suspension() -> str:
        await asyncio.sleep(0)
        return await fired()

    async def nested() -> str:
        try:
            async with asyncio.timeout(10):
                try:
                    async with asyncio.timeout(0.01):
                        await asyncio.sleep(10)
                except TimeoutError:
                    await asyncio.sleep(0.001)
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    async def not_caught() -> str:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
        return "not fired"

    answers = ask(fired, not_fired, without_suspending, already_over, behind_a_suspension, nested, not_caught)
    assert [answer.text for answer in answers[:-1]] == [
        "fired 0",
        "not fired",
        "expired: False",
        "over",
        "fired 0",
        "inner",
    ]
    assert answers[-1].status == 500


def test_wait_for(ask: Ask) -> None:
    async def in_time() -> str:
        return await asyncio.wait_for(asyncio.sleep(0.001, "in time"), 10)

    async def too_late() -> str:
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.01)
        except TimeoutError:
            return "too late"
        return "in time"

    async def at_once() -> str:
        async def value() -> str:
            return "at once"

        return await asyncio.wait_for(value(), 10)

    assert [answer.text for answer in ask(in_time, too_late, at_once)] == ["in time", "too late", "at once"]


def test_task_groups(ask: Ask) -> None:
    async def succeeds() -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(3)]
        return str([task.result() for task in tasks])

    async def empty() -> str:
        async with asyncio.TaskGroup():
            pass
        return "empty"

    async def fails() -> str:
        async def raises() -> None:
            raise ValueError("on purpose")

        cancelled = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(raises())
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    cancelled = True
                    raise
        except* ValueError as errors:
            assert len(errors.exceptions) == 1
        task = asyncio.current_task()
        assert task is not None
        return f"{cancelled} {task.cancelling()}"

    async def body_fails() -> str:
        ended = []

        async def child() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                ended.append(1)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0)
                raise ValueError("on purpose")
        except* ValueError:
            pass
        return str(ended)

    answers = ask(succeeds, empty, fails, body_fails)
    assert [answer.text for answer in answers] == ["[0, 1, 2]", "empty", "True 0", "[1]"]


def test_gather_and_create_task(ask: Ask) -> None:
    async def handler() -> str:
        task = asyncio.create_task(asyncio.sleep(0.001, "task"))
        results = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0.001, 2), task)
        return str(results)

    assert ask.one(handler) == "[1, 2, 'task']"


def test_a_lock_between_requests(serve: Serve) -> None:
    app = App()
    inside = 0
    most = 0
    count = 0
    lock: list[asyncio.Lock] = []

    @app.get("/")
    async def handler() -> str:
        nonlocal inside, most, count
        if not lock:
            lock.append(asyncio.Lock())
        async with lock[0]:
            inside += 1
            most = max(most, inside)
            count += 1
            await asyncio.sleep(0.001)
            inside -= 1
        return "locked"

    running = serve(app)
    with ThreadPoolExecutor(10) as pool:
        assert {answer.text for answer in pool.map(lambda _: running.get("/"), range(60))} == {"locked"}
    assert (most, count) == (1, 60)


def test_a_queue_between_requests(serve: Serve) -> None:
    app = App()
    queue: list[asyncio.Queue[str]] = []

    @app.get("/get")
    async def get() -> str:
        if not queue:
            queue.append(asyncio.Queue())
        return await queue[0].get()

    @app.get("/put")
    async def put() -> str:
        await queue[0].put("item")
        return "put"

    running = serve(app)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(running.get, "/get")
        eventually(lambda: queue and running.call(running.state.handlers))
        assert running.get("/put").text == "put"
        assert waiting.result().text == "item"


def test_threads(ask: Ask) -> None:
    async def handler() -> str:
        variable.set("request")
        name, value = await asyncio.to_thread(lambda: (threading.current_thread().name, variable.get()))
        assert name != threading.current_thread().name
        return value

    assert ask.one(handler) == "request"


def test_call_soon_sees_the_context_of_the_request(ask: Ask) -> None:
    async def handler() -> str:
        variable.set("request")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_soon(lambda: future.set_result(variable.get()))
        return await future

    assert ask.one(handler) == "request"


# ---- anyio


@pytest.fixture
def anyio() -> Any:
    return require_module("anyio")


def test_anyio_cancel_scopes(ask: Ask, anyio: Any) -> None:
    async def moved_on() -> str:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep(10)
        return f"{scope.cancelled_caught}"

    async def not_moved_on() -> str:
        with anyio.move_on_after(10) as scope:
            await anyio.sleep(0.001)
        return f"{scope.cancelled_caught}"

    async def without_suspending() -> str:
        with anyio.move_on_after(10) as scope:
            pass
        return f"{scope.cancelled_caught}"

    async def failed() -> str:
        try:
            with anyio.fail_after(0.01):
                await anyio.sleep(10)
        except TimeoutError:
            return "failed"
        return "not failed"

    async def cancelled_by_hand() -> str:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(10)
        return f"{scope.cancelled_caught}"

    async def shielded() -> str:
        done = False
        with anyio.move_on_after(0.01):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.03)
                done = True
            await anyio.sleep(10)
        return f"{done}"

    async def checkpoints() -> str:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        return "checkpoints"

    answers = ask(moved_on, not_moved_on, without_suspending, failed, cancelled_by_hand, shielded, checkpoints)
    assert [answer.text for answer in answers] == [
        "True",
        "False",
        "False",
        "failed",
        "True",
        "True",
        "checkpoints",
    ]


def test_anyio_task_groups(ask: Ask, anyio: Any) -> None:
    async def succeeds() -> str:
        results = []

        async def child(number: int) -> None:
            await anyio.sleep(0.001 * number)
            results.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)
        return str(results)

    async def fails() -> str:
        async def child() -> None:
            raise ValueError("on purpose")

        outcome = "not failed"
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(child)
                await anyio.sleep(10)
        except* ValueError:
            outcome = "failed"
        return outcome

    async def cancelled() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 10)
            await anyio.sleep(0)
            group.cancel_scope.cancel()
        return "cancelled"

    async def started() -> str:
        async def child(*, task_status: Any) -> None:
            task_status.started("value")
            await anyio.sleep(0)

        async with anyio.create_task_group() as group:
            return str(await group.start(child))

    answers = ask(succeeds, fails, cancelled, started)
    assert [answer.text for answer in answers] == ["[0, 1, 2]", "failed", "cancelled", "value"]


def test_anyio_threads(ask: Ask, anyio: Any) -> None:
    from anyio import from_thread, to_thread

    async def to_a_thread() -> str:
        return str(await to_thread.run_sync(lambda: threading.current_thread() is threading.main_thread()))

    async def there_and_back() -> str:
        async def name() -> str:
            return "back"

        return str(await to_thread.run_sync(lambda: from_thread.run(name)))

    async def many() -> str:
        results: list[int] = []

        async def child(number: int) -> None:
            results.append(await to_thread.run_sync(lambda: number * number))

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(child, number)
        return str(sorted(results))

    answers = ask(to_a_thread, there_and_back, many)
    assert [answer.text for answer in answers] == ["False", "back", str([number * number for number in range(10)])]


# ---- cancellation by the handler itself


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.CRITICAL, "asyncio")
    return caplog


def task() -> asyncio.Task[Any]:
    current = asyncio.current_task()
    assert current is not None
    return current


def test_cancelled_and_caught_at_the_next_await(ask: Ask) -> None:
    async def caught() -> str:
        task().cancel()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            task().uncancel()
            await asyncio.sleep(0.001)
            return "caught"
        return "not cancelled"

    async def with_a_message() -> str:
        task().cancel("because")
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            task().uncancel()
            return str(error.args)
        return "not cancelled"

    async def after_a_suspension() -> str:
        await asyncio.sleep(0)
        return await caught()

    answers = ask(caught, with_a_message, after_a_suspension)
    assert [answer.text for answer in answers] == ["caught", "('because',)", "caught"]


def test_cancelled_and_not_caught(serve: Serve, quiet: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/suspends")
    async def suspends() -> str:
        task().cancel()
        await asyncio.sleep(10)
        return "never"

    @app.get("/suspended")
    async def suspended() -> str:
        await asyncio.sleep(0)
        task().cancel()
        await asyncio.sleep(10)
        return "never"

    @app.get("/raises")
    async def raises() -> str:
        raise asyncio.CancelledError

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    running = serve(app)
    for path in ("/suspends", "/suspended", "/raises"):
        for _ in range(3):
            with running.connect() as peer:
                answer = peer.get(path)
                assert answer.status == 500
                assert answer.headers["connection"] == "close"
                assert peer.ended()
            assert running.get("/plain").text == "plain"
    assert not running.call(running.state.handlers)


def test_cancelled_without_suspending(serve: Serve) -> None:
    """A Task whose coroutine returns before it is stepped again has not been cancelled."""
    app = App()

    @app.get("/")
    async def returns() -> str:
        task().cancel()
        return "returned"

    @app.get("/raises")
    async def raises() -> str:
        task().cancel()
        raise ValueError("on purpose")

    @app.get("/plain")
    async def plain() -> str:
        await asyncio.sleep(0)
        assert task().cancelling() == 0
        return "plain"

    running = serve(app)
    with running.connect() as peer:
        for _ in range(5):
            assert peer.get("/").text == "returned"
            assert peer.get("/plain").text == "plain"
            assert peer.get("/raises").status == 500
            assert peer.get("/plain").text == "plain"


def test_cancelled_by_another_request(serve: Serve, quiet: pytest.LogCaptureFixture) -> None:
    app = App()
    victims: list[asyncio.Task[Any]] = []
    ended: list[str] = []

    @app.get("/victim")
    async def victim() -> str:
        victims.append(task())
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("ended")
        return "never"

    @app.get("/cancel")
    async def cancel() -> str:
        return str(victims.pop().cancel())

    running = serve(app)
    with running.connect() as peer:
        peer.request("GET", "/victim")
        eventually(lambda: victims)
        assert running.get("/cancel").text == "True"
        assert peer.answer().status == 500
    assert ended == ["ended"]


# ---- contexts


def test_what_a_request_sets_the_next_does_not_see(ask: Ask) -> None:
    async def sets() -> str:
        before = variable.get()
        variable.set("set")
        return before

    async def sets_and_suspends() -> str:
        before = variable.get()
        variable.set("set")
        await asyncio.sleep(0)
        assert variable.get() == "set"
        await asyncio.to_thread(lambda: None)
        assert variable.get() == "set"
        return before

    async def resets() -> str:
        before = variable.get()
        token = variable.set("set")
        await asyncio.sleep(0)
        variable.reset(token)
        return before + variable.get()

    answers = ask(sets, sets, sets_and_suspends, sets, sets_and_suspends, resets, sets)
    assert [answer.text for answer in answers] == ["unset"] * 5 + ["unsetunset", "unset"]


def test_requests_at_the_same_time_do_not_share_a_context(serve: Serve) -> None:
    app = App()

    @app.get("/{name}")
    async def handler(name: str) -> str:
        before = variable.get()
        variable.set(name)
        for _ in range(5):
            await asyncio.sleep(0.001)
            assert variable.get() == name
        return before

    running = serve(app)
    with ThreadPoolExecutor(10) as pool:
        answers = pool.map(lambda number: running.get(f"/{number}"), range(60))
        assert {answer.text for answer in answers} == {"unset"}


# ---- callbacks


def test_a_callback_on_the_current_task_is_called(serve: Serve) -> None:
    app = App()
    called: list[bool] = []

    @app.get("/returns")
    async def returns() -> str:
        task().add_done_callback(lambda ended: called.append(ended.done()))
        return "returned"

    @app.get("/suspends")
    async def suspends() -> str:
        task().add_done_callback(lambda ended: called.append(ended.done()))
        await asyncio.sleep(0)
        return "suspended"

    running = serve(app)
    with running.connect() as peer:
        for count, path in enumerate(("/returns", "/suspends", "/returns", "/suspends"), start=1):
            assert peer.get(path).status == 200
            eventually(lambda count=count: len(called) == count)
    assert called == [True] * 4
