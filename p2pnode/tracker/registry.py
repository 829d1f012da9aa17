"""Which peers there are of which torrents, and whom each is told of: what a tracker decides (BEP 3, 7, 15, 21, 48).

`Registry` is pure: announces and the time go in, answers come out; where the peers are kept is a `PeerStore`. A peer
is told as it is seen: with the host that its packets come from, whatever it claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from typing import Final

from p2pnode import config
from p2pnode.errors import Refused
from p2pnode.tracker.addresses import Reach, reach_of
from p2pnode.tracker.announces import (
    PEER_ID_SIZE,
    V4_SIZE,
    V6_SIZE,
    Announce,
    AnnounceAnswer,
    AnnounceEvent,
    SwarmCounts,
    SwarmPeers,
)
from p2pnode.tracker.peer_store import PeerKind, PeerRecord, PeerStore, Wanted

__all__ = ["Place", "Registry", "RegistryLimits", "place_of"]

_INFO_HASH_SIZE: Final = 20
_PEER_ID_SIZE_MAX: Final = 64
_ODD_IDS_KEY: Final = repr(hash(b"peer ids of other sizes")).encode()  # this process's own, as its hashes are

# Whom a peer has a use for: a seed gives to those who lack something, and so does a partial seed (BEP 21).
_PARTNERS: Final = {
    PeerKind.LEECH: (PeerKind.LEECH, PeerKind.SEED, PeerKind.PAUSED),
    PeerKind.SEED: (PeerKind.LEECH,),
    PeerKind.PAUSED: (PeerKind.LEECH,),
}

# Which hosts mean the same node where the asker is, by the reach of his own.
_VISIBLE: Final = {
    Reach.MACHINE: (Reach.MACHINE, Reach.SITE, Reach.WORLD),
    Reach.SITE: (Reach.SITE, Reach.WORLD),
    Reach.WORLD: (Reach.WORLD,),
    Reach.NOWHERE: (Reach.WORLD,),
}


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """How many peers an answer has, how long a peer is remembered, and whether it is believed where it is."""

    numwant: int = config.TRACKER_NUMWANT
    numwant_max: int = config.TRACKER_NUMWANT_MAX
    grace_s: float = config.TRACKER_GRACE_S
    trust_claimed_hosts: bool = False  # only for those who let nobody announce whom they do not know


@dataclass(frozen=True, slots=True)
class Place:
    """A host in the forms that are needed of it, as they are found once."""

    packed: bytes  # 4 or 16
    reach: Reach
    network: bytes  # what one customer has: an IPv4 address, or the 2**64 addresses of an IPv6 network


@lru_cache(maxsize=config.NODES_MAX)
def place_of(host: str) -> Place | None:
    """None for what is no address in digits; IPv4 in IPv6 clothes is IPv4."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            return Place(ip.packed, reach_of(host), ip.packed[:8])
        ip = ip.ipv4_mapped
    return Place(ip.packed, reach_of(host), ip.packed)


class Registry:
    """The decisions of a tracker. Times are seconds on any one clock that never goes back."""

    def __init__(self, limits: RegistryLimits, store: PeerStore) -> None:
        self._limits = limits
        self._store = store

    def announce(
        self, announce: Announce, now: float, interval_s: int = config.TRACKER_INTERVAL_S
    ) -> AnnounceAnswer:
        """Take in what a peer says, and tell it of others; it is counted, but not among them.

        It is forgotten unless it announces again within `interval_s` and the grace. `Refused` for what no peer says.
        """
        place = _checked(announce)
        peer_id = _known_id(announce.peer_id)
        kind = _kind_of(announce)
        key = hash(announce.key) & 0xFFFFFFFF if announce.key else 0
        if announce.event is AnnounceEvent.STOPPED:
            self._store.remove(announce.info_hash, peer_id, place.network, key)
            return self._answer(announce.info_hash, SwarmPeers(), interval_s)
        told = self._told(announce, place)
        reach = told.reach if announce.port not in config.PORTS_NEVER_DIALED else Reach.NOWHERE
        address = told.packed + announce.port.to_bytes(2)
        self._store.put(
            PeerRecord(announce.info_hash, peer_id, address, kind, reach, place.network, key),
            now,
            interval_s + self._limits.grace_s,
            completed=announce.event is AnnounceEvent.COMPLETED and kind is PeerKind.SEED,
        )
        sizes = (V4_SIZE, V6_SIZE) if not announce.same_family else (len(place.packed) + 2,)
        numwant = self._limits.numwant if announce.numwant is None else announce.numwant
        wanted = Wanted(
            min(numwant, self._limits.numwant_max), _PARTNERS[kind], _VISIBLE[place.reach], sizes, peer_id
        )
        peers = self._store.draw(announce.info_hash, wanted) if wanted.count > 0 else SwarmPeers()
        return self._answer(announce.info_hash, peers, interval_s)

    def scrape(self, info_hash: bytes) -> SwarmCounts:
        """How many peers there are of a torrent; none of one that nobody announced."""
        return self._store.counts(info_hash)

    def expire(self, now: float) -> int:
        """Forget peers that have not announced again in time, a bounded number; gives how many."""
        return self._store.expire(now)

    def next_deadline(self) -> float | None:
        """Before this time `expire` has nothing to do; None: never."""
        return self._store.next_deadline()

    @property
    def statistics(self) -> dict[str, int | float]:
        """How many torrents and peers there are, and how many peers made room for others."""
        return {
            "torrents": self._store.torrents,
            "peers": self._store.peers,
            "peers_evicted": self._store.evicted,
        }

    def _told(self, announce: Announce, seen: Place) -> Place:
        """Where others are told that the peer is."""
        if announce.claimed_host is not None and self._limits.trust_claimed_hosts:
            return place_of(announce.claimed_host) or seen
        return seen

    def _answer(self, info_hash: bytes, peers: SwarmPeers, interval_s: int) -> AnnounceAnswer:
        return AnnounceAnswer(interval_s, interval_s // 2, self._store.counts(info_hash), peers)


def _checked(announce: Announce) -> Place:
    """Where an announce comes from; `Refused` if no peer can have sent it."""
    place = place_of(announce.source[0])
    if place is None:
        raise Refused("your address is not known")
    if len(announce.info_hash) != _INFO_HASH_SIZE:
        raise Refused(f"an info hash has {_INFO_HASH_SIZE} bytes")
    if not 1 <= len(announce.peer_id) <= _PEER_ID_SIZE_MAX:
        raise Refused(f"a peer id has 1 to {_PEER_ID_SIZE_MAX} bytes")
    if not 0 <= announce.port <= 0xFFFF:
        raise Refused("a port is a number from 0 to 65535")
    return place


def _known_id(peer_id: bytes) -> bytes:
    """Ids of one size: of any other, only who has it needs to be told from the rest; nobody can foretell it."""
    if len(peer_id) == PEER_ID_SIZE:
        return peer_id
    return blake2b(peer_id, digest_size=PEER_ID_SIZE, key=_ODD_IDS_KEY).digest()


def _kind_of(announce: Announce) -> PeerKind:
    if announce.left == 0:
        return PeerKind.SEED
    return PeerKind.PAUSED if announce.event is AnnounceEvent.PAUSED else PeerKind.LEECH
