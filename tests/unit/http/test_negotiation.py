"""Accept and Accept-Encoding by RFC 9110 section 12.5."""

from __future__ import annotations

import time

import pytest

from armature.http import accepts, accepts_encoding
from armature.http.media import parse_media_type, split_quoted

JSON, HTML, XML, TEXT = "application/json", "text/html", "application/xml", "text/plain"


@pytest.mark.parametrize(
    ("header", "offers", "chosen"),
    [
        (None, [JSON, HTML], JSON),
        ("", [JSON, HTML], JSON),
        ("*/*", [HTML, JSON], HTML),
        ("text/html", [JSON, HTML], HTML),
        ("text/*", [JSON, HTML], HTML),
        ("image/png", [JSON, HTML], None),
        ("text/html;q=0.5, application/json", [HTML, JSON], JSON),
        ("text/html;q=0.5, application/json;q=0.5", [HTML, JSON], HTML),
        ("text/html;q=0, */*", [HTML, JSON], JSON),
        ("text/html;q=0", [HTML], None),
        ("*/*;q=0", [HTML], None),
        ("application/*;q=0.8, application/json;q=0.1, text/html;q=0.5", [JSON, HTML, XML], XML),
        ("TEXT/HTML", [HTML], HTML),
        ("text/html;level=1", [HTML, "text/html;level=1"], "text/html;level=1"),
        ("text/html;level=1;q=0.3, text/html;q=0.7", ["text/html;level=1", HTML], HTML),
        ('text/plain;format="flowed"', ["text/plain;format=flowed"], "text/plain;format=flowed"),
        ("text/html; q=bad, application/json;q=0.1", [HTML, JSON], JSON),
        ("text/html;q=1.5, application/json;q=0.1", [HTML, JSON], JSON),
        ("text/html;q=-1, application/json;q=0.1", [HTML, JSON], JSON),
        ("text/html;q=0.001", [HTML], HTML),
        ("text/html;q=0.000", [HTML], None),
        (",,text/html,", [HTML], HTML),
        ("*", [HTML], HTML),
        ("text/html", [], None),
        # Chrome's
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            [JSON, XML],
            XML,
        ),
    ],
)
def test_media_types(header: str | None, offers: list[str], chosen: str | None) -> None:
    assert accepts(header, offers) == chosen


def test_the_example_of_the_rfc() -> None:
    header = "text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, */*;q=0.5"
    order = ["text/plain;format=flowed", "text/plain", "image/jpeg", "text/plain;format=fixed", "text/html"]
    for index in range(len(order)):
        assert accepts(header, order[:index:-1] + [order[index]]) == order[index]


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("gzip, br", "br"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("*", "br"),
        ("br;q=0, *", "gzip"),
        ("identity", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.5, identity;q=0.8", "identity"),
        ("gzip;q=0.8, identity;q=0.5", "gzip"),
        ("gzip, identity;q=0", "gzip"),
        ("deflate, identity;q=0", None),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("*;q=0, identity", "identity"),
        ("X-GZIP", "gzip"),
        ("GZip", "gzip"),
        ("deflate", "identity"),
        ("gzip;q=x", "identity"),
    ],
)
def test_encodings(header: str | None, chosen: str | None) -> None:
    assert accepts_encoding(header, ["br", "gzip"]) == chosen


def test_quoted_strings_are_not_split() -> None:
    assert split_quoted('a;b="c;d";e="f\\";g"', ";") == ["a", 'b="c;d"', 'e="f\\";g"']
    assert split_quoted('a="unclosed;b', ";") == ['a="unclosed;b']
    assert split_quoted('"a\\', ",") == ['"a\\']
    assert parse_media_type('text/plain; a="\\"\\\\x"; b') == ("text/plain", {"a": '"\\x'})


def test_linear_time() -> None:
    start = time.perf_counter()
    for junk in (
        '"' * 60_000,
        '"\\' * 30_000,
        ";" * 60_000,
        "," * 60_000,
        "a/b;" * 15_000,
        "a/b," * 15_000,
        '";' * 30_000,
    ):
        accepts(junk, [JSON])
        accepts_encoding(junk, ["gzip"])
        parse_media_type(junk)
    assert time.perf_counter() - start < 5
