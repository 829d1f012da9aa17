"""What each round trip of a connection showed: its shortest time, its losses, and how much arrived."""

from __future__ import annotations

from math import inf
from typing import Final

RATE_INTERVAL_MIN_S: Final = 0.005  # acknowledgements come in clumps: a rate over less means nothing
RTT_MEMORY_S: Final = 30.0  # the shortest round trip is remembered for one to two of these
QUEUE_SHARE: Final = 1 / 32  # of the path's round trip: a longer delay than this is a queue …
QUEUE_MIN_S: Final = 0.001  # … but scheduling alone varies by so much
LOSS_SHARE_TOLERATED: Final = 0.05  # of a round trip's packets that radio or a bad cable may lose …
LOSSES_TOLERATED: Final = 1  # … and in a small window as many


class RoundTrips:
    """A round trip begins when a packet is acknowledged that was sent after the last one began."""

    def __init__(self) -> None:
        self.began_at = 0.0
        self.acked_bytes = 0
        self.acked_packets = 0  # in this round trip
        self.lost_packets = 0
        self.rtt_samples = 0
        self.rtt = inf  # the shortest of this round trip
        self.rtt_before = inf  # of the one before
        self.rate = 0.0  # bytes a second that arrived of late
        self._packets_before = 0
        self._rate_began_at = 0.0
        self._rate_before = 0.0
        self._path_rtt = inf
        self._path_rtt_before = inf
        self._path_rtt_began_at = 0.0

    @property
    def path_rtt(self) -> float:
        """The shortest round trip of the path in the last while: without any queue, one hopes."""
        return min(self._path_rtt, self._path_rtt_before)

    @property
    def has_queue(self) -> bool:
        """Whether packets wait somewhere on the path: even the quickest takes longer than it could."""
        path_rtt = self.path_rtt
        rtt = min(self.rtt, self.rtt_before)
        return rtt < inf and rtt - path_rtt > max(QUEUE_MIN_S, path_rtt * QUEUE_SHARE)

    @property
    def loses_too_much(self) -> bool:
        """Whether more is lost than a path may lose by chance."""
        packets = max(self.acked_packets, self._packets_before)
        return self.lost_packets > LOSSES_TOLERATED + LOSS_SHARE_TOLERATED * packets

    @property
    def carried(self) -> float:
        """Bytes that the path itself holds: the rate at which they arrived, for its shortest round trip."""
        path_rtt = self.path_rtt
        return max(self.rate, self._rate_before) * path_rtt if path_rtt < inf else 0.0

    def add_rtt(self, rtt: float) -> None:
        """Take in one measured round trip time (seconds)."""
        self.rtt_samples += 1
        if rtt < self.rtt:
            self.rtt = rtt
            if rtt < self._path_rtt:
                self._path_rtt = rtt

    def begin(self, now: float) -> None:
        """A new round trip begins."""
        self.began_at = now
        elapsed = now - self._rate_began_at
        if elapsed >= RATE_INTERVAL_MIN_S:
            self._rate_before, self.rate = self.rate, self.acked_bytes / elapsed
            self.acked_bytes = 0
            self._rate_began_at = now
        self._packets_before, self.acked_packets = self.acked_packets, 0
        self.lost_packets = 0
        self.rtt_before, self.rtt = self.rtt, inf
        self.rtt_samples = 0
        if now - self._path_rtt_began_at > RTT_MEMORY_S:
            self._path_rtt_before, self._path_rtt = self._path_rtt, inf
            self._path_rtt_began_at = now
