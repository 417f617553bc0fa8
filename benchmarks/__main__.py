"""`python -m benchmarks`: every benchmark by one command; run it from the root of the repository."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _settings(options: argparse.Namespace, peers: list[Any], loads: list[Any]) -> Any:
    from benchmarks.http.compare import Settings

    quick = options.quick
    return Settings(
        peers,
        loads,
        rounds=options.rounds or (2 if quick else 5),
        duration=options.duration or (1 if quick else 2),
        connections=options.connections,
        warm_up=0 if quick else 1,
        server_core=options.server_core,
        load_core=options.load_core,
        seed=options.seed,
    )


def _loads(text: str | None, default: list[str], known: dict[str, Any]) -> list[Any]:
    names = default if text is None else _names(text)
    for name in names:
        if name not in known:
            raise SystemExit(f"there is no load {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _install(options: argparse.Namespace) -> int:
    from benchmarks.http.install import install

    return 1 if install(options.rust, options.latest) else 0


def _compare(options: argparse.Namespace) -> int:
    from benchmarks.http import chart, compare, loads, registry, report, wrk

    names = list(registry.DEFAULT) if options.peers is None else _names(options.peers)
    try:
        peers = [registry.find(name) for name in names]
        if options.loop:
            peers = [registry.on_loop(peer, options.loop) for peer in peers]
        wrk.program()
    except (ValueError, wrk.LoadError) as error:
        raise SystemExit(str(error)) from None
    name = options.output or ("quick" if options.quick else "compare")
    path = RESULTS / f"{name}.json"
    known = compare.load_report(path) if options.update and path.exists() else None
    settings = _settings(options, peers, _loads(options.loads, list(loads.LOADS), loads.LOADS))

    def save(found: dict[str, Any]) -> None:
        RESULTS.mkdir(exist_ok=True)
        drawing = chart.draw(found)
        if drawing:
            (RESULTS / f"{name}.svg").write_text(drawing)
        (RESULTS / f"{name}.md").write_text(report.markdown(found, f"{name}.svg" if drawing else None))
        path.write_text(json.dumps(found, indent=1) + "\n")

    try:
        found = compare.run(settings, known, save)
    except wrk.LoadError as error:
        raise SystemExit(str(error)) from None
    print(report.markdown(found, None))
    return 0


def _ablate(options: argparse.Namespace) -> int:
    from benchmarks.http import ablate, compare, switches, wrk

    names = list(switches.SWITCHES) if options.only is None else _names(options.only)
    for name in names:
        if name not in switches.SWITCHES:
            raise SystemExit(f"there is no switch {name!r}; there are {', '.join(switches.SWITCHES)}")
    settings = _settings(options, [], _loads(options.loads, [], ablate.ALL_LOADS))
    try:
        found = ablate.run([switches.SWITCHES[name] for name in names], settings, options.instructions)
    except wrk.LoadError as error:
        raise SystemExit(str(error)) from None
    RESULTS.mkdir(exist_ok=True)
    name = options.output or ("quick-ablate" if options.quick else "ablate")
    path = RESULTS / f"{name}.json"
    deltas = ablate.merged(ablate.load_deltas(path), found)
    path.write_text(json.dumps({"machine": compare.machine(), "deltas": ablate.plain(deltas)}, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(ablate.table(deltas))
    print(ablate.table(found))
    return 1 if any(delta.failure for delta in found) else 0


def _serve(options: argparse.Namespace) -> int:
    from benchmarks.http import install, registry

    try:
        peer = registry.find(options.peer)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    wrong = install.missing(peer)
    if wrong:
        raise SystemExit(f"{peer.name}: {wrong}")
    print(f"{peer.title}: http://127.0.0.1:{options.port}/", flush=True)
    try:
        return subprocess.run(
            peer.command(options.port, options.variant),
            env=peer.environ(options.port, options.variant),
            cwd=HERE.parent,
        ).returncode
    except KeyboardInterrupt:
        return 0


def _micro(options: argparse.Namespace) -> int:
    from benchmarks.micro import report

    return report.run(options.arguments, RESULTS / "micro.md" if options.save else None)


def _memory(options: argparse.Namespace) -> int:
    from benchmarks import memory

    return memory.main(options.write)


def _instructions(options: argparse.Namespace) -> int:
    from benchmarks import instructions

    return instructions.main(options)


def _stages(options: argparse.Namespace) -> int:
    from benchmarks import stages

    return stages.main(options)


def _syscalls(options: argparse.Namespace) -> int:
    from benchmarks import syscalls

    return syscalls.main(options)


def _guard(options: argparse.Namespace) -> int:
    from benchmarks import guard

    return guard.main(options.write, [options.twin] if options.twin else ["c", "py"])


def _timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loads", help="comma-separated; all if not given")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5; quick: 2)")
    parser.add_argument("--duration", type=int, help="seconds of one round, whole (2; quick: 1)")
    parser.add_argument("--connections", type=int, default=64, help="keep-alive connections (64)")
    parser.add_argument("--server-core", type=int, default=0, help="CPU core of the servers (0)")
    parser.add_argument("--load-core", type=int, default=1, help="CPU core of the load (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within a round (1)")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 1 s, no warm-up: to see that it works, not to publish"
    )
    parser.add_argument("--output", help="file name under benchmarks/results/, without suffix")


def main() -> int:
    """Run one command and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)

    command = commands.add_parser("install", help="install the peers into benchmarks/.peers")
    command.add_argument("--rust", action="store_true", help="build Axum and Actix-web too")
    command.add_argument("--latest", action="store_true", help="take the newest versions instead of the pinned ones")
    command.set_defaults(run=_install)

    command = commands.add_parser("compare", help="measure Armature beside its peers")
    command.add_argument("--peers", help="comma-separated, `name` or `name@asyncio`; all if not given")
    command.add_argument("--loop", choices=("uvloop", "asyncio"), help="the loop of every peer that lets one choose")
    command.add_argument("--update", action="store_true", help="keep the other loads of the report that is there")
    _timing(command)
    command.set_defaults(run=_compare)

    command = commands.add_parser("ablate", help="measure what each optimisation brings")
    command.add_argument("--only", help="comma-separated switches of benchmarks/http/switches.py; all if not given")
    command.add_argument(
        "--instructions", action="store_true", help="count instructions under callgrind instead of taking the time"
    )
    _timing(command)
    command.set_defaults(run=_ablate)

    command = commands.add_parser("serve", help="run one peer by hand")
    command.add_argument("peer")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--variant", choices=("base", "routes", "middleware", "more"), default="base")
    command.set_defaults(run=_serve)

    command = commands.add_parser("micro", help="time both twins of every hot path, with c/py ratios")
    command.add_argument("--save", action="store_true", help="write benchmarks/results/micro.md")
    command.add_argument("arguments", nargs="*", help="passed to pytest after `--`")
    command.set_defaults(run=_micro)

    command = commands.add_parser("memory", help="count allocations and bytes per request and compare with memory.json")
    command.add_argument("--write", action="store_true", help="write the numbers counted now")
    command.set_defaults(run=_memory)

    command = commands.add_parser("instructions", help="count instructions per request under callgrind")
    command.add_argument("--requests", type=int, default=2000, help="requests counted (2000)")
    command.add_argument(
        "--loads", default="plaintext,app-plaintext,app-param,app-middleware", help="requests of benchmarks/twins.py"
    )
    command.add_argument("--pure", action="store_true", help="count the pure twins instead")
    command.add_argument("--save", action="store_true", help="write benchmarks/results/instructions-<twin>.json")
    command.add_argument("--top", type=int, default=15, help="how many functions to print (15)")
    command.set_defaults(run=_instructions)

    io_help = "what carries the bytes (auto)"
    command = commands.add_parser("stages", help="instructions per request of a running server, by stage")
    command.add_argument("--loads", default="plaintext,json,param,post", help="comma-separated")
    command.add_argument("--top", type=int, default=3, help="how many functions of each stage to print (3)")
    command.add_argument("--io", choices=("auto", "reactor", "asyncio"), default="auto", help=io_help)
    command.set_defaults(run=_stages)

    command = commands.add_parser("syscalls", help="system calls per request of a running server")
    command.add_argument(
        "--loads", default="plaintext,json,param,post,pipelined,stream,connect", help="comma-separated"
    )
    command.add_argument("--io", choices=("auto", "reactor", "asyncio"), default="auto", help=io_help)
    command.set_defaults(run=_syscalls)

    command = commands.add_parser("guard", help="fail if a request takes notably more instructions than is pinned")
    command.add_argument("--write", action="store_true", help="pin the numbers counted now in guard.json")
    command.add_argument("--twin", choices=("c", "py"), help="only this one")
    command.set_defaults(run=_guard)

    options = parser.parse_args()
    # Servers wait in process groups of their own: whoever ends us by SIGTERM must not leave them behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
