"""A token bucket: so many bytes a second for ever, and a little at once after a pause. Pure."""

from __future__ import annotations


class TokenBucket:
    """Holds up to `burst` bytes, refilled at `bytes_per_s`; it starts empty, so that a new one gives nothing away.

    More than the burst may be taken at once: the bucket is then in debt, and those who come later wait for it.
    """

    def __init__(self, bytes_per_s: float, burst: float, now: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst = burst
        self._level = 0.0
        self._filled_at = now

    def ready_at(self, size: float, now: float) -> float:
        """When `size` bytes, or a full bucket where that is less, will be there; `now` when they are."""
        self._fill(now)
        missing = min(size, self._burst) - self._level
        return now + max(0.0, missing) / self._bytes_per_s

    def take(self, size: float, now: float) -> None:
        """Take `size` bytes, whether they are there or not."""
        self._fill(now)
        self._level -= size

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._filled_at) * self._bytes_per_s)
        self._filled_at = now
