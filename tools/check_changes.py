"""Check the news fragments in changes/, and that a branch brings one; put them into CHANGELOG.md for a release.

    python tools/check_changes.py                    every fragment is well formed
    python tools/check_changes.py --since main       ... and the work since `main` brings at least one
    python tools/check_changes.py --draft            print the section the fragments make
    python tools/check_changes.py --release 0.2.0    write that section into CHANGELOG.md and remove the fragments

A fragment is `changes/<number>.<type>.md`: the number of the issue or pull request, one of the types below, and
one or more sentences for users, in the past tense ("Added ...", "Fixed ...").
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TYPES = {
    "security": "Security",
    "removal": "Removals and breaking changes",
    "deprecation": "Deprecations",
    "feature": "Features",
    "bugfix": "Bug fixes",
    "performance": "Performance",
    "doc": "Documentation",
    "packaging": "Packaging",
    "contrib": "For contributors",
}
NAME = re.compile(r"(?P<number>\d+)\.(?P<type>[a-z]+)(?:\.\d+)?\.md")
#: A fragment tells what happened: its first word is a verb in the past tense.
PAST = re.compile(r"(?:[A-Z][a-z]+(?:ed|t)|Made|Began|Gave|Took|Wrote|Ran|Rewrote|Sped|Put|Let|Kept|Broke|Brought) ")
MARK = "<!-- new releases are put below this line -->"


def fragments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name not in ("README.md", ".gitignore"))


def faults(path: Path) -> list[str]:
    """What is wrong with one fragment."""
    match = NAME.fullmatch(path.name)
    if match is None:
        return [f"{path.name}: is not named <number>.<type>.md"]
    found = []
    if match["type"] not in TYPES:
        found.append(f"{path.name}: {match['type']!r} is none of {', '.join(TYPES)}")
    text = path.read_text("utf-8").strip()
    if not text:
        found.append(f"{path.name}: is empty")
        return found
    if not PAST.match(text):
        found.append(f"{path.name}: open with a verb in the past tense ('Added ...', 'Fixed ...')")
    if not text.endswith((".", "!", "```", ")")):
        found.append(f"{path.name}: end with a full stop")
    if text.startswith("#") or "\n#" in text:
        found.append(f"{path.name}: has a heading; the changelog has its own")
    return found


def section(paths: list[Path], version: str, day: datetime.date) -> str:
    """The part of the changelog that the fragments make."""
    lines = [f"## {version} ({day.isoformat()})", ""]
    for kind, title in TYPES.items():
        chosen = [path for path in paths if path.name.split(".")[1] == kind]
        if not chosen:
            continue
        lines += [f"### {title}", ""]
        for path in sorted(chosen, key=lambda path: int(path.name.split(".")[0])):
            number = path.name.split(".")[0]
            text = path.read_text("utf-8").strip().replace("\n", "\n  ")
            lines.append(f"- {text} (#{number})")
        lines.append("")
    return "\n".join(lines)


def release(version: str, day: datetime.date) -> None:
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text("utf-8")
    if MARK not in text:
        raise SystemExit(f"CHANGELOG.md lacks its mark: {MARK}")
    paths = fragments(ROOT / "changes")
    changelog.write_text(text.replace(MARK, f"{MARK}\n\n{section(paths, version, day)}".rstrip()), "utf-8")
    for path in paths:
        path.unlink()


def brings_one(since: str) -> bool:
    command = ["git", "diff", "--name-only", "--diff-filter=A", f"{since}...HEAD", "--", "changes"]
    added = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return any(NAME.fullmatch(Path(name).name) for name in added)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", metavar="REF", help="require a fragment added since this commit")
    parser.add_argument("--draft", action="store_true", help="print the section the fragments make")
    parser.add_argument("--release", metavar="VERSION", help="write that section into CHANGELOG.md")
    options = parser.parse_args()
    paths = fragments(ROOT / "changes")
    problems = [fault for path in paths for fault in faults(path)]
    if options.since and not brings_one(options.since):
        problems.append(f"no fragment was added since {options.since}: write changes/<number>.<type>.md")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    today = datetime.datetime.now(tz=datetime.UTC).date()
    if options.draft:
        print(section(paths, "unreleased", today))
    if options.release:
        release(options.release, today)
    return 0


if __name__ == "__main__":
    sys.exit(main())
