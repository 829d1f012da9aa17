"""All peers of all torrents, in memory: some 110 bytes for each.

::

    info hash ─ Chains → torrent ─ list of pools → pool ─ PeerPools → rows: address, id, slot
    torrent and id ─ Chains → slot: where its row is, its network, its key, when it expires
    network ─ Rings → its slots, in the order they were renewed; the same for a network in one torrent
    second ─ Rings → slots that may have expired by then

A pool holds the peers of one torrent that are alike in kind, reach, family, and in whether they are counted; so every
answer is made of whole runs. Numbers that choose a ring or a chain come from Python's hash of bytes, whose key is this
process's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import ceil
from random import Random
from typing import Final

from p2pnode import config
from p2pnode.tracker.addresses import Reach
from p2pnode.tracker.announces import V6_SIZE, SwarmCounts, SwarmPeers
from p2pnode.tracker.flat_tables import Chains, Rings, Slots, column
from p2pnode.tracker.peer_pools import GROUP_V6, PeerPools
from p2pnode.tracker.peer_store import PeerKind, PeerRecord, StoreLimits, Wanted
from p2pnode.tracker.torrent_table import TorrentTable

__all__ = ["MemoryStore"]

_SECONDS: Final = 4096  # rings of the clock; who expires later is looked at once in so long
_TRIES: Final = 8  # peers of which the one whose network has most makes room
_RINGS_MIN: Final = 2**16  # so that few networks share one
_NOT_FOUND: Final = (0, b""), (0, 0)
_HASH_MASK: Final = 0xFFFFFFFF

# A group, besides `GROUP_V6`: what decides which peers are drawn, and which are counted.
_TWIN: Final = 0b10  # the same peer is counted where its address of the other family is
_KIND: Final = 2  # from this bit on, two
_REACH: Final = 4  # the same
_TWO_BITS: Final = 0b11
_REACHES: Final = {reach: number for number, reach in enumerate(Reach)}


def _group_of(record: PeerRecord) -> int:
    return _group(record.kind, record.reach, len(record.address))


def _group(kind: PeerKind, reach: Reach, address_size: int) -> int:
    return kind << _KIND | _REACHES[reach] << _REACH | (GROUP_V6 if address_size == V6_SIZE else 0)


@lru_cache(maxsize=256)
def _groups_of(
    kinds: tuple[PeerKind, ...], reaches: tuple[Reach, ...], address_sizes: tuple[int, ...]
) -> frozenset[int]:
    groups = {_group(*alike) for alike in product(kinds, reaches, address_sizes)}
    return frozenset(groups | {group | _TWIN for group in groups})


class MemoryStore:
    """A `PeerStore` that lasts as long as the process: everybody announces again.

    `now` is not negative, and below 2**32.
    """

    def __init__(self, limits: StoreLimits | None, rng: Random) -> None:
        self._limits = limits = limits or StoreLimits()
        self._random = rng.random
        self._torrents = TorrentTable(limits.peers)
        # By slot of a peer.
        self._pool = column()  # 0: this slot is free
        self._network = column()  # a hash of it
        self._key = column()
        self._expires_at = column()
        self._looked_at = column()  # the second of its ring, not after it expires
        self._by_id = Chains(limits.peers)
        self._by_network = Rings(max(limits.peers, _RINGS_MIN))
        self._by_share = Rings(max(limits.peers, _RINGS_MIN))
        self._by_second = Rings(_SECONDS)
        position = column()
        self._pools = PeerPools(self._pool, position, rng)
        self._slots = Slots(
            self._pool, position, self._network, self._key, self._expires_at, self._looked_at,
            self._by_id.following, *self._by_network.columns, *self._by_share.columns, *self._by_second.columns,
        )  # fmt: skip
        self._found = _NOT_FOUND  # who was found last: he who speaks is asked for again
        self._swept = 0  # seconds; the rings of all until then are done
        self.evicted = 0

    @property
    def peers(self) -> int:
        """How many records there are."""
        return len(self._slots)

    @property
    def torrents(self) -> int:
        """How many torrents have any."""
        return len(self._torrents)

    # -- what peers say ------------------------------------------------------------------------------------

    def put(self, record: PeerRecord, now: float, lasts_s: float, *, completed: bool = False) -> bool:
        """Keep a record, in place of what the same peer said before (`PeerStore.put`)."""
        family = int(len(record.address) == V6_SIZE)
        network = hash(record.network) & _HASH_MASK
        torrent = self._torrents.find(record.info_hash)
        known = self._find(torrent, record.peer_id)
        if self._is_others(known[family], network, record.key):
            return False
        twin = known[1 - family]
        if self._key[twin] and self._is_others(twin, network, record.key):
            return False
        is_download = completed and not any(map(self._is_seed, known))
        slot = known[family]
        is_new_here = not slot or self._network[slot] != network
        if is_new_here and self._make_room(torrent, network):  # perhaps of what was found above
            torrent = self._torrents.find(record.info_hash)
            known = self._find(torrent, record.peer_id)
            slot = known[family]
        if slot:
            self._change(slot, torrent, network, record)
        else:
            torrent = torrent or self._torrents.add(record.info_hash)
            slot = self._add(torrent, network, record, has_twin=known[1 - family] != 0)
        self._key[slot] = record.key
        self._prolong(slot, now, lasts_s)
        if is_download:
            self._torrents.count_download(torrent)
        return True

    def remove(self, info_hash: bytes, peer_id: bytes, network: bytes, key: int = 0) -> bool:
        """Forget a peer, all its addresses; False if there is none, or it is another's."""
        number = hash(network) & _HASH_MASK
        known = self._find(self._torrents.find(info_hash), peer_id)
        own = [slot for slot in known if slot and not self._is_others(slot, number, key)]
        for slot in own:
            self._forget(slot)
        return bool(own)

    def _add(self, torrent: int, network: int, record: PeerRecord, *, has_twin: bool) -> int:
        slot = self._slots.take()
        self._enter_pool(slot, torrent, _group_of(record) | has_twin * _TWIN, record.address, record.peer_id)
        self._by_id.add(hash((torrent, record.peer_id)), slot)
        self._found = _NOT_FOUND
        self._enter_network(slot, torrent, network)
        self._expires_at[slot] = self._looked_at[slot] = 0
        self._by_second.add(0, slot)
        return slot

    def _change(self, slot: int, torrent: int, network: int, record: PeerRecord) -> None:
        """A peer speaks again, perhaps from elsewhere, perhaps of another kind."""
        former = self._pools.groups[self._pool[slot]]
        group = _group_of(record) | former & _TWIN
        if group == former:
            self._pools.move(slot, record.address)
        else:
            self._leave_pool(slot)
            self._enter_pool(slot, torrent, group, record.address, record.peer_id)
        if self._network[slot] == network:
            self._by_network.renew(network, slot)
            self._by_share.renew(hash((torrent, network)), slot)
        else:
            self._leave_network(slot, torrent)
            self._enter_network(slot, torrent, network)

    def _forget(self, slot: int) -> None:
        pool = self._pool[slot]
        torrent, group, peer_id = (
            self._pools.torrents[pool],
            self._pools.groups[pool],
            self._pools.peer_id(slot),
        )
        self._by_id.remove(hash((torrent, peer_id)), slot)
        self._found = _NOT_FOUND
        self._by_second.remove(self._looked_at[slot], slot)
        self._leave_network(slot, torrent)
        self._leave_pool(slot)
        self._pool[slot] = 0
        self._slots.give_back(slot)
        if not group & _TWIN:
            self._count_twins(torrent, peer_id)
        if not self._torrents.first_pool[torrent]:
            self._torrents.remove(torrent)

    def _count_twins(self, torrent: int, peer_id: bytes) -> None:
        """A peer's address with which it was counted is gone: where it has another, it is counted with that."""
        for slot in filter(None, self._find(torrent, peer_id)):
            group, address = self._pools.groups[self._pool[slot]] & ~_TWIN, self._pools.address(slot)
            self._leave_pool(slot)
            self._enter_pool(slot, torrent, group, address, peer_id)

    # -- who is who ----------------------------------------------------------------------------------------

    def _find(self, torrent: int, peer_id: bytes) -> tuple[int, int]:
        """The slots of a peer's addresses, IPv4 and IPv6; 0 where it has none."""
        if self._found[0] == (torrent, peer_id):
            return self._found[1]
        v4 = v6 = 0
        pools, following = self._pools, self._by_id.following
        slot = self._by_id.first(hash((torrent, peer_id)))
        while slot:
            pool = self._pool[slot]
            if pools.torrents[pool] == torrent and pools.peer_id(slot) == peer_id:
                if pools.groups[pool] & GROUP_V6:
                    v6 = slot
                else:
                    v4 = slot
            slot = following[slot]
        self._found = (torrent, peer_id), (v4, v6)
        return v4, v6

    def _is_others(self, slot: int, network: int, key: int) -> bool:
        """Is this peer in another network than who speaks for it, who has not its key? Slot 0 is nobody's."""
        return slot != 0 and self._network[slot] != network and (not key or self._key[slot] != key)

    def _is_seed(self, slot: int) -> bool:
        return slot != 0 and self._pools.groups[self._pool[slot]] >> _KIND & _TWO_BITS == PeerKind.SEED

    def _enter_network(self, slot: int, torrent: int, network: int) -> None:
        self._network[slot] = network
        self._by_network.add(network, slot)
        self._by_share.add(hash((torrent, network)), slot)

    def _leave_network(self, slot: int, torrent: int) -> None:
        network = self._network[slot]
        self._by_network.remove(network, slot)
        self._by_share.remove(hash((torrent, network)), slot)

    # -- pools ---------------------------------------------------------------------------------------------

    def _pools_of(self, torrent: int) -> Iterator[int]:
        pool = self._torrents.first_pool[torrent]
        while pool:
            yield pool
            pool = self._pools.following[pool]

    def _enter_pool(self, slot: int, torrent: int, group: int, address: bytes, peer_id: bytes) -> None:
        for pool in self._pools_of(torrent):
            if self._pools.groups[pool] == group:
                break
        else:
            pool = self._pools.open(torrent, group, self._torrents.first_pool[torrent])
            self._torrents.first_pool[torrent] = pool
        self._pools.add(pool, slot, address, peer_id)

    def _leave_pool(self, slot: int) -> None:
        """A torrent may be left without pools: it is the caller's to forget it or to enter another pool."""
        left, pools = self._pool[slot], self._pools
        pools.remove(slot)
        if pools.counts[left]:
            return
        torrent = pools.torrents[left]
        if self._torrents.first_pool[torrent] == left:
            self._torrents.first_pool[torrent] = pools.following[left]
        else:
            before = next(pool for pool in self._pools_of(torrent) if pools.following[pool] == left)
            pools.following[before] = pools.following[left]
        pools.close(left)

    # -- answers -------------------------------------------------------------------------------------------

    def counts(self, info_hash: bytes) -> SwarmCounts:
        """How many there are, each peer once. The downloads are forgotten with the last peer."""
        torrent = self._torrents.find(info_hash)
        if not torrent:
            return SwarmCounts(0, 0, 0)
        complete = incomplete = 0
        for pool in self._pools_of(torrent):
            group = self._pools.groups[pool]
            if group & _TWIN:
                continue
            if group >> _KIND & _TWO_BITS == PeerKind.SEED:
                complete += self._pools.counts[pool]
            else:
                incomplete += self._pools.counts[pool]
        return SwarmCounts(complete, incomplete, self._torrents.downloads[torrent])

    def draw(self, info_hash: bytes, wanted: Wanted) -> SwarmPeers:
        """Peers by chance, each as likely as any other.

        Of each pool so many are drawn as are due to it: the same share of each, and chance decides the fractions.
        """
        torrent, pools = self._torrents.find(info_hash), self._pools
        groups = _groups_of(wanted.kinds, wanted.reaches, wanted.address_sizes)
        own = {self._pool[slot]: slot for slot in self._find(torrent, wanted.without) if slot}
        fit = [
            (pool, pools.counts[pool] - (pool in own))
            for pool in self._pools_of(torrent)
            if pools.groups[pool] in groups
        ]
        total = sum([size for _, size in fit])
        count = min(wanted.count, total)
        chance = int(self._random() * total)
        v4, v6, v4_ids, v6_ids = bytearray(), bytearray(), bytearray(), bytearray()
        passed = drawn = 0
        for pool, size in fit:
            passed += size
            due = (passed * count + chance) // total if size else drawn
            if due > drawn:
                addresses, peer_ids = pools.draw(pool, due - drawn, own.get(pool, 0))
                if pools.groups[pool] & GROUP_V6:
                    v6 += addresses
                    v6_ids += peer_ids
                else:
                    v4 += addresses
                    v4_ids += peer_ids
                drawn = due
        return SwarmPeers(bytes(v4), bytes(v6), bytes(v4_ids + v6_ids))

    # -- room ----------------------------------------------------------------------------------------------

    def _make_room(self, torrent: int, network: int) -> bool:
        """For one more peer of a network, in a torrent that may be 0: a new one. True if somebody had to go."""
        evicted, limits = self.evicted, self._limits
        if torrent and self._ring(network, torrent)[0] >= limits.peers_per_network_and_torrent:
            self._evict(self._oldest(network, torrent))
        if self._ring(network)[0] >= limits.peers_per_network:
            self._evict(self._oldest(network))
        if torrent and self._size(torrent) >= limits.peers_per_torrent:
            others = [self._any_of(torrent) for _ in range(_TRIES)]
            self._evict_where_most_are([self._oldest(network, torrent), *others], torrent)
        if self.peers >= limits.peers:
            others = [1 + int(self._random() * self.peers) for _ in range(_TRIES)]  # no slot is free now
            self._evict_where_most_are([self._oldest(network), *others])
        return self.evicted != evicted

    def _evict_where_most_are(self, slots: list[int], torrent: int = 0) -> None:
        """Of these peers' networks, the one that has most loses its oldest; the first, if no other has more."""

        def crowd(slot: int) -> int:
            return self._ring(self._network[slot], torrent)[0] if slot else 0

        slot = max(slots, key=crowd)
        self._evict(self._oldest(self._network[slot], torrent) or slot)

    def _evict(self, slot: int) -> None:
        """Forget one to make room; 0 is nobody."""
        if slot:
            self.evicted += 1
            self._forget(slot)

    def _ring(self, network: int, torrent: int = 0) -> tuple[int, int, Rings]:
        """The ring of a network, or of its peers in one torrent: how many it has, its oldest, where it is."""
        rings, number = (self._by_share, hash((torrent, network))) if torrent else (self._by_network, network)
        return rings.size(number), rings.oldest(number), rings

    def _oldest(self, network: int, torrent: int = 0) -> int:
        """Who of a network, and of a torrent, was renewed longest ago; 0: nobody.

        Others may be in the same ring by chance, but hardly ever more than a few.
        """
        size, slot, rings = self._ring(network, torrent)
        for _ in range(min(size, _TRIES)):
            if self._network[slot] == network and torrent in (0, self._pools.torrents[self._pool[slot]]):
                return slot
            slot = rings.newer[slot]
        return 0

    def _size(self, torrent: int) -> int:
        return sum(self._pools.counts[pool] for pool in self._pools_of(torrent))

    def _any_of(self, torrent: int) -> int:
        position = int(self._random() * self._size(torrent))
        for pool in self._pools_of(torrent):
            if position < self._pools.counts[pool]:
                return self._pools.slot(pool, position)
            position -= self._pools.counts[pool]
        raise AssertionError("the sizes of a torrent's pools are its size")

    # -- time ----------------------------------------------------------------------------------------------

    def expire(self, now: float) -> int:
        """Forget records that have lasted long enough, and look at no more than `TRACKER_EXPIRY_BATCH`."""
        second, looked, gone = int(now), 0, 0
        self._swept = max(self._swept, second - _SECONDS)
        while self._swept < second:
            while slot := self._by_second.oldest(self._swept + 1):
                if looked == config.TRACKER_EXPIRY_BATCH:
                    return gone
                looked += 1
                if self._expires_at[slot] <= second:
                    self._forget(slot)
                    gone += 1
                else:
                    self._look_at(slot, self._expires_at[slot])
            self._swept += 1
        return gone

    def next_deadline(self) -> float | None:
        """Before this time `expire` has nothing to do; None: never."""
        return self._swept + 1.0 if self.peers else None

    def _prolong(self, slot: int, now: float, lasts_s: float) -> None:
        if self.peers == 1:
            self._swept = max(self._swept, int(now))  # nobody else waits for seconds that nobody looked at
        self._expires_at[slot] = expires_at = ceil(now + lasts_s)
        if not self._swept < self._looked_at[slot] <= expires_at:
            self._look_at(slot, expires_at)

    def _look_at(self, slot: int, second: int) -> None:
        """In that second, or at the end of a whole turn of the clock if that is before."""
        self._by_second.remove(self._looked_at[slot], slot)
        self._looked_at[slot] = second = min(second, self._swept + _SECONDS)
        self._by_second.add(second, slot)
