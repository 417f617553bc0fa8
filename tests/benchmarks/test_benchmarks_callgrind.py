"""Reading callgrind's profiles, and dividing them among the stages of a request."""

from __future__ import annotations

from benchmarks import callgrind

PROFILE = """\
version: 1
creator: callgrind-3.19.0
desc: Trigger: Client Request: plaintext
events: Ir

ob=(1) /lib/python3.11/site-packages/armature/_speedups/connection.cpython-311-x86_64-linux-gnu.so
fl=(1) ???
fn=(1) __pyx_f_8armature_9_speedups_10connection_10Connection_run_heads
0 100
cob=(2) /lib/python3.11/site-packages/armature/_speedups/parser.cpython-311-x86_64-linux-gnu.so
cfn=(2) __pyx_f_8armature_9_speedups_6parser_10HeadParser_run
calls=1 0
0 60
cfn=(3) __pyx_f_8armature_9_speedups_10connection_10Connection_dispatch
calls=1 0
0 240

fn=(3)
0 10
cob=(3) /lib/python3.11/site-packages/armature/_speedups/dispatch.cpython-311-x86_64-linux-gnu.so
cfn=(4) __pyx_f_8armature_9_speedups_8dispatch_10Dispatcher_call
calls=1 0
0 230

ob=(2)
fn=(2)
0 40
cob=(5) /lib/libc.so.6
cfn=(5) malloc
calls=1 0
0 20

ob=(3)
fn=(4)
0 50
cob=(4) /usr/lib/libpython3.11.so.1.0
cfn=(6) PyIter_Send
calls=1 0
0 120
cob=(5)
cfn=(5)
calls=2 0
0 60

ob=(4)
fn=(6)
0 30
cfn=(7) _PyEval_EvalFrameDefault
calls=1 0
0 90

fn=(7)
0 80
cfn=(7)'2
calls=1 0
0 10

fn=(8) _PyEval_EvalFrameDefault'2
0 10

ob=(5)
fn=(5)
0 80
"""


def profile() -> callgrind.Profile:
    return callgrind.read(PROFILE.splitlines(keepends=True))


def test_own_costs_and_calls_are_told_apart() -> None:
    found = profile()
    assert found.total == 400
    assert found.own["armature connection", "Connection_run_heads"] == 100
    assert found.own["CPython", "_PyEval_EvalFrameDefault"] == 90
    assert found.calls[("armature connection", "Connection_run_heads"), ("armature parser", "HeadParser_run")] == 60
    # Without a `cob=` the callee is in the caller's file.
    assert found.calls[("armature connection", "Connection_run_heads"), ("armature connection", "Connection_dispatch")]
    assert found.by_file() == {
        "armature connection": 110,
        "armature parser": 40,
        "armature dispatch": 50,
        "CPython": 120,
        "libc": 80,
    }


def test_everything_belongs_to_a_stage() -> None:
    stages = {stage: sum(costs.values()) for stage, costs in callgrind.by_stage(profile()).items()}
    assert sum(stages.values()) == 400
    # malloc's 80 are divided by what its callers' calls of it cost: 20 for parsing, 60 for dispatching.
    assert {stage: cost for stage, cost in stages.items() if cost} == {
        "read": 100,
        "parse": 60,
        "dispatch": 120,
        "handler": 120,
    }
