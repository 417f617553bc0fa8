"""Taking an exception apart: chains, groups, recursion, source that is not there."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armature.cli.failure import CHAIN_LIMIT, FRAME_LIMIT, GROUP_LIMIT, Failure, collect, safe_text


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def first(function: Callable[[], Any]) -> Failure:
    return collect(raised(function))[0]


def test_the_culprit_is_the_innermost_frame_of_the_user() -> None:
    def fails() -> None:
        Path("/nowhere/at/all").read_text()

    failure = first(fails)
    assert failure.kind == "FileNotFoundError"
    assert failure.culprit is not None
    assert failure.culprit.name.endswith("fails")
    assert failure.frames[-1].library
    current = next(line for line in failure.culprit.lines if line.current)
    assert "read_text" in current.text
    assert len(failure.culprit.lines) == 11


def test_the_evaluated_columns_are_marked() -> None:
    def fails() -> None:
        values = {"ä": 1}
        print("ö", values["ü"], values)

    culprit = first(fails).culprit
    assert culprit is not None
    line = next(line for line in culprit.lines if line.current)
    assert line.mark is not None
    assert line.text[slice(*line.mark)] == 'values["ü"]'


def test_causes_and_contexts() -> None:
    def fails() -> None:
        try:
            try:
                raise KeyError("a")
            except KeyError as error:
                raise ValueError("b") from error
        except ValueError:
            raise TypeError("c")  # noqa: B904

    chain = collect(raised(fails))
    assert [(failure.kind, failure.message) for failure in chain] == [
        ("TypeError", "c"),
        ("ValueError", "b"),
        ("KeyError", "'a'"),
    ]
    assert [failure.relation for failure in chain] == [
        "",
        "was raised while this one was being handled",
        "was directly caused by",
    ]


def test_from_none_hides_the_context() -> None:
    def fails() -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise ValueError("b") from None

    assert len(collect(raised(fails))) == 1


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert [failure.message for failure in collect(one)] == ["one", "two"]


def test_a_long_chain_is_cut() -> None:
    error = last = ValueError("0")
    for number in range(1, 50):
        last.__cause__ = ValueError(str(number))
        last = last.__cause__
    assert len(collect(error)) == CHAIN_LIMIT


def test_a_recursion_is_folded() -> None:
    def loop(depth: int) -> int:
        return loop(depth + 1)

    failure = first(lambda: loop(0))
    assert len(failure.frames) < 6
    folded = next(frame for frame in failure.frames if frame.repeated)
    assert folded.repeated > 500
    assert folded.cycle == 1


def test_a_mutual_recursion_is_folded() -> None:
    def ping(depth: int) -> int:
        return pong(depth)

    def pong(depth: int) -> int:
        return ping(depth)

    failure = first(lambda: ping(0))
    assert len(failure.frames) < 8
    assert {frame.cycle for frame in failure.frames if frame.repeated} == {2}


def test_a_deep_stack_is_cut_in_the_middle() -> None:
    source = "\n".join(f"def f{number}():\n    return f{number + 1}()" for number in range(200))
    scope: dict[str, Any] = {}
    exec(compile(source, "<generated>", "exec"), scope)
    failure = first(scope["f0"])
    assert len(failure.frames) == FRAME_LIMIT
    assert sum(frame.omitted for frame in failure.frames) == 202 - FRAME_LIMIT - 1


def test_groups() -> None:
    def fails() -> None:
        raise ExceptionGroup("many", [ValueError(str(number)) for number in range(20)])

    failure = first(fails)
    assert failure.message == "many (20 sub-exceptions)"
    assert [chain[0].message for chain in failure.inner] == [str(number) for number in range(GROUP_LIMIT)]
    assert failure.omitted == 20 - GROUP_LIMIT


def test_nested_groups_end() -> None:
    group = ExceptionGroup("0", [ValueError("x")])
    for number in range(1, 30):
        group = ExceptionGroup(str(number), [group])
    depth, failures = 0, collect(group)
    while failures and failures[0].inner:
        depth, failures = depth + 1, failures[0].inner[0]
    assert depth == 4
    assert failures[0].omitted == 1


def test_source_that_is_not_there() -> None:
    scope: dict[str, Any] = {}
    exec(compile("def f():\n    return 1 / 0", "/nowhere/gone.py", "exec"), scope)
    failure = first(scope["f"])
    assert failure.culprit is not None
    assert (failure.culprit.filename, failure.culprit.number, failure.culprit.lines) == ("/nowhere/gone.py", 2, [])


def test_source_that_got_shorter(tmp_path: Path) -> None:
    path = tmp_path / "shrunk.py"
    path.write_text("\n" * 10 + "def f():\n    return 1 / 0\n")
    scope: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    path.write_text("x = 1\n")
    linecache.checkcache(str(path))
    failure = first(scope["f"])
    assert failure.culprit is not None
    assert failure.culprit.lines == []


def test_source_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"# coding: latin-1\ndef f():\n    return '\xe9' + 1\n")
    scope: dict[str, Any] = {}
    exec(compile(path.read_bytes(), str(path), "exec"), scope)
    culprit = first(scope["f"]).culprit
    assert culprit is not None
    assert any("é" in line.text for line in culprit.lines)


def test_a_syntax_error_shows_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("x = 1\ny = (2 +\n")
    failure = first(lambda: compile(path.read_text(), str(path), "exec"))
    assert failure.kind == "SyntaxError"
    assert failure.message == "'(' was never closed"
    assert failure.culprit is not None
    line = next(line for line in failure.culprit.lines if line.current)
    assert (failure.culprit.number, line.text) == (2, "y = (2 +")
    assert line.mark == (4, 5)


def test_a_syntax_error_without_a_file() -> None:
    failure = first(lambda: compile("x = = 1", "<typed>", "exec"))
    assert failure.culprit is not None
    assert [line.text for line in failure.culprit.lines] == ["x = = 1"]


def test_texts_that_cannot_be_made() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    def fails() -> None:
        raise Bad

    assert first(fails).message == "<its text cannot be made: ValueError>"


def test_texts_that_are_too_long_or_deceive() -> None:
    assert len(safe_text("x" * 100_000, 1000)) < 1100
    assert safe_text("a\x00b\x1b[31m\u202etxt.exe\ud800", 100) == "a\\x00b\\x1b[31m\\u202etxt.exe\\ud800"
    assert safe_text("tab\tand\nline", 100) == "tab\tand\nline"


def test_notes_are_shown_whatever_they_are() -> None:
    error = ValueError("x")
    error.add_note("first")
    error.__notes__.append(5)
    assert collect(error)[0].notes == ["first", "5"]
    error.__notes__ = "not a list"  # type: ignore[assignment]
    assert collect(error)[0].notes == []


def _attribute_error() -> None:
    class Basket:
        total = 1

    Basket().totl  # type: ignore[attr-defined]


def _name_error() -> None:
    total = 1
    print(totl, total)  # type: ignore[name-defined] # noqa: F821


def _module() -> None:
    import no_such_module_here  # type: ignore[import-not-found] # noqa: F401


def _coroutine() -> None:
    async def price() -> int:
        return 1

    call = price()
    try:
        call + 1  # type: ignore[operator]
    finally:
        call.close()


def _recursion() -> None:
    _recursion()


def _decode() -> None:
    b"\xff".decode("utf-8")


def _own() -> None:
    from armature.exceptions import RouteError

    raise RouteError("two routes", hint="rename one")


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (_attribute_error, "`total`"),
        (_name_error, "`total`"),
        (_module, "pip install no_such_module_here"),
        (_coroutine, "`await`"),
        (_recursion, "repeat"),
        (_decode, "encoding"),
        (_own, "rename one"),
    ],
)
def test_hints(function: Callable[[], None], hint: str) -> None:
    assert hint in (first(function).hint or "")


def test_no_hint_without_a_reason() -> None:
    assert collect(ValueError("x"))[0].hint is None
    assert collect(ValueError("x"))[0].culprit is None
