"""Path templates: read, checked, and written back into URLs.

A template is fixed text and parameters:

    /users/{id}            anything but nothing, within its segment
    /users/:id             the same
    /users/{id:int}        what the convertor takes
    /files/{name}.{ext}    text and parameters in one segment; earlier parameters take as much as they can
                           (if one of several is typed, only segments of up to 1,024 characters match)
    /static/{rest:path}    the whole rest, slashes included, perhaps empty; /static itself does not match
    /static/*rest          the same

Fixed text stands for itself, percent-decoded: `/a%7Bb` is the path `/a{b`, however a client encodes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from armature._spec.routes import MATCH_TEXT, MAX_PARAMS
from armature.exceptions import RouteError
from armature.routing.convertors import Convertor, Relation, convertor_names, get_convertor

__all__ = ["Param", "Pattern", "PatternError", "Segment", "parse_pattern"]

#: Deeper templates are refused; matching recurses once per segment at most.
MAX_SEGMENTS = 128

#: A longer segment fits no template that mixes several parameters of which one is typed: the time that its regular
#: expression takes may grow with the square of the length.
MAX_MIXED = 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRAY = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")

#: What may stand in a segment unencoded: pchar of RFC 3986 section 3.3, less what `quote` never encodes anyway.
_SEGMENT_SAFE = "!$&'()*+,;=:@"


class PatternError(RouteError):
    """A path template has a mistake.

    Args:
        message: What is wrong, in one sentence.
        position: Where in the pattern, counted in characters from 0.
        pattern: The path pattern of the route, as written.
        handler: Qualified name of the handler.
        location: `file:line` of the handler.
        hint: How to mend it.
    """

    def __init__(
        self,
        message: str,
        *,
        position: int,
        pattern: str,
        handler: str | None = None,
        location: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, pattern=pattern, handler=handler, location=location, hint=hint)
        self.position = position
        lines = str(self).split("\n")
        shown = f"  route:   {pattern}"
        # A pattern may hold line breaks of its own, which would tear the picture apart.
        if shown in lines:
            lines.insert(lines.index(shown) + 1, " " * (len("  route:   ") + position) + "^")
        self.args = ("\n".join(lines),)


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a template."""

    name: str
    convertor: Convertor[Any]
    position: int


class Segment:
    """What stands between two slashes: fixed texts (percent-decoded) and parameters, by turns.

    Args:
        pieces: The texts and parameters; empty behind a slash at the end.
    """

    __slots__ = ("_regex", "catch_all", "fixed", "key", "literals", "params", "pieces", "sort_key", "text")

    def __init__(self, pieces: tuple[str | Param, ...]) -> None:
        literals = [""]
        for piece in pieces:
            if isinstance(piece, str):
                literals[-1] = piece
            else:
                literals.append("")
        self._regex: re.Pattern[str] | None = None
        self.pieces = pieces
        self.params = tuple(piece for piece in pieces if isinstance(piece, Param))
        #: The fixed text before, between and behind the parameters; one more than there are parameters.
        self.literals = tuple(literals)
        #: Characters of fixed text.
        self.fixed = sum(map(len, literals))
        #: The segment as bytes, if nothing in it varies.
        self.text = None if self.params else literals[0].encode("utf-8")
        self.catch_all = any(param.convertor.catch_all for param in self.params)
        #: Equal for segments that take the same texts, whatever their parameters are called.
        self.key: tuple[Any, ...] = (
            (None,)
            if self.catch_all
            else tuple(
                piece if isinstance(piece, str) else (piece.convertor.spec, type(piece.convertor)) for piece in pieces
            )
        )
        #: Segments at the same place of a path are tried in this order.
        self.sort_key = (-self.fixed, [param.convertor.sort_key for param in self.params], self.literals)

    def __eq__(self, other: object) -> bool:
        return self.pieces == other.pieces if isinstance(other, Segment) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pieces)

    def __repr__(self) -> str:
        return f"Segment({self.pieces!r})"

    def relation(self, other: Segment) -> Relation:
        """Say which of two segments at the same place of a path is tried first, if that can be told."""
        mine, others = self.text, other.text
        if mine is not None or others is not None:
            if mine is not None and others is not None:
                return Relation.SAME if mine == others else Relation.DISJOINT
            return Relation.BEFORE if mine is not None else Relation.AFTER
        if self.catch_all or other.catch_all:
            if self.catch_all and other.catch_all:
                return Relation.SAME
            return Relation.AFTER if self.catch_all else Relation.BEFORE
        ours, theirs = self.literals, other.literals
        if _contradict(ours[0], theirs[0], str.startswith) or _contradict(ours[-1], theirs[-1], str.endswith):
            return Relation.DISJOINT
        if self.fixed != other.fixed:
            return Relation.BEFORE if self.fixed > other.fixed else Relation.AFTER
        if ours != theirs:
            return Relation.UNORDERED
        for one, two in zip(self.params, other.params, strict=True):
            found = one.convertor.relation(two.convertor)
            if found is Relation.DISJOINT and len(ours) > 2:
                # Their extents may differ between two parameters in one segment; only the order is sure.
                found = Relation.BEFORE if one.convertor.sort_key < two.convertor.sort_key else Relation.AFTER
            if found is not Relation.SAME:
                return found
        return Relation.SAME

    def overlaps(self, other: Segment) -> bool:
        """Whether one text may fit both; True where that is not known."""
        if self.relation(other) is Relation.DISJOINT:
            return False
        for one, two in ((self, other), (other, self)):
            text = one.text
            if text is not None and two.text is None and not two.catch_all and not two.takes(text.decode("utf-8")):
                return False
        return True

    @property
    def regex(self) -> re.Pattern[str]:
        """The segment as a regular expression with a group per parameter."""
        if self._regex is None:
            parts = [
                re.escape(piece) if isinstance(piece, str) else f"((?:{piece.convertor.regex}))"
                for piece in self.pieces
            ]
            self._regex = re.compile("".join(parts), re.DOTALL)
        return self._regex

    def takes(self, text: str) -> bool:
        """Whether a percent-decoded segment fits."""
        params, literals = self.params, self.literals
        if len(params) == 1:
            inner = text[len(literals[0]) : len(text) - len(literals[1])]
            return (
                len(text) > len(literals[0]) + len(literals[1])
                and text.startswith(literals[0])
                and text.endswith(literals[1])
                and params[0].convertor.matches(inner)
            )
        return self.spans(text) is not None

    def spans(self, text: str) -> tuple[tuple[int, int], ...] | None:
        """Split a percent-decoded segment among its parameters; None if it does not fit."""
        found = None if len(text) > MAX_MIXED else self.regex.fullmatch(text)
        if found is None:
            return None
        params = self.params
        spans = tuple([found.span(number) for number in range(1, len(params) + 1)])
        for (start, end), param in zip(spans, params, strict=True):
            # The expression of a native kind says everything.
            if param.convertor.kind == MATCH_TEXT and not param.convertor.matches(text[start:end]):
                return None
        return spans


def _contradict(one: str, two: str, holds: Any) -> bool:
    return not holds(one, two) and not holds(two, one)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A path template, checked; `str()` of it is the template as written."""

    text: str
    segments: tuple[Segment, ...]

    @property
    def params(self) -> tuple[Param, ...]:
        """The parameters, in the order of the template."""
        return tuple(param for segment in self.segments for param in segment.params)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of the template."""
        return tuple(param.name for param in self.params)

    @property
    def path_format(self) -> str:
        """The template as OpenAPI writes it: `/users/{id}`, without convertors."""
        return "".join(
            "/" + "".join(piece if isinstance(piece, str) else f"{{{piece.name}}}" for piece in segment.pieces)
            for segment in self.segments
        )

    @property
    def static_path(self) -> bytes | None:
        """The whole path, if the template has no parameters."""
        texts = [segment.text for segment in self.segments]
        fixed = [text for text in texts if text is not None]
        return b"/" + b"/".join(fixed) if len(fixed) == len(texts) else None

    @property
    def shape(self) -> tuple[tuple[Any, ...], ...]:
        """Equal for templates that match the same paths, whatever their parameters are called."""
        return tuple(segment.key for segment in self.segments)

    def url_path_for(self, **values: Any) -> str:
        """Write the path for the given parameters, percent-encoded (RFC 3986 section 3.3).

        Raises:
            TypeError: A parameter is missing, or is none of this template's.
            ValueError: A value does not fit its parameter.
        """
        names = self.names
        missing = [name for name in names if name not in values]
        if missing:
            raise TypeError(f"{self.text} needs {_list(missing)}")
        unknown = [name for name in values if name not in names]
        if unknown:
            has = _list(names) if names else "none"
            raise TypeError(f"{self.text} has no parameter {_list(unknown)}; it has {has}")
        written: list[str] = []
        for segment in self.segments:
            parts = [
                quote(piece, safe=_SEGMENT_SAFE) if isinstance(piece, str) else self._encode(piece, values[piece.name])
                for piece in segment.pieces
            ]
            joined = "".join(parts)
            if any(part in (".", "..") for part in joined.split("/")):
                # RFC 3986 section 5.2.4: a client would remove the segment, and another path would be asked for.
                raise ValueError(f"{self.text}: {joined!r} would be taken for a relative path")
            written.append(joined)
        return "/" + "/".join(written)

    def _encode(self, param: Param, value: Any) -> str:
        try:
            text = param.convertor.to_url(value)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{self.text}: {value!r} does not fit {{{param.name}}}: {error}") from error
        if not param.convertor.matches(text):
            raise ValueError(f"{self.text}: {text!r} does not fit {{{param.name}}}, which is {param.convertor.spec}")
        try:
            return quote(text, safe=_SEGMENT_SAFE + "/" if param.convertor.catch_all else _SEGMENT_SAFE)
        except UnicodeEncodeError:
            raise ValueError(f"{self.text}: {text!r} holds a lone surrogate, which no URL can carry") from None

    def __str__(self) -> str:
        return self.text


def _list(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def parse_pattern(
    path: str,
    *,
    handler: str | None = None,
    location: str | None = None,
    convertors: Mapping[str, str] | None = None,
) -> Pattern:
    """Read a path template.

    Args:
        path: The template; begins with a slash.
        handler: Qualified name of the handler, for the error message.
        location: `file:line` of the handler, for the error message.
        convertors: Convertors (as written in a template) of parameters that the template gives none.

    Raises:
        RouteError: The template has a mistake; the message points at it.
    """
    if not isinstance(path, str):
        raise RouteError(
            f"a path must be a str, not {type(path).__name__}", pattern=repr(path), handler=handler, location=location
        )
    return _Parser(path, handler, location, convertors or {}).parse()


class _Parser:
    def __init__(self, text: str, handler: str | None, location: str | None, convertors: Mapping[str, str]) -> None:
        self.text = text
        self.handler = handler
        self.location = location
        self.convertors = convertors
        self.seen: dict[str, int] = {}

    def error(self, message: str, position: int, hint: str) -> PatternError:
        return PatternError(
            message, position=position, pattern=self.text, handler=self.handler, location=self.location, hint=hint
        )

    def parse(self) -> Pattern:
        text = self.text
        if not text.startswith("/"):
            raise self.error("a path must begin with a slash", 0, f"write /{text}")
        stray = _STRAY.search(text)
        if stray is not None:
            raise self.error(
                f"a path must not hold the character {stray.group()!r}",
                stray.start(),
                "remove it, or percent-encode it",
            )
        segments: list[Segment] = []
        starts: list[int] = []
        position = 1
        while True:
            starts.append(position)
            pieces, end = self.segment(position)
            segments.append(Segment(tuple(pieces)))
            if end == len(text):
                break
            position = end + 1
        self.check_segments(segments, starts)
        return Pattern(text, tuple(segments))

    def check_segments(self, segments: list[Segment], starts: list[int]) -> None:
        last = len(segments) - 1
        for number, (segment, start) in enumerate(zip(segments, starts, strict=True)):
            if not segment.pieces and number != last:
                raise self.error("a path must not hold an empty segment", start, "write one slash")
            if segment.text in (b".", b".."):
                raise self.error(
                    f"a path must not hold the segment {segment.text.decode()!r}",
                    start,
                    "clients resolve it before they ask (RFC 3986 section 5.2.4); write the path it leads to",
                )
            try:
                if len(segment.params) > 1:
                    segment.regex  # noqa: B018  # compiled now, so that its mistakes show now
            except re.error as error:
                raise self.error(
                    "the parameters of this segment cannot stand side by side",
                    segment.params[0].position,
                    f"their joint regular expression is not valid: {error}",
                ) from None
            if segment.catch_all:
                param = next(param for param in segment.params if param.convertor.catch_all)
                if len(segment.pieces) > 1:
                    raise self.error(
                        f"the catch-all {param.name!r} must fill its segment alone",
                        param.position,
                        "put a slash before it and nothing behind it",
                    )
                if number != last:
                    raise self.error(
                        f"the catch-all {param.name!r} must stand at the end",
                        param.position,
                        "it takes the whole rest of the path; move it to the end, or use a parameter per segment",
                    )
        if len(segments) > MAX_SEGMENTS:
            raise self.error(
                f"a path must not have more than {MAX_SEGMENTS} segments", starts[MAX_SEGMENTS], "shorten it"
            )

    def segment(self, start: int) -> tuple[list[str | Param], int]:
        """Read one segment; return its pieces and the position of the slash or the end behind it."""
        text, size = self.text, len(self.text)
        pieces: list[str | Param] = []
        position = literal = start

        def flush(end: int) -> None:
            if end > literal:
                pieces.append(self.literal(literal, end))

        while position < size and text[position] != "/":
            char = text[position]
            at_start = position == start
            if char == "{":
                flush(position)
                param, literal = self.braced(position)
            elif char == ":" and at_start:
                param, literal = self.named(position, ":", None)
            elif char == "*":
                if not at_start:
                    raise self.error(
                        "an asterisk must begin its segment",
                        position,
                        "a catch-all is written /*rest or /{rest:path}; for the character itself write %2A",
                    )
                param, literal = self.named(position, "*", "path")
            elif char == "}":
                raise self.error(
                    "this brace closes nothing",
                    position,
                    "a parameter is written {name}; for the character itself write %7D",
                )
            elif char in "?#":
                raise self.error(
                    f"a path must not hold {char!r}",
                    position,
                    "leave out the query: query parameters are parameters of the handler"
                    if char == "?"
                    else "leave out the fragment: clients never send it; for the character itself write %23",
                )
            elif char in "<>":
                raise self.error(
                    f"a path must not hold {char!r}",
                    position,
                    f"a parameter is written {{name}} or {{name:int}}; for the character itself write %{ord(char):02X}",
                )
            else:
                position += 1
                continue
            if pieces and isinstance(pieces[-1], Param):
                raise self.error(
                    f"nothing stands between the parameters {pieces[-1].name!r} and {param.name!r}",
                    param.position,
                    "put some text or a slash between them",
                )
            pieces.append(param)
            position = literal
        flush(position)
        return pieces, position

    def literal(self, start: int, end: int) -> str:
        raw = self.text[start:end]
        if "%" not in raw:
            return raw
        for escape in _ESCAPE.finditer(raw):
            byte = int(escape.group(1), 16)
            position = start + escape.start()
            if byte == 0x2F:
                raise self.error(
                    "a path must not hold an encoded slash",
                    position,
                    "take it with a parameter: {name} takes a%2Fb as 'a/b'",
                )
            if byte < 0x20 or byte == 0x7F:
                raise self.error("a path must not hold an encoded control character", position, "remove it")
        try:
            return unquote_to_bytes(raw).decode("utf-8")
        except UnicodeDecodeError:
            # The text outside the escapes is UTF-8, so that there is one.
            raise self.error(
                "the percent-encoded text is not UTF-8", start + raw.index("%"), "write the characters themselves"
            ) from None

    def named(self, start: int, mark: str, convertor: str | None) -> tuple[Param, int]:
        """Read `:name` or `*name`."""
        found = _NAME.match(self.text, start + 1)
        if found is None:
            what = "a parameter" if mark == ":" else "a catch-all"
            raise self.error(
                f"{what} must have a name",
                start,
                f"write /{mark}{'id' if mark == ':' else 'rest'}; for the character itself write %{ord(mark):02X}",
            )
        return self.param(found.group(), start, convertor, None, start), found.end()

    def braced(self, start: int) -> tuple[Param, int]:
        """Read `{name}`, `{name:convertor}` or `{name:convertor(arguments)}`."""
        text = self.text
        position = start + 1
        found = _NAME.match(text, position)
        if found is None:
            close = text.find("}", position)
            inner = text[position:close] if close >= 0 else ""
            hint = "a name is made of ASCII letters, digits and underscores, and does not begin with a digit"
            if inner.startswith("*") and _NAME.fullmatch(inner[1:]):
                hint = f"a catch-all is written {{{inner[1:]}:path}} or *{inner[1:]}"
            elif inner.strip() != inner and inner.strip():
                hint = f"leave out the spaces: {{{inner.strip()}}}"
            raise self.error("a parameter must have a name", position, hint)
        name = found.group()
        position = found.end()
        convertor: str | None = None
        arguments: str | None = None
        convertor_at = start
        if text[position : position + 1] == ":":
            convertor_at = position + 1
            found = _NAME.match(text, convertor_at)
            if found is None:
                raise self.error(
                    f"the parameter {name!r} has a colon but no convertor",
                    convertor_at,
                    f"write {{{name}}}, or one of the convertors {', '.join(convertor_names())}",
                )
            convertor = found.group()
            position = found.end()
            if text[position : position + 1] == "(":
                close = _closing_parenthesis(text, position)
                if close < 0:
                    raise self.error("this parenthesis is never closed", position, f"write {{{name}:{convertor}(...)}}")
                arguments = text[position + 1 : close]
                position = close + 1
        if position >= len(text) or text[position] != "}":
            rest = text.find("}", position)
            if rest < 0 or "/" in text[position:rest] or "{" in text[position:rest]:
                raise self.error("this brace is never closed", start, f"write {{{name}}}")
            strange = text[position]
            hint = f"write {{{name}}} or {{{name}:int}}"
            if strange == "?":
                hint = "there are no optional parameters; register a second route without it"
            elif text[position:rest] == "...":
                hint = f"a catch-all is written {{{name}:path}} or *{name}"
            raise self.error(f"the character {strange!r} does not belong here", position, hint)
        return self.param(name, start, convertor, arguments, convertor_at), position + 1

    def param(self, name: str, start: int, convertor: str | None, arguments: str | None, convertor_at: int) -> Param:
        if name in self.seen:
            raise self.error(
                f"the parameter {name!r} stands here twice", start, "every parameter needs a name of its own"
            )
        self.seen[name] = start
        if len(self.seen) > MAX_PARAMS:
            raise self.error(
                f"a path must not have more than {MAX_PARAMS} parameters", start, "take the rest with {rest:path}"
            )
        if convertor is None:
            convertor, arguments = _split_spec(self.convertors.get(name, "str"))
        try:
            return Param(name, get_convertor(convertor, arguments), start)
        except KeyError:
            raise self.error(f"there is no convertor {convertor!r}", convertor_at, _suggest(convertor)) from None
        except ValueError as error:
            raise self.error(
                f"the convertor {convertor!r} of {name!r} is not right", convertor_at, str(error)
            ) from None
        except re.error as error:
            raise self.error(
                f"the convertor {convertor!r} of {name!r} is not right",
                convertor_at,
                f"its expression is not valid: {error}",
            ) from None


def _split_spec(spec: str) -> tuple[str, str | None]:
    name, parenthesis, rest = spec.partition("(")
    return name, rest.removesuffix(")") if parenthesis else None


def _closing_parenthesis(text: str, start: int) -> int:
    """Find the `)` for the `(` at `start`, past escapes and character classes of a regular expression."""
    depth = 0
    in_class = False
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
            # A bracket that comes first in a class is a member of it.
            position += text.startswith("^", position + 1)
            position += text.startswith("]", position + 1)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if not depth:
                return position
        position += 1
    return -1


#: What other frameworks and Python call them.
_ALIASES = {
    "any": "str",
    "bool": "enum(true|false)",
    "char": "length(1)",
    "digits": "uint",
    "double": "float",
    "guid": "uuid",
    "integer": "int",
    "number": "float",
    "re": "regex(...)",
    "slug": "regex([a-z0-9-]+)",
    "string": "str",
    "text": "str",
    "unsigned": "uint",
    "word": "alnum",
}


def _suggest(name: str) -> str:
    import difflib

    known = convertor_names()
    near = _ALIASES.get(name.lower()) or next(iter(difflib.get_close_matches(name.lower(), known, 1)), None)
    meant = f"did you mean {near}? " if near else ""
    return f"{meant}known are {', '.join(known)}"
