"""A test client's cookies: what `Set-Cookie` says is kept, and sent where it belongs (RFC 6265 section 5)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from email.utils import parsedate_to_datetime

__all__ = ["Cookie", "CookieJar"]


class Cookie:
    """One cookie of a jar.

    Args:
        name: The name.
        value: The value, as the server wrote it.
        domain: The host it belongs to; empty for every host.
        path: The path it belongs to.
        host_only: Whether subdomains of `domain` do not get it.
        secure: Whether it goes to https only.
        http_only: Whether scripts do not see it.
        same_site: `lax`, `strict`, `none` or None.
        expires: When it ends, in seconds since the epoch; None for the end of the session.
    """

    __slots__ = ("domain", "expires", "host_only", "http_only", "name", "path", "same_site", "secure", "value")

    def __init__(
        self,
        name: str,
        value: str,
        domain: str = "",
        path: str = "/",
        *,
        host_only: bool = True,
        secure: bool = False,
        http_only: bool = False,
        same_site: str | None = None,
        expires: float | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.domain = domain
        self.path = path
        self.host_only = host_only
        self.secure = secure
        self.http_only = http_only
        self.same_site = same_site
        self.expires = expires

    def matches(self, host: str, path: str, secure: bool) -> bool:
        """Whether the cookie goes with a request for `path` of `host` (RFC 6265 section 5.4)."""
        if self.secure and not secure:
            return False
        if self.domain and host != self.domain and (self.host_only or not _domain_matches(host, self.domain)):
            return False
        return _path_matches(path, self.path)

    def __repr__(self) -> str:
        return f"Cookie({self.name!r}, {self.value!r}, domain={self.domain!r}, path={self.path!r})"


class CookieJar(MutableMapping[str, str]):
    """The cookies of a client, by name; as a mapping it shows and sets values, `jar` iterates the cookies.

    Args:
        cookies: Cookies that go to every host.
    """

    __slots__ = ("_cookies",)

    def __init__(self, cookies: Mapping[str, str] | Iterable[tuple[str, str]] | None = None) -> None:
        self._cookies: dict[tuple[str, str, str], Cookie] = {}
        for name, value in cookies.items() if isinstance(cookies, Mapping) else cookies or ():
            self.set(name, value)

    @property
    def jar(self) -> list[Cookie]:
        """Every cookie that has not expired."""
        now = time.time()
        self._cookies = {
            key: cookie for key, cookie in self._cookies.items() if cookie.expires is None or cookie.expires > now
        }
        return list(self._cookies.values())

    def set(self, name: str, value: str, domain: str = "", path: str = "/") -> None:
        """Set a cookie.

        Args:
            name: The name; a token.
            value: The value; sent as it is.
            domain: The host that gets it, with its subdomains; empty for every host.
            path: The path that gets it, with what is below.

        Raises:
            ValueError: The name or the value cannot stand in a Cookie field.
        """
        if not name or any(char in "=;, \t\r\n" for char in name):
            raise ValueError(f"invalid cookie name {name!r}")
        if any(char in ";\r\n\0" for char in value):
            raise ValueError(f"invalid value for cookie {name}: it holds a semicolon or a control character")
        self._cookies[domain.lower(), path, name] = Cookie(name, value, domain.lower(), path, host_only=False)

    def delete(self, name: str, domain: str | None = None, path: str | None = None) -> None:
        """Forget the cookies of a name, of all domains and paths or of one.

        Args:
            name: The name.
            domain: Only of this domain.
            path: Only of this path.
        """
        for key in list(self._cookies):
            if key[2] == name and domain in (None, key[0]) and path in (None, key[1]):
                del self._cookies[key]

    def extract(self, set_cookie: str, host: str, path: str) -> Cookie | None:
        """Take what one `Set-Cookie` field says; return the cookie, or None if it is to be ignored.

        Args:
            set_cookie: The field's value.
            host: The host that answered.
            path: The path of the request.
        """
        cookie = parse_set_cookie(set_cookie, host, path)
        if cookie is None:
            return None
        key = (cookie.domain, cookie.path, cookie.name)
        if cookie.expires is not None and cookie.expires <= time.time():
            self._cookies.pop(key, None)
        else:
            self._cookies[key] = cookie
        return cookie

    def header(self, host: str, path: str, secure: bool) -> str | None:
        """Return the Cookie field for a request, or None if no cookie goes with it.

        Args:
            host: The host that is asked.
            path: The path that is asked for.
            secure: Whether the request goes over TLS.
        """
        found = [cookie for cookie in self.jar if cookie.matches(host, path, secure)]
        # RFC 6265 section 5.4: cookies with longer paths come first.
        found.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in found) or None

    def __getitem__(self, name: str) -> str:
        for cookie in reversed(self.jar):
            if cookie.name == name:
                return cookie.value
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        self.delete(name)
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.delete(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(cookie.name for cookie in self.jar))

    def __len__(self) -> int:
        return len({cookie.name for cookie in self.jar})

    def clear(self) -> None:
        """Forget every cookie."""
        self._cookies.clear()

    def __repr__(self) -> str:
        return f"CookieJar({self.jar!r})"


def parse_set_cookie(text: str, host: str, request_path: str) -> Cookie | None:
    """Parse a `Set-Cookie` field as RFC 6265 section 5.2 and 5.3 say; None if the cookie is to be ignored."""
    pair, *attributes = text.split(";")
    name, equals, value = pair.partition("=")
    name = name.strip()
    if not equals or not name:
        return None
    cookie = Cookie(name, value.strip(), host, _default_path(request_path))
    max_age: float | None = None
    for attribute in attributes:
        key, _, argument = attribute.partition("=")
        key, argument = key.strip().lower(), argument.strip()
        if key == "domain" and argument:
            domain = argument.removeprefix(".").lower()
            if domain != host and not _domain_matches(host, domain):
                return None
            cookie.domain, cookie.host_only = domain, False
        elif key == "path" and argument.startswith("/"):
            cookie.path = argument
        elif key == "secure":
            cookie.secure = True
        elif key == "httponly":
            cookie.http_only = True
        elif key == "samesite":
            cookie.same_site = argument.lower() or None
        elif key == "max-age" and argument.removeprefix("-").isdecimal():
            max_age = float(argument)
        elif key == "expires":
            cookie.expires = _date(argument)
    if max_age is not None:
        # RFC 6265 section 5.3: Max-Age has precedence over Expires.
        cookie.expires = time.time() + max_age if max_age > 0 else 0.0
    return cookie


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _default_path(path: str) -> str:
    # RFC 6265 section 5.1.4
    return path[: path.rfind("/")] or "/" if path.startswith("/") else "/"


def _path_matches(path: str, cookie_path: str) -> bool:
    return path == cookie_path or (
        path.startswith(cookie_path) and (cookie_path.endswith("/") or path[len(cookie_path)] == "/")
    )


def _domain_matches(host: str, domain: str) -> bool:
    # RFC 6265 section 5.1.3: an address matches only itself.
    return host.endswith("." + domain) and not host.replace(".", "").isdecimal() and ":" not in host
