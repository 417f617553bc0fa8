"""The dispatcher twins: a handler must not be able to tell that it has no Task of its own (RUN-09)."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest

from counterparts import LOOPS, loop_factory

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)


class Owner:
    """What a connection is to the dispatcher: gets the outcome of one call."""

    def __init__(self, follow: Callable[[str, Any], Any] | None = None) -> None:
        self.outcomes: list[tuple[str, Any]] = []
        self.finished = asyncio.get_running_loop().create_future()
        self.follow = follow

    def resolve(self, value: Any) -> Any:
        return self._end("value", value)

    def reject(self, error: BaseException) -> Any:
        return self._end("error", error)

    def _end(self, kind: str, outcome: Any) -> Any:
        self.outcomes.append((kind, outcome))
        following = None if self.follow is None else self.follow(kind, outcome)
        if following is None and not self.finished.done():
            self.finished.set_result((kind, outcome))
        return following


class Stage:
    """A dispatcher on a running loop, and ways to call handlers through it."""

    def __init__(self, room: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.dispatcher = room.dispatch.Dispatcher(self.loop)

    async def batch(self, *calls: Callable[[], Any], owners: list[Owner] | None = None) -> list[Any]:
        """Call handlers together, outside of any Task, as a transport's callback does; return what came of each."""
        owners = [Owner() for _ in calls] if owners is None else owners
        done: list[bool] = []
        errors: list[BaseException] = []

        def received() -> None:
            assert asyncio.current_task() is None
            try:
                for owner, call in zip(owners, calls, strict=True):
                    done.append(self.dispatcher.run(owner, call, ()))
            except BaseException as error:
                errors.append(error)
            finally:
                self.dispatcher.leave()
            assert asyncio.current_task() is None

        self.loop.call_soon(received)
        outcomes = [await asyncio.wait_for(asyncio.shield(owner.finished), 5) for owner in owners]
        assert not errors, errors
        self.done = done
        return outcomes

    async def call(self, handler: Callable[[], Any]) -> Any:
        """Call one handler; return its value or raise its error."""
        kind, outcome = (await self.batch(handler))[0]
        if kind == "error":
            raise Raised(outcome)
        return outcome


class Raised(Exception):
    @property
    def error(self) -> BaseException:
        return self.args[0]


@pytest.fixture(params=LOOPS)
def on_loop(
    request: pytest.FixtureRequest, impl: Any
) -> Callable[[Callable[[Stage], Coroutine[Any, Any, None]]], None]:
    """Run a scene on a loop of each kind; it must end clean: no complaint of the loop, no unraisable error."""

    def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            stage = Stage(impl)
            await scene(stage)
            stage.dispatcher.close()

        with asyncio.Runner(loop_factory=loop_factory(request.param)) as runner:
            runner.run(main())
        gc.collect()
        assert complaints == []

    return play


async def current() -> Any:
    return asyncio.current_task()


# ------------------------------------------------------------------------------------------------ what a Task gives


def test_a_handler_sees_a_task_and_the_spare_serves_many(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        first = await stage.call(current)
        assert isinstance(first, asyncio.Task)
        assert first.get_loop() is stage.loop
        outcomes = await stage.batch(*[current] * 10)
        assert {task for _, task in outcomes} == {first}
        assert stage.done == [True] * 10
        assert (stage.dispatcher.tasks, stage.dispatcher.suspended) == (1, 0)

    on_loop(scene)


@pytest.mark.parametrize("delay", [0, 0.001])
def test_the_task_is_the_same_before_and_after_an_await(on_loop: Any, delay: float) -> None:
    async def handler() -> Any:
        before = asyncio.current_task()
        assert before in asyncio.all_tasks()
        await asyncio.sleep(delay)
        return before, asyncio.current_task()

    async def scene(stage: Stage) -> None:
        before, after = await stage.call(handler)
        assert before is after
        assert stage.done == [False]
        assert stage.dispatcher.suspended == 1
        # The Task of a suspended request is no spare any more.
        assert await stage.call(current) is not before

    on_loop(scene)


def test_each_suspended_handler_has_its_own_task(on_loop: Any) -> None:
    async def handler() -> Any:
        task = asyncio.current_task()
        await asyncio.sleep(0.001)
        assert task is asyncio.current_task()
        return task

    async def scene(stage: Stage) -> None:
        for _ in range(3):
            outcomes = await stage.batch(*[handler] * 5, current, *[handler] * 5)
            tasks = [outcome for _, outcome in outcomes]
            assert len(set(tasks)) == 10  # the one that did not suspend left its Task to the next
            assert stage.done == [False] * 5 + [True] + [False] * 5

    on_loop(scene)


def test_a_function_and_its_value(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.call(lambda: 5) == 5
        assert isinstance(await stage.call(lambda: asyncio.current_task()), asyncio.Task)
        with pytest.raises(Raised) as caught:
            await stage.call(lambda: 1 // 0)
        assert isinstance(caught.value.error, ZeroDivisionError)
        # What is awaitable and no coroutine is the owner's to deal with.
        future = stage.loop.create_future()
        assert await stage.call(lambda: future) is future
        future.cancel()

    on_loop(scene)


def test_arguments(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        owner = Owner()

        def received() -> None:
            stage.dispatcher.run(owner, lambda *arguments: arguments, (1, "two", None))
            stage.dispatcher.leave()

        stage.loop.call_soon(received)
        assert await owner.finished == ("value", (1, "two", None))

    on_loop(scene)


def test_timeout_that_fires(on_loop: Any) -> None:
    async def handler() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(30)
        except TimeoutError:
            return "fired"
        return "not fired"

    async def scene(stage: Stage) -> None:
        assert await stage.call(handler) == "fired"
        assert await stage.call(current) is not None

    on_loop(scene)


def test_timeout_that_fires_after_an_earlier_await(on_loop: Any) -> None:
    async def handler() -> Any:
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(30)
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

    async def scene(stage: Stage) -> None:
        assert await stage.call(handler) == 0

    on_loop(scene)


def test_timeout_that_does_not_fire(on_loop: Any) -> None:
    async def without_suspending() -> str:
        async with asyncio.timeout(30):
            return "done"

    async def suspending() -> str:
        async with asyncio.timeout(30):
            await asyncio.sleep(0)
        return "done"

    async def scene(stage: Stage) -> None:
        assert await stage.call(without_suspending) == "done"
        assert await stage.call(suspending) == "done"

    on_loop(scene)


def test_timeout_in_the_past(on_loop: Any) -> None:
    async def handler() -> str:
        try:
            async with asyncio.timeout(-1):
                await asyncio.sleep(30)
        except TimeoutError:
            return "fired"
        return "not fired"

    async def scene(stage: Stage) -> None:
        assert [outcome for _, outcome in await stage.batch(*[handler] * 4)] == ["fired"] * 4

    on_loop(scene)


def test_wait_for_lock_and_thread(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        lock = asyncio.Lock()
        inside: list[int] = []

        async def handler() -> Any:
            async with lock:
                inside.append(1)
                assert len(inside) == 1
                assert await asyncio.wait_for(asyncio.sleep(0.001, "slept"), 30) == "slept"
                inside.pop()
            return await asyncio.to_thread(sum, (1, 2))

        assert [outcome for _, outcome in await stage.batch(*[handler] * 4)] == [3] * 4
        with pytest.raises(Raised) as caught:
            await stage.call(lambda: asyncio.wait_for(stage.loop.create_future(), 0.001))
        assert isinstance(caught.value.error, TimeoutError)

    on_loop(scene)


def test_task_group(on_loop: Any) -> None:
    async def handler() -> int:
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(asyncio.sleep(0.001, number)) for number in range(3)]
        return sum(child.result() for child in children)

    async def empty() -> str:
        async with asyncio.TaskGroup():
            pass
        return "empty"

    async def scene(stage: Stage) -> None:
        assert await stage.call(handler) == 3
        assert await stage.call(empty) == "empty"

    on_loop(scene)


@pytest.mark.parametrize("waits", [True, False])
def test_task_group_with_a_child_that_fails(on_loop: Any, waits: bool) -> None:
    async def fail() -> None:
        raise ValueError("a child failed")

    async def handler() -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                if waits:
                    await asyncio.sleep(30)
        except* ValueError as errors:
            assert [str(error) for error in errors.exceptions] == ["a child failed"]
        assert task is asyncio.current_task()
        await asyncio.sleep(0)
        return "survived", task.cancelling()

    async def scene(stage: Stage) -> None:
        # Before 3.13 a real Task may be left with a count of 1 as well.
        assert await stage.call(handler) == await asyncio.create_task(handler())

    on_loop(scene)


def test_a_task_group_whose_failure_escapes(on_loop: Any) -> None:
    async def fail() -> None:
        raise ValueError("a child failed")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(30)

    async def scene(stage: Stage) -> None:
        with pytest.raises(Raised) as caught:
            await stage.call(handler)
        assert isinstance(caught.value.error, ExceptionGroup)

    on_loop(scene)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_many_handlers_wait_for_one_future(on_loop: Any, size: int) -> None:
    """As when one query answers several requests, which arrived together."""

    async def scene(stage: Stage) -> None:
        for _ in range(2):
            future = stage.loop.create_future()
            stage.loop.call_later(0.001, future.set_result, "shared")

            async def handler(future: Any = future) -> Any:
                return await future

            assert [outcome for _, outcome in await stage.batch(*[handler] * size)] == ["shared"] * size

        shared = asyncio.create_task(asyncio.sleep(0.001, "task"))

        async def joins() -> Any:
            return await shared

        assert [outcome for _, outcome in await stage.batch(*[joins] * size, joins)] == ["task"] * (size + 1)

        # Already done by the time the Task sees it.
        future = stage.loop.create_future()

        async def opens() -> Any:
            future.set_result("at once")
            return await future

        async def waits() -> Any:
            return await future

        assert [outcome for _, outcome in await stage.batch(waits, waits, opens, waits)] == ["at once"] * 4

    on_loop(scene)


def test_gather_and_shield(on_loop: Any) -> None:
    async def handler() -> Any:
        return await asyncio.gather(
            asyncio.sleep(0, 1), asyncio.shield(asyncio.sleep(0.001, 2)), asyncio.to_thread(int)
        )

    async def scene(stage: Stage) -> None:
        assert await stage.call(handler) == [1, 2, 0]

    on_loop(scene)


def test_anyio(on_loop: Any) -> None:
    async def handler() -> str:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep(30)
        assert scope.cancelled_caught
        with anyio.fail_after(30):
            assert await anyio.to_thread.run_sync(int) == 0
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.001):
                await anyio.sleep(30)
        results = []

        async def child(number: int) -> None:
            await anyio.sleep(0)
            results.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)
        assert sorted(results) == [0, 1, 2]
        return "done"

    async def without_suspending() -> str:
        with anyio.move_on_after(30):
            return "done"

    async def cancelled_scope() -> str:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(30)
        return "left"

    async def scene(stage: Stage) -> None:
        assert await stage.call(handler) == "done"
        assert await stage.call(without_suspending) == "done"
        assert await stage.call(cancelled_scope) == "left"
        assert [outcome for _, outcome in await stage.batch(cancelled_scope, without_suspending, handler)] == [
            "left",
            "done",
            "done",
        ]

    on_loop(scene)


# ------------------------------------------------------------------------------------------------------ cancellation


def test_a_handler_that_cancels_itself_and_returns(on_loop: Any) -> None:
    async def handler() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return task

    async def scene(stage: Stage) -> None:
        for warm in (False, True):
            if warm:
                await stage.call(current)
                await asyncio.sleep(0)
            cancelled = await stage.call(handler)
            following = await stage.call(current)
            assert following is not cancelled
            assert following.cancelling() == 0
            await asyncio.sleep(0.001)
            assert cancelled.done()

    on_loop(scene)


@pytest.mark.parametrize("wait", ["future", "yield", "done", "task"])
@pytest.mark.parametrize("warm", [True, False])
def test_a_handler_that_cancels_itself_and_waits(on_loop: Any, wait: str, warm: bool) -> None:
    async def handler() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("why")
        try:
            if wait == "future":
                await asyncio.get_running_loop().create_future()
            elif wait == "yield":
                await asyncio.sleep(0)
            elif wait == "task":
                await asyncio.create_task(asyncio.sleep(30))
            else:
                future = asyncio.get_running_loop().create_future()
                future.set_result(None)
                await future
                await asyncio.sleep(30)
        except asyncio.CancelledError as error:
            await asyncio.sleep(0)
            return error.args, task.cancelling(), task is asyncio.current_task()

    async def scene(stage: Stage) -> None:
        if warm:
            await stage.call(current)
            await asyncio.sleep(0)
        arguments, cancelling, same = await stage.call(handler)
        # What a real Task says of the same handler.
        assert ((arguments, cancelling, same)) == await asyncio.create_task(handler())

    on_loop(scene)


def test_a_cancelled_handler_that_does_not_catch_it(on_loop: Any) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(30)

    async def scene(stage: Stage) -> None:
        for _ in range(2):
            with pytest.raises(Raised) as caught:
                await stage.call(handler)
            assert isinstance(caught.value.error, asyncio.CancelledError)
            await stage.call(current)

    on_loop(scene)


def test_uncancel(on_loop: Any) -> None:
    async def handler() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        seen = [task.cancelling(), task.uncancel(), task.cancelling()]
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append("cancelled")
        return seen

    async def scene(stage: Stage) -> None:
        for _ in range(2):
            assert await stage.call(handler) == await asyncio.create_task(handler())
            await stage.call(current)
            await asyncio.sleep(0)

    on_loop(scene)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_suspended_handler_is_cancelled_from_outside(on_loop: Any, at_once: bool) -> None:
    async def scene(stage: Stage) -> None:
        tasks: list[Any] = []
        cleaned: list[Any] = []

        async def handler() -> None:
            tasks.append(asyncio.current_task())
            try:
                await asyncio.sleep(30)
            finally:
                cleaned.append(asyncio.current_task())

        owners = [Owner() for _ in range(3)]

        def received() -> None:
            for owner in owners:
                stage.dispatcher.run(owner, handler, ())
            stage.dispatcher.leave()
            if at_once:
                for task in tasks:
                    assert task.cancel("stop")

        stage.loop.call_soon(received)
        if not at_once:
            await asyncio.sleep(0.001)
            for task in tasks:
                assert task.cancel("stop")
        for owner in owners:
            kind, error = await asyncio.wait_for(asyncio.shield(owner.finished), 5)
            assert kind == "error"
            assert isinstance(error, asyncio.CancelledError)
            assert len(owner.outcomes) == 1
        assert cleaned == tasks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)

    on_loop(scene)


def test_the_spare_is_cancelled_from_outside(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        spare = await stage.call(current)
        await asyncio.sleep(0)
        assert spare.cancel()
        following = await stage.call(current)
        assert following is not spare
        await asyncio.sleep(0.001)
        assert spare.done()
        assert await stage.call(current) is following

    on_loop(scene)


def test_everything_is_cancelled(on_loop: Any) -> None:
    """What `asyncio.run` does at its end, with a spare, a fresh spare and suspended handlers."""

    async def handler() -> None:
        await asyncio.sleep(30)

    async def scene(stage: Stage) -> None:
        owners = [Owner() for _ in range(3)]

        def received() -> None:
            for owner in owners:
                stage.dispatcher.run(owner, handler, ())
            stage.dispatcher.run(Owner(), current, ())
            stage.dispatcher.leave()

        stage.loop.call_soon(received)
        await asyncio.sleep(0.001)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(others) == 4
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=5)
        assert all(task.done() for task in others)
        assert [owner.outcomes[0][0] for owner in owners] == ["error"] * 3
        assert isinstance(await stage.call(current), asyncio.Task)

    on_loop(scene)


# ---------------------------------------------------------------------------------------------------------- contexts


def test_context_variables_do_not_leak(on_loop: Any) -> None:
    async def put() -> Any:
        seen = variable.get()
        variable.set("mine")
        return seen, variable.get()

    def put_inline() -> Any:
        seen = variable.get()
        variable.set("mine")
        return seen

    async def keep() -> Any:
        seen = [variable.get()]
        variable.set("kept")
        await asyncio.sleep(0)
        seen.append(variable.get())
        await asyncio.to_thread(int)
        seen.append(await asyncio.create_task(asyncio.to_thread(variable.get)))
        return seen

    async def scene(stage: Stage) -> None:
        for _ in range(2):
            assert await stage.call(put) == (None, "mine")
            assert await stage.call(put_inline) is None
            assert await stage.call(keep) == [None, "kept", "kept"]
        assert variable.get() is None

    on_loop(scene)


def test_the_context_of_the_start_is_what_requests_begin_with(impl: Any) -> None:
    async def main() -> None:
        variable.set("start")
        stage = Stage(impl)
        variable.set("later")

        async def handler() -> Any:
            return variable.get()

        assert await stage.call(handler) == "start"
        given = contextvars.Context()
        given.run(variable.set, "given")
        stage.dispatcher = impl.dispatch.Dispatcher(stage.loop, given)
        assert stage.dispatcher.context is given
        assert await stage.call(handler) == "given"
        stage.dispatcher.close()

    asyncio.run(main())


def test_generator_based_context_managers_end_in_their_context(on_loop: Any) -> None:
    async def handler() -> Any:
        token = variable.set("inside")
        await asyncio.sleep(0)
        variable.reset(token)
        return variable.get()

    async def scene(stage: Stage) -> None:
        assert await stage.call(handler) is None

    on_loop(scene)


# ------------------------------------------------------------------------------------------------------- the outcome


def test_what_resolve_returns_is_driven_next(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        seen: list[Any] = []

        async def second(suspend: bool) -> str:
            seen.append((asyncio.current_task(), variable.get()))
            if suspend:
                await asyncio.sleep(0)
            return "second"

        async def first(suspend: bool) -> str:
            variable.set("set by the first")
            seen.append((asyncio.current_task(), variable.get()))
            if suspend:
                await asyncio.sleep(0)
            return "first"

        for one in (False, True):
            for two in (False, True):
                seen.clear()
                owner = Owner(lambda kind, outcome, two=two: second(two) if outcome == "first" else None)
                outcomes = await stage.batch(lambda one=one: first(one), owners=[owner])
                assert outcomes == [("value", "second")]
                assert owner.outcomes == [("value", "first"), ("value", "second")]
                assert seen[0] == seen[1]

    on_loop(scene)


def test_what_reject_returns_is_driven_next(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        async def mend() -> str:
            await asyncio.sleep(0)
            return "mended"

        async def fail(suspend: bool) -> None:
            if suspend:
                await asyncio.sleep(0)
            raise ValueError("x")

        def follow(kind: str, outcome: Any) -> Any:
            return mend() if kind == "error" else None

        for call in (lambda: fail(False), lambda: fail(True), lambda: [][0]):
            owner = Owner(follow)
            assert await stage.batch(call, owners=[owner]) == [("value", "mended")]
            assert [kind for kind, _ in owner.outcomes] == ["error", "value"]

    on_loop(scene)


@pytest.mark.parametrize("suspend", [False, True])
def test_an_owner_that_raises(on_loop: Any, suspend: bool) -> None:
    """A connection answers for its own errors; if one escapes all the same, the loop hears of it and goes on."""

    class Broken:
        def resolve(self, value: Any) -> None:
            raise RuntimeError("broken owner")

        reject = resolve

    async def handler() -> None:
        if suspend:
            await asyncio.sleep(0)

    async def scene(stage: Stage) -> None:
        errors: list[BaseException] = []
        tasks = asyncio.all_tasks()

        def received() -> None:
            try:
                stage.dispatcher.run(Broken(), handler, ())
            except RuntimeError as error:
                errors.append(error)
            finally:
                stage.dispatcher.leave()

        stage.loop.call_soon(received)
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is not None
        if suspend:
            complaints: list[Any] = []
            previous = stage.loop.get_exception_handler()
            stage.loop.set_exception_handler(lambda loop, context: complaints.append(context.get("exception")))
            assert asyncio.all_tasks() >= tasks
            await asyncio.sleep(0.001)
            gc.collect()
            errors += complaints
            stage.loop.set_exception_handler(previous)
        assert [str(error) for error in errors] == ["broken owner"]
        assert isinstance(await stage.call(current), asyncio.Task)

    on_loop(scene)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_errors_that_are_no_exceptions_leave_through_run(impl: Any, error: type[BaseException]) -> None:
    async def handler() -> None:
        raise error("stop")

    def inline() -> None:
        raise error("stop")

    async def main() -> None:
        stage = Stage(impl)
        for call in (handler, inline):
            owner = Owner()
            caught: list[BaseException] = []

            def received(call: Any = call, owner: Owner = owner, caught: list[BaseException] = caught) -> None:
                try:
                    stage.dispatcher.run(owner, call, ())
                except BaseException as raised:
                    caught.append(raised)
                finally:
                    stage.dispatcher.leave()

            stage.loop.call_soon(received)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [type(raised) for raised in caught] == [error]
            assert [kind for kind, _ in owner.outcomes] == ["error"]
            assert asyncio.current_task() is not None
        stage.dispatcher.close()

    asyncio.run(main())


def test_a_callback_on_the_task_is_called_once_and_the_task_is_not_used_again(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        called: list[Any] = []

        async def handler() -> Any:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(called.append)
            return task

        for _ in range(2):
            task = await stage.call(handler)
            await asyncio.sleep(0.001)
            assert called == [task]
            called.clear()
            assert await stage.call(current) is not task

    on_loop(scene)


def test_a_name_given_to_the_task_may_stay_but_harms_nobody(on_loop: Any) -> None:
    async def handler() -> Any:
        task = asyncio.current_task()
        assert task is not None
        repr(task)
        task.get_stack()
        task.set_name("named")
        return task.get_coro()

    async def scene(stage: Stage) -> None:
        coroutine = await stage.call(handler)
        assert isinstance(coroutine, collections.abc.Coroutine)

    on_loop(scene)


def test_awaiting_the_own_task_is_refused_as_by_asyncio(on_loop: Any) -> None:
    async def handler() -> Any:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        await task

    async def scene(stage: Stage) -> None:
        with pytest.raises(Raised) as caught:
            await stage.call(handler)
        assert isinstance(caught.value.error, RuntimeError)
        assert "cannot await on itself" in str(caught.value.error)

    on_loop(scene)


def test_something_that_is_no_future_is_refused_as_by_asyncio(on_loop: Any) -> None:
    class Odd:
        def __await__(self) -> Iterator[Any]:
            yield "no future"

    async def handler() -> None:
        await Odd()

    async def scene(stage: Stage) -> None:
        with pytest.raises(Raised) as caught:
            await stage.call(handler)
        assert "Task got bad yield: 'no future'" in str(caught.value.error)

    on_loop(scene)


# ---------------------------------------------------------------------------------------------------------- endings


def test_close_while_handlers_are_suspended(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        gate = stage.loop.create_future()
        owners = [Owner(), Owner()]

        async def handler() -> Any:
            return await gate

        def received() -> None:
            for owner in owners:
                stage.dispatcher.run(owner, handler, ())
            stage.dispatcher.run(Owner(), current, ())
            stage.dispatcher.leave()
            stage.dispatcher.close()

        stage.loop.call_soon(received)
        await asyncio.sleep(0.001)
        stage.dispatcher.close()
        gate.set_result("open")
        assert [await asyncio.wait_for(owner.finished, 5) for owner in owners] == [("value", "open")] * 2
        await asyncio.sleep(0.001)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    on_loop(scene)


def test_close_inside_a_task_ends_the_spare(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        spare = await stage.call(current)
        await asyncio.sleep(0)
        stage.dispatcher.close()
        await asyncio.sleep(0.001)
        assert spare.done()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # A dispatcher that was closed may be used again.
        assert await stage.call(current) is not spare

    on_loop(scene)


def test_close_from_within_a_handler(on_loop: Any) -> None:
    async def scene(stage: Stage) -> None:
        async def handler() -> Any:
            stage.dispatcher.close()
            return asyncio.current_task()

        async def suspending() -> Any:
            stage.dispatcher.close()
            await asyncio.sleep(0)
            return asyncio.current_task()

        for call in (handler, suspending, handler):
            assert isinstance(await stage.call(call), asyncio.Task)
            await asyncio.sleep(0.001)
        assert isinstance(await stage.call(current), asyncio.Task)

    on_loop(scene)


@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("run", [True, False])
def test_a_loop_that_ends_with_a_spare_is_quiet(
    impl: Any,
    loop_name: str,
    parked: bool,
    run: bool,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No "Task was destroyed but it is pending", no "coroutine was never awaited", whether or not tasks are cancelled."""

    async def main() -> None:
        stage = Stage(impl)
        await stage.call(current)
        if parked:
            await asyncio.sleep(0)

    loop = loop_factory(loop_name)()
    if run:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
    else:
        loop.run_until_complete(main())
        loop.close()
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_suspended_handler_that_is_dropped_with_its_loop_ends_its_finally(impl: Any) -> None:
    ended: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("finally")

    async def main() -> None:
        stage = Stage(impl)
        stage.loop.set_exception_handler(lambda loop, context: None)
        stage.loop.call_soon(lambda: (stage.dispatcher.run(Owner(), handler, ()), stage.dispatcher.leave()))
        await asyncio.sleep(0.001)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    del loop
    gc.collect()
    assert ended == ["finally"]


def test_suspended_drivers_are_collected(impl: Any) -> None:
    """A handler, its driver and its Task make a cycle; without the loop it must go."""

    class Marker:
        pass

    async def main() -> weakref.ref[Marker]:
        stage = Stage(impl)
        marker = Marker()

        async def handler(held: Marker) -> None:
            await asyncio.sleep(30)

        owner = Owner()

        def received() -> None:
            stage.dispatcher.run(owner, handler, (marker,))
            stage.dispatcher.leave()

        stage.loop.call_soon(received)
        await asyncio.sleep(0.001)
        return weakref.ref(marker)

    reference = asyncio.run(main())
    gc.collect()
    assert reference() is None


def test_running_inside_a_task_is_refused_and_leaves_no_trace(impl: Any) -> None:
    async def main() -> None:
        stage = Stage(impl)
        owner = Owner()
        with pytest.raises(RuntimeError, match="Cannot enter into task"):
            stage.dispatcher.run(owner, current, ())
        assert not stage.dispatcher.entered
        stage.dispatcher.leave()
        assert owner.outcomes == []
        assert isinstance(await stage.call(current), asyncio.Task)
        stage.dispatcher.close()

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------------- leaks


@pytest.mark.parametrize("kind", ["inline", "coroutine", "suspending", "failing", "failing_late"])
def test_nothing_is_left_of_many_requests(impl: Any, kind: str) -> None:
    rounds, size = (40, 250) if kind in ("inline", "coroutine") else (20, 100)
    counts: list[int] = []

    class Plain:
        def resolve(self, value: Any) -> None:
            pass

        def reject(self, error: BaseException) -> None:
            pass

    async def coroutine() -> object:
        return token

    async def suspending() -> object:
        await asyncio.sleep(0)
        return token

    async def failing() -> None:
        raise ValueError(token)

    async def failing_late() -> None:
        await asyncio.sleep(0)
        raise ValueError(token)

    token = object()
    call = {
        "inline": lambda: token,
        "coroutine": coroutine,
        "suspending": suspending,
        "failing": failing,
        "failing_late": failing_late,
    }[kind]
    references: list[int] = []

    async def main() -> None:
        stage = Stage(impl)
        owner = Plain()

        def received() -> None:
            for _ in range(size):
                stage.dispatcher.run(owner, call, ())
            stage.dispatcher.leave()

        for number in range(rounds):
            stage.loop.call_soon(received)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if number in (5, rounds - 1):
                gc.collect()
                counts.append(len(gc.get_objects()))
                references.append(sys.getrefcount(token) + sys.getrefcount(None) * 0)
        stage.dispatcher.close()

    asyncio.run(main())
    assert counts[1] - counts[0] < 50
    assert references[0] == references[1]


# ---------------------------------------------------------------------------------------------------------- Endpoint


def endpoint(impl: Any, *arguments: Any, **options: Any) -> Any:
    plain: dict[str, Any] = {"encode": str, "on_error": repr, "dumps": bytes}
    return impl.dispatch.Endpoint(*arguments, **(plain | options))


def test_an_endpoint_keeps_what_it_was_given(impl: Any) -> None:
    options: dict[str, Any] = {
        "mode": 2,
        "kinds": b"\x01",
        "plan": repr,
        "encode": str,
        "native": False,
        "on_error": repr,
        "dumps": bytes,
        "status": 201,
        "body_limit": 1 << 40,
        "route": object(),
    }
    made = impl.dispatch.Endpoint(print, **options)
    assert made.call is print
    assert {name: getattr(made, name) for name in options} == options
    plain = endpoint(impl, print)
    assert (plain.mode, plain.kinds, plain.plan, plain.native, plain.status, plain.route) == (
        1,
        b"",
        None,
        True,
        200,
        None,
    )
    plain.status = 404
    assert plain.status == 404
    with pytest.raises(AttributeError):
        plain.other = 1


def test_an_endpoint_refuses_modes_that_it_does_not_know(impl: Any) -> None:
    with pytest.raises(ValueError, match=r"^unknown call mode 7$"):
        endpoint(impl, print, 7)
    with pytest.raises(ValueError, match=r"^CALL_PARAMS needs a plan for parameters that do not convert$"):
        endpoint(impl, print, 2)
    with pytest.raises(TypeError):
        impl.dispatch.Endpoint(print, 1)
    with pytest.raises(TypeError):
        impl.dispatch.Endpoint(print, 1, b"", encode=str, on_error=repr, dumps=bytes)
