from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.config import PIECES_MAX
from p2pnode.torrent.bitfield import Bitfield
from p2pnode.tracker.piece_ranges import are_well_formed, largest, merged

runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), max_size=12)


@pytest.mark.parametrize(
    ("ranges", "well_formed"),
    [
        ((), True),
        (((0, 5), (7, 1)), True),
        (((0, 5), (5, 1)), True),
        (((0, 5), (4, 1)), False),
        (((7, 1), (0, 5)), False),
        (((0, 0),), False),
        (((0, PIECES_MAX),), True),
        (((1, PIECES_MAX),), False),
        (((2**62, 2**62),), False),
    ],
)
def test_well_formed_runs(ranges: tuple[tuple[int, int], ...], well_formed: bool) -> None:
    assert are_well_formed(ranges) is well_formed


@given(runs)
def test_merging_keeps_the_pieces_and_makes_runs_as_bitfields_do(ranges: list[tuple[int, int]]) -> None:
    pieces = {piece for first, count in ranges for piece in range(first, first + count)}
    assert merged(ranges) == Bitfield(80, sum(1 << piece for piece in pieces)).ranges()


@given(runs, st.integers(0, 12))
def test_the_largest_runs_are_kept_in_order(ranges: list[tuple[int, int]], count_max: int) -> None:
    everything = merged(ranges)
    kept = largest(everything, count_max)
    assert are_well_formed(kept)
    assert len(kept) == min(count_max, len(everything))
    lengths = sorted((count for _, count in everything), reverse=True)
    assert sorted((count for _, count in kept), reverse=True) == lengths[: len(kept)]
