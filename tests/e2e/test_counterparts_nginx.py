"""Ranges and conditional requests of files, against nginx: both serve one directory and are asked the same.

Where nginx departs from RFC 9110, or the RFC leaves a choice that was made otherwise, the table `DEPARTURES` says so,
and nginx is asked what the request means by the RFC. All else has to be equal: the status, what is sent of the file,
and the fields that tell a client what it got.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armature import App, StaticFiles
from counterparts import require
from wire_client import Answer, Peer, eventually, serving

pytestmark = pytest.mark.xdist_group("nginx")

MODIFIED = datetime(2021, 11, 6, 8, 49, 37, tzinfo=UTC)
#: Read in one step; sent by `sendfile`, or in pieces where it has several parts; and the two smallest there are.
SIZES = {"small.txt": 1000, "large.bin": 200_000, "one.bin": 1, "empty.bin": 0}

CONFIGURATION = """
daemon off;
master_process off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    types {{ "text/plain; charset=utf-8" txt; }}
    default_type application/octet-stream;
    keepalive_requests 1000000;
    if_modified_since before;
    max_ranges 32;
    server {{
        listen unix:{home}/socket;
        location /files/ {{ alias {files}/; }}
    }}
}}
"""


class Server:
    """One of the two: a connection that is kept, and the entity tags of its files.

    Args:
        address: Where it listens.
        closes: The status after which it closes the connection, although it does not say so.
    """

    def __init__(self, address: Any, closes: int | None = None) -> None:
        self._address = address
        self._closes = closes
        self._peer = Peer(address)
        self.tags = {name: self.ask("GET", name, []).headers["etag"] for name in SIZES}

    def ask(self, method: str, name: str, fields: list[tuple[str, str]]) -> Answer:
        lines = [f"{method} /files/{name} HTTP/1.1", "Host: test", *(f"{field}: {value}" for field, value in fields)]
        kept = False
        try:
            answer = self._peer.send("\r\n".join([*lines, "", ""]).encode()).answer(method)
            # Were the length of one answer wrong, the next request on this connection would show it.
            assert answer.headers.get("connection") != "close"
            kept = answer.status != self._closes or not self._peer.ended()
        finally:
            if not kept:
                self.close()
                self._peer = Peer(self._address)
        return answer

    def close(self) -> None:
        self._peer.close()


class Both(NamedTuple):
    ours: Server
    nginx: Server
    files: Path


@contextlib.contextmanager
def nginx_serving(files: Path) -> Iterator[str]:
    """Run nginx over a directory as this user; yields its Unix socket."""
    # The path of a socket has room for a hundred characters, and those of pytest are long.
    home = Path(tempfile.mkdtemp(prefix="nginx-"))
    try:
        (home / "nginx.conf").write_text(CONFIGURATION.format(home=home, files=files))
        command = [require("nginx"), "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                eventually(lambda: _connects(home / "socket") or process.poll() is not None)
                assert process.poll() is None, process.communicate()[0]
                yield str(home / "socket")
            finally:
                process.kill()
    finally:
        shutil.rmtree(home)


def _connects(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), Peer(str(path)):
        return True
    return False


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    files = tmp_path_factory.mktemp("served")
    for name, size in SIZES.items():
        (files / name).write_bytes(bytes(position * 7919 >> 3 & 0xFF for position in range(size)))
        os.utime(files / name, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    app = App()
    app.mount("/files", StaticFiles(files))
    with nginx_serving(files) as socket, serving(app, "asyncio") as running, contextlib.ExitStack() as stack:
        ours = Server(running.address)
        stack.callback(ours.close)
        nginx = Server(socket, closes=412)
        stack.callback(nginx.close)
        yield Both(ours, nginx, files)


# ---- what is asked


@dataclass(frozen=True)
class Ask:
    """A request. In its fields `{tag}` stands for the entity tag of the file, which each server spells in its own way."""

    fields: dict[str, str]
    name: str = "small.txt"
    method: str = "GET"

    def without(self, *names: str) -> Ask:
        return replace(self, fields={name: value for name, value in self.fields.items() if name not in names})

    def having(self, name: str, value: str) -> Ask:
        return replace(self, fields={**self.fields, name: value})

    def of(self, server: Server) -> Answer:
        tag = server.tags.get(self.name, '"none"')
        fields = [(name, value.replace("{tag}", tag)) for name, value in self.fields.items()]
        return server.ask(self.method, self.name, fields)

    @property
    def specs(self) -> list[str]:
        """The ranges that are asked for."""
        return [spec.strip(" \t") for spec in self.fields.get("range", "").partition("=")[2].split(",")]


#: ranges-specifier (RFC 9110 section 14.1.1), with the empty elements of a list that a recipient has to accept.
SPECIFIER = re.compile(r"(?i:bytes)=[ \t,]*(?:[0-9]+-[0-9]*|-[0-9]+)(?:[ \t]*,[ \t]*(?:[0-9]+-[0-9]*|-[0-9]+)?)*")
DATE = re.compile(r"[MTWFS][a-z]+, .* GMT|[MTWFS][a-z]{2} [A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} [0-9]{4}")


def backwards(specs: list[str]) -> bool:
    """Whether one of the ranges ends before it begins, which makes all of the field invalid."""
    pairs = [spec.partition("-") for spec in specs if spec]
    return any(first and last and int(last) < int(first) for first, _, last in pairs)


def no_precondition_beside_a_stronger_one(ask: Ask) -> Ask:
    if "if-match" in ask.fields:
        ask = ask.without("if-unmodified-since")
    if "if-none-match" in ask.fields:
        ask = ask.without("if-modified-since")
    return ask


def no_invalid_date(ask: Ask) -> Ask:
    date = ask.fields.get("if-unmodified-since")
    return ask.without("if-unmodified-since") if date is not None and not DATE.fullmatch(date) else ask


def no_range_of_a_head(ask: Ask) -> Ask:
    return ask.without("range") if ask.method == "HEAD" else ask


def no_invalid_range(ask: Ask) -> Ask:
    given = ask.fields.get("range")
    if given is not None and (not SPECIFIER.fullmatch(given) or backwards(ask.specs)):
        return ask.without("range")
    return ask


def no_empty_elements(ask: Ask) -> Ask:
    given = ask.fields.get("range")
    return ask if given is None or all(ask.specs) else ask.having("range", "bytes=" + ",".join(filter(None, ask.specs)))


def no_tabs(ask: Ask) -> Ask:
    given = ask.fields.get("range")
    return ask if given is None else ask.having("range", given.replace("\t", " "))


def no_long_numbers(ask: Ask) -> Ask:
    given = ask.fields.get("range")
    return ask if given is None else ask.having("range", re.sub(r"\b0*([0-9]{1,17})[0-9]*", r"\1", given))


def no_ranges_beyond_the_limit(ask: Ask) -> Ask:
    return ask.without("range") if len(ask.specs) > 32 else ask


def no_range_of_nothing(ask: Ask) -> Ask:
    return ask.without("range") if ask.name == "empty.bin" else ask


#: Section of RFC 9110, what nginx does otherwise, and the request that means the same to both.
DEPARTURES: list[tuple[str, str, Callable[[Ask], Ask]]] = [
    (
        "13.1.3, 13.1.4",
        "If-Modified-Since counts beside If-None-Match, and If-Unmodified-Since beside If-Match; both must be ignored",
        no_precondition_beside_a_stronger_one,
    ),
    ("13.1.4", "an If-Unmodified-Since that is no date fails; it must be ignored", no_invalid_date),
    ("14.2", "HEAD is answered 206; Range has a meaning for GET alone", no_range_of_a_head),
    ("14.2", "an invalid Range gets 416; it may be ignored as well, and is", no_invalid_range),
    ("5.6.1.2", "an empty element of a list of ranges gets 416; it must be accepted", no_empty_elements),
    ("5.6.3", "a tab beside a comma gets 416; it is optional whitespace, as a space is", no_tabs),
    ("14.1.1", "a number of more than 63 bits gets 416; large ones are to be expected", no_long_numbers),
    ("14.2", "the limit is for the ranges that can be satisfied, not for those given", no_ranges_beyond_the_limit),
    (
        "14.2",
        "an empty file gets 416 for a range that begins behind its first octet; Range may be ignored, and always is",
        no_range_of_nothing,
    ),
]


# ---- what comes back


class Part(NamedTuple):
    start: int
    stop: int
    content: bytes


CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


def part(content_range: str, content: bytes, size: int) -> Part:
    match = CONTENT_RANGE.fullmatch(content_range)
    assert match is not None, content_range
    first, last, length = map(int, match.groups())
    assert length == size
    assert len(content) == last + 1 - first
    return Part(first, last + 1, content)


def parts(answer: Answer, size: int, content_type: str) -> list[Part]:
    """What a 200 or 206 holds of the file."""
    if answer.status == 200:
        assert "content-range" not in answer.headers
        assert answer.headers["content-type"] == content_type
        return [Part(0, size, answer.body)]
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    if kind != "multipart/byteranges":
        assert answer.headers["content-type"] == content_type
        return [part(answer.headers["content-range"], answer.body, size)]
    # Of several parts each has a Content-Range, and the whole must not have one (RFC 9110 section 15.3.7.2).
    assert "content-range" not in answer.headers
    preamble, *pieces, end = (b"\r\n" + answer.body.removeprefix(b"\r\n")).split(b"\r\n--" + boundary.encode())
    assert preamble == b""
    assert end == b"--\r\n"
    found = []
    for piece in pieces:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n"))
        assert fields["content-type"] == content_type
        found.append(part(fields["content-range"], content, size))
    return found


def crowded(ranges: list[tuple[int, int]]) -> bool:
    """Whether two of the ranges overlap, or lie closer together than the head of a part is long."""
    ranges = sorted(ranges)
    return any(start < stop + 80 for (_, stop), (start, _) in itertools.pairwise(ranges))


def compare(both: Both, ask: Ask) -> int:
    """Ask both servers; return the status, which is the same."""
    same = ask
    for _, _, meant in DEPARTURES:
        same = meant(same)
    mine, theirs = ask.of(both.ours), same.of(both.nginx)
    if theirs.status in (200, 206) and ask.method == "GET":
        compare_contents(both, same, mine, theirs)
    else:
        assert mine.status == theirs.status
    if mine.status == 416:
        assert mine.headers["content-range"] == theirs.headers["content-range"] == f"bytes */{SIZES[ask.name]}"
    if mine.status in (200, 206, 304):
        assert mine.headers["etag"] == both.ours.tags[ask.name]
    if mine.status in (200, 206):
        assert mine.headers["last-modified"] == theirs.headers["last-modified"]
        assert mine.headers["accept-ranges"] == "bytes"
    if mine.status == 304:
        # The rest is of use to a cache only where there is no entity tag (RFC 9110 section 15.4.5).
        assert not {"content-length", "content-type", "last-modified"} & set(mine.headers)
    if ask.method == "HEAD" and mine.status == 200:
        assert mine.headers["content-length"] == theirs.headers["content-length"] == str(SIZES[ask.name])
        assert mine.headers["content-type"] == theirs.headers["content-type"]
    return mine.status


def compare_contents(both: Both, ask: Ask, mine: Answer, theirs: Answer) -> None:
    size = SIZES[ask.name]
    content_type = "text/plain; charset=utf-8" if ask.name.endswith(".txt") else "application/octet-stream"
    assert mine.status in (200, 206)
    ours, expected = parts(mine, size, content_type), parts(theirs, size, content_type)
    if ours == expected and mine.status == theirs.status:
        return
    # Ranges that overlap or nearly touch may be sent as one, or the field ignored (RFC 9110 sections 14.2, 15.3.7.2).
    # nginx, which sends them as they are unless they add up to more than the file, says what each of them is.
    answers = [ask.having("range", f"bytes={spec}").of(both.nginx) for spec in ask.specs]
    assert {answer.status for answer in answers} <= {206, 416}
    wanted = [parts(answer, size, content_type)[0] for answer in answers if answer.status == 206]
    assert crowded([(start, stop) for start, stop, _ in wanted])
    assert mine.status == 206
    content = (both.files / ask.name).read_bytes()
    assert all(piece == content[start:stop] for start, stop, piece in ours)
    assert not crowded([(start, stop) for start, stop, _ in ours])
    for start, stop, _ in wanted:
        assert any(first <= start and stop <= end for first, end, _ in ours)


# ---- the table


def http_date(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


FORMATS = [http_date, lambda moment: moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"), lambda moment: moment.ctime()]

SAME = http_date(MODIFIED)
BEFORE, AFTER = (http_date(MODIFIED + timedelta(seconds=seconds)) for seconds in (-1, 1))

TABLE: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    # one range
    ({"range": "bytes=0-"}, 206),
    ({"range": "bytes=0-0"}, 206),
    ({"range": "bytes=1-1"}, 206),
    ({"range": "bytes=10-19"}, 206),
    ({"range": "bytes=990-5000"}, 206),
    ({"range": "bytes=-1"}, 206),
    ({"range": "bytes=-5000"}, 206),
    ({"range": "bytes=999-"}, 206),
    ({"range": "Bytes=5-6"}, 206),
    ({"range": "bytes= 5-6"}, 206),
    ({"range": "bytes=0-" + "9" * 40}, 206),
    ({"range": "bytes=-" + "9" * 40}, 206),
    ({"range": "bytes=" + "0" * 40 + "5-6"}, 206),
    ({"range": "bytes=1000-"}, 416),
    ({"range": "bytes=1000-1000"}, 416),
    ({"range": "bytes=" + "9" * 40 + "-"}, 416),
    ({"range": "bytes=-0"}, 416),
    # several
    ({"range": "bytes=0-0,999-999"}, 206),
    ({"range": "bytes=999-999,0-0"}, 206),
    ({"range": "bytes=0-9, 200-209 ,\t-5"}, 206),
    ({"range": "bytes=0-9,1000-"}, 206),
    ({"range": "bytes=1000-,2000-,-0"}, 416),
    ({"range": "bytes=0-9,5-14"}, 206),
    ({"range": "bytes=0-,0-,0-"}, 206),
    ({"range": "bytes=500-,0-499"}, 206),
    ({"range": "bytes=0-9,,200-209,"}, 206),
    ({"range": "bytes=" + ",".join(f"{n * 2}-{n * 2}" for n in range(32))}, 206),
    ({"range": "bytes=" + ",".join(f"{n * 2}-{n * 2}" for n in range(33))}, 200),
    # none
    ({"range": "bytes=9-5"}, 200),
    ({"range": "bytes=0-5,9-5"}, 200),
    ({"range": "bytes=a-b"}, 200),
    ({"range": "bytes=-"}, 200),
    ({"range": "bytes="}, 200),
    ({"range": "bytes=1"}, 200),
    ({"range": "bytes=0-5;10-15"}, 200),
    ({"range": "bytes=0 - 5"}, 200),
    ({"range": "bytes =0-5"}, 200),
    ({"range": "bytes"}, 200),
    ({"range": "items=0-5"}, 200),
    ({"range": "0-5"}, 200),
    # If-Range
    ({"range": "bytes=0-5", "if-range": "{tag}"}, 206),
    ({"range": "bytes=0-5", "if-range": '"other"'}, 200),
    ({"range": "bytes=0-5", "if-range": "W/{tag}"}, 200),
    ({"range": "bytes=0-5", "if-range": "{tag}, {tag}"}, 200),
    ({"range": "bytes=0-5", "if-range": "*"}, 200),
    ({"range": "bytes=0-5", "if-range": "yesterday"}, 200),
    ({"range": "bytes=0-5", "if-range": SAME}, 206),
    ({"range": "bytes=0-5", "if-range": BEFORE}, 200),
    ({"range": "bytes=0-5", "if-range": AFTER}, 200),
    ({"range": "bytes=1000-", "if-range": "{tag}"}, 416),
    ({"range": "bytes=1000-", "if-range": '"other"'}, 200),
    ({"if-range": "{tag}"}, 200),
    # entity tags
    ({"if-none-match": "{tag}"}, 304),
    ({"if-none-match": "W/{tag}"}, 304),
    ({"if-none-match": "*"}, 304),
    ({"if-none-match": '"other"'}, 200),
    ({"if-none-match": '"a", W/"b" , {tag}'}, 304),
    ({"if-none-match": '"a,b", {tag}'}, 304),
    ({"if-none-match": "other"}, 200),
    ({"if-match": "{tag}"}, 200),
    ({"if-match": "*"}, 200),
    ({"if-match": '"a", {tag}'}, 200),
    ({"if-match": "W/{tag}"}, 412),
    ({"if-match": '"other"'}, 412),
    ({"if-match": "{tag}", "if-none-match": "{tag}"}, 304),
    ({"if-match": '"other"', "if-none-match": "{tag}"}, 412),
    # dates
    ({"if-modified-since": SAME}, 304),
    ({"if-modified-since": AFTER}, 304),
    ({"if-modified-since": BEFORE}, 200),
    ({"if-modified-since": "yesterday"}, 200),
    ({"if-unmodified-since": SAME}, 200),
    ({"if-unmodified-since": AFTER}, 200),
    ({"if-unmodified-since": BEFORE}, 412),
    ({"if-unmodified-since": "yesterday"}, 200),
    *(({"if-modified-since": spell(MODIFIED)}, 304) for spell in FORMATS),
    *(({"if-unmodified-since": spell(MODIFIED - timedelta(days=3))}, 412) for spell in FORMATS),
    ({"if-none-match": "{tag}", "if-modified-since": BEFORE}, 304),
    ({"if-none-match": '"other"', "if-modified-since": SAME}, 200),
    ({"if-match": "{tag}", "if-unmodified-since": BEFORE}, 200),
    ({"if-match": '"other"', "if-unmodified-since": AFTER}, 412),
    ({"if-unmodified-since": BEFORE, "if-none-match": "{tag}"}, 412),
    # preconditions come before ranges
    ({"range": "bytes=0-5", "if-none-match": "{tag}"}, 304),
    ({"range": "bytes=0-5", "if-match": '"other"'}, 412),
    ({"range": "bytes=0-5", "if-match": "{tag}"}, 206),
    ({"range": "bytes=1000-", "if-modified-since": SAME}, 304),
    ({"range": "bytes=1000-", "if-unmodified-since": BEFORE}, 412),
    ({"range": "bytes=0-5", "if-range": '"other"', "if-unmodified-since": SAME}, 200),
]


@pytest.mark.parametrize(("fields", "status"), TABLE)
def test_table(both: Both, fields: dict[str, str], status: int) -> None:
    assert compare(both, Ask(fields)) == status
    # Ranges are for GET alone; preconditions are not.
    assert compare(both, Ask(fields, method="HEAD")) == (200 if status in (206, 416) else status)
    for name in SIZES:
        compare(both, Ask(fields, name))


def test_a_file_that_is_absent(both: Both) -> None:
    for fields, _ in TABLE:
        assert compare(both, Ask(fields, "absent.txt")) == 404


# ---- what nobody thought of


position = st.sampled_from(
    [0, 1, 2, 78, 79, 80, 81, 500, 919, 920, 998, 999, 1000, 1001, 199_999, 200_000]
) | st.integers(0, 200_100)
spec = st.one_of(
    st.tuples(position, position).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    st.tuples(position, st.integers(0, 100)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}"),
    position.map(lambda first: f"{first}-"),
    position.map(lambda length: f"-{length}"),
)
ranges = st.lists(spec, min_size=1, max_size=6).map(lambda specs: "bytes=" + ",".join(specs))
oddities = st.text("0123456789-, =;btyes\t", max_size=12).map(lambda text: "bytes=" + text.strip(" \t"))
dates = st.builds(
    lambda seconds, spell: spell(MODIFIED + timedelta(seconds=seconds)),
    st.sampled_from([-1, 0, 1]) | st.integers(-600_000_000, 1_000_000_000),
    st.sampled_from(FORMATS),
)
tag = st.sampled_from(["{tag}", "W/{tag}", '"other"', 'W/"other"', '""', '"a,b"'])
tags = st.just("*") | st.lists(tag, min_size=1, max_size=4).map(", ".join)
fields = st.fixed_dictionaries(
    {},
    optional={
        "range": ranges | oddities,
        "if-range": tag | dates,
        "if-match": tags,
        "if-none-match": tags,
        "if-modified-since": dates,
        "if-unmodified-since": dates,
    },
)


@given(st.builds(Ask, fields, st.sampled_from(sorted(SIZES)), st.sampled_from(["GET", "GET", "GET", "HEAD"])))
@settings(max_examples=300, deadline=None)
def test_any_request(both: Both, ask: Ask) -> None:
    compare(both, ask)


@given(ranges, st.sampled_from(["small.txt", "large.bin"]))
@settings(max_examples=200, deadline=None)
def test_any_ranges(both: Both, given_ranges: str, name: str) -> None:
    compare(both, Ask({"range": given_ranges}, name))
