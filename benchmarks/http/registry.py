"""The peers by name: how each is installed, started and named with its versions."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent
PEERS_DIR = BENCHMARKS / ".peers"
SOURCES = BENCHMARKS / "http" / "peers"
TARGET = PEERS_DIR / "target"

#: Pinned, so that two runs compare the same things; `install --latest` ignores the pins. Peers whose requirements
#: would hold back another's (Sanic an old multidict, Robyn an old uvloop) live in an environment of their own.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "main": (
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "h11==0.16.0",
        "orjson==3.13.0",
        "uvicorn==0.54.0",
        "starlette==1.10.0",
        "fastapi==0.165.0",
        "aiohttp==3.14.5",
        "granian==2.8.7",
        "blacksheep==2.6.4",
        "litestar==2.25.0",
    ),
    "sanic": ("sanic==25.12.1", "uvloop==0.23.0"),
    "robyn": ("robyn==0.88.0", "orjson==3.13.0"),
    "socketify": ("socketify==0.0.31", "uvloop==0.23.0", "orjson==3.13.0"),
}


@dataclass(frozen=True)
class Peer:
    """One server to measure.

    Args:
        name: As given to `--peers`.
        title: As printed.
        kind: `armature`, `python`, `c` or `rust`.
        module: The stem of its file (or folder) in `http/peers/`.
        environment: For `python`: the key of `ENVIRONMENTS` it lives in.
        packages: The distributions whose versions are printed.
        server: `BENCH_SERVER`, for frameworks that run on more than one.
        loop: The event loop it runs on, or None where that is not a choice.
        variables: More environment variables.
        fixed: Whether it answers with fixed bytes and so is not asked for variations.
        unsupported: Loads it cannot serve, each with the reason.
    """

    name: str
    title: str
    kind: str
    module: str
    environment: str = "main"
    packages: tuple[str, ...] = ()
    server: str = ""
    loop: str | None = "uvloop"
    variables: tuple[tuple[str, str], ...] = ()
    fixed: bool = False
    unsupported: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The interpreter that runs it: Armature runs on the one that runs the benchmarks."""
        return Path(sys.executable) if self.kind == "armature" else PEERS_DIR / self.environment / "bin" / "python"

    @property
    def binary(self) -> Path:
        """The program of a `c` or `rust` peer."""
        return PEERS_DIR / "limit" if self.kind == "c" else TARGET / "release" / f"peer-{self.module}"

    def command(self, port: int, variant: str) -> list[str]:
        """Return the command line that starts it."""
        if self.kind in ("c", "rust"):
            return [str(self.binary), str(port), variant]
        module = "_granian" if self.server.startswith("granian") else self.module
        return [str(self.python), "-m", f"benchmarks.http.peers.{module}"]

    def environ(self, port: int, variant: str) -> dict[str, str]:
        """Return the environment to start it in: no ARMATURE_* of the caller leaks into a measurement."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("ARMATURE_", "PYTHON", "BENCH_"))
        }
        chosen = {"BENCH_PORT": str(port), "BENCH_VARIANT": variant, "BENCH_SERVER": self.server}
        if self.server.startswith("granian"):
            chosen["BENCH_TARGET"] = f"benchmarks.http.peers.{self.module}:app"
        if self.loop is not None:
            chosen["BENCH_LOOP"] = self.loop
        return inherited | chosen | dict(self.variables)


_BARE = {"middleware": "it has no middleware"}

_ALL = (
    Peer("limit", "C epoll loop (the limit)", "c", "limit", loop=None, fixed=True),
    Peer("protocol", "bare Protocol, fixed bytes", "python", "protocol", packages=("uvloop",), fixed=True),
    Peer(
        "armature",
        "Armature",
        "armature",
        "armature",
        packages=("armature-framework", "uvloop", "orjson"),
        variables=(("ARMATURE_REQUIRE_SPEEDUPS", "1"),),
    ),
    Peer(
        "armature-pure",
        "Armature (pure Python)",
        "armature",
        "armature",
        packages=("armature-framework", "uvloop", "orjson"),
        variables=(("ARMATURE_PURE", "1"),),
    ),
    Peer(
        "armature-asgi",
        "Armature, raw ASGI",
        "armature",
        "asgi",
        packages=("armature-framework", "uvloop"),
        server="armature",
        variables=(("ARMATURE_REQUIRE_SPEEDUPS", "1"),),
        unsupported=_BARE,
    ),
    Peer(
        "armature-starlette",
        "Armature + Starlette",
        "armature",
        "starlette",
        packages=("armature-framework", "starlette", "uvloop"),
        server="armature",
        variables=(("ARMATURE_REQUIRE_SPEEDUPS", "1"),),
    ),
    Peer(
        "uvicorn-asgi",
        "uvicorn (httptools), raw ASGI",
        "python",
        "asgi",
        packages=("uvicorn", "httptools", "uvloop"),
        server="uvicorn",
        unsupported=_BARE,
    ),
    Peer(
        "granian-asgi",
        "granian, raw ASGI",
        "python",
        "asgi",
        packages=("granian", "uvloop"),
        server="granian-asginl",
        unsupported=_BARE,
    ),
    Peer(
        "socketify",
        "socketify",
        "python",
        "socketify",
        "socketify",
        ("socketify",),
        unsupported={"middleware": "its middleware runs before the handler and cannot change the response"},
    ),
    Peer(
        "granian-rsgi",
        "granian, raw RSGI",
        "python",
        "rsgi",
        packages=("granian", "uvloop"),
        server="granian-rsgi",
        unsupported=_BARE,
    ),
    Peer(
        "blacksheep-granian",
        "BlackSheep on granian",
        "python",
        "blacksheep",
        packages=("blacksheep", "granian", "uvloop"),
        server="granian-asgi",
    ),
    Peer(
        "blacksheep",
        "BlackSheep on uvicorn",
        "python",
        "blacksheep",
        packages=("blacksheep", "uvicorn", "httptools", "uvloop"),
    ),
    Peer("aiohttp", "aiohttp", "python", "aiohttp", packages=("aiohttp", "uvloop")),
    Peer(
        "uvicorn",
        "uvicorn (httptools) + Starlette",
        "python",
        "starlette",
        packages=("uvicorn", "httptools", "starlette", "uvloop"),
        server="uvicorn",
    ),
    Peer(
        "uvicorn-h11",
        "uvicorn (h11) + Starlette",
        "python",
        "starlette",
        packages=("uvicorn", "h11", "starlette", "uvloop"),
        server="uvicorn-h11",
    ),
    Peer(
        "granian",
        "granian + Starlette",
        "python",
        "starlette",
        packages=("granian", "starlette", "uvloop"),
        server="granian-asginl",
    ),
    Peer(
        "litestar", "Litestar on uvicorn", "python", "litestar", packages=("litestar", "uvicorn", "httptools", "uvloop")
    ),
    Peer("sanic", "Sanic", "python", "sanic", "sanic", ("sanic", "uvloop")),
    Peer("robyn", "Robyn", "python", "robyn", "robyn", ("robyn", "uvloop")),
    Peer(
        "fastapi",
        "FastAPI on uvicorn",
        "python",
        "fastapi",
        packages=("fastapi", "uvicorn", "httptools", "pydantic", "uvloop"),
    ),
    Peer("axum", "Axum (Rust)", "rust", "axum", packages=("axum", "tokio", "hyper"), loop=None),
    Peer("actix", "Actix-web (Rust)", "rust", "actix", packages=("actix-web", "tokio"), loop=None),
)
PEERS = {peer.name: peer for peer in _ALL}
DEFAULT = (
    "limit",
    "protocol",
    "armature",
    "armature@asyncio",
    *(p.name for p in _ALL if p.name not in ("limit", "protocol", "armature")),
)
#: What ratios are printed against.
LIMIT, BASELINE = "limit", "uvicorn"


LOOPS = ("uvloop", "asyncio")
#: These bring their own loop.
_LOOP_FIXED = ("robyn", "socketify")


def on_loop(peer: Peer, loop: str) -> Peer:
    """Return the same peer on another event loop, or the peer itself where that is no choice."""
    if peer.loop in (None, loop) or peer.module in _LOOP_FIXED:
        return peer
    stem = peer.name.partition("@")[0]
    title = PEERS[stem].title
    return replace(
        PEERS[stem], name=f"{stem}@{loop}", title=f"{title}, stock loop" if loop == "asyncio" else title, loop=loop
    )


def find(name: str) -> Peer:
    """Return a peer by `name` or `name@loop`.

    Raises:
        ValueError: There is none, or the peer's loop cannot be chosen.
    """
    stem, _, loop = name.partition("@")
    if stem not in PEERS:
        raise ValueError(f"there is no peer {stem!r}; there are {', '.join(PEERS)}")
    peer = PEERS[stem]
    if not loop or loop == peer.loop:
        return peer
    if loop not in LOOPS:
        raise ValueError(f"there is no loop {loop!r}; there are {' and '.join(LOOPS)}")
    chosen = on_loop(peer, loop)
    if chosen is peer:
        raise ValueError(f"{stem} does not let one choose its loop")
    return chosen
