"""The loads: what is asked of every peer, how the answers are checked, and how `wrk` asks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http import peers

TEXT, JSON, BYTES = "text/plain", "application/json", "application/octet-stream"
#: Ids in paths rotate over this many values, because some routers cache whole paths.
ID_COUNT = 4096
ITEM = {"name": "Ada Lovelace", "email": "ada@example.org", "age": 36}
OTHER_ITEM = {"name": "Grace Hopper", "email": "grace@example.org", "age": 50}
LUA = Path(__file__).with_name("load.lua")
#: What a browser sends behind its Host line: eight field lines, and three more with a cookie and the proxy's.
BROWSER = (
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="126", "Not.A/Brand";v="24"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: none\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
)
PROXIED = (
    b"Cookie: session=3f2a9c51b7d84e06; theme=dark; lang=en\r\n"
    b"X-Forwarded-For: 203.0.113.7\r\n"
    b"X-Request-Id: 5b1f7a1c-8f0e-4b58-9a0b-0a1f6f0d6f5e\r\n"
)


def encode_json(value: object) -> bytes:
    """Return `value` as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@dataclass(frozen=True)
class Exchange:
    """One request and what its answer must be.

    Args:
        path: The target.
        body: The expected body: bytes to the letter, or a JSON value compared after decoding; None to ignore it.
        media_type: The expected media type, without parameters.
        status: The expected status, or a range of statuses.
        payload: The request's body; makes it a POST.
        headers: Field lines that the answer must carry.
        fixed: Whether peers that answer with fixed bytes are asked this too.
    """

    path: str
    body: object
    media_type: str | None
    status: int | range = 200
    payload: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    fixed: bool = True


@dataclass(frozen=True)
class Load:
    """One load.

    Args:
        name: As given to `--loads`.
        title: As printed.
        exchanges: What is checked before timing; the first one is what is timed.
        variant: Which variant of the application is started.
        kind: `requests` (timed under wrk), `start` or `memory`.
        rotate: Whether the last segment of the path rotates over ids.
        depth: Requests sent at once on a connection.
        close: Whether each request has a connection of its own.
        connections: Connections kept open, where this load wants another number than the rest.
        raw: What is sent, where the request that follows from `exchanges` would not do.
        idle: For `memory`: how many idle keep-alive connections are held.
    """

    name: str
    title: str
    exchanges: tuple[Exchange, ...] = ()
    variant: str = "base"
    kind: str = "requests"
    rotate: bool = False
    depth: int = 1
    close: bool = False
    connections: int | None = None
    idle: int = 0
    raw: bytes | None = None


_HELLO = Exchange("/", peers.HELLO_BYTES, TEXT)
_LAST = peers.ROUTE_COUNT - 1
_ROUTE = Exchange(peers.route_path(_LAST), peers.route_answer(_LAST).encode(), TEXT)
_OTHER_ROUTE = Exchange(peers.route_path(17), peers.route_answer(17).encode(), TEXT, fixed=False)
_MIDDLEWARE = Exchange(
    "/",
    peers.HELLO_BYTES,
    TEXT,
    headers=tuple(peers.middleware_header(index) for index in range(peers.MIDDLEWARE_COUNT)),
)
_JSON = Exchange("/json", peers.MESSAGE, JSON)
_ITEM = Exchange("/items", peers.item_answer(ITEM), JSON, payload=encode_json(ITEM))
_OTHER_ITEM = Exchange("/items", peers.item_answer(OTHER_ITEM), JSON, payload=encode_json(OTHER_ITEM), fixed=False)
_STREAM = Exchange("/stream", peers.CHUNK * peers.CHUNK_COUNT, BYTES, headers=(("transfer-encoding", "chunked"),))
_USERS = tuple(Exchange(f"/users/{user_id}", {"id": user_id}, JSON) for user_id in (1, 17, ID_COUNT))
_NO_USER = Exchange("/users/ada", None, None, status=range(400, 500))

_HOST = b"Host: 127.0.0.1\r\n"
_CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNKED += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in _pieces(encode_json(ITEM), 8)) + b"0\r\n\r\n"
_FIELDS = b"GET %b HTTP/1.1\r\n" + _HOST + BROWSER

#: Loads that show an optimisation which none of the others shows; `ablate` puts them on Armature alone.
_MORE = (
    Load("browser", "plaintext, a browser's request", (_HELLO,), raw=_FIELDS % b"/" + b"\r\n"),
    Load(
        "headers",
        "reads 12 header fields",
        (Exchange("/headers", b"2", TEXT),),
        "more",
        raw=_FIELDS % b"/headers" + PROXIED + b"\r\n",
    ),
    Load("query", "two query parameters", (Exchange("/search?q=abc&limit=5", {"q": "abc", "limit": 5}, JSON),), "more"),
    Load("deep", "a route of six segments", (Exchange("/api/v1/shops/8/items/5", {"item": 5}, JSON),), "more"),
    Load("chunked", "POST JSON in chunks of 8 bytes", (_ITEM,), raw=b"POST /items HTTP/1.1\r\n" + _HOST + _CHUNKED),
)
_ALL = (
    Load("plaintext", "plaintext", (_HELLO,)),
    Load("pipelined", "pipelined x16", (_HELLO,), depth=16),
    Load("json", "JSON", (_JSON,)),
    Load("param", "/users/{int}", (*_USERS, _NO_USER), rotate=True),
    Load("post", "POST JSON", (_ITEM, _OTHER_ITEM)),
    Load("routes", "1 of 500 routes", (_ROUTE, _OTHER_ROUTE), variant="routes"),
    Load("sleep", "awaits sleep(0)", (Exchange("/suspend/sleep", peers.HELLO_BYTES, TEXT),)),
    Load("future", "awaits a future", (Exchange("/suspend/future", peers.HELLO_BYTES, TEXT),)),
    Load("middleware", "4 middlewares", (_MIDDLEWARE,), variant="middleware"),
    Load("stream", "100 x 1 KiB streamed", (_STREAM,), connections=16),
    Load("upload", "1 MiB upload", (Exchange("/upload", b"1048576", TEXT, payload=peers.MEBIBYTE),), connections=8),
    Load("download", "1 MiB download", (Exchange("/download", peers.MEBIBYTE, BYTES),), connections=8),
    Load("connect", "connection per request", (_HELLO,), close=True),
    Load("start", "cold start", (_HELLO,), kind="start"),
    Load("memory", "idle memory", (_HELLO,), kind="memory"),
    Load("idle", "memory, 2,000 idle connections", (_HELLO,), kind="memory", idle=2000),
)
LOADS = {load.name: load for load in _ALL}
MORE_LOADS = {load.name: load for load in _MORE}


def request_bytes(load: Load, number: int = 1) -> bytes:
    """Return what a load sends at once.

    Args:
        load: Which load.
        number: Which id stands in the path, where the load rotates over them.
    """
    first = load.exchanges[0]
    if load.raw is not None:
        request = load.raw
    elif load.rotate:
        request = b"GET %b%d HTTP/1.1\r\n%b\r\n" % (first.path.rpartition("/")[0].encode() + b"/", number, _HOST)
    else:
        fields = _HOST + (b"Connection: close\r\n" if load.close else b"")
        if first.payload is None:
            request = b"GET %b HTTP/1.1\r\n%b\r\n" % (first.path.encode(), fields)
        else:
            head = b"POST %b HTTP/1.1\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
            media_type = JSON if first.payload.startswith(b"{") else BYTES
            request = head % (first.path.encode(), fields, media_type.encode(), len(first.payload)) + first.payload
    return request * load.depth


def settings(load: Load) -> dict[str, str]:
    """Return the environment that tells `load.lua` what to send."""
    if load.raw is not None:
        return {"LOAD_RAW": load.raw.decode("ascii")}
    first = load.exchanges[0]
    result = {"LOAD_DEPTH": str(load.depth)}
    if load.rotate:
        result["LOAD_PATH"] = first.path.rsplit("/", 1)[0] + "/"
        result["LOAD_IDS"] = str(ID_COUNT)
    else:
        result["LOAD_PATH"] = first.path
    if load.close:
        result["LOAD_CLOSE"] = "1"
    if first.payload is not None:
        # The 1 MiB body does not fit an environment variable: it is one byte, repeated.
        if len(set(first.payload)) == 1:
            result["LOAD_BODY_BYTE"], result["LOAD_BODY_SIZE"] = chr(first.payload[0]), str(len(first.payload))
        else:
            result["LOAD_BODY"] = first.payload.decode()
            result["LOAD_BODY_TYPE"] = JSON
    return result
