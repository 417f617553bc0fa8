"""The access log on real servers: every line arrives, none is forged, and a reader that stops does not stop the server."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import armature
from armature import App, HttpRequest, HttpResponse
from armature.server.access_log import PIPE_BYTES, LineWriter
from e2e.command_line import command, fetch
from wire_client import Running, eventually

Serve = Callable[..., Running]

posix = pytest.mark.skipif(os.name != "posix", reason="needs pipes and signals of POSIX")

SHOP = """
import logging
from armature import App

app = App()

@app.get("/")
async def index() -> str:
    logging.getLogger("shop").info("of the app", extra={"order": 7})
    return "hello"
"""


def make_app() -> App:
    app = App()

    @app.get("/")
    async def index() -> str:
        return "hello"

    @app.get("/name/{name}")
    async def named(name: str) -> str:
        return name

    @app.get("/stream")
    async def stream(request: HttpRequest) -> HttpResponse:
        async def pieces() -> Any:
            while True:
                yield b"x" * 65536

        return HttpResponse.stream(pieces())

    @app.get("/file")
    async def file(request: HttpRequest) -> HttpResponse:
        return HttpResponse.file(__file__)

    return app


class Log:
    """The reading end of a pipe that servers write their access log to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reading, self.writing = os.pipe()
        self.text = ""
        monkeypatch.setattr("armature.server.access_log.has_foreign_handlers", lambda name: False)
        monkeypatch.setattr("armature.server.access_log._descriptor", lambda stream: self.writing)
        monkeypatch.setattr(logging.getLogger("armature.access"), "level", logging.INFO)

    def read(self) -> None:
        self.text += os.read(self.reading, 1 << 20).decode("ascii")

    def lines(self, count: int) -> list[str]:
        while self.text.count("\n") < count:
            self.read()
        found, self.text = self.text, ""
        assert found.count("\n") == count
        return found.splitlines()

    def close(self) -> None:
        os.close(self.writing)
        os.close(self.reading)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Log(monkeypatch)
    yield made
    made.close()


def test_a_line_per_answer(serve: Serve, log: Log) -> None:
    running = serve(
        make_app(), access_log=True, access_log_format="%(client)s %(method)s %(path)s %(status)s %(bytes)s"
    )
    with running.connect() as peer:
        peer.get("/name/%41?token=secret")
        peer.request("HEAD", "/").answer("HEAD")
        size = len(peer.get("/file").body)
        peer.get("/nothing")
        # Nothing that a client sends ends a line, or reaches a terminal as a control sequence.
        peer.send(b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n").answer()
    lines = log.lines(5)
    assert lines[:3] == ["127.0.0.1 GET /name/%41 200 1", "127.0.0.1 HEAD / 200 0", f"127.0.0.1 GET /file 200 {size}"]
    assert re.fullmatch(r"127\.0\.0\.1 GET /nothing 404 \d+", lines[3])
    assert lines[4] == "127.0.0.1 - - 400 0"


def test_an_answer_that_is_cut_off_is_told_as_far_as_it_got(serve: Serve, log: Log) -> None:
    running = serve(make_app(), access_log=True, access_log_format="%(path)s %(status)s %(bytes)s %(duration_us)s")
    with running.connect() as peer:
        peer.request("GET", "/stream").head()
        peer.exactly(100_000)
        peer.reset()
    path, status, size, duration = log.lines(1)[0].split()
    assert (path, status) == ("/stream", "200")
    assert int(size) >= 65536
    assert int(duration) > 0


def test_behind_a_proxy_the_client_is_the_one_it_names(serve: Serve, log: Log) -> None:
    running = serve(make_app(), access_log=True, access_log_format="%(client)s", trusted_proxies="127.0.0.1")
    with running.connect() as peer:
        peer.get("/", X_Forwarded_For="192.0.2.7")
        peer.get("/", X_Forwarded_For="192.0.2.8")
    assert log.lines(2) == ["192.0.2.7", "192.0.2.8"]


def test_json_lines(serve: Serve, log: Log) -> None:
    running = serve(make_app(), access_log=True, log_format="json")
    with running.connect() as peer:
        peer.get("/", User_Agent='a"b\\', X_Request_Id="7")
    told = json.loads(log.lines(1)[0])
    assert (told["client"], told["path"], told["status"], told["bytes"]) == ("127.0.0.1", "/", 200, 5)
    assert (told["user_agent"], told["request_id"], told["referer"]) == ('a"b\\', "7", None)
    assert told["pid"] == os.getpid()


def test_many_lines_leave_in_few_writes_and_none_is_lost_at_the_end(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = os.write

    def counted(descriptor: int, data: Any) -> int:
        if descriptor == log.writing:
            writes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr("armature.server.access_log.os.write", counted)
    reader = threading.Thread(target=lambda: [log.read() for _ in iter(lambda: log.text.count("\n") < 2000, False)])
    reader.start()
    running = serve(make_app(), access_log=True, access_log_format="%(path)s")
    with running.connect() as peer:
        for _ in range(20):
            peer.send(b"".join(b"GET /name/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(100)))
            for _ in range(100):
                peer.answer()
    running.stop()
    reader.join(20)
    assert log.text.splitlines() == [f"/name/{number}" for number in range(100)] * 20
    assert len(writes) < 60
    # Small enough that the system does not mix them with what other processes write.
    assert max(writes) <= PIPE_BYTES


def test_a_reader_that_stops_does_not_stop_the_server(serve: Serve, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "armature.server")
    running = serve(make_app(), access_log=True, access_log_format="%(path)s")
    request = b"GET /name/%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"n" * 2000)
    before = armature.stats()
    with running.connect() as peer:
        # Twice what may wait.
        for _ in range(100):
            peer.send(request * 10)
            for _ in range(10):
                assert peer.answer().status == 200
        dropped = armature.stats()["report.lines_dropped"] - before["report.lines_dropped"]
        assert dropped > 300
        log.lines(1000 - dropped)
        # Somebody reads again: the log goes on, and says what is missing.
        eventually(lambda: "lines of the access log were dropped" in caplog.text)
        peer.get("/")
        assert log.lines(1) == ["/"]
    assert f"{dropped} lines" in caplog.text


def test_a_program_with_handlers_gets_records(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "armature.access")
    running = serve(make_app(), access_log=True)
    with running.connect() as peer:
        peer.get("/name/%41%0d%0a?q=%22", User_Agent="x")
        peer.request("HEAD", "/").answer("HEAD")
    records = [record for record in caplog.records if record.name == "armature.access"]
    assert [re.sub(r"\d+us$", "", record.getMessage()) for record in records] == [
        '127.0.0.1 "GET /name/%41%0d%0a HTTP/1.1" 200 3 ',
        '127.0.0.1 "HEAD / HTTP/1.1" 200 0 ',
    ]
    extra = vars(records[0])
    assert (extra["client"], extra["method"], extra["status"], extra["bytes"]) == ("127.0.0.1", "GET", 200, 3)
    assert isinstance(extra["duration_us"], int)


def test_records_have_the_fields_of_the_format(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "armature.access")
    running = serve(make_app(), access_log=True, access_log_format="%(time)s %(user_agent)s %(referer)s")
    with running.connect() as peer:
        peer.get("/", User_Agent='"\\')
    (record,) = [record for record in caplog.records if record.name == "armature.access"]
    assert re.fullmatch(r"\d{4}-.*Z \\x22\\x5c -", record.getMessage())
    assert (record.user_agent, record.referer) == (r"\x22\x5c", "-")  # type: ignore[attr-defined]


def test_a_log_that_is_switched_off_costs_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "armature.access")
    running = serve(make_app(), access_log=True)
    assert running.get("/").status == 200
    assert running.state.report is None


@posix
def test_the_command_logs_in_one_shape(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with command("run", "shop:app", "--port", "0", "--access-log", "--log-format", "json", cwd=tmp_path) as server:
        port = int(server.wait_for(r"on http://127\.0\.0\.1:(\d+)")[1])
        for _ in range(3):
            assert fetch(port, "/?q=secret")[0] == 200
        # At once: the lines are still in memory.
        assert server.stop(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in server.output.splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    assert all({"time", "logger", "pid"} <= line.keys() for line in lines)
    assert [line["path"] for line in lines if line["logger"] == "armature.access"] == ["/"] * 3
    assert [line["order"] for line in lines if line["logger"] == "shop"] == [7] * 3
    assert "secret" not in server.output


@posix
def test_the_command_logs_text(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with command(
        "run", "shop:app", "--port", "0", "--access-log", "--access-log-format", "combined", cwd=tmp_path
    ) as server:
        assert fetch(server.port)[0] == 200
        server.wait_for(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET / HTTP/1\.1" 200 5 "-" "-"')
        assert server.stop() == 0


@posix
def test_a_writer_waits_for_a_descriptor_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    writer = LineWriter(writing)
    ended = threading.Event()
    data = b"".join(b"%d %b\n" % (number, b"x" * 90) for number in range(3000))
    writer.put(data)
    eventually(lambda: os.fstat(reading) and len(data) > writer.done)
    assert writer.end(ended.set)
    found = b""
    while len(found) < len(data):
        found += os.read(reading, 65536)
    assert ended.wait(20)
    assert found == data
    assert writer.done == len(data)
    os.close(reading)
    os.close(writing)


@posix
def test_lines_that_cannot_be_written_are_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    before = armature.stats()["access_log.lines_lost"]
    writer = LineWriter(writing)
    writer.put(b"a\nb\n")
    eventually(lambda: armature.stats()["access_log.lines_lost"] == before + 2)
    writer.end(lambda: None)
    os.close(writing)


@posix
def test_a_line_longer_than_a_pipe_takes_at_once_is_written_whole() -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    ended = threading.Event()
    data = b"a\n" + b"b" * (3 * PIPE_BYTES) + b"\n" + b"c\n"
    writer.put(data)
    writer.end(ended.set)
    assert ended.wait(20)
    assert os.read(reading, 1 << 20) == data
    os.close(reading)
    os.close(writing)
