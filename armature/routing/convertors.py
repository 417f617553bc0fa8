"""What a typed path parameter takes, what it becomes in Python, and how it is written into a URL."""

from __future__ import annotations

import enum
import math
import operator
import re
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from armature._spec import routes
from armature.exceptions import ConfigurationError

__all__ = [
    "AlnumConvertor",
    "AlphaConvertor",
    "Convertor",
    "EmailConvertor",
    "EnumConvertor",
    "FloatConvertor",
    "IntConvertor",
    "LengthConvertor",
    "PathConvertor",
    "RangeConvertor",
    "RegexConvertor",
    "Relation",
    "StrConvertor",
    "UIntConvertor",
    "UUIDConvertor",
    "convertor_names",
    "get_convertor",
    "register_convertor",
]

T = TypeVar("T")


class Relation(enum.Enum):
    """How the values that two convertors take stand to one another."""

    SAME = "same"
    #: Some text may fit both, and the first is tried first.
    BEFORE = "before"
    AFTER = "after"
    #: No text fits both.
    DISJOINT = "disjoint"
    #: Some text may fit both, and nothing says which goes first.
    UNORDERED = "unordered"


def _native(kind: int) -> str:
    return routes.NATIVE_REGEX[kind].decode("ascii")


_INVERSE = {
    Relation.SAME: Relation.SAME,
    Relation.BEFORE: Relation.AFTER,
    Relation.AFTER: Relation.BEFORE,
    Relation.DISJOINT: Relation.DISJOINT,
    Relation.UNORDERED: Relation.UNORDERED,
}


class Convertor(Generic[T]):
    """A kind of path parameter; subclass it and pass it to `register_convertor` to make your own.

    A parameter is never empty, and never reaches beyond its segment (`path` alone does both). The regular
    expression is matched against the whole percent-decoded value, with `re.DOTALL`.
    """

    #: What the value must look like; must have no capturing groups.
    regex: str = r".+"
    #: The type that `to_python` returns, for handlers' annotations and the OpenAPI schema.
    python_type: Any = str
    #: Convertors of a lower rank are tried first.
    rank: int = 80
    #: Whether the parameter takes the whole rest of the path; such a convertor takes anything.
    catch_all: bool = False
    #: How the compiled router recognises the value; `MATCH_TEXT` asks `matches`.
    kind: int = routes.MATCH_TEXT
    #: The name under which the convertor is written in templates, with its arguments.
    spec: str = ""

    _pattern: re.Pattern[str] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A subclass that changes the language can no longer be recognised natively.
        if cls.__dict__.keys() & {"accepts", "matches", "regex"} and "kind" not in cls.__dict__:
            cls.kind = routes.MATCH_TEXT

    @classmethod
    def parse(cls, arguments: str | None) -> Convertor[Any]:
        """Make the convertor from what stands between the parentheses in a template; None if there are none.

        Raises:
            ValueError: The arguments do not fit; the message is shown to whoever wrote the template.
        """
        if arguments is not None:
            raise ValueError("it takes no arguments")
        return cls()

    def accepts(self, text: str) -> bool:
        """Check what the regular expression cannot say."""
        return True

    def matches(self, text: str) -> bool:
        """Whether `text`, percent-decoded, is a value of this parameter."""
        pattern = self._pattern
        if pattern is None:
            pattern = self._pattern = re.compile(self.regex, re.DOTALL)
        return text != "" and pattern.fullmatch(text) is not None and self.accepts(text)

    def to_python(self, value: str) -> T:
        """Convert a value that `matches`; may raise ValueError."""
        return value  # type: ignore[return-value]

    def to_url(self, value: T) -> str:
        """Write a value for a URL, not yet percent-encoded; the result must `match` again."""
        return str(value)

    @property
    def size(self) -> int:
        """Orders convertors of one rank: the one that takes fewer values has the smaller size."""
        return 0

    @property
    def sort_key(self) -> tuple[int, int, str]:
        """Where the convertor stands among others at the same place of a path."""
        return (self.rank, self.size, self.spec)

    def relation(self, other: Convertor[Any]) -> Relation:
        """Say which of two convertors at the same place of a path is tried first, if that can be told."""
        if self == other:
            return Relation.SAME
        if isinstance(other, EnumConvertor):
            return _INVERSE[other.relation(self)]
        if frozenset((type(self), type(other))) in _DISJOINT:
            return Relation.DISJOINT
        if self.rank != other.rank:
            return Relation.BEFORE if self.rank < other.rank else Relation.AFTER
        return self._relation(other)

    def _relation(self, other: Convertor[Any]) -> Relation:
        return Relation.UNORDERED

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Convertor):
            return NotImplemented
        return self is other or (self.spec != "" and self.spec == other.spec and type(self) is type(other))

    def __hash__(self) -> int:
        return hash((type(self), self.spec))

    def __repr__(self) -> str:
        return f"<convertor {self.spec or type(self).__name__}>"


class StrConvertor(Convertor[str]):
    """Anything but nothing: what a parameter without a type is."""

    rank = 100
    kind = routes.MATCH_STR


class UIntConvertor(Convertor[int]):
    """Decimal digits."""

    regex = _native(routes.MATCH_UINT)
    python_type = int
    rank = 30
    kind = routes.MATCH_UINT

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int | str) -> str:
        return str(int(value) if isinstance(value, str) else operator.index(value))


class IntConvertor(UIntConvertor):
    """Decimal digits, perhaps after a minus sign."""

    regex = _native(routes.MATCH_INT)
    rank = 40
    kind = routes.MATCH_INT


class FloatConvertor(Convertor[float]):
    """Decimal digits, perhaps a fraction, perhaps a minus sign; no exponent."""

    regex = _native(routes.MATCH_FLOAT)
    python_type = float
    rank = 50
    kind = routes.MATCH_FLOAT

    def to_python(self, value: str) -> float:
        return float(value)

    def to_url(self, value: float) -> str:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{number!r} cannot be written in a path")
        from decimal import Decimal

        return format(Decimal(repr(number)), "f")


class AlphaConvertor(Convertor[str]):
    """ASCII letters."""

    regex = _native(routes.MATCH_ALPHA)
    rank = 60
    kind = routes.MATCH_ALPHA


class AlnumConvertor(Convertor[str]):
    """ASCII letters and digits."""

    regex = _native(routes.MATCH_ALNUM)
    rank = 70
    kind = routes.MATCH_ALNUM


class UUIDConvertor(Convertor[uuid.UUID]):
    """A UUID of 32 hexadecimal digits, with or without its hyphens."""

    regex = _native(routes.MATCH_UUID)
    python_type = uuid.UUID
    rank = 25
    kind = routes.MATCH_UUID

    def to_python(self, value: str) -> uuid.UUID:
        return uuid.UUID(value)


class EmailConvertor(Convertor[str]):
    """An address as HTML's `<input type=email>` takes it (WHATWG HTML, "valid e-mail address")."""

    regex = (
        r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
        r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    )
    rank = 75


class PathConvertor(Convertor[str]):
    """The whole rest of the path, slashes included; may be empty."""

    regex = r".*"
    rank = 200
    catch_all = True

    def matches(self, text: str) -> bool:
        return True


class RegexConvertor(Convertor[str]):
    """A regular expression of one's own: `{code:regex([A-Z]{3})}`.

    It is matched by Python's `re`, which backtracks: an expression such as `(?:a+)+` lets a client waste time.
    """

    def __init__(self, regex: str) -> None:
        try:
            self._pattern = re.compile(regex, re.DOTALL)
        except re.error as error:
            raise ValueError(f"the regular expression is not valid: {error}") from None
        self.regex = regex
        self.spec = f"regex({regex})"

    @classmethod
    def parse(cls, arguments: str | None) -> RegexConvertor:
        if not arguments:
            raise ValueError("it needs an expression: regex([a-z]+)")
        return cls(arguments)


class _Interval(Convertor[T]):
    """Two convertors of this kind are ordered when one interval lies within the other."""

    low: int
    high: int

    @property
    def size(self) -> int:
        return self.high - self.low

    def _relation(self, other: Convertor[Any]) -> Relation:
        if not isinstance(other, type(self)):
            return Relation.UNORDERED
        if self.high < other.low or other.high < self.low:
            return Relation.DISJOINT
        if other.low <= self.low and self.high <= other.high:
            return Relation.BEFORE
        if self.low <= other.low and other.high <= self.high:
            return Relation.AFTER
        return Relation.UNORDERED


def _integers(arguments: str | None, usage: str) -> list[int]:
    try:
        return [int(part) for part in (arguments or "").split(",")]
    except ValueError:
        raise ValueError(f"its arguments are whole numbers: {usage}") from None


class LengthConvertor(_Interval[str]):
    """Text of a number of characters: `length(5)`, `length(1,64)`."""

    rank = 90

    def __init__(self, low: int, high: int) -> None:
        if not 1 <= low <= high:
            raise ValueError("the lengths must satisfy 1 <= shortest <= longest")
        self.low = low
        self.high = high
        self.regex = f".{{{low},{high}}}"
        self.spec = f"length({low},{high})"

    @classmethod
    def parse(cls, arguments: str | None) -> LengthConvertor:
        bounds = _integers(arguments, "length(5) or length(1,64)")
        if len(bounds) > 2:
            raise ValueError("it takes one or two lengths: length(5) or length(1,64)")
        return cls(bounds[0], bounds[-1])


class RangeConvertor(_Interval[int]):
    """A whole number between two bounds, both included: `range(1,10)`."""

    regex = r"-?[0-9]{1,18}"
    python_type = int
    rank = 20

    def __init__(self, low: int, high: int) -> None:
        if low > high:
            raise ValueError("the bounds must satisfy lowest <= highest")
        if max(abs(low), abs(high)) >= 10**18:
            raise ValueError("the bounds must have at most 18 digits")
        self.low = low
        self.high = high
        self.spec = f"range({low},{high})"

    @classmethod
    def parse(cls, arguments: str | None) -> RangeConvertor:
        bounds = _integers(arguments, "range(1,10)")
        if len(bounds) != 2:
            raise ValueError("it takes two bounds: range(1,10)")
        return cls(bounds[0], bounds[1])

    def accepts(self, text: str) -> bool:
        return self.low <= int(text) <= self.high

    def to_python(self, value: str) -> int:
        return int(value)

    def to_url(self, value: int | str) -> str:
        return str(int(value) if isinstance(value, str) else operator.index(value))


class EnumConvertor(Convertor[str]):
    """One of a few words: `enum(png|jpeg)`."""

    rank = 10

    def __init__(self, *members: str) -> None:
        if not all(members):
            raise ValueError("its words must not be empty")
        self.members = frozenset(members)
        self.regex = "|".join(re.escape(member) for member in sorted(self.members, key=lambda word: (-len(word), word)))
        self.spec = f"enum({'|'.join(sorted(self.members))})"

    @classmethod
    def parse(cls, arguments: str | None) -> EnumConvertor:
        if not arguments:
            raise ValueError("it needs words: enum(png|jpeg)")
        return cls(*(word.strip() for word in arguments.split("|")))

    @property
    def size(self) -> int:
        return len(self.members)

    def matches(self, text: str) -> bool:
        return text in self.members

    def to_url(self, value: Any) -> str:
        return str(value.value if isinstance(value, enum.Enum) else value)

    def relation(self, other: Convertor[Any]) -> Relation:
        if not isinstance(other, EnumConvertor):
            # A finite language can be tried out.
            if not any(other.matches(member) for member in self.members):
                return Relation.DISJOINT
            if self.rank == other.rank:
                return Relation.UNORDERED
            return Relation.BEFORE if self.rank < other.rank else Relation.AFTER
        if self.members == other.members:
            return Relation.SAME
        if not self.members & other.members:
            return Relation.DISJOINT
        if self.members < other.members:
            return Relation.BEFORE
        return Relation.AFTER if other.members < self.members else Relation.UNORDERED


_DISJOINT: frozenset[frozenset[type]] = frozenset(
    frozenset((one, other))
    for one, others in {
        AlphaConvertor: (UIntConvertor, IntConvertor, FloatConvertor, RangeConvertor),
        EmailConvertor: (
            UUIDConvertor,
            UIntConvertor,
            IntConvertor,
            FloatConvertor,
            RangeConvertor,
            AlphaConvertor,
            AlnumConvertor,
        ),
    }.items()
    for other in others
)

_REGISTRY: dict[str, Callable[[str | None], Convertor[Any]]] = {}


def register_convertor(name: str, convertor: Convertor[Any] | type[Convertor[Any]]) -> None:
    """Make a convertor known to templates under a name: `{word:name}` or `{word:name(arguments)}`.

    Args:
        name: A Python identifier; a convertor registered later under the same name replaces the earlier one for
            templates parsed from then on.
        convertor: An instance, which then takes no arguments, or a subclass whose `parse` makes instances.

    Raises:
        ConfigurationError: The name is no identifier, or the convertor is none.
    """
    if not name.isidentifier() or not name.isascii():
        raise ConfigurationError(f"the name of a convertor must be an ASCII identifier, not {name!r}")
    if isinstance(convertor, type) and issubclass(convertor, Convertor):
        parse = convertor.parse
    elif isinstance(convertor, Convertor):
        instance = convertor

        def parse(arguments: str | None) -> Convertor[Any]:
            if arguments is not None:
                raise ValueError("it takes no arguments")
            return instance

    else:
        raise ConfigurationError(
            f"{convertor!r} is no convertor; subclass armature.routing.Convertor and give it `regex` and `to_python`"
        )

    def make(arguments: str | None) -> Convertor[Any]:
        made = parse(arguments)
        if not made.spec:
            made.spec = name if arguments is None else f"{name}({arguments})"
        if re.compile(made.regex).groups:
            raise ValueError("its regular expression must have no capturing groups; write (?:...) instead of (...)")
        return made

    _REGISTRY[name] = make


def convertor_names() -> list[str]:
    """Return the names of all registered convertors, sorted."""
    return sorted(_REGISTRY)


_PLAIN: dict[tuple[str, Any], Convertor[Any]] = {}


def get_convertor(name: str, arguments: str | None = None) -> Convertor[Any]:
    """Return the convertor that `{x:name}` or `{x:name(arguments)}` stands for.

    Raises:
        KeyError: No convertor is registered under the name.
        ValueError: The arguments do not fit.
    """
    make = _REGISTRY[name]
    if arguments is not None:
        return make(arguments)
    # Keyed by the factory as well, so that registering a name anew takes effect.
    found = _PLAIN.get((name, make))
    if found is None:
        found = _PLAIN[name, make] = make(None)
    return found


for _name, _type in {
    "alnum": AlnumConvertor,
    "alpha": AlphaConvertor,
    "email": EmailConvertor,
    "enum": EnumConvertor,
    "float": FloatConvertor,
    "int": IntConvertor,
    "length": LengthConvertor,
    "path": PathConvertor,
    "range": RangeConvertor,
    "regex": RegexConvertor,
    "str": StrConvertor,
    "uint": UIntConvertor,
    "uuid": UUIDConvertor,
}.items():
    register_convertor(_name, _type)
