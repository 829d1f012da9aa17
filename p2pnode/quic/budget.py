"""A budget that refills with time: so many at once, so many a second for ever."""

from __future__ import annotations


class Budget:
    """A token bucket. It starts full."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._refilled_at = 0.0

    def spend(self, now: float, cost: float = 1) -> bool:
        """Take one, or what else it costs; False when there is not so much left."""
        self._left = min(self._burst, self._left + max(0.0, now - self._refilled_at) * self._per_s)
        self._refilled_at = now
        if self._left < cost:
            return False
        self._left -= cost
        return True
