"""Loss recovery (RFC 9002) that takes acknowledgements in by runs.

Stock aioquic keeps a record and makes a callback for each packet; at 250,000 packets a second that alone is a
third of a core. Here packets that were built together and carry one range of one stream are one `SentRun`:
acknowledged as a whole it costs as much as one packet, and where only a part of it is acknowledged or lost, it
is split. Packets that the library built itself are kept and treated as the library does.

Private names of aioquic are used here as in `aioquic_internals`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, Protocol

from aioquic.quic.logger import QuicLoggerTrace
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

from p2pnode.quic.congestion import CongestionControl, Pacer
from p2pnode.quic.reordering import ReorderingWindow

PERSISTENT_CONGESTION_PTOS: Final = 3  # RFC 9002 §7.6.1
GIVEN_UP_MAX: Final = 64  # runs of packets declared lost that are remembered, should they have arrived
GIVEN_UP_S: Final = 3.0  # … and for how long: whatever comes later than that says nothing of the path now
RTT_MIN_S: Final = 0.000_001  # a clock that stands still between sending and hearing

_start_of = attrgetter("start")
_stop_of = attrgetter("stop")


class StreamSender(Protocol):
    """The sending side of an aioquic stream, as far as acknowledgements are concerned."""

    def on_data_delivery(self, delivery: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        """Bytes `start` … `stop` of the stream were acknowledged or lost."""
        ...


class SentRun:
    """Packets `start` … `stop`, sent at once, each `packet_size` bytes with `data_size` bytes of one stream.

    The first one carries the bytes from `offset` on, the next what follows. `fin`: the stream ends with the
    only packet of this run.
    """

    __slots__ = ("data_size", "fin", "offset", "packet_size", "sender", "sent_time", "start", "stop")

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        sent_time: float,
        packet_size: int,
        sender: StreamSender,
        offset: int,
        data_size: int,
        fin: bool = False,
    ) -> None:
        self.start = start
        self.stop = stop
        self.sent_time = sent_time
        self.packet_size = packet_size
        self.sender = sender
        self.offset = offset
        self.data_size = data_size
        self.fin = fin

    def __repr__(self) -> str:
        return f"<SentRun {self.start}…{self.stop}>"

    def part(self, start: int, stop: int) -> SentRun:
        """The run of these packets out of it."""
        return SentRun(
            start,
            stop,
            sent_time=self.sent_time,
            packet_size=self.packet_size,
            sender=self.sender,
            offset=self.offset + (start - self.start) * self.data_size,
            data_size=self.data_size,
            fin=self.fin,
        )

    def tell(self, delivery: QuicDeliveryState, start: int, stop: int) -> None:
        """Tell the stream what became of these packets."""
        first = self.offset + (start - self.start) * self.data_size
        self.sender.on_data_delivery(delivery, first, first + (stop - start) * self.data_size, self.fin)


class Recovery(QuicPacketRecovery):
    """Stock's loss recovery with runs beside single packets. One for each connection."""

    _cc: CongestionControl
    _pacer: Pacer

    def __init__(
        self,
        *,
        congestion_control_algorithm: str,
        initial_rtt: float,
        max_datagram_size: int,
        peer_completed_address_validation: bool,
        send_probe: Callable[[], None],
        logger: logging.LoggerAdapter[logging.Logger],
        quic_logger: QuicLoggerTrace | None,
    ) -> None:
        super().__init__(
            congestion_control_algorithm=congestion_control_algorithm,
            initial_rtt=initial_rtt,
            max_datagram_size=max_datagram_size,
            peer_completed_address_validation=peer_completed_address_validation,
            send_probe=send_probe,
            logger=logger,
            quic_logger=quic_logger,
        )
        self._pacer = Pacer(self._cc)
        # By packet number. Only the space of 1-RTT packets has runs, and that one is never discarded.
        self._runs: list[SentRun] = []
        self._reordering = ReorderingWindow()
        self._given_up: deque[tuple[int, int, float]] = deque(maxlen=GIVEN_UP_MAX)  # start, stop, sent at

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """Keep a packet of the library's until it is acknowledged or lost."""
        super().on_packet_sent(packet=packet, space=space)
        self._pacer.on_sent(packet.sent_time or 0.0, packet.sent_bytes if packet.in_flight else 0)

    def on_run_sent(self, run: SentRun, space: QuicPacketSpace) -> None:
        """Keep a run until all of it is acknowledged or lost. Its numbers are higher than all before."""
        self._runs.append(run)
        packets = run.stop - run.start
        space.ack_eliciting_in_flight += packets
        self._time_of_last_sent_ack_eliciting_packet = run.sent_time
        size = packets * run.packet_size
        self._cc.on_run_sent(now=run.sent_time, size=size)
        self._pacer.on_sent(run.sent_time, size)

    # -- acknowledgements ----------------------------------------------------------------------------------

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Take in one ACK frame (RFC 9002 §A.7)."""
        largest = ack_rangeset.bounds().stop - 1
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        newest_number, newest_time = -1, 0.0
        eliciting = False
        acknowledged = list(ack_rangeset)
        if space.is_application_data and self._given_up:
            self._look_for_spurious(acknowledged, now, space)
        numbers = list(space.sent_packets)  # in the order of sending, which is that of the numbers
        has_runs = space.is_application_data and bool(self._runs)
        oldest = min(numbers[:1] + ([self._runs[0].start] if has_runs else []), default=largest)
        # Most ranges tell again what was told before; a remote may send thousands of them.
        for acked in acknowledged[bisect_right(acknowledged, oldest, key=_stop_of) :]:
            first, end = bisect_left(numbers, acked.start), bisect_left(numbers, acked.stop)
            for number in numbers[first:end]:
                packet = space.sent_packets.pop(number)
                newest_number, newest_time = number, packet.sent_time or 0.0
                eliciting |= packet.is_ack_eliciting
                self._acknowledge(packet, now, space)
            if has_runs:
                run = self._acknowledge_runs(acked, now, space)
                if run is not None:
                    eliciting = True
                    if run[0] > newest_number:
                        newest_number, newest_time = run
        if newest_number < 0:
            return
        if newest_number == largest and eliciting:
            self._measure_rtt(now - newest_time, ack_delay, now)
        self._detect_loss(now=now, space=space)
        if self.peer_completed_address_validation:
            self._pto_count = 0
        if self._quic_logger is not None:
            self._log_metrics_updated(log_rtt=newest_number == largest and eliciting)

    def _acknowledge(self, packet: QuicSentPacket, now: float, space: QuicPacketSpace) -> None:
        if packet.is_ack_eliciting:
            space.ack_eliciting_in_flight -= 1
        if packet.in_flight:
            self._cc.on_packet_acked(packet=packet, now=now)
        for call, arguments in packet.delivery_handlers:
            call(QuicDeliveryState.ACKED, *arguments)

    def _acknowledge_runs(self, acked: range, now: float, space: QuicPacketSpace) -> tuple[int, float] | None:
        """Remove what `acked` covers of the runs; the largest number removed and when that was sent."""
        runs = self._runs
        first = max(0, bisect_right(runs, acked.start, key=_start_of) - 1)
        if first < len(runs) and runs[first].stop <= acked.start:
            first += 1
        end = first
        kept: list[SentRun] = []
        newest: tuple[int, float] | None = None
        while end < len(runs) and runs[end].start < acked.stop:
            run = runs[end]
            start, stop = max(run.start, acked.start), min(run.stop, acked.stop)
            if run.start < start:
                kept.append(run.part(run.start, start))
            if stop < run.stop:
                kept.append(run.part(stop, run.stop))
            packets = stop - start
            space.ack_eliciting_in_flight -= packets
            self._cc.on_run_acked(
                now=now,
                size=packets * run.packet_size,
                packets=packets,
                newest_sent_time=run.sent_time,
            )
            run.tell(QuicDeliveryState.ACKED, start, stop)
            newest = stop - 1, run.sent_time
            end += 1
        runs[first:end] = kept
        return newest

    def _measure_rtt(self, sample: float, ack_delay: float, now: float) -> None:
        """RFC 9002 §5.3."""
        ack_delay = min(ack_delay, self.max_ack_delay)
        latest = max(sample, RTT_MIN_S)
        self._rtt_min = min(self._rtt_min, latest)
        if latest > self._rtt_min + ack_delay:
            latest -= ack_delay
        self._rtt_latest = latest
        if not self._rtt_initialized:
            self._rtt_first_sample_time = now
            self._rtt_initialized = True
            self._rtt_variance = sample / 2
            self._rtt_smoothed = sample
        else:
            self._rtt_variance += (abs(self._rtt_smoothed - latest) - self._rtt_variance) / 4
            self._rtt_smoothed += (latest - self._rtt_smoothed) / 8
        self._cc.on_rtt_measurement(now=now, rtt=sample)
        self._update_pacing()

    def _update_pacing(self) -> None:
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)

    # -- losses --------------------------------------------------------------------------------------------

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        """RFC 9002 §6.1: lost is what was sent long enough before something that was acknowledged."""
        if self._rtt_initialized:
            delay = self._reordering.time_threshold(self._rtt_latest, self._rtt_smoothed)
        else:
            delay = self._reordering.time_threshold(self._rtt_initial, self._rtt_initial)
        number_limit = space.largest_acked_packet - self._reordering.packet_threshold
        time_limit = now - delay
        oldest_left: float | None = None
        packets: list[QuicSentPacket] = []
        for number, packet in space.sent_packets.items():
            if number > space.largest_acked_packet:
                break
            assert packet.sent_time is not None
            if number <= number_limit or packet.sent_time <= time_limit:
                packets.append(packet)
            elif oldest_left is None or packet.sent_time < oldest_left:
                oldest_left = packet.sent_time
        runs: list[SentRun] = []
        if space.is_application_data and self._runs:
            runs, left = self._take_lost_runs(space.largest_acked_packet, number_limit, time_limit)
            if left is not None and (oldest_left is None or left < oldest_left):
                oldest_left = left
        space.loss_time = None if oldest_left is None else oldest_left + delay
        if packets or runs:
            persistent = self._is_persistent(packets, runs)
            self._reordering.on_lost(now)
            if space.is_application_data:
                self._remember(packets, runs)
            self._on_packets_lost(now=now, packets=packets, space=space)
            self._on_runs_lost(runs, now, space)
            if persistent:
                self._cc.on_persistent_congestion()
                self._update_pacing()

    def _take_lost_runs(
        self, largest_acked: int, number_limit: int, time_limit: float
    ) -> tuple[list[SentRun], float | None]:
        """Remove what is lost; it, and when the oldest was sent of what may yet be lost."""
        lost: list[SentRun] = []
        kept: list[SentRun] = []
        oldest_left: float | None = None
        seen = 0
        for run in self._runs:
            if run.start > largest_acked:
                break
            seen += 1
            stop = run.stop if run.sent_time <= time_limit else min(run.stop, number_limit + 1)
            if stop > run.start:
                lost.append(run if stop == run.stop else run.part(run.start, stop))
            if stop < run.stop:
                kept.append(run if stop <= run.start else run.part(stop, run.stop))
                oldest_left = run.sent_time if oldest_left is None else min(oldest_left, run.sent_time)
        self._runs[:seen] = kept
        return lost, oldest_left

    def _on_runs_lost(self, runs: Sequence[SentRun], now: float, space: QuicPacketSpace) -> None:
        for run in runs:
            packets = run.stop - run.start
            space.ack_eliciting_in_flight -= packets
            run.tell(QuicDeliveryState.LOST, run.start, run.stop)
            self._cc.on_run_lost(
                now=now, size=packets * run.packet_size, packets=packets, newest_sent_time=run.sent_time
            )
        if runs:
            self._update_pacing()

    # -- losses that were none -----------------------------------------------------------------------------

    def _remember(self, packets: Sequence[QuicSentPacket], runs: Sequence[SentRun]) -> None:
        """These are declared lost; an acknowledgement will show if that was wrong."""
        for packet in packets:
            if packet.in_flight:
                number = packet.packet_number
                self._given_up.append((number, number + 1, packet.sent_time or 0.0))
        self._given_up.extend((run.start, run.stop, run.sent_time) for run in runs)

    def _look_for_spurious(self, acked: Sequence[range], now: float, space: QuicPacketSpace) -> None:
        """Learn from packets that were declared lost and have arrived: they were only overtaken."""
        left: list[tuple[int, int, float]] = []
        for start, stop, sent_time in self._given_up:
            if now - sent_time > GIVEN_UP_S:
                continue
            at = start
            for part in acked[bisect_right(acked, start, key=_stop_of) :]:
                if part.start >= stop:
                    break
                first, end = max(at, part.start), min(stop, part.stop)
                self._reordering.on_spurious(
                    space.largest_acked_packet - first, now - sent_time - self._rtt_smoothed, now
                )
                self._cc.on_spurious_loss(now=now, packets=end - first)
                if at < first:
                    left.append((at, first, sent_time))
                at = end
            if at < stop:
                left.append((at, stop, sent_time))
        self._given_up.clear()
        self._given_up.extend(left)

    def _is_persistent(self, packets: Sequence[QuicSentPacket], runs: Sequence[SentRun]) -> bool:
        """Whether nothing got through for three probe timeouts (RFC 9002 §7.6.2)."""
        if not self._rtt_initialized:
            return False
        duration = self.get_probe_timeout() * PERSISTENT_CONGESTION_PTOS
        lost = [(run.start, run.stop, run.sent_time, True) for run in runs]
        lost += [
            (packet.packet_number, packet.packet_number + 1, packet.sent_time or 0.0, packet.is_ack_eliciting)
            for packet in packets
        ]
        expected = -1
        began: float | None = None
        for start, stop, sent_time, eliciting in sorted(lost):
            if start != expected:
                began = None  # something in between was acknowledged
            expected = stop
            if eliciting and sent_time > self._rtt_first_sample_time:
                if began is None:
                    began = sent_time
                elif sent_time - began > duration:
                    return True
        return False

    def reschedule_data(self, *, now: float, speed_up_handshake: bool = False) -> None:
        """Have the oldest data sent again as a probe (RFC 9002 §6.2.4)."""
        if not self._oldest_is_a_run():
            super().reschedule_data(now=now, speed_up_handshake=speed_up_handshake)
            return
        oldest = self._runs[0]
        if oldest.start + 1 == oldest.stop:
            del self._runs[0]
        else:
            self._runs[0] = oldest.part(oldest.start + 1, oldest.stop)
        # No sign of congestion: only taken out of flight, as stock does.
        self._cc.bytes_in_flight -= oldest.packet_size
        [space] = [space for space in self.spaces if space.is_application_data]
        space.ack_eliciting_in_flight -= 1
        oldest.tell(QuicDeliveryState.LOST, oldest.start, oldest.start + 1)
        if self._cc.watch is not None:  # the PING goes beside the data: that it arrives must not hide this
            self._cc.watch.on_lost(oldest.packet_size, oldest.sent_time, now)
        self._send_probe()

    def _oldest_is_a_run(self) -> bool:
        """Whether the oldest data that waits for an ACK is in a run. CRYPTO goes before all else."""
        if not self._runs:
            return False
        for space in self.spaces:
            for packet in space.sent_packets.values():
                if packet.is_crypto_packet:
                    return False
                if packet.is_ack_eliciting and (packet.sent_time or 0.0) < self._runs[0].sent_time:
                    return False
        return True
