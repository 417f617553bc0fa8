"""What an exception has to say, taken apart for a person: causes, groups, frames with their source, a hint.

Everything is bounded: a recursion of a thousand frames, a cause that is its own cause and a message of a megabyte give
an answer of readable size.
"""

from __future__ import annotations

import difflib
import itertools
import linecache
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, TracebackType

__all__ = ["Failure", "Frame", "Line", "collect", "printable", "safe_text"]

#: Lines of source shown before and after the line of a frame.
CONTEXT = 5

MESSAGE_LIMIT = 8_000
LINE_LIMIT = 500
FRAME_LIMIT = 60
CHAIN_LIMIT = 12
GROUP_LIMIT = 8
GROUP_DEPTH = 4

#: Longest cycle of frames that is recognised as a recursion.
CYCLE_LIMIT = 6

_ROOT = str(Path(__file__).resolve().parent.parent) + os.sep


@dataclass(slots=True)
class Line:
    """One line of source.

    Args:
        number: Its number, from 1.
        text: Its text, without the end.
        mark: The columns that were being evaluated, if this is the line of the frame and they are known.
        current: Whether this is the line of the frame.
    """

    number: int
    text: str
    mark: tuple[int, int] | None = None
    current: bool = False


@dataclass(slots=True)
class Frame:
    """One frame of a traceback.

    Args:
        filename: The file, as the code object names it.
        shown: The file, relative to the working directory or to `site-packages`.
        number: The line.
        name: The qualified name of the function.
        library: Whether the code is not the user's: Python, an installed package or Armature itself.
        lines: The source around the line; empty if it is not to be had.
        repeated: How many further times this frame and those after it in `cycle` came in a row.
        cycle: The length of the cycle that repeats.
        omitted: How many frames were left out before this one.
    """

    filename: str
    shown: str
    number: int
    name: str
    library: bool
    lines: list[Line] = field(default_factory=list)
    repeated: int = 0
    cycle: int = 1
    omitted: int = 0


@dataclass(slots=True)
class Failure:
    """One exception of a chain.

    Args:
        kind: The name of its class, with the module unless that is `builtins`.
        message: Its text.
        relation: How the failure before it in the chain came from this one; empty for the first.
        notes: What `add_note` added.
        hint: What may mend it.
        frames: Its traceback, outermost first.
        inner: The exceptions of a group, each with a chain of its own.
        omitted: How many exceptions of the group are not shown.
    """

    kind: str
    message: str
    relation: str = ""
    notes: list[str] = field(default_factory=list)
    hint: str | None = None
    frames: list[Frame] = field(default_factory=list)
    inner: list[list[Failure]] = field(default_factory=list)
    omitted: int = 0

    @property
    def culprit(self) -> Frame | None:
        """The innermost frame of the user's own code, else the innermost one."""
        for frame in reversed(self.frames):
            if not frame.library:
                return frame
        return self.frames[-1] if self.frames else None


def collect(error: BaseException) -> list[Failure]:
    """Take an exception and its causes apart; the exception itself comes first, then what it came from.

    Args:
        error: The exception.
    """
    return _collect(error, set(), 0)


def _collect(error: BaseException, seen: set[int], depth: int) -> list[Failure]:
    chain: list[Failure] = []
    relation = ""
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(chain) < CHAIN_LIMIT:
        seen.add(id(current))
        failure = _failure(current, relation)
        if isinstance(current, BaseExceptionGroup):
            members = current.exceptions if depth < GROUP_DEPTH else ()
            failure.inner = [_collect(member, seen, depth + 1) for member in members[:GROUP_LIMIT]]
            failure.inner = [chain for chain in failure.inner if chain]
            failure.omitted = len(current.exceptions) - len(failure.inner)
        chain.append(failure)
        if current.__cause__ is not None:
            relation, current = "was directly caused by", current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            relation, current = "was raised while this one was being handled", current.__context__
        else:
            current = None
    return chain


def _failure(error: BaseException, relation: str) -> Failure:
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    frames = _frames(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        frames.append(_syntax_frame(error))
    # `__notes__` is whatever somebody put there.
    raw_notes = getattr(error, "__notes__", None)
    notes = [safe_text(note, MESSAGE_LIMIT) for note in raw_notes[:20]] if isinstance(raw_notes, list) else []
    return Failure(
        kind=safe_text(name, 300),
        message=_message(error),
        relation=relation,
        notes=notes,
        hint=_hint(error),
        frames=frames,
    )


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.msg:
        return safe_text(error.msg, MESSAGE_LIMIT)
    return safe_text(error, MESSAGE_LIMIT)


def safe_text(value: object, limit: int) -> str:
    """Return the text of `value`, cut at `limit`, even if making it fails.

    Args:
        value: Anything.
        limit: The largest number of characters.
    """
    try:
        text = str(value)
    except Exception as error:
        text = f"<its text cannot be made: {type(error).__name__}>"
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text) - limit} more characters)"
    return printable(text)


# Control characters, lone surrogates and characters that reorder text, which could make a line look like another one.
_UNPRINTABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufeff]"
)


def printable(text: str) -> str:
    """Return `text` with characters that cannot be shown, or that deceive the eye, written as escapes."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


# Frames.


def _frames(trace: TracebackType | None) -> list[Frame]:
    places: list[_Place] = [(entry.tb_frame.f_code, entry.tb_lineno, entry.tb_lasti) for entry in _walk(trace)]
    frames: list[Frame] = []
    for (code, number, instruction), count, cycle in _fold(places):
        frame = _frame(code, number, instruction)
        frame.repeated, frame.cycle = count, cycle
        frames.append(frame)
    if len(frames) > FRAME_LIMIT:
        half = FRAME_LIMIT // 2
        frames[-half].omitted = len(frames) - 2 * half
        frames = frames[:half] + frames[-half:]
    return frames


def _walk(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


_Place = tuple[CodeType, int | None, int]


def _fold(places: list[_Place]) -> Iterator[tuple[_Place, int, int]]:
    """Give each place with the number of further times that it, and its cycle, came in a row."""
    position = 0
    while position < len(places):
        for cycle in range(1, CYCLE_LIMIT + 1):
            pattern = places[position : position + cycle]
            repeats = 0
            while places[position + cycle * (repeats + 1) : position + cycle * (repeats + 2)] == pattern:
                repeats += 1
            if repeats >= 3:
                for index, place in enumerate(pattern):
                    yield place, repeats if index == 0 else 0, cycle
                position += cycle * (repeats + 1)
                break
        else:
            yield places[position], 0, 1
            position += 1


def _frame(code: CodeType, number: int | None, instruction: int) -> Frame:
    filename = code.co_filename
    line = number or code.co_firstlineno
    start, end = _columns(code, instruction, line)
    return Frame(
        filename=filename,
        shown=safe_text(_shown(filename), 400),
        number=line,
        name=safe_text(code.co_qualname, 300),
        library=_is_library(filename),
        lines=_source(filename, line, start, end),
    )


def _syntax_frame(error: SyntaxError) -> Frame:
    filename, number = str(error.filename), error.lineno or 1
    start = (error.offset or 1) - 1
    end = (error.end_offset or 0) - 1 if error.end_lineno == error.lineno else start + 1
    lines = _source(filename, number, None, None)
    if not lines and error.text:
        lines = [Line(number, _cut(error.text.rstrip("\n")), current=True)]
    for line in lines:
        if line.current:
            line.mark = (start, max(end, start + 1))
    return Frame(
        filename=filename,
        shown=safe_text(_shown(filename), 400),
        number=number,
        name="",
        library=False,
        lines=lines,
    )


def _columns(code: CodeType, instruction: int, number: int) -> tuple[int | None, int | None]:
    """The columns, in UTF-8 bytes, of what the instruction evaluates, if it stands on this line (PEP 657)."""
    if instruction < 0:
        return None, None
    position = next(itertools.islice(code.co_positions(), instruction // 2, None), None)
    if position is None or position[0] != number or position[2] is None:
        return None, None
    return position[2], position[3] if position[1] == number else None


def _source(filename: str, number: int, start: int | None, end: int | None) -> list[Line]:
    linecache.checkcache(filename)
    try:
        source = linecache.getlines(filename)
    except (OSError, ValueError, SyntaxError, MemoryError):
        return []
    if not 1 <= number <= len(source):
        return []
    first = max(number - CONTEXT, 1)
    lines = [
        Line(index, _cut(source[index - 1].rstrip("\r\n")), current=index == number)
        for index in range(first, min(number + CONTEXT, len(source)) + 1)
    ]
    text = source[number - 1].rstrip("\r\n")
    if start is not None:
        left = _characters(text, start)
        right = len(text) if end is None else _characters(text, end)
        # A mark over the whole line tells nothing.
        if left < right <= LINE_LIMIT and text[left:right].strip() != text.strip():
            lines[number - first].mark = (left, right)
    return lines


def _characters(text: str, size: int) -> int:
    return len(text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "replace"))


def _cut(line: str) -> str:
    line = line.expandtabs(4) if "\t" in line[:LINE_LIMIT] and line[:LINE_LIMIT].isascii() else line
    return line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + "…"


def _library_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    wanted = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if name in paths}
    return tuple(sorted({os.path.join(form, "") for path in wanted for form in (path, os.path.realpath(path))}))


_PREFIXES = _library_prefixes()


def _is_library(filename: str) -> bool:
    if filename.startswith(("<", *_PREFIXES)):
        return True
    full = os.path.abspath(filename)
    parts = Path(full).parts
    return full.startswith(_ROOT) or "site-packages" in parts or "dist-packages" in parts


def _shown(filename: str) -> str:
    if filename.startswith("<"):
        return filename
    path = Path(filename)
    for base in (Path.cwd(), *(Path(prefix) for prefix in _PREFIXES if "packages" in prefix), Path(_ROOT).parent):
        try:
            return str(path.relative_to(base))
        except ValueError:
            continue
    return filename


# Hints.


def _hint(error: BaseException) -> str | None:
    own = getattr(error, "hint", None)
    if isinstance(own, str) and own:
        return safe_text(own, 1000)
    suggestion = _suggestion(error)
    if suggestion is not None:
        return suggestion
    text = safe_text(error, 2000)
    if isinstance(error, ModuleNotFoundError) and error.name and not hasattr(error, "package"):
        top = error.name.partition(".")[0]
        return f"Is {top} installed in this environment? pip install {top}"
    if isinstance(error, RecursionError):
        return "The same calls go round for ever; look for the frames that repeat."
    if isinstance(error, TypeError):
        if "can't be used in 'await' expression" in text or "object is not awaitable" in text:
            return "What is awaited here is no awaitable: drop the await, or make the function `async def`."
        if re.search(r"\bcoroutine\b", text):
            return "A coroutine is used as if it were its result: put `await` before the call."
    if isinstance(error, AttributeError) and re.search(r"'coroutine' object has no attribute", text):
        return "A coroutine is used as if it were its result: put `await` before the call."
    if type(error).__module__.startswith("sqlite3") and "thread" in text:
        return "A SQLite connection belongs to one thread: open it with check_same_thread=False, or one per thread."
    if isinstance(error, UnicodeDecodeError):
        return "The bytes are in another encoding than the one they are decoded with; name it in decode() or open()."
    return None


def _suggestion(error: BaseException) -> str | None:
    """The name that a misspelt one was probably meant to be; Python itself tells it only when it prints."""
    name = getattr(error, "name", None)
    if not isinstance(name, str):
        return None
    try:
        if isinstance(error, AttributeError):
            names = [str(entry) for entry in dir(error.obj)]
        elif isinstance(error, NameError):
            names = _names_in_scope(error.__traceback__)
        else:
            return None
    except Exception:
        # `__dir__` is somebody's code.
        return None
    # A private name is no replacement for a public one.
    candidates = [entry for entry in names if name.startswith("_") or not entry.startswith("_")]
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.7)
    return safe_text(f"Did you mean `{near[0]}`?", 300) if near else None


def _names_in_scope(trace: TracebackType | None) -> list[str]:
    entries = list(_walk(trace))
    if not entries:
        return []
    frame = entries[-1].tb_frame
    return [*frame.f_locals, *frame.f_globals, *frame.f_builtins]
