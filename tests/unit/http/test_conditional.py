"""Preconditions: the order of RFC 9110 section 13.2.2 as a table, tags, dates."""

from __future__ import annotations

import time
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature._spec.dates import format_http_date, parse_http_date
from armature.exceptions import HTTPException
from armature.http import Headers, check_preconditions
from armature.http.conditional import evaluate, format_etag, matches_if_range

NOW = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
OLDER = "Sun, 06 Nov 1994 08:49:36 GMT"
NEWER = "Sun, 06 Nov 1994 08:49:38 GMT"

HIT, MISS = '"v1"', '"v2"'

#: Fields, verdict for GET, verdict for PUT; the representation has ETag "v1" and Last-Modified NOW.
ORDER: list[tuple[dict[str, str], int | None, int | None]] = [
    ({}, None, None),
    # step 1: If-Match
    ({"if-match": HIT}, None, None),
    ({"if-match": MISS}, 412, 412),
    ({"if-match": "*"}, None, None),
    ({"if-match": f"{MISS}, {HIT}"}, None, None),
    ({"if-match": 'W/"v1"'}, 412, 412),  # strong comparison
    ({"if-match": "v1"}, 412, 412),  # malformed: nothing matches
    ({"if-match": ""}, 412, 412),
    # step 2: If-Unmodified-Since, only without If-Match
    ({"if-unmodified-since": SAME}, None, None),
    ({"if-unmodified-since": NEWER}, None, None),
    ({"if-unmodified-since": OLDER}, 412, 412),
    ({"if-unmodified-since": "yesterday"}, None, None),
    ({"if-match": HIT, "if-unmodified-since": OLDER}, None, None),
    ({"if-match": MISS, "if-unmodified-since": NEWER}, 412, 412),
    # step 3: If-None-Match
    ({"if-none-match": HIT}, 304, 412),
    ({"if-none-match": 'W/"v1"'}, 304, 412),  # weak comparison
    ({"if-none-match": MISS}, None, None),
    ({"if-none-match": "*"}, 304, 412),
    ({"if-none-match": f"{MISS} ,{HIT}"}, 304, 412),
    ({"if-none-match": f",, {MISS},, {HIT}"}, 304, 412),
    ({"if-none-match": "v1"}, None, None),
    # step 4: If-Modified-Since, only for GET and HEAD and without If-None-Match
    ({"if-modified-since": SAME}, 304, None),
    ({"if-modified-since": NEWER}, 304, None),
    ({"if-modified-since": OLDER}, None, None),
    ({"if-modified-since": "0"}, None, None),
    ({"if-none-match": MISS, "if-modified-since": SAME}, None, None),
    ({"if-none-match": HIT, "if-modified-since": OLDER}, 304, 412),
    # earlier steps win
    ({"if-match": MISS, "if-none-match": HIT}, 412, 412),
    ({"if-match": HIT, "if-none-match": HIT}, 304, 412),
    ({"if-unmodified-since": OLDER, "if-none-match": HIT}, 412, 412),
    ({"if-unmodified-since": OLDER, "if-modified-since": NEWER}, 412, 412),
    ({"if-unmodified-since": SAME, "if-modified-since": SAME}, 304, None),
]


@pytest.mark.parametrize(("fields", "read", "write"), ORDER)
def test_order(fields: dict[str, str], read: int | None, write: int | None) -> None:
    headers = Headers(fields)
    assert evaluate("GET", headers, HIT, NOW) == read
    assert evaluate("HEAD", headers, HIT, NOW) == read
    assert evaluate("PUT", headers, HIT, NOW) == write
    assert evaluate("DELETE", headers, HIT, NOW) == write


@pytest.mark.parametrize(
    ("fields", "exists", "verdict"),
    [
        ({"if-match": "*"}, False, 412),
        ({"if-match": HIT}, False, 412),
        ({"if-none-match": "*"}, False, None),
        ({"if-none-match": "*"}, True, 412),
        ({"if-match": "*"}, True, None),
        ({"if-match": HIT}, True, 412),
        ({"if-modified-since": SAME}, True, None),
        ({"if-unmodified-since": OLDER}, True, None),
    ],
)
def test_without_validators(fields: dict[str, str], exists: bool, verdict: int | None) -> None:
    assert evaluate("PUT", Headers(fields), None, None, exists) == verdict


def test_a_weak_tag_never_matches_strongly() -> None:
    headers = Headers({"if-match": 'W/"v1", "v1"'})
    assert evaluate("GET", headers, 'W/"v1"', None) == 412
    assert evaluate("GET", Headers({"if-none-match": '"v1"'}), 'W/"v1"', None) == 304


def test_several_lines_are_one_list() -> None:
    headers = Headers([("if-none-match", MISS), ("if-none-match", HIT)])
    assert evaluate("GET", headers, HIT, None) == 304
    twice = Headers([("if-modified-since", SAME), ("if-modified-since", SAME)])
    assert evaluate("GET", twice, None, NOW) is None


@pytest.mark.parametrize("tag", ['"a,b"', '"W/"', '""', '"é"', '"*"'])
def test_tags_with_odd_octets(tag: str) -> None:
    headers = Headers.from_raw([(b"if-none-match", f'"x", {tag}'.encode("latin-1"))])
    assert evaluate("GET", headers, tag, None) == 304


def test_a_list_of_tags_is_read_in_linear_time() -> None:
    start = time.perf_counter()
    for junk in ("," * 60_000, '"a"' * 20_000, '"' * 60_000, '"a", ' * 12_000, " " * 60_000, 'W/"' * 20_000):
        evaluate("GET", Headers({"if-none-match": junk + "x"}), HIT, None)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("bad", ['a"b', "a b", "a\n", "a\x7f", "\u0100"])
def test_format_etag_refuses(bad: str) -> None:
    with pytest.raises(ValueError, match="invalid entity tag"):
        format_etag(bad)


@pytest.mark.parametrize(
    ("value", "etag", "modified", "counts"),
    [
        (None, HIT, NOW, True),
        (HIT, HIT, NOW, True),
        (MISS, HIT, NOW, False),
        ('W/"v1"', 'W/"v1"', NOW, False),
        ('"v1"', 'W/"v1"', NOW, False),
        (SAME, HIT, NOW, True),
        (OLDER, HIT, NOW, False),
        (NEWER, HIT, NOW, False),  # an exact match, no comparison
        ("nonsense", HIT, NOW, False),
        ("*", HIT, NOW, False),
        (HIT, None, NOW, False),
        (SAME, HIT, None, False),
    ],
)
def test_if_range(value: str | None, etag: str | None, modified: int | None, counts: bool) -> None:
    headers = Headers({} if value is None else {"if-range": value})
    assert matches_if_range(headers, etag, modified) is counts


def test_a_date_of_this_second_is_weak() -> None:
    now = int(time.time()) + 5
    assert not matches_if_range(Headers({"if-range": format_http_date(now)}), None, now)


def test_check_preconditions(make_request: Any) -> None:
    request = make_request("PUT", headers={"if-match": '"v1"'})
    check_preconditions(request, "v1")
    with pytest.raises(HTTPException) as caught:
        check_preconditions(request, "v2")
    assert caught.value.status_code == 412
    assert caught.value.headers == {"etag": '"v2"'}
    with pytest.raises(HTTPException):
        check_preconditions(make_request("PUT", headers={"if-none-match": "*"}), "v1")
    check_preconditions(make_request("PUT", headers={"if-none-match": "*"}), exists=False)


# ---- dates


@pytest.mark.parametrize(
    "text", [SAME, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun Nov 06 08:49:37 1994"]
)
def test_the_three_formats(text: str) -> None:
    assert parse_http_date(text) == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov ١٩٩٤ 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_no_dates(text: str) -> None:
    assert parse_http_date(text) is None


def test_a_leap_second_is_a_date() -> None:
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == 1483228800


def test_a_two_digit_year_is_within_fifty_years() -> None:
    this_year = time.gmtime().tm_year
    for year in (this_year, this_year + 49, this_year - 49):
        stamp = parse_http_date(f"Sunday, 06-Nov-{year % 100:02d} 08:49:37 GMT")
        assert stamp is not None
        assert time.gmtime(stamp).tm_year == year


@given(st.integers(0, 253402300799))
def test_dates_agree_with_the_standard_library(stamp: int) -> None:
    text = format_http_date(stamp)
    assert parse_http_date(text) == stamp
    assert parsedate_to_datetime(text).timestamp() == stamp
    assert format_datetime(parsedate_to_datetime(text), usegmt=True) == text
