"""Which pieces to ask one peer for next.

Long runs, because a source reads them in one go and few requests carry them; from a place of its own for
each peer, because then several downloaders of one source soon hold different parts to give each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.torrent.bitfield import Bitfield, Ranges

__all__ = ["pick"]


def pick(wanted: Bitfield, start: int, sizes: Sequence[int], *, size_max: int, ranges_max: int) -> Ranges:
    """Choose from `wanted`, from piece `start` on or, when none is left there, from the beginning.

    At most `size_max` bytes in at most `ranges_max` runs, ascending; one piece even if it alone is larger.
    Empty if nothing is wanted. `sizes` are the bytes of each piece.
    """
    bits = wanted.bits >> start << start or wanted.bits
    ranges: list[tuple[int, int]] = []
    size_left = size_max
    while bits and len(ranges) < ranges_max:
        first = _lowest_one(bits)
        run_end = first + _lowest_one(~(bits >> first))
        end = first
        while end < run_end and (sizes[end] <= size_left or not (ranges or end > first)):
            size_left -= sizes[end]
            end += 1
        if end > first:
            ranges.append((first, end - first))
        if end < run_end:
            break
        bits = bits >> end << end
    return tuple(ranges)


def _lowest_one(bits: int) -> int:
    """The index of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1
