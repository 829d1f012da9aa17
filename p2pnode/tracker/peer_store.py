"""Where a tracker keeps the peers of all torrents: an interface of a few methods, and what goes through it.

What a peer may be told is the registry's to decide; a store keeps, counts, draws and forgets, and is bounded. Every
store passes the tests of `tests/tracker/store_conformance.py`, which say in full what is asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from p2pnode import config
from p2pnode.tracker.addresses import Reach
from p2pnode.tracker.announces import SwarmCounts, SwarmPeers

__all__ = ["PeerKind", "PeerRecord", "PeerStore", "StoreLimits", "Wanted"]


class PeerKind(IntEnum):
    """What a peer does for others, and whether it wants anything of them."""

    LEECH = 0
    SEED = 1
    PAUSED = 2  # a partial seed (BEP 21): it lacks something, but wants nothing


@dataclass(slots=True)
class PeerRecord:
    """One peer of one torrent, known by its id and the family of its address.

    A peer that has an address of each family has two records; it is counted once.
    """

    info_hash: bytes  # 20
    peer_id: bytes  # 20
    address: bytes  # host and port: 6 bytes, or 18 (BEP 23, 7)
    kind: PeerKind
    reach: Reach  # of that host
    network: bytes  # whose share of the room it takes, whatever address it is told with
    key: int = 0  # from another network, a record is replaced or removed by who has its key; 0: by nobody


@dataclass(slots=True)
class Wanted:
    """Which peers of a torrent are drawn: at most `count`, never one with the id `without`."""

    count: int
    kinds: tuple[PeerKind, ...]
    reaches: tuple[Reach, ...]
    address_sizes: tuple[int, ...]  # V4_SIZE, V6_SIZE
    without: bytes


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How many peers there is room for: in all, in one torrent, of one network, and of one network in one torrent."""

    peers: int = config.TRACKER_PEERS_MAX
    peers_per_torrent: int = config.TRACKER_PEERS_PER_TORRENT_MAX
    peers_per_network: int = config.TRACKER_PEERS_PER_NETWORK_MAX
    peers_per_network_and_torrent: int = config.TRACKER_PEERS_PER_NETWORK_AND_TORRENT_MAX


class PeerStore(Protocol):
    """All peers of all torrents. Times are seconds on any one clock that never goes back."""

    @property
    def peers(self) -> int:
        """How many records there are."""

    @property
    def torrents(self) -> int:
        """How many torrents have any."""

    @property
    def evicted(self) -> int:
        """How many records have made room for others so far."""

    def put(self, record: PeerRecord, now: float, lasts_s: float, *, completed: bool = False) -> bool:
        """Keep a record for `lasts_s` from now on, in place of what the same peer said before.

        `completed` counts a download, unless this peer was a seed already. Where there is no room, another makes
        way: of the same network if that holds as many as it may, else of one that holds more than this record's
        network. False, and nothing is changed, if the record that is there is another's (`PeerRecord.key`).
        """

    def remove(self, info_hash: bytes, peer_id: bytes, network: bytes, key: int = 0) -> bool:
        """Forget a peer, all its addresses; False if there is none, or it is another's."""

    def counts(self, info_hash: bytes) -> SwarmCounts:
        """How many there are, each peer once. The downloads are forgotten with the last peer."""

    def draw(self, info_hash: bytes, wanted: Wanted) -> SwarmPeers:
        """Peers by chance, each as likely as any other; the cost does not grow with the swarm."""

    def expire(self, now: float) -> int:
        """Forget records that have lasted long enough, at most `TRACKER_EXPIRY_BATCH`; gives how many."""

    def next_deadline(self) -> float | None:
        """Before this time `expire` has nothing to do; None: never."""
