"""An sdist and wheels are built, and installed into fresh environments of every CPython that is here."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from documents import free_port

ROOT = Path(__file__).parent.parent
SMOKE = ROOT / "tools" / "smoke.py"

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("packaging"),
    pytest.mark.skipif(os.name == "nt", reason="the wheels workflow covers Windows"),
]


def run(
    *command: str | Path, cwd: Path | None = None, check: bool = True, **flags: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARMATURE_", "PYTHON"))}
    environment.pop("VIRTUAL_ENV", None)
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **flags},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert not check or result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result


def interpreters() -> list[str]:
    """A CPython of each version from 3.11 on: of the PATH, and of pyenv where that is installed."""
    candidates = [sys.executable]
    candidates += [found for minor in range(11, 20) if (found := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates += sorted(str(path) for path in pyenv.glob("versions/3.*/bin/python"))
    found: dict[str, str] = {}
    tell = (
        "import sys, venv, ensurepip, sysconfig, pathlib; "
        "headers = pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists(); "
        "print(sys.implementation.name, headers, *sys.version_info[:2])"
    )
    for candidate in candidates:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run([candidate, "-c", tell], capture_output=True, text=True, timeout=30)
            words = told.stdout.split()
            if told.returncode == 0 and words[:2] == ["cpython", "True"] and int(words[3]) >= 11:
                found.setdefault(f"{words[2]}.{words[3]}", candidate)
    return sorted(found.values(), key=list(found.values()).index)


def version_of(python: str) -> str:
    return run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()


INTERPRETERS = interpreters() if os.name != "nt" else []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without what builds leave behind, away from where it stands."""
    copy = tmp_path_factory.mktemp("checkout") / "armature"
    ignore = shutil.ignore_patterns(
        ".git", ".venv", ".peers", "build", "dist", "site", "wheelhouse", "*.egg-info", "__pycache__", "*.so",
        "*_cache", ".hypothesis", "target", "*.c",
    )  # fmt: skip
    shutil.copytree(ROOT, copy, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", out, checkout)
    (found,) = out.iterdir()
    return found


def wheel_of(python: str | Path, source: Path, out: Path, **flags: str) -> Path:
    run(python, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", out, source, cwd=out, **flags)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def pure_wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(sys.executable, sdist, tmp_path_factory.mktemp("pure"), ARMATURE_PURE="1")


def fresh(python: str, folder: Path) -> Path:
    run(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def without_compiler(folder: Path) -> dict[str, str]:
    """Environment variables under which no C compiler is found."""
    folder.mkdir(exist_ok=True)
    return {"PATH": str(folder), "CC": "there-is-no-compiler", "CXX": "there-is-no-compiler"}


def test_sdist_holds_sources_and_nothing_generated(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py", "armature/py.typed"} <= names
    assert {
        f"armature/_speedups/{path.name}" for path in (ROOT / "armature" / "_speedups").glob("*.p[yx][xd]")
    } <= names
    generated = (".c", ".so", ".pyd", ".pyc")
    assert [name for name in names if name.startswith("armature/") and name.endswith(generated)] == []
    assert [name for name in names if name.startswith("armature/_speedups/") and name.endswith(".html")] == []
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in names)


@pytest.mark.parametrize("python", INTERPRETERS, ids=version_of)
def test_wheel_from_sdist_installs_and_serves_compiled(python: str, sdist: Path, tmp_path: Path) -> None:
    builder = fresh(python, tmp_path / "builder")
    out = tmp_path / "wheel"
    out.mkdir()
    wheel = wheel_of(builder, sdist, out, ARMATURE_REQUIRE_SPEEDUPS="1")
    assert not wheel.name.endswith("-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    compiled = {Path(name).name.split(".")[0] for name in names if name.endswith(".so")}
    assert compiled == {path.stem for path in (ROOT / "armature" / "_speedups").glob("*.pyx")}
    data = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "armature").rglob("*")
        if path.is_file() and path.suffix not in (".pyx", ".pxd", ".pyc", ".so", ".c")
    }
    assert data - set(names) == set()
    assert not any(name.startswith(("tests/", "docs/", "tools/", "benchmarks/", "examples/")) for name in names)
    assert not any(name.endswith((".c", ".pyx", ".pxd")) for name in names)
    user = fresh(python, tmp_path / "user")
    run(user, "-m", "pip", "install", wheel)
    assert "IMPL=c" in run(user, SMOKE, "--expect", "c", cwd=tmp_path).stdout
    assert "IMPL=py" in run(user, SMOKE, "--expect", "py", cwd=tmp_path, ARMATURE_PURE="1").stdout
    assert "compiled" in run(user.parent / "armature", "info", cwd=tmp_path).stdout


def test_pure_wheel_is_for_every_platform(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure_wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/WHEEL"))
        assert b"Root-Is-Purelib: true" in archive.read(metadata)
    assert not any(name.endswith((".so", ".c", ".pyx")) for name in names)
    assert "armature/_speedups/__init__.py" in names


@pytest.mark.parametrize("python", INTERPRETERS, ids=version_of)
def test_pure_wheel_installs_and_serves_without_a_compiler(python: str, pure_wheel: Path, tmp_path: Path) -> None:
    user = fresh(python, tmp_path / "user")
    nothing = without_compiler(tmp_path / "nothing")
    run(user, "-m", "pip", "install", "--only-binary", ":all:", pure_wheel, **nothing)
    assert "IMPL=py" in run(user, SMOKE, "--expect", "py", cwd=tmp_path, **nothing).stdout
    required = run(
        user, "-c", "import armature; armature.App", cwd=tmp_path, check=False, ARMATURE_REQUIRE_SPEEDUPS="1"
    )
    assert required.returncode != 0
    assert "ImportError" in required.stderr


def test_without_a_compiler_an_sdist_falls_back_to_the_pure_wheel(sdist: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    nothing = without_compiler(tmp_path / "nothing")
    wheel = wheel_of(sys.executable, sdist, tmp_path / "out", **nothing)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not any(name.endswith(".so") for name in archive.namelist())


def test_without_a_compiler_required_speedups_fail_the_build(sdist: Path, tmp_path: Path) -> None:
    nothing = without_compiler(tmp_path / "nothing")
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", tmp_path, sdist)
    result = run(*command, check=False, ARMATURE_REQUIRE_SPEEDUPS="1", **nothing)
    assert result.returncode != 0
    assert "there-is-no-compiler" in result.stdout + result.stderr


def test_contradicting_build_flags_are_refused(checkout: Path) -> None:
    command = (sys.executable, "setup.py", "--version")
    result = run(*command, cwd=checkout, check=False, ARMATURE_PURE="1", ARMATURE_REQUIRE_SPEEDUPS="1")
    assert result.returncode != 0
    assert "contradict each other" in result.stderr


def test_every_extra_of_the_running_program_installs(pure_wheel: Path, tmp_path: Path) -> None:
    user = fresh(sys.executable, tmp_path / "user")
    for extra, module in [
        ("httptools", "httptools"),
        ("dev", "watchfiles"),
        ("compression", "brotli"),
        ("full", "httptools, watchfiles, brotli"),
    ]:
        run(user, "-m", "pip", "install", f"{pure_wheel}[{extra}]")
        run(user, "-c", f"import {module}")


def test_the_first_command_of_the_readme_serves_the_first_app(checkout: Path) -> None:
    port = free_port()
    log = checkout / "run.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ARMATURE_", "PYTHON"))}
    environment["PYTHON"] = sys.executable
    with log.open("wb") as out:
        process = subprocess.Popen(
            [checkout / "tools" / "run", "examples/hello.py", "--port", str(port)],
            cwd=checkout,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError), opener.open(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert answer.status == 200
                break
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(30)
