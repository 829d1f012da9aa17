"""All peers of all torrents, in memory."""

from __future__ import annotations

from collections import Counter
from random import Random

from p2pnode import config
from p2pnode.tracker.announces import V4_SIZE, PeerList, SwarmCounts
from p2pnode.tracker.peer_store import PeerKind, PeerRecord, StoreLimits, Wanted

__all__ = ["MemoryStore"]


class MemoryStore:
    """A `PeerStore` that lasts as long as the process: everybody announces again."""

    def __init__(self, limits: StoreLimits | None, rng: Random) -> None:
        self._limits = limits or StoreLimits()
        self._rng = rng
        self._records: dict[bytes, dict[tuple[bytes, int], tuple[PeerRecord, float]]] = {}
        self._downloads: Counter[bytes] = Counter()
        self.evicted = 0

    @property
    def peers(self) -> int:
        """How many records there are."""
        return sum(map(len, self._records.values()))

    @property
    def torrents(self) -> int:
        """How many torrents have any."""
        return len(self._records)

    def put(self, record: PeerRecord, now: float, lasts_s: float, *, completed: bool = False) -> bool:
        """Keep a record, in place of what the same peer said before."""
        swarm = self._records.setdefault(record.info_hash, {})
        known = swarm.get((record.peer_id, len(record.address)))
        if known and known[0].network != record.network and known[0].key not in (0, record.key):
            return False
        if completed and not (known and known[0].kind is PeerKind.SEED):
            self._downloads[record.info_hash] += 1
        swarm[record.peer_id, len(record.address)] = record, now + lasts_s
        return True

    def remove(self, info_hash: bytes, peer_id: bytes, network: bytes, key: int = 0) -> bool:
        """Forget a peer, all its addresses."""
        swarm = self._records.get(info_hash, {})
        mine = [
            place
            for place, (record, _) in swarm.items()
            if place[0] == peer_id and (record.network == network or record.key in (0, key))
        ]
        for place in mine:
            self._forget(info_hash, place)
        return bool(mine)

    def counts(self, info_hash: bytes) -> SwarmCounts:
        """How many there are, each peer once."""
        kinds = {
            peer_id: record.kind for (peer_id, _), (record, _) in self._records.get(info_hash, {}).items()
        }
        seeds = sum(kind is PeerKind.SEED for kind in kinds.values())
        return SwarmCounts(seeds, len(kinds) - seeds, self._downloads[info_hash])

    def draw(self, info_hash: bytes, wanted: Wanted) -> PeerList:
        """Peers by chance, each as likely as any other."""
        fit = [
            record
            for record, _ in self._records.get(info_hash, {}).values()
            if record.kind in wanted.kinds
            and record.reach in wanted.reaches
            and len(record.address) in wanted.address_sizes
            and record.peer_id != wanted.without
        ]
        drawn = self._rng.sample(fit, min(wanted.count, len(fit)))
        drawn.sort(key=lambda record: len(record.address))
        return PeerList(
            b"".join(record.address for record in drawn if len(record.address) == V4_SIZE),
            b"".join(record.address for record in drawn if len(record.address) != V4_SIZE),
            b"".join(record.peer_id for record in drawn),
        )

    def expire(self, now: float) -> int:
        """Forget records that have lasted long enough."""
        late = [
            (info_hash, place)
            for info_hash, swarm in self._records.items()
            for place, (_, expires_at) in swarm.items()
            if expires_at <= now
        ][: config.TRACKER_EXPIRY_BATCH]
        for info_hash, place in late:
            self._forget(info_hash, place)
        return len(late)

    def next_deadline(self) -> float | None:
        """Before this time `expire` has nothing to do; None: never."""
        return min((when for swarm in self._records.values() for _, when in swarm.values()), default=None)

    def _forget(self, info_hash: bytes, place: tuple[bytes, int]) -> None:
        del self._records[info_hash][place]
        if not self._records[info_hash]:
            del self._records[info_hash]
            del self._downloads[info_hash]
