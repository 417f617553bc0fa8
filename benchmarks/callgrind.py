"""Reads callgrind's profiles: what each function cost, what it called, and which part of a request it worked for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from armature.cli.flame import short

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
_RECURSION = re.compile(r"'\d+$")


def _file(path: str) -> str:
    """Name an object file as a reader thinks of it."""
    name = Path(path).name
    if "_speedups" in path:
        return f"armature {name.partition('.')[0]}"
    if name.startswith(("python", "libpython")):
        return "CPython"
    return name.partition(".")[0]


def _symbol(name: str) -> str:
    """Name a function without Cython's mangling and without the number that callgrind gives to recursive calls."""
    return _RECURSION.sub("", short(name))


#: For the process that is counted. callgrind takes `rep movsb`, by which glibc copies what is large, for an instruction
#: per byte; in this environment glibc copies everything as it copies what is small.
ENVIRON = {
    "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"
}

#: A function: the file that it is in, and its name.
Function = tuple[str, str]


@dataclass
class Profile:
    """What callgrind has counted.

    Args:
        own: Instructions of each function, without what it called.
        calls: Instructions of each call, from caller to callee, with everything below.
    """

    own: Counter[Function] = field(default_factory=Counter)
    calls: Counter[tuple[Function, Function]] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.own.values())

    def by_file(self) -> Counter[str]:
        """Sum the instructions by file, which for the compiled twins is a part of the work."""
        result: Counter[str] = Counter()
        for (file, _), cost in self.own.items():
            result[file] += cost
        return result


def read(lines: Iterable[str]) -> Profile:
    """Read a profile in callgrind's format.

    The format gives each name once, `(number) name`, and only the number from then on. The line after `calls=` is the
    cost of a call with everything below it, and belongs to nobody's own cost.
    """
    names: dict[tuple[str, str], str] = {}

    def resolve(kind: str, text: str) -> str:
        match = _NAME.match(text)
        if match is None:
            return text
        key, name = (kind, match[1]), match[2]
        if name is not None:
            names[key] = name
        return names.get(key, "?")

    profile = Profile()
    file = function = callee_file = callee = "?"
    call = False
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith("ob="):
            callee_file = file = _file(resolve("ob", line[3:]))
        elif line.startswith("fn="):
            function = _symbol(resolve("fn", line[3:]))
        elif line.startswith("cob="):
            callee_file = _file(resolve("ob", line[4:]))
        elif line.startswith("cfn="):
            callee = _symbol(resolve("fn", line[4:]))
        elif line.startswith("calls="):
            call = True
        elif line[:1] and line[:1] in "0123456789+-*":
            parts = line.split()
            cost = int(parts[-1]) if len(parts) >= 2 else 0
            if call:
                profile.calls[(file, function), (callee_file, callee)] += cost
                # The callee is in the caller's own file unless its `cob=` says otherwise.
                callee_file = file
                call = False
            else:
                profile.own[file, function] += cost
    return profile


#: What a request goes through, in order, and the functions that each part begins with: file and name. What they call
#: belongs to them, as far as it is not the beginning of another part.
STAGES: dict[str, re.Pattern[str]] = {
    "loop": re.compile(r"(?!)"),
    "read": re.compile(
        r"armature (?:reactor: (?:Reactor|SocketTransport)_|connection: Connection_\d*(?:feed|received|run_heads|"
        r"get_buffer|buffer_updated|data_received))"
    ),
    "parse": re.compile(r"armature (?:parser: HeadParser_(?:run|clear)|chunked: )"),
    "route": re.compile(r"armature router: RadixRouter_match"),
    "request": re.compile(r"armature (?:connection: Connection_materialise|message: Request_(?:attach|detach))"),
    "dispatch": re.compile(r"armature (?:connection: Connection_(?:dispatch|call_with_params)|dispatch: )"),
    "handler": re.compile(
        r"armature (?:dispatch|pump): \S+ -> CPython: (?:PyIter_Send|\w*PyObject_Vectorcall\w*|PyGen_am_send)"
    ),
    "encode": re.compile(r"armature exchange: \S+ -> CPython: (?:_PyFunction_Vectorcall|\w*PyObject_\w*[Cc]all\w*)"),
    "write": re.compile(
        r"armature (?:exchange: Exchange_|writer: |pump: _Pump_go|connection: Connection_(?:finish|next_request))"
    ),
    "send": re.compile(r"armature wire: Wire_(?:push|send_large)"),
}
_ROUNDS = 60


def by_stage(profile: Profile) -> dict[str, Counter[Function]]:
    """Divide all instructions among the stages of a request; the sums are those of the profile.

    A function that several stages call, such as `malloc`, is divided by what their calls of it cost.
    """
    begins: dict[Function, str] = {}
    handed: dict[tuple[Function, Function], str] = {}
    for function in {*profile.own, *(f for call in profile.calls for f in call)}:
        for stage, pattern in STAGES.items():
            if " -> " not in pattern.pattern and pattern.match(": ".join(function)):
                begins[function] = stage
                break
    incoming: dict[Function, list[tuple[Function, Function]]] = defaultdict(list)
    for call in profile.calls:
        incoming[call[1]].append(call)
        for stage, pattern in STAGES.items():
            if " -> " in pattern.pattern and pattern.match(" -> ".join(": ".join(function) for function in call)):
                handed[call] = stage
    shares: dict[Function, dict[str, float]] = {function: {stage: 1.0} for function, stage in begins.items()}
    free = [function for function in profile.own if function not in begins]
    for function in free:
        if not incoming[function]:
            shares[function] = {"loop": 1.0}
    # Shares travel down the calls; functions that call each other in a circle need several rounds.
    for _ in range(_ROUNDS):
        moved = 0.0
        for function in free:
            if not incoming[function]:
                continue
            found: dict[str, float] = defaultdict(float)
            for call in incoming[function]:
                given = {handed[call]: 1.0} if call in handed else shares.get(call[0], {})
                for stage, share in given.items():
                    found[stage] += share * profile.calls[call]
            whole = sum(found.values())
            if whole:
                now = {stage: cost / whole for stage, cost in found.items()}
                before = shares.get(function, {})
                moved += sum(abs(share - before.get(stage, 0.0)) for stage, share in now.items())
                shares[function] = now
        if moved < 1e-3:
            break
    result: dict[str, Counter[Function]] = {stage: Counter() for stage in STAGES}
    for function, cost in profile.own.items():
        for stage, share in shares.get(function, {"loop": 1.0}).items():
            result[stage][function] += round(cost * share)
    return result
