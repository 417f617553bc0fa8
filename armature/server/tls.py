"""TLS: which protocols and ciphers, which certificate for which name, and new certificates without a new start.

The context that the event loop is given decides everything but the certificate. That is chosen for each handshake by
the name that the client asks for (SNI, RFC 6066 section 3), among contexts that are replaced as a whole when their
files have changed. Connections that exist keep what they have; a certificate that cannot be loaded replaces nothing.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from armature.exceptions import ConfigurationError

if TYPE_CHECKING:
    from armature.server.config import ServerConfig

__all__ = ["ALPN_PROTOCOLS", "CIPHERS", "Certificates", "check_sni"]

logger = logging.getLogger("armature.tls")

#: What is offered by ALPN (RFC 7301), the preferred one first.
ALPN_PROTOCOLS: Sequence[str] = ("http/1.1",)

#: For TLS 1.2, whose weaker ciphers are left out: forward secrecy and authenticated encryption only, as in Mozilla's
#: intermediate profile. TLS 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

#: Seconds between two looks at the files, made when a client connects.
CHECK_SECONDS = 5.0

#: Seconds that a file must have been left alone: whoever renews certificates writes several files, one after the other.
SETTLE_SECONDS = 1.0

_CLIENT_AUTH = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

#: Certificate and key, or a file that holds both.
_Pair = tuple[str, str | None]
_Signature = tuple[tuple[str, int, int, int], ...]


class Certificates:
    """The certificates of a server.

    Args:
        config: The server's options; some of `ssl_certfile` and `ssl_sni` must be set.
        alpn: The protocols to offer.

    Raises:
        ConfigurationError: A file cannot be loaded, or the ciphers are none.
    """

    def __init__(self, config: ServerConfig, alpn: Sequence[str] = ALPN_PROTOCOLS) -> None:
        self._config = config
        self._alpn = list(alpn)
        self.check_seconds = CHECK_SECONDS
        self._signature = self._look()
        self._checked = time.monotonic()
        self._default, self._named = self._load()
        #: For the event loop. It stays, whatever is loaded later.
        self.context = self._default if self._default is not None else self._base()
        self.context.sni_callback = self._choose

    def reload(self) -> bool:
        """Load the files again; if one cannot be loaded, everything stays as it is and the log says why.

        Returns:
            Whether new handshakes use what was loaded.
        """
        self._signature = self._look()
        try:
            self._default, self._named = self._load()
        except ConfigurationError as error:
            logger.error("the certificates are not replaced: %s", error)
            return False
        logger.info("loaded the certificates again")
        return True

    def check(self) -> None:
        """Load the files again if they have changed since they were loaded."""
        found = self._look()
        if found == self._signature:
            return
        age = time.time() - max((modified / 1e9 for _, modified, _, _ in found), default=0.0)
        if 0 <= age < SETTLE_SECONDS:
            return
        self.reload()

    def _choose(self, connection: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        """Choose the certificate of one handshake; called by OpenSSL."""
        now = time.monotonic()
        if now - self._checked >= self.check_seconds:
            self._checked = now
            self.check()
        chosen = self._default
        if name is not None and self._named:
            name = name.lower().rstrip(".")
            chosen = self._named.get(name) or self._named.get("*." + name.partition(".")[2]) or chosen
        if chosen is None:
            # RFC 6066 section 3
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if chosen is not context:
            connection.context = chosen
        return None

    # Loading.

    def _pairs(self) -> dict[str | None, _Pair]:
        config = self._config
        pairs: dict[str | None, _Pair] = {}
        if config.ssl_certfile is not None:
            pairs[None] = config.ssl_certfile, config.ssl_keyfile
        pairs.update(config.ssl_sni)
        return pairs

    def _look(self) -> _Signature:
        names = {path for pair in self._pairs().values() for path in pair if path is not None}
        if self._config.ssl_ca_certs is not None:
            names.add(self._config.ssl_ca_certs)
        found = []
        for name in sorted(names):
            try:
                status = os.stat(name)
            except OSError:
                continue
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _load(self) -> tuple[ssl.SSLContext | None, dict[str, ssl.SSLContext]]:
        made: dict[_Pair, ssl.SSLContext] = {}
        named: dict[str | None, ssl.SSLContext] = {}
        for name, pair in self._pairs().items():
            if pair not in made:
                made[pair] = self._base()
                self._load_pair(made[pair], *pair)
            named[name] = made[pair]
        default = named.pop(None, None)
        return default, {name: context for name, context in named.items() if name is not None}

    def _load_pair(self, context: ssl.SSLContext, certificate: str, key: str | None) -> None:
        password = self._config.ssl_keyfile_password

        def ask() -> str:
            # Without this OpenSSL would ask on the terminal, also in the middle of a reload.
            if password is None:
                raise ValueError("the key is encrypted; give ssl_keyfile_password")
            return password

        try:
            context.load_cert_chain(certificate, key, ask)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the certificate {certificate} or its key cannot be loaded: {error}") from error

    def _base(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Renegotiation costs the server much and the client little; compression tells secrets by their length (CRIME).
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if config.ssl_ciphers is None:
            # All are good, so that the client chooses what its hardware is good at.
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            context.set_ciphers(CIPHERS if config.ssl_ciphers is None else config.ssl_ciphers)
        except ssl.SSLError as error:
            raise ConfigurationError(f"ssl_ciphers {config.ssl_ciphers!r} names no cipher: {error}") from None
        if config.ssl_groups is not None:
            _set_groups(context, config.ssl_groups)
        context.set_alpn_protocols(self._alpn)
        if config.ssl_client_auth != "none":
            context.verify_mode = _CLIENT_AUTH[config.ssl_client_auth]
            # A resumed session is not verified again, not even after the authorities have changed. What remains are the
            # sessions of TLS 1.2, which OpenSSL itself remembers for two hours at most.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            try:
                context.load_verify_locations(config.ssl_ca_certs)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"ssl_ca_certs {config.ssl_ca_certs} cannot be loaded: {error}") from error
        return context


def _set_groups(context: ssl.SSLContext, groups: str) -> None:
    # From Python 3.15 on there may be several.
    set_groups = getattr(context, "set_groups", None)
    if set_groups is None and ":" in groups:
        raise ConfigurationError(
            f"ssl_groups {groups!r} names several groups; before Python 3.15 only one can be chosen"
        )
    try:
        (context.set_ecdh_curve if set_groups is None else set_groups)(groups)
    except (ValueError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"ssl_groups {groups!r} names no group, such as prime256v1 or X25519: {error}"
        ) from None


def check_sni(names: Mapping[str, Any]) -> dict[str, _Pair]:
    """Check the option `ssl_sni`: certificates by the name that clients ask for.

    Args:
        names: Names such as `a.example` or `*.example`, each with a certificate's file, or with a pair of the
            certificate's and the key's.

    Raises:
        ConfigurationError: A name or what stands beside it is malformed.
    """
    if not isinstance(names, Mapping):
        raise ConfigurationError(f"ssl_sni must be a mapping of names to certificates, not {names!r}")
    checked: dict[str, _Pair] = {}
    for name, files in names.items():
        bare = str(name).removeprefix("*.")
        try:
            ascii_name = bare.encode("idna").decode("ascii").lower().rstrip(".")
        except UnicodeError:
            ascii_name = ""
        if not ascii_name or not ascii_name.replace("-", "").replace(".", "").replace("_", "").isalnum():
            raise ConfigurationError(f"ssl_sni holds {name!r}, which is no name such as a.example or *.example")
        pair: Sequence[Any] = (files, None) if isinstance(files, (str, os.PathLike)) else tuple(files)
        if len(pair) != 2:
            raise ConfigurationError(
                f"ssl_sni needs for {name!r} a certificate's file, or a pair of the certificate's and the key's, "
                f"not {files!r}"
            )
        prefix = "*." if bare != str(name) else ""
        checked[prefix + ascii_name] = os.fspath(pair[0]), None if pair[1] is None else os.fspath(pair[1])
    return checked
