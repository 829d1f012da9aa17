"""The curve along which a congestion window grows once slow start is over: CUBIC (RFC 9438)."""

from __future__ import annotations

from math import inf
from typing import Final

GROWTH: Final = 0.4  # C of RFC 9438 §5, in datagrams a second cubed
RENO_INCREASE: Final = 9 / 17  # α of RFC 9438 §4.3 for β = 0.7: datagrams a round trip, on average as Reno
STEP_MAX: Final = 1.5  # RFC 9438 §4.2: a round trip grows the window by at most a half


class Cubic:
    """Growth since the last reduction. Windows are bytes, times seconds.

    First it rises steeply towards `plateau`, where packets were last lost, lingers there, and then looks for
    more ever faster; on short round trips, where that is slower than Reno, it grows as Reno.
    """

    def __init__(self, datagram_size: int) -> None:
        self.datagram_size = datagram_size
        self.plateau = 0.0  # W_max
        self._began_at = 0.0
        self._rise_s = 0.0  # K: from the reduction to the plateau
        self._reno_window = 0.0  # W_est
        self._acked_at = 0.0
        self._rtt = 0.0
        self._in_a_hurry = True

    def begin(self, now: float, window: float, plateau: float) -> None:
        """Start at `window` towards `plateau`; one that is not above `window` is passed at once."""
        self.plateau = max(plateau, window)
        self._rise_s = ((self.plateau - window) / self.datagram_size / GROWTH) ** (1 / 3)
        self._began_at = self._acked_at = now
        self._reno_window = window

    def pause(self, now: float) -> None:
        """The window was not used since the last acknowledgement: that time does not count (RFC 9438 §5.8)."""
        self._began_at += now - self._acked_at
        self._acked_at = now

    def follow(self, rtt: float, *, in_a_hurry: bool) -> None:
        """Take in the last round trip time (infinite: unknown), and whether to outgrow Reno at all."""
        self._rtt = rtt if rtt < inf else 0.0
        self._in_a_hurry = in_a_hurry

    def grown(self, now: float, window: float, acked: int) -> float:
        """The window after `acked` more bytes were acknowledged."""
        increase = RENO_INCREASE if self._reno_window < self.plateau else 1.0
        self._reno_window = least = self._reno_window + increase * acked * self.datagram_size / window
        if least < window:
            least = window
        if not self._in_a_hurry:
            self.pause(now)
            return least
        self._acked_at = now
        elapsed = now + self._rtt - self._began_at - self._rise_s
        target = self.plateau + GROWTH * self.datagram_size * elapsed * elapsed * elapsed
        if target <= least:
            return least
        if target > STEP_MAX * window:
            target = STEP_MAX * window
        return window + (target - window) * acked / window
