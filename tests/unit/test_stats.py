"""`armature.stats()` and its table: every counter is there, described, and monotonic."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path

import pytest

import armature
from armature import _stats
from armature.server.metrics import FAMILIES

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "observability.md"


def test_a_flat_dict_of_numbers() -> None:
    counted = armature.stats()
    assert set(counted) == set(_stats.COUNTERS)
    assert all(type(number) is int for number in counted.values())
    assert list(_stats.COUNTERS) == sorted(_stats.COUNTERS)


def test_the_guide_lists_every_counter_and_family_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.+) \|$", GUIDE.read_text("utf-8"), re.MULTILINE))
    assert rows == _stats.COUNTERS
    families = {name: kind for name, (kind, _) in FAMILIES.items()}
    derived = {f"armature_{name.replace('.', '_')}_total" for name in _stats.COUNTERS}
    listed = re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", GUIDE.read_text("utf-8"), re.MULTILINE)
    assert dict(listed) == {name: kind for name, kind in families.items() if name not in derived}


def test_what_happens_rarely_is_counted_from_any_thread() -> None:
    name = "access_log.lines_lost"
    before = armature.stats()[name]
    threads = [threading.Thread(target=lambda: [_stats.count(name) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _stats.count(name, 5)
    assert armature.stats()[name] == before + 4005
    with pytest.raises(KeyError):
        _stats.count("no.such_counter")


def test_what_a_router_counted_outlives_it() -> None:
    app = armature.App()
    app.get("/")(gc.collect)
    router = app.build().router
    before = armature.stats()["router.static_hits"]
    router.find("GET", b"/")
    assert armature.stats()["router.static_hits"] == before + 1
    del app, router
    gc.collect()
    assert armature.stats()["router.static_hits"] == before + 1
