"""How long a packet may be overtaken before it counts as lost: learnt from those that came after all.

RFC 9002 §6.1 begins with three packets, or an eighth of a round trip. A path that holds single packets back
for 10 ms overtakes them by a hundred at 100 Mbit/s, and each one would be sent twice and shrink the window.
"""

from __future__ import annotations

from typing import Final

from p2pnode import config

PACKET_THRESHOLD: Final = 3  # RFC 9002 §6.1.1
TIME_THRESHOLD: Final = 9 / 8  # RFC 9002 §6.1.2, of a round trip
TIMER_GRANULARITY_S: Final = 0.001  # RFC 9002 §6.1.2: no loss is declared sooner
MARGIN: Final = 1.25  # beyond the latest one seen: the next may be a little later


class ReorderingWindow:
    """The two thresholds of loss detection (RFC 9002 §6.1), both widened by what proved spurious.

    A packet is lost when one sent `packet_threshold` later was acknowledged, or when an acknowledgement of a
    later one has come and `time_threshold()` seconds have passed since it was sent. Both grow at once with an
    acknowledgement of a packet that had been declared lost, and halve back when none was seen for
    `REORDERING_MEMORY_S` (RFC 8985 §6.2: it is reordering, not loss, that is remembered).
    """

    def __init__(self) -> None:
        self.packet_threshold = PACKET_THRESHOLD
        self._late_s = 0.0
        self._judged_at = 0.0  # when it was last widened or narrowed

    def time_threshold(self, latest_rtt: float, smoothed_rtt: float) -> float:
        """Seconds after its sending at which an overtaken packet counts as lost.

        Never more than two round trips (RFC 8985 §6.2), so that a remote which acknowledges late on purpose
        does not delay every repair.
        """
        rtt = max(latest_rtt, smoothed_rtt)
        return max(TIME_THRESHOLD * rtt, min(rtt + self._late_s, 2 * rtt), TIMER_GRANULARITY_S)

    def on_spurious(self, packets_late: int, late_s: float, now: float) -> None:
        """A packet that had been declared lost was acknowledged.

        `packets_late`: how much newer the newest acknowledged packet is, in packet numbers. `late_s`: how
        much later than one smoothed round trip after its sending the acknowledgement came, in seconds.
        """
        wanted = min(int(packets_late * MARGIN) + 1, config.PACKETS_IN_FLIGHT_MAX)
        self.packet_threshold = max(self.packet_threshold, wanted)
        self._late_s = max(self._late_s, late_s * MARGIN)
        self._judged_at = now

    def on_lost(self, now: float) -> None:
        """Packets are declared lost: forget half of the reordering if none was seen for long."""
        if now >= self._judged_at + config.REORDERING_MEMORY_S:
            self.packet_threshold = max(PACKET_THRESHOLD, self.packet_threshold // 2)
            self._late_s /= 2
            self._judged_at = now
