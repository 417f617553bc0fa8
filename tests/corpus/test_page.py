"""The page that lists what is refused shows exactly the hostile requests of the corpus."""

from __future__ import annotations

import re
from pathlib import Path

from corpus import CASES, Case

PAGE = Path(__file__).parent.parent.parent / "docs" / "internals" / "parser-strictness.md"
ROW = re.compile(r"^\| `([\w-]+)` \| (.*?) \| (\d{3}) \| (.*?) \|$", re.MULTILINE)


def link(rfc: str) -> str:
    number, section = rfc.split()
    return f"[RFC {number} §{section}](https://www.rfc-editor.org/rfc/rfc{number}#section-{section})"


def row(case: Case) -> str:
    status = next(status for status in case.statuses if status >= 400)
    return f"| `{case.name}` | {case.why} | {status} | {link(case.rfc)} |"


def test_the_page_lists_every_refusal() -> None:
    refused = [case for case in CASES if case.closes and case.statuses[-1] >= 400]
    shown = ROW.findall(PAGE.read_text("utf-8"))
    assert [line[0] for line in shown] == [case.name for case in refused]
    assert ["| `{}` | {} | {} | {} |".format(*line) for line in shown] == [row(case) for case in refused]
