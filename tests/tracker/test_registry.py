"""What a tracker answers, to whom, for how long."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.errors import Refused
from p2pnode.tracker.addresses import visible_addresses
from p2pnode.tracker.announces import Announce, AnnounceAnswer, AnnounceEvent, SwarmCounts
from p2pnode.tracker.memory_store import MemoryStore
from p2pnode.tracker.peer_store import StoreLimits
from p2pnode.tracker.registry import Registry, RegistryLimits, place_of

HASH = b"h" * 20
WORLD, OTHER_WORLD, WORLD_V6 = "8.8.4.4", "9.9.9.9", "2600::1"
SITE, OTHER_SITE, SITE_V6 = "10.1.2.3", "192.168.1.5", "fd00::5"
MACHINE, MACHINE_V6 = "127.0.0.1", "::1"
NOWHERE = ("0.0.0.0", "224.0.0.1", "255.255.255.255", "64:ff9b::808:404", "fe80::1%eth0", "2002:808:404::1")


def registry_of(limits: StoreLimits | None = None, **kwargs: object) -> Registry:
    return Registry(RegistryLimits(**kwargs), MemoryStore(limits, Random(3)))  # type: ignore[arg-type]


def peer(number: int, host: str = WORLD, *, left: int = 1, **kwargs: object) -> Announce:
    """A leech, unless nothing is `left`."""
    announce = Announce(HASH, number.to_bytes(20), (host, 40_000), 6881 + number, left)
    return replace(announce, **kwargs)  # type: ignore[arg-type]


def numbers(answer: AnnounceAnswer) -> set[int]:
    return {int.from_bytes(one.peer_id) for one in answer.peers}


def hosts(answer: AnnounceAnswer) -> set[str]:
    return {one.host for one in answer.peers}


# -- a conversation ------------------------------------------------------------------------------------------


def test_a_torrents_life() -> None:
    registry = registry_of()
    first = registry.announce(peer(1, left=0, event=AnnounceEvent.STARTED), 0.0)
    assert (first.interval_s, first.interval_min_s) == (1800, 900)
    assert (first.counts, numbers(first)) == (SwarmCounts(1, 0, 0), set())
    second = registry.announce(peer(2, OTHER_WORLD, event=AnnounceEvent.STARTED), 1.0)
    assert (second.counts, numbers(second)) == (SwarmCounts(1, 1, 0), {1})
    again = registry.announce(peer(1, left=0), 900.0)
    assert (again.counts, numbers(again)) == (SwarmCounts(1, 1, 0), {2})
    done = registry.announce(peer(2, OTHER_WORLD, left=0, event=AnnounceEvent.COMPLETED), 901.0)
    assert (done.counts, numbers(done)) == (SwarmCounts(2, 0, 1), set())
    bye = registry.announce(peer(1, left=0, event=AnnounceEvent.STOPPED), 902.0)
    assert (bye.counts, numbers(bye)) == (SwarmCounts(1, 0, 1), set())
    assert registry.scrape(HASH) == SwarmCounts(1, 0, 1)
    assert registry.scrape(b"x" * 20) == SwarmCounts(0, 0, 0)
    assert registry.statistics == {"torrents": 1, "peers": 1, "peers_evicted": 0}


def test_the_asker_is_counted_but_never_told_of_himself() -> None:
    registry = registry_of()
    for _ in range(3):
        answer = registry.announce(peer(1), 0.0)
        assert (answer.counts, len(answer.peers)) == (SwarmCounts(0, 1, 0), 0)


def test_a_peer_is_replaced_by_its_id() -> None:
    registry = registry_of()
    registry.announce(peer(1, WORLD, key="k"), 0.0)
    registry.announce(peer(1, "8.8.8.8", port=7000, key="k"), 1.0)
    answer = registry.announce(peer(2), 2.0)
    assert [(one.host, one.port) for one in answer.peers] == [("8.8.8.8", 7000)]
    assert answer.counts.incomplete == 2


def test_who_says_stopped_without_having_come_is_only_answered() -> None:
    registry = registry_of()
    assert registry.announce(peer(1, event=AnnounceEvent.STOPPED), 0.0).counts == SwarmCounts(0, 0, 0)
    assert registry.statistics["peers"] == 0


def test_ids_of_any_length_are_told_apart() -> None:
    registry = registry_of()
    ids = [b"-QC0001-1234567890123456", b"-QC0001-1234567890123457", b"x", b"y" * 64]
    for peer_id in ids * 2:
        registry.announce(peer(1, peer_id=peer_id), 0.0)
    answer = registry.announce(peer(1, peer_id=ids[0]), 0.0)
    assert answer.counts.incomplete == len(ids)
    assert len({one.peer_id for one in answer.peers}) == len(ids) - 1
    assert all(len(one.peer_id) == 20 for one in answer.peers)


def test_T6_an_odd_id_is_handed_out_as_one_that_nobody_can_foretell() -> None:
    registry = registry_of()
    registry.announce(peer(1, peer_id=b"odd"), 0.0)
    (told,) = registry.announce(peer(2), 0.0).peers
    assert told.peer_id != blake2b(b"odd", digest_size=20).digest()


def test_T6_a_stranger_cannot_empty_a_swarm_of_those_who_have_no_key() -> None:
    registry = registry_of()
    for number in range(1, 6):
        registry.announce(peer(number, peer_id=b"odd" * number), 0.0)
    for told in registry.announce(peer(9, OTHER_WORLD), 1.0).peers:
        registry.announce(peer(9, OTHER_WORLD, peer_id=told.peer_id), 2.0)
        registry.announce(peer(9, OTHER_WORLD, peer_id=told.peer_id, event=AnnounceEvent.STOPPED), 3.0)
    answer = registry.announce(peer(9, OTHER_WORLD), 4.0)
    assert hosts(answer) == {WORLD}
    assert len(answer.peers) == 5


# -- who is told of whom -------------------------------------------------------------------------------------


def test_seeds_and_partial_seeds_are_told_of_those_who_lack_something_only() -> None:
    """BEP 21: a paused peer counts as incomplete, and gives as a seed does."""
    registry = registry_of()
    paused = AnnounceEvent.PAUSED
    everybody = [
        peer(1, left=0),
        peer(2, left=0),
        peer(3),
        peer(4),
        peer(5, event=paused),
        peer(6, event=paused),
    ]
    for announce in everybody:
        registry.announce(announce, 0.0)
    assert numbers(registry.announce(everybody[0], 0.0)) == {3, 4}
    assert numbers(registry.announce(everybody[2], 0.0)) == {1, 2, 4, 5, 6}
    assert numbers(registry.announce(everybody[4], 0.0)) == {3, 4}
    assert registry.scrape(HASH) == SwarmCounts(2, 4, 0)


def test_a_seed_that_says_paused_is_a_seed() -> None:
    registry = registry_of()
    assert registry.announce(peer(1, left=0, event=AnnounceEvent.PAUSED), 0.0).counts.complete == 1


@pytest.mark.parametrize(
    ("numwant", "told"), [(None, 50), (0, 0), (-1, 0), (1, 1), (50, 50), (200, 200), (201, 200), (10**9, 200)]
)
def test_as_many_are_told_as_are_wanted_and_allowed(numwant: int | None, told: int) -> None:
    registry = registry_of()
    for number in range(300):
        registry.announce(peer(number, f"8.8.{number // 200}.{number % 200 + 1}"), 0.0)
    assert len(registry.announce(peer(1, numwant=numwant), 0.0).peers) == told


def test_both_families_are_told_unless_the_language_has_room_for_one() -> None:
    registry = registry_of()
    for number, host in enumerate([WORLD, OTHER_WORLD, WORLD_V6, "2600:1::1"]):
        registry.announce(peer(number, host), 0.0)
    assert numbers(registry.announce(peer(0, WORLD), 0.0)) == {1, 2, 3}
    assert numbers(registry.announce(peer(2, WORLD_V6), 0.0)) == {0, 1, 3}
    assert numbers(registry.announce(peer(0, WORLD, same_family=True), 0.0)) == {1}
    assert numbers(registry.announce(peer(2, WORLD_V6, same_family=True), 0.0)) == {3}
    mapped = registry.announce(peer(0, f"::ffff:{WORLD}", same_family=True), 0.0)
    assert (numbers(mapped), hosts(mapped)) == ({1}, {OTHER_WORLD})


def test_a_peer_with_two_families_is_told_with_both_and_counted_once() -> None:
    registry = registry_of()
    for host in (WORLD, WORLD_V6):
        registry.announce(peer(1, host, key="k", left=0, event=AnnounceEvent.COMPLETED), 0.0)
    answer = registry.announce(peer(2, OTHER_WORLD), 0.0)
    assert hosts(answer) == {WORLD, WORLD_V6}
    assert answer.counts == SwarmCounts(1, 1, 1)
    registry.announce(peer(1, WORLD, key="k", event=AnnounceEvent.STOPPED), 0.0)
    assert registry.scrape(HASH) == SwarmCounts(0, 1, 1)


def test_large_swarms_are_told_in_fair_parts() -> None:
    """Each answer has the same share of seeds, leeches, and of each family."""
    registry = registry_of()
    for number in range(1, 601):
        host = f"2600:{number}::1" if number % 4 == 0 else f"8.{number // 200}.1.{number % 200 + 1}"
        registry.announce(peer(number, host, left=number % 3), 0.0)
    for _ in range(20):
        answer = registry.announce(peer(1, "8.0.1.2", numwant=120), 0.0)
        assert len(answer.peers) == 120
        assert abs(sum(":" in one.host for one in answer.peers) - 30) <= 3
        assert abs(sum(number % 3 == 0 for number in numbers(answer)) - 40) <= 3


# -- hostile announces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claimed", [OTHER_WORLD, SITE, MACHINE, WORLD_V6, "tracker.example", "", "1.2.3", "\0"]
)
def test_T1_a_claimed_host_is_not_told(claimed: str) -> None:
    registry = registry_of()
    registry.announce(peer(1, WORLD, claimed_host=claimed), 0.0)
    assert hosts(registry.announce(peer(2, MACHINE), 0.0)) == {WORLD}


@pytest.mark.parametrize("claimed", [WORLD, f"::ffff:{WORLD}"])
def test_T1_claiming_the_same_host_changes_nothing(claimed: str) -> None:
    registry = registry_of()
    registry.announce(peer(1, WORLD, claimed_host=claimed), 0.0)
    assert hosts(registry.announce(peer(2, OTHER_WORLD), 0.0)) == {WORLD}


def test_T1_who_opts_in_believes_what_is_an_address() -> None:
    registry = registry_of(trust_claimed_hosts=True)
    for number, claimed in enumerate([OTHER_WORLD, WORLD_V6, "a.name", None, *NOWHERE]):
        registry.announce(peer(number, WORLD, claimed_host=claimed), 0.0)
    answer = registry.announce(peer(99, WORLD), 0.0)
    assert hosts(answer) == {OTHER_WORLD, WORLD_V6, WORLD}
    assert answer.counts.incomplete == 5 + len(NOWHERE)


def test_T1_who_claims_other_hosts_takes_his_own_networks_share() -> None:
    registry = registry_of(StoreLimits(peers_per_network_and_torrent=2), trust_claimed_hosts=True)
    for number in range(5):
        registry.announce(peer(number, WORLD, claimed_host=f"9.9.9.{number + 1}"), 0.0)
    assert registry.statistics["peers"] == 2


ASKERS = (WORLD, OTHER_WORLD, WORLD_V6, SITE, OTHER_SITE, SITE_V6, MACHINE, MACHINE_V6, "127.9.9.9")


def test_T5_who_is_told_where_is_what_holds_for_nodes_too() -> None:
    for asker, host in product(ASKERS + NOWHERE, ASKERS + NOWHERE):
        registry = registry_of()
        registry.announce(peer(1, host), 0.0)
        told = registry.announce(peer(2, asker), 0.0)
        expected = visible_addresses([(host, 6882)], host, asker)
        assert hosts(told) == {host for host, _ in expected}, (asker, host)


def test_T5_loopback_goes_to_loopback_and_private_to_private() -> None:
    registry = registry_of()
    for number, host in enumerate([WORLD, SITE, MACHINE]):
        registry.announce(peer(number, host), 0.0)
    assert hosts(registry.announce(peer(9, MACHINE_V6), 0.0)) == {WORLD, SITE, MACHINE}
    assert hosts(registry.announce(peer(9, OTHER_SITE), 0.0)) == {WORLD, SITE}
    assert hosts(registry.announce(peer(9, OTHER_WORLD), 0.0)) == {WORLD}


def test_T5_ipv4_in_ipv6_clothes_is_ipv4() -> None:
    registry = registry_of()
    registry.announce(peer(1, f"::ffff:{WORLD}"), 0.0)
    registry.announce(peer(2, f"::ffff:{MACHINE}"), 0.0)
    assert hosts(registry.announce(peer(3, OTHER_WORLD), 0.0)) == {WORLD}
    assert hosts(registry.announce(peer(3, f"::ffff:{MACHINE}"), 0.0)) == {WORLD, MACHINE}


@pytest.mark.parametrize("port", config.PORTS_NEVER_DIALED)
def test_T5_who_has_no_port_is_counted_and_not_told(port: int) -> None:
    registry = registry_of()
    registry.announce(peer(1, port=port), 0.0)
    answer = registry.announce(peer(2), 0.0)
    assert (answer.counts.incomplete, len(answer.peers)) == (2, 0)


def test_T6_peers_of_one_address_are_bounded_in_a_torrent_and_in_all() -> None:
    registry = registry_of(StoreLimits(peers_per_network=200))
    for number in range(10):
        registry.announce(peer(number, f"8.8.8.{number}"), 0.0)
    for number in range(1000):
        registry.announce(peer(1000 + number, OTHER_WORLD, port=6881), 0.0)
    assert registry.statistics["peers"] == 10 + config.TRACKER_PEERS_PER_NETWORK_AND_TORRENT_MAX
    assert set(range(10)) <= numbers(registry.announce(peer(5000, WORLD, numwant=200), 0.0))
    for number in range(1000):
        registry.announce(peer(1, OTHER_WORLD, info_hash=number.to_bytes(20)), 0.0)
    assert registry.statistics["peers"] == 10 + 1 + 200
    assert registry.scrape(HASH) == SwarmCounts(0, 11, 0)


def test_T6_an_ipv6_network_is_one_however_many_addresses_it_has() -> None:
    registry = registry_of(StoreLimits(peers_per_network_and_torrent=2))
    for number in range(10):
        registry.announce(peer(number, f"2600::{number:x}"), 0.0)
    registry.announce(peer(10, "2600:0:0:1::1"), 0.0)
    assert registry.statistics["peers"] == 3


def test_T6_who_learned_an_id_cannot_take_its_place() -> None:
    registry = registry_of()
    registry.announce(peer(1, WORLD, key="secret"), 0.0)
    for key in ("", "guess"):
        registry.announce(peer(1, OTHER_WORLD, key=key), 1.0)
        registry.announce(peer(1, OTHER_WORLD, key=key, event=AnnounceEvent.STOPPED), 2.0)
    assert hosts(registry.announce(peer(2, OTHER_WORLD), 3.0)) == {WORLD}
    registry.announce(peer(1, "8.8.8.8", key="secret"), 4.0)
    assert hosts(registry.announce(peer(2, OTHER_WORLD), 5.0)) == {"8.8.8.8"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"info_hash": b"h" * 19},
        {"info_hash": b"h" * 32},
        {"peer_id": b""},
        {"peer_id": b"x" * 65},
        {"port": -1},
        {"port": 65536},
        {"source": ("a.name", 1)},
    ],
)
def test_T7_what_no_peer_says_is_refused(wrong: dict[str, object]) -> None:
    registry = registry_of()
    with pytest.raises(Refused):
        registry.announce(peer(1, **wrong), 0.0)  # type: ignore[arg-type]
    assert registry.statistics["peers"] == 0


# -- time ----------------------------------------------------------------------------------------------------


def test_who_does_not_announce_again_in_time_is_forgotten() -> None:
    registry = registry_of()
    registry.announce(peer(1), 0.0)
    registry.announce(peer(2), 0.0, 60)
    assert registry.next_deadline() is not None
    assert registry.expire(60.0 + config.TRACKER_GRACE_S - 1) == 0
    assert registry.expire(60.0 + config.TRACKER_GRACE_S + 1) == 1
    assert numbers(registry.announce(peer(3), 200.0)) == {1}
    assert registry.expire(1800.0 + config.TRACKER_GRACE_S + 1) == 1
    assert numbers(registry.announce(peer(3), 1900.0)) == set()


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(AnnounceEvent), st.integers(0, 2)), max_size=60)
)
@settings(max_examples=80, deadline=None)
def test_counts_are_those_of_who_came_and_did_not_stop(
    announces: list[tuple[int, AnnounceEvent, int]],
) -> None:
    registry = registry_of()
    there: dict[int, int] = {}
    for number, event, left in announces:
        answer = registry.announce(peer(number, f"8.8.8.{number}", left=left, event=event, numwant=200), 0.0)
        if event is AnnounceEvent.STOPPED:
            there.pop(number, None)
        else:
            there[number] = left
            wanted = {other for other, lacks in there.items() if other != number}
            if left == 0 or event is AnnounceEvent.PAUSED:
                assert numbers(answer) <= {other for other in wanted if there[other]}
            else:
                assert numbers(answer) == wanted
        complete = sum(lacks == 0 for lacks in there.values())
        assert (answer.counts.complete, answer.counts.incomplete) == (complete, len(there) - complete)


def test_places_are_known_by_digits_only() -> None:
    assert place_of("localhost") is None
    place = place_of("2600::1")
    assert place is not None
    assert place.network == place.packed[:8]
