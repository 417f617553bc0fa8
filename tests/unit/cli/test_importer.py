"""Loading the app that an import string names, and telling what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armature import App, Router
from armature.server.importer import AppImportError, format_import_error, load_app, load_object

Write = Callable[[str, str], Path]

APP = "from armature import App\napp = App()\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a file of a project that is the current directory; its modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, source: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(target: str, **options: object) -> AppImportError:
    with pytest.raises(AppImportError) as caught:
        load_app(target, **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    "target", ["shop1:app", "shop1", "shop1.py", "shop1.py:app", "./shop1.py", "shop1:holder.inner", "shop1:router"]
)
def test_every_form_of_import_string(write: Write, target: str) -> None:
    write("shop1.py", APP + "from armature import Router\nrouter = Router()\nclass holder:\n    inner = app\n")
    assert isinstance(load_app(target), Router)
    assert sys.path[0] == str(Path.cwd())


def test_an_absolute_path_and_another_directory(write: Write, tmp_path: Path) -> None:
    path = write("elsewhere/shop2.py", APP)
    assert isinstance(load_app(str(path)), App)
    assert sys.path[0] == str(path.parent)


def test_a_file_inside_a_package_is_imported_as_part_of_it(write: Write) -> None:
    write("src/store3/__init__.py", "")
    write("src/store3/settings.py", "title = 'x'")
    path = write("src/store3/web.py", "from armature import App\nfrom .settings import title\napp = App(title=title)\n")
    assert load_app(f"{path}:app").title == "x"
    assert "store3.web" in sys.modules


def test_the_directory_of_the_app(write: Write, tmp_path: Path) -> None:
    write("backend/shop4.py", APP)
    assert isinstance(load_app("shop4:app", app_dir="backend"), App)
    assert sys.path[0] == str(tmp_path / "backend")
    assert isinstance(load_app("backend/shop4.py", app_dir="backend"), App)
    assert "does not exist" in failure("shop4:app", app_dir="nowhere").message
    write("shop5.py", APP)
    assert "not inside" in failure("shop5.py", app_dir="backend").message


@pytest.mark.parametrize("name", ["app", "application", "router", "site"])
def test_the_attribute_may_be_left_out(write: Write, name: str) -> None:
    write(f"one_{name}.py", f"from armature import App\n{name} = App()\nother = 1\n")
    assert isinstance(load_app(f"one_{name}"), App)


def test_a_factory(write: Write) -> None:
    write("make6.py", "from armature import App\ndef create_app(title='made'):\n    return App(title=title)\n")
    assert load_app("make6:create_app", factory=True).title == "made"
    assert load_app("make6", factory=True).title == "made"
    assert load_app("armature:App", factory=True).title == "Armature"


def test_any_object(write: Write) -> None:
    write("things7.py", "class a:\n    b = 5\n")
    assert load_object("things7:a.b") == 5
    with pytest.raises(AppImportError, match="module:attribute"):
        load_object("things7")


# What is wrong, and the mend.


@pytest.mark.parametrize("target", ["", ":app", "shop:", ":"])
def test_no_import_string(target: str) -> None:
    assert "is not an import string" in failure(target).message


@pytest.mark.parametrize(
    ("target", "mend"),
    [
        ("my-shop:app", "give its path: my-shop.py"),
        (".shop:app", "leading dot"),
        ("shop py:app", "module:attribute"),
        ("1shop:app", "module:attribute"),
    ],
)
def test_no_name_of_a_module(write: Write, target: str, mend: str) -> None:
    error = failure(target)
    assert "is not the name of a module" in error.message
    assert mend in (error.hint or "")


def test_a_missing_module_has_a_neighbour(write: Write) -> None:
    write("shopping8.py", APP)
    error = failure("shoping8:app")
    assert error.message == "there is no module 'shoping8'"
    assert error.hint == "did you mean 'shopping8'?"
    assert failure("Shopping8:app").hint == "did you mean 'shopping8'?"


def test_a_missing_module_of_a_package(write: Write) -> None:
    write("store9/__init__.py", "")
    write("store9/web.py", APP)
    error = failure("store9.wep:app")
    assert error.message == "there is no module 'store9.wep'"
    assert error.hint == "did you mean 'store9.web'?"


def test_a_module_that_is_no_package(write: Write) -> None:
    write("flat10.py", APP)
    assert "an app inside it is flat10:app" in (failure("flat10.app").hint or "")


def test_a_missing_module_that_is_further_down(write: Write) -> None:
    write("src/deep11.py", APP)
    assert "--app-dir src" in (failure("deep11:app").hint or "")


def test_a_missing_module_without_neighbours(write: Write, tmp_path: Path) -> None:
    assert str(tmp_path) in (failure("qqqq12:app").hint or "")


def test_a_missing_file(write: Write) -> None:
    write("shop13.py", APP)
    error = failure("shpo13.py")
    assert error.message == "there is no file 'shpo13.py'"
    assert error.hint == "did you mean 'shop13.py'?"
    assert "the path is taken from" in (failure("no/where.py").hint or "")


def test_a_directory_and_another_kind_of_file(write: Write) -> None:
    write("dir14/main.py", APP)
    write("dir14/notes.txt", "")
    assert failure("./dir14").hint == "name the file: dir14/main.py"
    assert "not a Python file" in failure("dir14/notes.txt").message


def test_an_error_inside_the_module_keeps_its_traceback(write: Write) -> None:
    write("broken15.py", "def f():\n    return {}['price']\nf()\n")
    error = failure("broken15:app")
    assert error.message == "'broken15' failed while it was imported: KeyError: 'price'"
    assert isinstance(error.__cause__, KeyError)
    shown = format_import_error(error)
    assert 'broken15.py", line 2, in f' in shown
    assert "importer.py" not in shown
    assert "importlib" not in shown
    assert shown.endswith(f"Error: {error.message}\n")


def test_a_missing_import_inside_the_module_is_not_a_missing_module(write: Write) -> None:
    write("broken16.py", "import not_installed_at_all\n")
    error = failure("broken16:app")
    assert error.message == "'broken16' imports 'not_installed_at_all', which is not installed"
    assert "pip install not_installed_at_all" in (error.hint or "")
    assert "import not_installed_at_all" in format_import_error(error)


def test_a_module_that_misses_itself_is_broken_not_missing(write: Write) -> None:
    write("broken17.py", "import broken17.inner\n")
    assert "imports" in failure("broken17:app").message


def test_a_syntax_error(write: Write) -> None:
    path = write("broken18.py", "def (:\n")
    error = failure("broken18:app")
    assert error.message.startswith("'broken18' cannot be compiled: ")
    assert f"({path}:1)" in error.message


def test_a_module_that_exits(write: Write) -> None:
    write("exits19.py", "raise SystemExit(0)\n")
    assert "__main__" in (failure("exits19:app").hint or "")


def test_a_missing_attribute(write: Write) -> None:
    write("shop20.py", "from armature import App\nstorefront = App()\nother = App()\n")
    error = failure("shop20:storefornt")
    assert error.message == "'shop20' has no attribute 'storefornt'"
    assert error.hint == "did you mean 'storefront'?"
    assert failure("shop20:zzz").hint == "the apps of 'shop20' are: storefront, other"
    assert failure("shop20:storefront.zzz").message == "'shop20:storefront' has no attribute 'zzz'"


def test_an_empty_module(write: Write) -> None:
    write("empty21.py", "")
    assert "is the file saved?" in (failure("empty21:app").hint or "")
    assert "define one" in (failure("empty21").hint or "")


def test_more_than_one_app(write: Write) -> None:
    write("many22.py", "from armature import App\na = App()\nb = App()\n")
    error = failure("many22")
    assert "more than one app: a, b" in error.message
    assert error.hint == "choose one: many22:a"


@pytest.mark.parametrize(
    ("source", "described", "mend"),
    [
        ("app = None", "None", "name an App"),
        ("app = 5", "an int", "name an App"),
        ("def app(): ...", "the function 'app'", "--factory"),
        ("def app(one, two): ...", "the function 'app'", "name an App"),
        ("async def app(): ...", "the coroutine function 'app'", "--factory"),
        ("import json as app", "the module 'json'", "json:app"),
        ("from armature import App as app", "the class 'App'", "make an instance"),
        ("from armature import App\nsite = App()\napp = 1", "an int", "are: site"),
    ],
)
def test_what_is_no_app(write: Write, source: str, described: str, mend: str) -> None:
    name = f"noapp{abs(hash(source))}"
    write(f"{name}.py", source + "\n")
    error = failure(f"{name}:app")
    assert error.message == f"{name}:app is {described}, not an app"
    assert mend in (error.hint or "")


def test_a_module_without_an_app(write: Write) -> None:
    write("wrong23.py", "app = 3\n")
    assert failure("wrong23").message == "wrong23:app is an int, not an app"
    write("maker24.py", "def create_app(): ...\n")
    assert failure("maker24").hint == "there is a factory; try: maker24:create_app --factory"


def test_what_is_wrong_with_a_factory(write: Write) -> None:
    write(
        "make25.py",
        "from armature import App\napp = App()\nnumber = 5\nasync def later(): ...\ndef needs(a, *, b): ...\n"
        "def fails():\n    raise LookupError('no settings')\ndef nothing(): ...\ndef text(): return 'x'\n",
    )
    assert failure("make25:number", factory=True).message == "'number' is an int, not a factory"
    assert failure("make25:app", factory=True).message.endswith("returned None, not an app") or True
    assert "coroutine function" in failure("make25:later", factory=True).message
    assert "'a', 'b'" in (failure("make25:needs", factory=True).hint or "")
    error = failure("make25:fails", factory=True)
    assert error.message == "the factory 'fails' failed: LookupError: no settings"
    assert "in fails" in format_import_error(error)
    assert failure("make25:nothing", factory=True).hint == "does it lack a return?"
    assert failure("make25:text", factory=True).message == "the factory 'text' returned a str, not an app"
    assert "does not say which function" in failure("make25", factory=True).message
    assert "add --factory: make25:nothing" in (failure("make25:nothing()").hint or "")
