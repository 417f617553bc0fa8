"""What is told about answers, as data: the fields of the access log, how their values are written, and the bounds."""

from __future__ import annotations

import time

from armature._spec.dates import format_http_date

__all__ = [
    "FIELDS",
    "FIELD_LIMIT",
    "FIELD_NUMBERS",
    "HEADER_OF",
    "HISTOGRAM_BOUNDS",
    "JSON_ESCAPES",
    "LINES_GATHER",
    "LINES_LIMIT",
    "TEXT_ESCAPES",
    "time_texts",
]

#: Every field, in the order of its number.
FIELDS: tuple[str, ...] = (
    "client",
    "method",
    "path",
    "query",
    "target",
    "user_agent",
    "referer",
    "request_id",
    "host",
    "route",
    "version",
    "status",
    "bytes",
    "duration_us",
    "time",
    "time_common",
)

#: Name -> number.
FIELD_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(FIELDS)}

#: Bytes of one value that are written, before escaping; what is longer is cut and ends in three dots.
FIELD_LIMIT = 2048

#: Bytes of lines that may wait to be written; further lines are dropped and counted.
LINES_LIMIT = 1024 * 1024

#: Bytes of lines that are worth a write of their own, before the time to write has come.
LINES_GATHER = 64 * 1024

#: Bounds of one histogram.
HISTOGRAM_BOUNDS = 63

#: Field -> the (lower-case) header whose value it is.
HEADER_OF: dict[str, bytes] = {
    "user_agent": b"user-agent",
    "referer": b"referer",
    "request_id": b"x-request-id",
    "host": b"host",
}


def _escapes(form: str) -> tuple[bytes, ...]:
    # Nothing that a client sends may end a line, a quoted value or a string, or reach a terminal as a control sequence.
    return tuple(
        bytes((byte,)) if 0x20 <= byte < 0x7F and byte not in b'"\\' else (form % byte).encode() for byte in range(256)
    )


#: How each byte of a value is written, in a line of text and in a JSON string.
TEXT_ESCAPES = _escapes("\\x%02x")
JSON_ESCAPES = _escapes("\\u%04x")


def time_texts(second: int) -> tuple[bytes, bytes]:
    """Spell a second of UTC for `time`, without its fraction and zone, and for `time_common`, complete.

    Args:
        second: Seconds since the epoch.
    """
    date = format_http_date(second)
    common = f"{date[5:7]}/{date[8:11]}/{date[12:16]}:{date[17:25]} +0000"
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode(), common.encode()
