"""URLs and query strings: lazy, linear in their length, bounded (RFC 3986, WHATWG URL section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlencode, urlsplit

from armature.exceptions import HTTPException
from armature.http.multidict import MultiDict

__all__ = ["PAIR_LIMIT", "URL", "QueryParams", "parse_pairs", "quote_url"]

#: Pairs of one query string, form or cookie header; above it 400.
PAIR_LIMIT = 1000

ParamsInput: TypeAlias = str | bytes | Mapping[str, Any] | Iterable[tuple[str, Any]]


# As numbers: `in` takes six times as long to look for a byte string.
_PERCENT, _PLUS = b"%+"


def _decode(piece: bytes) -> str:
    if _PLUS in piece:
        piece = piece.replace(b"+", b" ")
    if _PERCENT in piece:
        piece = unquote_to_bytes(piece)
    return piece.decode("utf-8", "replace")


def parse_pairs(query: bytes, limit: int = PAIR_LIMIT, what: str = "query string") -> list[tuple[str, str]]:
    """Decode `application/x-www-form-urlencoded` pairs as `urllib.parse.parse_qsl(keep_blank_values=True)` does.

    Args:
        query: The encoded pairs; octets that are no UTF-8 become U+FFFD.
        limit: The largest number of pairs.
        what: What is parsed, for the text of the error.

    Raises:
        HTTPException: There are more pairs than the limit; status 400.
    """
    if not query:
        return []
    if query.count(b"&") >= limit:
        raise HTTPException(400, f"The {what} has more than {limit} parameters.")
    pairs: list[tuple[str, str]] = []
    plain = _PERCENT not in query and _PLUS not in query
    for pair in query.split(b"&"):
        if not pair:
            continue
        name, _, value = pair.partition(b"=")
        if plain:
            pairs.append((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")))
        else:
            pairs.append((_decode(name), _decode(value)))
    return pairs


class QueryParams(MultiDict):
    """The parameters of a query string, read-only; `[]` and `get` answer the last value of a name, `getall` every one.

    Args:
        query: A query string without `?`, a mapping (its values may be lists) or pairs.
        limit: The largest number of pairs in a query string.

    Raises:
        HTTPException: The query string has more pairs; status 400.
    """

    __slots__ = ()

    def __init__(self, query: ParamsInput = b"", limit: int = PAIR_LIMIT) -> None:
        if isinstance(query, str):
            query = query.encode("utf-8", "surrogatepass")
        if isinstance(query, bytes):
            super().__init__(parse_pairs(query, limit))
        else:
            super().__init__(_spread(query))

    def __str__(self) -> str:
        return urlencode(self.multi_items())


def _spread(query: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    if isinstance(query, MultiDict):
        yield from query.multi_items()
        return
    for name, value in query.items() if isinstance(query, Mapping) else query:
        if isinstance(value, (list, tuple)):
            for item in value:
                yield str(name), _text(item)
        else:
            yield str(name), _text(value)


def _text(value: Any) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)


# What may stand in a URI as it is: reserved and unreserved characters and the percent sign (RFC 3986 section 2).
_URI_SAFE = ":/%#?=@[]!$&'()*+,;~"


def quote_url(url: str) -> str:
    """Percent-encode what may not stand in a URL, for a `Location`; what is encoded already stays as it is.

    Args:
        url: An absolute or relative reference; IRIs are encoded as UTF-8 (RFC 3987 section 3.1).

    Raises:
        ValueError: It holds a control character such as CR or LF.
    """
    if not url.isprintable() and any(char < " " or char == "\x7f" for char in url):
        raise ValueError(f"invalid URL {url!r}: it holds a control character")
    return quote(url, safe=_URI_SAFE)


class URL:
    """A URL whose parts can be read and replaced; compares with `str`, `str(url)` is the URL itself.

    Args:
        url: An absolute or relative reference.

    Raises:
        ValueError: The authority is malformed, such as an unclosed `[`.
    """

    __slots__ = ("_parts", "_text")

    def __init__(self, url: str = "") -> None:
        self._text: str | None = url
        self._parts: SplitResult | None = None
        if "[" in url or "]" in url:
            self._parts = urlsplit(url)

    @classmethod
    def from_parts(cls, scheme: str = "", netloc: str = "", path: str = "", query: str = "", fragment: str = "") -> URL:
        """Put a URL together from parts that are encoded already.

        Args:
            scheme: Such as `https`.
            netloc: Host, and port if there is one.
            path: The path, with its leading `/`.
            query: What follows `?`.
            fragment: What follows `#`.
        """
        self = cls.__new__(cls)
        self._text = None
        self._parts = SplitResult(scheme, netloc, path, query, fragment)
        return self

    @property
    def parts(self) -> SplitResult:
        """The five parts of the URL as `urllib.parse.urlsplit` names them."""
        parts = self._parts
        if parts is None:
            parts = self._parts = urlsplit(self._text or "")
        return parts

    @property
    def scheme(self) -> str:
        """The scheme, such as `https`, or the empty string."""
        return self.parts.scheme

    @property
    def netloc(self) -> str:
        """User information, host and port as they are written."""
        return self.parts.netloc

    @property
    def path(self) -> str:
        """The path, still percent-encoded."""
        return self.parts.path

    @property
    def query(self) -> str:
        """What follows the first `?`, still encoded."""
        return self.parts.query

    @property
    def fragment(self) -> str:
        """What follows `#`."""
        return self.parts.fragment

    @property
    def username(self) -> str | None:
        """The user's name, if there is one."""
        return self.parts.username

    @property
    def password(self) -> str | None:
        """The password, if there is one."""
        return self.parts.password

    @property
    def hostname(self) -> str | None:
        """The host, lower case and without brackets, or None."""
        return self.parts.hostname

    @property
    def port(self) -> int | None:
        """The port, if a valid one is written."""
        try:
            return self.parts.port
        except ValueError:
            return None

    @property
    def is_secure(self) -> bool:
        """Whether the scheme is one over TLS."""
        return self.scheme in ("https", "wss")

    @property
    def query_params(self) -> QueryParams:
        """The query, parsed."""
        return QueryParams(self.query)

    def replace(self, **parts: Any) -> URL:
        """Return a URL with some parts replaced.

        Args:
            parts: Of `scheme`, `netloc`, `path`, `query`, `fragment`, `username`, `password`, `hostname`, `port`.

        Raises:
            TypeError: There is no part of this name.
        """
        old = self.parts
        if parts.keys() & {"username", "password", "hostname", "port"}:
            username = parts.pop("username", old.username)
            password = parts.pop("password", old.password)
            port = parts.pop("port", self.port)
            # The host as it is written keeps its case and its brackets.
            host = old.netloc.rpartition("@")[2]
            if host.startswith("["):
                host = host.partition("]")[0] + "]"
            else:
                host = host.partition(":")[0]
            host = parts.pop("hostname", host)
            if ":" in host and not host.startswith("["):
                host = f"[{host}]"
            user = ""
            if username is not None:
                user = username if password is None else f"{username}:{password}"
                user += "@"
            parts["netloc"] = user + host + ("" if port is None else f":{port}")
        try:
            new = old._replace(**parts)
        except ValueError:
            unknown = ", ".join(sorted(parts.keys() - set(old._fields)))
            raise TypeError(f"a URL has no part {unknown}") from None
        return URL.from_parts(*new)

    def _with_query(self, pairs: Iterable[tuple[str, str]]) -> URL:
        return self.replace(query=urlencode(list(pairs)))

    def include_query_params(self, **params: Any) -> URL:
        """Return a URL whose query has these parameters, in the place of others of the same names.

        Args:
            params: Values, or lists of values.
        """
        kept = [(name, value) for name, value in self.query_params.multi_items() if name not in params]
        return self._with_query([*kept, *_spread(params)])

    def replace_query_params(self, **params: Any) -> URL:
        """Return a URL whose query has these parameters and no others.

        Args:
            params: Values, or lists of values.
        """
        return self._with_query(_spread(params))

    def remove_query_params(self, names: str | Iterable[str]) -> URL:
        """Return a URL whose query lacks these parameters.

        Args:
            names: One name or several.
        """
        dropped = {names} if isinstance(names, str) else set(names)
        return self._with_query(pair for pair in self.query_params.multi_items() if pair[0] not in dropped)

    def __str__(self) -> str:
        text = self._text
        if text is None:
            text = self._text = self.parts.geturl()
        return text

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, URL)):
            return str(self) == str(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __contains__(self, part: str) -> bool:
        return part in str(self)

    def __repr__(self) -> str:
        shown = self
        if self.password is not None:
            shown = self.replace(password="********")
        return f"URL({str(shown)!r})"
