"""One set-up for everything that a served program logs: its own records, Armature's, and the access log."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

from armature._spec.access import FIELD_NUMBERS, FIELDS
from armature.exceptions import ConfigurationError

__all__ = [
    "ACCESS_FORMATS",
    "ACCESS_LOGGER",
    "ACCESS_MESSAGE",
    "JSONFormatter",
    "TextFormatter",
    "access_parts",
    "configure_logging",
    "has_foreign_handlers",
    "json_parts",
]

#: The logger of the access log.
ACCESS_LOGGER = "armature.access"

#: What an access record says, where a handler adds time and level.
ACCESS_MESSAGE = '%(client)s "%(method)s %(path)s HTTP/%(version)s" %(status)s %(bytes)s %(duration_us)sus'

#: Access log formats that have a name. None holds a query string, for queries hold names, tokens and searches; who
#: wants it writes a format with `%(target)s`.
ACCESS_FORMATS = {
    "default": "%(time)s INFO     " + ACCESS_MESSAGE,
    "common": '%(client)s - - [%(time_common)s] "%(method)s %(path)s HTTP/%(version)s" %(status)s %(bytes)s',
    "combined": '%(client)s - - [%(time_common)s] "%(method)s %(path)s HTTP/%(version)s" %(status)s %(bytes)s '
    '"%(referer)s" "%(user_agent)s"',
}

#: What a JSON line of the access log has unless a format chooses.
_JSON_FIELDS = (
    "time",
    "client",
    "method",
    "path",
    "version",
    "status",
    "bytes",
    "duration_us",
    "user_agent",
    "referer",
    "request_id",
)

_PLACE = re.compile(r"%(?:\((\w+)\)[sd]|(%))")

#: What every record has; anything else came as `extra`.
_RECORD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def access_parts(
    template: str, form: Literal["text", "json"]
) -> tuple[tuple[tuple[bytes, str | None], ...], tuple[str, ...]]:
    """Read a format of the access log.

    Args:
        template: One of `ACCESS_FORMATS`, or a text with places such as `%(status)s`.
        form: Whether lines are text, or JSON with the fields that the format names.

    Returns:
        What a line is made of, as `armature._impl.report.AccessLines` takes it, and the fields in order.

    Raises:
        ConfigurationError: There is no such field, or a `%` stands alone.
    """
    text = ACCESS_FORMATS.get(template, template)
    if template == "default":
        text = text.replace("INFO     ", f"INFO     {_process_name().replace('%', '%%')}")
    parts: list[tuple[bytes, str | None]] = []
    literal, at = "", 0
    for place in _PLACE.finditer(text):
        literal += text[at : place.start()]
        at = place.end()
        if place[2]:
            literal += "%"
            continue
        if place[1] not in FIELD_NUMBERS:
            raise ConfigurationError(
                f"access_log_format has no field {place[1]!r}; it has {', '.join(FIELDS)}, "
                f"or is one of {', '.join(ACCESS_FORMATS)}"
            )
        parts.append((_line(literal), place[1]))
        literal = ""
    rest = text[at:]
    if "%" in _PLACE.sub("", text):
        raise ConfigurationError(f"access_log_format {template!r} has a % that is neither %(field)s nor %%")
    fields = tuple(dict.fromkeys(name for _, name in parts if name is not None))
    if not fields:
        raise ConfigurationError(
            f"access_log_format {template!r} names no field; write %(status)s and the like, or one of "
            f"{', '.join(ACCESS_FORMATS)}"
        )
    if form == "text":
        return (*parts, (_line(literal + rest), None)), fields
    if template == "default":
        fields = _JSON_FIELDS
    return json_parts(fields, f',"level":"info","logger":"{ACCESS_LOGGER}","pid":{os.getpid()}'), fields


def json_parts(fields: Sequence[str], closing: str = "") -> tuple[tuple[bytes, str | None], ...]:
    """Return what a JSON object with these fields is made of, as `armature._impl.report.AccessLines` takes it.

    Args:
        fields: Some of the fields of the access log.
        closing: What stands before its closing brace.
    """
    keys = [(f'{"," if number else "{"}"{name}":'.encode(), name) for number, name in enumerate(fields)]
    return (*keys, (f"{closing}}}".encode(), None))


def _line(literal: str) -> bytes:
    if "\n" in literal or "\r" in literal:
        raise ConfigurationError("access_log_format must be a single line")
    return literal.encode()


class TextFormatter(logging.Formatter):
    """Formats records as lines of text: time (UTC), level, message.

    Args:
        processes: Whether the name of the process stands before the message.
    """

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self, processes: bool = False) -> None:
        self.processes = processes
        super().__init__(f"%(asctime)s %(levelname)-8s {'%(processName)-10s ' if processes else ''}%(message)s")


class JSONFormatter(logging.Formatter):
    """Formats records as one JSON object per line: time (UTC), level, logger, message, and what came as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{second}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _RECORD and name not in line:
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # What json cannot write is written as its repr: a line with less is better than an error about logging.
        try:
            return _dumps(line)
        except (ValueError, RecursionError):
            # Something contains itself, or is no finite number.
            return _dumps({name: value if type(value) in (str, int) else repr(value) for name, value in line.items()})


def _dumps(line: dict[str, Any]) -> str:
    return json.dumps(line, default=repr, skipkeys=True, allow_nan=False, separators=(",", ":"))


class _Handler(logging.StreamHandler[Any]):
    """The handler that `configure_logging` installs; known by its class."""


def configure_logging(level: str = "info", form: Literal["text", "json"] = "text", processes: bool = False) -> None:
    """Set the level of Armature's loggers; in a program that has no handlers yet, log to stderr.

    A program that configured logging itself keeps its handlers and formats.

    Args:
        level: `"critical"`, `"error"`, `"warning"`, `"info"` or `"debug"`.
        form: `"text"`, or `"json"` for a JSON object per line.
        processes: Whether several processes log to the same place, so that each line of text says which one wrote it;
            one of JSON does so anyway.
    """
    armature = logging.getLogger("armature")
    armature.setLevel(level.upper())
    logging.getLogger(ACCESS_LOGGER).setLevel(logging.INFO)
    root = logging.getLogger()
    own = _own_handler()
    if own is None:
        if armature.hasHandlers():
            return
        own = _Handler(sys.stderr)
        root.addHandler(own)
        # The program's own loggers speak too, but libraries do not chatter.
        root.setLevel(max(armature.level, logging.INFO))
    own.setFormatter(JSONFormatter() if form == "json" else TextFormatter(processes))


def _own_handler() -> _Handler | None:
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)), None)


def _process_name() -> str:
    """What stands before the message in lines of text, as `TextFormatter` has it."""
    own = _own_handler()
    formatter = None if own is None else own.formatter
    if isinstance(formatter, TextFormatter) and formatter.processes:
        import multiprocessing

        return f"{multiprocessing.current_process().name:<10} "
    return ""


def has_foreign_handlers(name: str) -> bool:
    """Whether records of a logger go to handlers that the program has set up itself."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(not isinstance(handler, _Handler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
