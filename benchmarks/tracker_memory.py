"""What a tracker's memory of peers takes, and what an announce costs it: few large torrents, and many small ones.

    python -m benchmarks.tracker_memory [--peers N] [--peers-per-torrent N …] [--v6] [--json]

Each shape is measured in a process of its own: resident memory after so many peers announced, less what it was when
nobody had. An announce is timed by the CPU it takes here alone, with no front end: from a host that was never seen
before, for 50 peers; and then from one that announces again.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from random import Random
from typing import Final

from p2pnode import config
from p2pnode.tracker.announces import Announce
from p2pnode.tracker.memory_store import MemoryStore
from p2pnode.tracker.peer_store import StoreLimits
from p2pnode.tracker.registry import Registry, RegistryLimits

MB: Final = 1_000_000
AIM_MB: Final = 150  # for a million peers
PEERS_PER_TORRENT: Final = (1_000_000, 100_000, 100, 4, 1)
TIMED: Final = 20_000  # announces; more hosts than the registry remembers the bytes of


@dataclass(frozen=True)
class Shape:
    """How many peers announce, and how they are spread."""

    peers: int
    peers_per_torrent: int
    v6: bool = False

    def announce(self, number: int, rng: Random) -> Announce:
        """The first announce of a peer: every third is a seed, each has an address of its own."""
        host = str(
            IPv6Address(0x2600 << 112 | number << 64 | 1) if self.v6 else IPv4Address(0x40000000 + number)
        )
        torrent = number % max(1, self.peers // self.peers_per_torrent)
        return Announce(
            torrent.to_bytes(20), rng.randbytes(20), (host, 6881), 6881, number % 3, key=str(number)
        )


@dataclass(frozen=True)
class Finding:
    """What was measured of one shape."""

    shape: Shape
    torrents: int
    rss_mb: float
    first_us: float
    again_us: float

    def __str__(self) -> str:
        family = "IPv6" if self.shape.v6 else "IPv4"
        return (
            f"{self.shape.peers:>9,} peers ({family}) in {self.torrents:>9,} torrents: {self.rss_mb:6.1f} MB, "
            f"{self.rss_mb * MB / self.shape.peers:5.1f} bytes each; an announce costs {self.first_us:.0f} µs "
            f"from a new host, {self.again_us:.0f} µs again"
        )


def resident_mb() -> float:
    """Of this process, now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def measure(shape: Shape) -> Finding:
    """To be called in a new process."""
    rng = Random(1)
    limits = StoreLimits(
        peers=max(shape.peers + TIMED, config.TRACKER_PEERS_MAX), peers_per_torrent=2 * shape.peers
    )
    shape.announce(0, rng)
    before = resident_mb()
    registry = Registry(RegistryLimits(), MemoryStore(limits, rng))
    for number in range(shape.peers):
        registry.announce(shape.announce(number, rng), 0.0)
    rss_mb = resident_mb() - before
    torrents = int(registry.statistics["torrents"])
    announces = [shape.announce(shape.peers + number, rng) for number in range(TIMED)]
    first_us = cpu_us(registry, announces)
    again = announces[-TIMED // 4 :]
    return Finding(shape, torrents, rss_mb, first_us, cpu_us(registry, again))


def cpu_us(registry: Registry, announces: Sequence[Announce]) -> float:
    """Of one announce."""
    began = time.process_time()
    for announce in announces:
        registry.announce(announce, 1.0)
    return (time.process_time() - began) / len(announces) * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--peers-per-torrent", type=int, nargs="+", default=PEERS_PER_TORRENT, metavar="N")
    parser.add_argument("--v6", action="store_true", help="all of them over IPv6")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each shape")
    options = parser.parse_args(arguments)
    processes = multiprocessing.get_context("spawn")
    for count in options.peers_per_torrent:
        with processes.Pool(1) as pool:
            finding = pool.apply(measure, (Shape(options.peers, count, options.v6),))
        print(
            json.dumps({"event": "tracker_memory", **asdict(finding)}) if options.json else finding,
            flush=True,
        )
    if not options.json:
        print(f"the aim is {AIM_MB} MB for a million peers")


if __name__ == "__main__":
    main()
