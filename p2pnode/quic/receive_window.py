"""How much a remote may send ahead of what is read: as much as the path holds, within bounds."""

from __future__ import annotations

from typing import Final

ROUND_TRIPS: Final = 8  # of the measured rate that a window holds; half of it is one stream's: what follows a
# lost packet waits there until that is noticed, repaired, perhaps twice, and credit has gone back


class ReceiveWindow:
    """The receive window of a connection, in bytes. It grows when whole windows are read within a few round trips.

    It follows what was *read*, so that a remote cannot make it grow for a reader that stands still, and the
    *shortest* round trip, so that a queue which the window itself fills is no reason for more.
    """

    def __init__(self, size: int, *, growth_max: int) -> None:
        self.growth = 1  # how many times the first size it is now: 1, 2, 4 …
        self._first_size = size
        self._growth_max = growth_max
        self._read = 0  # bytes since then
        self._measured_at: float | None = None

    @property
    def size(self) -> int:
        """Unread bytes that the remote may send."""
        return self._first_size * self.growth

    def on_read(self, size: int, now: float, rtt_min: float) -> None:
        """`size` more bytes were read; `rtt_min` is the shortest round trip, in seconds."""
        if self._measured_at is None:
            self._measured_at = now
            return
        self._read += size
        if self._read < self.size // 2:
            return
        elapsed = now - self._measured_at
        if self.growth < self._growth_max and self._read * rtt_min * ROUND_TRIPS > self.size * elapsed:
            self.growth *= 2
        self._read, self._measured_at = 0, now
