"""Build the compiled twins: one extension per `armature/_speedups/*.pyx`; everything else is in pyproject.toml.

All the extensions are built, or none: the compiled twins call each other in C, so that a part of them is useless.
Without a working C compiler the installation goes on with the pure twins and a warning. Environment variables
(empty and `0` mean no):

ARMATURE_PURE=1                 build no extension: the wheel is pure Python, tagged `py3-none-any`
ARMATURE_REQUIRE_SPEEDUPS=1     a failed compilation fails the build
ARMATURE_BUILD_CHECKED=1        for tests: bounds and None checks, C assertions, little optimisation
ARMATURE_BUILD_SANITIZE=address,undefined   for tests: the checked build under the named sanitizers
ARMATURE_WITHOUT="HOT-02 HOT-14"   for measurements: leave these optimisations out (armature/_speedups/switches.pxd)
"""

import os
import platform
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

ROOT = Path(__file__).parent


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


SANITIZERS = os.environ.get("ARMATURE_BUILD_SANITIZE", "").strip(" ,0")
CHECKED = flag("ARMATURE_BUILD_CHECKED") or bool(SANITIZERS)
REQUIRED = flag("ARMATURE_REQUIRE_SPEEDUPS")
PURE = flag("ARMATURE_PURE") or (platform.python_implementation() != "CPython" and not REQUIRED)
if PURE and REQUIRED:
    sys.exit("ARMATURE_PURE and ARMATURE_REQUIRE_SPEEDUPS contradict each other; unset one of them")

#: What the compiler is told to do its best with; `ARMATURE_WITHOUT=OPS-09` leaves it at its middle level.
OPTIMISE = ["-O3", "-fno-plt"]


def switches() -> set[str]:
    """The optimisations that the sources can be compiled without, `HOT-13-date` for the macro ARMATURE_HOT_13_DATE."""
    sources = [path.read_text("utf-8") for path in sorted(ROOT.glob("armature/_speedups/*.p[yx][xd]"))]
    macros = re.findall(r"#ifndef ARMATURE_((?:HOT|RUN)_\d+\w*)", "".join(sources))
    return {"-".join([*macro.split("_")[:2], *macro.lower().split("_")[2:]]) for macro in macros} | {"OPS-09"}


WITHOUT = os.environ.get("ARMATURE_WITHOUT", "").replace(",", " ").split()
unknown = sorted(set(WITHOUT) - switches()) if WITHOUT else []
if unknown:
    sys.exit(f"ARMATURE_WITHOUT: there is no switch {unknown[0]}; there are {', '.join(sorted(switches()))}")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "initializedcheck": CHECKED,
    "nonecheck": CHECKED,
    "cdivision": True,
    "embedsignature": False,
    "binding": True,
    "auto_pickle": False,
}


def compile_flags(compiler: str) -> tuple[list[str], list[str]]:
    """What the compiler and the linker are told, beside what they are told for every extension."""
    if compiler == "msvc":
        return (["/Od", "/UNDEBUG"] if CHECKED else ["/O2", "/DCYTHON_WITHOUT_ASSERTIONS"]), []
    if not CHECKED:
        optimise = ["-O2"] if "OPS-09" in WITHOUT else OPTIMISE
        return [*optimise, "-DCYTHON_WITHOUT_ASSERTIONS", "-Wno-unreachable-code"], []
    sanitize = [f"-fsanitize={SANITIZERS}"] if SANITIZERS else []
    return ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-Wno-unreachable-code", *sanitize], sanitize


class BuildTwins(build_ext):
    """Build all extensions or, where that is allowed, none."""

    def run(self) -> None:
        if WITHOUT and self.inplace:
            sys.exit("ARMATURE_WITHOUT must not replace the checkout's extensions; build elsewhere, with --build-lib")
        # Object files of the ordinary build look up to date.
        self.force = self.force or CHECKED or bool(WITHOUT)
        try:
            super().run()
        except (BaseError, CCompilerError, OSError) as error:
            if REQUIRED or CHECKED:
                raise
            self.warn(f"building without the compiled twins, the pure ones will run ({error})")
            for path in map(Path, self.get_outputs()):
                path.unlink(missing_ok=True)
            self.extensions = self.distribution.ext_modules = []
            if "bdist_wheel" in self.distribution.command_obj:
                self.distribution.command_obj["bdist_wheel"].root_is_pure = True

    def build_extensions(self) -> None:
        self.parallel = self.parallel or True  # as many at once as there are processors
        for extension in self.extensions:
            extension.extra_compile_args, extension.extra_link_args = compile_flags(self.compiler.compiler_type)
            for name in WITHOUT:
                extension.define_macros.append((f"ARMATURE_{name.upper().replace('-', '_')}", "0"))
        super().build_extensions()


def twins() -> list[Extension]:
    if PURE:
        return []
    from Cython.Build import cythonize

    paths = sorted(path.relative_to(ROOT) for path in ROOT.glob("armature/_speedups/*.pyx"))
    extensions = [Extension(".".join(path.with_suffix("").parts), [path.as_posix()]) for path in paths]
    return cythonize(extensions, build_dir="build/cython", compiler_directives=DIRECTIVES, force=CHECKED)


setup(ext_modules=twins(), cmdclass={"build_ext": BuildTwins})
