"""Server-sent events: the encoder against a parser written from the standard."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armature.http import ServerSentEvent
from armature.http.sse import encode_event


def parse(stream: bytes) -> list[dict[str, Any]]:
    """Interpret an event stream as the WHATWG standard says, section 9.2.6."""
    text = stream.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    events: list[dict[str, Any]] = []
    data: list[str] = []
    event = last_id = ""
    for line in text.split("\n"):
        if not line:
            if data:
                events.append({"data": "\n".join(data), "event": event or "message", "id": last_id})
            data, event = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        ("hello", b"data: hello\n\n"),
        ("", b"data: \n\n"),
        ("a\nb", b"data: a\ndata: b\n\n"),
        ("a\r\nb\rc\n", b"data: a\ndata: b\ndata: c\ndata: \n\n"),
        ("\u2028\x85\x0b\x0c\x1c", "data: \u2028\x85\x0b\x0c\x1c\n\n".encode()),
        (" x", b"data:  x\n\n"),
        ("é", "data: é\n\n".encode()),
        (
            {"data": {"a": 1}, "event": "update", "id": 7, "retry": 1000},
            b'event: update\nid: 7\nretry: 1000\ndata: {"a":1}\n\n',
        ),
        ({"a": 1}, b'data: {"a":1}\n\n'),
        ({"data": 1, "other": 2}, b'data: {"data":1,"other":2}\n\n'),
        ({}, b"data: {}\n\n"),
        ({"comment": "keep-alive"}, b": keep-alive\n\n"),
        (ServerSentEvent(comment="a\nb"), b": a\n: b\n\n"),
        (ServerSentEvent([1, 2]), b"data: [1,2]\n\n"),
        (ServerSentEvent("x", id=""), b"id: \ndata: x\n\n"),
        (ServerSentEvent(), b"\n"),
        ("\ud800", b"data: ?\n\n"),
    ],
)
def test_encoding(event: Any, encoded: bytes) -> None:
    assert encode_event(event) == encoded


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "a\nb"},
        {"event": "a\rb"},
        {"event": "x\n\ndata: evil"},
        {"id": "a\nb"},
        {"id": "a\rb"},
        {"id": "a\0b"},
        {"retry": -1},
    ],
)
def test_a_field_cannot_begin_another_one(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        ServerSentEvent("x", **fields)


@pytest.mark.parametrize("wrong", [5, b"x", None, [1]])
def test_wrong_events(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an event must be"):
        encode_event(wrong)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_browsers_read_what_is_written(events: list[str]) -> None:
    stream = b"".join(encode_event(event) for event in events)
    normal = [event.replace("\r\n", "\n").replace("\r", "\n") for event in events]
    # Blink and WebKit, as the standard, drop one leading byte order mark of the whole stream; ours begins with "data".
    assert [event["data"] for event in parse(stream)] == normal


@given(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=8),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
def test_fields_read_back(event: str, event_id: str, data: str) -> None:
    parsed = parse(ServerSentEvent(data, event=event, id=event_id, comment=data).encode())
    assert parsed == [
        {"data": data.replace("\r\n", "\n").replace("\r", "\n"), "event": event, "id": event_id},
    ]


def test_equality_and_repr() -> None:
    assert ServerSentEvent("a", id="1") == ServerSentEvent("a", id=1)
    assert ServerSentEvent("a") != ServerSentEvent("b")
    assert ServerSentEvent("a") != "a"
    assert repr(ServerSentEvent("a", event="b")) == "ServerSentEvent(data='a', event='b')"
