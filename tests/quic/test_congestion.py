from __future__ import annotations

from itertools import accumulate

import pytest
import trio
from aioquic import tls
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.quic import Stream
from p2pnode.quic.congestion import CongestionControl, Pacer
from p2pnode.testing.network import LinkProfile, Network
from tests.quic.endpoints import DIALER, LISTENER, connect, endpoint_at

DATAGRAM = 1200
RTT_S = 0.1
Clock = trio.testing.MockClock


class Sender:
    """Sends a window in each round trip and hears what came of it."""

    def __init__(self) -> None:
        self.control = CongestionControl(max_datagram_size=DATAGRAM)
        self.now = 10.0

    @property
    def packets(self) -> int:
        """That the window lets go now."""
        return (self.control.congestion_window - self.control.bytes_in_flight) // DATAGRAM

    def round(self, *, rtt: float = RTT_S, lost: int = 0, packets: int | None = None) -> None:
        """Send all that may go, or `packets`; of those `lost` are lost and the others acknowledged in runs."""
        control, sent_at = self.control, self.now
        packets = self.packets if packets is None else packets
        control.on_run_sent(now=sent_at, size=packets * DATAGRAM)
        self.now += rtt
        arrived = packets - lost
        for run in [arrived // 10] * 9 + [arrived - arrived // 10 * 9]:
            if run:
                control.on_run_acked(now=self.now, size=run * DATAGRAM, packets=run, newest_sent_time=sent_at)
            control.on_rtt_measurement(now=self.now, rtt=rtt)
        if lost:
            control.on_run_lost(now=self.now, size=lost * DATAGRAM, packets=lost, newest_sent_time=sent_at)

    def grow_to(self, packets: int) -> None:
        while self.control.congestion_window < packets * DATAGRAM:
            self.round()


def test_slow_start_doubles_in_each_round_trip() -> None:
    sender = Sender()
    windows = []
    for _ in range(5):
        windows.append(sender.control.congestion_window // DATAGRAM)
        sender.round()
    assert windows == [10, 20, 40, 80, 160]
    assert sender.control.bytes_in_flight == 0


def test_a_few_losses_without_a_queue_do_not_slow_it_down() -> None:
    sender = Sender()
    sender.grow_to(160)
    sender.round(lost=5)
    assert sender.control.in_slow_start
    assert sender.control.congestion_window == (160 + 155) * DATAGRAM
    assert sender.control.packets_lost == 5


def test_many_losses_do_even_without_one() -> None:
    sender = Sender()
    sender.grow_to(160)
    sender.round(lost=80)
    assert not sender.control.in_slow_start
    assert 80 * DATAGRAM <= sender.control.congestion_window <= 0.85 * 240 * DATAGRAM
    assert sender.control.ssthresh == sender.control.congestion_window


def test_one_loss_does_where_a_queue_stands_and_empties_it() -> None:
    sender = Sender()
    sender.grow_to(640)
    for _ in range(3):
        sender.round(rtt=0.125, packets=640)  # a path that carries 512 packets and queues the others
    window = sender.control.congestion_window
    sender.round(rtt=0.125, packets=640, lost=1)
    assert 0.5 * window <= sender.control.congestion_window <= 0.7 * window


def test_one_congestion_is_answered_once() -> None:
    sender = Sender()
    sender.grow_to(160)
    sender.round(lost=80)
    window = sender.control.congestion_window
    sender.control.on_run_sent(now=sender.now, size=0)
    sender.control.on_run_lost(now=sender.now, size=0, packets=80, newest_sent_time=sender.now - RTT_S)
    assert sender.control.congestion_window == window


def test_a_reduction_without_reason_is_taken_back() -> None:
    sender = Sender()
    sender.grow_to(160)
    sender.round(lost=80)
    reduced = sender.control.congestion_window
    sender.control.on_spurious_loss(now=sender.now, packets=79)
    assert sender.control.congestion_window == reduced
    sender.control.on_spurious_loss(now=sender.now)
    assert sender.control.congestion_window > 160 * DATAGRAM
    assert sender.control.in_slow_start


def test_a_delay_ends_slow_start_before_anything_is_lost() -> None:
    sender = Sender()
    rtt = 0.02
    while sender.control.in_slow_start:
        sender.round(rtt=rtt)
        rtt = max(0.02, sender.packets * 0.02 / 200)  # a path that carries 200 packets
    assert (
        sender.control.congestion_window < 8 * 200 * DATAGRAM
    )  # doubled once, then five times a quarter more


def test_a_long_queue_ends_it_at_once_and_is_emptied() -> None:
    sender = Sender()
    rtt = RTT_S
    while sender.control.in_slow_start:
        sender.round(rtt=rtt)
        rtt = max(RTT_S, sender.packets * RTT_S / 200)
    assert sender.control.congestion_window < 2 * 200 * DATAGRAM


def test_the_noise_of_loopback_does_not_end_slow_start() -> None:
    sender = Sender()
    for index in range(9):
        sender.round(rtt=(0.0001, 0.003, 0.0008)[index % 3])
    assert sender.control.in_slow_start
    assert sender.control.congestion_window > 1_000_000


def test_a_window_that_is_not_used_does_not_grow() -> None:
    sender = Sender()
    sender.grow_to(160)
    for _ in range(10):
        sender.round(packets=20)
    assert sender.control.congestion_window == 160 * DATAGRAM
    sender.control.ssthresh = 1
    for _ in range(1000):
        sender.round(packets=20)
    assert sender.control.congestion_window == 160 * DATAGRAM


def test_a_window_of_a_few_large_datagrams_grows() -> None:
    """Three fill it as far as they can, though a quarter of it stays free."""
    sender = Sender()
    sender.grow_to(64)
    sender.control.ssthresh = sender.control.congestion_window
    sender.control.datagram_size = 26_000
    for _ in range(100):
        sender.control.on_run_sent(now=sender.now, size=78_000)
        sent_at, sender.now = sender.now, sender.now + RTT_S
        sender.control.on_run_acked(now=sender.now, size=78_000, packets=3, newest_sent_time=sent_at)
        sender.control.on_rtt_measurement(now=sender.now, rtt=RTT_S)
        if sender.control.congestion_window >= 104_000:
            return
    raise AssertionError(sender.control.congestion_window)


def test_after_silence_the_window_is_found_anew() -> None:
    sender = Sender()
    sender.grow_to(160)
    sender.now += config.CONGESTION_IDLE_S + 0.1
    sender.control.on_run_sent(now=sender.now, size=DATAGRAM)
    assert sender.control.congestion_window == 10 * DATAGRAM
    assert sender.control.ssthresh == 120 * DATAGRAM


def test_persistent_congestion_leaves_two_packets() -> None:
    sender = Sender()
    sender.grow_to(160)
    sender.control.on_persistent_congestion()
    assert sender.control.congestion_window == 2 * DATAGRAM


@pytest.mark.parametrize("size", [1200, 1452, 8900])
def test_fewer_packets_are_in_flight_than_their_numbers_tell_apart(size: int) -> None:
    sender = Sender()
    sender.control.datagram_size = size
    for _ in range(30):
        sender.round()
    assert sender.control.congestion_window <= config.CONGESTION_WINDOW_MAX
    assert sender.control.congestion_window // size < 32_768
    sender.control.datagram_size = 1200  # a path that shrank
    assert sender.control.congestion_window // 1200 <= config.PACKETS_IN_FLIGHT_MAX


def packet(sent_time: float) -> QuicSentPacket:
    return QuicSentPacket(
        epoch=tls.Epoch.ONE_RTT,
        in_flight=True,
        is_ack_eliciting=True,
        is_crypto_packet=False,
        packet_number=0,
        packet_type=QuicPacketType.ONE_RTT,
        sent_time=sent_time,
        sent_bytes=DATAGRAM,
    )


def test_packets_count_as_runs_of_one() -> None:
    by_run, by_packet = (CongestionControl(max_datagram_size=DATAGRAM) for _ in range(2))
    packets = [packet(1.0) for _ in range(10)]
    by_run.on_run_sent(now=1.0, size=10 * DATAGRAM)
    by_run.on_run_acked(now=1.1, size=6 * DATAGRAM, packets=6, newest_sent_time=1.0)
    by_run.on_run_lost(now=1.1, size=3 * DATAGRAM, packets=3, newest_sent_time=1.0)
    for each in packets:
        by_packet.on_packet_sent(packet=each)
    for each in packets[:6]:
        by_packet.on_packet_acked(now=1.1, packet=each)
    by_packet.on_packets_lost(now=1.1, packets=packets[6:9])
    assert by_run.get_log_data() == by_packet.get_log_data()
    assert by_packet.packets_lost == 3
    by_packet.on_packets_expired(packets=packets[9:])
    assert by_packet.bytes_in_flight == 0


class_of_event = st.sampled_from(["send", "ack", "lose", "spurious", "rtt", "persistent", "size"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(class_of_event, st.integers(1, 400), st.floats(0, 3)), max_size=80))
def test_windows_stay_within_bounds(events: list[tuple[str, int, float]]) -> None:
    control = CongestionControl(max_datagram_size=DATAGRAM)
    in_flight: list[tuple[float, int]] = []  # runs: when sent, packets
    times = accumulate((pause for _, _, pause in events), initial=1.0)
    for now, (event, count, pause) in zip(times, events, strict=False):
        if event == "send":
            in_flight.append((now, count))
            control.on_run_sent(now=now, size=count * DATAGRAM)
        elif event in ("ack", "lose") and in_flight:
            sent_at, packets = in_flight.pop(count % len(in_flight))
            told = control.on_run_acked if event == "ack" else control.on_run_lost
            told(now=now, size=packets * DATAGRAM, packets=packets, newest_sent_time=sent_at)
        elif event == "rtt":
            for _ in range(count % 20):
                control.on_rtt_measurement(now=now, rtt=pause + 0.0001)
        elif event == "spurious":
            control.on_spurious_loss(now=now, packets=count)
        elif event == "persistent":
            control.on_persistent_congestion()
        elif event == "size":
            control.datagram_size = 1200 + count
        assert 2 * 1200 <= control.congestion_window <= config.CONGESTION_WINDOW_MAX
        assert control.bytes_in_flight == DATAGRAM * sum(packets for _, packets in in_flight)


# -- the pacer ---------------------------------------------------------------------------------------------


def pacer_at(window: int, rtt_s: float) -> Pacer:
    control = CongestionControl(max_datagram_size=DATAGRAM)
    control.ssthresh = 1  # past slow start
    pacer = Pacer(control)
    pacer.update_rate(window, rtt_s)
    return pacer


@pytest.mark.parametrize(("window", "rtt_s"), [(12_000, 0.1), (500_000, 0.05), (4 * config.MIB, 0.1)])
def test_a_pacer_lets_bursts_go_and_keeps_its_rate(window: int, rtt_s: float) -> None:
    pacer = pacer_at(window, rtt_s)
    now, sent, bursts = 100.0, 0, []
    while now < 101.0:
        burst = 0
        while pacer.next_send_time(now) is None:
            pacer.update_after_send(now)
            burst += 1
        for _ in range(burst):  # the library tells sizes after it has built them all
            pacer.on_sent(now, DATAGRAM)
        if burst:
            bursts.append(burst)
        sent += burst
        now += 0.001
    fastest = 1.25 * window / DATAGRAM / rtt_s
    assert 0.95 * fastest <= sent <= fastest + bursts[0]
    assert max(bursts[1:]) <= max(2, window // 4800, fastest * config.PACING_CATCH_UP_S)


def test_acknowledgements_are_not_paced_and_hold_nothing_back() -> None:
    """RFC 9002 §7.7: a remote that is sent to as well acknowledges a thousand times a second."""
    pacer = pacer_at(12_000, 0.1)
    before = pacer.burst_bytes(100.0)
    for _ in range(1000):
        pacer.update_after_send(100.0)
        pacer.on_sent(100.0, 0)
    assert pacer.burst_bytes(100.0) == before > 0


def test_a_pacer_does_not_drip_however_often_it_is_asked() -> None:
    pacer = pacer_at(1_250_000, 0.1)
    now, runs = 100.0, []
    while now < 100.5:
        size = pacer.burst_bytes(now)
        if size:
            pacer.on_sent(now, size)
            assert pacer.burst_bytes(now) == 0
            runs.append(size)
        now += 0.0001
    assert sum(runs) == pytest.approx(1.25 * 12.5e6 * 0.5, rel=0.02)
    assert min(runs) > 12 * DATAGRAM


def test_a_pacer_says_when_the_next_burst_may_go() -> None:
    pacer = pacer_at(1_250_000, 0.1)
    now = 100.0
    for _ in range(100):
        size = pacer.burst_bytes(now)
        assert size >= DATAGRAM
        assert pacer.next_send_time(now) is None
        pacer.on_sent(now, size)
        next_time = pacer.next_send_time(now)
        assert next_time is not None
        assert now < next_time < now + 0.01
        now = next_time


def test_slow_start_is_paced_at_twice_its_window() -> None:
    pacer = Pacer(CongestionControl(max_datagram_size=DATAGRAM))
    pacer.update_rate(1_250_000, 0.1)
    now, sent = 100.0, 0
    while now < 101.0:
        size = pacer.burst_bytes(now)
        pacer.on_sent(now, size)
        sent += size
        now += 0.001
    assert sent == pytest.approx(2 * 12.5e6, rel=0.02)


def test_a_pacer_that_saved_for_small_datagrams_lets_a_large_one_go() -> None:
    """Nothing would wake it up later: it waits for nothing."""
    pacer = pacer_at(12_000, 0.1)
    pacer._control.datagram_size = 9000
    assert pacer.next_send_time(5.0) is None
    assert pacer.burst_bytes(5.0) == 9000
    pacer.on_sent(5.0, 9000)
    assert pacer.burst_bytes(5.0) == 0
    at = pacer.next_send_time(5.0)
    assert at is not None
    assert pacer.burst_bytes(at + 1e-6) == 9000


def test_shorter_round_trips_than_a_timer_can_tell_are_paced_as_those() -> None:
    shortest = pacer_at(1_200_000, config.PACING_RTT_MIN_S)
    shorter = pacer_at(1_200_000, config.PACING_RTT_MIN_S / 10)
    for pacer in (shortest, shorter):
        assert 0 < pacer.burst_bytes(1.0) <= config.PACING_BURST_BYTES
        pacer.on_sent(1.0, pacer.burst_bytes(1.0))
    assert shorter.next_send_time(1.0) == shortest.next_send_time(1.0)


# -- whole connections -------------------------------------------------------------------------------------

RATE = 1_250_000  # bytes a second: 10 Mbit/s


async def goodputs(
    profile: LinkProfile, *, seconds: float, flows: int = 1, apart_s: float = 0.0
) -> list[float]:
    """What each of some connections over one link delivered in the second half of the time ÷ its rate."""
    received, at_half = [0] * flows, [0] * flows
    async with (
        Network(seed=1, profile=profile) as network,
        endpoint_at(network, DIALER) as dialer,
        endpoint_at(network, LISTENER) as listener,
        trio.open_nursery() as nursery,
    ):

        async def flow(index: int) -> None:
            await trio.sleep(index * apart_s)
            dialled, accepted = await connect(dialer, listener)
            ours = await dialled.open_stream()
            nursery.start_soon(feed, ours)
            theirs = await accepted.accept_stream()
            while True:
                received[index] += len(await theirs.receive_some())

        async def feed(ours: Stream) -> None:
            while True:
                await ours.send_all(bytes(65_536))

        for index in range(flows):
            nursery.start_soon(flow, index)
        await trio.sleep(seconds / 2)
        at_half[:] = received
        await trio.sleep(seconds / 2)
        nursery.cancel_scope.cancel()
    return [(after - before) / (seconds / 2) / RATE for before, after in zip(at_half, received, strict=True)]


@pytest.mark.parametrize("loss", [0.01, 0.02])
async def test_one_or_two_percent_of_loss_cost_less_than_a_fifth(autojump_clock: Clock, loss: float) -> None:
    profile = LinkProfile(delay_s=0.05, rate_bytes_per_s=RATE, loss=loss)
    [goodput] = await goodputs(profile, seconds=5)
    assert goodput > 0.8


async def test_two_share_a_link_equally_and_fill_it(autojump_clock: Clock) -> None:
    profile = LinkProfile(delay_s=0.02, rate_bytes_per_s=RATE, queue_bytes=64 * 1024)
    shares = await goodputs(profile, seconds=8, flows=2, apart_s=0.5)
    assert sum(shares) > 0.85
    assert min(shares) > 0.5 * 0.65 * sum(shares)


async def test_a_long_path_that_loses_packets_is_filled(autojump_clock: Clock) -> None:
    """100 Mbit/s over 100 ms hold 1.25 MB: what follows a loss must find room on both sides."""
    profile = LinkProfile(delay_s=0.05, rate_bytes_per_s=10 * RATE, loss=0.01)
    [goodput] = await goodputs(profile, seconds=4)
    assert goodput > 0.5 * 10
