from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.config import PIECES_MAX
from p2pnode.torrent.bitfield import Bitfield
from p2pnode.tracker.piece_ranges import are_well_formed, largest

runs = st.sets(st.integers(0, 60)).map(
    lambda pieces: Bitfield(61, sum(1 << piece for piece in pieces)).ranges()
)


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


@given(runs, st.integers(0, 12))
def test_the_largest_runs_are_kept_in_order(everything: tuple[tuple[int, int], ...], count_max: int) -> None:
    kept = largest(everything, count_max)
    assert are_well_formed(kept)
    assert len(kept) == min(count_max, len(everything))
    lengths = sorted((count for _, count in everything), reverse=True)
    assert sorted((count for _, count in kept), reverse=True) == lengths[: len(kept)]
