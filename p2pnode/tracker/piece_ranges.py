"""Runs of pieces of a torrent that is not known: only what holds for every torrent is checked."""

from __future__ import annotations

from p2pnode.config import PIECES_MAX
from p2pnode.wire.communication import PieceRanges

__all__ = ["are_well_formed", "largest"]


def are_well_formed(ranges: PieceRanges) -> bool:
    """Whether the runs are not empty, ascend without overlapping, and stay within any torrent."""
    end = 0
    for first, count in ranges:
        if first < end or count < 1:
            return False
        end = first + count
    return end <= PIECES_MAX


def largest(ranges: PieceRanges, count_max: int) -> PieceRanges:
    """The `count_max` longest runs, ascending: saying less than a node has is safe, saying more is not."""
    return tuple(sorted(sorted(ranges, key=lambda run: (-run[1], run[0]))[:count_max]))
