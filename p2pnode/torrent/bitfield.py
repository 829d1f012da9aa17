"""Which pieces somebody has.

A `Bitfield` is an immutable value: an event may carry it, threads may share it, a set of them may be kept.
Inside is one Python int, piece *i* at bit *i*, so set operations run at memory speed; adding one piece copies
one bit for each piece of the torrent, which is 128 bytes for the usual thousand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from p2pnode.errors import InvalidData

__all__ = ["Bitfield", "Ranges", "runs_of"]

Ranges = tuple[tuple[int, int], ...]
"""Runs of pieces as `(first, count)`, ascending and not overlapping."""


def runs_of(pieces: Iterable[int]) -> Ranges:
    """Join pieces that follow each other into runs, in the order in which they come."""
    runs: list[tuple[int, int]] = []
    first = end = -1
    for piece in pieces:
        if piece != end:
            if end > first:
                runs.append((first, end - first))
            first = piece
        end = piece + 1
    if end > first:
        runs.append((first, end - first))
    return tuple(runs)


# BEP 3 counts the bits of a byte from its high end.
_REVERSED_BITS: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Bitfield:
    """A set of the pieces 0 … `piece_count` - 1; `len()` says how many are in it."""

    piece_count: int
    bits: int = 0

    def __post_init__(self) -> None:
        if self.piece_count < 0 or self.bits < 0 or self.bits >> self.piece_count:
            raise ValueError(f"bits beyond {self.piece_count} pieces")

    @classmethod
    def full(cls, piece_count: int) -> Self:
        """Give all pieces."""
        return cls(piece_count, (1 << piece_count) - 1)

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]], piece_count: int) -> Self:
        """Read `(first, count)` pairs; InvalidData unless ascending, disjoint, not empty, in the torrent."""
        digits = bytearray(b"0" * piece_count)
        end = 0
        for first, count in ranges:
            if first < end or count < 1 or first + count > piece_count:
                raise InvalidData(f"pieces {first}+{count} do not follow {end} within {piece_count}")
            end = first + count
            digits[first:end] = b"1" * count
        digits.reverse()
        return cls(piece_count, int(digits or b"0", 2))

    @classmethod
    def from_bytes(cls, data: bytes, piece_count: int) -> Self:
        """Read the form of BEP 3, piece 0 in the high bit; InvalidData for a wrong size or spare bits."""
        if len(data) != -(-piece_count // 8):
            raise InvalidData(f"{len(data)} bytes are no bitfield of {piece_count} pieces")
        bits = int.from_bytes(data.translate(_REVERSED_BITS), "little")
        if bits >> piece_count:
            raise InvalidData(f"a bitfield with bits beyond {piece_count} pieces")
        return cls(piece_count, bits)

    def to_bytes(self) -> bytes:
        """Give the form of BEP 3, spare bits zero."""
        return self.bits.to_bytes(-(-self.piece_count // 8), "little").translate(_REVERSED_BITS)

    def ranges(self) -> Ranges:
        """Give the runs of pieces as `(first, count)`."""
        digits = f"{self.bits:b}"[::-1]
        return tuple((run.start(), run.end() - run.start()) for run in re.finditer("1+", digits))

    def adding(self, first: int, count: int = 1) -> Self:
        """Give this set and `count` pieces from `first` on."""
        if not 0 <= first <= first + count <= self.piece_count:
            raise ValueError(f"pieces {first}+{count} of {self.piece_count}")
        return type(self)(self.piece_count, self.bits | ((1 << count) - 1) << first)

    def removing(self, first: int, count: int = 1) -> Self:
        """Give this set without `count` pieces from `first` on."""
        return self - type(self)(self.piece_count).adding(first, count)

    @property
    def is_complete(self) -> bool:
        """Whether every piece is here, as it always is in a torrent of no pieces."""
        return len(self) == self.piece_count

    def __contains__(self, piece: int) -> bool:
        return 0 <= piece < self.piece_count and bool(self.bits >> piece & 1)

    def __iter__(self) -> Iterator[int]:
        for first, count in self.ranges():
            yield from range(first, first + count)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __or__(self, other: Bitfield) -> Self:
        return type(self)(self.piece_count, self.bits | self._bits_of(other))

    def __and__(self, other: Bitfield) -> Self:
        return type(self)(self.piece_count, self.bits & self._bits_of(other))

    def __sub__(self, other: Bitfield) -> Self:
        return type(self)(self.piece_count, self.bits & ~self._bits_of(other))

    def __invert__(self) -> Self:
        return type(self).full(self.piece_count) - self

    def _bits_of(self, other: Bitfield) -> int:
        if other.piece_count != self.piece_count:
            raise ValueError(f"bitfields of {self.piece_count} and {other.piece_count} pieces")
        return other.bits
