from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.swarm.picker import pick
from p2pnode.torrent.bitfield import Bitfield, Ranges

SIZES = [10] * 20


def wanted(*pieces: int) -> Bitfield:
    return Bitfield(20, sum(1 << piece for piece in pieces))


def choose(among: Bitfield, start: int, size_max: int = 100, ranges_max: int = 9) -> Ranges:
    return pick(among, start, SIZES, size_max=size_max, ranges_max=ranges_max)


def test_one_run_from_the_start_on() -> None:
    assert choose(Bitfield.full(20), 5, size_max=30) == ((5, 3),)


def test_runs_are_joined_into_one_request_in_order() -> None:
    assert choose(wanted(2, 3, 7, 9, 10), 3) == ((3, 1), (7, 1), (9, 2))


def test_when_nothing_is_left_behind_the_start_it_begins_anew() -> None:
    assert choose(wanted(1, 2), 15) == ((1, 2),)
    assert choose(Bitfield.full(20), 20, size_max=20) == ((0, 2),)


def test_it_does_not_wrap_within_one_request() -> None:
    assert choose(wanted(0, 1, 19), 18) == ((19, 1),)


def test_no_more_runs_than_fit_a_message() -> None:
    assert choose(wanted(0, 2, 4, 6), 0, ranges_max=2) == ((0, 1), (2, 1))


def test_nothing_wanted_is_nothing_picked() -> None:
    assert choose(wanted(), 3) == ()


def test_one_piece_may_be_larger_than_a_request() -> None:
    assert pick(Bitfield.full(3), 1, [50] * 3, size_max=20, ranges_max=9) == ((1, 1),)


def test_a_larger_piece_ends_the_request_before_it() -> None:
    assert pick(Bitfield.full(4), 0, [5, 5, 50, 5], size_max=20, ranges_max=9) == ((0, 2),)
    assert pick(Bitfield(4, 0b1001), 0, [5, 5, 5, 50], size_max=20, ranges_max=9) == ((0, 1),)


@given(
    bits=st.integers(0, 2**20 - 1),
    start=st.integers(0, 20),
    sizes=st.lists(st.integers(1, 40), min_size=20, max_size=20),
    size_max=st.integers(1, 200),
    ranges_max=st.integers(1, 5),
)
def test_it_keeps_the_limits_and_picks_something_wanted(
    bits: int, start: int, sizes: list[int], size_max: int, ranges_max: int
) -> None:
    among = Bitfield(20, bits)
    ranges = pick(among, start, sizes, size_max=size_max, ranges_max=ranges_max)
    picked = Bitfield.from_ranges(ranges, 20)
    assert picked & among == picked
    assert bool(picked) == bool(among)
    assert len(ranges) <= ranges_max
    assert len(picked) == 1 or sum(sizes[piece] for piece in picked) <= size_max
    assert picked.ranges() == ranges  # neighbours are one run
