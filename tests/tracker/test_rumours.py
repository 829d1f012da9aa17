from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.tracker.rumours import Rumours, believable
from p2pnode.wire.communication import NodeItem

FILE, OTHER = b"f" * 32, b"o" * 32
TELLER, SECOND = b"t" * 32, b"s" * 32
HOST = "9.9.9.9"


def node(number: int) -> bytes:
    return number.to_bytes(32, "big")


def item(number: int, *addresses: tuple[str, int], file_id: bytes = FILE) -> NodeItem:
    return NodeItem(node(number), addresses or ((f"8.8.8.{number % 250}", 1000 + number),), file_id)


def ids(items: list[NodeItem]) -> set[int]:
    return {int.from_bytes(found.node_id, "big") for found in items}


def test_what_one_tells_of_others_is_tried() -> None:
    rumours = Rumours()
    rumours.hear(TELLER, [item(1), item(2), item(3, file_id=OTHER)], now=0.0)
    assert rumours.take([FILE], 0.0, known=[node(2)]) == [item(1)]
    assert rumours.take([FILE], 0.0) == [item(1), item(2)]
    assert rumours.take([], 0.0) == []


def test_T1_addresses_that_the_teller_cannot_have_met_are_no_rumours() -> None:
    told = [
        item(1, ("10.0.0.1", 80)),
        item(2, ("8.8.8.8", 53)),
        item(3, ("x", 5)),
        item(4, ("127.0.0.1", 80), ("8.8.8.8", 7)),
    ]
    rumours = Rumours()
    rumours.hear(TELLER, believable(told, HOST), 0.0)
    assert rumours.take([FILE], 0.0) == [item(4, ("8.8.8.8", 7))]


def test_who_is_linked_need_not_be_dialed() -> None:
    rumours = Rumours()
    rumours.hear(TELLER, [item(number) for number in range(60)], 0.0)
    linked = {node(number) for number in range(50)}
    found = ids(rumours.take([FILE], 0.0, is_linked=linked.__contains__))
    assert found >= set(range(50))
    assert len(found) == 50 + config.RUMOUR_DIALS


def test_T1_a_liar_has_so_many_dials_that_fail_however_often_he_speaks() -> None:
    rumours, dials = Rumours(), 0
    for second in range(30):
        rumours.hear(TELLER, [item(second * 50 + number, ("8.8.8.8", 443)) for number in range(50)], second)
        for found in rumours.take([FILE], second):
            dials += 1
            rumours.dialed(found.node_id, None)
    assert dials == config.RUMOUR_DIALS
    later = 30.0 + config.RUMOUR_DIAL_REGAINED_S
    assert len(rumours.take([FILE], later)) == 1


def test_who_tells_the_truth_is_believed_without_end() -> None:
    rumours, linked = Rumours(), set[int]()
    rumours.hear(TELLER, [item(number) for number in range(60)], 0.0)
    while found := rumours.take([FILE], 0.0):
        assert len(found) <= config.RUMOUR_DIALS
        assert rumours.take([FILE], 0.0) == found  # until it is known what came of it
        for one in found:
            rumours.dialed(one.node_id, one.addresses[0])
        linked |= ids(found)
    assert linked == set(range(60))


def test_T1_a_wrong_address_for_a_node_that_is_there_costs_the_liar_alone() -> None:
    """The node answers where another teller says that it is."""
    rumours = Rumours()
    for number in range(config.RUMOUR_DIALS):
        rumours.hear(TELLER, [item(number, ("8.8.4.4", 443))], 0.0)
        rumours.hear(SECOND, [item(number)], 0.0)
        [found] = rumours.take([FILE], 0.0)
        assert found.addresses == (("8.8.4.4", 443), *item(number).addresses)
        rumours.dialed(node(number), item(number).addresses[0])
    rumours.hear(TELLER, [item(100, ("8.8.4.4", 443))], 0.0)
    assert rumours.take([FILE], 0.0) == []
    rumours.hear(SECOND, [item(101)], 0.0)
    assert ids(rumours.take([FILE], 0.0)) == {101}


def test_T6_what_is_remembered_is_bounded() -> None:
    rumours = Rumours()
    for number in range(config.RUMOUR_TELLERS_MAX + 1):
        rumours.hear(node(number), [item(number)], 0.0)
    assert 0 not in ids(rumours.take([FILE], 0.0))
    assert len(rumours.take([FILE], 0.0)) == config.RUMOUR_TELLERS_MAX
    rumours = Rumours()
    rumours.hear(TELLER, [item(number) for number in range(2 * config.RUMOURS_PER_TELLER_MAX)], 0.0)
    [teller] = rumours._tellers.values()
    assert len(teller.rumours) == config.RUMOURS_PER_TELLER_MAX


def test_T6_what_a_third_node_is_said_to_have_is_cut_to_its_longest_runs() -> None:
    many = tuple((10 * run, 1 + (run == 500)) for run in range(1024))
    complete = ((0, 1000),)
    told = [
        NodeItem(node(number), (("8.8.8.8", 443),), FILE, have) for number, have in ((1, many), (2, complete))
    ]
    cut, whole = believable(told, HOST)
    assert len(cut.have) == config.OFFER_RANGES_MAX
    assert (5000, 2) in cut.have and set(cut.have) < set(many)
    assert whole.have == complete


def test_T6_all_tellers_together_are_bounded_and_who_tells_little_loses_nothing() -> None:
    rumours, liars = Rumours(), range(1000, 1100)
    rumours.hear(TELLER, [item(number) for number in range(8)], 0.0)
    for liar in liars:
        lies = [item(1000 * liar + number) for number in range(config.RUMOURS_PER_TELLER_MAX)]
        rumours.hear(node(liar), lies, 1.0)
        assert sum(len(teller.rumours) for teller in rumours._tellers.values()) <= config.RUMOURS_MAX
    assert ids(rumours.take([FILE], 1.0)) >= set(range(8))
    assert all(len(rumours._tellers[node(liar)].rumours) > 30 for liar in liars)


def test_T6_who_says_no_more_is_forgotten_and_gains_no_dial_by_it() -> None:
    rumours = Rumours()
    rumours.hear(TELLER, [item(1)], 0.0)
    rumours.hear(SECOND, [item(2)], 0.0)
    rumours.hear(TELLER, [item(3)], 100.0)
    assert ids(rumours.take([FILE], config.RUMOUR_LASTS_S)) == {1, 3}
    assert rumours.take([FILE], 100.0 + config.RUMOUR_LASTS_S) == []
    assert not rumours._tellers
    assert config.RUMOUR_LASTS_S >= config.RUMOUR_DIALS * config.RUMOUR_DIAL_REGAINED_S


OPERATIONS = st.one_of(
    st.tuples(st.just("hear"), st.integers(0, 3), st.integers(0, 40)),
    st.tuples(st.just("take"), st.none(), st.none()),
    st.tuples(st.just("fail"), st.integers(0, 40), st.none()),
    st.tuples(st.just("link"), st.integers(0, 40), st.none()),
)


@given(st.lists(OPERATIONS, max_size=200))
def test_dials_under_way_and_failed_never_exceed_what_a_teller_has(operations: list[Any]) -> None:
    rumours = Rumours()
    failed: dict[int, int] = {}
    told: dict[int, set[int]] = {}
    for kind, first, second in operations:
        match kind:
            case "hear":
                rumours.hear(node(1000 + first), [item(second)], 0.0)
                told.setdefault(first, set()).add(second)
            case "take":
                rumours.take([FILE], 0.0)
            case _:
                tried = [t for t in rumours._tellers.items() if (node(first), FILE) in t[1].tried]
                for teller_id, _ in tried:
                    number = int.from_bytes(teller_id, "big")
                    failed[number] = failed.get(number, 0) + (kind == "fail")
                rumours.dialed(node(first), item(first).addresses[0] if kind == "link" else None)
        for teller_id, teller in rumours._tellers.items():
            spent = len(teller.tried) + failed.get(int.from_bytes(teller_id, "big"), 0)
            assert teller.credit + spent == config.RUMOUR_DIALS
            assert teller.credit >= 0
            assert teller.tried <= teller.rumours.keys()
