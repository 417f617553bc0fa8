"""What proxies say of the client they speak for: `Forwarded` (RFC 7239) and `X-Forwarded-*`.

Anybody can write these fields, so they are worth what the peer that sent them is worth. Every proxy appends what it
has seen itself; therefore a list is walked from its end, and the walk ends at the first address that is not a
trusted proxy: that one is the client, and what stands before it was written by the client. Which of the fields a
proxy sets must be said as well: one that a proxy does not know passes through it just as the client wrote it.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import re
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from armature._spec.abnf import HOST
from armature.exceptions import ConfigurationError

__all__ = ["FIELDS", "Forwarded", "ForwardedReader", "LogThrottle", "TrustedProxies", "parse_node", "parse_root_path"]

logger = logging.getLogger("armature.proxy")

#: The fields that can be chosen.
FIELDS = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
)

#: Fields that practically every proxy can be told to set, and sets instead of passing on.
DEFAULT_FIELDS = ("x-forwarded-for", "x-forwarded-proto")

#: Proxies that one request may have come through; a longer list is malformed.
HOP_LIMIT = 32

#: Bytes of one element of `Forwarded`; a longer one is malformed. It also bounds the work on hostile quotes.
ELEMENT_LIMIT = 1024

#: Addresses whose trust is remembered.
CACHE_SIZE = 1024

#: Characters of an address that is remembered with its parts; the longest one has some fifty.
SHORT_NODE = 64

#: Peers that are named in the log when they send fields that are not believed.
NOTICE_LIMIT = 64

#: Seconds between two log lines about malformed fields.
NOTICE_SECONDS = 60.0

_USUAL_PORTS = {"http": 80, "https": 443}
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_not_host = bytes(byte for byte in range(256) if not HOST[byte])
_host_form = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?", re.ASCII).fullmatch
_node_form = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}|_[\w.-]+))?", re.ASCII).fullmatch
# RFC 7239 section 6.3
_obfuscated = re.compile(r"(_[\w.-]{1,255})(?::([0-9]{1,5}|_[\w.-]+))?", re.ASCII).fullmatch
_unknown = re.compile(r"unknown(?::([0-9]{1,5}|_[\w.-]+))?", re.ASCII | re.IGNORECASE).fullmatch
_prefix_form = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*", re.ASCII).fullmatch
# RFC 7239 section 4; the value of a pair is a token or a quoted string. Unlike the grammar there may be spaces.
_PAIR = r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[^\"\\]|\\.)*\")[ \t]*"
_element = re.compile(rf"{_PAIR}(?:;{_PAIR})*(?:;[ \t]*)?").fullmatch
_pairs = re.compile(_PAIR).findall


class LogThrottle:
    """Lets one line about what peers do wrong into the log, and counts the others until it lets the next one.

    Args:
        seconds: The time between two lines.
    """

    __slots__ = ("_next", "_seconds", "_withheld")

    def __init__(self, seconds: float = NOTICE_SECONDS) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._withheld = 0

    def passes(self) -> str | None:
        """Return what to put behind the line, or None if it must not be logged."""
        now = time.monotonic()
        if now < self._next:
            self._withheld += 1
            return None
        more = f" ({self._withheld} more since the last time)" if self._withheld else ""
        self._next, self._withheld = now + self._seconds, 0
        return more


class TrustedProxies:
    """The proxies that are believed.

    Args:
        entries: Addresses (`"10.0.0.7"`), networks (`"10.0.0.0/8"`), `"unix"` for peers on Unix sockets, and `"*"` for
            every peer that connects. A star stands for the peer alone: addresses in a list are believed to be proxies
            only if they are named. A `str` may hold several, separated by commas.

    Raises:
        ConfigurationError: An entry is none of these.
    """

    __slots__ = ("any_peer", "listed", "networks", "unix")

    def __init__(self, entries: Iterable[str] | str) -> None:
        if isinstance(entries, str):
            entries = [entry for entry in entries.split(",") if entry.strip()]
        self.any_peer = False
        self.unix = False
        self.networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            text = str(entry).strip()
            if text == "*":
                self.any_peer = True
            elif text == "unix":
                self.unix = True
            else:
                self.networks.append(_network(text))
        #: Whether an address is that of a proxy that is named.
        self.listed = functools.lru_cache(CACHE_SIZE)(self._listed)

    def __bool__(self) -> bool:
        return self.any_peer or self.unix or bool(self.networks)

    def _listed(self, address: str) -> bool:
        try:
            found = _unmapped(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return any(found in network for network in self.networks)

    def trusts(self, client: tuple[str, int] | None, local: bool, announced: bool = False) -> bool:
        """Whether a peer is believed.

        Args:
            client: Its address, None if it has none or it is not known.
            local: Whether it connected to a Unix socket.
            announced: Whether the address is what a proxy said of its own peer, so that `"*"` does not stand for it.
        """
        if local:
            return self.unix or self.any_peer
        if self.any_peer and not announced:
            return True
        return client is not None and self.listed(client[0])


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        try:
            mend = f"; did you mean {ipaddress.ip_network(text, strict=False)}?"
        except ValueError:
            mend = ""
        raise ConfigurationError(
            f"trusted_proxies holds {text!r}, which is no address, network such as 10.0.0.0/8, 'unix' or '*': "
            f"{error}{mend}"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))
    return network


def _unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Forwarded(NamedTuple):
    """What trusted proxies said of one request; None where they said nothing.

    Args:
        client: Address and port, port 0 if that is not known. Instead of an address there may be an identifier that
            begins with an underscore (RFC 7239 section 6.3).
        client_known: Whether `client` was said; an unknown client (RFC 7239 section 6.2) is None and known to be so.
        scheme: `"http"` or `"https"`.
        host: Host, and port if there is one.
        port: The port that the client connected to.
        prefix: The path that the proxy took off; as of `parse_root_path`.
    """

    client: tuple[str, int] | None = None
    client_known: bool = False
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    prefix: str | None = None

    def authority(self, host: str, scheme: str) -> str:
        """Return host and port of the URL that the client asked for.

        Args:
            host: What the request itself says.
            scheme: The scheme of the URL, whose usual port is left out.
        """
        host = self.host or host
        if self.port is None:
            return host
        form = _host_form(host)
        if form is None:
            return host
        return form[1] if self.port == _USUAL_PORTS[scheme] else f"{form[1]}:{self.port}"


_NOTHING = Forwarded()


class _Malformed(ValueError):
    """A field that is to be believed cannot be understood."""


class ForwardedReader:
    """Reads what trusted proxies say of the client.

    Args:
        trusted: The proxies that are believed.
        names: The fields that these proxies set: `forwarded`, or some of `x-forwarded-for`, `-proto`, `-host`, `-port`,
            `-prefix`.

    Raises:
        ConfigurationError: A field is unknown, or `forwarded` is named beside one of the others.
    """

    def __init__(self, trusted: TrustedProxies, names: Sequence[str] = DEFAULT_FIELDS) -> None:
        chosen = [str(name).strip().lower() for name in ([names] if isinstance(names, str) else names)]
        for name in chosen:
            if name not in FIELDS:
                raise ConfigurationError(f"forwarded_headers must be of {', '.join(FIELDS)}, not {name!r}")
        if "forwarded" in chosen and len(chosen) > 1:
            raise ConfigurationError(
                "forwarded_headers names 'forwarded' beside X-Forwarded fields, which could contradict each other; "
                "name those that the proxy sets, and let it remove the others"
            )
        self.trusted = trusted
        self.names = frozenset(name.encode() for name in chosen)
        self._noticed: set[str] = set()
        self._unread: set[bytes] = set()
        self._malformed = LogThrottle()

    def read(
        self,
        client: tuple[str, int] | None,
        local: bool,
        fields: Iterable[tuple[bytes, bytes]],
        announced: bool = False,
    ) -> Forwarded:
        """Return what is to be believed of one request.

        Args:
            client: The address of the peer.
            local: Whether the peer came over a Unix socket.
            fields: The field lines of the request, names in lower case.
            announced: See `TrustedProxies.trusts`.
        """
        found: dict[bytes, str] = {}
        for name, value in fields:
            if name in _KNOWN:
                text = value.decode("latin-1")
                # RFC 9110 section 5.3: several lines are one list.
                found[name] = f"{found[name]}, {text}" if name in found else text
        if not found:
            return _NOTHING
        peer = "on a Unix socket" if local else "at an unknown address" if client is None else client[0]
        if not self.trusted.trusts(client, local, announced):
            self._notice_untrusted(peer, found)
            return _NOTHING
        if not found.keys() <= self.names:
            self._notice_unread(peer, found)
            found = {name: found[name] for name in found.keys() & self.names}
        try:
            if b"forwarded" in self.names:
                return self._read_forwarded(found[b"forwarded"]) if found else _NOTHING
            return self._read_x_forwarded(found)
        except _Malformed as error:
            self._notice_malformed(peer, error)
            return _NOTHING

    def _read_forwarded(self, text: str) -> Forwarded:
        chosen: dict[str, str] = {}
        client: tuple[str, int] | None = None
        known = False
        for hop, chosen in enumerate(_elements(text)):
            if hop >= HOP_LIMIT:
                raise _Malformed(f"Forwarded has more than {HOP_LIMIT} elements")
            node = chosen.get("for")
            if node is None:
                # Nobody can tell who wrote what stands before it. A proxy behind the first hides its client thereby.
                client, known = None, hop > 0
                break
            client, known = self._node(node, "Forwarded has for="), True
            if client is None or not self.trusted.listed(client[0]):
                break
        scheme = _scheme(chosen.get("proto"), "Forwarded has proto=")
        host = chosen.get("host")
        if host is not None and not _is_host(host):
            raise _Malformed(f"Forwarded has host={_shown(host)}")
        return Forwarded(client, known, scheme, host)

    def _read_x_forwarded(self, found: dict[bytes, str]) -> Forwarded:
        client: tuple[str, int] | None = None
        known = False
        place, count = 1, 0
        addresses = found.get(b"x-forwarded-for")
        if addresses is not None:
            count = addresses.count(",") + 1
            hops = addresses.rsplit(",", HOP_LIMIT)
            for place, hop in enumerate(reversed(hops), 1):
                if place > HOP_LIMIT:
                    raise _Malformed(f"X-Forwarded-For has more than {HOP_LIMIT} addresses")
                client, known = self._node(hop.strip(" \t"), "X-Forwarded-For has "), True
                if client is None or not self.trusted.listed(client[0]):
                    break

        def value(name: bytes) -> str | None:
            """Return what was said by the proxy that also named the client."""
            text = found.get(name)
            if text is None or "," not in text:
                return text
            # A list as long as that of the addresses was made by the same proxies. Of any other nothing is certain
            # but its end, which the nearest proxy wrote.
            same = text.count(",") + 1 == count
            return text.rsplit(",", HOP_LIMIT + 1)[-place if same else -1].strip(" \t")

        scheme = _scheme(value(b"x-forwarded-proto"), "X-Forwarded-Proto has ")
        host = value(b"x-forwarded-host")
        if host is not None and not _is_host(host):
            raise _Malformed(f"X-Forwarded-Host has {_shown(host)}")
        port = value(b"x-forwarded-port")
        if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise _Malformed(f"X-Forwarded-Port has {_shown(port)}")
        prefix = value(b"x-forwarded-prefix")
        if prefix is not None:
            prefix = parse_root_path(prefix)
            if prefix is None:
                raise _Malformed(f"X-Forwarded-Prefix has {_shown(found[b'x-forwarded-prefix'])}")
        return Forwarded(client, known, scheme, host, None if port is None else int(port), prefix)

    @staticmethod
    def _node(text: str, what: str) -> tuple[str, int] | None:
        client = _parse_short(text) if len(text) <= SHORT_NODE else parse_node(text)
        if client is None and not _unknown(text):
            raise _Malformed(f"{what}{_shown(text)}")
        return client

    # The log: a client can send as much as it likes, so that every line is bounded in number and length.

    def _notice_untrusted(self, peer: str, found: dict[bytes, str]) -> None:
        if peer in self._noticed or len(self._noticed) >= NOTICE_LIMIT:
            return
        self._noticed.add(peer)
        last = "; further peers are not logged" if len(self._noticed) == NOTICE_LIMIT else ""
        logger.warning(
            "ignored %s from the peer %s, which is not in trusted_proxies%s", _listing(found.keys()), peer, last
        )

    def _notice_unread(self, peer: str, found: dict[bytes, str]) -> None:
        names = found.keys() - self.names - self._unread
        if names:
            self._unread |= names
            logger.warning(
                "ignored %s from the trusted proxy %s; name it in forwarded_headers, if the proxy sets it and does not "
                "pass on what the client sent",
                _listing(names),
                peer,
            )

    def _notice_malformed(self, peer: str, error: _Malformed) -> None:
        more = self._malformed.passes()
        if more is not None:
            logger.warning("ignored what the proxy %s says of its client, because %s%s", peer, error, more)


_KNOWN = frozenset(name.encode() for name in FIELDS)


def parse_node(text: str) -> tuple[str, int] | None:
    """Read one address of a list: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1` or `_hidden`.

    Args:
        text: The address, without quotes. An address without port has port 0.

    Returns:
        None if it is none of these, or `unknown`.
    """
    match = _node_form(text)
    if match is not None:
        address, port = match[1] or match[2], match[3]
    elif (hidden := _obfuscated(text)) is not None:
        return hidden[1], _port(hidden[2])
    else:
        # Against RFC 7239, but usual in X-Forwarded-For: IPv6 without brackets, which leaves no place for a port.
        address, port = text, None
    if "%" in address or (port is not None and port.isdigit() and int(port) > 65535):
        return None
    try:
        return str(_unmapped(ipaddress.ip_address(address))), _port(port)
    except ValueError:
        return None


_parse_short = functools.lru_cache(CACHE_SIZE)(parse_node)


def _port(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def parse_root_path(text: str) -> str | None:
    """Read a path prefix: `""`, or `/` and segments; return it without a slash at its end.

    Args:
        text: The prefix. It holds nothing that would have to be percent-encoded, so that both spellings are one.

    Returns:
        None if it is malformed.
    """
    path = text.rstrip("/") if text.startswith("/") else text
    # Neither an empty segment, which makes a host of what follows, nor one that climbs.
    if not _prefix_form(path) or {".", ".."} & set(path.split("/")):
        return None
    return path


def _scheme(text: str | None, what: str) -> str | None:
    if text is None:
        return None
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise _Malformed(f"{what}{_shown(text)}")
    return scheme


def _is_host(text: str) -> bool:
    raw = text.encode("latin-1", "replace")
    return raw.translate(None, _not_host) == raw and _host_form(text) is not None


def _elements(text: str) -> Iterable[dict[str, str]]:
    """Yield the elements of a `Forwarded` field from its end, each as a mapping of its pairs.

    A comma may stand inside a quoted string, and the client may have left a quote open to swallow what the proxy
    appends. So the shortest well-formed text at the end is taken: it cannot begin inside a string of a well-formed
    element, because it would then hold an odd number of quotes.
    """
    end = len(text)
    while end >= 0:
        start = end
        while True:
            start = text.rfind(",", max(end - ELEMENT_LIMIT, 0), start)
            piece = text[start + 1 : end]
            if end - start > ELEMENT_LIMIT:
                raise _Malformed(f"an element of Forwarded is longer than {ELEMENT_LIMIT} bytes")
            if _element(piece):
                break
            if start < 0:
                raise _Malformed(f"Forwarded has {_shown(piece)}")
        pairs = _pairs(piece)
        element = {name.lower(): _unquoted(value) for name, value in pairs}
        if len(element) < len(pairs):
            # RFC 7239 section 4
            raise _Malformed(f"an element of Forwarded has a parameter twice: {_shown(piece)}")
        yield element
        end = start


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def _listing(names: Iterable[bytes]) -> str:
    return ", ".join("-".join(map(str.capitalize, name.decode().split("-"))) for name in sorted(names))
