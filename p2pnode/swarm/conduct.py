"""Who sent bytes that are not what their hashes say, and what follows from that.

A block that does not fit its proof blames exactly one peer. A piece that fails as a whole blames its giver only if
there was but one; if several gave parts of it, it is *on parole*: asked whole of one peer, so that the next time it
is known whose fault it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

from p2pnode import config
from p2pnode.swarm.events import PeerId

__all__ = ["Conduct"]


class Conduct:
    """What is proven against peers, whether they are here or not."""

    def __init__(self) -> None:
        self._bad_pieces: Counter[PeerId] = Counter()
        self._banned: set[PeerId] = set()
        self.on_parole = 0  # the set of pieces that are asked whole of one peer

    @property
    def banned(self) -> frozenset[PeerId]:
        """Whoever sent too many bad pieces."""
        return frozenset(self._banned)

    def is_banned(self, peer: PeerId) -> bool:
        """Whether a peer is not asked any more."""
        return peer in self._banned

    def blame(self, peer: PeerId) -> None:
        """A bad piece is proven to be this peer's."""
        self._bad_pieces[peer] += 1
        if self._bad_pieces[peer] >= config.BAD_PIECES_MAX:
            self._banned.add(peer)

    def piece_failed(self, piece: int, givers: Set[PeerId]) -> PeerId | None:
        """A piece failed as a whole; gives the one whose fault that is, if it is known."""
        if len(givers) == 1:
            (guilty,) = givers
            self.blame(guilty)
            return guilty
        self.on_parole |= 1 << piece
        return None

    def piece_verified(self, piece: int) -> None:
        """A piece is right at last."""
        if self.on_parole:
            self.on_parole &= ~(1 << piece)
