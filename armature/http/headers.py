"""Field lines as mappings: case-insensitive, several values to a name (RFC 9110 section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

from armature._impl import message
from armature.http.media import split_quoted

__all__ = ["Headers", "HeadersInput", "MutableHeaders", "RawHeaders"]

if TYPE_CHECKING:
    from typing import Self

_T = TypeVar("_T")
_check_field = message.check_field
_set_field = message.set_field

#: Field lines as they stand in a message: lower-case name and value.
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
#: What the constructors of a response take as `headers=`.
HeadersInput: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]


def _key(name: str) -> bytes:
    # A name that is not Latin-1 is no token and is in no message; the empty key is never found either.
    try:
        return name.encode("latin-1").lower()
    except UnicodeEncodeError:
        return b""


class Headers(Mapping[str, str]):
    """The header fields of a message, read-only; names compare without case, values are decoded as Latin-1.

    As a mapping it holds each name once, with its first value; `getall` and `multi_items` see every line.

    Args:
        headers: A mapping or pairs of `str`, checked and copied.

    Raises:
        ValueError: A name is no token, or a value holds CR, LF, NUL or another control character.
    """

    __slots__ = ("_list",)

    def __init__(self, headers: HeadersInput | None = None) -> None:
        self._list: RawHeaders = []
        if headers is not None:
            pairs = headers.multi_items() if isinstance(headers, Headers) else _pairs(headers)
            self._list.extend(_check_field(name, value) for name, value in pairs)

    @classmethod
    def from_raw(cls, raw: RawHeaders) -> Self:
        """Make a view over field lines, without copying or checking them.

        Args:
            raw: Pairs of lower-case name and value; changes of this list are seen.
        """
        self = cls.__new__(cls)
        self._list = raw
        return self

    @property
    def raw(self) -> RawHeaders:
        """The field lines in order: lower-case name and value, undecoded."""
        return self._list

    def __getitem__(self, name: str) -> str:
        key = _key(name)
        for field, value in self._list:
            if field == key:
                return value.decode("latin-1")
        raise KeyError(name)

    @overload
    def get(self, name: str, default: None = None, /) -> str | None: ...
    @overload
    def get(self, name: str, default: _T, /) -> str | _T: ...
    def get(self, name: str, default: object = None, /) -> object:
        """Return the first value of a name, or the default."""
        key = _key(name)
        for field, value in self._list:
            if field == key:
                return value.decode("latin-1")
        return default

    def getall(self, name: str) -> list[str]:
        """Return all values of a name in the order of the message; an empty list if there is none."""
        key = _key(name)
        return [value.decode("latin-1") for field, value in self._list if field == key]

    getlist = getall

    def joined(self, name: str) -> str | None:
        """Return all values of a list field joined by commas, or None (RFC 9110 section 5.3); not for `Set-Cookie`."""
        values = self.getall(name)
        return ", ".join(values) if values else None

    def multi_items(self) -> list[tuple[str, str]]:
        """Return every field line as (lower-case name, value), repeated names included."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._list]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        key = _key(name)
        return any(field == key for field, _ in self._list)

    def __iter__(self) -> Iterator[str]:
        return iter([name.decode("latin-1") for name in dict.fromkeys(field for field, _ in self._list)])

    def __len__(self) -> int:
        return len({field for field, _ in self._list})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return sorted(self._list) == sorted(other._list)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"


class MutableHeaders(Headers, MutableMapping[str, str]):
    """The header fields of a response; every write is checked, so a bad name or value raises at the call."""

    __slots__ = ()

    def __setitem__(self, name: str, value: str) -> None:
        _set_field(self._list, name, value)

    def __delitem__(self, name: str) -> None:
        if not self._drop(_key(name), 0):
            raise KeyError(name)

    def _drop(self, key: bytes, start: int) -> int:
        # In place: the response and every other view share this list.
        fields = self._list
        kept = [field for field in fields[start:] if field[0] != key]
        dropped = len(fields) - start - len(kept)
        if dropped:
            fields[start:] = kept
        return dropped

    def add(self, name: str, value: str) -> None:
        """Append a field line; lines of the same name stay.

        Args:
            name: The field's name.
            value: The value; no control characters.

        Raises:
            ValueError: The name is no token, or the value holds CR, LF, NUL or another control character.
        """
        self._list.append(_check_field(name, value))

    append = add

    def setdefault(self, name: str, default: str = "", /) -> str:
        """Set a field that is absent; return the value that stands then."""
        present = self.get(name)
        if present is not None:
            return present
        self.add(name, default)
        return default

    def add_vary(self, *names: str) -> None:
        """Name request fields that the response was chosen by, once each (RFC 9110 section 12.5.5).

        Args:
            names: Field names, or `*`.
        """
        wanted = [part for name in (*self.getall("vary"), *names) for part in split_quoted(name, ",")]
        if "*" in wanted:
            self["vary"] = "*"
        elif wanted:
            self["vary"] = ", ".join({part.lower(): part for part in reversed(wanted)}[key] for key in _ordered(wanted))


def _ordered(names: list[str]) -> dict[str, None]:
    return dict.fromkeys(name.lower() for name in names)


def _pairs(headers: HeadersInput) -> Iterable[tuple[str, str]]:
    return headers.items() if isinstance(headers, Mapping) else headers
