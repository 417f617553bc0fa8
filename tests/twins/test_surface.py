"""The two rooms are mirror images: the same modules, names, signatures, constants and docstrings."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import armature

PACKAGE = Path(armature.__file__).parent
STEMS = sorted(path.stem for path in (PACKAGE / "_pure").glob("*.py") if path.stem != "__init__")

#: Compiled modules without a twin: the loop's own transports are what the reactor stands in for.
SINGLE = {"reactor"}


def test_same_stems() -> None:
    compiled = {path.stem for path in (PACKAGE / "_speedups").glob("*.pyx")}
    assert compiled - SINGLE == set(STEMS)
    assert compiled >= SINGLE


def public_members(cls: type) -> dict[str, Any]:
    """What a class defines itself, with what its bases of the same room define; slots and dunders left out."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("armature."):
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    return found


def signature_of(value: Any) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(value).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]


def kind_of(value: Any) -> str:
    if isinstance(value, (staticmethod, classmethod)):
        return type(value).__name__
    if inspect.isroutine(value) and not inspect.isdatadescriptor(value):
        return "method"
    if isinstance(value, property) or inspect.isdatadescriptor(value):
        return "attribute"
    return "constant"


@pytest.mark.parametrize("stem", STEMS)
def test_same_public_names(both: Any, stem: str) -> None:
    py, c = getattr(both.py, stem), getattr(both.c, stem)
    assert c.__all__ == py.__all__
    assert c.__doc__ == py.__doc__
    for name in py.__all__:
        one, other = getattr(py, name), getattr(c, name)
        assert inspect.isclass(one) is inspect.isclass(other), name
        assert callable(one) is callable(other), name
        if inspect.isclass(one) or callable(one):
            assert inspect.getdoc(other) == inspect.getdoc(one), name
            assert other.__name__ == one.__name__ == name
            assert other.__module__ == c.__name__
        else:
            assert other == one, name


@pytest.mark.parametrize("stem", STEMS)
def test_same_signatures(both: Any, stem: str) -> None:
    py, c = getattr(both.py, stem), getattr(both.c, stem)
    for name in py.__all__:
        one, other = getattr(py, name), getattr(c, name)
        if not inspect.isclass(one) and callable(one):
            assert signature_of(other) == signature_of(one), name


def constructors(room: Any) -> dict[type, dict[str, Any]]:
    """Every class that is built by hand, with all its arguments by name; an extension class has no signature to ask."""
    import asyncio

    return {
        room.parser.HeadParser: {"line_limit": 1, "head_limit": 2, "count_limit": 3},
        room.chunked.ChunkedParser: {"extension_limit": 1, "trailer_limit": 2},
        room.writer.Writer: {"server": b"x", "date": False},
        room.buffers.Buffer: {},
        room.buffers.BodyBuffer: {"size": 5},
        room.message.Request: {
            "connection": None,
            "method": "GET",
            "raw_path": b"/",
            "query_string": b"",
            "raw_headers": [],
            "http_version": "1.1",
            "body": b"",
            "receiver": None,
        },
        room.message.Response: {"body": b"", "status": 200, "headers": None, "content_type": None},
        room.dispatch.Dispatcher: {"loop": asyncio.new_event_loop(), "context": None},
        room.dispatch.Endpoint: {
            "call": print,
            "mode": 0,
            "kinds": b"",
            "plan": None,
            "encode": str,
            "native": True,
            "on_error": repr,
            "dumps": bytes,
            "status": 200,
            "body_limit": 1,
            "route": None,
        },
        room.report.AccessLines: {
            "parts": (),
            "json": True,
            "limit": 1,
            "on_first": None,
            "on_full": None,
            "by_request": True,
        },
        room.report.RouteFigures: {"bounds": (1.0,)},
        room.report.Reporter: {"lines": None, "figures": None, "call": None},
    }


def test_constructors_take_the_same_arguments(both: Any) -> None:
    pure = constructors(both.py)
    for cls, arguments in pure.items():
        parameters = list(inspect.signature(cls).parameters.values())
        assert [parameter.name for parameter in parameters] == list(arguments), cls
        required = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
        other = getattr(getattr(both.c, cls.__module__.rpartition(".")[2]), cls.__name__)
        for made in (cls, other):
            made(**arguments)
            made(**{name: value for name, value in arguments.items() if name in required})
            positional = [
                arguments[parameter.name] for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY
            ]
            keywords = {
                parameter.name: arguments[parameter.name]
                for parameter in parameters
                if parameter.kind is parameter.KEYWORD_ONLY
            }
            made(*positional, **keywords)
            with pytest.raises(TypeError):
                made(*positional, None, **keywords)
            with pytest.raises(TypeError):
                made(**arguments, unknown=1)
            for name in required:
                with pytest.raises(TypeError):
                    made(**{other: value for other, value in arguments.items() if other != name})
    pure[both.py.dispatch.Dispatcher]["loop"].close()


@pytest.mark.parametrize("stem", STEMS)
def test_same_members(both: Any, stem: str) -> None:
    py, c = getattr(both.py, stem), getattr(both.c, stem)
    for name in py.__all__:
        one, other = getattr(py, name), getattr(c, name)
        if not inspect.isclass(one):
            continue
        mine, theirs = public_members(one), public_members(other)
        assert sorted(theirs) == sorted(mine), name
        for member, value in mine.items():
            where = f"{name}.{member}"
            assert kind_of(theirs[member]) == kind_of(value), where
            if kind_of(value) in ("method", "classmethod"):
                assert signature_of(getattr(other, member)) == signature_of(getattr(one, member)), where
                assert inspect.getdoc(getattr(other, member)) == inspect.getdoc(getattr(one, member)), where
            elif isinstance(value, property):
                # A docstring on either twin is one for the user, and must be on both.
                assert (theirs[member].__doc__ or None) == (value.__doc__ or None), where
            elif kind_of(value) == "constant":
                assert theirs[member] == value, where


@pytest.mark.parametrize("stem", STEMS)
def test_subclassing_is_allowed_alike(both: Any, stem: str) -> None:
    py, c = getattr(both.py, stem), getattr(both.c, stem)
    for name in py.__all__:
        if not inspect.isclass(getattr(py, name)):
            continue
        allowed = []
        for module in (py, c):
            try:
                type("Sub", (getattr(module, name),), {"__slots__": ()})
                allowed.append(True)
            except TypeError:
                allowed.append(False)
        assert allowed[0] is allowed[1], name


def instances(room: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"encode": str, "on_error": repr, "dumps": bytes}
    return {
        "HeadParser": room.parser.HeadParser(),
        "ChunkedParser": room.chunked.ChunkedParser(),
        "Writer": room.writer.Writer(),
        "Buffer": room.buffers.Buffer(),
        "Request": room.message.Request(None, "GET", b"/"),
        "Response": room.message.Response(b"body", 201, {"a": "b"}, "text/html"),
        "Endpoint": room.dispatch.Endpoint(print, **plain),
    }


def test_no_attribute_that_is_not_declared(both: Any) -> None:
    for room in both:
        for name, instance in instances(room).items():
            with pytest.raises(AttributeError):
                instance.undeclared = 1
            assert not hasattr(instance, "__dict__"), name


def outcome(call: Any) -> Any:
    """The type and text of the error, or the value; module paths of the rooms left out."""
    try:
        value = call()
    except Exception as error:
        return type(error).__name__, str(error).replace("armature._speedups", "armature._pure")
    return "value", value


def test_copying_and_pickling(both: Any) -> None:
    """Either both twins can be pickled, to the same effect, or neither can."""
    results = []
    for room in both:
        found = {}
        for name, instance in instances(room).items():
            try:
                copied = pickle.loads(pickle.dumps(instance))
            except TypeError:
                found[name] = "refused"
            else:
                found[name] = type(copied).__name__
        results.append(found)
    assert results[0] == results[1]


def test_representation_and_equality(both: Any) -> None:
    for one, other in zip(instances(both.py).items(), instances(both.c).items(), strict=True):
        name = one[0]
        shown = [
            repr(instance).replace("armature._speedups", "armature._pure").split(" object at ")[0]
            for _, instance in (one, other)
        ]
        assert shown[0] == shown[1], name
        for _, instance in (one, other):
            assert instance == instance
            assert instance != object()
            assert hash(instance) == hash(instance)


def test_weak_references(both: Any) -> None:
    import weakref

    for name in ("Request", "Response"):
        for room in both:
            instance = instances(room)[name]
            reference = weakref.ref(instance)
            assert reference() is instance
            del instance
            assert reference() is None
    for name, one in instances(both.py).items():
        possible = []
        for instance in (one, instances(both.c)[name]):
            try:
                weakref.ref(instance)
                possible.append(True)
            except TypeError:
                possible.append(False)
        assert possible[0] is possible[1], name


def test_the_counters_have_the_same_names(both: Any) -> None:
    counting = [stem for stem in STEMS if hasattr(getattr(both.py, stem), "stats")]
    assert "connection" in counting
    for stem in counting:
        assert list(getattr(both.py, stem).stats()) == list(getattr(both.c, stem).stats()), stem
