"""When to stop doubling the window before a queue overflows: HyStart++ (RFC 9406)."""

from __future__ import annotations

from math import inf
from typing import Final

from p2pnode.quic.round_trips import SAMPLES_MIN, RoundTrips

DELAY_MIN_S: Final = 0.008  # RFC 9406 §4.3: MIN_RTT_THRESH, twice as long: event loops take their turns …
DELAY_MAX_S: Final = 0.016  # … MAX_RTT_THRESH …
DELAY_SHARE: Final = 1 / 8  # … MIN_RTT_DIVISOR
CAUTIOUS_DIVISOR: Final = 4  # CSS_GROWTH_DIVISOR
CAUTIOUS_ROUNDS: Final = 5  # CSS_ROUNDS


class SlowStart:
    """The first slow start of a connection.

    It turns cautious when a round trip takes longer than the one before. A quick one again shows that it was
    noise; five cautious ones end it.
    """

    def __init__(self) -> None:
        self.divisor = 1  # the window grows by what was acknowledged ÷ this
        self._cautious_rtt = inf  # that made it cautious
        self._cautious_rounds = 0

    def on_rtt(self, rounds: RoundTrips) -> None:
        """Look at the round trip that has just had one more measurement."""
        if rounds.rtt_samples < SAMPLES_MIN:
            return
        if self.divisor == 1:
            before = rounds.rtt_before
            if rounds.rtt >= before + max(DELAY_MIN_S, min(before * DELAY_SHARE, DELAY_MAX_S)):
                self.divisor = CAUTIOUS_DIVISOR
                self._cautious_rtt = rounds.rtt
                self._cautious_rounds = 0
        elif rounds.rtt < self._cautious_rtt:
            self.divisor = 1

    def is_over(self) -> bool:
        """Ask once at the end of each round trip."""
        if self.divisor == 1:
            return False
        self._cautious_rounds += 1
        return self._cautious_rounds >= CAUTIOUS_ROUNDS
