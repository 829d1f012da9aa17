"""How fast a peer gives, and how much to ask it for ahead.

Enough that it never waits for us, and little enough that the end of a download does not wait for what one slow peer
was asked long ago. So what is asked ahead is a time's worth of its rate, and that time is a part of the time which
the whole download still needs.
"""

from __future__ import annotations

from p2pnode import config

__all__ = ["Pace", "ahead_s"]

SAMPLE_S = 0.25  # of giving make one sample of a rate
SAMPLE_WEIGHT = 0.4  # of a new one: four of them forget the past
AHEAD_MIN_S = 0.25  # asked ahead: longer than most round trips, or the peer would wait …
AHEAD_MAX_S = 3.0  # … and what libtorrent asks for
AHEAD_PART = 8  # of the time left


def ahead_s(remaining_bytes: int, rate: float) -> float:
    """For how long to ask ahead when so much is missing and comes so fast (bytes/s; 0: not known yet)."""
    if not rate:
        return AHEAD_MAX_S
    return min(max(remaining_bytes / rate / AHEAD_PART, AHEAD_MIN_S), AHEAD_MAX_S)


class Pace:
    """How fast one peer gives while it has something to give.

    Only the time counts in which it was asked for something. Until a first sample is complete, what is asked ahead
    begins with two pieces and doubles each time that all of it came.
    """

    def __init__(self) -> None:
        self.rate = 0.0  # bytes/s; 0: not known yet
        self.latency_s = 0.0  # the shortest time from a question to its first bytes; 0: not known yet
        self.gap_s = 0.0  # the usual time between two stores; 0: not known yet
        self.stored_at = 0.0  # when bytes came last, or when it was first asked again after it had been idle
        self._first_window = 0
        self._since: float | None = None  # since when it is busy, and not yet in `_busy_s`
        self._busy_s = 0.0
        self._bytes = 0

    def asked(self, now: float) -> None:
        """It was idle, and has been asked for something."""
        self._since = self.stored_at = now

    def idle(self, now: float) -> None:
        """It owes nothing any more."""
        if self._since is not None:
            self._busy_s += now - self._since
            self._since = None

    def stored(self, size: int, now: float, *, asked_at: float | None) -> None:
        """So many bytes came; `asked_at`: they are the first ones of a question that an idle peer was asked then."""
        if asked_at is not None:
            latency_s = now - asked_at
            self.latency_s = min(self.latency_s or latency_s, latency_s)
        gap_s = now - self.stored_at
        self.gap_s = gap_s if not self.gap_s else self.gap_s + (gap_s - self.gap_s) / 8
        self.stored_at = now
        self._bytes += size
        self._first_window += size
        busy_s = self._busy_s + (now - self._since if self._since is not None else 0.0)
        if busy_s >= SAMPLE_S:
            sample = self._bytes / busy_s
            self.rate = sample if not self.rate else self.rate + (sample - self.rate) * SAMPLE_WEIGHT
            self._bytes, self._busy_s = 0, 0.0
            if self._since is not None:
                self._since = now

    def bytes_ahead(self, seconds: float, piece_size: int) -> int:
        """How much to ask it for ahead, for so many seconds and the round trip."""
        if not self.rate:
            return 2 * piece_size + self._first_window
        return max(int(self.rate * (seconds + self.latency_s)), 2 * piece_size)

    def seconds_for(self, size: int, now: float, rate_else: float) -> float:
        """In how long it will have given `size` bytes, when it is as fast as it was, or was silent as long again."""
        rate = self.rate or rate_else
        expected_s = self.latency_s + size / rate if rate else config.RELIEVE_AFTER_S
        return max(expected_s, now - self.stored_at) if self._since is not None else expected_s

    def is_silent(self, now: float, after_s: float) -> bool:
        """Whether it owes something and gave nothing for so long, and four times as long as usual."""
        return self._since is not None and now - self.stored_at >= max(after_s, 4 * self.gap_s)
