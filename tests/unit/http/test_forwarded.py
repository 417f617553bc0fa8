"""What proxies say of the client: whom to believe, how far, and what a client cannot make of it."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.exceptions import ConfigurationError
from armature.http import forwarded
from armature.http.forwarded import Forwarded, ForwardedReader, TrustedProxies, parse_node, parse_root_path

PROXY = ("10.0.0.1", 40000)
X_FIELDS = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix"]


def said(*lines: str, trusted: object = "10.0.0.0/8", names: object = X_FIELDS, peer: object = PROXY) -> Forwarded:
    """What is believed of a request with these field lines."""
    fields = [
        (name.encode(), value.strip().encode("latin-1")) for name, _, value in (ln.partition(":") for ln in lines)
    ]
    return ForwardedReader(TrustedProxies(trusted), names).read(peer, False, fields)  # type: ignore[arg-type]


def modern(text: str, **options: object) -> Forwarded:
    return said(f"forwarded:{text}", names=["forwarded"], **options)


# ---- who is believed


@pytest.mark.parametrize(
    ("entries", "client", "local", "believed"),
    [
        ((), ("127.0.0.1", 1), False, False),
        ((), None, True, False),
        ("127.0.0.1", ("127.0.0.1", 1), False, True),
        ("127.0.0.1", ("127.0.0.2", 1), False, False),
        ("127.0.0.1, 10.0.0.0/8", ("10.255.0.1", 1), False, True),
        (["10.0.0.0/8"], ("::ffff:10.1.2.3", 1), False, True),
        (["::ffff:10.0.0.0/104"], ("10.1.2.3", 1), False, True),
        (["2001:db8::/32"], ("2001:db8::7", 1), False, True),
        (["fe80::/10"], ("fe80::1%eth0", 1), False, True),
        (["unix"], None, True, True),
        # A TCP peer whose address could not be asked for any more is not one on a Unix socket.
        (["unix"], None, False, False),
        (["127.0.0.1"], None, True, False),
        ("*", ("192.0.2.1", 1), False, True),
        ("*", None, True, True),
        ("10.0.0.0/8", ("no address", 1), False, False),
    ],
)
def test_trust_in_a_peer(entries: object, client: tuple[str, int] | None, local: bool, believed: bool) -> None:
    assert TrustedProxies(entries).trusts(client, local) is believed  # type: ignore[arg-type]


def test_a_star_does_not_stand_for_an_announced_address() -> None:
    trusted = TrustedProxies(["*", "10.0.0.0/8"])
    assert not trusted.trusts(("192.0.2.1", 1), False, announced=True)
    assert not trusted.trusts(None, False, announced=True)
    assert trusted.trusts(("10.0.0.1", 1), False, announced=True)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("proxy.example", "is no address, network such as 10.0.0.0/8, 'unix' or '*'"),
        ("10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("", "is no address"),
        ("10.0.0.0/33", "is no address"),
    ],
)
def test_a_malformed_entry_is_refused(entry: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies holds") as caught:
        TrustedProxies([entry])
    assert text in str(caught.value)


def test_nobody_is_trusted_by_default() -> None:
    assert not TrustedProxies(())
    assert not TrustedProxies("")
    assert TrustedProxies("unix")


# ---- X-Forwarded-For


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:4711", ("192.0.2.1", 4711)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:DB8::1]:4711", ("2001:db8::1", 4711)),
        ("::ffff:192.0.2.1", ("192.0.2.1", 0)),
        # Only the end was written by somebody who is trusted.
        ("6.6.6.6, 192.0.2.1", ("192.0.2.1", 0)),
        ("6.6.6.6, 192.0.2.1, 10.0.0.9, 10.0.0.8", ("192.0.2.1", 0)),
        ("not an address <script>, 192.0.2.1", ("192.0.2.1", 0)),
        ("unknown, 192.0.2.1", ("192.0.2.1", 0)),
        # Everybody is a proxy of ours: the request began with the first.
        ("10.0.0.9, 10.0.0.8", ("10.0.0.9", 0)),
        ("_hidden", ("_hidden", 0)),
        ("_SEVKISEK:80", ("_SEVKISEK", 80)),
    ],
)
def test_the_client_of_a_list(value: str, client: tuple[str, int]) -> None:
    assert said(f"x-forwarded-for:{value}") == Forwarded(client, True)


@pytest.mark.parametrize(
    "value", ["unknown", "UNKNOWN", "unknown:80", "6.6.6.6, unknown", "6.6.6.6, unknown, 10.0.0.9"]
)
def test_an_unknown_client_is_none(value: str) -> None:
    assert said(f"x-forwarded-for:{value}") == Forwarded(None, True)


@pytest.mark.parametrize(
    "value",
    [
        "", ",", "192.0.2.1,", "192.0.2.1:99999", "192.0.2.1:", "192.0.2.256", "192.0.2.01", "2001:db8::1::2",
        "[2001:db8::1", "2001:db8::1]:80", "[192.0.2.1]x", "example.org", "unknown:x", "_", "6.6.6.6 192.0.2.1",
        "fe80::1%eth0", "\xff", "192.0.2.1, garbage", "192.0.2.1, garbage, 10.0.0.9",
    ],
)  # fmt: skip
def test_a_malformed_list_is_ignored_as_a_whole(value: str, caplog: pytest.LogCaptureFixture) -> None:
    assert said(f"x-forwarded-for:{value}", "x-forwarded-proto:https") == Forwarded()
    assert len(caplog.records) == 1
    assert "ignored what the proxy 10.0.0.1 says of its client, because X-Forwarded-For has" in caplog.text


def test_several_lines_are_one_list() -> None:
    assert said("x-forwarded-for:6.6.6.6", "x-forwarded-for:192.0.2.1", "x-forwarded-for:10.0.0.9").client == (
        "192.0.2.1",
        0,
    )


def test_a_chain_of_proxies_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    chain = ["10.0.0.2"] * forwarded.HOP_LIMIT
    assert said(f"x-forwarded-for:{','.join(chain)}").client == ("10.0.0.2", 0)
    assert said(f"x-forwarded-for:{','.join(['192.0.2.1', *chain])}") == Forwarded()
    assert f"more than {forwarded.HOP_LIMIT} addresses" in caplog.text
    # What a client wrote in front may be as long as it likes.
    assert said(f"x-forwarded-for:{','.join(['6.6.6.6'] * 5000)},192.0.2.1").client == ("192.0.2.1", 0)


def test_a_star_trusts_the_peer_and_not_the_list() -> None:
    assert said("x-forwarded-for:6.6.6.6, 192.0.2.1", trusted="*").client == ("192.0.2.1", 0)
    assert said("x-forwarded-for:6.6.6.6, 192.0.2.1, 10.0.0.9", trusted=["*", "10.0.0.0/8"]).client == ("192.0.2.1", 0)


# ---- the other fields


@pytest.mark.parametrize(("value", "scheme"), [("https", "https"), ("HTTP", "http"), ("wss", "https"), ("ws", "http")])
def test_the_scheme(value: str, scheme: str) -> None:
    assert said("x-forwarded-for:192.0.2.1", f"x-forwarded-proto:{value}").scheme == scheme
    # Also of a proxy that does not say for whom.
    assert said(f"x-forwarded-proto:{value}") == Forwarded(scheme=scheme)


@pytest.mark.parametrize(
    ("addresses", "schemes", "scheme"),
    [
        ("192.0.2.1, 10.0.0.9", "https, http", "https"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.9", "http, https, http", "https"),
        ("6.6.6.6, 192.0.2.1", "https, http", "http"),
        # The client wrote one more than the proxies: certain is only the end.
        ("192.0.2.1", "https, http", "http"),
        ("192.0.2.1, 10.0.0.9", "https", "https"),
        ("192.0.2.1, 10.0.0.9", "http, http, https", "https"),
    ],
)
def test_a_list_of_schemes_goes_with_the_list_of_addresses(addresses: str, schemes: str, scheme: str) -> None:
    assert said(f"x-forwarded-for:{addresses}", f"x-forwarded-proto:{schemes}").scheme == scheme


@pytest.mark.parametrize(
    ("lines", "host"),
    [
        (["x-forwarded-host:shop.example"], "shop.example"),
        (["x-forwarded-host:shop.example:8443"], "shop.example:8443"),
        (["x-forwarded-host:[2001:db8::1]:80"], "[2001:db8::1]:80"),
        (["x-forwarded-host:shop.example", "x-forwarded-port:8443"], "shop.example:8443"),
        (["x-forwarded-host:shop.example:80", "x-forwarded-port:443", "x-forwarded-proto:https"], "shop.example"),
        (["x-forwarded-port:8443"], "own.example:8443"),
        (["x-forwarded-port:80"], "own.example"),
        (["x-forwarded-proto:https"], "own.example:1"),
    ],
)
def test_the_authority(lines: list[str], host: str) -> None:
    found = said(*lines)
    assert found.authority("own.example:1", found.scheme or "http") == host


@pytest.mark.parametrize("prefix", ["/shop", "/shop/", "/a/b-c_d.e~f"])
def test_the_prefix(prefix: str) -> None:
    assert said(f"x-forwarded-prefix:{prefix}").prefix == prefix.rstrip("/")
    assert said("x-forwarded-prefix:/").prefix == ""


@pytest.mark.parametrize(
    "line",
    [
        "x-forwarded-proto:gopher", "x-forwarded-proto:", "x-forwarded-proto:https,", "x-forwarded-host:", "x-forwarded-host:a b",
        "x-forwarded-host:evil.example/path", "x-forwarded-host:user@evil.example", "x-forwarded-host:a:999999",
        "x-forwarded-host:a\xff", "x-forwarded-port:0", "x-forwarded-port:65536", "x-forwarded-port:-1",
        "x-forwarded-port:\xb2", "x-forwarded-prefix:shop", "x-forwarded-prefix://evil.example", "x-forwarded-prefix:/a//b",
        "x-forwarded-prefix:/../a", "x-forwarded-prefix:/a/.", "x-forwarded-prefix:/a b", "x-forwarded-prefix:/a?b",
        "x-forwarded-prefix:/\\evil.example", "x-forwarded-prefix:/%2e%2e",
    ],
)  # fmt: skip
def test_one_malformed_field_makes_all_of_them_void(line: str, caplog: pytest.LogCaptureFixture) -> None:
    assert said("x-forwarded-for:192.0.2.1", line) == Forwarded()
    assert "ignored what the proxy 10.0.0.1 says" in caplog.text


def test_the_root_path_of_the_option() -> None:
    assert parse_root_path("") == ""
    assert parse_root_path("/") == ""
    assert parse_root_path("/shop/") == "/shop"
    assert parse_root_path("shop/") is None
    assert parse_root_path("//") == ""


def test_nodes() -> None:
    assert parse_node("192.0.2.1:_port") == ("192.0.2.1", 0)
    assert parse_node("unknown") is None
    assert parse_node("_a.b-c:_d") == ("_a.b-c", 0)


# ---- Forwarded (RFC 7239)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for=192.0.2.1", Forwarded(("192.0.2.1", 0), True)),
        ('For="[2001:db8:cafe::17]:4711"', Forwarded(("2001:db8:cafe::17", 4711), True)),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", Forwarded(("192.0.2.60", 0), True, "http")),
        ("for=192.0.2.43, for=10.0.0.7;proto=https", Forwarded(("192.0.2.43", 0), True)),
        ("for=192.0.2.43;proto=https;host=shop.example, for=10.0.0.7;proto=http", Forwarded(("192.0.2.43", 0), True, "https", "shop.example")),
        ("for=6.6.6.6;proto=https, for=192.0.2.43", Forwarded(("192.0.2.43", 0), True)),
        ('for=unknown;host="a.example:8443"', Forwarded(None, True, None, "a.example:8443")),
        ("for=_gazonk", Forwarded(("_gazonk", 0), True)),
        ('for="_gazonk:_port"', Forwarded(("_gazonk", 0), True)),
        ("proto=https", Forwarded(scheme="https")),
        # The second proxy hides whom it speaks for.
        ("for=6.6.6.6, by=_x, for=10.0.0.7", Forwarded(None, True)),
        ('for="192.0.2.1";ext="a,b;c=\\"d\\""', Forwarded(("192.0.2.1", 0), True)),
        ("for=192.0.2.1 ; proto=https", Forwarded(("192.0.2.1", 0), True, "https")),
        # The client left a quote open, or closed it where the proxy began.
        ('for="6.6.6.6, for=192.0.2.1', Forwarded(("192.0.2.1", 0), True)),
        ('for="6.6.6.6, for="[2001:db8::1]"', Forwarded(("2001:db8::1", 0), True)),
        ('x="\\, for=192.0.2.1', Forwarded(("192.0.2.1", 0), True)),
        ('x=", for=192.0.2.1;by="_p"', Forwarded(("192.0.2.1", 0), True)),
        ("garbage here, for=192.0.2.1", Forwarded(("192.0.2.1", 0), True)),
    ],
)  # fmt: skip
def test_forwarded(text: str, expected: Forwarded) -> None:
    assert modern(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "for=", "for", "for=2001:db8::1", "for=192.0.2.1:80", 'for="192.0.2.1', "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1,", "for=example.org", "for=192.0.2.1;proto=gopher", 'for=192.0.2.1;host="a/b"', "=x", "for = 192.0.2.1",
        'for=192.0.2.1;host="a b"', "garbage, for=10.0.0.7", f'for=192.0.2.1;x="{"y" * 2000}"', ", " * 4000,
    ],
)  # fmt: skip
def test_malformed_forwarded_is_ignored(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert modern(text) == Forwarded()
    assert "ignored what the proxy 10.0.0.1 says" in caplog.text
    assert len(caplog.records[0].getMessage()) < 400


def test_forwarded_is_bounded() -> None:
    assert modern(", ".join(["for=192.0.2.1", *["for=10.0.0.7"] * (forwarded.HOP_LIMIT - 1)])).client == (
        "192.0.2.1",
        0,
    )
    assert modern(", ".join(["for=192.0.2.1", *["for=10.0.0.7"] * forwarded.HOP_LIMIT])) == Forwarded()


TOKEN = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=1, max_size=12)
QUOTED = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)


@given(
    junk=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
    extension=st.tuples(TOKEN, TOKEN | QUOTED),
    quoted=st.booleans(),
    last=st.booleans(),
)
def test_nothing_in_front_hides_what_the_proxy_appends(
    junk: str, extension: tuple[str, str], quoted: bool, last: bool
) -> None:
    name, value = extension
    if name.lower() in ("for", "proto", "host"):
        return
    mine = 'for="192.0.2.1"' if quoted else "for=192.0.2.1"
    element = f"{mine};{name}={value}" if last else f"{name}={value};{mine}"
    assert modern(f"{junk}, {element}").client == ("192.0.2.1", 0)


# ---- which fields are read, and what is logged


def test_fields_that_the_proxy_does_not_set_are_not_read(caplog: pytest.LogCaptureFixture) -> None:
    reader = ForwardedReader(TrustedProxies("10.0.0.0/8"))
    fields = [
        (b"forwarded", b"for=6.6.6.6"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-for", b"192.0.2.1"),
    ]
    for _ in range(3):
        assert reader.read(PROXY, False, fields) == Forwarded(("192.0.2.1", 0), True)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage() == (
        "ignored Forwarded, X-Forwarded-Host from the trusted proxy 10.0.0.1; name it in forwarded_headers, if the proxy "
        "sets it and does not pass on what the client sent"
    )


def test_an_untrusted_peer_is_ignored_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = ForwardedReader(TrustedProxies("10.0.0.0/8"))
    for port in range(3):
        assert reader.read(("192.0.2.9", port), False, [(b"x-forwarded-for", b"6.6.6.6")]) == Forwarded()
    assert [record.getMessage() for record in caplog.records] == [
        "ignored X-Forwarded-For from the peer 192.0.2.9, which is not in trusted_proxies"
    ]
    for number in range(200):
        reader.read((f"192.0.3.{number}", 1), False, [(b"x-forwarded-for", b"6.6.6.6")])
    assert len(caplog.records) == forwarded.NOTICE_LIMIT
    assert caplog.records[-1].getMessage().endswith("; further peers are not logged")


def test_a_request_without_such_fields_is_nobodys_business(caplog: pytest.LogCaptureFixture) -> None:
    reader = ForwardedReader(TrustedProxies("10.0.0.0/8"))
    assert reader.read(("192.0.2.9", 1), False, [(b"host", b"a"), (b"x-forwarded", b"b")]) == Forwarded()
    assert reader.read(None, True, []) == Forwarded()
    assert not caplog.records


def test_malformed_fields_are_logged_at_intervals(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "armature.proxy")
    now = [1000.0]
    monkeypatch.setattr(forwarded.time, "monotonic", lambda: now[0])
    reader = ForwardedReader(TrustedProxies("10.0.0.0/8"))
    for _ in range(5):
        reader.read(PROXY, False, [(b"x-forwarded-for", b"x" * 10_000)])
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 300
    now[0] += forwarded.NOTICE_SECONDS
    reader.read(PROXY, False, [(b"x-forwarded-for", b"x")])
    assert caplog.records[-1].getMessage().endswith("(4 more since the last time)")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["via"], "forwarded_headers must be of forwarded, x-forwarded-for"),
        (["forwarded", "x-forwarded-for"], "could contradict each other"),
    ],
)
def test_wrong_fields_are_refused(names: list[str], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ForwardedReader(TrustedProxies("*"), names)


def test_one_field_may_be_given_as_text() -> None:
    assert ForwardedReader(TrustedProxies("*"), "X-Forwarded-For").names == {b"x-forwarded-for"}
