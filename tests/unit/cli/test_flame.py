"""Flame graphs: reading what perf and py-spy print, and the drawing."""

from __future__ import annotations

import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

import pytest

from armature.cli import flame

PERF = """\
python
\tffffffff81621795 tcp_sendmsg+0x1b5 ([kernel.kallsyms])
\t          1af897 __send+0x77 (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t            a1b2 __pyx_f_8armature_9_speedups_4wire_4Wire_push+0x52 (/site/armature/_speedups/wire.cpython-311.so)
\t          1af897 _PyEval_EvalFrameDefault+0x77 (/lib/libpython3.11.so.1.0)
\t            1000 [unknown] (/lib/stripped.so)

python
\t            a1b2 __pyx_f_8armature_9_speedups_4wire_4Wire_push+0x52 (/site/armature/_speedups/wire.cpython-311.so)
\t          1af897 _PyEval_EvalFrameDefault+0x77 (/lib/libpython3.11.so.1.0)
\t            1000 [unknown] (/lib/stripped.so)
"""
BELOW = ("other: stripped", "python: _PyEval_EvalFrameDefault", "armature: Wire_push (wire)")


def test_perfs_stacks_are_counted_from_the_outermost_function() -> None:
    assert flame.folded(PERF.splitlines()) == {(*BELOW, "other: __send", "kernel: tcp_sendmsg"): 1, BELOW: 1}


def test_py_spys_stacks_are_counted() -> None:
    lines = [
        "index (app.py:3);__pyx_f_8armature_9_speedups_4wire_4Wire_push (wire.cpython-311.so) 12",
        "index (app.py:3);_on_ready (armature/_speedups/reactor.pyx:671);uv_run (core.c:464) 2",
        "index (app.py:3) 3",
        "no count",
    ]
    assert flame._raw(lines) == {
        ("python: index (app.py:3)", "armature: Wire_push (wire)"): 12,
        ("python: index (app.py:3)", "armature: _on_ready (reactor)", "other: uv_run (core.c:464)"): 2,
        ("python: index (app.py:3)",): 3,
    }


def test_the_drawing_is_sound_and_names_our_functions() -> None:
    stacks = Counter({BELOW: 30, (*BELOW, "kernel: <tcp&send>"): 70})
    drawing = flame.draw(stacks, "app <x> & more")
    root = xml.etree.ElementTree.fromstring(drawing)
    space = "{http://www.w3.org/2000/svg}"
    titles = [title.text for title in root.iter(f"{space}title")]
    assert "Wire_push (wire): 100.0%, 100 samples" in titles
    assert "<tcp&send>: 70.0%, 70 samples" in titles
    widths = {
        group.find(f"{space}title").text: float(group.find(f"{space}rect").get("width"))
        for group in root.iter(f"{space}g")
    }  # type: ignore[union-attr, arg-type]
    assert widths["<tcp&send>: 70.0%, 70 samples"] == pytest.approx(840.0)


def test_without_a_profiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(flame.FlameError, match="perf and py-spy are not installed") as caught:
        flame.Recorder(1, 1.0)
    assert "pip install py-spy" in caught.value.mend
    with pytest.raises(flame.FlameError, match="py-spy is not installed"):
        flame.Recorder(1, 1.0, "py-spy")


def test_a_profiler_that_is_not_let_near_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "perf"
    fake.write_text("#!/bin/sh\necho 'Permission denied' >&2\nexit 255\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    recorder = flame.Recorder(1, 0.1, "perf")
    with recorder:
        pass
    with pytest.raises(flame.FlameError, match="perf failed: Permission denied") as caught:
        recorder.stacks()
    assert "perf_event_paranoid" in caught.value.mend
