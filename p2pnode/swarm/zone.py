"""When a far peer may be asked for what is in our zone: a soft preference.

What a near peer has or expects is not asked of a far one, so that a zone pulls each piece over the wide link about
once. But nobody starves for that: when near peers give nothing for a while, or far ones are much faster than all near
ones together, far ones are asked for anything. How fast they are is found out by a request from time to time.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pnode.swarm.peer import Peer

__all__ = ["Zone"]

PATIENCE_S = 2.0  # without a byte from near peers; then far ones are asked for what is near
FAR_GAIN_MIN = 4.0  # times as fast as all near peers: then the wide link is not what is scarce
RATE_WEIGHT = 0.2  # of the newest look in the rate of near peers


class Zone:
    """What came from near peers, and whether that is enough to wait for them."""

    def __init__(self) -> None:
        self._near_at: float | None = None  # when a near peer gave last, or the first one joined
        self._waiting_since: float | None = None
        self._near_bytes = 0
        self._near_rate = 0.0
        self._looked_at = 0.0
        self._probed_at = 0.0
        self._is_open = False

    @property
    def has_near(self) -> bool:
        """Whether there ever was a near peer."""
        return self._near_at is not None

    def joined(self, peer: Peer, now: float) -> None:
        """A peer can be asked."""
        if peer.is_near and self._near_at is None:
            self._near_at = self._waiting_since = self._looked_at = self._probed_at = now

    def stored(self, peer: Peer, size: int, now: float) -> None:
        """Bytes came."""
        if peer.is_near:
            self._near_at = now
            self._near_bytes += size

    def look(self, peers: Iterable[Peer], now: float) -> None:
        """Decide anew, from time to time."""
        if self._near_at is None or self._waiting_since is None or now <= self._looked_at:
            return
        sample = self._near_bytes / (now - self._looked_at)
        self._near_rate += (sample - self._near_rate) * RATE_WEIGHT
        self._near_bytes, self._looked_at = 0, now
        far_rate = max((peer.pace.rate for peer in peers if not peer.is_near), default=0.0)
        is_faster = far_rate > FAR_GAIN_MIN * self._near_rate and now - self._waiting_since >= PATIENCE_S
        self._is_open = is_faster or now - self._near_at >= PATIENCE_S

    def may_ask(self, peer: Peer, now: float) -> bool:
        """Whether `peer` may be asked for what is near; a far one that may not, now and then for a trial."""
        if peer.is_near or self._near_at is None or self._is_open:
            return True
        if now - self._probed_at < PATIENCE_S or peer.owed_bytes:
            return False
        self._probed_at = now
        return True
