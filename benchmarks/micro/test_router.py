"""What a route match costs, in both twins and from C, and that it does not depend on the number of routes.

Every figure is the time of 1,000 matches. `find` is the call from Python, which makes a RouteMatch. `match` is what the
compiled connection calls, in a loop in C that is compiled here on the fly, so that the figure is the router's alone.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from armature.routing import RoutePlan
from benchmarks.twins import twin as load_twin

LOOP = """
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_XDECREF
from armature._speedups.router cimport Match, RadixRouter

def run(RadixRouter router, int method, list paths, Py_ssize_t rounds):
    cdef Match match
    cdef Py_ssize_t i, j, count = len(paths)
    cdef int found = 0
    cdef const char* path[1024]
    cdef Py_ssize_t size[1024]
    assert count <= 1024
    for i in range(count):
        path[i] = PyBytes_AS_STRING(paths[i])
        size[i] = PyBytes_GET_SIZE(paths[i])
    for j in range(rounds):
        for i in range(count):
            found += router.match(method, NULL, 0, path[i], size[i], &match) == 0
            Py_XDECREF(match.values)
    return found
"""


def build(implementation: ModuleType, count: int) -> Any:
    """An API of `count` routes, five to a resource."""
    plan = RoutePlan()
    for number in range(count // 5):
        base = f"/api/v1/resource{number}"
        plan.add(base, {"GET": number, "POST": number})
        plan.add(f"{base}/search", {"GET": number})
        plan.add(f"{base}/{{id:int}}", {"GET": number, "PUT": number})
        plan.add(f"{base}/{{id:int}}/parts/{{part}}", {"GET": number})
        plan.add(f"{base}/{{id:int}}/files/{{rest:path}}", {"GET": number})
    return plan.build(not_found=None, method_not_allowed=lambda allow: allow, router_class=implementation.RadixRouter)


#: Ids rotate, as they do in traffic.
CASES = {
    "static": [b"/api/v1/resource%d/search" % (n % 100) for n in range(1000)],
    "one int parameter": [b"/api/v1/resource%d/%d" % (n % 100, 7919 * n) for n in range(1000)],
    "two parameters": [b"/api/v1/resource%d/%d/parts/p%d" % (n % 100, n, n) for n in range(1000)],
    "catch-all": [b"/api/v1/resource%d/%d/files/a/b/c.txt" % (n % 100, n) for n in range(1000)],
    "no such path": [b"/api/v2/resource%d" % n for n in range(1000)],
    "percent-encoded": [b"/api/v1/resource%d/%d/parts/p%%20%d" % (n % 100, n, n) for n in range(1000)],
}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Compile the loop; needs Cython and a C compiler."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    folder: Path = tmp_path_factory.mktemp("loop")
    source = folder / "router_loop.pyx"
    source.write_text(LOOP)
    extension = Extension("router_loop", [str(source)], extra_compile_args=["-O3"])
    distribution = Distribution({"ext_modules": cythonize([extension], language_level=3, quiet=True)})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(folder)  # type: ignore[attr-defined]
    command.ensure_finalized()
    command.run()
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("router_loop")
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("case", CASES)
def test_find(benchmark: Any, twin: Callable[[str], ModuleType], case: str) -> None:
    router, paths = build(twin("router"), 500), CASES[case]
    find = router.find

    def run() -> None:
        for path in paths:
            find("GET", path)

    benchmark(run)


@pytest.mark.parametrize("count", [10, 100, 500, 1000])
@pytest.mark.parametrize("case", ["static", "one int parameter"])
def test_match(benchmark: Any, loop: ModuleType, case: str, count: int) -> None:
    from armature._speedups import router as compiled

    router = build(compiled, count)
    kept = [path for path in CASES[case] if router.find("GET", path).outcome == 0]
    paths = (kept * (1000 // len(kept) + 1))[:1000]
    assert benchmark(loop.run, router, 0, paths, 1) == 1000


@pytest.mark.parametrize("case", CASES)
def test_match_cases(benchmark: Any, loop: ModuleType, case: str) -> None:
    from armature._speedups import router as compiled

    benchmark(loop.run, build(compiled, 500), 0, CASES[case], 1)


def test_build_1000_routes(benchmark: Any, twin: Callable[[str], ModuleType]) -> None:
    benchmark.pedantic(build, args=(twin("router"), 1000), rounds=5)


def ratio(first: Any, last: Any) -> float:
    """The time of `last` in terms of `first`, from interleaved rounds."""
    ratios = []
    for _ in range(15):
        times = []
        for run in (first, last):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


@pytest.mark.parametrize("path", ["/api/v1/resource%02d/search", "/api/v1/resource%02d/17"])
def test_the_last_of_500_routes_is_as_near_as_the_first(impl: str, path: str) -> None:
    router = build(load_twin(impl, "router"), 500)
    first, last = [(path % number).replace("resource00", "resource0").encode() for number in (0, 99)]

    def run(target: bytes) -> Any:
        def repeat() -> None:
            for _ in range(2000):
                router.find("GET", target)

        return repeat

    assert ratio(run(first), run(last)) <= 1.3


@pytest.mark.parametrize("path", ["/api/v1/resource%02d/search", "/api/v1/resource%02d/17"])
def test_the_same_in_c(loop: ModuleType, path: str) -> None:
    from armature._speedups import router as compiled

    router = build(compiled, 500)
    first, last = [[(path % number).replace("resource00", "resource0").encode()] * 500 for number in (0, 99)]
    assert ratio(lambda: loop.run(router, 0, first, 200), lambda: loop.run(router, 0, last, 200)) <= 1.3


@pytest.mark.parametrize("case", [case for case in CASES if case != "percent-encoded"])
def test_a_match_in_c_allocates_nothing(loop: ModuleType, case: str) -> None:
    from armature._speedups import router as compiled

    router = build(compiled, 500)
    loop.run(router, 0, CASES[case], 1)
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loop.run(router, 0, CASES[case], 1)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # 1,000 matches; what is left is the number that the loop returns.
    assert peak < 200
