from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import InvalidData
from p2pnode.torrent.bitfield import Bitfield, runs_of

COUNT = 40
sets = st.sets(st.integers(0, COUNT - 1))


def bitfield(pieces: set[int], count: int = COUNT) -> Bitfield:
    return Bitfield(count, sum(1 << piece for piece in pieces))


@given(sets, st.integers(COUNT, COUNT + 20))
def test_ranges_and_bytes_lead_back(pieces: set[int], count: int) -> None:
    field = bitfield(pieces, count)
    assert Bitfield.from_ranges(field.ranges(), count) == field
    assert Bitfield.from_bytes(field.to_bytes(), count) == field
    assert list(field) == sorted(pieces)
    assert len(field) == len(pieces)
    assert [piece in field for piece in range(count)] == [piece in pieces for piece in range(count)]


@given(sets, sets)
def test_it_is_a_set(left: set[int], right: set[int]) -> None:
    a, b = bitfield(left), bitfield(right)
    assert set(a | b) == left | right
    assert set(a & b) == left & right
    assert set(a - b) == left - right
    assert set(~a) == set(range(COUNT)) - left
    assert bool(a) == bool(left)
    assert (hash(a) == hash(b)) or a != b


@given(sets, st.integers(0, COUNT), st.integers(0, COUNT))
def test_adding_and_removing_runs(pieces: set[int], first: int, count: int) -> None:
    count = min(count, COUNT - first)
    run = set(range(first, first + count))
    assert set(bitfield(pieces).adding(first, count)) == pieces | run
    assert set(bitfield(pieces).removing(first, count)) == pieces - run


@given(sets)
def test_pieces_as_runs(pieces: set[int]) -> None:
    assert runs_of(sorted(pieces)) == bitfield(pieces).ranges()
    assert runs_of([5, 6, 2, 3, 4, 9]) == ((5, 2), (2, 3), (9, 1))


def test_runs_are_as_long_as_they_can_be() -> None:
    assert bitfield({0, 1, 2, 5, 39}).ranges() == ((0, 3), (5, 1), (39, 1))
    assert Bitfield(COUNT).ranges() == ()
    assert Bitfield.full(COUNT).ranges() == ((0, COUNT),)


def test_piece_0_is_the_high_bit() -> None:
    assert bitfield({0}, 9).to_bytes() == b"\x80\x00"
    assert bitfield({8}, 9).to_bytes() == b"\x00\x80"


def test_complete_and_empty() -> None:
    assert Bitfield.full(3).is_complete
    assert not Bitfield(3).is_complete
    assert Bitfield(0).is_complete
    assert Bitfield(0).to_bytes() == b""
    assert Bitfield.from_ranges((), 0) == Bitfield.from_bytes(b"", 0) == Bitfield(0)
    assert Bitfield(3).adding(1) == bitfield({1}, 3)


@pytest.mark.parametrize(
    "ranges", [[(0, 0)], [(-1, 2)], [(0, 11)], [(10, 1)], [(3, 2), (4, 1)], [(5, 1), (0, 1)], [(0, 2**63)]]
)
def test_ranges_of_others_are_checked(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(InvalidData):
        Bitfield.from_ranges(ranges, 10)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00", b"\x00\x20"])
def test_bytes_of_others_are_checked(data: bytes) -> None:
    with pytest.raises(InvalidData):
        Bitfield.from_bytes(data, 10)


def test_our_own_mistakes_are_value_errors() -> None:
    for mistake in (
        lambda: Bitfield(3, 8),
        lambda: Bitfield(-1),
        lambda: Bitfield(3).adding(3),
        lambda: Bitfield(3).adding(-1),
        lambda: Bitfield(3) | Bitfield(4),
    ):
        with pytest.raises(ValueError, match="pieces"):
            mistake()


def test_neighbours_of_the_torrent_are_not_in_it() -> None:
    assert -1 not in Bitfield.full(3)
    assert 3 not in Bitfield.full(3)
