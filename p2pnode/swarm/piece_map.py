"""Where each piece of a download stands.

Invariant: every piece is in exactly one state, and leaves it only along `_ALLOWED_MOVES`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from p2pnode.errors import LocalProtocolError
from p2pnode.torrent.bitfield import Bitfield

__all__ = ["PieceMap", "PieceState"]


class PieceState(Enum):
    """The life of a piece."""

    MISSING = auto()  # nobody was asked for it
    IN_FLIGHT = auto()  # one peer was asked for it
    VERIFYING = auto()  # that peer has sent all of it; we have not said yet whether it is right
    HAVE = auto()  # verified and written


# MISSING → HAVE: the last block came from a peer that was given up on a moment before.
_ALLOWED_MOVES: Final = {
    PieceState.MISSING: frozenset({PieceState.IN_FLIGHT, PieceState.HAVE}),
    PieceState.IN_FLIGHT: frozenset({PieceState.VERIFYING, PieceState.HAVE, PieceState.MISSING}),
    PieceState.VERIFYING: frozenset({PieceState.HAVE, PieceState.MISSING}),
    PieceState.HAVE: frozenset[PieceState](),
}


class PieceMap:
    """The state of every piece. Starts with what is there as HAVE, all else as MISSING."""

    def __init__(self, have: Bitfield) -> None:
        self._states = [PieceState.MISSING] * have.piece_count
        for piece in have:
            self._states[piece] = PieceState.HAVE
        self._missing_bits = (~have).bits  # the MISSING ones again, since they are asked for as a set
        self._have_count = len(have)

    @property
    def missing(self) -> Bitfield:
        """All pieces that are MISSING."""
        return Bitfield(len(self._states), self._missing_bits)

    @property
    def is_complete(self) -> bool:
        """Whether all pieces are HAVE."""
        return self._have_count == len(self._states)

    def state(self, piece: int) -> PieceState:
        """The state of `piece`; LocalProtocolError if the torrent has no such piece."""
        if not 0 <= piece < len(self._states):
            raise LocalProtocolError(f"there is no piece {piece}")
        return self._states[piece]

    def move(self, piece: int, to: PieceState) -> None:
        """Put `piece` into another state; LocalProtocolError if it cannot go there from where it is."""
        state = self.state(piece)
        if to not in _ALLOWED_MOVES[state]:
            raise LocalProtocolError(f"piece {piece} cannot go from {state.name} to {to.name}")
        self._states[piece] = to
        if PieceState.MISSING in (state, to):
            self._missing_bits ^= 1 << piece
        self._have_count += to is PieceState.HAVE
