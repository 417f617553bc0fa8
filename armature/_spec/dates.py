"""Dates of HTTP (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import re
import time
from calendar import timegm

__all__ = ["format_http_date", "parse_http_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_MONTH = f"({'|'.join(_MONTHS)})"
_TIME = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF_FIXDATE = re.compile(f"(?:{'|'.join(_DAYS)}), ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} GMT")
_RFC_850 = re.compile(f"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} GMT")
_ASCTIME = re.compile(f"(?:{'|'.join(_DAYS)}) {_MONTH} ([0-9]{{2}}| [0-9]) {_TIME} ([0-9]{{4}})")


def format_http_date(timestamp: float) -> str:
    """Spell a Unix timestamp as an IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT`.

    Args:
        timestamp: Seconds since the epoch, UTC; a fraction is cut off.
    """
    moment = time.gmtime(timestamp)
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday:02d} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year:04d} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} GMT"
    )


def parse_http_date(text: str) -> int | None:
    """Read a date in any of the three formats that a recipient must accept.

    Args:
        text: The field's value.

    Returns:
        Seconds since the epoch, or None if it is no date.
    """
    if match := _IMF_FIXDATE.fullmatch(text):
        day, month, year, hour, minute, second = match.groups()
        full_year = int(year)
    elif match := _RFC_850.fullmatch(text):
        day, month, year, hour, minute, second = match.groups()
        # A year that appears to be more than 50 years ahead is the most recent one with these digits.
        this_year = time.gmtime().tm_year
        full_year = this_year - this_year % 100 + int(year)
        if full_year > this_year + 50:
            full_year -= 100
    elif match := _ASCTIME.fullmatch(text):
        month, day, hour, minute, second, year = match.groups()
        full_year = int(year)
    else:
        return None
    numbers = (full_year, _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
    # timegm takes any numbers; only a date that reads back as itself exists. A leap second counts as the next second.
    timestamp = timegm((*numbers, 0, 0, 0))
    if numbers[5] <= 60 and time.gmtime(timestamp - (numbers[5] == 60))[:5] == numbers[:5]:
        return timestamp
    return None
