"""The processes of a swarm: what each has at the start, and how they are started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio

from p2pnode.cli.console import Console
from p2pnode.cli.swarm_nodes import SwarmNode, environment, program
from p2pnode.cli.units import size_text
from p2pnode.config import MIB
from p2pnode.errors import ConfigError
from p2pnode.testing.swarm_plan import Incident


@dataclass(frozen=True)
class Plan:
    """What the swarm is made of. Rates are bytes a second."""

    directory: Path
    peers: int
    size: int
    rate: float | None = None
    seed_rate: float | None = None
    delay_s: float = 0.0
    loss: float = 0.0
    zones: int = 0
    kills: tuple[Incident, ...] = ()
    liars: int = 0
    random_seed: int = 0
    files_dir: Path | None = None
    server_files_dir: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def zone(self, number: int) -> str:
        """That of a peer; empty without zones."""
        return f"zone-{(number - 1) % self.zones + 1}" if self.zones else ""

    @property
    def race_file(self) -> str:
        """The name of the random file."""
        return f"random-{size_text(self.size).replace(' ', '')}.bin"


@dataclass(frozen=True)
class Nodes:
    """All processes: the coordinator, the one that has the file, those that fetch it, those that lie about it."""

    server: SwarmNode
    seed: SwarmNode
    peers: Sequence[SwarmNode]
    liars: Sequence[SwarmNode]

    @property
    def all(self) -> list[SwarmNode]:
        """In the order in which they start."""
        return [self.server, self.seed, *self.peers, *self.liars]

    def named(self, name: str) -> SwarmNode:
        """The node with this name; ConfigError when there is none."""
        for node in self.all:
            if node.name == name:
                return node
        raise ConfigError(f"there is no {name!r} to kill: it is one of {', '.join(n.name for n in self.all)}")


def prepare(plan: Plan) -> Nodes:
    """Make every node's directory anew, and what the nodes have at the start. Runs in a thread."""
    if plan.directory.exists():
        shutil.rmtree(plan.directory)

    def node(name: str, zone: str = "") -> SwarmNode:
        made = SwarmNode(name, plan.directory / name, zone)
        made.files_dir.mkdir(parents=True)
        return made

    nodes = Nodes(
        node("server"),
        node("seed", "origin" if plan.zones else ""),
        [node(f"peer-{number}", plan.zone(number)) for number in range(1, plan.peers + 1)],
        [node(f"liar-{number}") for number in range(1, plan.liars + 1)],
    )
    _fill(nodes.server.files_dir, plan.server_files_dir, "hello_from_server.txt")
    _fill(nodes.peers[0].files_dir, plan.files_dir, "hello_from_peer.txt")
    origin = nodes.seed.files_dir / plan.race_file
    write_random(origin, plan.size, Random(plan.random_seed))
    for liar in nodes.liars:
        shutil.copy2(origin, liar.files_dir)
    return nodes


def _fill(directory: Path, origin: Path | None, sample: str) -> None:
    if origin is None:
        (directory / sample).write_text("Hello from p2pnode!\n")
    else:
        shutil.copytree(origin, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def write_random(path: Path, size: int, rng: Random) -> None:
    """Make a file that no compression can help with. It appears under its name when whole."""
    partial_path = path.with_name(f".{path.name}")
    with partial_path.open("wb") as file:
        for done in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - done)))
    partial_path.rename(path)


async def start(console: Console, nursery: trio.Nursery, plan: Plan, nodes: Nodes) -> None:
    """Start the server on a free port, then the others, and wait until all are registered."""
    console.say(f"starting a server, a seed and {len(nodes.peers)} peers in {plan.directory}")
    network = environment(plan.delay_s, plan.loss)
    credentials = []
    if plan.certificate is not None:
        credentials = ["--cert", str(plan.certificate), *(["--key", str(plan.key)] if plan.key else [])]
    await nodes.server.start(
        nursery,
        program("server", "--json", "--addr", "127.0.0.1:0", *credentials, *_directories(nodes.server)),
        network,
    )
    listening = await nodes.server.first("listening")
    trust = ["--server-cert", str(plan.certificate)] if plan.certificate else ["--pin", listening["node_id"]]
    server = ["--server-addr", f"127.0.0.1:{listening['address'][1]}", *trust]
    for node in (nodes.seed, *nodes.peers):
        words = [*server, *_directories(node), *_limits(plan.seed_rate if node is nodes.seed else plan.rate)]
        if node.zone:
            words += ["--zone", node.zone]
        await node.start(nursery, program("peer", "--json", *words), network)
    for liar in nodes.liars:
        words = [server[1], listening["node_id"], str(liar.files_dir)]
        await liar.start(nursery, [sys.executable, "-m", "p2pnode.testing.liar", *words], network)
    for node in nodes.all[1:]:
        await node.first("server_connected")


def _directories(node: SwarmNode) -> list[str]:
    return ["--name", node.name, "--files-dir", str(node.files_dir), "--state-dir", str(node.state_dir)]


def _limits(rate: float | None) -> list[str]:
    return [] if rate is None else ["--limit-up", f"{rate:.0f}", "--limit-down", f"{rate:.0f}"]
