"""Finding nodes through trackers: who is dialed, what is told of them, and that it ends in time."""

from __future__ import annotations

from collections import Counter

import trio
import trio.testing

from p2pnode import config
from p2pnode.assembly.trackers import tracker_discoveries
from p2pnode.errors import ConnectFailed
from p2pnode.node.discovery import Ourselves
from p2pnode.quic import Address
from p2pnode.services.tracker_discovery import TrackerDiscovery
from p2pnode.torrent import Magnet

FILE_ID = b"f" * 32
NODE_ID = b"n" * 32
SEED = "127.0.0.1", 40_001


def test_typed_trackers_come_first_and_those_of_a_magnet_link_after_them() -> None:
    magnet = Magnet(info_hash_v2=FILE_ID, trackers=("udp://b.example:1", "udp://a.example:1"))
    [discovery] = tracker_discoveries(["udp://a.example:1"], magnet)
    assert isinstance(discovery, TrackerDiscovery)
    assert discovery._trackers == (("udp://a.example:1",), ("udp://b.example:1",))
    assert not discovery.keeps_private
    assert tracker_discoveries([]) == ()


async def test_dead_trackers_hold_nobody_up() -> None:
    """Nobody is found, and it ends within what telling trackers may take."""
    asked: Counter[Address] = Counter()

    async def meet(address: Address) -> bytes:
        asked[address] += 1
        raise ConnectFailed("nobody is there")

    [discovery] = tracker_discoveries(["quic://127.0.0.1:9"])
    ourselves = Ourselves(NODE_ID, SEED, lambda: [FILE_ID], lambda _: 0, meet)
    with trio.fail_after(2 * config.ANNOUNCE_STOPPED_TIMEOUT_S + 10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discovery.run, ourselves)
            await trio.testing.wait_all_tasks_blocked(0.05)
            discovery.look_for(FILE_ID)
            discovery.offer(FILE_ID)
            discovery.withdraw(FILE_ID)
            nursery.cancel_scope.cancel()
    assert not asked
    assert list(discovery.found(FILE_ID)) == []
    discovery.look_for(FILE_ID)  # it runs no more: nothing happens
