"""Middleware that believes proxies, and middleware that sends clients to https."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from armature import App, HttpRequest
from armature.exceptions import ConfigurationError
from armature.middleware.https_redirect import HTTPSRedirectMiddleware
from armature.middleware.proxy_headers import ProxyHeadersMiddleware
from armature.testing import TestClient


def make_app(*middleware: Any) -> App:
    app = App(middleware=list(middleware))

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def index(request: HttpRequest, path: str) -> dict[str, Any]:
        return {
            "client": request.client,
            "scheme": request.scheme,
            "url": str(request.url),
            "gone": await request.is_disconnected(),
            "body": (await request.body()).decode(),
            "app": request.app is app,
        }

    return app


def ask(app: App, fields: dict[str, str], client: Any = ("10.0.0.1", 4711), server: Any = ("127.0.0.1", 80)) -> Any:
    """What the app answers under an ASGI server."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"body", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/a/b",
        "raw_path": b"/a/b",
        "query_string": b"c=d",
        "headers": [(b"host", b"shop.example"), *((name.encode(), value.encode()) for name, value in fields.items())],
        "client": client,
        "server": server,
    }
    asyncio.run(app(scope, receive, send))
    return json.loads(sent[1]["body"])


SAID = {"x-forwarded-for": "6.6.6.6, 192.0.2.1", "x-forwarded-proto": "https"}


def test_the_client_of_a_trusted_proxy() -> None:
    app = make_app(ProxyHeadersMiddleware(["10.0.0.0/8"]))
    found = ask(app, SAID)
    assert found == {
        "client": ["192.0.2.1", 0],
        "scheme": "https",
        "url": "https://shop.example/a/b?c=d",
        "gone": False,
        "body": "body",
        "app": True,
    }
    assert ask(app, {"x-forwarded-proto": "https"})["client"] == ["10.0.0.1", 4711]
    assert ask(app, {})["scheme"] == "http"


@pytest.mark.parametrize(
    ("client", "server", "trusted", "believed"),
    [
        (("192.0.2.9", 1), ("127.0.0.1", 80), "10.0.0.0/8", False),
        (("192.0.2.9", 1), ("127.0.0.1", 80), "*", True),
        # uvicorn names the path of a Unix socket as the server, without a port.
        (None, ("/run/app.sock", None), "unix", True),
        (None, ("127.0.0.1", 80), "unix", False),
        (None, None, "10.0.0.0/8", False),
    ],
)
def test_whom_it_believes(client: Any, server: Any, trusted: str, believed: bool) -> None:
    found = ask(make_app(ProxyHeadersMiddleware(trusted)), SAID, client, server)
    assert found["scheme"] == ("https" if believed else "http")
    assert found["client"] == (["192.0.2.1", 0] if believed else None if client is None else list(client))


def test_forwarded() -> None:
    app = make_app(ProxyHeadersMiddleware("10.0.0.1", ["forwarded"]))
    assert ask(app, {"forwarded": "for=unknown;proto=https", **SAID})["client"] is None


def test_it_works_on_our_own_server_too() -> None:
    with TestClient(make_app(ProxyHeadersMiddleware("*"))) as client:
        assert client.get("/x", headers=SAID).json()["client"] == ["192.0.2.1", 0]
        assert client.post("/x", headers=SAID, content=b"abc").json()["body"] == "abc"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "trusted_proxies is empty"),
        (("nonsense",), "trusted_proxies holds 'nonsense'"),
        (("*", ["x-forwarded-host"]), "the middleware cannot use x-forwarded-host"),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ProxyHeadersMiddleware(*(arguments or ((),)))


# ---- to https


@pytest.mark.parametrize(
    ("options", "status", "location"),
    [
        ({}, 307, "https://testserver/a/b?c=d"),
        ({"status_code": 308}, 308, "https://testserver/a/b?c=d"),
        ({"port": 8443}, 307, "https://testserver:8443/a/b?c=d"),
    ],
)
def test_a_plain_request_is_redirected(options: dict[str, int], status: int, location: str) -> None:
    with TestClient(make_app(HTTPSRedirectMiddleware(**options)), follow_redirects=False) as client:
        for response in (client.get("/a/b?c=d"), client.post("/a/b?c=d", content=b"x")):
            assert (response.status_code, response.headers["location"]) == (status, location)
        # The port of the plain address is not that of the other one.
        response = client.get("/a/b?c=d", headers={"host": "testserver:8080"})
        assert response.headers["location"] == location


def test_a_path_is_not_taken_for_a_host() -> None:
    with TestClient(make_app(HTTPSRedirectMiddleware()), follow_redirects=False) as client:
        assert client.get("http://testserver//evil.example/").headers["location"] == "https://testserver//evil.example/"


def test_a_secure_request_passes() -> None:
    with TestClient(make_app(HTTPSRedirectMiddleware()), base_url="https://testserver") as client:
        assert client.get("/a").json()["url"] == "https://testserver/a"


def test_a_proxy_that_ends_tls() -> None:
    app = make_app(ProxyHeadersMiddleware("*"), HTTPSRedirectMiddleware())
    with TestClient(app, follow_redirects=False) as client:
        assert client.get("/a", headers={"x-forwarded-proto": "https"}).status_code == 200
        assert client.get("/a", headers={"x-forwarded-proto": "http"}).status_code == 307
        assert client.get("/a").status_code == 307


@pytest.mark.parametrize("options", [{"status_code": 302}, {"port": 0}])
def test_a_redirect_that_is_none_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        HTTPSRedirectMiddleware(**options)
