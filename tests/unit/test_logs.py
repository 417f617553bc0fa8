"""Logging: one set-up for everything, formats that are checked when they are chosen."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from armature.exceptions import ConfigurationError
from armature.logs import ACCESS_FORMATS, JSONFormatter, TextFormatter, access_parts, configure_logging
from armature.server.config import ServerConfig


def record(message: str = "hello %s", *values: Any, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop.orders", logging.WARNING, __file__, 1, message, values, None)
    made.created, made.msecs = 1_000_000_000.25, 250.0
    vars(made).update(more)
    return made


def test_text_lines() -> None:
    assert TextFormatter().format(record("hello %s", "you")) == "2001-09-09T01:46:40.250Z WARNING  hello you"
    named = record("hello")
    named.processName = "worker-1"
    assert TextFormatter(processes=True).format(named) == "2001-09-09T01:46:40.250Z WARNING  worker-1   hello"


def test_json_lines_hold_what_came_as_extra() -> None:
    line = JSONFormatter().format(record("a\nb %s", "c", order=7, when={1, 2}, é="\x1b[0m"))
    assert line.isascii()
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("pid") > 0
    assert told == {
        "time": "2001-09-09T01:46:40.250Z",
        "level": "warning",
        "logger": "shop.orders",
        "message": "a\nb c",
        "order": 7,
        "when": "{1, 2}",
        "é": "\x1b[0m",
    }


def test_json_lines_hold_the_exception_and_the_stack() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        made = record()
        made.exc_info = sys.exc_info()
    made.args = ("you",)
    made.stack_info = "Stack (most recent call last):"
    told = json.loads(JSONFormatter().format(made))
    assert told["exception"].startswith("Traceback (most recent call last):\n")
    assert told["exception"].endswith("ValueError: wrong")
    assert told["stack"] == "Stack (most recent call last):"
    # What another formatter has written of it already does as well.
    made.exc_info, made.exc_text = None, "ValueError: written"
    assert json.loads(JSONFormatter().format(made))["exception"] == "ValueError: written"


def test_what_json_cannot_write_does_not_raise() -> None:
    loop: list[Any] = []
    loop.append(loop)
    told = json.loads(JSONFormatter().format(record("x", keys={(1, 2): 3}, loop=loop, order=7, number=float("nan"))))
    assert (told["loop"], told["order"], told["number"]) == ("[[...]]", 7, "nan")
    assert json.loads(JSONFormatter().format(record("x", keys={(1, 2): 3}, value=...)))["keys"] == {}


def test_the_parts_of_a_format() -> None:
    assert access_parts("a%%%(status)s b %(bytes)d c", "text") == (
        ((b"a%", "status"), (b" b ", "bytes"), (b" c", None)),
        ("status", "bytes"),
    )
    assert access_parts("%(path)s %(status)s", "json")[1] == ("path", "status")
    for name in ACCESS_FORMATS:
        assert access_parts(name, "text")[0][-1][1] is None


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (
            "%(cookie)s",
            r"^access_log_format has no field 'cookie'; it has client, .*, or is one of default, common, comb",
        ),
        ("%(status)s %s", r"^access_log_format '%\(status\)s %s' has a % that is neither %\(field\)s nor %%$"),
        (
            "combine",
            r"^access_log_format 'combine' names no field; write %\(status\)s and the like, or one of default, ",
        ),
        ("%(status)s\n%(path)s", r"^access_log_format must be a single line$"),
    ],
)
def test_a_wrong_format_is_refused_when_it_is_chosen(template: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        ServerConfig(access_log_format=template)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="^log_format must be one of text, json, not 'xml'$"):
        ServerConfig(log_format="xml")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="^metrics_port must be a number from 0 to 65535, not 70000$"):
        ServerConfig(metrics_port=70000)
    with pytest.raises(ConfigurationError, match=r"^port and metrics_port are both 8000; .*app\.add_route"):
        ServerConfig(metrics_port=8000)
    with pytest.raises(ConfigurationError, match="^metrics_path must be a path such as /metrics, not 'metrics'$"):
        ServerConfig(metrics_path="metrics")
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigurationError, match="^shutdown_delay must be a number of seconds, not "):
            ServerConfig(shutdown_delay=wrong)


def test_a_program_that_has_handlers_keeps_them() -> None:
    # pytest has.
    root, armature = logging.getLogger(), logging.getLogger("armature")
    before, level, access = list(root.handlers), armature.level, logging.getLogger("armature.access").level
    try:
        configure_logging("warning", "json")
        assert root.handlers == before
        assert armature.handlers == []
        assert armature.level == logging.WARNING
    finally:
        armature.setLevel(level)
        logging.getLogger("armature.access").setLevel(access)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_program_without_handlers_gets_one(form: str) -> None:
    source = f"""
        import logging
        from armature.logs import configure_logging, has_foreign_handlers

        configure_logging("info", {form!r})
        configure_logging("debug", {form!r})
        assert len(logging.getLogger().handlers) == 1
        assert not has_foreign_handlers("armature.access")
        logging.getLogger("shop").info("of the program", extra={{"order": 1}})
        logging.getLogger("shop").debug("chatter")
        logging.getLogger("armature.server").debug("of the server")
        logging.getLogger("armature.access").addHandler(logging.NullHandler())
        assert has_foreign_handlers("armature.access")
    """
    program = "\n".join(line.strip() for line in source.splitlines())
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    if form == "json":
        first, second = map(json.loads, lines)
        assert (first["logger"], first["message"], first["order"]) == ("shop", "of the program", 1)
        assert (second["level"], second["message"]) == ("debug", "of the server")
    else:
        assert re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z INFO     of the program", lines[0])
        assert re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z DEBUG    of the server", lines[1])
