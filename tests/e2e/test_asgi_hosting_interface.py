"""Which callables are served as what: told apart by `interface_of`, named on the command line, made by factories."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from armature import App, Router
from armature.exceptions import ConfigurationError
from armature.server import Server, ServerConfig
from armature.server.asgi_interface import interface_of, is_native, single_callable
from armature.server.importer import AppImportError, load_app
from counterparts import require_module
from e2e.command_line import command, eventually, fetch, run_command


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


async def coroutine_of_anything(*arguments: Any) -> None: ...


async def coroutine_with_default(scope: Any, receive: Any, send: Any, extra: int = 1) -> None: ...


async def coroutine_of_two(one: Any, two: Any) -> None: ...


async def coroutine_of_one(scope: Any) -> None: ...


def function(scope: Any, receive: Any, send: Any) -> Awaitable[None]: ...  # type: ignore[empty-body]


def double(scope: Any) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


def two(left: Any, right: Any) -> Any: ...


def factory() -> Any: ...


def factory_of_one(config: Any) -> Any: ...


class Single:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None: ...


class Plain:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class Double:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class Endpoint:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class Flask:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class KeywordOnly:
    def __call__(self, scope: Any, receive: Any, send: Any, *, extra: Any) -> Any: ...


class Anything:
    def __call__(self, *arguments: Any, **options: Any) -> Any: ...


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (coroutine, "asgi3"),
        (coroutine_of_anything, "asgi3"),
        (coroutine_with_default, "asgi3"),
        (function, "asgi3"),
        (functools.partial(coroutine_with_default, extra=2), "asgi3"),
        (Single(), "asgi3"),
        (Single().method, "asgi3"),
        (Single.static, "asgi3"),
        (Plain(), "asgi3"),
        (Endpoint, "asgi3"),
        (double, "asgi2"),
        (Double, "asgi2"),
        (wsgi, "wsgi"),
        (Flask(), "wsgi"),
        (coroutine_of_two, None),
        (coroutine_of_one, None),
        (two, None),
        (factory, None),
        (factory_of_one, None),
        (Single, None),
        (Anything(), None),
        (KeywordOnly(), None),
        (print, None),
        (dict, None),
        (5, None),
        (None, None),
        ("app", None),
    ],
)
def test_interfaces(app: Any, interface: str | None) -> None:
    assert interface_of(app) == interface
    if interface == "wsgi":
        with pytest.raises(ConfigurationError, match="is a WSGI app"):
            single_callable(app, "wsgi")


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("starlette", lambda: __import__("starlette.applications").applications.Starlette()),
        ("fastapi", lambda: __import__("fastapi").FastAPI()),
        ("litestar", lambda: __import__("litestar").Litestar([])),
    ],
)
def test_frameworks(package: str, make: Callable[[], Any]) -> None:
    require_module(package)
    app = make()
    assert not is_native(app)
    assert interface_of(app) == "asgi3"


def test_our_own() -> None:
    for app in (App(), Router()):
        assert is_native(app)
        assert is_native(app.build())
    assert not is_native(App)


def test_the_option_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="interface must be one of auto, armature, asgi, not 'wsgi'"):
        ServerConfig(interface="wsgi")  # type: ignore[arg-type]


def test_interface_asgi_takes_what_can_be_called() -> None:
    assert Server(Anything(), interface="asgi").load() is not None
    with pytest.raises(ConfigurationError, match="neither an App nor a Router nor a service"):
        Server(SimpleNamespace(), interface="asgi").load()


# ---- import strings

SOURCE = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})

def create():
    return app

def wsgi(environ, start_response):
    return []
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"hosted_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_import_strings(module: str) -> None:
    app = load_app(f"{module}:app")
    assert interface_of(app) == "asgi3"
    assert load_app(module) is app
    assert load_app(f"{module}:create", factory=True) is app
    with pytest.raises(AppImportError, match="not an app"):
        load_app(f"{module}:app", interface="armature")
    with pytest.raises(AppImportError, match="not an app"):
        load_app(f"{module}:create")
    with pytest.raises(ConfigurationError, match="a2wsgi"):
        Server(f"{module}:wsgi").load()


def test_the_only_foreign_app_of_a_module_need_not_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_module("starlette")
    name = f"foreign_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text("from starlette.applications import Starlette\nsite = Starlette()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert type(load_app(name)).__name__ == "Starlette"


# ---- the command


@pytest.mark.parametrize("arguments", [("run", "hosted:app"), ("run", "hosted:create", "--factory"), ("run", "hosted")])
def test_the_command_serves_it(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "hosted.py").write_text(SOURCE)
    with command(*arguments, "--port", "0", cwd=tmp_path) as process:
        assert fetch(process.port, "/x") == (200, "/x")
        assert process.stop() == 0


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_the_development_server_serves_it(tmp_path: Path) -> None:
    (tmp_path / "hosted.py").write_text(SOURCE)
    with command("dev", "hosted:app", "--port", "0", cwd=tmp_path) as process:
        assert fetch(process.port, "/x") == (200, "/x")
        (tmp_path / "hosted.py").write_text(SOURCE.replace('scope["path"].encode()', 'b"changed"'))
        eventually(lambda: fetch(process.port, "/x") == (200, "changed"))


def test_the_command_without_a_lifespan(tmp_path: Path) -> None:
    (tmp_path / "hosted.py").write_text(SOURCE)
    result = run_command("run", "hosted:app", "--port", "0", "--lifespan", "on", cwd=tmp_path)
    assert result.returncode == 3
    assert "has no lifespan" in result.stderr


def test_the_command_and_wsgi(tmp_path: Path) -> None:
    (tmp_path / "hosted.py").write_text(SOURCE)
    result = run_command("run", "hosted:wsgi", "--port", "0", cwd=tmp_path)
    assert result.returncode == 2
    assert "a2wsgi" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_routes_of_another_framework_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "hosted.py").write_text(SOURCE)
    result = run_command("routes", "hosted:app", cwd=tmp_path)
    assert result.returncode == 2
    assert "not an app" in result.stderr
