"""A state machine that plays peer, handlers and transport against both connection twins at once.

After every step the two must show the same: bytes on the wire (with one date for all), state, what is carried, what
was logged. At the end, `http.client` must be able to take the wire apart into the answers of a prefix of the requests.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from armature._spec.states import State
from twins import messages
from twins.harness import Harness, responses

PATHS = [
    "/", "/show", "/dict", "/none", "/odd", "/unencodable", "/created", "/reset", "/unchanged", "/fields", "/close", "/suspend",
    "/suspend-bare", "/read", "/small", "/ignore", "/keep", "/fail", "/fail-late", "/fail-twice", "/fail-slowly", "/stream",
    "/stream-length", "/stream-fail", "/future", "/cancel", "/nowhere", "/number/7", "/number/x", "/text/a%20b/1", "/any", "/rest/x/y",
    "/large", "http://other/show", "/surrogate",
]  # fmt: skip
LATER = {"/suspend", "/suspend-bare", "/fail-late", "/fail-slowly", "/stream", "/future", "/read", "/small"}

path = st.sampled_from(PATHS + sorted(LATER) * 2)
method = st.sampled_from(["GET"] * 6 + ["POST"] * 6 + ["HEAD", "PUT", "OPTIONS", "DELETE"])
connection_field = st.sampled_from(
    [""] * 12 + ["Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Upgrade\r\nUpgrade: x\r\n"]
)
body = st.binary(max_size=30)


@st.composite
def request_bytes(draw: st.DrawFn) -> bytes:
    verb, target = draw(method), draw(path)
    version = draw(st.sampled_from(["1.1"] * 8 + ["1.0"]))
    fields = "Host: h\r\n" + draw(connection_field) + draw(st.sampled_from([""] * 6 + ["Expect: 100-continue\r\n"]))
    content = b""
    if verb in ("POST", "PUT") or draw(st.integers(0, 9)) == 0:
        content = draw(body)
        if draw(st.booleans()) and version == "1.1":
            fields += "Transfer-Encoding: chunked\r\n"
            at = draw(st.integers(0, len(content)))
            pieces = [piece for piece in (content[:at], content[at:]) if piece]
            wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            content = draw(messages.mutated(st.just(wire))) if draw(st.integers(0, 5)) == 0 else wire
        else:
            length = len(content)
            if draw(st.integers(0, 11)) == 0:
                length = draw(st.sampled_from([0, 9, 1000, 300_000, 20_000_000]))
            fields += f"Content-Length: {length}\r\n"
    return f"{verb} {target} HTTP/{version}\r\n{fields}\r\n".encode() + content


class Machine(RuleBasedStateMachine):
    rooms: tuple[Any, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.harnesses: list[Harness] = []
        self.sent: list[bytes] = []
        self.left = b""

    @initialize(high_water=st.sampled_from([8, 64 * 1024]))
    def begin(self, high_water: int) -> None:
        self.harnesses = [Harness(room, high_water=high_water) for room in self.rooms]

    def each(self, call: Any) -> None:
        for harness in self.harnesses:
            call(harness)

    @rule(
        requests=st.lists(request_bytes(), min_size=1, max_size=4), into_buffer=st.booleans(), hold=st.integers(0, 40)
    )
    def send(self, requests: list[bytes], into_buffer: bool, hold: int) -> None:
        """Requests arrive together; the last bytes of them may be held back for `send_rest`."""
        self.sent += requests
        data = self.left + b"".join(requests)
        cut = max(len(data) - hold, 1)
        data, self.left = data[:cut], data[cut:]
        self.each(lambda harness: harness.feed(data, into_buffer))

    @rule(count=st.integers(1, 60), into_buffer=st.booleans())
    @precondition(lambda self: self.left)
    def send_rest(self, count: int, into_buffer: bool) -> None:
        data, self.left = self.left[:count], self.left[count:]
        self.each(lambda harness: harness.feed(data, into_buffer))

    @rule(data=messages.mutated(messages.head))
    def send_garbage(self, data: bytes) -> None:
        data, self.left = self.left + data, b""
        if data:
            self.each(lambda harness: harness.feed(data))

    @rule(size=st.sampled_from([10, 3000, 70_000]))
    def send_much(self, size: int) -> None:
        data, self.left = self.left + b"z" * size, b""
        self.each(lambda harness: harness.feed(data))

    @rule(
        index=st.integers(0, 3),
        value=st.sampled_from(["value", 5, None, ValueError("late"), KeyError("late"), asyncio.CancelledError()]),
    )
    @precondition(lambda self: any(not gate.done() for gate in self.harnesses[0].service.gates))
    def open_gate(self, index: int, value: Any) -> None:
        self.each(lambda harness: harness.open_gate(value, index))

    @rule()
    def pause_writing(self) -> None:
        self.each(lambda harness: harness.pause_writing())

    @rule()
    def resume_writing(self) -> None:
        self.each(lambda harness: harness.resume_writing())

    @rule()
    @precondition(lambda self: len(self.sent) > 3)
    def shut_down(self) -> None:
        """As the cold half does: nothing is answered after the request in flight."""

        def shut_down(harness: Harness) -> None:
            harness.connection.closing = True
            if harness.connection.state <= State.READING:
                harness._in_loop(lambda: (harness.connection.close(), harness.connection.flush()))

        self.each(shut_down)

    @rule()
    @precondition(lambda self: len(self.sent) > 5)
    def lose(self) -> None:
        self.each(lambda harness: harness.lose())

    @invariant()
    def both_show_the_same(self) -> None:
        if not self.harnesses:
            return
        first = self.harnesses[0].describe()
        for other in self.harnesses[1:]:
            assert other.describe() == first
        assert first["errors"] == []
        assert first["complaints"] == []

    @invariant()
    def a_connection_is_in_one_state(self) -> None:
        for harness in self.harnesses:
            shown = harness.describe()
            state = State(shown["state"])
            assert state not in (State.IDLE, State.ERROR, State.UPGRADED)
            if state == State.CLOSING and not harness.connection.write_paused:
                assert shown["closed"]
            if state == State.CONNECTED and not shown["carried"] and not harness.connection.write_paused:
                assert shown["reading"]
                assert not harness.waiting
            if shown["busy"] and shown["state"] == State.PROCESSING:
                assert shown["gates"] or not harness.connection.request.receiver.complete

    def teardown(self) -> None:
        wire = self.harnesses[0].wire if self.harnesses else b""
        kept = [[harness.service.tell(request) for request in harness.service.kept] for harness in self.harnesses]
        for harness in self.harnesses:
            harness.close()
        for other in kept[1:]:
            assert other == kept[0]
        if self.harnesses and not wire.startswith(b"HTTP/1.1 100") and b"\r\n\r\nHTTP/1.1 100 Continue" not in wire:
            self._read_again(wire)

    def _read_again(self, wire: bytes) -> None:
        """A wire that ends in a whole answer can be read by somebody else."""
        log = self.harnesses[0].service.log
        if (
            "abort" in log
            or self.harnesses[0].connection.state == State.CLOSED
            or any(s.startswith(b"HEAD") for s in self.sent)
        ):
            return
        if b"transfer-encoding" in wire or not wire:
            return
        answers = [entry for entry in log if entry[0] in ("answered", "refused")]
        found = responses(wire, ["GET"] * (len(answers) + 1))
        assert [status for status, _, _ in found] == [entry[1] for entry in answers if entry[1] != 0][: len(found)]


def machine(rooms: tuple[Any, ...]) -> type[Machine]:
    return type("ConnectionMachine", (Machine,), {"rooms": rooms})


STEPS = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_one_twin_keeps_its_promises(impl: Any) -> None:
    run_state_machine_as_test(machine((impl,)), settings=STEPS)


def test_the_twins_stay_equal(both: Any) -> None:
    run_state_machine_as_test(machine(tuple(both)), settings=STEPS)


def test_a_cut_makes_no_difference(impl: Any) -> None:
    """The same bytes at once, byte by byte, and into the shared buffer."""
    data = b"".join(
        f"{verb} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode() + content
        for verb, target, fields, content in [
            ("GET", "/", "", b""),
            ("POST", "/read", "Content-Length: 3\r\n", b"abc"),
            ("POST", "/read", "Transfer-Encoding: chunked\r\n", b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n"),
            ("HEAD", "/show", "X: y\r\n", b""),
            ("GET", "/number/5", "", b""),
            ("POST", "/none", "Content-Length: 2\r\n", b"xy"),
            ("GET", "/missing", "", b""),
            ("GET", "/show?z", "Connection: close\r\n", b""),
        ]
    )
    wires = []
    for size, into_buffer in ((len(data), False), (len(data), True), (1, False), (1, True), (5, True), (64, False)):
        harness = Harness(impl)
        for at in range(0, len(data), size):
            harness.feed(data[at : at + size], into_buffer)
        wires.append(harness.wire)
        assert harness.transport.closed
        harness.close()
    assert wires == [wires[0]] * len(wires)
    assert wires[0].count(b"HTTP/1.1 200") == 6
