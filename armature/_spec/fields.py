"""Field names known by heart (IANA registry), lower case: both twins hand out the same objects for them.

The position of a name in `FIELDS` is its number; the parser recognises the names while it scans, so that
framing needs no second look-up. `FRAMING` are the names the parser itself acts on.
"""

from __future__ import annotations

import sys

__all__ = ["FIELDS", "FIELD_IDS", "FRAMING", "UNKNOWN"]

#: Names that frame the message or decide the connection's fate (RFC 9112).
FRAMING: tuple[str, ...] = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "upgrade",
)

FIELDS: tuple[str, ...] = tuple(
    sys.intern(name)
    for name in (
        *FRAMING,
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "access-control-request-headers",
        "access-control-request-method",
        "age",
        "authorization",
        "cache-control",
        "cf-connecting-ip",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "dnt",
        "etag",
        "forwarded",
        "from",
        "http2-settings",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "last-event-id",
        "last-modified",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "priority",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "referer",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "x-requested-with",
    )
)

FIELD_IDS: dict[str, int] = {name: number for number, name in enumerate(FIELDS)}

#: The number of every name that is not in `FIELDS`.
UNKNOWN = 255
