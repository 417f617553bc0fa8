"""Build the compiled twins: one extension per `armature/_speedups/*.pyx`; everything else is in pyproject.toml.

All the extensions are built, or none: the compiled twins call each other in C, so that a part of them is useless.
Without a working C compiler the installation goes on with the pure twins and a warning. Environment variables
(empty and `0` mean no):

ARMATURE_PURE=1                 build no extension: the wheel is pure Python, tagged `py3-none-any`
ARMATURE_REQUIRE_SPEEDUPS=1     a failed compilation fails the build
ARMATURE_BUILD_CHECKED=1        for tests: bounds and None checks, C assertions, little optimisation
ARMATURE_BUILD_SANITIZE=address,undefined   for tests: the checked build under the named sanitizers
"""

import os
import platform
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
        return ["-O3", "-fno-plt", "-DCYTHON_WITHOUT_ASSERTIONS", "-Wno-unreachable-code"], []
    sanitize = [f"-fsanitize={SANITIZERS}"] if SANITIZERS else []
    return ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-Wno-unreachable-code", *sanitize], sanitize


class BuildTwins(build_ext):
    """Build all extensions or, where that is allowed, none."""

    def run(self) -> None:
        self.force = self.force or CHECKED  # object files of the ordinary build look up to date
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
        super().build_extensions()


def twins() -> list[Extension]:
    if PURE:
        return []
    from Cython.Build import cythonize

    paths = sorted(path.relative_to(ROOT) for path in ROOT.glob("armature/_speedups/*.pyx"))
    extensions = [Extension(".".join(path.with_suffix("").parts), [path.as_posix()]) for path in paths]
    return cythonize(extensions, build_dir="build/cython", compiler_directives=DIRECTIVES, force=CHECKED)


setup(ext_modules=twins(), cmdclass={"build_ext": BuildTwins})
