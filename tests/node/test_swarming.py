"""Many fetch one file from each other: whole nodes that come, go, lie and return."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from p2pnode.node.events import FetchCompleted
from p2pnode.testing.network import LinkProfile
from tests.node.conftest import Swarm, Watched, write_random
from tests.node.test_transfers import listed

KIB = 1024
SIZE = 4 * 1024 * KIB  # 256 pieces of 16 KiB
SEED = "10.0.1.1"
SLOW = LinkProfile(delay_s=0.01, rate_bytes_per_s=1_000_000)


async def seed(swarm: Swarm, size: int = SIZE) -> tuple[Watched, bytes]:
    """A server, and one peer that has the whole file."""
    await swarm.start_server()
    data = write_random(swarm.root / SEED / "a.bin", size)
    seeding = await swarm.start_peer()
    await listed(swarm, "a.bin")
    return seeding, data


def slow_down(swarm: Swarm, host: str, others: int = 8) -> None:
    """Whatever a peer sends to another peer, it sends slowly."""
    for number in range(1, others + 2):
        other = f"10.0.1.{number}"
        if other != host:
            swarm.network.set_profile(host, other, SLOW)


async def fetch_together(*peers: Watched) -> list[FetchCompleted]:
    """All at once; in the order of the peers."""
    done: dict[int, FetchCompleted] = {}

    async def fetch(number: int, peer: Watched) -> None:
        done[number] = await peer.node.fetch("a.bin", to=peer.files_dir)

    async with trio.open_nursery() as nursery:
        for number, peer in enumerate(peers):
            nursery.start_soon(fetch, number, peer)
    return [done[number] for number in range(len(peers))]


async def test_leechers_give_each_other_what_they_have(autojump_clock: MockClock, swarm: Swarm) -> None:
    seeding, data = await seed(swarm)
    slow_down(swarm, SEED)
    leechers = [await swarm.start_peer() for _ in range(3)]
    done = await fetch_together(*leechers)
    for completed in done:
        assert completed.target.read_bytes() == data
        assert completed.bytes_fetched == len(data)
        assert len(completed.sources) == 3
    from_seed = sum(completed.sources[seeding.node.node_id] for completed in done)
    assert from_seed < 2.5 * len(data)
