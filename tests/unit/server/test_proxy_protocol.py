"""The PROXY header alone: how far it may be read, and what it says (haproxy's proxy-protocol.txt, section 2)."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.server.proxy_protocol import (
    V2_LIMIT,
    ProxyHeader,
    ProxyHeaderError,
    bytes_to_read,
    parse_header,
)

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes, tlvs: bytes = b"", version: int = 2) -> bytes:
    rest = addresses + tlvs
    return SIGNATURE + bytes([version << 4 | command, family]) + len(rest).to_bytes(2, "big") + rest


def tcp4(client: str, server: str, *ports: int) -> bytes:
    packed = b"".join(socket.inet_aton(address) for address in (client, server))
    return packed + b"".join(port.to_bytes(2, "big") for port in ports)


def tcp6(client: str, server: str, *ports: int) -> bytes:
    packed = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (client, server))
    return packed + b"".join(port.to_bytes(2, "big") for port in ports)


TCP4 = ProxyHeader(True, ("192.0.2.1", 5555), ("203.0.113.7", 443))
TCP6 = ProxyHeader(True, ("2001:db8::1", 65535), ("2001:db8::2", 0))

GOOD = [
    (b"PROXY TCP4 192.0.2.1 203.0.113.7 5555 443\r\n", TCP4),
    (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::2 65535 0\r\n", TCP6),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ProxyHeader(True, ("0.0.0.0", 0), ("0.0.0.0", 0))),
    (b"PROXY TCP6 :: :: 0 0\r\n", ProxyHeader(True, ("::", 0), ("::", 0))),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ProxyHeader(True, ("255.255.255.255", 65535), ("255.255.255.255", 65535))),
    (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader()),
    (v2(1, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443)), TCP4),
    (v2(1, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443), b"\x04\x00\x03abc\xee\x00\x00"), TCP4),
    (v2(1, 0x21, tcp6("2001:db8::1", "2001:db8::2", 65535, 0)), TCP6),
    (v2(1, 0x21, tcp6("2001:db8::1", "2001:db8::2", 65535, 0), b"\x04" * (V2_LIMIT - 52)), TCP6),
    (v2(1, 0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")), ProxyHeader(True)),
    (v2(1, 0x00, b""), ProxyHeader()),
    (v2(1, 0x00, b"whatever"), ProxyHeader()),
    (v2(0, 0x00, b""), ProxyHeader()),
    (v2(0, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443)), ProxyHeader()),
    # A health check may fill in anything (section 2.2: LOCAL).
    (v2(0, 0xFF, b"abc"), ProxyHeader()),
]  # fmt: skip


def read(stream: bytes) -> bytes:
    """Read a header as the server does: never more than is certain to be a part of it."""
    data = b""
    while count := bytes_to_read(data):
        assert count > 0
        if len(data) + count > len(stream):
            raise EOFError
        data += stream[len(data) : len(data) + count]
    return data


@pytest.mark.parametrize(("header", "expected"), GOOD)
def test_a_header_is_read_to_its_end_and_not_beyond(header: bytes, expected: ProxyHeader) -> None:
    assert read(header) == header
    assert read(header + b"GET / HTTP/1.1\r\n\r\n") == header
    assert read(header + header) == header
    assert parse_header(header) == expected


@pytest.mark.parametrize(("header", "expected"), GOOD)
def test_no_part_of_a_header_is_complete_or_refused(header: bytes, expected: ProxyHeader) -> None:
    for size in range(len(header)):
        assert 0 < bytes_to_read(header[:size]) <= len(header) - size


BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaa",
    b"PROXX TCP4 192.0.2.1 203.0.113.7 5555 443\r\n",
    b"proxy TCP4 192.0.2.1 203.0.113.7 5555 443\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.7 5555 443\nGET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP4 192.0.2.1\n203.0.113.7 5555 443\r\n",
    b"PROXY TCP4 192.0.2.1\r203.0.113.7 5555 443\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.7 5555\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.7 5555 443 1\r\n",
    b"PROXY TCP4 192.0.2.1  203.0.113.7 5555 443\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.7 05555 443\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.7 65536 443\r\n",
    b"PROXY TCP4 192.0.2.1 203.0.113.7 -1 443\r\n",
    b"PROXY TCP4 192.0.2.256 203.0.113.7 5555 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 5555 443\r\n",
    b"PROXY TCP6 192.0.2.1 203.0.113.7 5555 443\r\n",
    b"PROXY TCP5 192.0.2.1 203.0.113.7 5555 443\r\n",
    b"PROXY UDP4 192.0.2.1 203.0.113.7 5555 443\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY TCP4 " + b"1" * 200,
    b"\r\n\r\n\x00\r\nQUIT\r" + bytes(20),
    b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    v2(1, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443), version=1),
    v2(2, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443)),
    v2(1, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443)[:-1]),
    v2(1, 0x11, b""),
    v2(1, 0x21, tcp4("192.0.2.1", "203.0.113.7", 5555, 443)),
    v2(1, 0x12, tcp4("192.0.2.1", "203.0.113.7", 5555, 443)),
    v2(1, 0x41, bytes(36)),
    v2(1, 0x31, bytes(215)),
    v2(1, 0x11, tcp4("192.0.2.1", "203.0.113.7", 5555, 443), bytes(V2_LIMIT)),
]


@pytest.mark.parametrize("stream", BAD)
def test_what_is_no_header_is_refused(stream: bytes) -> None:
    with pytest.raises(ProxyHeaderError) as caught:
        parse_header(read(stream))
    assert len(str(caught.value)) < 500


ADDRESSES = {
    4: st.ip_addresses(v=4).map(str),
    6: st.ip_addresses(v=6).map(str),
}
PORTS = st.integers(0, 65535)


@given(
    version=st.sampled_from([1, 2]),
    family=st.sampled_from([4, 6]),
    data=st.data(),
    ports=st.tuples(PORTS, PORTS),
    tlvs=st.binary(max_size=64),
    rest=st.binary(max_size=64),
)
def test_any_header_says_what_went_into_it(
    version: int, family: int, data: st.DataObject, ports: tuple[int, int], tlvs: bytes, rest: bytes
) -> None:
    client, server = data.draw(ADDRESSES[family]), data.draw(ADDRESSES[family])
    if version == 1:
        header = f"PROXY TCP{family} {client} {server} {ports[0]} {ports[1]}\r\n".encode()
    elif family == 4:
        header = v2(1, 0x11, tcp4(client, server, *ports), tlvs)
    else:
        header = v2(1, 0x21, tcp6(client, server, *ports), tlvs)
    assert read(header + rest) == header
    assert parse_header(header) == (True, (client, ports[0]), (server, ports[1]))


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(SIGNATURE.__add__)
    | st.binary(max_size=120).map(b"PROXY ".__add__)
)
def test_noise_ends_in_a_header_an_error_or_more_wanted(stream: bytes) -> None:
    with contextlib.suppress(ProxyHeaderError, EOFError):
        parse_header(read(stream))
