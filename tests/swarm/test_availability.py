from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.swarm.availability import Availability, Counts
from p2pnode.swarm.peer import Peer

COUNT = 12
ALL = (1 << COUNT) - 1

sets = st.integers(0, ALL)


def peer(name: bytes, have: int, *, is_near: bool = True) -> Peer:
    return Peer(name, have, is_complete=have == ALL, is_near=is_near)


def pieces(bits: int) -> list[int]:
    return [piece for piece in range(COUNT) if bits >> piece & 1]


@given(st.lists(st.tuples(sets, sets), max_size=20), sets)
def test_counts_are_those_of_one_by_one(changes: list[tuple[int, int]], among: int) -> None:
    counts, expected = Counts(), Counter[int]()
    for before, after in changes:
        counts.add(before)
        counts.replace(before, after)
        expected.update(pieces(after))
    assert [counts.count(piece) for piece in range(COUNT)] == [expected[piece] for piece in range(COUNT)]
    least = min((expected[piece] for piece in pieces(among)), default=0)
    assert pieces(counts.rarest(among)) == [piece for piece in pieces(among) if expected[piece] == least]
    assert pieces(counts.without_counted(among)) == [piece for piece in pieces(among) if not expected[piece]]
    assert pieces(counts.counted_once(among)) == [piece for piece in pieces(among) if expected[piece] == 1]
    assert counts.holds_any(among) == any(expected[piece] for piece in pieces(among))


def test_what_is_coming_counts_once_whether_it_came_or_not_and_no_longer_than_it_lasts() -> None:
    availability = Availability()
    one = peer(b"a", 0b0001)
    one.expects(0b0011, until=5.0)
    availability.recount(one)
    assert availability.rarest(0b0111) == 0b0100
    one.got(0b0011)
    availability.recount(one)
    assert availability.rarest(0b0111) == 0b0100
    one.expects(0b0100, until=6.0)
    availability.recount(one)
    assert availability.rarest(0b0111) == 0b0111
    assert not one.expire_coming(5.9)
    assert one.expire_coming(6.0)
    availability.recount(one)
    assert availability.rarest(0b0111) == 0b0100


def test_who_has_everything_makes_nothing_less_rare() -> None:
    availability = Availability()
    one = peer(b"a", ALL ^ 1)
    availability.recount(one)
    availability.recount(peer(b"b", ALL))
    assert availability.only_complete_have(0b11) == 0b01
    one.got(ALL)
    one.is_complete = True
    availability.recount(one)
    assert availability.only_complete_have(0b11) == 0b11


def test_who_left_is_not_counted() -> None:
    availability = Availability()
    one = peer(b"a", 0b01)
    availability.recount(one)
    availability.forget(one)
    assert availability.rarest(0b11) == 0b11


def test_what_is_near_is_what_near_peers_have_or_expect_and_do_not_hold_back() -> None:
    availability = Availability()
    near, far = peer(b"n", 0b0001), peer(b"f", 0b0110, is_near=False)
    near.expects(0b0010, until=5.0)
    for one in (near, far):
        availability.recount(one)
    assert availability.not_near(0b1111) == 0b1100
    assert availability.is_expected_near(0b0010)
    assert not availability.is_expected_near(0b0100)
    near.is_silent = True
    availability.recount(near)
    assert availability.not_near(0b1111) == 0b1111
    availability.recount(peer(b"s", ALL))
    assert availability.not_near(0b1111) == 0


def test_the_only_one_that_has_something_is_needed() -> None:
    availability = Availability()
    one, other = peer(b"a", 0b0011), peer(b"b", 0b0010)
    for partial in (one, other):
        availability.recount(partial)
    assert availability.is_needed(one, 0b0011)
    assert not availability.is_needed(one, 0b0010)
    assert not availability.is_needed(other, 0b0010)
    seed = peer(b"s", ALL)
    availability.recount(seed)
    assert not availability.is_needed(one, 0b0011)
    assert availability.is_needed(seed, 0b0100)
    assert not availability.is_needed(seed, 0b0010)
    availability.recount(peer(b"t", ALL))
    assert not availability.is_needed(seed, 0b0100)
