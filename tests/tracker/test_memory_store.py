"""The store in memory: it conforms, and does what a simple one does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pnode.tracker.addresses import Reach
from p2pnode.tracker.announces import V6_SIZE, SwarmCounts
from p2pnode.tracker.memory_store import MemoryStore
from p2pnode.tracker.peer_store import PeerKind, PeerRecord, StoreLimits
from tests.tracker.store_conformance import ANYBODY, PeerStoreConformance, peer_id, record

HASHES = [bytes([number]) * 20 for number in range(3)]


class TestMemoryStore(PeerStoreConformance):
    def make(self, limits: StoreLimits | None = None) -> MemoryStore:
        return MemoryStore(limits, self.rng)

    rng = Random(5)


Known = dict[tuple[bytes, bytes, bool], tuple[PeerRecord, float]]  # by info hash, id and family


def owns(record: PeerRecord, network: bytes, key: int) -> bool:
    return record.network == network or record.key == key != 0


class Model:
    """What a store does as long as there is room, with nothing but dictionaries and loops."""

    def __init__(self) -> None:
        self.known: Known = {}
        self.downloads: Counter[bytes] = Counter()

    def of(self, info_hash: bytes, who: bytes | None = None) -> list[PeerRecord]:
        return [
            record
            for (torrent, one, _), (record, _) in self.known.items()
            if torrent == info_hash and who in (None, one)
        ]

    def put(self, new: PeerRecord, until: float, completed: bool) -> bool:
        before = self.of(new.info_hash, new.peer_id)
        for one in before:
            replaces = len(one.address) == len(new.address)
            if (replaces or one.key) and not owns(one, new.network, new.key):
                return False
        if completed and PeerKind.SEED not in {one.kind for one in before}:
            self.downloads[new.info_hash] += 1
        self.known[new.info_hash, new.peer_id, len(new.address) == V6_SIZE] = new, until
        return True

    def remove(self, info_hash: bytes, who: bytes, network: bytes, key: int) -> bool:
        own = [
            place
            for place, (one, _) in self.known.items()
            if place[:2] == (info_hash, who) and owns(one, network, key)
        ]
        for place in own:
            del self.known[place]
        self.tidy()
        return bool(own)

    def expire(self, now: float) -> int:
        late = [place for place, (_, until) in self.known.items() if until <= now]
        for place in late:
            del self.known[place]
        self.tidy()
        return len(late)

    def tidy(self) -> None:
        for info_hash in HASHES:
            if not self.of(info_hash):
                del self.downloads[info_hash]


class Comparison(RuleBasedStateMachine):
    """The same operations on both; whole seconds, at which a store is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(StoreLimits(peers=1000, peers_per_network_and_torrent=1000), Random(1))
        self.model = Model()
        self.now = 0

    @rule(
        info_hash=st.sampled_from(HASHES),
        numbers=st.lists(st.integers(0, 90), max_size=90),
        v6=st.booleans(),
        kind=st.sampled_from(PeerKind),
        reach=st.sampled_from(Reach),
        network=st.sampled_from([b"x", b"y", b"z"]),
        key=st.integers(0, 2),
        lasts_s=st.integers(1, 9000),
        completed=st.booleans(),
    )
    def put(
        self,
        info_hash: bytes,
        numbers: list[int],
        v6: bool,
        kind: PeerKind,
        reach: Reach,
        network: bytes,
        key: int,
        lasts_s: int,
        completed: bool,
    ) -> None:
        for number in numbers:
            new = replace(record(number, network, info_hash, v6=v6), kind=kind, reach=reach, key=key)
            assert self.store.put(new, self.now, lasts_s, completed=completed) == self.model.put(
                new, self.now + lasts_s, completed
            )

    @rule(
        info_hash=st.sampled_from(HASHES),
        numbers=st.lists(st.integers(0, 90), max_size=90),
        network=st.sampled_from([b"x", b"y", b"z"]),
        key=st.integers(0, 2),
    )
    def remove(self, info_hash: bytes, numbers: list[int], network: bytes, key: int) -> None:
        for number in numbers:
            asked = info_hash, peer_id(number), network, key
            assert self.store.remove(*asked) == self.model.remove(*asked)

    @precondition(lambda self: self.model.known)
    @rule(passed_s=st.integers(0, 10_000))
    def expire(self, passed_s: int) -> None:
        self.now += passed_s
        assert self.store.expire(self.now) == self.model.expire(self.now)

    @invariant()
    def both_know_the_same(self) -> None:
        assert self.store.peers == len(self.model.known)
        assert self.store.torrents == len({torrent for torrent, _, _ in self.model.known})
        assert self.store.evicted == 0
        for info_hash in HASHES:
            peers = self.model.of(info_hash)
            drawn = self.store.draw(info_hash, ANYBODY)
            assert sorted((one.peer_id, len(one.address)) for one in peers) == sorted(
                (one.peer_id, 18 if ":" in one.host else 6) for one in drawn
            )
            assert self.store.counts(info_hash).downloaded == self.model.downloads[info_hash]
            assert sum_of(self.store.counts(info_hash)) == len({one.peer_id for one in peers})
            for kind in PeerKind:
                few = self.store.draw(info_hash, replace(ANYBODY, kinds=(kind,), reaches=(Reach.SITE,)))
                wanted = {one.peer_id for one in peers if (one.kind, one.reach) == (kind, Reach.SITE)}
                assert {one.peer_id for one in few} == wanted


def sum_of(counts: SwarmCounts) -> int:
    return counts.complete + counts.incomplete


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
