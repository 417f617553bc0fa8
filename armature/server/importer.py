"""Finding the app that an import string names, with an error that says which part of the string is wrong.

An import string is `module:attribute`, `module`, `path/to/file.py` or `path/to/file.py:attribute`. Three things
go wrong in practice and look alike from outside: the module is not there, the module is there and fails while it
is imported, and the module holds no such app. Each gets a message of its own; an error inside the module keeps
its traceback, cut down to the frames that are the user's.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal

from armature.exceptions import ConfigurationError
from armature.server.asgi_interface import interface_of, is_native

__all__ = [
    "AppImportError",
    "format_import_error",
    "format_user_traceback",
    "is_app",
    "load_app",
    "load_object",
    "user_traceback",
]

#: What a module's app is called, if the import string does not say.
DEFAULT_ATTRIBUTES = ("app", "application", "router")

_EXAMPLE = "armature run app:app"


class AppImportError(ConfigurationError):
    """The app that an import string names cannot be loaded.

    Args:
        message: What is wrong, in one sentence.
        target: The import string, as given.
        hint: How to mend it.

    If the user's module raised while it was imported, that exception is the `__cause__`.
    """

    def __init__(self, message: str, *, target: str, hint: str | None = None) -> None:
        self.message = message
        self.target = target
        self.hint = hint
        super().__init__(message if hint is None else f"{message}\n  mend: {hint}")


def load_app(
    target: str,
    *,
    factory: bool = False,
    app_dir: str | os.PathLike[str] | None = None,
    interface: Literal["auto", "armature", "asgi"] = "auto",
) -> Any:
    """Import what `target` names and return the app.

    Args:
        target: `module:attribute`, `module`, `path/to/file.py` or `path/to/file.py:attribute`; the attribute may be
            dotted. Without one, `app`, `application` and `router` are tried, then the only app of the module.
        factory: Whether the attribute is a function without arguments that returns the app.
        app_dir: The directory put first on `sys.path`. Default: the current one, or that of the file.
        interface: What an app is: one of ours with `"armature"`, anything that can be called with `"asgi"`, and with
            `"auto"` one of ours or what looks like an ASGI app.

    Raises:
        AppImportError: There is no such module or attribute, the module or the factory failed, or what was found
            is not an app.
    """
    module, attribute = _load_module(target, app_dir)
    if attribute is None:
        attribute = _default_attribute(module, target, factory)
    found = _attribute(module, attribute, target)
    if factory:
        return _call_factory(found, attribute, target, interface)
    if not _fits(found, interface):
        raise AppImportError(
            f"{module.__name__}:{attribute} is {_describe(found)}, not an app",
            target=target,
            hint=_not_an_app_hint(found, module, attribute),
        )
    return found


def load_object(target: str) -> Any:
    """Import the object that `module:attribute` names, whatever it is.

    Args:
        target: `module:attribute`; both parts are needed.

    Raises:
        AppImportError: There is no such module or attribute, or the module failed.
    """
    module, attribute = _load_module(target, None)
    if attribute is None:
        raise AppImportError(f"{target!r} names no attribute", target=target, hint="write it as module:attribute")
    return _attribute(module, attribute, target)


def is_app(obj: Any) -> bool:
    """Whether a server can serve `obj`: it builds a service, is one, or looks like an ASGI app."""
    return is_native(obj) or interface_of(obj) is not None


def _fits(obj: Any, interface: str) -> bool:
    if interface == "asgi":
        return callable(obj)
    return is_native(obj) or (interface == "auto" and interface_of(obj) is not None)


def user_traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback of `error` without the leading frames of this loader and of the import machinery."""
    frame = error.__traceback__
    while frame is not None and _is_machinery(frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    return frame


def format_import_error(error: Exception) -> str:
    """Return what a terminal shows: the traceback of the user's own code, if it failed, then what to mend."""
    shown = ""
    if isinstance(error, AppImportError) and error.__cause__ is not None:
        shown = format_user_traceback(error.__cause__) + "\n"
    return f"{shown}Error: {error}\n"


def format_user_traceback(error: BaseException) -> str:
    """Format `error` as Python does, without the frames of this loader and of the import machinery."""
    formatted = traceback.TracebackException(type(error), error, user_traceback(error))
    formatted.stack = traceback.StackSummary.from_list(
        [frame for frame in formatted.stack if not _is_machinery(frame.filename)]
    )
    return "".join(formatted.format())


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<frozen importlib") or filename == importlib.__file__


def _load_module(target: str, app_dir: str | os.PathLike[str] | None) -> tuple[ModuleType, str | None]:
    location, attribute = _split(target)
    if location.endswith(".py") or "/" in location or os.sep in location:
        name, root = _module_of_file(location, target)
        if app_dir is not None:
            root = Path(app_dir).resolve()
            name = _name_below(Path(location).resolve(), root, target)
    else:
        name, root = location, Path.cwd() if app_dir is None else Path(app_dir).resolve()
        _check_module_name(name, target)
    if app_dir is not None and not root.is_dir():
        raise AppImportError(
            f"the app directory {str(app_dir)!r} does not exist", target=target, hint="check --app-dir"
        )
    entry = str(root)
    if sys.path[:1] != [entry]:
        sys.path.insert(0, entry)
    return _import(name, root, target), attribute


def _split(target: str) -> tuple[str, str | None]:
    # A Windows path has a colon of its own after the drive letter.
    head = 2 if len(target) > 2 and target[1] == ":" and target[2] in "\\/" else 0
    at = target.find(":", head)
    location, attribute = (target, None) if at < 0 else (target[:at], target[at + 1 :])
    if not location or attribute == "":
        raise AppImportError(
            f"{target!r} is not an import string",
            target=target,
            hint=f"write it as module:attribute, for example {_EXAMPLE}",
        )
    return location, attribute


def _check_module_name(name: str, target: str) -> None:
    if all(part.isidentifier() for part in name.split(".")):
        return
    hint = f"write it as module:attribute, for example {_EXAMPLE}"
    if name.startswith("."):
        hint = "a module is named from the top: leave the leading dot out, or give the path of the file"
    elif "-" in name:
        hint = (
            "a module's name cannot hold a dash; rename the file, or give its path: " + name.replace(".", "/") + ".py"
        )
    raise AppImportError(f"{name!r} is not the name of a module", target=target, hint=hint)


def _module_of_file(location: str, target: str) -> tuple[str, Path]:
    """The dotted name of the file's module, and the directory that name starts from."""
    path = Path(location)
    if not path.is_file():
        if path.is_dir():
            inside = [name for name in ("app.py", "main.py", "__init__.py") if (path / name).is_file()]
            hint = f"name the file: {path / inside[0]}" if inside else "name a Python file"
            raise AppImportError(f"{location!r} is a directory", target=target, hint=hint)
        near = _near(path.name, [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        hint = f"did you mean {str(path.with_name(near))!r}?" if near else f"the path is taken from {str(Path.cwd())!r}"
        raise AppImportError(f"there is no file {location!r}", target=target, hint=hint)
    if path.suffix != ".py":
        raise AppImportError(f"{location!r} is not a Python file", target=target, hint="give a file that ends with .py")
    path = path.resolve()
    root = path.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier() and root.parent != root:
        root = root.parent
    return _name_below(path, root, target), root


def _name_below(path: Path, root: Path, target: str) -> str:
    try:
        parts = list(path.relative_to(root).with_suffix("").parts)
    except ValueError:
        raise AppImportError(
            f"{str(path)!r} is not inside the app directory {str(root)!r}", target=target, hint="leave --app-dir out"
        ) from None
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def _import(name: str, root: Path, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        # Only the named module itself, or a package on the way to it, is "not found"; a module that is found and
        # misses one of its own imports is broken. The traceback tells a module that imports its own name.
        if (name == missing or name.startswith(missing + ".")) and user_traceback(error) is None:
            raise AppImportError(
                f"there is no module {missing!r}", target=target, hint=_missing_module_hint(missing, root)
            ) from None
        hint = f"install the package that brings it: pip install {missing.partition('.')[0]}" if missing else None
        if missing.startswith("armature"):
            hint = None
        raise AppImportError(
            f"{name!r} imports {missing!r}, which is not installed", target=target, hint=hint
        ) from error
    except SyntaxError as error:
        where = f"{error.filename}:{error.lineno}" if error.filename else name
        raise AppImportError(f"{name!r} cannot be compiled: {error.msg} ({where})", target=target) from error
    except Exception as error:
        raise AppImportError(f"{name!r} failed while it was imported: {_one_line(error)}", target=target) from error
    except SystemExit as error:
        raise AppImportError(
            f"{name!r} ended the program while it was imported",
            target=target,
            hint='put what starts the program below `if __name__ == "__main__":`',
        ) from error


def _missing_module_hint(missing: str, root: Path) -> str:
    parent, _, last = missing.rpartition(".")
    directory = root.joinpath(*parent.split(".")) if parent else root
    if parent and not directory.is_dir() and directory.with_suffix(".py").is_file():
        return f"{parent!r} is a module, not a package: it holds no submodules; an app inside it is {parent}:{last}"
    names: list[str] = []
    if directory.is_dir():
        for entry in directory.iterdir():
            if entry.suffix == ".py" and entry.stem != "__init__":
                names.append(entry.stem)
            elif (entry / "__init__.py").is_file():
                names.append(entry.name)
    near = _near(last, names)
    if near:
        return f"did you mean {f'{parent}.{near}' if parent else near!r}?"
    deeper = next(
        (path for folder in ("src", "app", "backend", "server") if (path := root / folder / f"{last}.py").is_file()),
        None,
    )
    if deeper is not None and not parent:
        return f"there is a {deeper.relative_to(root)}; name it so, or add --app-dir {deeper.parent.name}"
    return (
        f"modules are looked for in {str(directory)!r}; change into the project's directory, or name it with --app-dir"
    )


def _attribute(module: ModuleType, attribute: str, target: str) -> Any:
    found: Any = module
    walked = module.__name__
    for part in attribute.split("."):
        if not part.isidentifier():
            hint = f"write it as module:attribute, for example {_EXAMPLE}"
            if "(" in attribute:
                called = f"{module.__name__}:{attribute.partition('(')[0]}"
                hint = f"name the function without calling it, and add --factory: {called}"
            raise AppImportError(f"{attribute!r} is not the name of an attribute", target=target, hint=hint)
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AppImportError(
                f"{walked!r} has no attribute {part!r}",
                target=target,
                hint=_missing_attribute_hint(found, part, module),
            ) from None
        walked += ("." if found is not module and walked != module.__name__ else ":") + part
    return found


def _missing_attribute_hint(holder: Any, part: str, module: ModuleType) -> str:
    public = [name for name in vars(holder) if not name.startswith("_")] if hasattr(holder, "__dict__") else []
    near = _near(part, public)
    if near:
        return f"did you mean {near!r}?"
    apps = _apps_of(module)
    if apps:
        return f"the apps of {module.__name__!r} are: {', '.join(apps)}"
    if holder is module and not public:
        return f"{getattr(module, '__file__', None) or module.__name__} defines nothing; is the file saved?"
    return f"define it: {part} = App()"


def _default_attribute(module: ModuleType, target: str, factory: bool) -> str:
    if factory:
        for name in ("create_app", "make_app", "get_app"):
            if callable(getattr(module, name, None)):
                return name
        raise AppImportError(
            f"{target!r} does not say which function of {module.__name__!r} makes the app",
            target=target,
            hint=f"name it: {target}:create_app",
        )
    for name in DEFAULT_ATTRIBUTES:
        if is_app(getattr(module, name, None)):
            return name
    apps = _apps_of(module)
    if len(apps) == 1:
        return apps[0]
    if apps:
        raise AppImportError(
            f"{module.__name__!r} holds more than one app: {', '.join(apps)}",
            target=target,
            hint=f"choose one: {target}:{apps[0]}",
        )
    for name in ("create_app", "make_app", "get_app"):
        if callable(getattr(module, name, None)):
            raise AppImportError(
                f"{module.__name__!r} holds no app",
                target=target,
                hint=f"there is a factory; try: {target}:{name} --factory",
            )
    wrong = next((name for name in DEFAULT_ATTRIBUTES if hasattr(module, name)), None)
    if wrong is not None:
        found = getattr(module, wrong)
        raise AppImportError(
            f"{module.__name__}:{wrong} is {_describe(found)}, not an app",
            target=target,
            hint=_not_an_app_hint(found, module, wrong),
        )
    raise AppImportError(
        f"{module.__name__!r} holds no app",
        target=target,
        hint="define one (app = App()), or name it: module:attribute",
    )


def _apps_of(module: ModuleType) -> list[str]:
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    apps = [name for name, value in public.items() if is_native(value)]
    # Any function with three parameters could be an ASGI app, so that one has to be named.
    return apps or [
        name
        for name, value in public.items()
        if not inspect.isroutine(value) and not isinstance(value, type) and interface_of(value) is not None
    ]


def _call_factory(found: Any, attribute: str, target: str, interface: str) -> Any:
    if not callable(found):
        raise AppImportError(
            f"{attribute!r} is {_describe(found)}, not a factory",
            target=target,
            hint="leave --factory out" if is_app(found) else "name a function that returns the app",
        )
    if inspect.iscoroutinefunction(found):
        raise AppImportError(
            f"the factory {attribute!r} is a coroutine function",
            target=target,
            hint="make it a plain function; asynchronous set-up belongs into the lifespan",
        )
    try:
        app = found()
    except Exception as error:
        needs = _required_parameters(found)
        hint = f"give {', '.join(needs)} a default: a factory is called without arguments" if needs else None
        raise AppImportError(
            f"the factory {attribute!r} failed: {_one_line(error)}", target=target, hint=hint
        ) from error
    if not _fits(app, interface):
        hint = "does it lack a return?" if app is None else "return an App or a Router"
        raise AppImportError(
            f"the factory {attribute!r} returned {_describe(app)}, not an app", target=target, hint=hint
        )
    return app


def _required_parameters(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    wanted = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return [repr(p.name) for p in parameters if p.kind in wanted and p.default is inspect.Parameter.empty]


def _not_an_app_hint(found: Any, module: ModuleType, attribute: str) -> str:
    apps = [name for name in _apps_of(module) if name != attribute]
    if apps:
        return f"the apps of {module.__name__!r} are: {', '.join(apps)}"
    if isinstance(found, ModuleType):
        return f"{attribute!r} is a module; name the app inside it: {found.__name__}:app"
    if inspect.isfunction(found) and not inspect.signature(found).parameters:
        return "if it returns an app, add --factory"
    if isinstance(found, type) and hasattr(found, "build"):
        return f"make an instance of it: app = {found.__name__}()"
    return "name an App or a Router"


def _describe(obj: Any) -> str:
    if obj is None:
        return "None"
    if isinstance(obj, type):
        return f"the class {obj.__name__!r}"
    if isinstance(obj, ModuleType):
        return f"the module {obj.__name__!r}"
    if inspect.iscoroutinefunction(obj):
        return f"the coroutine function {obj.__name__!r}"
    if inspect.isfunction(obj):
        return f"the function {obj.__name__!r}"
    name = type(obj).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _one_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _near(name: str, names: list[str]) -> str | None:
    for other in names:
        if other.lower() == name.lower():
            return other
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)
