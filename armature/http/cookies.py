"""Cookies: reading the `Cookie` field as browsers send it, and writing `Set-Cookie` (RFC 6265, RFC 6265bis)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from armature._spec.abnf import TOKEN
from armature._spec.dates import format_http_date
from armature.exceptions import HTTPException
from armature.http.url import PAIR_LIMIT

__all__ = ["SameSite", "format_set_cookie", "parse_cookies"]

SameSite: TypeAlias = Literal["lax", "strict", "none"]
Priority: TypeAlias = Literal["low", "medium", "high"]

_NOT_TOKEN = bytes(byte for byte in range(256) if not TOKEN[byte])
# cookie-octet (RFC 6265 section 4.1.1): visible ASCII without the double quote, comma, semicolon and backslash.
_OCTETS = frozenset(range(0x21, 0x7F)) - frozenset(b'",;\\')
_NOT_OCTETS = bytes(byte for byte in range(256) if byte not in _OCTETS)
# av-octet (RFC 6265 section 4.1.1): any CHAR but controls and the semicolon.
_NOT_ATTRIBUTE = bytes([*range(0x20), 0x3B, *range(0x7F, 0x100)])
_ESCAPED = re.compile(rb"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)
#: Browsers keep a cookie for at most 400 days (RFC 6265bis section 5.5); name and value have 4,096 octets together.
_SIZE_LIMIT = 4096


def _unescape(match: re.Match[bytes]) -> bytes:
    octal = match[1]
    return bytes((int(octal, 8),)) if octal is not None else match[2]


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def parse_cookies(values: Iterable[bytes], limit: int = PAIR_LIMIT) -> dict[str, str]:
    """Read the cookies of a request.

    Nothing is refused but their number: pairs are split at every semicolon, a pair without `=` has an empty name
    (RFC 6265bis section 5.6), of a repeated name the first one counts, which a browser sends for the longest path.
    A value in double quotes loses them, and the escapes within that `format_set_cookie` makes.

    Args:
        values: The values of the `Cookie` fields; HTTP/2 may split them (RFC 9113 section 8.2.3).
        limit: The largest number of pairs.

    Raises:
        HTTPException: There are more pairs than the limit; status 400.
    """
    cookies: dict[str, str] = {}
    pairs = 0
    for line in values:
        pairs += line.count(b";") + 1
        if pairs > limit:
            raise HTTPException(400, f"The request has more than {limit} cookies.")
        for pair in line.split(b";"):
            name, found, value = pair.partition(b"=")
            if not found:
                name, value = b"", name
            name, value = name.strip(b" \t"), value.strip(b" \t")
            if not name and not value:
                continue
            if len(value) >= 2 and value[0] == 0x22 and value[-1] == 0x22:
                value = value[1:-1]
                if b"\\" in value:
                    value = _ESCAPED.sub(_unescape, value)
            cookies.setdefault(_text(name), _text(value))
    return cookies


def _quote(name: str, value: str) -> str:
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"invalid value for cookie {name}: it holds a lone surrogate") from None
    if raw.translate(None, _NOT_OCTETS) == raw:
        return value
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        raise ValueError(f"invalid value for cookie {name}: it holds a control character such as CR, LF or NUL")
    # The escapes of http.cookies, which the frameworks of Python understand: quoted, octal for what may not stand raw.
    escaped = "".join(
        chr(byte) if byte in _OCTETS or byte == 0x20 else f"\\{chr(byte)}" if byte in b'"\\' else f"\\{byte:03o}"
        for byte in raw
    )
    return f'"{escaped}"'


def _attribute(name: str, attribute: str, value: str) -> str:
    raw = value.encode("utf-8", "replace")
    if not raw or raw.translate(None, _NOT_ATTRIBUTE) != raw:
        raise ValueError(
            f"invalid {attribute} for cookie {name}: {value!r} must be ASCII without control characters and semicolons"
        )
    return value


def _expires(name: str, expires: datetime | timedelta | float | str) -> str:
    if isinstance(expires, str):
        return _attribute(name, "expires", expires)
    if isinstance(expires, timedelta):
        expires = datetime.now(UTC) + expires
    if isinstance(expires, datetime):
        # A naive datetime is UTC here: the local time of a server means nothing to a browser.
        moment = expires.replace(tzinfo=UTC) if expires.tzinfo is None else expires
        return format_http_date(moment.timestamp())
    if isinstance(expires, (int, float)):
        return format_http_date(expires)
    kind = type(expires).__name__
    raise TypeError(f"expires of cookie {name} must be a datetime, a timedelta, a timestamp or a str, not {kind}")


def format_set_cookie(
    name: str,
    value: str = "",
    *,
    max_age: int | timedelta | None = None,
    expires: datetime | timedelta | float | str | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    httponly: bool = False,
    samesite: SameSite | None = "lax",
    partitioned: bool = False,
    priority: Priority | None = None,
) -> str:
    """Spell the value of a `Set-Cookie` field (RFC 6265bis section 4.1).

    Args:
        name: A token.
        value: Any text without control characters; what may not stand raw is quoted as `http.cookies` does.
        max_age: Seconds to live; 0 or less removes the cookie.
        expires: When it expires: a datetime (a naive one is UTC), a time from now, a Unix timestamp, or an HTTP date.
        path: The path it is sent for, and below; None leaves it to the browser.
        domain: The domain it is sent for, and below; None: this host only.
        secure: Sent over TLS only.
        httponly: Hidden from scripts.
        samesite: `"lax"`, `"strict"`, `"none"`, or None for the browser's default.
        partitioned: Kept apart for each top-level site (CHIPS).
        priority: `"low"`, `"medium"` or `"high"`, which Chromium knows.

    Raises:
        ValueError: The name or an attribute is malformed, the rules of `__Host-` or `__Secure-` are broken, or
            `SameSite=None` or `Partitioned` stands without `Secure`; the text names the attribute.
    """
    raw_name = name.encode("utf-8", "replace")
    if not raw_name or raw_name.translate(None, _NOT_TOKEN) != raw_name:
        raise ValueError(f"invalid cookie name {name!r}: a name is made of letters, digits and !#$%&'*+-.^_`|~")
    # Browsers compare the prefixes without case (RFC 6265bis section 5.7).
    lowered = name.lower()
    if lowered.startswith("__host-"):
        if not secure:
            raise ValueError(f"cookie {name}: the prefix __Host- needs secure=True")
        if path != "/":
            raise ValueError(f"cookie {name}: the prefix __Host- needs path='/', not {path!r}")
        if domain is not None:
            raise ValueError(f"cookie {name}: the prefix __Host- forbids domain, which is {domain!r}")
    elif lowered.startswith("__secure-") and not secure:
        raise ValueError(f"cookie {name}: the prefix __Secure- needs secure=True")
    parts = [f"{name}={_quote(name, value)}"]
    if len(parts[0]) - 1 > _SIZE_LIMIT:
        raise ValueError(f"cookie {name} is too large: browsers drop a name and value of more than {_SIZE_LIMIT} bytes")
    if expires is not None:
        parts.append(f"Expires={_expires(name, expires)}")
    if max_age is not None:
        seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
        parts.append(f"Max-Age={int(seconds)}")
    if domain is not None:
        parts.append(f"Domain={_attribute(name, 'domain', domain)}")
    if path is not None:
        if not path.startswith("/"):
            raise ValueError(f"invalid path for cookie {name}: {path!r} must begin with '/'")
        parts.append(f"Path={_attribute(name, 'path', path)}")
    if secure:
        parts.append("Secure")
    if httponly:
        parts.append("HttpOnly")
    if samesite is not None:
        policy = samesite.lower()
        if policy not in ("lax", "strict", "none"):
            raise ValueError(f"invalid samesite for cookie {name}: {samesite!r} must be lax, strict, none or None")
        if policy == "none" and not secure:
            raise ValueError(f"cookie {name}: samesite='none' needs secure=True; browsers drop it otherwise")
        parts.append(f"SameSite={policy.capitalize()}")
    if partitioned:
        if not secure:
            raise ValueError(f"cookie {name}: partitioned=True needs secure=True; browsers drop it otherwise")
        parts.append("Partitioned")
    if priority is not None:
        level = priority.lower()
        if level not in ("low", "medium", "high"):
            raise ValueError(f"invalid priority for cookie {name}: {priority!r} must be low, medium, high or None")
        parts.append(f"Priority={level.capitalize()}")
    return "; ".join(parts)
