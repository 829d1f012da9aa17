"""Runs of packets are acknowledged and lost as the same packets one by one would be, in whatever order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStreamSender
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.quic.aioquic_recovery import Recovery, SentRun
from p2pnode.quic.congestion import CongestionControl
from p2pnode.quic.path_mtu import BLACK_HOLE_LOSSES, PathMtu

DATA = 100  # bytes of the stream in each packet
SIZE = 140  # bytes of each packet
RTT_S = 0.1


class Watched(CongestionControl):
    """Remembers what it was told besides bytes."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.persistent = 0
        self.acked = 0
        self.spurious = 0

    def on_run_acked(self, *, now: float, size: int, packets: int, newest_sent_time: float) -> None:
        super().on_run_acked(now=now, size=size, packets=packets, newest_sent_time=newest_sent_time)
        self.acked += packets

    def on_spurious_loss(self, *, now: float, packets: int = 1) -> None:
        super().on_spurious_loss(now=now, packets=packets)
        self.spurious += packets

    def on_persistent_congestion(self) -> None:
        super().on_persistent_congestion()
        self.persistent += 1


register_congestion_control("watched", Watched)


class Subject:
    """Loss recovery, one packet number space and the sending side of one stream."""

    def __init__(self, *, by_runs: bool) -> None:
        self.by_runs = by_runs
        self.probes = 0
        self.space = QuicPacketSpace(is_application_data=True)
        self.recovery = Recovery(
            congestion_control_algorithm="watched",
            initial_rtt=RTT_S,
            max_datagram_size=1200,
            peer_completed_address_validation=True,
            send_probe=self._count_probe,
            logger=logging.LoggerAdapter(logging.getLogger(__name__), {}),
            quic_logger=None,
        )
        self.recovery.spaces = [self.space]
        self.recovery.handshake_confirmed = True
        self.sender = QuicStreamSender(stream_id=0, writable=True)
        self.number = 0

    def _count_probe(self) -> None:
        self.probes += 1

    def write(self, size: int, fin: bool) -> None:
        if self.sender._buffer_fin is None:
            self.sender.write(bytes(size), fin)

    def send(self, count: int, now: float) -> None:
        """Up to so many packets with what the stream has to send."""
        if not len(self.sender._pending):
            return
        pending = self.sender._pending[0]
        count = min(count, (pending.stop - pending.start) // DATA)
        fin, size = False, DATA
        if not count:
            count, size = 1, pending.stop - pending.start
            fin = pending.stop == self.sender._buffer_fin
        start, stop = pending.start, pending.start + count * size
        self.sender._pending.subtract(start, stop)
        self.sender.highest_offset = max(self.sender.highest_offset, stop)
        if fin:
            self.sender._pending_eof = False
        if self.by_runs:
            run = SentRun(
                self.number,
                self.number + count,
                sent_time=now,
                packet_size=SIZE,
                sender=self.sender,
                offset=start,
                data_size=size,
                fin=fin,
            )
            self.recovery.on_run_sent(run, self.space)
            self.number += count
            return
        for n in range(count):
            arguments = (start + n * size, start + (n + 1) * size, fin)
            self.send_single(now, handlers=[(self.sender.on_data_delivery, arguments)])

    def send_single(
        self,
        now: float,
        *,
        eliciting: bool = True,
        in_flight: bool = True,
        handlers: Any = (),
        size: int = SIZE,
    ) -> None:
        packet = QuicSentPacket(
            epoch=tls.Epoch.ONE_RTT,
            in_flight=in_flight,
            is_ack_eliciting=eliciting,
            is_crypto_packet=False,
            packet_number=self.number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=now,
            sent_bytes=size,
            delivery_handlers=list(handlers),
        )
        self.recovery.on_packet_sent(packet=packet, space=self.space)
        self.number += 1

    def acknowledge(self, ranges: list[tuple[int, int]], now: float) -> None:
        acked = RangeSet()
        for start, size in ranges:
            if start < self.number:
                acked.add(start, min(self.number, start + size))
        if len(acked):
            self.recovery.on_ack_received(ack_rangeset=acked, ack_delay=0.01, now=now, space=self.space)

    def time_out(self, now: float) -> None:
        at = self.recovery.get_loss_detection_time(amplification_limited=False)
        if at is not None and at <= now:
            self.recovery.on_loss_detection_timeout(now=now)

    @property
    def control(self) -> Watched:
        control = self.recovery._cc
        assert isinstance(control, Watched)
        return control

    def state(self) -> dict[str, Any]:
        """Everything that must not depend on how packets are kept."""
        recovery, sender, control = self.recovery, self.sender, self.control
        return {
            "bytes in flight": recovery.bytes_in_flight,
            "eliciting in flight": self.space.ack_eliciting_in_flight,
            "loss time": self.space.loss_time,
            "largest acknowledged": self.space.largest_acked_packet,
            "deadline": recovery.get_loss_detection_time(amplification_limited=False),
            "probes": (self.probes, recovery._pto_count),
            "rtt": (recovery._rtt_latest, recovery._rtt_min, recovery._rtt_smoothed, recovery._rtt_variance),
            "pending": list(sender._pending),
            "acknowledged": list(sender._acked),
            "buffer": (sender._buffer_start, sender._buffer_stop, len(sender._buffer)),
            "end": (sender._pending_eof, sender._acked_fin, sender.is_finished, sender.buffer_is_empty),
            "lost": control.packets_lost,
            "acked": control.acked,
            "persistent": control.persistent,
            "spurious": control.spurious,
            "threshold": recovery._reordering.packet_threshold,
            "late": recovery._reordering._late_s,
        }

    def check(self) -> None:
        """The runs are in order, and what is counted is what is kept."""
        runs = self.recovery._runs
        assert all(run.start < run.stop for run in runs)
        assert all(before.stop <= after.start for before, after in pairwise(runs))
        packets = sum(run.stop - run.start for run in runs)
        singles = [packet for packet in self.space.sent_packets.values() if packet.in_flight]
        assert self.recovery.bytes_in_flight == SIZE * (packets + len(singles))


Operation = Callable[[Subject, float], None]


def write(size: int, fin: bool) -> Operation:
    return lambda subject, now: subject.write(size, fin)


def send(count: int) -> Operation:
    return lambda subject, now: subject.send(count, now)


def send_single(eliciting: bool, in_flight: bool) -> Operation:
    return lambda subject, now: subject.send_single(now, eliciting=eliciting, in_flight=in_flight)


def acknowledge(ranges: list[tuple[int, int]]) -> Operation:
    return lambda subject, now: subject.acknowledge(ranges, now)


def time_out() -> Operation:
    return lambda subject, now: subject.time_out(now)


ranges = st.lists(st.tuples(st.integers(0, 59), st.integers(1, 15)), min_size=1, max_size=4)
operations = st.lists(
    st.tuples(
        st.sampled_from([0.001, 0.001, 0.01, 0.05, 0.2, 1.0]),
        st.one_of(
            st.builds(send, st.integers(1, 8)),
            st.builds(send, st.integers(1, 8)),
            st.builds(acknowledge, ranges),
            st.builds(acknowledge, ranges),
            st.builds(send_single, st.booleans(), st.just(True)),
            st.just(send_single(False, False)),
            st.builds(time_out),
            st.builds(write, st.integers(0, 500), st.booleans()),
        ),
    ),
    max_size=30,
)


@given(operations)
@settings(max_examples=400, deadline=None)
def test_runs_fare_as_single_packets_do(happening: list[tuple[float, Operation]]) -> None:
    subjects = [Subject(by_runs=True), Subject(by_runs=False)]
    for subject in subjects:
        subject.write(2050, False)
    now = 1.0
    for pause, operation in happening:
        now += pause
        if subjects[0].number > 60 and subjects[0].recovery.bytes_in_flight:
            operation = time_out() if len(happening) % 2 else acknowledge([(0, 100)])
        for subject in subjects:
            operation(subject, now)
        subjects[0].check()
        assert subjects[0].state() == subjects[1].state()


# -- the cases that such a sequence is about ---------------------------------------------------------------


def sent(count: int, *, at: float = 1.0, runs: int = 1) -> Subject:
    """A subject that sent so many packets in so many runs."""
    subject = Subject(by_runs=True)
    subject.write(100 * DATA * count, False)
    for _ in range(runs):
        subject.send(count, at)
    return subject


def to_send_again(subject: Subject) -> list[tuple[int, int]]:
    sender = subject.sender
    return [(part.start, part.stop) for part in sender._pending if part.start < sender.highest_offset]


def runs_of(subject: Subject) -> list[tuple[int, int, int]]:
    return [(run.start, run.stop, run.offset) for run in subject.recovery._runs]


def test_a_run_is_acknowledged_as_a_whole() -> None:
    subject = sent(10)
    subject.acknowledge([(0, 10)], 1.1)
    assert runs_of(subject) == []
    assert subject.recovery.bytes_in_flight == 0
    assert subject.sender._buffer_start == 10 * DATA
    assert subject.recovery._rtt_latest == pytest.approx(0.1)


def test_a_run_is_split_by_what_is_acknowledged_in_its_middle() -> None:
    subject = sent(10)
    subject.acknowledge([(2, 2), (6, 1)], 1.01)
    assert runs_of(subject) == [(4, 6, 400), (7, 10, 700)]
    assert list(subject.sender._acked) == [range(200, 400), range(600, 700)]
    assert to_send_again(subject) == [(0, 200)]  # three and more below the largest: lost


def test_several_runs_are_acknowledged_at_once() -> None:
    subject = sent(3, runs=5)
    subject.acknowledge([(1, 12)], 1.01)
    assert runs_of(subject) == [(13, 15, 1300)]
    assert to_send_again(subject) == [(0, 100)]


def test_what_time_tells_lost_is_lost_as_a_whole() -> None:
    subject = sent(10)
    subject.send(10, 2.0)
    subject.acknowledge([(10, 1)], 2.1)
    assert to_send_again(subject) == [(0, 1000)]
    assert runs_of(subject) == [(11, 20, 1100)]


def test_the_rest_waits_for_its_time() -> None:
    subject = sent(5)
    subject.acknowledge([(4, 1)], 1.1)
    assert runs_of(subject) == [(2, 4, 200)]
    assert subject.space.loss_time == pytest.approx(1.0 + 0.1 * 9 / 8)
    subject.time_out(1.2)
    assert runs_of(subject) == []
    assert subject.space.loss_time is None
    assert to_send_again(subject) == [(0, 400)]


def test_a_probe_timeout_sends_the_first_packet_of_the_oldest_run_again() -> None:
    subject = sent(5)
    window = subject.control.congestion_window
    subject.time_out(9.0)
    assert subject.probes == 1
    assert runs_of(subject) == [(1, 5, 100)]
    assert to_send_again(subject) == [(0, 100)]
    assert subject.control.congestion_window == window
    assert subject.control.packets_lost == 0
    for _ in range(6):
        subject.time_out(99.0)
    assert runs_of(subject) == []
    assert subject.recovery.bytes_in_flight == 0


def test_a_ping_that_arrives_does_not_hide_that_the_large_packet_beside_it_never_does() -> None:
    subject = sent(2)
    subject.acknowledge([(0, 2)], 1.1)
    mtu = PathMtu(SIZE - 1, SIZE)
    mtu.on_probe_sent(SIZE, 1.1)
    mtu.on_probe_acked(SIZE)
    subject.control.watch = mtu
    subject.send(1, 1.1)
    for now in range(2, 2 * BLACK_HOLE_LOSSES + 1):
        assert mtu.size == SIZE
        subject.time_out(now)
        mtu.on_timeout()
        subject.send_single(now, size=30)
        subject.send(1, now)
        subject.acknowledge([(subject.number - 2, 1)], now + 0.1)
    assert mtu.size == SIZE - 1


def test_an_older_single_packet_goes_before_a_run() -> None:
    subject = Subject(by_runs=True)
    subject.write(1000, False)
    subject.send_single(0.9)
    subject.send(5, 1.0)
    subject.time_out(9.0)
    assert runs_of(subject) == [(1, 6, 0)]
    assert not subject.space.sent_packets


def test_packets_that_come_after_they_were_given_up_widen_the_threshold() -> None:
    subject = sent(30)
    subject.acknowledge([(20, 10)], 1.1)
    assert subject.control.packets_lost == 20
    subject.acknowledge([(5, 10), (20, 10)], 1.15)
    assert subject.control.spurious == 10
    assert subject.recovery._reordering.packet_threshold > 20
    subject.acknowledge([(0, 30)], 1.16)
    assert subject.control.spurious == 20
    subject.acknowledge([(0, 30)], 1.17)
    assert subject.control.spurious == 20


def test_silence_for_long_is_persistent_congestion() -> None:
    subject = sent(2)
    subject.acknowledge([(0, 2)], 1.1)
    for at in (2.0, 3.0, 4.0):
        subject.send(2, at)
    subject.send_single(4.5)
    subject.acknowledge([(8, 1)], 4.6)
    assert subject.control.persistent == 1
    assert subject.control.congestion_window < 4 * 1200


def test_silence_that_was_broken_is_none() -> None:
    subject = sent(2)
    subject.acknowledge([(0, 2)], 1.1)
    for at in (2.0, 2.8, 3.6):
        subject.send(2, at)
    subject.send_single(4.5)
    subject.acknowledge([(4, 1), (8, 1)], 4.6)
    assert subject.control.packets_lost == 5
    assert subject.control.persistent == 0


def test_an_ack_of_nothing_new_measures_nothing() -> None:
    subject = sent(5)
    subject.acknowledge([(0, 5)], 1.1)
    before = subject.state()
    subject.acknowledge([(0, 5)], 5.0)
    assert subject.state() == before


def test_the_end_of_a_stream_is_lost_and_found() -> None:
    subject = Subject(by_runs=True)
    subject.write(250, True)
    subject.send(9, 1.0)
    subject.send(9, 1.001)
    subject.send_single(1.002)
    subject.acknowledge([(3, 1)], 1.1)
    subject.time_out(2.0)
    assert subject.sender._pending_eof
    assert not subject.sender.buffer_is_empty
    subject.send(9, 2.0)
    subject.send(9, 2.001)
    subject.acknowledge([(4, 9)], 2.1)
    assert subject.sender.is_finished
