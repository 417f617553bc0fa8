"""Print what a statement imports and how long each module takes, dearest first.

python tools/importtime.py                        `import armature`
python tools/importtime.py "from armature import App"
"""

from __future__ import annotations

import re
import subprocess
import sys

LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def measure(statement: str) -> list[tuple[int, int, str]]:
    """Own and cumulative microseconds of every module the statement loads."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True, check=True
    )
    idle = subprocess.run([sys.executable, "-X", "importtime", "-c", ""], capture_output=True, text=True, check=True)
    known = {match[4] for match in LINE.finditer(idle.stderr)}
    found = [(int(match[1]), int(match[2]), match[4]) for match in LINE.finditer(result.stderr)]
    return [row for row in found if row[2] not in known]


def main() -> int:
    statement = sys.argv[1] if len(sys.argv) > 1 else "import armature"
    rows = measure(statement)
    print(f"{'own us':>8}  {'with its imports':>16}  module")
    for own, cumulative, name in sorted(rows, reverse=True)[:40]:
        print(f"{own:8d}  {cumulative:16d}  {name}")
    print(f"{sum(own for own, _, _ in rows) / 1000:.1f} ms in {len(rows)} modules: {statement}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
