"""The jar keeps what Set-Cookie says and sends it where RFC 6265 says."""

from __future__ import annotations

import pytest

from armature.testing import CookieJar


def jar_of(*lines: str, host: str = "shop.example", path: str = "/") -> CookieJar:
    jar = CookieJar()
    for line in lines:
        jar.extract(line, host, path)
    return jar


def test_a_plain_cookie_goes_back_to_its_host_only() -> None:
    jar = jar_of("sid=abc")
    assert jar.header("shop.example", "/any", False) == "sid=abc"
    assert jar.header("www.shop.example", "/", False) is None
    assert jar.header("other.example", "/", False) is None
    assert jar["sid"] == "abc"


def test_a_domain_reaches_subdomains() -> None:
    jar = jar_of("sid=abc; Domain=.Shop.example", host="www.shop.example")
    assert jar.header("api.shop.example", "/", False) == "sid=abc"
    assert jar.header("shop.example", "/", False) == "sid=abc"
    assert jar.header("badshop.example", "/", False) is None


@pytest.mark.parametrize("domain", ["other.example", "example.org", "api.shop.example"])
def test_a_foreign_domain_is_ignored(domain: str) -> None:
    assert not jar_of(f"sid=abc; Domain={domain}")


def test_an_address_matches_only_itself() -> None:
    assert not jar_of("sid=abc; Domain=0.0.1", host="127.0.0.1")


@pytest.mark.parametrize(
    ("cookie_path", "path", "sent"),
    [
        ("/shop", "/shop", True),
        ("/shop", "/shop/cart", True),
        ("/shop", "/shopping", False),
        ("/shop/", "/shop", False),
        ("/shop/", "/shop/cart", True),
        ("/", "/anything", True),
    ],
)
def test_paths(cookie_path: str, path: str, sent: bool) -> None:
    jar = jar_of(f"a=1; Path={cookie_path}")
    assert (jar.header("shop.example", path, False) is not None) is sent


@pytest.mark.parametrize(("request_path", "default"), [("/", "/"), ("/a", "/"), ("/a/b", "/a"), ("/a/b/", "/a/b")])
def test_the_default_path_is_the_directory_of_the_request(request_path: str, default: str) -> None:
    assert jar_of("a=1", path=request_path).jar[0].path == default


def test_longer_paths_come_first() -> None:
    jar = jar_of("a=1; Path=/", "b=2; Path=/shop")
    assert jar.header("shop.example", "/shop", False) == "b=2; a=1"


def test_secure_cookies_need_tls() -> None:
    jar = jar_of("a=1; Secure; HttpOnly; SameSite=Strict")
    assert jar.header("shop.example", "/", False) is None
    assert jar.header("shop.example", "/", True) == "a=1"
    assert (jar.jar[0].http_only, jar.jar[0].same_site) == (True, "strict")


@pytest.mark.parametrize("attribute", ["Max-Age=0", "Max-Age=-1", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_cookie_of_the_past_deletes(attribute: str) -> None:
    jar = jar_of("a=1")
    jar.extract(f"a=; {attribute}", "shop.example", "/")
    assert "a" not in jar
    assert len(jar) == 0


def test_max_age_wins_over_expires() -> None:
    assert "a" in jar_of("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT")


def test_a_broken_date_makes_a_session_cookie() -> None:
    assert jar_of("a=1; Expires=soon").jar[0].expires is None


def test_the_same_name_is_replaced() -> None:
    assert jar_of("a=1", "a=2").header("shop.example", "/", False) == "a=2"


@pytest.mark.parametrize("line", ["", "novalue", "=x", "; Path=/"])
def test_what_is_no_cookie_is_ignored(line: str) -> None:
    assert not jar_of(line)


def test_quotes_and_equals_stay_as_they_are() -> None:
    assert jar_of('a="x=y"')["a"] == '"x=y"'


def test_the_jar_is_a_mapping() -> None:
    jar = CookieJar({"a": "1"})
    jar["b"] = "2"
    jar.set("c", "3", domain="shop.example", path="/x")
    assert dict(jar) == {"a": "1", "b": "2", "c": "3"}
    assert jar.header("anything", "/", False) == "a=1; b=2"
    assert jar.header("www.shop.example", "/x/y", False) == "c=3; a=1; b=2"
    del jar["a"]
    with pytest.raises(KeyError):
        jar["a"]
    with pytest.raises(KeyError):
        del jar["a"]
    jar.delete("c", domain="shop.example")
    jar.clear()
    assert not jar


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("a b", "x"), ("a=", "x"), ("a", "x;y"), ("a", "x\r\ny")])
def test_a_cookie_that_would_split_the_header_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cookie"):
        CookieJar().set(name, value)
