"""Which packets were received, to tell duplicates (RFC 9000 §12.3).

Stock aioquic looks back 128 packets and takes whatever is older for a duplicate: less than one burst, so that
what was only overtaken by a burst would be lost. Ranges look back as far as there are not too many gaps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from aioquic.quic.recovery import QuicPacketNumberWindow

RANGES_MAX: Final = 256  # gaps remembered; what is below the oldest of more counts as received


class PacketNumbers(QuicPacketNumberWindow):
    """A set of packet numbers, as ranges in order; all below `lower` are in it."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = 0
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __contains__(self, packet_number: int) -> bool:
        if packet_number < self.lower:
            return True
        index = bisect_right(self._starts, packet_number) - 1
        return index >= 0 and packet_number < self._stops[index]

    def add(self, packet_number: int) -> None:
        """Add one packet."""
        self.add_run(packet_number, packet_number + 1)

    def add_run(self, start: int, stop: int) -> None:
        """Add the packets `start` … `stop` - 1, of which some may be in it already."""
        starts, stops = self._starts, self._stops
        if stops and start == stops[-1]:
            stops[-1] = stop
            return
        first = bisect_left(stops, start)  # the first range that touches it or lies behind it
        end = bisect_right(starts, stop)  # the first range that lies behind it
        if first < end:
            start, stop = min(start, starts[first]), max(stop, stops[end - 1])
        starts[first:end] = [start]
        stops[first:end] = [stop]
        if len(starts) > RANGES_MAX:
            del starts[0]
            self.lower = max(self.lower, stops.pop(0))
