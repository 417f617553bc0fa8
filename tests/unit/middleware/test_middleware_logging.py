"""One line per request."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from armature import App, ConfigurationError, HttpResponse, LoggerMiddleware, get
from carrier import Answer

Ask = Callable[..., Answer]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    caplog.set_level(logging.INFO, "armature.access")
    return lambda: [
        (record.levelno, record.getMessage()) for record in caplog.records if record.name == "armature.access"
    ]


def test_a_line_with_what_it_took(ask: Ask, lines: Any) -> None:
    app = App().wrap(LoggerMiddleware.default()).route("/a", get(lambda: "x"))
    ask(app, "/a?b=%20c")
    ask(app, "/none", "POST")
    (level, first), (_, second) = lines()
    assert level == logging.INFO
    assert re.fullmatch(r'127\.0\.0\.1 "GET /a\?b=%20c HTTP/1\.1" 200 \d+\.\d ms', first)
    assert '"POST /none HTTP/1.1" 404 ' in second


def test_errors_are_logged_as_errors(ask: Ask, lines: Any) -> None:
    app = App().wrap(LoggerMiddleware("%(status)d %(length)d"))

    @app.get("/raises")
    async def raises() -> None:
        raise ValueError

    app.route("/503", get(lambda: ("x", 503)))
    app.route("/stream", get(lambda: HttpResponse.stream(iter([b"x"]))))
    for path in ("/raises", "/503", "/stream"):
        ask(app, path)
    assert lines() == [(logging.ERROR, "500 -1"), (logging.ERROR, "503 1"), (logging.INFO, "200 -1")]


def test_a_format_of_ones_own(ask: Ask, lines: Any) -> None:
    app = App().wrap(LoggerMiddleware("%(user_agent)s %(referer)s %(path)s", skip=("/health",)))
    app.route("/", get(lambda: "x")).route("/health", get(lambda: "ok"))
    ask(app, "/", headers=[("user-agent", 'a"\tb\xff')])
    ask(app, "/health")
    assert lines() == [(logging.INFO, "a\\x22\\tb\\xff - /")]


def test_nothing_is_done_when_nobody_listens(ask: Ask) -> None:
    logger = logging.getLogger("armature.test.silent")
    logger.setLevel(logging.CRITICAL)
    app = App().wrap(LoggerMiddleware(logger=logger)).route("/", get(lambda: "x"))
    assert ask(app, "/").text == "x"


def test_bad_formats() -> None:
    with pytest.raises(ConfigurationError, match="LoggerMiddleware knows no 'nothing'; it knows client, method"):
        LoggerMiddleware("%(nothing)s")
    with pytest.raises(ConfigurationError, match="cannot use the format"):
        LoggerMiddleware("%(client)y")
