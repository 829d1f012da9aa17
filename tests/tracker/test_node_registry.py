from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.tracker import LOCAL_HOST, Asker, NodeRegistry, NodeRegistryLimits
from p2pnode.wire.communication import FileAnnounce, PresenceAnnounce

FILE = b"f" * 32
ROOT = b"r" * 32
US = bytes([99]) * 32
LOCAL = Asker(US, LOCAL_HOST)


def node(number: int) -> bytes:
    return number.to_bytes(32, "big")


def announce(file_id: bytes = FILE, name: str = "file", **fields: Any) -> FileAnnounce:
    facts: dict[str, Any] = {"size": 100, "piece_length": 10, "have": ((0, 10),)} | fields
    return FileAnnounce(file_id, name, **facts)


def arrive(
    registry: NodeRegistry,
    number: int,
    host: str | None = None,
    *,
    now: float = 0.0,
    lasts_s: float = 30.0,
    **fields: Any,
) -> str | None:
    """Node `number` announces itself, from 10.0.0.`number` unless another host is said."""
    return registry.announce_presence(
        node(number),
        PresenceAnnounce(version=1, **fields),
        observed=(host or f"10.0.0.{number}", 1000 + number),
        now=now,
        lasts_s=lasts_s,
    )


def source_ids(registry: NodeRegistry, asker: Asker = LOCAL) -> set[bytes]:
    return {source.node_id for source in registry.sources(asker, file_id=FILE)}


# -- presence ----------------------------------------------------------------------------------------------


def test_a_node_that_announces_itself_is_there() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, name="anna", role="peer", zone="eu", agent="p2pnode/1", now=5.0)
    registry.announce_file(node(1), announce())
    [report] = registry.peers(now=7.0)
    assert (report.node_id, report.name, report.role) == (node(1), "anna", "peer")
    assert (report.zone, report.agent, report.files) == ("eu", "p2pnode/1", 1)
    assert report.addresses == (("10.0.0.1", 1001),)
    assert report.connected_s == 2.0


def test_presence_expires_and_takes_its_files_along() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, now=100.0)
    registry.announce_file(node(1), announce())
    assert registry.next_deadline() == 130.0
    assert registry.expire(129.9) == []
    assert source_ids(registry) == {node(1)}
    assert registry.expire(130.0) == [node(1)]
    assert source_ids(registry) == set()
    assert registry.list_files() == ((), b"")
    assert registry.peers(130.0) == []
    assert registry.next_deadline() is None


def test_announcing_again_puts_expiry_off_and_keeps_the_files() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, now=0.0)
    registry.announce_file(node(1), announce())
    arrive(registry, 1, now=20.0, name="new name")
    assert registry.expire(30.0) == []
    assert source_ids(registry) == {node(1)}
    assert registry.peers(40.0)[0].connected_s == 40.0
    assert registry.peers(40.0)[0].name == "new name"
    assert registry.expire(50.0) == [node(1)]


def test_a_flood_of_announces_leaves_no_heap_behind() -> None:
    registry = NodeRegistry()
    for number in range(1000):
        arrive(registry, 1, now=number / 1000)
        registry.link_lost(node(1), now=number / 1000)
    wake_ups = 0
    while (deadline := registry.next_deadline()) is not None:
        registry.expire(deadline)
        wake_ups += 1
    assert wake_ups <= 4


def test_presence_may_be_for_ever() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, lasts_s=inf)
    assert registry.next_deadline() is None
    assert registry.expire(1e12) == []
    assert len(registry.peers(1e12)) == 1


def test_a_bye_forgets_at_once() -> None:
    registry = NodeRegistry()
    arrive(registry, 1)
    registry.announce_file(node(1), announce())
    registry.forget_node(node(1))
    registry.forget_node(node(1))
    assert registry.peers(0.0) == []
    assert source_ids(registry) == set()
    assert registry.expire(30.0) == []


def test_q18_a_broken_link_leaves_a_little_time_to_come_back() -> None:
    registry = NodeRegistry(NodeRegistryLimits(lasts_after_link_lost_s=10.0))
    arrive(registry, 1, now=0.0, lasts_s=100.0)
    arrive(registry, 2, now=0.0, lasts_s=100.0)
    registry.link_lost(node(1), now=5.0)
    registry.link_lost(node(2), now=5.0)
    registry.link_lost(node(3), now=5.0)
    arrive(registry, 2, now=8.0, lasts_s=100.0)
    assert registry.expire(14.9) == []
    assert registry.expire(15.0) == [node(1)]
    assert registry.expire(107.9) == []
    assert registry.expire(108.0) == [node(2)]


def test_a_broken_link_never_makes_presence_longer() -> None:
    registry = NodeRegistry(NodeRegistryLimits(lasts_after_link_lost_s=10.0))
    arrive(registry, 1, lasts_s=3.0)
    registry.link_lost(node(1), now=2.0)
    assert registry.expire(3.0) == [node(1)]


def test_a_node_that_left_and_came_back_lives_by_its_new_presence() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, now=0.0)
    registry.forget_node(node(1))
    arrive(registry, 1, now=10.0)
    assert registry.expire(30.0) == []
    assert registry.expire(40.0) == [node(1)]


def test_T6_nodes_are_bounded() -> None:
    registry = NodeRegistry(NodeRegistryLimits(nodes=2))
    assert arrive(registry, 1) is None
    assert arrive(registry, 2) is None
    assert arrive(registry, 3) is not None
    assert arrive(registry, 2, now=1.0) is None
    registry.forget_node(node(1))
    assert arrive(registry, 3) is None


def test_T6_nodes_of_one_network_are_bounded() -> None:
    registry = NodeRegistry(NodeRegistryLimits(nodes_per_network=2))
    assert arrive(registry, 1, "2a00:1::1") is None
    assert arrive(registry, 2, "2a00:1::2") is None
    assert arrive(registry, 3, "2a00:1::3") is not None
    assert arrive(registry, 3, "8.8.8.8") is None
    assert arrive(registry, 3, "2a00:1::3") is not None  # nor may one move there
    assert arrive(registry, 2, "2a00:1::2") is None
    assert arrive(registry, 2, "8.8.8.8") is None
    assert arrive(registry, 4, "2a00:1::4") is None
    registry.forget_node(node(1))
    registry.forget_node(node(4))
    assert arrive(registry, 5, "2a00:1::5") is None


def test_peers_are_sorted_by_name() -> None:
    registry = NodeRegistry()
    for number, name in ((3, "b"), (2, "a"), (1, "b")):
        arrive(registry, number, name=name)
    assert [peer.node_id for peer in registry.peers(0.0)] == [node(2), node(1), node(3)]


# -- files -------------------------------------------------------------------------------------------------


def test_an_offer_is_acknowledged() -> None:
    registry = NodeRegistry()
    arrive(registry, 1)
    acknowledge = registry.announce_file(node(1), announce())
    assert (acknowledge.file_id, acknowledge.accepted, acknowledge.reason) == (FILE, True, "")


def test_an_offer_of_a_stranger_is_refused_with_a_reason() -> None:
    acknowledge = NodeRegistry().announce_file(node(1), announce())
    assert not acknowledge.accepted
    assert "presence" in acknowledge.reason


def test_a_withdrawal_is_accepted_always() -> None:
    registry = NodeRegistry()
    arrive(registry, 1)
    registry.announce_file(node(1), announce())
    assert registry.announce_file(node(1), announce(have=())).accepted
    assert registry.announce_file(node(1), announce(have=())).accepted
    assert registry.announce_file(node(2), announce(have=())).accepted
    assert source_ids(registry) == set()


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (NodeRegistryLimits(files_per_node=0), "0 files"),
        (NodeRegistryLimits(offers=0), "files"),
        (NodeRegistryLimits(ranges=0), "pieces"),
    ],
)
def test_T6_what_is_over_a_limit_is_refused_with_a_reason(limits: NodeRegistryLimits, word: str) -> None:
    registry = NodeRegistry(limits)
    arrive(registry, 1)
    acknowledge = registry.announce_file(node(1), announce())
    assert not acknowledge.accepted
    assert word in acknowledge.reason


def test_who_fetches_is_a_source_that_says_so() -> None:
    registry = NodeRegistry()
    arrive(registry, 1)
    registry.announce_file(node(1), announce(have=(), is_fetching=True))
    [source] = registry.sources(LOCAL, file_id=FILE)
    assert (source.have, source.is_fetching) == ((), True)
    registry.announce_file(node(1), announce(have=((0, 5),), is_fetching=True))
    assert registry.sources(LOCAL, file_id=FILE)[0].have == ((0, 5),)
    registry.announce_file(node(1), announce())
    [source] = registry.sources(LOCAL, file_id=FILE)
    assert (source.have, source.is_fetching) == (((0, 10),), False)
    assert registry.announce_file(node(1), announce(have=())).accepted
    assert source_ids(registry) == set()


def test_a_client_is_a_peer_while_it_has_something() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, role="client")
    assert registry.peers(0.0) == []
    registry.announce_file(node(1), announce(have=(), is_fetching=True))
    assert [report.role for report in registry.peers(0.0)] == ["client"]
    registry.announce_file(node(1), announce(have=()))
    assert registry.peers(0.0) == []


def test_the_list_is_paged() -> None:
    registry = NodeRegistry()
    arrive(registry, 1)
    for number in range(3):
        registry.announce_file(node(1), announce(node(number), f"f{number}"))
    rows, after = registry.list_files("f", limit=2)
    assert [row.name for row in rows] == ["f0", "f1"]
    rows, after = registry.list_files("f", after, limit=2)
    assert [row.name for row in rows] == ["f2"]
    assert after == b""


# -- sources -----------------------------------------------------------------------------------------------


def test_a_source_says_who_where_and_what() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, zone="eu")
    registry.announce_file(node(1), announce(have=((2, 3),)))
    [source] = registry.sources(LOCAL, file_id=FILE)
    assert (source.node_id, source.file_id, source.zone) == (node(1), FILE, "eu")
    assert source.have == ((2, 3),)
    assert source.addresses == (("10.0.0.1", 1001),)


def test_the_asker_is_not_in_his_own_answer() -> None:
    registry = NodeRegistry()
    for number in (1, 2):
        arrive(registry, number)
        registry.announce_file(node(number), announce())
    assert source_ids(registry, Asker(node(1), "10.0.0.1")) == {node(2)}


def test_the_node_that_answers_lists_itself_without_address() -> None:
    registry = NodeRegistry()
    presence = PresenceAnnounce(version=1, addresses=(("8.8.8.8", 5),), listen_port=5)
    registry.announce_presence(US, presence, observed=None, now=0.0, lasts_s=inf)
    registry.announce_file(US, announce())
    [source] = registry.sources(Asker(node(1), "10.0.0.1"), file_id=FILE)
    assert (source.node_id, source.addresses) == (US, ())


def test_T5_loopback_addresses_go_to_askers_on_loopback_only() -> None:
    registry = NodeRegistry()
    arrive(registry, 1, "127.0.0.1", addresses=(("10.0.0.1", 7),))
    registry.announce_file(node(1), announce())
    [near] = registry.sources(Asker(node(2), "127.0.0.1"), file_id=FILE)
    [far] = registry.sources(Asker(node(3), "10.0.0.3"), file_id=FILE)
    assert near.addresses == (("127.0.0.1", 1001), ("10.0.0.1", 7))
    assert far.addresses == (("10.0.0.1", 7),)


def test_addresses_of_one_node() -> None:
    registry = NodeRegistry()
    arrive(registry, 1)
    assert registry.addresses(node(1), LOCAL) == (("10.0.0.1", 1001),)
    assert registry.addresses(node(2), LOCAL) == ()


def test_sources_are_found_by_bytes_too_after_the_file_itself() -> None:
    registry = NodeRegistry()
    for number, file_id in ((1, node(7)), (2, FILE)):
        arrive(registry, number)
        registry.announce_file(node(number), announce(file_id, f"name{number}", pieces_root=ROOT))
    found = registry.sources(LOCAL, file_id=FILE, pieces_root=ROOT)
    assert [(source.node_id, source.file_id) for source in found] == [(node(2), FILE), (node(1), node(7))]
    assert len(registry.sources(LOCAL, pieces_root=ROOT)) == 2
    assert registry.sources(LOCAL) == ()


def test_an_answer_is_limited_and_the_next_one_goes_on() -> None:
    registry = NodeRegistry()
    for number in range(1, 21):
        arrive(registry, number)
        registry.announce_file(node(number), announce())
    asked: Counter[bytes] = Counter()
    for _ in range(20):
        found = registry.sources(LOCAL, file_id=FILE, limit=5)
        assert len({source.node_id for source in found}) == 5
        asked.update(source.node_id for source in found)
    assert len(asked) == 20
    assert set(asked.values()) == {5}


# -- against a model ---------------------------------------------------------------------------------------

NODES = st.integers(1, 4)
FILES = st.integers(0, 2)
OPERATIONS = st.one_of(
    st.tuples(st.just("arrive"), NODES, st.sampled_from([5.0, 10.0, inf])),
    st.tuples(st.just("lose"), NODES, st.none()),
    st.tuples(st.just("bye"), NODES, st.none()),
    st.tuples(st.just("offer"), NODES, FILES),
    st.tuples(st.just("withdraw"), NODES, FILES),
    st.tuples(st.just("wait"), st.integers(1, 8), st.none()),
)


class Model:
    """The same in the plainest way: lists that are searched from end to end."""

    def __init__(self) -> None:
        self.expires: dict[int, float] = {}
        self.offers: set[tuple[int, int]] = set()

    def forget(self, number: int) -> None:
        self.expires.pop(number, None)
        self.offers = {offer for offer in self.offers if offer[0] != number}

    def expire(self, now: float) -> set[int]:
        gone = {number for number, when in self.expires.items() if when <= now}
        for number in gone:
            self.forget(number)
        return gone


@given(st.lists(OPERATIONS, max_size=40))
def test_random_announces_and_expiries_agree_with_a_plain_model(operations: list[Any]) -> None:
    registry, model, now = NodeRegistry(NodeRegistryLimits(lasts_after_link_lost_s=3.0)), Model(), 0.0
    for operation, number, argument in operations:
        match operation:
            case "arrive":
                assert arrive(registry, number, now=now, lasts_s=argument) is None
                model.expires[number] = now + argument
            case "lose":
                registry.link_lost(node(number), now)
                if number in model.expires:
                    model.expires[number] = min(model.expires[number], now + 3.0)
            case "bye":
                registry.forget_node(node(number))
                model.forget(number)
            case "offer":
                acknowledge = registry.announce_file(node(number), announce(node(argument), f"{argument}"))
                assert acknowledge.accepted == (number in model.expires)
                if number in model.expires:
                    model.offers.add((number, argument))
            case "withdraw":
                registry.announce_file(node(number), announce(node(argument), f"{argument}", have=()))
                model.offers.discard((number, argument))
            case "wait":
                now += number
                deadline = registry.next_deadline()
                if any(when <= now for when in model.expires.values()):
                    assert deadline is not None
                    assert deadline <= now
                assert set(registry.expire(now)) == {node(gone) for gone in model.expire(now)}
                assert registry.next_deadline() is None or registry.next_deadline() > now
        assert {peer.node_id: peer.files for peer in registry.peers(now)} == {
            node(there): sum(offer[0] == there for offer in model.offers) for there in model.expires
        }
        rows, _ = registry.list_files()
        assert {row.name: row.sources for row in rows} == {
            str(file): sum(offer[1] == file for offer in model.offers)
            for file in {offer[1] for offer in model.offers}
        }
        for file in range(3):
            found = registry.sources(LOCAL, file_id=node(file))
            assert {source.node_id for source in found} == {
                node(there) for there, offered in model.offers if offered == file
            }
