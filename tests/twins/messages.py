"""Strategies for HTTP/1.1 requests: right ones, nearly right ones, and right ones with bytes changed."""

from __future__ import annotations

from hypothesis import strategies as st

METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "QUERY",
    "get",
    "G",
    "M-SEARCH",
]
TARGETS = [
    "/",
    "/a/b?c=d&e",
    "/%2F%41?%00",
    "//x",
    "/#f",
    "/?#",
    "*",
    "x",
    "http://h/p?q",
    "HTTPS://H:1",
    "http://h?q",
    "http://",
    "http://u@h/",
    "ftp://h/",
    "h:80",
    "[::1]:443",
    "h:",
    "/\u00e9",
    '/"<>\\^`{|}',
    "/\x7f",
    "/\t",
]
VERSIONS = [
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/11",
    "HTTP/1.",
    "",
]
ENDS = ["\r\n", "\n", "\r", "\r\r\n", "\n\r", "\r\n "]
NAMES = [
    "Host",
    "host",
    "HOST",
    "Content-Length",
    "content-length",
    "cOnTent-LengTh",
    "Transfer-Encoding",
    "transfer-encoding",
    "Connection",
    "Expect",
    "Upgrade",
    "Accept",
    "X-Thing",
    "x_y",
    "!#$%&'*+-.^_`|~0",
    "Content_Length",
    "Transfer\u2010Encoding",
    "\u0130f-Match",
    "",
    "Host ",
    " Host",
    "Ho\tst",
    "Te\x00",
]
VALUES = [
    "h",
    "h:80",
    "[::1]:80",
    "",
    " ",
    "\t x \t",
    "a b",
    "0",
    "5",
    "05",
    "+5",
    "-5",
    "5, 5",
    "5 5",
    "0x5",
    "\u0665",
    "9" * 18,
    "9" * 19,
    "chunked",
    "Chunked",
    "chunked, chunked",
    "chunked,",
    ",chunked",
    "gzip, chunked",
    "chunked, gzip",
    "gzip",
    "identity",
    "\x0bchunked",
    "chunked\x00",
    '"chunked"',
    "xchunked",
    "close",
    "keep-alive",
    "Keep-Alive, Upgrade",
    "upgrade,close",
    ",",
    "100-continue",
    "100-Continue",
    "200-ok",
    "websocket",
    "v\xe9",
    "a\x01b",
    "a\rb",
    "\x7f",
]

separator = st.sampled_from([" "] * 20 + ["  ", "\t", ""])
end = st.sampled_from(["\r\n"] * 40 + ENDS)
usual_field = st.sampled_from(
    [
        "Host: h\r\n",
        "Accept: */*\r\n",
        "Content-Length: 5\r\n",
        "Connection: close\r\n",
        "X-A: b\r\n",
        "Cookie: a=b; c=d\r\n",
    ]
)
odd_field = st.builds(
    "{}:{}{}{}".format,
    st.sampled_from(NAMES),
    st.sampled_from(["", " ", "\t", "  "]),
    st.sampled_from(VALUES) | st.text(st.characters(max_codepoint=255), max_size=12),
    end,
)
odd_line = st.text(st.characters(max_codepoint=255), max_size=12).map(lambda text: text + "\r\n")
field = st.one_of(usual_field, usual_field, usual_field, odd_field, odd_field, odd_field, odd_line)


def _encode(text: str) -> bytes:
    # What is no Latin-1 character goes out as UTF-8, which is what attackers send.
    return b"".join(char.encode("latin-1") if char < "\u0100" else char.encode("utf-8") for char in text)


request_line = st.builds(
    "{}{}{}{}{}{}".format,
    st.sampled_from(["GET"] * 8 + METHODS),
    separator,
    st.sampled_from(["/"] * 8 + TARGETS)
    | st.text(st.characters(max_codepoint=255), max_size=12).map(lambda text: "/" + text),
    separator,
    st.sampled_from(["HTTP/1.1"] * 16 + ["HTTP/1.0"] * 4 + VERSIONS),
    end,
)
empty_lines = st.sampled_from([""] * 20 + ["\r\n", "\r\n" * 2, "\r\n" * 9, "\n"])

#: A head, with or without the empty line at its end.
head = st.builds(
    lambda before, line, fields, last: _encode(before + line + "".join(fields) + last),
    empty_lines,
    request_line,
    st.lists(field, max_size=6).map(lambda fields: ["Host: h\r\n", *fields]) | st.lists(field, max_size=20),
    st.sampled_from(["\r\n"] * 20 + ["", "\n", "\r"]),
)

# Chunked bodies.
extension = st.sampled_from(
    [""] * 30
    + [
        ";a",
        ";a=b",
        ';a="b;c"',
        ';a="\\""',
        " ;a",
        ";",
        ";=b",
        ";a=",
        ';a="b',
        ";a=b c",
        "\t",
        " ",
        ";a\x00",
        ";a=\xe9",
        ';a="\xe9"',
    ]
)
size = st.one_of(
    st.integers(0, 40).map("{:x}".format),
    st.integers(0, 40).map("{:X}".format),
    st.sampled_from(
        ["", "0", "00", "0x5", "+5", "-5", " 5", "5 ", "g", "5g", "f" * 15, "f" * 16, "0" * 20 + "5", "\u0665", "\xb2"]
    ),
)


@st.composite
def chunk(draw: st.DrawFn) -> bytes:
    data = draw(st.binary(max_size=24))
    text = f"{len(data):x}" if draw(st.integers(0, 9)) else draw(size)
    after = draw(st.sampled_from(["\r\n"] * 20 + ["", "\n", "\r", "x\r\n", "\rx\n"]))
    return _encode(text + draw(extension) + draw(end)) + data + _encode(after)


trailer = st.one_of(usual_field, odd_field, odd_line)

chunked_body = st.builds(
    lambda chunks, last, trailers, done: b"".join(chunks) + _encode(last + "".join(trailers) + done),
    st.lists(chunk(), max_size=6),
    st.sampled_from(["0\r\n"] * 10 + ["0;a=b\r\n", "000\r\n", "0\n", "", "0 \r\n"]),
    st.lists(trailer, max_size=3),
    st.sampled_from(["\r\n"] * 10 + ["", "\n", "\r", "X: y\r\n\r\n"]),
)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of `source`, sometimes with a few of them changed, left out, doubled or added."""
    data = bytearray(draw(source))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 4]))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[at : at + draw(st.integers(1, 4))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 8))]
            case _:
                data[at:at] = draw(
                    st.sampled_from([b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b",", b";", b"0", b"\xff"])
                )
    return bytes(data)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[int]:
    """Where to cut `data` before it arrives; every part has a byte at least."""
    if len(data) < 2:
        return []
    if draw(st.booleans()):
        step = draw(st.sampled_from([1, 2, 3, 7]))
        return list(range(step, len(data), step))
    return sorted(draw(st.sets(st.integers(1, len(data) - 1), max_size=6)))


#: A right request: (method, target, fields, body, whether the body is chunked).
_token = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12
)
_value = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(lambda text: text.strip(" \t"))
_framing = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "proxy-connection"}


@st.composite
def right_request(draw: st.DrawFn) -> bytes:
    """A request that every parser must accept, whole."""
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]))
    target = "/" + draw(st.text("abcXYZ019-._~!$&'()*+,;=:@/?%", max_size=20))
    body = draw(st.binary(max_size=60))
    fields = [
        (name, value)
        for name, value in draw(st.lists(st.tuples(_token, _value), max_size=20))
        if name.lower() not in _framing
    ]
    fields.insert(draw(st.integers(0, len(fields))), ("Host", "example.org"))
    wire = bytearray()
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    if framing == "length":
        fields.insert(draw(st.integers(0, len(fields))), ("Content-Length", str(len(body))))
        wire += body
    elif framing == "chunked":
        fields.insert(
            draw(st.integers(0, len(fields))), ("Transfer-Encoding", draw(st.sampled_from(["chunked", "Chunked"])))
        )
        for piece in draw(st.permutations([body[:7], body[7:20], body[20:]])):
            if piece:
                wire += b"%x\r\n%b\r\n" % (len(piece), piece)
        wire += b"0\r\n\r\n"
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return head.encode("ascii") + bytes(wire)
