"""Fuzz one target with atheris: `python tests/fuzz/run_atheris.py TARGET SECONDS FOLDER [--pure]`.

It runs in a process of its own, because libFuzzer ends the process it runs in.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import atheris

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT.parent)]


class Room:
    """The modules of one room, by their stems."""

    def __init__(self, package: str) -> None:
        self.package = package

    def __getattr__(self, stem: str) -> ModuleType:
        module = importlib.import_module(f"{self.package}.{stem}")
        setattr(self, stem, module)
        return module


def main() -> None:
    target, seconds, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    # The pure twins are instrumented: their branches lead the fuzzer through the compiled ones as well.
    with atheris.instrument_imports(include=["armature._pure"]):
        for stem in ("parser", "chunked", "writer", "buffers", "message", "router", "dispatch", "connection"):
            importlib.import_module(f"armature._pure.{stem}")
    from fuzz.seeds import DICTIONARY, write_seeds
    from fuzz.targets import TARGETS

    rooms = [Room("armature._pure")]
    if "--pure" not in sys.argv:
        rooms.append(Room("armature._speedups"))
    write_seeds(folder / "seeds", target)
    (folder / "found").mkdir(exist_ok=True)
    words = folder / "words"
    words.write_text("".join('"{}"\n'.format("".join(f"\\x{byte:02x}" for byte in word)) for word in DICTIONARY))
    check = TARGETS[target]
    options = [
        f"-max_total_time={seconds}",
        "-max_len=700",
        f"-dict={words}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *options, str(folder / "found"), str(folder / "seeds")], lambda data: check(rooms, data)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
