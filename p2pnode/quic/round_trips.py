"""What each round trip of a connection showed: how long it took, what was lost, and how much arrived."""

from __future__ import annotations

from math import inf
from typing import Final

SAMPLES_MIN: Final = 8  # round trip times that together tell something (RFC 9406 §4.3)
RTT_MEMORY_S: Final = 30.0  # the shortest round trip is remembered for one to two of these
RATE_INTERVAL_MIN_S: Final = 0.005  # acknowledgements come in clumps: a rate over less means nothing
LOSS_SHARE_TOLERATED: Final = 0.05  # of a round trip's packets: radio and bad cables lose up to 2 % …
LOSSES_TOLERATED: Final = 1  # … and in a small window one is a larger share than that
QUEUE_SHARE: Final = 1 / 32  # of the shortest round trip: a longer delay is a queue …
QUEUE_MIN_S: Final = 0.005  # … but the turns of busy event loops vary by so much …
QUEUE_PACKETS: Final = 4  # … and a burst of so many is not a queue on a slow path
UNEXPLAINED_SHARE: Final = 1 / 8  # of the shortest round trip: a delay that smaller windows did not end
SETTLING_ROUNDS: Final = 2  # until a round trip shows what a reduced window brought
LONG_QUEUE_S: Final = 0.1  # a longer delay helps nobody (RFC 6817 §2.5), if it is also a round trip


class RoundTrips:
    """A round trip ends when a packet is acknowledged that was sent after it began.

    Two delays are looked at. The shortest time of a round trip, as HyStart++ wants it; and the mean one, which
    noise hardly moves, against the mean that the last reduction of the window led to: so a path on which
    packets dawdle whatever we do does not look like a queue for ever.
    """

    def __init__(self, datagram_size: int) -> None:
        self.datagram_size = datagram_size
        self.began_at = 0.0
        self.acked_bytes = 0  # since the last rate was taken
        self.acked_packets = 0  # in this round trip
        self.lost_packets = 0  # the same
        self.rtt_samples = 0  # the same
        self.rtt = inf  # the shortest of this round trip
        self.rtt_before = inf  # of the one before
        self._rtt_sum = 0.0
        self._rtt_mean_before = inf
        self._settling = 0  # round trips still to come until one counts
        self._settled_rtt = inf  # the lowest mean since the window was reduced
        self._path_rtt = inf
        self._path_rtt_before = inf
        self._path_rtt_began_at = 0.0
        self._packets_before = 0
        self._rate = 0.0  # bytes a second
        self._rate_before = 0.0
        self._rate_began_at = 0.0

    # -- what happens --------------------------------------------------------------------------------------

    def add_rtt(self, rtt: float) -> None:
        """Take in one measured round trip time (seconds)."""
        self.rtt_samples += 1
        self._rtt_sum += rtt
        if rtt < self.rtt:
            self.rtt = rtt
            if rtt < self._path_rtt:
                self._path_rtt = rtt

    def begin(self, now: float) -> None:
        """One round trip ended and the next begins."""
        self.began_at = now
        self._take_rate(now)
        self._rtt_mean_before = self._rtt_sum / self.rtt_samples if self.rtt_samples else inf
        if self._settling:
            self._settling -= 1
            self._rtt_mean_before = inf  # of packets that were sent before the window was reduced
        else:
            self._settled_rtt = min(self._settled_rtt, self._rtt_mean_before)
        self._packets_before, self.acked_packets = self.acked_packets, 0
        self.rtt_before, self.rtt = self.rtt, inf
        self._rtt_sum = 0.0
        self.rtt_samples = self.lost_packets = 0
        if now - self._path_rtt_began_at > RTT_MEMORY_S:
            self._path_rtt_before, self._path_rtt = self._path_rtt, inf
            self._path_rtt_began_at = now

    def _take_rate(self, now: float) -> None:
        elapsed = now - self._rate_began_at
        if elapsed >= RATE_INTERVAL_MIN_S:
            self._rate_before, self._rate = self._rate, self.acked_bytes / elapsed
            self.acked_bytes = 0
            self._rate_began_at = now

    def settle(self) -> None:
        """The window was reduced: what was seen before tells nothing any more."""
        self.lost_packets = 0
        self._settling = SETTLING_ROUNDS
        self._settled_rtt = inf

    # -- what it shows -------------------------------------------------------------------------------------

    @property
    def path_rtt(self) -> float:
        """The shortest round trip in the last while (seconds): without any queue, one hopes."""
        return min(self._path_rtt, self._path_rtt_before)

    @property
    def rate(self) -> float:
        """Bytes a second that arrived of late."""
        return max(self._rate, self._rate_before)

    @property
    def carried(self) -> float:
        """Bytes that the path itself, and the turns of two event loops, hold: as far as it was used."""
        path_rtt = self.path_rtt
        return self.rate * max(path_rtt, QUEUE_MIN_S) if path_rtt < inf else 0.0

    @property
    def loses_too_much(self) -> bool:
        """Whether more is lost than a path may lose by chance."""
        packets = max(self.acked_packets, self._packets_before)
        return self.lost_packets > LOSSES_TOLERATED + LOSS_SHARE_TOLERATED * packets

    @property
    def has_queue(self) -> bool:
        """Whether packets take longer than they would if nothing waited before them."""
        if self._settling or self._rtt_mean == inf:
            return False
        path_rtt = self.path_rtt
        expected = min(self._settled_rtt, path_rtt * (1 + UNEXPLAINED_SHARE))
        burst_s = QUEUE_PACKETS * self.datagram_size / self.rate if self.rate else 0.0
        return self._rtt_mean - expected > max(QUEUE_MIN_S, QUEUE_SHARE * path_rtt, burst_s)

    @property
    def has_long_queue(self) -> bool:
        """Whether so much waits on the path that more helps nobody."""
        path_rtt = self.path_rtt
        rtt = self.rtt if self.rtt_samples >= SAMPLES_MIN else self.rtt_before
        return inf > rtt > path_rtt + max(LONG_QUEUE_S, path_rtt)

    @property
    def _rtt_mean(self) -> float:
        """Of this round trip, or of the one before while this one has shown too little."""
        if self.rtt_samples >= SAMPLES_MIN:
            return self._rtt_sum / self.rtt_samples
        return self._rtt_mean_before
