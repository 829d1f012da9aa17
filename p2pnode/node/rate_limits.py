"""Rate limits: of the node and of each of its peers, up and down.

They count file bytes, as they are handed to QUIC or taken from it; metainfo, hashes, messages and the headers
of packets come on top and wait for nothing. Whoever waits is served in turn, a few milliseconds' worth each, so
that all transfers of a node share its limit alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import trio

from p2pnode import config
from p2pnode.errors import ConfigError
from p2pnode.node.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class RateLimits:
    """File bytes a second that a node gives (`up`) and takes (`down`), and each way with one peer; None: unlimited.

    `upload_slots`: it gives to so many peers at a time, by what they give (`swarm.choker`), and to one more for a
    try; None: to all, as suits a swarm whose nodes trust each other. `ConfigError` for a rate so low that sources
    would count as dead, and for no slot at all.
    """

    up: float | None = None
    down: float | None = None
    peer: float | None = None
    upload_slots: int | None = None

    def __post_init__(self) -> None:
        for rate in (self.up, self.down, self.peer):
            if rate is not None and not rate >= config.RATE_LIMIT_MIN:
                raise ConfigError(
                    f"a limit of {rate:g} bytes a second is too low: {config.RATE_LIMIT_MIN} is the least"
                )

        if self.upload_slots is not None and self.upload_slots < 1:
            raise ConfigError(f"{self.upload_slots} upload slots are none: at least 1")

    @property
    def receive_window(self) -> int:
        """The unread bytes of a stream that a remote may send: at a low rate few, or they would all come at once."""
        rates = [rate for rate in (self.down, self.peer) if rate is not None]
        if not rates:
            return config.STREAM_RECEIVE_WINDOW
        wanted = int(min(rates) * config.RATE_WINDOW_S)
        return min(config.STREAM_RECEIVE_WINDOW, max(config.STREAM_RECEIVE_WINDOW_MIN, wanted))


class RateLimit:
    """One limit, shared by all who `take` from it."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.waited_s = 0.0  # by all who took, together
        burst = max(bytes_per_s * config.RATE_BURST_S, config.RATE_BURST_MIN)
        self.step = max(1, int(burst / 2))
        self._bucket = TokenBucket(bytes_per_s, burst, trio.current_time())
        self._turn = trio.StrictFIFOLock()

    async def take(self, size: int) -> None:
        """Wait for one's turn, then for `size` bytes. Cancelled, nothing was taken."""
        came_at = trio.current_time()
        try:
            async with self._turn:
                now = trio.current_time()
                ready_at = self._bucket.ready_at(size, now)
                if ready_at > now:
                    await trio.sleep_until(ready_at)
                self._bucket.take(size, trio.current_time())
        finally:
            self.waited_s += trio.current_time() - came_at


class Throttle:
    """What one transfer goes through: the limits of its direction, the narrower scope first."""

    def __init__(self, limits: Sequence[RateLimit] = ()) -> None:
        self._limits = limits
        self.waited_s = 0.0

    @property
    def bytes_per_s(self) -> float | None:
        """The lowest of its limits; None when there is none."""
        return min((limit.bytes_per_s for limit in self._limits), default=None)

    @property
    def step(self) -> int | None:
        """The bytes to move before the next are taken, so that nothing comes in gusts; None: any number."""
        return min((limit.step for limit in self._limits), default=None)

    async def take(self, size: int) -> None:
        """Wait until `size` more file bytes may move; at most `step` of them."""
        if not self._limits:
            return
        came_at = trio.current_time()
        try:
            for limit in self._limits:
                await limit.take(size)
        finally:
            self.waited_s += trio.current_time() - came_at


class Throttles:
    """Makes the throttle of each transfer of a node."""

    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits
        self.up = None if limits.up is None else RateLimit(limits.up)
        self.down = None if limits.down is None else RateLimit(limits.down)
        self._up_by_peer: WeakValueDictionary[bytes, RateLimit] = WeakValueDictionary()
        self._down_by_peer: WeakValueDictionary[bytes, RateLimit] = WeakValueDictionary()

    def upload(self, node_id: bytes) -> Throttle:
        """For one request that this peer has made."""
        return self._throttle(self._up_by_peer, node_id, self.up)

    def download(self, node_id: bytes) -> Throttle:
        """For one request to this peer."""
        return self._throttle(self._down_by_peer, node_id, self.down)

    def _throttle(
        self, by_peer: WeakValueDictionary[bytes, RateLimit], node_id: bytes, of_node: RateLimit | None
    ) -> Throttle:
        """The peer's limit comes first: who waits for that does not stand in the node's queue."""
        limits: list[RateLimit] = []
        if self.limits.peer is not None:
            of_peer = by_peer.get(node_id)
            if of_peer is None:
                of_peer = by_peer[node_id] = RateLimit(self.limits.peer)
            limits.append(of_peer)
        if of_node is not None:
            limits.append(of_node)
        return Throttle(limits)

    @property
    def statistics(self) -> dict[str, int | float]:
        """The limits in effect (0: none), and how long transfers waited for the node's in all."""
        return {
            "limit_up_bytes_per_s": self.limits.up or 0,
            "limit_down_bytes_per_s": self.limits.down or 0,
            "limit_peer_bytes_per_s": self.limits.peer or 0,
            "limit_up_waited_s": 0.0 if self.up is None else self.up.waited_s,
            "limit_down_waited_s": 0.0 if self.down is None else self.down.waited_s,
        }
