"""How fast to send: a congestion control that tells bad paths from full ones, and a pacer.

Why it is as it is stands in docs/decisions/0005-congestion.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from aioquic.quic.congestion.base import K_MINIMUM_WINDOW, QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer

from p2pnode import config
from p2pnode.quic.cubic import Cubic
from p2pnode.quic.round_trips import RoundTrips
from p2pnode.quic.slow_start import SlowStart

CONGESTION_CONTROL: Final = "p2pnode"  # its name in aioquic's registry
REDUCED_LEAST: Final = 0.5  # a reduction leaves at least this share of the window, as Reno's …
REDUCED_MOST: Final = 0.7  # … and at most CUBIC's (RFC 9438 §4.6), or flows never share a path equally …
REDUCED_MOST_LOSSY: Final = 0.85  # … but this where packets are lost without a queue too: it may be chance
LOSSY: Final = 3  # losses without a queue (the older ones count less) that make a path one of those
PLATEAU_LOWERED: Final = 0.85  # RFC 9438 §4.7: (1 + β) / 2, to make room for newcomers
USED_SHARE: Final = 7 / 8  # of the window in flight: it limits; runs do not fill it to the last byte
USED_SHARE_SLOW_START: Final = 1 / 2  # what a slow start has acknowledged by then
RESTART_SHARE: Final = 3 / 4  # of the window before an idle time is where slow start ends after it


@dataclass(slots=True)
class _Reduction:
    """The last one: what was before it, in case its reason proves spurious, and what it might have left."""

    window: float
    ssthresh: int | None
    plateau: float
    most: float  # bytes
    corrections: int = 2  # round trips at whose ends it may still prove too deep


class DeliveryWatch(Protocol):
    """Who wants to know what became of packets of which size: path MTU discovery does."""

    def on_acked(self, size: int) -> None:
        """Packets of `size` were acknowledged."""
        ...

    def on_lost(self, size: int, sent_at: float, now: float) -> None:
        """Packets of `size` are lost, the newest of which was sent at `sent_at`."""
        ...


class CongestionControl(QuicCongestionControl):
    """CUBIC with HyStart++, which a few losses do not slow down as long as nothing waits in a queue.

    `bytes_in_flight`, `congestion_window` and `ssthresh` (None: never left slow start) are bytes,
    `packets_lost` counts. All calls take `now` and sending times in seconds of one clock.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.packets_lost = 0
        self.watch: DeliveryWatch | None = None
        self._initial_window = self.congestion_window
        self._window = float(self.congestion_window)  # with the fraction of a byte
        self._rounds = RoundTrips(max_datagram_size)
        self._slow_start = SlowStart()
        self._cubic = Cubic(max_datagram_size)
        self.datagram_size = max_datagram_size
        self._flight_now_max = 0  # the most bytes in flight in this round trip …
        self._flight_max = 0  # … or in the one before: what nothing tests does not grow (RFC 9002 §7.8)
        self._sent_at = 0.0
        self._reduced_at = -1.0
        self._reduction: _Reduction | None = None
        self._losses_to_disprove = 0
        self._lossy = 0.0  # losses without a queue, halved with each reduction

    @property
    def datagram_size(self) -> int:
        """Bytes of a full datagram; set it when the path's MTU changes."""
        return self._datagram_size

    @datagram_size.setter
    def datagram_size(self, size: int) -> None:
        self._datagram_size = self._rounds.datagram_size = self._cubic.datagram_size = size
        self._window_min = K_MINIMUM_WINDOW * size
        self.window_max = min(config.CONGESTION_WINDOW_MAX, config.PACKETS_IN_FLIGHT_MAX * size)
        self._set_window(self._window)  # or it might have no room for a single datagram

    @property
    def in_slow_start(self) -> bool:
        """Whether the window doubles in each round trip."""
        return self.ssthresh is None or self.congestion_window < self.ssthresh

    # -- by runs of packets --------------------------------------------------------------------------------

    def on_run_sent(self, *, now: float, size: int) -> None:
        """`size` bytes of packets that count as in flight were sent."""
        if self.bytes_in_flight == 0 and now - self._sent_at > config.CONGESTION_IDLE_S:
            self._restart(now)
        self._sent_at = now
        self.bytes_in_flight += size
        if self.bytes_in_flight > self._flight_now_max:
            self._flight_now_max = self.bytes_in_flight
            if self.bytes_in_flight > self._flight_max:
                self._flight_max = self.bytes_in_flight

    def on_run_acked(self, *, now: float, size: int, packets: int, newest_sent_time: float) -> None:
        """`packets` packets of `size` bytes together, the newest sent then, were acknowledged."""
        self.bytes_in_flight -= size
        if self.watch is not None:
            self.watch.on_acked(size // packets)
        rounds = self._rounds
        rounds.acked_bytes += size
        rounds.acked_packets += packets
        if newest_sent_time >= rounds.began_at:
            self._begin_round(now)
        if newest_sent_time <= self._reduced_at:
            return  # sent before the window shrank
        window = self._window
        if self.ssthresh is None or window < self.ssthresh:
            if self._flight_max >= USED_SHARE_SLOW_START * window:
                self._set_window(window + size / self._slow_start.divisor)
        elif self._flight_max < min(USED_SHARE * window, window - self._datagram_size):
            self._cubic.pause(now)  # not even one more datagram was kept from going
        else:
            self._set_window(self._cubic.grown(now, window, size))

    def on_run_lost(self, *, now: float, size: int, packets: int, newest_sent_time: float) -> None:
        """`packets` packets of `size` bytes together, the newest sent then, were declared lost."""
        self.bytes_in_flight -= size
        self.packets_lost += packets
        self._losses_to_disprove += packets
        if self.watch is not None:
            self.watch.on_lost(size // packets, newest_sent_time, now)
        if newest_sent_time <= self._reduced_at:
            return  # of the same congestion
        rounds = self._rounds
        rounds.lost_packets += packets
        if rounds.loses_too_much or rounds.has_queue:
            self._reduce(now)
        else:
            self._lossy += packets

    def on_spurious_loss(self, *, now: float, packets: int = 1) -> None:
        """So many packets that were declared lost have arrived. Undo a reduction for which no others were.

        RFC 9438 §4.9.
        """
        self._losses_to_disprove -= packets
        self._rounds.lost_packets = max(0, self._rounds.lost_packets - packets)
        reduction = self._reduction
        if reduction is not None and self._losses_to_disprove <= 0:
            self._reduction = None
            self._set_window(max(self._window, reduction.window))
            self.ssthresh = reduction.ssthresh
            self._cubic.begin(now, self._window, reduction.plateau)

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """A packet was acknowledged `rtt` seconds after it was sent."""
        self._rounds.add_rtt(rtt)
        least = max(config.SLOW_START_WINDOW_MIN, config.SLOW_START_PACKETS_MIN * self._datagram_size)
        if self.ssthresh is None and self.congestion_window >= least:
            self._slow_start.on_rtt(self._rounds)
            if self._rounds.has_long_queue:  # cautious round trips would only make it longer
                self._end_slow_start(now, max(self._rounds.carried, self._window * REDUCED_LEAST))

    def on_persistent_congestion(self) -> None:
        """Nothing got through for several probe timeouts: begin anew (RFC 9002 §7.6)."""
        self._set_window(self._window_min)
        self._reduced_at = -1.0
        self._reduction = None

    # -- packet by packet, as stock calls it ---------------------------------------------------------------

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """See `on_run_sent`."""
        assert packet.sent_time is not None
        self.on_run_sent(now=packet.sent_time, size=packet.sent_bytes)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """See `on_run_acked`."""
        assert packet.sent_time is not None
        self.on_run_acked(now=now, size=packet.sent_bytes, packets=1, newest_sent_time=packet.sent_time)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """See `on_run_lost`."""
        lost = list(packets)
        self.on_run_lost(
            now=now,
            size=sum(packet.sent_bytes for packet in lost),
            packets=len(lost),
            newest_sent_time=max(packet.sent_time or 0.0 for packet in lost),
        )

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """They are in flight no more, and nobody knows whether they arrived."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    # -- growing and shrinking -----------------------------------------------------------------------------

    def _set_window(self, window: float) -> None:
        if window < self._window_min:
            window = self._window_min
        if window > self.window_max:
            window = self.window_max
        self._window = window
        self.congestion_window = int(window)

    def _begin_round(self, now: float) -> None:
        self._rounds.begin(now)
        self._cubic.follow(self._rounds.rtt_before, in_a_hurry=not self._rounds.has_long_queue)
        self._flight_max = max(self._flight_now_max, self.bytes_in_flight)
        self._flight_now_max = self.bytes_in_flight
        if self._reduction is not None and self._reduction.corrections:
            self._correct(now, self._reduction)
        if self.ssthresh is None and self._slow_start.is_over():
            self._end_slow_start(now, self._window)

    def _end_slow_start(self, now: float, window: float) -> None:
        self._set_window(min(window, self._window))
        self.ssthresh = self.congestion_window
        self._cubic.begin(now, self._window, self._window)

    def _reduce(self, now: float) -> None:
        """Make the window what the path carried of late: that empties its queue and keeps it busy."""
        window, rounds, has_queue = self._window, self._rounds, self._rounds.has_queue
        is_lossy = self._lossy >= LOSSY or not has_queue
        most = window * (REDUCED_MOST_LOSSY if is_lossy else REDUCED_MOST)
        self._reduction = _Reduction(window, self.ssthresh, self._cubic.plateau, most)
        self._losses_to_disprove = rounds.lost_packets
        self._reduced_at = now
        self._lossy /= 2
        self._set_window(min(max(rounds.carried, window * REDUCED_LEAST), most))
        self.ssthresh = self.congestion_window
        plateau = window * PLATEAU_LOWERED if window < self._cubic.plateau else window
        # without a queue, all beyond what was carried was lost: do not hurry back there
        self._cubic.begin(now, self._window, plateau if has_queue else self._window)
        rounds.settle()

    def _correct(self, now: float, reduction: _Reduction) -> None:
        """What a path carries shows only after slow start overran it: until then less than that was sent."""
        reduction.corrections -= 1
        window = min(self._rounds.carried, reduction.most)
        if window > self._window:
            self._set_window(window)
            self.ssthresh = self.congestion_window
            self._cubic.begin(now, self._window, self._cubic.plateau)

    def _restart(self, now: float) -> None:
        """After silence nobody knows what the path carries: find out anew, quickly up to what it carried."""
        if self._window > self._initial_window:
            self.ssthresh = int(self._window * RESTART_SHARE)
            self._cubic.begin(now, self.ssthresh, self._window)
            self._set_window(self._initial_window)


register_congestion_control(CONGESTION_CONTROL, CongestionControl)


class Pacer(QuicPacketPacer):
    """Spreads a window over its round trip, in bursts that are worth waking up for.

    Once a burst is spent nothing goes until the next one has accrued, however often it is asked: a driver
    that wakes with each acknowledgement would otherwise drip.
    """

    def __init__(self, control: CongestionControl) -> None:
        super().__init__(max_datagram_size=control.datagram_size)
        self._control = control
        self._rate: float | None = None  # bytes a second; None: whatever the window lets go
        self._burst = 0.0  # bytes that go at once …
        self._awaited = 0.0  # … of which so many are waited for …
        self._saved_max = 0.0  # … and that a driver which comes late may catch up
        self._saved = 0.0  # bytes that may go at `_counted_at`
        self._counted_at = 0.0
        self._accruing = False
        self._assumed = 0  # bytes of packets that the library is building: their sizes come with `on_sent`

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Follow a new window (bytes) or round trip time (seconds)."""
        smoothed_rtt = max(smoothed_rtt, config.PACING_RTT_MIN_S)
        was_paced = self._rate is not None
        gain = config.PACING_GAIN_SLOW_START if self._control.in_slow_start else config.PACING_GAIN
        self._rate = rate = gain * congestion_window / smoothed_rtt
        size = self._control.datagram_size
        most = self._burst_max
        least = max(2 * size, min(congestion_window / 4, config.PACING_BURST_PACKETS_MIN * size))
        self._burst = min(max(rate * config.PACING_BURST_S, least), most)
        self._awaited = max(self._burst / 2, min(least, most))
        self._saved_max = min(max(rate * config.PACING_CATCH_UP_S, self._burst), most)
        self._saved = min(self._saved, self._saved_max) if was_paced else self._saved_max

    @property
    def _burst_max(self) -> int:
        """What goes at once at most: the other side shall have something to do while we make the next one."""
        size = self._control.datagram_size
        return max(2 * size, min(config.PACING_BURST_PACKETS * size, config.PACING_BURST_BYTES))

    def burst_bytes(self, now: float) -> int:
        """How many bytes may go now: 0, or at least one datagram."""
        if self._rate is None:
            return self._burst_max
        self._count(now)
        return 0 if self._accruing else max(int(self._saved), self._control.datagram_size)

    def on_sent(self, now: float, size: int) -> None:
        """So many bytes in flight went: 0 for packets that only acknowledge, which are never held back.

        More than were allowed delay the next burst.
        """
        self._assumed = 0
        if self._rate is not None and size:
            self._count(now)
            self._saved = max(self._saved - size, -self._saved_max)
            self._accruing = self._accruing or self._saved < self._control.datagram_size

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]
        """When something may be sent; None: now."""
        if self._rate is None:
            return None
        self._count(now)
        left = self._saved - self._assumed
        if self._accruing or (self._assumed and left < self._control.datagram_size):
            return now + (self._awaited - left) / self._rate
        return None

    def update_after_send(self, now: float) -> None:
        """The library has built a packet, full perhaps: it asks whether it may build another before it sends."""
        self._assumed += self._control.datagram_size

    def _count(self, now: float) -> None:
        assert self._rate is not None
        if now > self._counted_at:
            self._saved = min(self._saved + (now - self._counted_at) * self._rate, self._saved_max)
            self._counted_at = now
        if self._accruing and self._saved >= self._awaited - 1:  # a byte for rounding
            self._accruing = False
