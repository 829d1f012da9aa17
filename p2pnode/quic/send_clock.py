"""What held back a connection's sending, and for how long.

The driver says after each step what keeps the engine from sending more; from then until the next step that is
what the time goes to. So whoever shows a transfer can name its congestion window, or its flow control.
"""

from __future__ import annotations

import enum


class SendLimit(enum.Enum):
    """Why a connection sends nothing more at this moment."""

    APPLICATION = "everything that was handed over is sent"
    CONGESTION = "the congestion window is full, or its pacing is not due"
    FLOW_CONTROL = "the remote gave no more credit (RFC 9000 §4.1)"


class SendClock:
    """Seconds for which each limit held, and the `limit` that holds now.

    Times are those of any one clock that never goes back.
    """

    def __init__(self) -> None:
        self.limit = SendLimit.APPLICATION
        self._since: float | None = None
        self._seconds = dict.fromkeys(SendLimit, 0.0)

    def switch(self, limit: SendLimit, now: float) -> None:
        """From now on this is the limit."""
        if self._since is not None:
            self._seconds[self.limit] += now - self._since
        self.limit = limit
        self._since = now

    def seconds(self, limit: SendLimit, now: float) -> float:
        """How long this has been the limit, up to now."""
        running_s = now - self._since if self._since is not None and limit is self.limit else 0.0
        return self._seconds[limit] + running_s
