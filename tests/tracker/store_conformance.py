"""What every `PeerStore` does. A store's own test class derives from `PeerStoreConformance` and says how it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from p2pnode import config
from p2pnode.tracker.addresses import Reach
from p2pnode.tracker.announces import V4_SIZE, V6_SIZE, SwarmCounts
from p2pnode.tracker.peer_store import PeerKind, PeerRecord, PeerStore, StoreLimits, Wanted

HASH, OTHER = b"h" * 20, b"o" * 20
NOBODY = b"\xff" * 20
ANYBODY = Wanted(
    count=1000, kinds=tuple(PeerKind), reaches=tuple(Reach), address_sizes=(V4_SIZE, V6_SIZE), without=NOBODY
)
LASTS_S = 100.0


def peer_id(number: int) -> bytes:
    return number.to_bytes(20)


def record(
    number: int, network: bytes | None = None, info_hash: bytes = HASH, *, v6: bool = False
) -> PeerRecord:
    """A seed that others can reach, by default alone in its network."""
    host = number.to_bytes(16 if v6 else 4)
    return PeerRecord(
        info_hash,
        peer_id(number),
        host + (6881).to_bytes(2),
        PeerKind.SEED,
        Reach.WORLD,
        host if network is None else network,
    )


def drawn(store: PeerStore, wanted: Wanted = ANYBODY, info_hash: bytes = HASH) -> set[int]:
    """The numbers of those who are drawn, each at most once."""
    peers = store.draw(info_hash, wanted)
    numbers = [int.from_bytes(peer.peer_id) for peer in peers]
    assert len(set(zip(numbers, (peer.host for peer in peers), strict=True))) == len(numbers)
    return set(numbers)


def put_all(store: PeerStore, records: Iterator[PeerRecord] | list[PeerRecord], now: float = 0.0) -> None:
    for one in records:
        assert store.put(one, now, LASTS_S)


class PeerStoreConformance:
    """Derive from this, and override `make`."""

    def make(self, limits: StoreLimits | None = None) -> PeerStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> PeerStore:
        return self.make()

    # -- putting and removing ------------------------------------------------------------------------------

    def test_a_store_begins_empty(self, store: PeerStore) -> None:
        assert (store.peers, store.torrents, store.evicted) == (0, 0, 0)
        assert store.counts(HASH) == SwarmCounts(0, 0, 0)
        assert drawn(store) == set()
        assert store.expire(0.0) == 0
        assert store.next_deadline() is None
        assert not store.remove(HASH, peer_id(1), b"network")

    def test_what_is_put_is_drawn_as_it_is(self, store: PeerStore) -> None:
        put_all(store, [record(1), record(2, v6=True)])
        first, second = store.draw(HASH, ANYBODY)
        assert (first.peer_id, first.host, first.port) == (peer_id(1), "0.0.0.1", 6881)
        assert (second.peer_id, second.host, second.port) == (peer_id(2), "::2", 6881)
        assert (store.peers, store.torrents) == (2, 1)

    def test_torrents_are_apart(self, store: PeerStore) -> None:
        put_all(store, [record(1), record(1, info_hash=OTHER), record(2, info_hash=OTHER)])
        assert drawn(store) == {1}
        assert drawn(store, info_hash=OTHER) == {1, 2}
        assert (store.peers, store.torrents) == (3, 2)

    def test_a_peer_replaces_what_it_said_before(self, store: PeerStore) -> None:
        put_all(store, [record(1)])
        put_all(store, [replace(record(1), address=record(7).address, kind=PeerKind.LEECH)])
        (peer,) = store.draw(HASH, ANYBODY)
        assert (peer.peer_id, peer.host) == (peer_id(1), "0.0.0.7")
        assert store.counts(HASH) == SwarmCounts(0, 1, 0)
        assert store.peers == 1

    def test_who_is_removed_is_gone_and_the_torrent_with_the_last(self, store: PeerStore) -> None:
        put_all(store, [record(1), record(2)])
        assert store.remove(HASH, peer_id(1), record(1).network)
        assert not store.remove(HASH, peer_id(1), record(1).network)
        assert not store.remove(OTHER, peer_id(2), record(2).network)
        assert drawn(store) == {2}
        assert store.remove(HASH, peer_id(2), record(2).network)
        assert (store.peers, store.torrents) == (0, 0)

    @pytest.mark.parametrize("count", [1, 2, 3, 33, 256, 257, 600])
    def test_torrents_of_any_size_grow_and_shrink(self, store: PeerStore, count: int) -> None:
        numbers = list(range(count))
        put_all(store, map(record, numbers))
        assert drawn(store) == set(numbers)
        Random(count).shuffle(numbers)
        while numbers:
            gone = numbers.pop()
            assert store.remove(HASH, peer_id(gone), record(gone).network)
            if len(numbers) < 10 or len(numbers) % 16 == 0:
                assert drawn(store) == set(numbers)
        put_all(store, map(record, range(count)))
        assert drawn(store) == set(range(count))

    # -- whose record it is --------------------------------------------------------------------------------

    def test_who_knows_an_id_but_not_its_key_cannot_replace_or_remove_it(self, store: PeerStore) -> None:
        victim = replace(record(1), key=7)
        put_all(store, [victim])
        for key in (0, 8):
            thief = replace(record(1), address=record(9).address, network=b"elsewhere", key=key)
            assert not store.put(thief, 0.0, LASTS_S)
            assert not store.put(replace(thief, address=record(9, v6=True).address), 0.0, LASTS_S)
            assert not store.remove(HASH, peer_id(1), b"elsewhere", key)
        assert [peer.host for peer in store.draw(HASH, ANYBODY)] == ["0.0.0.1"]

    def test_who_has_the_key_may_move(self, store: PeerStore) -> None:
        put_all(store, [replace(record(1), key=7)])
        put_all(store, [replace(record(1), address=record(9).address, network=b"elsewhere", key=7)])
        assert [peer.host for peer in store.draw(HASH, ANYBODY)] == ["0.0.0.9"]
        assert not store.remove(HASH, peer_id(1), record(1).network, 0)
        assert store.remove(HASH, peer_id(1), b"anywhere", 7)

    @pytest.mark.parametrize("key", [0, 7])
    def test_T6_a_peer_without_a_key_is_its_own_networks(self, store: PeerStore, key: int) -> None:
        put_all(store, [record(1)])
        stranger = replace(record(1), address=record(9).address, network=b"elsewhere", key=key)
        assert not store.put(stranger, 0.0, LASTS_S)
        assert not store.remove(HASH, peer_id(1), b"elsewhere", key)
        assert [peer.host for peer in store.draw(HASH, ANYBODY)] == ["0.0.0.1"]
        store.expire(LASTS_S + 2)
        assert store.put(stranger, LASTS_S + 2, LASTS_S)  # who moved is there again

    def test_each_address_of_a_peer_without_a_key_is_removed_from_its_network(self, store: PeerStore) -> None:
        put_all(store, [record(1), record(1, v6=True)])
        assert store.remove(HASH, peer_id(1), record(1).network)
        assert [peer.host for peer in store.draw(HASH, ANYBODY)] == ["::1"]
        assert store.counts(HASH) == SwarmCounts(1, 0, 0)

    # -- both families -------------------------------------------------------------------------------------

    def test_a_peer_with_both_families_is_drawn_with_both_and_counted_once(self, store: PeerStore) -> None:
        put_all(store, [record(1), record(1, v6=True), record(2)])
        assert sorted(peer.host for peer in store.draw(HASH, ANYBODY)) == ["0.0.0.1", "0.0.0.2", "::1"]
        assert store.counts(HASH) == SwarmCounts(2, 0, 0)
        assert len(store.draw(HASH, replace(ANYBODY, without=peer_id(1)))) == 1

    @pytest.mark.parametrize("first_is_v6", [False, True])
    def test_a_peer_that_loses_one_family_is_counted_still(self, store: PeerStore, first_is_v6: bool) -> None:
        put_all(store, [record(1, v6=first_is_v6)])
        put_all(store, [record(1, v6=not first_is_v6)], now=50.0)
        store.expire(LASTS_S + 2)
        assert store.peers == 1
        assert store.counts(HASH) == SwarmCounts(1, 0, 0)

    def test_removing_a_peer_removes_both(self, store: PeerStore) -> None:
        put_all(store, [replace(record(1, v6=v6), key=7) for v6 in (False, True)])
        assert store.remove(HASH, peer_id(1), record(1).network, 7)
        assert (store.peers, store.torrents) == (0, 0)

    # -- counting ------------------------------------------------------------------------------------------

    def test_counts_are_of_seeds_and_of_those_who_lack_something(self, store: PeerStore) -> None:
        for number, kind in enumerate([PeerKind.SEED, PeerKind.LEECH, PeerKind.PAUSED, PeerKind.LEECH]):
            put_all(store, [replace(record(number), kind=kind)])
        assert store.counts(HASH) == SwarmCounts(1, 3, 0)
        put_all(store, [record(2)])
        assert store.counts(HASH) == SwarmCounts(2, 2, 0)

    def test_a_download_is_counted_once_for_each_peer(self, store: PeerStore) -> None:
        leech = replace(record(1), kind=PeerKind.LEECH)
        put_all(store, [leech, replace(record(1, v6=True), kind=PeerKind.LEECH)])
        for _ in range(3):
            assert store.put(record(1), 0.0, LASTS_S, completed=True)
            assert store.put(record(1, v6=True), 0.0, LASTS_S, completed=True)
        assert store.counts(HASH) == SwarmCounts(1, 0, 1)
        assert store.put(record(2), 0.0, LASTS_S, completed=True)
        assert store.counts(HASH) == SwarmCounts(2, 0, 2)

    def test_downloads_are_forgotten_with_the_last_peer(self, store: PeerStore) -> None:
        assert store.put(record(1), 0.0, LASTS_S, completed=True)
        store.remove(HASH, peer_id(1), record(1).network)
        put_all(store, [record(2)])
        assert store.counts(HASH) == SwarmCounts(1, 0, 0)

    # -- drawing -------------------------------------------------------------------------------------------

    def test_only_what_is_wanted_is_drawn(self, store: PeerStore) -> None:
        put_all(
            store,
            [
                replace(record(1), kind=PeerKind.LEECH),
                replace(record(2), kind=PeerKind.PAUSED, reach=Reach.SITE),
                replace(record(3), reach=Reach.MACHINE),
                record(4, v6=True),
                replace(record(5), reach=Reach.NOWHERE),
            ],
        )
        assert drawn(store, replace(ANYBODY, kinds=(PeerKind.LEECH, PeerKind.PAUSED))) == {1, 2}
        assert drawn(store, replace(ANYBODY, reaches=(Reach.WORLD, Reach.SITE))) == {1, 2, 4}
        assert drawn(store, replace(ANYBODY, reaches=(Reach.MACHINE,))) == {3}
        assert drawn(store, replace(ANYBODY, address_sizes=(V4_SIZE,))) == {1, 2, 3, 5}
        assert drawn(store, replace(ANYBODY, address_sizes=(V6_SIZE,))) == {4}
        assert drawn(store, replace(ANYBODY, without=peer_id(3))) == {1, 2, 4, 5}
        assert drawn(store, replace(ANYBODY, kinds=())) == set()

    @pytest.mark.parametrize("size", [10, 64, 1100])
    @pytest.mark.parametrize("asker", [3, 1000])
    def test_as_many_are_drawn_as_are_wanted(self, store: PeerStore, size: int, asker: int) -> None:
        for number in range(size):
            put_all(store, [replace(record(number, v6=number % 5 == 0), kind=PeerKind(number % 3))])
        others = set(range(size)) - {asker}
        for count in [0, 1, 7, 64, 500, 1099, 1100, 1101]:
            for _ in range(5):
                few = drawn(store, replace(ANYBODY, count=count, without=peer_id(asker)))
                assert few <= others
                assert len(few) == min(count, len(others))

    @pytest.mark.parametrize("asker", [7, 1000])
    def test_everybody_is_drawn_equally_often(self, asker: int) -> None:
        """Mean 75 each, and 8 is its standard deviation. Each time all are put anew, in the same order."""
        draws: Counter[int] = Counter()
        size, count, repeats = 80, 5, 1200
        for _ in range(repeats // 20):
            store = self.make()
            for number in range(size):
                put_all(store, [replace(record(number, v6=number < 3), kind=PeerKind(number % 2))])
            for _ in range(20):
                draws.update(drawn(store, replace(ANYBODY, count=count, without=peer_id(asker))))
        others = set(range(size)) - {asker}
        expected = repeats * count / len(others)
        assert set(draws) == others
        assert all(abs(draws[number] - expected) < expected / 2 for number in others), draws

    # -- time ----------------------------------------------------------------------------------------------

    def test_records_last_as_long_as_they_are_put_for(self, store: PeerStore) -> None:
        assert store.put(record(1), 10.0, 50.0)
        assert store.put(record(2), 10.5, 5000.0)  # longer than any turn of a clock
        assert store.expire(60.0 - 0.1) == 0
        assert store.next_deadline() is not None
        assert store.next_deadline() <= 61.0  # type: ignore[operator]
        assert store.expire(60.0 + 1.0) == 1
        assert drawn(store) == {2}
        for second in range(62, 5010):
            assert store.expire(float(second)) == 0
        assert store.expire(5012.0) == 1
        assert (store.peers, store.torrents) == (0, 0)
        assert store.next_deadline() is None

    def test_who_speaks_again_lasts_longer_or_shorter(self, store: PeerStore) -> None:
        for number in (1, 2, 3):
            assert store.put(record(number), 0.0, 100.0)
        assert store.put(record(1), 90.0, 100.0)
        assert store.put(record(2), 0.0, 20.0)
        assert store.expire(22.0) == 1
        assert drawn(store) == {1, 3}
        assert store.expire(102.0) == 1
        assert drawn(store) == {1}
        assert store.expire(192.0) == 1

    @pytest.mark.parametrize("now", [10_000.0, 86_400.0 * 365 * 50])
    def test_T12_after_a_long_pause_who_is_late_goes_and_who_is_new_stays(
        self, store: PeerStore, now: float
    ) -> None:
        put_all(store, map(record, range(10)))
        assert store.put(record(10), now - 1.0, LASTS_S)
        assert store.expire(now) == 10
        assert drawn(store) == {10}
        assert store.expire(now + LASTS_S + 1.0) == 1

    def test_many_that_are_late_go_in_batches(self, store: PeerStore) -> None:
        count = config.TRACKER_EXPIRY_BATCH * 2 + 1
        put_all(store, map(record, range(count)))
        now, batches = LASTS_S + 1, []
        while (deadline := store.next_deadline()) is not None:
            assert deadline <= now
            batches.append(store.expire(now))
        assert sum(batches) == count
        assert max(batches) <= config.TRACKER_EXPIRY_BATCH

    # -- room ----------------------------------------------------------------------------------------------

    def test_T6_a_network_has_so_many_peers_in_one_torrent_and_the_oldest_goes(self) -> None:
        store = self.make(StoreLimits(peers_per_network_and_torrent=3))
        put_all(store, [record(100)])
        put_all(store, (record(number, b"flood") for number in range(3)))
        put_all(store, [record(0, b"flood")])  # speaks again: now 1 is the oldest
        put_all(store, [record(3, b"flood")])
        assert drawn(store) == {100, 0, 2, 3}
        assert store.evicted == 1
        put_all(store, [record(4, b"flood", OTHER)])
        assert store.peers == 5

    def test_T6_a_network_has_so_many_peers_in_all_torrents(self) -> None:
        store = self.make(StoreLimits(peers_per_network=5))
        put_all(store, [record(100)])
        put_all(store, (record(number, b"flood", peer_id(number)) for number in range(50)))
        assert store.peers == store.torrents == 6
        assert drawn(store) == {100}
        assert all(drawn(store, info_hash=peer_id(number)) == {number} for number in range(45, 50))

    def test_T6_a_flood_into_a_full_torrent_pushes_out_itself(self) -> None:
        store = self.make(StoreLimits(peers_per_torrent=50, peers_per_network_and_torrent=20))
        put_all(store, (record(number) for number in range(40)))
        put_all(store, (record(100 + number, b"flood") for number in range(200)))
        honest = {number for number in drawn(store) if number < 100}
        assert honest == set(range(40))
        assert len(drawn(store)) == 50

    def test_T6_a_flood_into_a_full_store_pushes_out_itself(self) -> None:
        store = self.make(StoreLimits(peers=100))
        put_all(store, (record(number, info_hash=peer_id(number % 7)) for number in range(80)))
        put_all(store, (record(number, b"flood", number.to_bytes(20)) for number in range(1000, 3000)))
        assert store.peers == 100
        assert sum(store.counts(peer_id(number)).complete for number in range(7)) == 80

    def test_T6_who_is_new_finds_room_where_others_have_more(self) -> None:
        store = self.make(StoreLimits(peers=100, peers_per_torrent=60))
        put_all(store, (record(number, b"flood", number.to_bytes(20)) for number in range(1000, 1100)))
        put_all(store, map(record, range(50)))
        assert store.peers == 100
        assert drawn(store) == set(range(50))

    def test_T6_a_full_store_of_many_networks_takes_in_who_is_new(self) -> None:
        store = self.make(StoreLimits(peers=20, peers_per_torrent=10))
        for number in range(200):
            put_all(store, [record(number, info_hash=peer_id(number % 3))])
            assert number in drawn(store, info_hash=peer_id(number % 3))
            assert store.peers <= 20
            assert all(len(drawn(store, info_hash=peer_id(torrent))) <= 10 for torrent in range(3))

    def test_T6_who_speaks_again_pushes_out_nobody(self) -> None:
        store = self.make(StoreLimits(peers=4, peers_per_torrent=4, peers_per_network=4))
        put_all(store, (record(number, b"network") for number in range(4)))
        put_all(store, (record(number, b"network") for number in range(4)))
        assert store.evicted == 0

    def test_T6_who_moves_into_a_network_takes_of_its_share(self) -> None:
        store = self.make(StoreLimits(peers_per_network_and_torrent=5, peers_per_network=6))
        put_all(store, (replace(record(number), key=7) for number in range(30)))
        put_all(store, (replace(record(number, b"flood"), key=7) for number in range(20)))
        assert drawn(store) == set(range(15, 30))

    def test_T6_a_last_peer_that_makes_room_in_its_own_torrent(self) -> None:
        store = self.make(StoreLimits(peers_per_network=1))
        put_all(store, [record(1, b"network"), record(2, b"network")])
        assert drawn(store) == {2}
        assert (store.peers, store.torrents, store.evicted) == (1, 1, 1)

    def test_T6_a_peer_whose_other_address_makes_room_for_it(self) -> None:
        store = self.make(StoreLimits(peers_per_network=1))
        put_all(store, [record(1, b"network"), record(1, b"network", v6=True)])
        assert store.peers == 1
        assert store.counts(HASH) == SwarmCounts(1, 0, 0)
