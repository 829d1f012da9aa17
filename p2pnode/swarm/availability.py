"""How many peers have each piece, or will have it soon.

Counting by pieces would cost a step for each piece of each peer that comes or goes. The counts are kept as *bit
planes* instead: plane *k* is one int, whose bit *i* is bit *k* of piece *i*'s count. A whole set of pieces is
counted up by a ripple of carries, and the rarest of a set are found from the highest plane down: a handful of
operations on ints, whatever the number of pieces.

Whoever has everything is not counted: it makes no piece rarer than another, and what only such peers have is what
the swarm needs most.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.swarm.events import PeerId
from p2pnode.swarm.peer import Peer

__all__ = ["Availability", "Counts"]


class Counts:
    """For each piece in how many sets it is. All sets are ints, piece *i* at bit *i*."""

    def __init__(self) -> None:
        self._planes: list[int] = []

    def add(self, bits: int) -> None:
        """Count one more for each piece in `bits`."""
        for index, plane in enumerate(self._planes):
            if not bits:
                return
            self._planes[index] = plane ^ bits
            bits &= plane
        if bits:
            self._planes.append(bits)

    def remove(self, bits: int) -> None:
        """Count one less for each piece in `bits`, each of which was counted before."""
        for index, plane in enumerate(self._planes):
            if not bits:
                return
            self._planes[index] = plane ^ bits
            bits ^= bits & plane  # what was zero here borrows from the next plane

    def replace(self, before: int, after: int) -> None:
        """Count a set that was `before` as `after`."""
        if before == after:
            return
        same = before & after
        self.add(after ^ same)
        self.remove(before ^ same)

    def rarest(self, among: int) -> int:
        """Those in `among` that are counted least often."""
        for plane in reversed(self._planes):
            among = among ^ (among & plane) or among
        return among

    def holds_any(self, bits: int) -> bool:
        """Whether any piece in `bits` is counted at all."""
        return any(plane & bits for plane in self._planes)

    def without_counted(self, bits: int) -> int:
        """Those in `bits` that are not counted at all."""
        for plane in self._planes:
            bits ^= bits & plane
        return bits

    def counted_once(self, bits: int) -> int:
        """Those in `bits` that are in exactly one set."""
        once, *higher = self._planes or [0]
        bits &= once
        for plane in higher:
            bits ^= bits & plane
        return bits

    def count(self, piece: int) -> int:
        """In how many sets one piece is."""
        return sum((plane >> piece & 1) << index for index, plane in enumerate(self._planes))


@dataclass(slots=True)
class _Counted:
    """As what a peer was counted last."""

    bits: int = 0
    near_bits: int = 0
    is_complete: bool = False
    is_near_complete: bool = False


class Availability:
    """What the peers of one download have or expect; those in our zone are counted a second time, by themselves."""

    def __init__(self) -> None:
        self._all = Counts()
        self._near = Counts()
        self._complete = 0
        self._complete_near = 0
        self._counted: dict[PeerId, _Counted] = {}

    def recount(self, peer: Peer) -> None:
        """Count a peer as it is now."""
        is_near = peer.is_near and not peer.is_silent
        bits = 0 if peer.is_complete else peer.expected_bits
        now = _Counted(bits, bits if is_near else 0, peer.is_complete, peer.is_complete and is_near)
        self._replace(peer.id, now)

    def forget(self, peer: Peer) -> None:
        """Count a peer no more."""
        self._replace(peer.id, _Counted())
        del self._counted[peer.id]

    def rarest(self, among: int) -> int:
        """Those in `among` that the fewest have or expect."""
        return self._all.rarest(among)

    def only_complete_have(self, bits: int) -> int:
        """Those in `bits` that nobody has or expects but who has everything."""
        return self._all.without_counted(bits)

    def is_expected_near(self, bits: int) -> bool:
        """Whether anybody in our zone, but who has everything, has or expects any of these."""
        return self._near.holds_any(bits)

    def not_near(self, bits: int) -> int:
        """Those in `bits` that nobody in our zone has or expects."""
        return 0 if self._complete_near else self._near.without_counted(bits)

    def is_needed(self, peer: Peer, bits: int) -> bool:
        """Whether a peer has something of `bits` that nobody else has or expects."""
        if peer.is_complete:
            return self._complete == 1 and bool(self.only_complete_have(bits))
        return not self._complete and bool(self._all.counted_once(bits & peer.have_bits))

    def _replace(self, peer: PeerId, now: _Counted) -> None:
        before = self._counted.get(peer) or _Counted()
        self._counted[peer] = now
        self._all.replace(before.bits, now.bits)
        self._near.replace(before.near_bits, now.near_bits)
        self._complete += now.is_complete - before.is_complete
        self._complete_near += now.is_near_complete - before.is_near_complete
