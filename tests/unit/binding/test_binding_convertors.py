"""Path parameters whose convertor is the app's own, with and without an annotation."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, Protocol

import pytest

from armature import App, Convertor, Path, RouteError, register_convertor
from armature.routing import convertors
from armature.routing.convertors import IntConvertor
from carrier import Answer

Ask = Callable[..., Answer]


class HexConvertor(Convertor[int]):
    """As for Starlette: it does not say what it returns."""

    regex = "[0-9a-fx]+"

    def to_python(self, value: str) -> int:
        return int(value, 16)

    def to_url(self, value: int) -> str:
        return f"{value:x}"


class LowerConvertor(Convertor[str]):
    regex = "[A-Za-z0-9]+"

    def to_python(self, value: str) -> str:
        return value.lower()


class CommaConvertor(Convertor[list[int]]):
    regex = "[0-9]+(?:,[0-9]+)*"
    python_type = list[int]

    def to_python(self, value: str) -> list[int]:
        return [int(part) for part in value.split(",")]


class EvenConvertor(IntConvertor):
    def accepts(self, text: str) -> bool:
        return super().accepts(text) and int(text) % 2 == 0


@dataclasses.dataclass(frozen=True)
class Colour:
    value: int


class ColourConvertor(Convertor[Colour]):
    regex = "[0-9a-f]+"

    def to_python(self, value: str) -> Colour:
        return Colour(int(value, 16))


class Size(enum.Enum):
    SMALL = "small"


class Unaskable(Protocol):
    value: int


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The convertors of this file, for as long as a test runs: messages name all there are."""
    monkeypatch.setattr(convertors, "_REGISTRY", dict(convertors._REGISTRY))
    register_convertor("xhex", HexConvertor)
    register_convertor("xlower", LowerConvertor)
    register_convertor("xcomma", CommaConvertor)
    register_convertor("xeven", EvenConvertor)
    register_convertor("xcolour", ColourConvertor)


NOTHING: Any = object()


def served(kind: str, annotation: Any, default: Any = NOTHING) -> App:
    async def handler(value: Any) -> str:
        return repr(value)

    handler.__annotations__["value"] = annotation
    if annotation is NOTHING:
        del handler.__annotations__["value"]
    if default is not NOTHING:
        handler.__defaults__ = (default,)
    app = App()
    app.add_route(f"/{{value:{kind}}}", handler)
    return app


@pytest.mark.parametrize(
    ("kind", "annotation", "text", "value"),
    [
        ("xhex", int, "ff", 255),
        ("xhex", int, "10", 16),
        ("xhex", NOTHING, "ff", 255),
        ("xhex", Any, "ff", 255),
        ("xhex", object, "ff", 255),
        ("xhex", int | None, "ff", 255),
        ("xhex", int | str, "ff", 255),
        ("xhex", Annotated[int, "note"], "ff", 255),
        ("xhex", float, "ff", 255.0),
        ("xhex", Literal[255], "ff", 255),
        ("xhex", str, "ff", "ff"),
        ("xlower", str, "ABC", "abc"),
        ("xlower", NOTHING, "ABC", "abc"),
        ("xlower", int, "12", 12),
        ("xlower", int | str, "ABC", "abc"),
        ("xlower", Size, "SMALL", Size.SMALL),
        ("xlower", Literal["abc"], "ABC", "abc"),
        ("xcomma", list[int], "1,2", [1, 2]),
        ("xcomma", NOTHING, "1,2", [1, 2]),
        ("xeven", int, "12", 12),
        ("xeven", NOTHING, "12", 12),
        ("xcolour", Colour, "ff", Colour(255)),
        ("xcolour", Colour | None, "ff", Colour(255)),
        ("xcolour", NOTHING, "ff", Colour(255)),
        ("xcolour", Unaskable, "ff", Colour(255)),
    ],
)
def test_the_convertors_value_wins_where_it_fits(ask: Ask, kind: str, annotation: Any, text: str, value: Any) -> None:
    answer = ask(served(kind, annotation), f"/{text}")
    assert (answer.status, answer.text) == (200, repr(value))


@pytest.mark.parametrize(
    ("kind", "annotation", "text", "error"),
    [
        ("xhex", int, "fx", "value_error"),
        ("xhex", Literal[254], "ff", "literal_error"),
        ("xlower", int, "abc", "int_parsing"),
        ("xlower", Size, "large", "enum"),
        ("xhex", Annotated[int, Path(lt=200)], "ff", "less_than"),
    ],
)
def test_what_does_not_fit_is_the_clients_error(ask: Ask, kind: str, annotation: Any, text: str, error: str) -> None:
    answer = ask(served(kind, annotation), f"/{text}")
    assert answer.status == 422
    (found,) = answer.json()["errors"]
    assert (found["type"], found["loc"], found["input"]) == (error, ["path", "value"], text)


def test_bounds_hold_for_the_convertors_value(ask: Ask) -> None:
    for app in (
        served("xhex", Annotated[int, Path(lt=200)]),
        served("xhex", NOTHING, Path(lt=200)),
        served("xhex", int, Path(lt=200)),
    ):
        assert ask(app, "/c7").text == "199"
        assert ask(app, "/c8").status == 422


def test_a_convertor_that_returns_something_else_is_the_apps_error(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(served("xhex", Colour), "/ff").status == 500
    assert "HexConvertor.to_python returned int for a parameter of type " in caplog.text
    assert "annotate the parameter with what it returns" in caplog.text


def test_a_list_is_still_no_path_parameter_without_such_a_convertor() -> None:
    with pytest.raises(RouteError, match="cannot be a list"):
        served("str", list[int]).build()
