"""`run` and its addresses, deprecations, and the public names by which all this is reached."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from armature import App, ConfigurationError, Router
from armature._deprecate import warn_deprecated
from armature.app import parse_address


@pytest.mark.parametrize(
    ("host", "port", "result"),
    [
        (None, None, (None, None)),
        (None, 80, (None, 80)),
        ("0.0.0.0", None, ("0.0.0.0", None)),
        ("0.0.0.0", 8000, ("0.0.0.0", 8000)),
        ("0.0.0.0:8000", None, ("0.0.0.0", 8000)),
        ("localhost:0", None, ("localhost", 0)),
        (":8000", None, ("0.0.0.0", 8000)),
        ("[::1]:8000", None, ("::1", 8000)),
        ("[::1]", 8000, ("::1", 8000)),
        ("::1", 8000, ("::1", 8000)),
        ("::", None, ("::", None)),
    ],
)
def test_addresses(host: str | None, port: int | None, result: tuple[str | None, int | None]) -> None:
    assert parse_address(host, port) == result


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("0.0.0.0:8000", 8000, "the port is given twice, in '0.0.0.0:8000' and as 8000"),
        ("0.0.0.0:http", None, "'0.0.0.0:http' is no address: the port must be a number"),
        ("0.0.0.0:٣", None, "the port must be a number"),
        ("0.0.0.0:70000", None, "a port must be a number from 0 to 65535, not 70000"),
        (None, -1, "a port must be a number from 0 to 65535, not -1"),
        ("[::1", None, "'\\[::1' is no address; write '\\[::1\\]:8000'"),
        ("[::1]8000", None, "is no address"),
    ],
)
def test_addresses_that_are_none(host: str | None, port: int | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_address(host, port)


@pytest.mark.parametrize("kind", [App, Router])
def test_run_hands_the_app_to_the_server(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    calls: list[Any] = []
    server = types.ModuleType("armature.server")
    server.run = lambda target, **options: calls.append((target, options))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "armature.server", server)
    target = kind()
    target.run("0.0.0.0:8000")
    target.run("0.0.0.0", 8000, workers=4)
    target.run(host="h", port=1, uds=None)
    target.run(uds="/run/x.sock")
    target.run(fd=3)
    assert calls == [
        (target, {"host": "0.0.0.0", "port": 8000}),
        (target, {"host": "0.0.0.0", "port": 8000, "workers": 4}),
        (target, {"host": "h", "port": 1, "uds": None}),
        (target, {"uds": "/run/x.sock"}),
        (target, {"fd": 3}),
    ]


def test_deprecations_name_version_and_replacement() -> None:
    def old() -> None:
        warn_deprecated("old()", since="0.2", removal="0.4", instead="new()")

    with pytest.warns(DeprecationWarning, match="old") as warned:
        old()
    assert str(warned[0].message) == (
        "old() is deprecated since Armature 0.2 and will be removed in 0.4; use new() instead"
    )
    assert warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="there is no replacement"):
        warn_deprecated("x", since="0.2", removal="0.4", instead=None)


def test_representations() -> None:
    app = App(title="Shop")
    app.get("/x")(test_representations)
    assert repr(app) == "<App 'Shop'>"
    assert repr(app.routes[0]).startswith("<BoundRoute GET /x ")
    assert repr(app.build()) == "<AppService of 1 routes>"
    assert repr(app.routes[0].methods) == "('GET',)"


def test_a_mounted_app_shows_in_the_routes() -> None:
    async def legacy(scope: Any, receive: Any, send: Any) -> None: ...

    app = App().mount("/legacy", legacy, name="old")
    (route,) = app.routes
    assert (route.path, route.methods, route.mounted, route.name) == ("/legacy", ("*",), True, "old")
    assert repr(app.build().mounts[0]).startswith("<ASGIMount /legacy ")
