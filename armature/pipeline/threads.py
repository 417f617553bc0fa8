"""The threads that `def` handlers run in, so that a handler may block without stopping the loop.

The pool belongs to the app's own handlers alone: nothing of the framework waits in it, so a handler that waits for
something that the framework does in a thread cannot wait for itself. When all threads are busy, calls queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from armature.exceptions import ConfigurationError

__all__ = ["WorkerPool", "default_size"]


def default_size() -> int:
    """The number of threads unless one is given: four more than there are processors, at most 32."""
    return min(32, (os.cpu_count() or 1) + 4)


class WorkerPool:
    """A bounded pool of threads, started when first used and again after it was closed.

    Args:
        size: The largest number of threads. Default: `default_size()`.
        name: The prefix of the threads' names.

    Raises:
        ConfigurationError: The size is not a positive number.
    """

    def __init__(self, size: int | None = None, name: str = "armature-handler") -> None:
        if size is not None and size < 1:
            raise ConfigurationError(f"thread_pool_size must be a positive number, not {size!r}")
        self.size = default_size() if size is None else size
        self._name = name
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._finished = 0
        self._busy = 0

    async def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in a thread, with a copy of the present context, and return what it returns.

        A coroutine that the function returns (a decorator without `async` around an `async def`) is awaited here,
        on the loop.
        """
        executor = self._executor or self._start()
        context = contextvars.copy_context()
        work = functools.partial(self._work, context, call, args, kwargs)
        value = await asyncio.get_running_loop().run_in_executor(executor, work)
        return await value if inspect.isawaitable(value) else value

    def _work(self, context: contextvars.Context, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with self._lock:
            self._busy += 1
        try:
            return context.run(call, *args, **kwargs)
        except StopIteration as stop:
            # A future refuses StopIteration, and whoever awaits it would wait for ever (PEP 479 has the same cure).
            raise RuntimeError("the handler raised StopIteration") from stop
        finally:
            with self._lock:
                self._busy -= 1
                self._finished += 1

    def _start(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.size, thread_name_prefix=self._name)
            return self._executor

    def stats(self) -> dict[str, int]:
        """Return the size of the pool, and how many calls are running, waiting and done."""
        with self._lock:
            executor = self._executor
            waiting = 0 if executor is None else executor._work_queue.qsize()
            return {"size": self.size, "busy": self._busy, "waiting": waiting, "finished": self._finished}

    def close(self) -> None:
        """Let the threads end; calls that still wait are dropped, those that run are left to finish."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
