"""Query strings against urllib, URLs, and locations."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.exceptions import HTTPException
from armature.http import URL, QueryParams
from armature.http.url import parse_pairs, quote_url

ASCII_QUERY = st.text(st.sampled_from("ab=&%+;20cCfF8\x00/?# \xe9"), max_size=40)


@given(ASCII_QUERY.map(lambda text: text.replace("\xe9", "")))
def test_decodes_as_parse_qsl_does(query: str) -> None:
    assert parse_pairs(query.encode()) == parse_qsl(query, keep_blank_values=True)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_raw_utf8_decodes_as_parse_qsl_does(query: str) -> None:
    # Raw octets beside encoded ones that are cut in the middle of a character are the one thing urllib decodes apart.
    query = query.replace("%", "")
    assert parse_pairs(query.encode()) == parse_qsl(query, keep_blank_values=True)


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
    )
)
def test_reads_what_urlencode_writes(pairs: list[tuple[str, str]]) -> None:
    assert QueryParams(urlencode(pairs)).multi_items() == pairs
    assert QueryParams(str(QueryParams(pairs))).multi_items() == pairs


@given(st.binary(max_size=60))
def test_any_octets_are_decoded(query: bytes) -> None:
    for name, value in parse_pairs(query):
        (name + value).encode("utf-8")


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        (b"", []),
        (b"a", [("a", "")]),
        (b"a=", [("a", "")]),
        (b"=", [("", "")]),
        (b"=b", [("", "b")]),
        (b"&&a=1&&", [("a", "1")]),
        (b"a=1;b=2", [("a", "1;b=2")]),
        (b"a=b=c", [("a", "b=c")]),
        (b"a=%", [("a", "%")]),
        (b"a=%zz", [("a", "%zz")]),
        (b"a=%E9", [("a", "\ufffd")]),
        (b"a=%C3%A9+x%2B", [("a", "é x+")]),
        (b"a=%00", [("a", "\0")]),
        (b"a[]=1&a[]=2", [("a[]", "1"), ("a[]", "2")]),
        (b"a=\xff", [("a", "\ufffd")]),
        (b"a=%ED%A0%80", [("a", "\ufffd\ufffd\ufffd")]),
        (b"?a=1", [("?a", "1")]),
    ],
)
def test_table(query: bytes, pairs: list[tuple[str, str]]) -> None:
    assert parse_pairs(query) == pairs


def test_the_number_of_pairs_is_bounded_before_they_are_made() -> None:
    assert len(parse_pairs(b"&".join([b"a=1"] * 1000))) == 1000
    for query in (b"&".join([b"a=1"] * 1001), b"&" * 1000, b"&" * 60000):
        with pytest.raises(HTTPException) as caught:
            parse_pairs(query)
        assert caught.value.status_code == 400
        assert "1000" in caught.value.detail


@pytest.mark.parametrize("piece", [b"%41", b"+", b"%", b"%%", b"=", b"\xff", b"a"])
def test_linear_in_the_length(piece: bytes) -> None:
    def cost(size: int) -> float:
        best = 1.0
        for _ in range(3):
            start = time.perf_counter()
            parse_pairs(b"a=" + piece * size)
            best = min(best, time.perf_counter() - start)
        return best

    # A quadratic parser would take 1,024 times as long for 32 times the length.
    assert cost(160_000) < 250 * cost(5_000) + 0.05


def test_query_params_answer_the_last_value_and_all() -> None:
    query = QueryParams("tag=a&q=1&tag=b")
    assert query["tag"] == "b"
    assert query.get("tag") == "b"
    assert query.getall("tag") == query.getlist("tag") == ["a", "b"]
    assert query.getall("x") == []
    assert query.get("x") is None
    assert query.get("x", "d") == "d"
    assert "q" in query
    assert dict(query) == {"tag": "b", "q": "1"}
    assert len(query) == 2
    assert query.multi_items() == [("tag", "a"), ("q", "1"), ("tag", "b")]
    assert str(query) == "tag=a&q=1&tag=b"
    assert repr(query) == "QueryParams([('tag', 'a'), ('q', '1'), ('tag', 'b')])"
    with pytest.raises(KeyError):
        query["x"]
    frozen: Any = query
    with pytest.raises(TypeError):
        frozen["q"] = "2"


def test_query_params_from_mappings_and_pairs() -> None:
    assert str(QueryParams({"a": [1, 2], "b": True, "c": "é"})) == "a=1&a=2&b=true&c=%C3%A9"
    assert str(QueryParams([("a", 1), ("a", False)])) == "a=1&a=false"
    assert QueryParams(QueryParams("a=1&a=2")) == QueryParams("a=1&a=2")


def test_request_query_is_lazy_and_kept(make_request: Any) -> None:
    request = make_request(target="/p?x=1&y=%20")
    assert request.query is request.query
    assert request.query == request.query_params
    assert request.query["y"] == " "
    many = make_request(target="/p?" + "&" * 2000)
    assert many.path == "/p"
    with pytest.raises(HTTPException):
        _ = many.query


# ---- URLs


def test_parts() -> None:
    url = URL("https://user:secret@Example.org:8443/a%20b/c?x=1&y=2#f")
    assert (url.scheme, url.netloc, url.path, url.query, url.fragment) == (
        "https",
        "user:secret@Example.org:8443",
        "/a%20b/c",
        "x=1&y=2",
        "f",
    )
    assert (url.username, url.password, url.hostname, url.port) == ("user", "secret", "example.org", 8443)
    assert url.is_secure
    assert url.query_params["y"] == "2"
    assert str(url) == "https://user:secret@Example.org:8443/a%20b/c?x=1&y=2#f"
    assert repr(url) == "URL('https://user:********@Example.org:8443/a%20b/c?x=1&y=2#f')"
    assert "Example" in url


def test_equality_with_text() -> None:
    assert URL("/a") == "/a"
    assert URL("/a") == URL("/a")
    assert URL("/a") != URL("/b")
    assert URL("/a") != 5
    assert hash(URL("/a")) == hash("/a")


@given(
    st.sampled_from(["http", "https", ""]),
    st.sampled_from(["a.example", "a.example:80", "[::1]:8000", "u@h", ""]),
    st.text("/ab%2Fé", max_size=8),
    st.text("a=&b", max_size=6),
)
def test_urls_split_as_urllib_does(scheme: str, netloc: str, path: str, query: str) -> None:
    text = f"{scheme}://{netloc}/{path}" if scheme else f"/x{path}"
    text += f"?{query}" if query else ""
    url, parts = URL(text), urlsplit(text)
    assert (url.scheme, url.netloc, url.path, url.query) == parts[:4]
    assert url.hostname == parts.hostname
    assert str(url.replace(scheme=url.scheme)) == parts.geturl()


def test_replace() -> None:
    url = URL("http://u:p@h.example:80/a?x=1#f")
    assert url.replace(scheme="https", port=None) == "https://u:p@h.example/a?x=1#f"
    assert url.replace(hostname="i.example") == "http://u:p@i.example:80/a?x=1#f"
    assert url.replace(hostname="::1") == "http://u:p@[::1]:80/a?x=1#f"
    assert url.replace(username=None, path="/b", query="", fragment="") == "http://h.example:80/b"
    assert URL("http://[::1]:80/").replace(port=81) == "http://[::1]:81/"
    with pytest.raises(TypeError, match="nonsense"):
        url.replace(nonsense="x")


def test_query_editing() -> None:
    url = URL("/a?x=1&y=2&x=3")
    assert url.include_query_params(x=5, z=["a", "b"]) == "/a?y=2&x=5&z=a&z=b"
    assert url.replace_query_params(q="é&") == "/a?q=%C3%A9%26"
    assert url.remove_query_params("x") == "/a?y=2"
    assert url.remove_query_params(["x", "y"]) == "/a"


def test_bad_ports_and_hosts() -> None:
    assert URL("http://a:99999/").port is None
    assert URL("http://a:b/").port is None
    with pytest.raises(ValueError, match="IPv6"):
        URL("http://[::1/")


def test_request_urls(make_request: Any) -> None:
    request = make_request(target="/a%20b?x=1", headers={"host": "example.org:8080"})
    assert request.url == "http://example.org:8080/a%20b?x=1"
    assert request.url is request.url
    assert request.base_url == "http://example.org:8080/"
    assert request.path == "/a b"
    assert make_request().url == "http://127.0.0.1:8000/"


@pytest.mark.parametrize("host", ["[", "]", "a:b:c", "a:", ":", "[::1", "a:99999", "%41"])
def test_a_strange_host_does_not_break_the_request(make_request: Any, host: str) -> None:
    request = make_request(headers={"host": host})
    assert str(request.url) == f"http://{host}/"
    assert request.url.port in (None, 80)


def test_raw_octets_of_a_target_are_encoded_in_the_url(make_request: Any) -> None:
    request = make_request(target='/\xe9"<?\xff=1', headers={"host": "h"})
    assert request.url == 'http://h/%E9"<?%FF=1'
    assert request.path == '/\ufffd"<'


def test_a_path_of_two_slashes_stays_a_path(make_request: Any) -> None:
    request = make_request(target="//evil.example/x", headers={"host": "h"})
    assert request.url.hostname == "h"
    assert request.url.path == "//evil.example/x"


@pytest.mark.parametrize(
    ("url", "encoded"),
    [
        ("/a b", "/a%20b"),
        ("/é?q=ü", "/%C3%A9?q=%C3%BC"),
        ("/%C3%A9", "/%C3%A9"),
        ("https://a.example:1/p;x?q=1&r[]=2#f", "https://a.example:1/p;x?q=1&r[]=2#f"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("~!$&'()*+,;=:@", "~!$&'()*+,;=:@"),
        ("", ""),
    ],
)
def test_quote_url(url: str, encoded: str) -> None:
    assert quote_url(url) == encoded
    assert quote_url(encoded) == encoded


@given(st.text(max_size=30))
def test_a_location_is_always_safe(url: str) -> None:
    try:
        encoded = quote_url(url)
    except (ValueError, UnicodeEncodeError):
        return
    assert encoded.isascii()
    assert not any(char <= " " or char == "\x7f" for char in encoded)
