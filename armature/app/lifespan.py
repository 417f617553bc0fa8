"""Start an app and everything in it, in order; stop it in reverse, also if starting fails half-way."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from armature.exceptions import ConfigurationError
from armature.routing.router import Include, Mounted, Router

if TYPE_CHECKING:
    from armature.app.application import App
    from armature.app.mounts import ASGIMount
    from armature.pipeline.threads import WorkerPool

__all__ = ["run_lifespan"]


@asynccontextmanager
async def run_lifespan(app: App, mounts: Sequence[ASGIMount], pools: Sequence[WorkerPool]) -> AsyncIterator[None]:
    """Run an app's life: its lifespan, its start-up functions, then those of what it contains, in registration order.

    Args:
        app: The app.
        mounts: The ASGI apps mounted in it.
        pools: Thread pools to close at the end.
    """
    waiting = {id(mount.app): mount for mount in mounts}
    seen: set[int] = set()
    async with AsyncExitStack() as stack:
        for pool in pools:
            stack.callback(pool.close)
        await _enter(app, app, stack, waiting, seen)
        yield


async def _enter(router: Router, app: Any, stack: AsyncExitStack, mounts: dict[int, ASGIMount], seen: set[int]) -> None:
    # A router may be included twice; it lives once.
    if id(router) in seen:
        return
    seen.add(id(router))
    if router.lifespan_context is not None:
        state = await stack.enter_async_context(_manager(router.lifespan_context, app))
        if isinstance(state, Mapping):
            # What a lifespan yields is for everybody to see, as in Starlette.
            for name, value in state.items():
                setattr(app.state, name, value)
    for function in router.on_startup:
        await _call(function)
    if router.on_shutdown:
        stack.push_async_callback(_call_all, tuple(router.on_shutdown))
    for entry in router.entries:
        if isinstance(entry, Include):
            await _enter(entry.router, app, stack, mounts, seen)
        elif isinstance(entry, Mounted) and isinstance(entry.app, Router):
            inner = entry.app
            await _enter(inner, inner if inner.is_app else app, stack, mounts, seen)
        elif isinstance(entry, Mounted):
            mount = mounts.pop(id(entry.app), None)
            if mount is not None:
                await stack.enter_async_context(mount.lifespan())


def _manager(lifespan: Callable[[Any], Any], app: Any) -> Any:
    if inspect.isasyncgenfunction(lifespan):
        return asynccontextmanager(lifespan)(app)
    manager = lifespan(app)
    if not hasattr(manager, "__aenter__"):
        name = getattr(lifespan, "__qualname__", repr(lifespan))
        if inspect.iscoroutine(manager):
            manager.close()
        raise ConfigurationError(
            f"lifespan {name} is no asynchronous context manager; write @asynccontextmanager above it, and yield once"
        )
    return manager


async def _call_all(functions: tuple[Callable[..., Any], ...]) -> None:
    # In the order of registration, as everywhere in the field; one that fails does not keep the others from running.
    failed: list[Exception] = []
    for function in functions:
        try:
            await _call(function)
        except Exception as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise ExceptionGroup("functions called at shutdown failed", failed)


async def _call(function: Callable[..., Any]) -> None:
    value = function()
    if inspect.isawaitable(value):
        await value
