"""Who sent bytes that are not what their hash says, and how often: one piece may be a bad disk, two are enough.

A ban holds for all downloads of this node and for the life of this process. It is of a node id: whoever makes
himself a new one begins anew, and has to prove it.
"""

from __future__ import annotations

from p2pnode import config


class Bans:
    """Counts proven bad pieces by node id, of a bounded number of nodes: who was blamed first is forgotten first."""

    def __init__(self) -> None:
        self._bad_pieces: dict[bytes, int] = {}
        self.count = 0  # nodes that were banned, those that are forgotten included

    def is_banned(self, node_id: bytes) -> bool:
        """Whether nothing is to be had from this node."""
        return self._bad_pieces.get(node_id, 0) >= config.BAD_PIECES_MAX

    def blame(self, node_id: bytes) -> bool:
        """Note a bad piece that this node is proven to have sent; true if that bans it."""
        if self.is_banned(node_id):
            return False
        self._bad_pieces[node_id] = self._bad_pieces.pop(node_id, 0) + 1
        if len(self._bad_pieces) > config.BANS_MAX:
            del self._bad_pieces[next(iter(self._bad_pieces))]
        is_new = self.is_banned(node_id)
        self.count += is_new
        return is_new
