"""Cookies: what browsers send, what they accept, and agreement with http.cookies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.exceptions import HTTPException
from armature.http import HttpResponse
from armature.http.cookies import format_set_cookie, parse_cookies


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        (["a=1"], {"a": "1"}),
        (["a=1; b=2;c=3 ;  d = 4 "], {"a": "1", "b": "2", "c": "3", "d": "4"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=1; a=2"], {"a": "1"}),
        (["A=1; a=2"], {"A": "1", "a": "2"}),
        (["a=b=c=="], {"a": "b=c=="}),
        (["a="], {"a": ""}),
        (["=v"], {"": "v"}),
        (["v"], {"": "v"}),
        ([""], {}),
        ([" ; ;; "], {}),
        (["a=1;"], {"a": "1"}),
        (['a="b c"'], {"a": "b c"}),
        (['a="b\\"c\\\\d"'], {"a": 'b"c\\d'}),
        (['a="\\054\\073"'], {"a": ",;"}),
        (['a="x;y"'], {"a": '"x', "": 'y"'}),
        (['a="'], {"a": '"'}),
        (['a=""'], {"a": ""}),
        (['a="b\\"'], {"a": "b\\"}),
        (["a={%22k%22:1}"], {"a": "{%22k%22:1}"}),
        (["a=b, c=d"], {"a": "b, c=d"}),
        (["a[0]=1"], {"a[0]": "1"}),
        (["$Version=1; a=b; $Path=/"], {"$Version": "1", "a": "b", "$Path": "/"}),
        (["a=caf\u00c3\u00a9"], {"a": "café"}),
        (["a=caf\u00e9"], {"a": "café"}),
    ],
)
def test_reads_what_browsers_send(lines: list[str], cookies: dict[str, str]) -> None:
    assert parse_cookies([line.encode("latin-1") for line in lines]) == cookies


def test_the_number_of_pairs_is_bounded() -> None:
    assert len(parse_cookies([b"; ".join(b"c%d=1" % n for n in range(1000))])) == 1000
    for lines in ([b"a=1;" * 1000], [b"a=1"] * 1001, [b";" * 1000]):
        with pytest.raises(HTTPException) as caught:
            parse_cookies(lines)
        assert caught.value.status_code == 400


def test_request_cookies(make_request: Any) -> None:
    request = make_request(headers=[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")])
    assert request.cookies == {"a": "1", "b": "2"}
    assert request.cookies is request.cookies


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)


@given(TEXT)
def test_a_value_reads_back(value: str) -> None:
    line = format_set_cookie("n", value)
    pair = line.partition("; ")[0]
    assert pair.isascii()
    assert parse_cookies([pair.encode()]) == {"n": value}


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60))
def test_http_cookies_reads_what_we_write(value: str) -> None:
    jar = SimpleCookie(format_set_cookie("n", value, httponly=True))
    assert jar["n"].value == value
    assert jar["n"]["httponly"] is True
    assert jar["n"]["path"] == "/"


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60))
def test_we_read_what_http_cookies_writes(value: str) -> None:
    jar = SimpleCookie()
    jar["n"] = value
    assert parse_cookies([jar["n"].OutputString().encode()]) == {"n": value}


@given(st.binary(max_size=200))
def test_nothing_but_the_number_is_refused(line: bytes) -> None:
    for name, value in parse_cookies([line]).items():
        assert ";" not in name
        assert isinstance(value, str)


def test_all_attributes() -> None:
    line = format_set_cookie(
        "sid",
        "v",
        max_age=timedelta(hours=1),
        expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        path="/app",
        domain="example.org",
        secure=True,
        httponly=True,
        samesite="none",
        partitioned=True,
        priority="high",
    )
    assert line == (
        "sid=v; Expires=Wed, 02 Jan 2030 03:04:05 GMT; Max-Age=3600; Domain=example.org; Path=/app; Secure; HttpOnly; "
        "SameSite=None; Partitioned; Priority=High"
    )
    assert format_set_cookie("sid") == "sid=; Path=/; SameSite=Lax"
    assert format_set_cookie("sid", path=None, samesite=None) == "sid="


@pytest.mark.parametrize(
    ("expires", "text"),
    [
        (datetime(1994, 11, 6, 8, 49, 37), "Sun, 06 Nov 1994 08:49:37 GMT"),
        (datetime(1994, 11, 6, 9, 49, 37, tzinfo=timezone(timedelta(hours=1))), "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.9, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ],
)
def test_expires(expires: Any, text: str) -> None:
    assert f"Expires={text};" in format_set_cookie("a", "1", expires=expires)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": ""}, "invalid cookie name"),
        ({"name": "a b"}, "invalid cookie name"),
        ({"name": "a=b"}, "invalid cookie name"),
        ({"name": "a;b"}, "invalid cookie name"),
        ({"name": "a\r\nb"}, "invalid cookie name"),
        ({"name": "ä"}, "invalid cookie name"),
        ({"value": "a\nb"}, "control character"),
        ({"value": "a\0"}, "control character"),
        ({"value": "\ud800"}, "surrogate"),
        ({"value": "x" * 4096}, "too large"),
        ({"path": "/;Secure"}, "path"),
        ({"path": "app"}, "path"),
        ({"domain": "a; HttpOnly"}, "domain"),
        ({"domain": ""}, "domain"),
        ({"domain": "bücher.example"}, "domain"),
        ({"expires": "never; Secure"}, "expires"),
        ({"samesite": "relaxed"}, "samesite"),
        ({"samesite": "none"}, "samesite='none' needs secure=True"),
        ({"partitioned": True}, "partitioned=True needs secure=True"),
        ({"priority": "urgent"}, "priority"),
        ({"name": "__Host-a"}, "__Host- needs secure=True"),
        ({"name": "__host-a"}, "__Host- needs secure=True"),
        ({"name": "__Host-a", "secure": True, "path": "/app"}, "__Host- needs path='/'"),
        ({"name": "__Host-a", "secure": True, "path": None}, "__Host- needs path='/'"),
        ({"name": "__Host-a", "secure": True, "domain": "a.example"}, "__Host- forbids domain"),
        ({"name": "__Secure-a"}, "__Secure- needs secure=True"),
        ({"name": "__SECURE-a"}, "__Secure- needs secure=True"),
    ],
)
def test_refusals_name_the_attribute(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", "\\(")):
        HttpResponse().set_cookie(**{"name": "a", **arguments})


def test_expires_of_a_wrong_type_is_named() -> None:
    wrong: Any = [1]
    with pytest.raises(TypeError, match="expires of cookie a"):
        format_set_cookie("a", expires=wrong)


def test_prefixed_cookies_that_keep_the_rules() -> None:
    assert format_set_cookie("__Host-a", "1", secure=True) == "__Host-a=1; Path=/; Secure; SameSite=Lax"
    assert "Domain=b.example" in format_set_cookie("__Secure-a", "1", secure=True, domain="b.example")


def test_set_and_delete_are_lines_of_their_own() -> None:
    response = HttpResponse()
    response.set_cookie("a", "1", max_age=5)
    response.set_cookie("b", "2")
    response.delete_cookie("c")
    response.delete_cookie("__Host-d")
    lines = response.headers.getall("set-cookie")
    assert lines == [
        "a=1; Max-Age=5; Path=/; SameSite=Lax",
        "b=2; Path=/; SameSite=Lax",
        "c=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax",
        "__Host-d=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; Secure; SameSite=Lax",
    ]
