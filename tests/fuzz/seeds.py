"""Where fuzzing begins: the corpus of requests, what fuzzing has found, and words that it would be long in finding."""

from __future__ import annotations

import ast
from pathlib import Path

from corpus import CASES

__all__ = ["DICTIONARY", "keep", "kept", "write_seeds"]

#: Of each target the inputs that led a fuzzer somewhere new, a bytes literal a line, the shortest first.
KEPT = Path(__file__).parent / "kept"

DICTIONARY = [
    b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"HTTP/2.0", b"http://h", b"\r\n", b"\r\n\r\n",
    b"Host: h\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: x\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b";a=\"b\"", b"/suspend", b"/read", b"/stream", b"/ignore",
    b"/small", b"/number/12", b"/text/a%2Fb/1", b"/rest/x", b"/fail-late", b"/close", b"%FF", b"\xff",
]  # fmt: skip


def kept(target: str) -> list[bytes]:
    """What fuzzing a target has found."""
    return [ast.literal_eval(line) for line in (KEPT / f"{target}.txt").read_text("ascii").splitlines()]


def keep(target: str, folder: Path) -> None:
    """Add the files of a folder, which a fuzzer of this target has filled."""
    found = {*kept(target), *(path.read_bytes() for path in folder.iterdir())}
    lines = [f"{data!r}\n" for data in sorted(found, key=lambda data: (len(data), data))]
    (KEPT / f"{target}.txt").write_text("".join(lines), "ascii")


def write_seeds(folder: Path, target: str) -> None:
    """Write one small file per seed, each with the byte in front that chooses cuts and limits."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if len(case.data) > 600:
            continue
        data = case.data.partition(b"\r\n\r\n")[2] if target == "chunked" else case.data
        if target == "router":
            data = case.data.split(b" ")[1][1:] if case.data.count(b" ") > 1 else b""
        if data:
            (folder / case.name).write_bytes(b"\x05" + data if target not in ("field", "router") else data)
    for number, data in enumerate(kept(target)):
        (folder / f"kept-{number}").write_bytes(data)
