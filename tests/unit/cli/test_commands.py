"""The commands that end: their output, their errors, their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import armature
from armature.cli import console, info
from armature.cli.main import COMMANDS
from armature.cli.main import armature as group

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Run a command in an empty directory; modules it imported are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARMATURE_APP", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(group, list(arguments), prog_name="armature")

    yield invoke
    for name in set(sys.modules) - before:
        if name.partition(".")[0] != "armature":
            del sys.modules[name]


def test_help_names_every_command(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"  {name} " in result.stdout
    assert "_ARMATURE_COMPLETE" in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_that_says_the_same(invoke: Invoke, name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert COMMANDS[name][1].partition(":")[0].partition(".")[0] in " ".join(result.stdout.split())


def test_the_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"armature {armature.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "hint"), [("rnu", "'run'"), ("route", "'routes'"), ("zzz", "There are: bench, deploy, dev,")]
)
def test_a_misspelt_command(invoke: Invoke, typed: str, hint: str) -> None:
    result = invoke(typed)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stdout == ""


# new


def test_new_makes_a_project(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("new", "my-shop")
    assert result.exit_code == 0, result.output
    assert "cd my-shop" in result.stdout
    made = {str(path.relative_to(tmp_path / "my-shop")) for path in (tmp_path / "my-shop").rglob("*") if path.is_file()}
    assert made == {".gitignore", "README.md", "app.py", "pyproject.toml", "tests/test_app.py"}
    for path in (tmp_path / "my-shop").rglob("*.*"):
        if path.is_file():
            assert "$" not in path.read_text()
    assert 'name = "my-shop"' in (tmp_path / "my-shop/pyproject.toml").read_text()
    assert 'App(title="my-shop")' in (tmp_path / "my-shop/app.py").read_text()


def test_new_in_a_path_and_in_the_current_directory(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert invoke("new", "deep/er/blog").exit_code == 0
    assert (tmp_path / "deep/er/blog/app.py").is_file()
    (tmp_path / "store" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "store")
    result = invoke("new", ".")
    assert result.exit_code == 0, result.output
    assert "cd " not in result.stdout
    assert (tmp_path / "store/app.py").is_file()


@pytest.mark.parametrize("name", ["1shop", "-", "shop!", "a b", "shop-", "ä", "x" * 70, "_a"])
def test_new_refuses_a_bad_name(invoke: Invoke, tmp_path: Path, name: str) -> None:
    result = invoke("new", "--", name)
    assert result.exit_code == 2
    assert "is not the name of a project" in result.stderr
    assert "mend:" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["armature", "json", "class", "tests", "Email"])
def test_new_refuses_a_name_that_hides_a_module(invoke: Invoke, name: str) -> None:
    result = invoke("new", name)
    assert result.exit_code == 2
    assert "taken" in result.stderr


def test_new_overwrites_nothing(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    result = invoke("new", "shop")
    assert result.exit_code == 2
    assert "not empty: it holds notes.txt" in result.stderr
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["notes.txt"]
    (tmp_path / "blog").write_text("a file")
    assert "not a directory" in invoke("new", "blog").stderr


def test_new_without_permission(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("new", "file/shop")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr or "not a directory" in result.stderr


# routes

ROUTES = """
from armature import APIRouter, App

app = App()
api = APIRouter(prefix="/api")

@app.get("/", name="home")
async def index(): ...

@api.api_route("/items/{item_id:int}", methods=["GET", "PUT"])
async def item(item_id): ...

app.include_router(api)
def make(): return app
"""


def test_routes_as_a_table(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ROUTES)
    for arguments in ((), ("app:app",), ("app.py",), ("app:make", "--factory")):
        result = invoke("routes", *arguments)
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[0] == ["METHODS", "PATH", "NAME", "HANDLER"]
        assert lines[1] == ["GET", "/", "home", "app.index", "(app.py:7)"]
        assert lines[2] == ["GET,", "PUT", "/api/items/{item_id:int}", "item", "app.item", "(app.py:10)"]


def test_routes_as_json(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "shop.py").write_text(ROUTES)
    routes = json.loads(invoke("routes", "shop", "--app-dir", "backend", "--json").stdout)
    assert routes[0] == {
        "methods": ["GET"],
        "path": "/",
        "name": "home",
        "handler": "shop.index",
        "location": "backend/shop.py:7",
        "mounted": False,
    }
    assert routes[1]["methods"] == ["GET", "PUT"]


def test_routes_by_environment(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(ROUTES)
    monkeypatch.setenv("ARMATURE_APP", "shop:app")
    assert "shop.index" in invoke("routes").stdout


def test_routes_of_an_empty_app(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from armature import App\napp = App()\n")
    result = invoke("routes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no routes" in result.stderr


def test_routes_without_an_app(invoke: Invoke) -> None:
    result = invoke("routes")
    assert result.exit_code == 2
    assert "no app is named" in result.stderr
    assert "armature new NAME" in result.stderr


def test_routes_of_a_broken_app(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from armature import App\napp = App()\n\nx = {}['settings']\n")
    result = invoke("routes")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "line 4, in <module>" in result.stderr
    assert "Error: 'app' failed while it was imported: KeyError: 'settings'" in result.stderr
    assert "importer.py" not in result.stderr


def test_a_mistake_in_a_route_is_reported_with_its_mend(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from armature import App\napp = App()\n\n@app.get('/{a')\nasync def f(a): ...\n")
    result = invoke("routes")
    assert result.exit_code == 2
    assert "app.py:" in result.stderr


# info


def test_info_as_text(invoke: Invoke) -> None:
    result = invoke("info")
    assert result.exit_code == 0
    assert armature.__version__ in result.stdout
    assert armature.IMPL in result.stdout
    assert "Optional packages" in result.stdout


def test_info_as_json(invoke: Invoke) -> None:
    facts = json.loads(invoke("info", "--json").stdout)
    assert facts["version"] == armature.__version__
    assert facts["implementation"] == armature.IMPL
    assert facts["packages"]["click"]
    assert set(info.PACKAGES) == set(facts["packages"])


def test_info_works_where_the_installation_is_broken(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "armature._impl", None)
    monkeypatch.delattr(armature, "_impl", raising=False)
    facts = json.loads(invoke("info", "--json").stdout)
    assert facts["implementation"] == "none"
    assert "cannot be loaded" in facts["reason"]


# Options of run and dev that are refused before anything is served.


@pytest.mark.parametrize("command", ["run", "dev"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--uds", "x.sock", "--port", "80"), "--port and --uds exclude each other"),
        (("--fd", "3", "--uds", "x.sock"), "--uds and --fd exclude each other"),
        (("--port", "70000"), "70000"),
        (("--loop", "curio"), "curio"),
        (("--log-level", "loud"), "loud"),
        (("--body-limit", "much"), "is no size"),
        (("--ssl-certfile", "nowhere.pem"), "nowhere.pem"),
        (("--app-dir", "nowhere"), "nowhere"),
        (("--reload-dir", "nowhere"), "nowhere"),
        (("--frobnicate",), "--frobnicate"),
    ],
)
def test_wrong_options(invoke: Invoke, command: str, arguments: tuple[str, ...], message: str) -> None:
    result = invoke(command, "app:app", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_key_needs_its_certificate(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("")
    result = invoke("run", "app:app", "--ssl-keyfile", "key.pem")
    assert result.exit_code == 2
    assert "--ssl-certfile" in result.stderr


@pytest.mark.parametrize("command", ["run", "dev"])
def test_without_an_app(invoke: Invoke, command: str) -> None:
    result = invoke(command)
    assert result.exit_code == 2
    assert "no app is named" in result.stderr


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "\u0664"])
def test_a_number_of_workers_that_is_none(invoke: Invoke, value: str) -> None:
    result = invoke("run", "app:app", "--workers", value)
    assert result.exit_code == 2
    assert f"{value!r} is no number of processes; write 4, or auto" in result.stderr


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What `armature run` would have served, and how."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr("armature.server.run", lambda app, **options: calls.append((app, options)), raising=False)
    return calls


def test_options_reach_the_server(invoke: Invoke, served: list[tuple[Any, dict[str, Any]]], tmp_path: Path) -> None:
    result = invoke(
        "run", "shop:app", "--host", "::1", "--port", "0", "--loop", "asyncio", "--http", "armature",
        "--access-log", "--log-level", "DEBUG", "--body-limit", "2MiB", "--lifespan", "off", "--factory",
        "--shutdown-timeout", "1.5", "--app-dir", ".",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    ((target, options),) = served
    assert target == "shop:app"
    expected = {
        "host": "::1", "port": 0, "loop": "asyncio", "http": "armature", "access_log": True, "log_level": "debug",
        "body_limit": 2 * 1024 * 1024, "lifespan": "off", "factory": True, "shutdown_timeout": 1.5, "app_dir": ".",
        "reload": False, "uds": None, "fd": None,
    }  # fmt: skip
    assert {name: options[name] for name in expected} == expected


def test_dev_without_reload_serves_the_app_with_the_page(
    invoke: Invoke, served: list[tuple[Any, dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("from armature import App\napp = App()\n")
    result = invoke("dev", "--no-reload", "--port", "0", "--host", "0.0.0.0")
    assert result.exit_code == 0, result.output
    ((app, options),) = served
    assert app.debug
    assert app.debug_responder is not None
    assert options["access_log"] is True
    assert "Warning: 0.0.0.0 may be reached by others" in result.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("10k", 10_000), ("10KB", 10_000), ("16MiB", 16 * 1024**2), ("1 gi", 1024**3)],
)
def test_sizes(text: str, size: int) -> None:
    assert console.parse_size(None, None, text) == size  # type: ignore[arg-type]


def test_tables_are_aligned() -> None:
    assert console.table(("A", "LONG"), [("xx", "y"), ("x", "")]) == "A   LONG\nxx  y\nx"
