from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.swarm.availability import Availability
from p2pnode.swarm.peer import Peer
from p2pnode.swarm.picker import RANDOM_FIRST, Picker, nth_one, rank_among
from p2pnode.swarm.piece_map import bits_of
from p2pnode.torrent.bitfield import runs_of

COUNT = 20
ALL = (1 << COUNT) - 1


def peer(have: int = ALL, name: bytes = b"seed") -> Peer:
    return Peer(name, have, is_complete=have == ALL, is_near=True)


class Picking:
    """A picker that is past its first random pieces, and some peers."""

    def __init__(self, *peers: Peer, seed: int = 1, ranges_max: int = 9, **options: object) -> None:
        self.availability = Availability()
        for one in peers:
            self.availability.recount(one)
        self.picker = Picker(
            [10] * COUNT,
            self.availability,
            Random(seed),
            ranges_max=ranges_max,
            **options,  # type: ignore[arg-type]
        )
        if not options:
            for _ in range(RANDOM_FIRST):
                self.picker.pick(ALL, peer(), 1)

    def pick(self, among: int = ALL, of: Peer | None = None, size_max: int = 10) -> list[int]:
        return self.picker.pick(among, of or peer(), size_max)


def test_what_fewest_have_comes_first() -> None:
    picking = Picking(peer(ALL ^ 1 << 7 ^ 1 << 8, b"a"), peer(ALL ^ 1 << 7, b"b"))
    assert picking.pick() == [7]
    assert picking.pick(ALL ^ 1 << 7) == [8]


def test_what_is_coming_to_somebody_counts_as_what_he_has() -> None:
    one = peer(0, b"a")
    one.expects(ALL ^ 1 << 3, until=5.0)
    assert Picking(one).pick() == [3]


def test_the_first_pieces_are_whatever_chance_picks() -> None:
    one = peer(ALL ^ 1 << 7, b"a")
    first = set()
    for seed in range(60):
        picking = Picking(one, seed=seed, priorities=[0] * COUNT)
        first.add(picking.pick()[0])
    assert len(first) > COUNT // 2


def test_a_request_goes_on_where_the_last_one_ended() -> None:
    picking, seed = Picking(), peer()
    first = picking.pick(of=seed, size_max=30)
    second = picking.pick(ALL & ~bits_of(first), seed, 20)
    assert first == [first[0], first[0] + 1, first[0] + 2]
    assert second == [first[-1] + 1, first[-1] + 2]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_mates_that_see_the_same_never_take_the_same(count: int) -> None:
    ids = [bytes([number]) for number in range(count)]
    mates = []
    for own in ids:
        picking = Picking()
        picking.picker.share(own, [other for other in ids if other != own])
        mates.append(picking)
    left = ALL
    while left.bit_count() >= count:
        picked = [piece for picking in mates for piece in picking.pick(left)]
        assert len(picked) == len(set(picked)) == count
        left &= ~bits_of(sorted(picked))


def test_who_has_mates_does_not_go_on_from_one_place() -> None:
    first = set()
    for seed in range(40):
        picking = Picking(seed=seed)
        picking.picker.share(b"a", [b"b"])
        first.add(picking.pick()[0])
    assert len(first) > 5
    assert max(first) < COUNT // 2


def test_who_is_done_with_his_part_goes_on_elsewhere() -> None:
    picking = Picking()
    picking.picker.share(b"a", [b"b"])
    assert picking.pick(ALL ^ (1 << 10) - 1)[0] >= 10


def test_what_somebody_has_is_asked_for_from_anywhere() -> None:
    first = set()
    for seed in range(40):
        picking = Picking(peer(ALL >> 1, b"b"), seed=seed)
        picking.picker.share(b"a", [b"b"])
        first |= set(picking.pick(ALL >> 1))
    assert max(first) >= 10


@given(st.sets(st.binary(min_size=1, max_size=3), min_size=1, max_size=9))
def test_every_mate_has_a_rank_of_its_own(ids: set[bytes]) -> None:
    ranks = [rank_among(own, ids - {own}) for own in ids]
    assert sorted(ranks) == [(rank, len(ids) - 1) for rank in range(len(ids))]


@given(st.integers(0, 1 << 70))
def test_finds_each_one_by_its_number(bits: int) -> None:
    places = [place for place in range(bits.bit_length()) if bits >> place & 1]
    assert [nth_one(bits, index) for index in range(bits.bit_count())] == places
    for index in (-1, bits.bit_count()):
        with pytest.raises(IndexError):
            nth_one(bits, index)


def test_in_order_on_request() -> None:
    picking = Picking(peer(ALL ^ 1 << 7, b"a"), sequential=True)
    seed = peer()
    assert picking.pick(of=seed, size_max=30) == [0, 1, 2]
    assert picking.pick(ALL ^ 0b111, seed, 20) == [3, 4]
    assert picking.pick(ALL ^ 0b11110, seed, 20) == [0, 5]


def test_what_is_most_urgent_comes_before_what_is_rare() -> None:
    priorities = [0] * COUNT
    priorities[5] = priorities[9] = 2
    priorities[12] = 1
    picking = Picking(peer(1 << 5 | 1 << 9 | 1 << 12, b"a"), priorities=priorities)
    assert sorted(picking.pick(size_max=30)) == [5, 9, 12]
    assert set(picking.pick(size_max=20)) == {5, 9}
    assert picking.pick(ALL ^ 1 << 5 ^ 1 << 9) == [12]
    assert picking.pick(1 << 3) == [3]


def test_one_piece_may_be_larger_than_a_request() -> None:
    assert len(Picking().pick(size_max=1)) == 1


@pytest.mark.parametrize("sequential", [False, True])
@given(
    bits=st.integers(1, ALL),
    have=st.lists(st.integers(0, ALL), max_size=4),
    size_max=st.integers(1, 200),
    ranges_max=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_it_keeps_the_limits_and_picks_something_wanted(
    sequential: bool, bits: int, have: list[int], size_max: int, ranges_max: int, seed: int
) -> None:
    peers = [peer(one, bytes([number])) for number, one in enumerate(have)]
    options = {"sequential": True} if sequential else {}
    picking = Picking(*peers, seed=seed, ranges_max=ranges_max, **options)
    picked = picking.pick(bits, size_max=size_max)
    assert picked
    assert picked == sorted(set(picked))
    assert not bits_of(picked) & ~bits
    assert len(runs_of(picked)) <= ranges_max
    assert len(picked) == 1 or 10 * len(picked) <= size_max


def test_two_that_know_of_each_other_do_not_go_on_and_on_from_one_place() -> None:
    """Each hears of the other's picks too late: in step they would ask for the same for ever."""
    second = set()
    for seed in range(40):
        picking, of = Picking(seed=seed), peer()
        picking.picker.share(b"", [b"b"])
        first = picking.pick(of=of)
        second.add((picking.pick(ALL ^ bits_of(first), of)[0] - first[0]) % COUNT)
    assert len(second) > COUNT // 2
