"""The corpus replayed on both twins of the parser and of the connection, whole and cut at every offset."""

from __future__ import annotations

import random
from typing import Any

import pytest

from armature.exceptions import ProtocolError
from corpus import CASES, ROOT, Case
from twins.harness import Harness, responses
from twins.test_parser import Oracle, parse_chunked, parse_head

NAMES = [case.name for case in CASES]
UNLIKE_HTTPTOOLS = {
    "valid-lower-case-method",
    "valid-raw-utf8-target",
    "valid-trailers-are-no-headers",
    "valid-unknown-method",
    "valid-upgrade-ignored",
}


def play(impl: Any, parts: list[bytes], into_buffer: bool = False) -> dict[str, Any]:
    harness = Harness(impl)
    try:
        for part in parts:
            harness.feed(part, into_buffer)
        shown = harness.describe()
        # Whether a client is told to go on depends on what it had sent by then.
        return {**shown, "wire": shown["wire"].replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")}
    finally:
        harness.close()


def statuses_of(wire: bytes, count: int) -> list[int]:
    return [status for status, _, _ in responses(wire, ["GET"] * (count + 1))]


def cuts_of(data: bytes) -> list[int]:
    """Every offset of a short request; of a long one those near its ends and line ends, and some between."""
    if len(data) <= 300:
        return list(range(1, len(data)))
    near = {at + shift for at in range(len(data)) if data[at] == 10 for shift in (-1, 0, 1, 2)}
    near |= set(range(1, 20)) | set(range(len(data) - 20, len(data)))
    chosen = sorted(at for at in near if 0 < at < len(data))
    drawn = random.Random(len(data)).sample(range(1, len(data)), 10)
    return sorted({*drawn, *(chosen if len(chosen) < 60 else random.Random(1).sample(chosen, 60))})


def test_the_index_and_the_files_agree() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert sorted(f"{name}.http" for name in NAMES) == sorted(path.name for path in (ROOT / "requests").iterdir())
    assert len(CASES) >= 150


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_comes_of_it(impl: Any, case: Case) -> None:
    shown = play(impl, [case.data])
    assert shown["errors"] == shown["complaints"] == []
    assert statuses_of(shown["wire"], len(case.statuses)) == case.statuses
    assert shown["closed"] is case.closes


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_cut_makes_no_difference(impl: Any, case: Case) -> None:
    whole = play(impl, [case.data])
    for number, cut in enumerate(cuts_of(case.data)):
        shown = play(impl, [case.data[:cut], case.data[cut:]], into_buffer=number % 2 == 0)
        assert (shown["wire"], shown["state"], shown["closed"]) == (whole["wire"], whole["state"], whole["closed"]), cut
    if len(case.data) < 2000:
        shown = play(impl, [case.data[at : at + 1] for at in range(len(case.data))])
        assert (shown["wire"], shown["closed"]) == (whole["wire"], whole["closed"])


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_both_twins_show_the_same(both: Any, case: Case) -> None:
    middle = len(case.data) // 2
    for parts in ([case.data], [case.data[:middle], case.data[middle:]]):
        parts = [part for part in parts if part]
        assert play(both.py, parts) == play(both.c, parts)
    heads = [parse_head(room.parser.HeadParser(), case.data, []) for room in both]
    assert heads[0] == heads[1]
    if heads[0][0] == "head" and heads[0][2]["chunked"]:
        body = case.data[heads[0][1] :]
        outcomes = [parse_chunked(room.chunked.ChunkedParser(), body, []) for room in both]
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("valid")], ids=lambda case: case.name)
def test_httptools_takes_what_is_right(case: Case) -> None:
    """The third reader must find as many messages as we answer; it knows no method of its own invention."""
    if case.name in UNLIKE_HTTPTOOLS:
        pytest.skip("httptools has a closed list of methods, stops at an upgrade, and is stricter in these")
    found = Oracle(case.data)
    assert len(found.messages) >= len(case.statuses)
    if not case.closes:
        assert not found.failed
        assert len(found.messages) == len(case.statuses)


def test_a_refusal_names_its_reason(impl: Any) -> None:
    """The body of a refusal tells the developer of a client what was wrong; it never echoes what was sent."""
    for case in CASES:
        if case.statuses and case.statuses[0] in (400, 414, 417, 431, 501, 505) and case.name != "connect":
            head = parse_head(impl.parser.HeadParser(), case.data, [])
            if head[0] == "refused":
                error = ProtocolError(head[1], head[2])
                assert error.status == case.statuses[0]
                assert error.message.isascii()
                assert error.message.encode() in play(impl, [case.data])["wire"]
