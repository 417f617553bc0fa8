"""Read a handler's signature once: its arguments, where each comes from, and what it returns."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from armature._impl import message
from armature.binding.kinds import Kind, collect_bounds, interpret, is_union, unwrap
from armature.binding.markers import MISSING, Cookie, Header, Location, Marker, Path, Query
from armature.binding.scalars import SCALARS, InvalidValue
from armature.exceptions import RouteError
from armature.routing.convertors import Convertor

__all__ = [
    "REQUEST",
    "Argument",
    "Constant",
    "Parameter",
    "Signature",
    "describe",
    "is_async",
    "locate",
    "read_hints",
    "read_signature",
]

_MARKER_FUNCTIONS: dict[Any, Callable[[], Any]] = {Query: Query, Header: Header, Cookie: Cookie, Path: Path}
_REQUEST_NAMES = ("req", "request")
_SKIPPED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

#: Source of the argument that is the request itself.
REQUEST = object()


@dataclass(eq=False, repr=False)
class Constant:
    """An argument that is the same object for every request, such as what `app.data` was given."""

    value: Any


@dataclass(eq=False, repr=False, kw_only=True)
class Parameter:
    """An argument that is read from the request.

    Args:
        name: The handler's name of it.
        location: Where it stands: path, query, header or cookie.
        alias: Its name there.
        kind: How its text becomes a value.
        default: The value if it is absent, or `MISSING`.
        default_factory: Makes the value if it is absent.
        annotation: The annotation, resolved.
        marker: The marker it was declared with, if there was one.
    """

    name: str
    location: Location
    alias: str
    kind: Kind
    default: Any = MISSING
    default_factory: Callable[[], Any] | None = None
    annotation: Any = Any
    marker: Marker | None = None

    @property
    def required(self) -> bool:
        return self.default is MISSING and self.default_factory is None


@dataclass(eq=False, repr=False)
class Argument:
    """One argument of the call: its name, how it is passed, and where it comes from."""

    name: str
    keyword: bool
    source: Any


@dataclass(eq=False, repr=False)
class Signature:
    """A handler's arguments in order, and whether it answers None with a JSON null."""

    arguments: tuple[Argument, ...]
    returns: Any
    nullable: bool

    @property
    def parameters(self) -> list[Parameter]:
        return [argument.source for argument in self.arguments if isinstance(argument.source, Parameter)]


def locate(handler: Any) -> str | None:
    """Say where a callable stands in the source, as `file:line`, if that can be known."""
    code = getattr(_function(handler), "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    try:
        kind = handler if inspect.isclass(handler) else type(handler)
        return f"{inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):
        return None


def describe(handler: Any) -> str:
    """Say the qualified name of a callable, with its module."""
    inner = _innermost(handler)
    name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    module = getattr(inner, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def _innermost(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.unwrap(handler)


def _function(handler: Any) -> Any:
    inner = _innermost(handler)
    if isinstance(inner, types.MethodType):
        return inner.__func__
    if not isinstance(inner, types.FunctionType) and not inspect.isclass(inner) and callable(inner):
        return _innermost(type(inner).__call__)
    return inner


def is_async(handler: Any) -> bool:
    """Say whether calling the handler makes a coroutine, as far as can be seen without calling it."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.iscoroutinefunction(handler):
        return True
    if inspect.isroutine(handler) or inspect.isclass(handler) or not callable(handler):
        return False
    return inspect.iscoroutinefunction(type(handler).__call__)


def read_hints(handler: Any, local_names: Mapping[str, Any] | None = None) -> tuple[inspect.Signature, dict[str, Any]]:
    """Read a signature and resolve its annotations; a name that cannot be resolved stays a string.

    Args:
        handler: The callable.
        local_names: Names of the scope in which the handler was registered, for types defined in a function.
    """
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        import annotationlib

        options["annotation_format"] = annotationlib.Format.FORWARDREF
    signature = inspect.signature(handler, **options)
    names = getattr(_function(handler), "__globals__", {})
    if local_names:
        # One mapping, for a lambda within an annotation sees nothing but globals.
        names = {**names, **local_names}
    hints: dict[str, Any] = {}
    wanted = [(parameter.name, parameter.annotation) for parameter in signature.parameters.values()]
    for name, annotation in [*wanted, ("return", signature.return_annotation)]:
        if annotation is not inspect.Parameter.empty:
            hints[name] = _resolve(annotation, names)
    return signature, hints


def _resolve(annotation: Any, names: dict[str, Any]) -> Any:
    def carrier() -> None: ...

    carrier.__annotations__ = {"value": annotation}
    try:
        return typing.get_type_hints(carrier, names, include_extras=True)["value"]
    except NameError:
        # Not defined yet, or imported for type checkers only: the caller decides what to make of the text.
        return annotation.__forward_arg__ if isinstance(annotation, typing.ForwardRef) else annotation
    except (TypeError, SyntaxError, AttributeError):
        return annotation


class _Reader:
    def __init__(
        self,
        handler: Any,
        pattern: str,
        path_types: Mapping[str, Convertor[Any]],
        data: Mapping[type, Any],
        location: str | None,
    ) -> None:
        self.handler = handler
        self.pattern = pattern
        self.path_types = path_types
        self.data = data
        self.location = location

    def refuse(self, text: str, hint: str) -> RouteError:
        return RouteError(text, pattern=self.pattern, handler=describe(self.handler), location=self.location, hint=hint)

    def argument(self, parameter: inspect.Parameter, annotation: Any) -> Argument:
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        return Argument(parameter.name, keyword, self.source(parameter, annotation))

    def source(self, parameter: inspect.Parameter, annotation: Any) -> Any:
        name = parameter.name
        inner, metadata = unwrap(annotation)
        marker, default = self.marker(parameter, metadata)
        if marker is None and name not in self.path_types:
            if self.is_request(name, inner):
                return REQUEST
            found = self.shared(inner)
            if found is not None:
                return found
        if isinstance(annotation, str):
            raise self.refuse(
                f"the annotation {annotation!r} of parameter {name!r} cannot be resolved",
                "define or import the name at module level, where the handler can see it when the app is built",
            )
        return self.parameter(name, annotation, inner, marker, default)

    def marker(self, parameter: inspect.Parameter, metadata: list[Any]) -> tuple[Marker | None, Any]:
        # FastAPI spells "required" as an ellipsis too.
        absent = parameter.default is inspect.Parameter.empty or parameter.default is ...
        default = MISSING if absent else parameter.default
        marker: Marker | None = None
        for item in metadata:
            found = _MARKER_FUNCTIONS[item]() if _is_marker_function(item) else item
            if isinstance(found, Marker):
                marker = found
        if _is_marker_function(default):
            default = _MARKER_FUNCTIONS[default]()
        if isinstance(default, Marker):
            marker, default = default, MISSING
        if marker is not None and default is MISSING:
            default = marker.default
        return marker, default

    def is_request(self, name: str, annotation: Any) -> bool:
        if annotation is inspect.Parameter.empty:
            return name in _REQUEST_NAMES
        if isinstance(annotation, str):
            # A name imported under TYPE_CHECKING only; this one class is known without it.
            return annotation.strip("\"'").rsplit(".", 1)[-1] in ("HttpRequest", "Request")
        return isinstance(annotation, type) and issubclass(annotation, message.Request)

    def shared(self, annotation: Any) -> Constant | None:
        if is_union(annotation):
            members = [member for member in typing.get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return None
            annotation = members[0]
        if isinstance(annotation, str):
            named = [kind for kind in self.data if kind.__qualname__ == annotation]
            return Constant(self.data[named[0]]) if len(named) == 1 else None
        if not isinstance(annotation, type):
            return None
        if annotation in self.data:
            return Constant(self.data[annotation])
        if annotation in SCALARS or annotation is object or annotation in (list, dict, set, tuple):
            return None
        try:
            derived = [value for kind, value in self.data.items() if issubclass(kind, annotation)]
        except TypeError:  # a Protocol that cannot be asked
            return None
        return Constant(derived[0]) if len(derived) == 1 else None

    def parameter(self, name: str, annotation: Any, inner: Any, marker: Marker | None, default: Any) -> Parameter:
        in_path = name in self.path_types if marker is None or marker.alias is None else marker.alias in self.path_types
        location: Location = marker.location if marker is not None else ("path" if in_path else "query")
        alias = (marker.alias if marker is not None else None) or name
        if location == "header" and marker is not None and marker.alias is None and marker.convert_underscores:
            alias = name.replace("_", "-")
        if location == "path" and not in_path:
            raise self.refuse(
                f"parameter {name!r} is marked as Path(), but the pattern has no {{{alias}}}",
                f"write {{{alias}}} in the pattern, or Path(alias=...) with the pattern's name",
            )
        if in_path and location != "path" and alias == name:
            raise self.refuse(
                f"parameter {name!r} is in the pattern, but marked as {location.title()}()",
                f"rename one of the two, or give {location.title()}() an alias",
            )
        kind = self.kind(name, annotation, inner, marker, location, alias)
        if location == "path" and kind.many:
            raise self.refuse(
                f"path parameter {name!r} cannot be a list", "a path parameter is one text: take str and split it"
            )
        factory = marker.default_factory if marker is not None else None
        if location == "path":
            default = MISSING
        elif isinstance(default, (list, set, dict)):
            factory, default = functools.partial(copy.copy, default), MISSING
        return Parameter(
            name=name,
            location=location,
            alias=alias.lower() if location == "header" else alias,
            kind=kind,
            default=default,
            default_factory=factory,
            annotation=annotation,
            marker=marker,
        )

    def kind(
        self, name: str, annotation: Any, inner: Any, marker: Marker | None, location: Location, alias: str
    ) -> Kind:
        convertor = self.path_types.get(alias) if location == "path" else None
        own = None if convertor is None or _is_ours(convertor) else functools.partial(_by_convertor, convertor)
        if inner is inspect.Parameter.empty:
            # Without an annotation the pattern's convertor speaks: {id:int} is an int, {id} is a str.
            annotation = str if convertor is None else convertor.python_type
            if own is not None and annotation is str:
                # It need not say what it returns.
                annotation = Any
        # A marker in Annotated is among the metadata; one given as the default is not.
        bounds = collect_bounds([marker]) if marker is not None else None
        kind = interpret(annotation, bounds, own)
        if kind is None:
            raise self.refuse(
                f"parameter {name!r} of type {_spell(annotation)} cannot be read from the request",
                "a parameter can be HttpRequest, an object given to app.data(...), or text from path, query, header "
                "or cookie: str, int, float, bool, UUID, Decimal, date, time, datetime, timedelta, Enum, Literal, "
                "an Optional or a list, set or tuple of these; read a body with `await req.json()`",
            )
        return kind


def _is_ours(convertor: Convertor[Any]) -> bool:
    """Whether a convertor gives what an annotation would make of the text anyway."""
    return getattr(type(convertor).to_python, "__module__", None) == Convertor.__module__


def _by_convertor(
    convertor: Convertor[Any], annotation: Any, by_annotation: Callable[[str], Any] | None
) -> Callable[[str], Any]:
    """Let the pattern's convertor speak where its value fits the annotation; text is read as the annotation says."""
    fits = _check_of(annotation)

    def convert(text: str) -> Any:
        try:
            value = convertor.to_python(text)
        except ValueError as error:
            raise InvalidValue("value_error", f"Value error, {error}") from None
        if fits(value):
            return value
        if annotation is float and type(value) is int:
            return float(value)
        if by_annotation is not None:
            return by_annotation(value if isinstance(value, str) else text)
        raise TypeError(
            f"{type(convertor).__qualname__}.to_python returned {type(value).__qualname__} for a parameter of type "
            f"{_spell(annotation)}; annotate the parameter with what it returns"
        )

    return convert


def _check_of(annotation: Any) -> Callable[[Any], bool]:
    """How to tell whether a value is of an annotation's type, as far as that can be told."""
    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        return lambda value: any(type(value) is type(choice) and value == choice for choice in choices)
    wanted = typing.get_origin(annotation) or annotation
    try:
        isinstance(None, wanted)
    except TypeError:  # Any, or a Protocol that cannot be asked
        return lambda value: True
    return lambda value: isinstance(value, wanted)


def _is_marker_function(item: Any) -> bool:
    try:
        return item in _MARKER_FUNCTIONS
    except TypeError:
        return False


def _spell(annotation: Any) -> str:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return str(annotation).replace("typing.", "")


def read_signature(
    handler: Any,
    *,
    pattern: str,
    path_types: Mapping[str, Convertor[Any]],
    data: Mapping[type, Any],
    hints: tuple[inspect.Signature, dict[str, Any]] | None = None,
) -> Signature:
    """Decide where every argument of a handler comes from.

    Args:
        handler: The callable.
        pattern: The route's pattern, for messages.
        path_types: The pattern's parameters and the convertor of each.
        data: Objects to inject, by type.
        hints: What `read_hints` said when the handler was registered.

    Raises:
        RouteError: An argument cannot be filled; says which one, where it stands and what can be used.
    """
    signature, types_of = read_hints(handler) if hints is None else hints
    location = locate(handler)
    reader = _Reader(handler, pattern, path_types, data, location)
    named = [parameter for parameter in signature.parameters.values() if parameter.kind not in _SKIPPED]
    if not named and len(signature.parameters) > 0:
        raise reader.refuse(
            "the handler takes *args or **kwargs, so nobody can know what to pass",
            "name its parameters; a decorator must use functools.wraps, which keeps the signature",
        )
    arguments = tuple(
        reader.argument(parameter, types_of.get(parameter.name, inspect.Parameter.empty)) for parameter in named
    )
    returns = types_of.get("return", inspect.Parameter.empty)
    inner = unwrap(returns)[0]
    nullable = is_union(inner) and type(None) in typing.get_args(inner)
    return Signature(arguments, returns, nullable)
