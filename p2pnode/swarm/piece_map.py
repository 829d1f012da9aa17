"""Where each piece of a download stands.

Invariant: every piece is in exactly one state, and leaves it only along `_ALLOWED_MOVES`.

A state is one byte for each piece, so that a move costs the same however many pieces there are. The MISSING ones
are kept a second time, as the bits of one int: they are asked for as a set. That set changes once for a whole
request, since changing a set of two million pieces costs as much as copying it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final

from p2pnode.errors import LocalProtocolError
from p2pnode.torrent.bitfield import Bitfield

__all__ = ["PieceMap", "PieceState", "bits_of"]


class PieceState(IntEnum):
    """The life of a piece."""

    MISSING = 0  # wanted, and nobody was asked for it
    IN_FLIGHT = 1  # somebody was asked for it
    VERIFYING = 2  # all of it came; we have not said yet whether it is right
    HAVE = 3  # verified and written
    UNWANTED = 4  # nobody is asked for it


# → HAVE from everywhere: the last block came from a peer that was given up on a moment before.
_ALLOWED_MOVES: Final = {
    PieceState.MISSING: frozenset({PieceState.IN_FLIGHT, PieceState.HAVE}),
    PieceState.IN_FLIGHT: frozenset({PieceState.VERIFYING, PieceState.HAVE, PieceState.MISSING}),
    PieceState.VERIFYING: frozenset({PieceState.HAVE, PieceState.IN_FLIGHT, PieceState.MISSING}),
    PieceState.HAVE: frozenset[PieceState](),
    PieceState.UNWANTED: frozenset({PieceState.HAVE}),
}


class PieceMap:
    """The state of every piece. Starts with what is there as HAVE, what is not `wanted` as UNWANTED, else MISSING."""

    def __init__(self, have: Bitfield, wanted: Bitfield | None = None) -> None:
        self._states = bytearray(have.piece_count)
        missing = ~have
        if wanted is not None:
            for piece in missing - wanted:
                self._states[piece] = PieceState.UNWANTED
            missing &= wanted
        for piece in have:
            self._states[piece] = PieceState.HAVE
        self._missing_bits = missing.bits
        self._wanted_count = len(missing)  # wanted and not HAVE

    @property
    def missing_bits(self) -> int:
        """All pieces that are MISSING."""
        return self._missing_bits

    @property
    def is_complete(self) -> bool:
        """Whether all pieces that are wanted are HAVE."""
        return not self._wanted_count

    def state(self, piece: int) -> PieceState:
        """The state of `piece`; LocalProtocolError if the torrent has no such piece."""
        if not 0 <= piece < len(self._states):
            raise LocalProtocolError(f"there is no piece {piece}")
        return PieceState(self._states[piece])

    def move(self, pieces: Iterable[int], to: PieceState) -> None:
        """Put `pieces` into another state; LocalProtocolError if one cannot go there from where it is."""
        changed: list[int] = []
        for piece in pieces:
            state = self.state(piece)
            if to not in _ALLOWED_MOVES[state]:
                raise LocalProtocolError(f"piece {piece} cannot go from {state.name} to {to.name}")
            self._states[piece] = to
            if PieceState.MISSING in (state, to):
                changed.append(piece)
            self._wanted_count -= to is PieceState.HAVE and state is not PieceState.UNWANTED
        self._missing_bits ^= bits_of(changed)


def bits_of(pieces: Sequence[int]) -> int:
    """The set of these pieces, piece *i* at bit *i*: joined near each other first, for a far bit is a large int."""
    first = min(pieces, default=0)
    bits = 0
    for piece in pieces:
        bits |= 1 << piece - first
    return bits << first
