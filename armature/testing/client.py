"""Test clients: an app is started in this process and asked over its real connection core, without a socket.

`TestClient` is for plain tests, `AsyncTestClient` for tests that run on an event loop themselves. Both keep the names
that users of Starlette's and httpx's clients know.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar, Unpack

from armature.http.url import URL
from armature.server.config import ServerConfig
from armature.testing.base import UNSET, BaseClient, HeadersInput, RequestOptions, Unset
from armature.testing.errors import ClientClosed, ClientError
from armature.testing.response import ClientResponse, Runner
from armature.testing.session import Session

__all__ = ["AsyncTestClient", "TestClient"]

_T = TypeVar("_T")


class TestClient(BaseClient):
    """Ask an app from a plain test.

    The app runs on an event loop of the client's own, which turns in the thread of the test while a request is under
    way. `with TestClient(app) as client:` runs the app's lifespan around the block; without `with`, start-up runs
    before the first request and shut-down at `close()`, or when the client is collected.

    Args:
        app: An `App`, a `Router`, or anything with `build()`; also the service that it builds.
        base_url: What relative URLs are relative to; an `https` URL makes `request.scheme` be `https`.
        raise_server_exceptions: Whether an exception that nobody handles is raised in the test, not answered with 500.
        follow_redirects: Whether redirects are followed.
        headers: Field lines of every request.
        cookies: Cookies of every request.
        timeout: Seconds that a request may take; None for no bound.
        client: What `request.client` is.
        server: Options of the server.
        loop_factory: Makes the event loop, for instance `uvloop.new_event_loop`.

    Raises:
        ValueError: `base_url` is no http or https URL.
    """

    def __init__(
        self,
        app: Any,
        base_url: str = "http://testserver",
        *,
        raise_server_exceptions: bool = True,
        follow_redirects: bool = True,
        headers: HeadersInput | None = None,
        cookies: Mapping[str, str] | None = None,
        timeout: float | None = 30.0,
        client: tuple[str, int] = ("testclient", 50000),
        server: ServerConfig | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        super().__init__(
            app,
            base_url,
            raise_server_exceptions=raise_server_exceptions,
            follow_redirects=follow_redirects,
            headers=headers,
            cookies=cookies,
            timeout=timeout,
            client=client,
            server=server,
        )
        self._loop_factory = loop_factory or asyncio.new_event_loop
        self._stage: Stage | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def _runner(self) -> Runner:
        # Not `run`: a response that outlives its client must not start the app again.
        assert self._stage is not None
        return self._stage.run

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _started(self) -> Stage:
        stage = self._stage
        if stage is None:
            stage = Stage(self._loop_factory())
            try:
                stage.run(stage.start(self.app, self._client, self._server))
            except BaseException:
                stage.dismantle()
                raise
            self._stage = stage
            self._finalizer = weakref.finalize(self, stage.close)
        return stage

    async def _session_now(self) -> Session:
        assert self._stage is not None
        return self._stage.session

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the app's event loop and return its result, for instance to look into a database.

        Args:
            coroutine: The coroutine.
        """
        try:
            stage = self._started()
        except BaseException:
            coroutine.close()
            raise
        return stage.run(coroutine)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Shut the app down; the next request starts it again. What a shutdown hook raises is raised here."""
        stage, self._stage = self._stage, None
        if stage is not None:
            assert self._finalizer is not None
            self._finalizer.detach()
            stage.close()

    def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a request and return the whole response.

        Args:
            method: The method.
            url: An absolute URL, or one relative to `base_url`.
            options: `params`, `headers`, `cookies`, `content`, `data`, `json`, `files`, `auth`, `follow_redirects`,
                `timeout`.

        Raises:
            RequestTimeout: The response was not complete in time.
            ConnectionClosed: The server closed the connection before the response was complete.
            InvalidResponse: What the server sent is not valid HTTP/1.1.
        """
        return self.run(self._send(method, url, False, **options))

    def get(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a GET request; see `request`."""
        return self.request("GET", url, **options)

    def head(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a HEAD request; see `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send an OPTIONS request; see `request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a POST request; see `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PUT request; see `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PATCH request; see `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a DELETE request; see `request`."""
        return self.request("DELETE", url, **options)

    @contextlib.contextmanager
    def stream(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> Iterator[ClientResponse]:
        """Send a request and read its response piece by piece; leaving the block early disconnects.

        Args:
            method: The method.
            url: An absolute URL, or one relative to `base_url`.
            options: Those of `request`; `timeout` bounds the wait for the head and for each piece.
        """
        response = self.run(self._send(method, url, True, **options))
        try:
            yield response
        finally:
            response.close()

    def raw(self, data: bytes | Iterable[bytes], *, timeout: float | Unset | None = UNSET) -> bytes:
        """Send bytes over a new connection, then end it, and return everything that the server sends.

        Args:
            data: The bytes; of an iterable, every piece is received by itself.
            timeout: Seconds until the server must have closed; the client's setting by default.

        Raises:
            RequestTimeout: The server did not close in time.
        """
        return self.run(self._raw(data, timeout))


class Stage:
    """An event loop with a started app on it, for use from plain code.

    Args:
        loop: The loop, not running.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self.session: Session

    async def start(self, app: Any, client: tuple[str, int], config: ServerConfig) -> None:
        """Start the app on the loop."""
        session = Session(app, client=client, config=config)
        await session.start()
        self.session = session

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop; in another thread if this one has a running loop already."""
        if self._loop.is_closed():
            coroutine.close()
            raise ClientClosed("the client that this response came from is closed")
        # What the app raises must not look as if it came from the question whether a loop runs here.
        if asyncio._get_running_loop() is None:
            with self._lock:
                return self._loop.run_until_complete(coroutine)
        outcome: list[Any] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                with self._lock:
                    outcome.append(context.run(self._loop.run_until_complete, coroutine))
            except BaseException as error:
                failure.append(error)

        context = contextvars.copy_context()
        thread = threading.Thread(target=work, name="armature-test-client")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def close(self) -> None:
        """Shut the app down and close the loop."""
        try:
            self.run(self.session.close())
        finally:
            self.dismantle()

    def dismantle(self) -> None:
        """Cancel what still runs on the loop, and close it."""
        try:
            self.run(_wind_up())
        finally:
            self._loop.close()


async def _wind_up() -> None:
    loop = asyncio.get_running_loop()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
        for task in left:
            if not task.cancelled() and (error := task.exception()) is not None:
                loop.call_exception_handler({"message": "a task failed at shutdown", "exception": error, "task": task})
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


class AsyncTestClient(BaseClient):
    """Ask an app from a test that runs on an event loop; the app runs on the same loop.

    `async with AsyncTestClient(app) as client:` runs the app's lifespan around the block; without it, start-up runs
    before the first request and shut-down at `aclose()`. Requests may be under way at the same time.

    Args:
        app: An `App`, a `Router`, or anything with `build()`; also the service that it builds.
        base_url: What relative URLs are relative to; an `https` URL makes `request.scheme` be `https`.
        raise_server_exceptions: Whether an exception that nobody handles is raised in the test, not answered with 500.
        follow_redirects: Whether redirects are followed.
        headers: Field lines of every request.
        cookies: Cookies of every request.
        timeout: Seconds that a request may take; None for no bound.
        client: What `request.client` is.
        server: Options of the server.

    Raises:
        ValueError: `base_url` is no http or https URL.
    """

    _session: asyncio.Task[Session] | None = None

    async def __aenter__(self) -> Self:
        await self._session_now()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def is_open(self) -> bool:
        """Whether the app is started."""
        return self._session is not None

    async def _session_now(self) -> Session:
        opening = self._session
        if opening is None:
            # Requests that begin together share one start-up.
            opening = self._session = asyncio.get_running_loop().create_task(self._open())
        elif opening.get_loop() is not asyncio.get_running_loop():
            raise ClientError(
                "this client was started on another event loop; make one client per test, or close it with aclose()"
            )
        try:
            return await asyncio.shield(opening)
        finally:
            if opening.done() and (opening.cancelled() or opening.exception() is not None) and self._session is opening:
                self._session = None

    async def _open(self) -> Session:
        session = Session(self.app, client=self._client, config=self._server)
        await session.start()
        return session

    async def aclose(self) -> None:
        """Shut the app down; the next request starts it again. What a shutdown hook raises is raised here."""
        opening, self._session = self._session, None
        if opening is not None:
            await (await opening).close()

    async def request(self, method: str, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a request and return the whole response.

        Args:
            method: The method.
            url: An absolute URL, or one relative to `base_url`.
            options: `params`, `headers`, `cookies`, `content`, `data`, `json`, `files`, `auth`, `follow_redirects`,
                `timeout`.

        Raises:
            RequestTimeout: The response was not complete in time.
            ConnectionClosed: The server closed the connection before the response was complete.
            InvalidResponse: What the server sent is not valid HTTP/1.1.
        """
        return await self._send(method, url, False, **options)

    async def get(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a GET request; see `request`."""
        return await self.request("GET", url, **options)

    async def head(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a HEAD request; see `request`."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send an OPTIONS request; see `request`."""
        return await self.request("OPTIONS", url, **options)

    async def post(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a POST request; see `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PUT request; see `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PATCH request; see `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str | URL, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a DELETE request; see `request`."""
        return await self.request("DELETE", url, **options)

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, url: str | URL, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[ClientResponse]:
        """Send a request and read its response piece by piece; leaving the block early disconnects.

        Args:
            method: The method.
            url: An absolute URL, or one relative to `base_url`.
            options: Those of `request`; `timeout` bounds the wait for the head and for each piece.
        """
        response = await self._send(method, url, True, **options)
        try:
            yield response
        finally:
            await response.aclose()

    async def raw(
        self,
        data: bytes | Iterable[bytes],
        *,
        timeout: float | Unset | None = UNSET,
    ) -> bytes:
        """Send bytes over a new connection, then end it, and return everything that the server sends.

        Args:
            data: The bytes; of an iterable, every piece is received by itself.
            timeout: Seconds until the server must have closed; the client's setting by default.

        Raises:
            RequestTimeout: The server did not close in time.
        """
        return await self._raw(data, timeout)
