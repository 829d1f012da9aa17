"""What goes out by runs, what is left to the library, and that both together are what a remote may expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite

from p2pnode import config
from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.aioquic_packets import SAMPLE, SAMPLE_SIZE, header_masks
from p2pnode.quic.configuration import Configuration
from tests.quic.engines import CLIENT, SERVER, Pair, give
from tests.quic.engines import connected as connected_engines
from tests.quic.hostile_channel import Channel, EngineClass, check_at_rest, check_equal, pattern, runs_of

SIZE = config.DATAGRAM_SIZE
OVERHEAD = 1 + 8 + 2 + 16 + 1 + 1 + 8  # header, number, tag, frame type, stream id, offset
DATA = SIZE - OVERHEAD


def small(configuration: Configuration) -> None:
    """Datagrams stay small."""
    configuration.datagram_size_max = SIZE


class Sender:
    """A dialer that sends by runs, and what it has put on the wire."""

    def __init__(self, listener_class: EngineClass = QuicConnection, **options: Any) -> None:
        self.channel = Channel(BatchConnection, listener_class, configure=small, **options)
        engine = self.channel.dialer.engine
        assert isinstance(engine, BatchConnection)
        self.engine = engine
        engine._skip_at = 1 << 40

    @property
    def now(self) -> float:
        return self.channel.now

    def write(self, size: int, fin: bool = False) -> int:
        """On a new stream."""
        stream_id = self.channel.dialer.open_stream()
        assert stream_id is not None
        self.engine.send_stream_data(stream_id, pattern(stream_id, 0, size), fin)
        written = self.channel.dialer.written[stream_id]
        written.data += pattern(stream_id, 0, size)
        written.finished = fin
        return stream_id

    def send(self) -> list[bytes]:
        """One call, which no pacer holds back; the datagrams, which are on their way now."""
        self.engine._recovery._pacer._rate = None
        sent: list[bytes] = []
        for datagrams, address in self.engine.bursts_to_send(self.now):
            for datagram in datagrams:
                self.channel.carry(datagram, self.channel.dialer.address, address)
            sent += datagrams
        return sent

    @property
    def runs(self) -> list[tuple[int, int, int, bool]]:
        """Packets, bytes of each, offset, and whether the stream ends with it."""
        return [(run.stop - run.start, run.data_size, run.offset, run.fin) for run in runs_of(self.engine)]

    @property
    def singles(self) -> int:
        """Packets that the library built and that are in flight."""
        packets = self.engine._spaces[tls.Epoch.ONE_RTT].sent_packets.values()
        return sum(packet.in_flight for packet in packets)

    def finish(self) -> None:
        """Let everything arrive, and see that it did."""
        self.channel.settle()
        for side in self.channel.sides:
            side.finish()
        self.channel.settle()
        check_equal(self.channel)
        check_at_rest(self.channel)


# -- what goes by runs -------------------------------------------------------------------------------------


def test_full_packets_go_in_one_run() -> None:
    sender = Sender()
    sender.write(5 * DATA)
    assert [len(datagram) for datagram in sender.send()] == [SIZE] * 5
    assert sender.runs == [(5, DATA, 0, False)]
    assert sender.singles == 0
    sender.finish()


def test_the_rest_is_a_run_of_one() -> None:
    sender = Sender()
    sender.write(5 * DATA + 100)
    assert [len(datagram) for datagram in sender.send()] == [SIZE] * 5 + [100 + OVERHEAD]
    assert sender.runs == [(5, DATA, 0, False), (1, 100, 5 * DATA, False)]
    sender.finish()


@pytest.mark.parametrize("rest", [0, 1, DATA - 1])
def test_fin_goes_with_the_last_bytes(rest: int) -> None:
    sender = Sender()
    sender.write(3 * DATA + rest, fin=True)
    sender.send()
    *_, (packets, size, offset, fin) = sender.runs
    assert (packets, size, offset, fin) == (1, rest or DATA, 3 * DATA if rest else 2 * DATA, True)
    assert not sender.engine._streams[0].sender._pending_eof
    assert sender.engine._streams[0].sender.buffer_is_empty
    sender.finish()


def test_fin_that_comes_later_is_left_to_the_library() -> None:
    sender = Sender()
    sender.write(3 * DATA)
    sender.send()
    sender.engine.send_stream_data(0, b"", True)
    sender.channel.dialer.written[0].finished = True
    sender.send()
    assert sender.singles == 1
    assert len(sender.runs) == 1
    sender.finish()


def test_less_than_a_run_is_left_to_the_library() -> None:
    sender = Sender()
    sender.write(DATA)
    sender.send()
    assert sender.runs == []
    assert sender.singles == 1
    sender.finish()


def test_small_and_large_streams_go_side_by_side() -> None:
    sender = Sender()
    small_stream, large = sender.write(50), sender.write(4 * DATA)
    sender.send()
    assert sender.singles == 1
    assert sender.runs == [(4, DATA, 0, False)]
    assert sender.engine._streams[small_stream].sender.buffer_is_empty
    assert sender.engine._streams[large].sender.buffer_is_empty
    sender.finish()


def test_what_else_is_to_be_said_goes_first() -> None:
    sender = Sender()
    sender.write(4 * DATA)
    sender.channel.dialer.ping(sender.now)
    datagrams = sender.send()
    assert len(datagrams) == 5
    assert len(datagrams[0]) < 100
    sender.finish()


def _receive_ping(sender: Sender) -> None:
    sender.channel.listener.engine.send_ping(1)
    datagrams = [datagram for datagram, _ in sender.channel.listener.step(sender.now)]
    sender.engine.receive_burst(datagrams, SERVER, sender.now)
    sender.channel.now += 0.01


def _reset(sender: Sender) -> None:
    sender.engine.reset_stream(sender.write(10), 5)


def _stop(sender: Sender) -> None:
    sender.engine.stop_stream(0, 5)


def _end(sender: Sender) -> None:
    stream = sender.engine._streams[0]
    stream.sender.is_finished = stream.receiver.is_finished = True


def _allow(sender: Sender) -> None:
    sender.engine._local_max_streams_bidi.value += 200


# What to say, how it comes about, and whether it has been said.
OTHERS: dict[str, tuple[Callable[[Sender], Any], Callable[[BatchConnection], bool]]] = {
    "ACK": (_receive_ping, lambda it: it._spaces[tls.Epoch.ONE_RTT].ack_at is None),
    "PING": (lambda sender: sender.engine.send_ping(1), lambda it: not it._ping_pending),
    "PING of a probe": (lambda sender: sender.engine._send_probe(), lambda it: not it._probe_pending),
    "HANDSHAKE_DONE": (
        lambda sender: setattr(sender.engine, "_handshake_done_pending", True),
        lambda it: not it._handshake_done_pending,
    ),
    "STREAMS_BLOCKED": (
        lambda sender: setattr(sender.engine, "_streams_blocked_pending", True),
        lambda it: not it._streams_blocked_pending,
    ),
    "RETIRE_CONNECTION_ID": (
        lambda sender: sender.engine.change_connection_id(),
        lambda it: not it._retire_connection_ids,
    ),
    "NEW_CONNECTION_ID": (
        lambda sender: setattr(sender.engine._host_cids[-1], "was_sent", False),
        lambda it: it._host_cids[-1].was_sent,
    ),
    "MAX_DATA": (
        lambda sender: setattr(sender.engine._local_max_data, "value", 1 << 30),
        lambda it: it._local_max_data.sent == 1 << 30,
    ),
    "MAX_STREAMS": (
        _allow,
        lambda it: it._local_max_streams_bidi.sent == it._local_max_streams_bidi.value,
    ),
    "MAX_STREAM_DATA": (
        lambda sender: setattr(sender.engine._streams[0], "max_stream_data_local", 1 << 30),
        lambda it: it._streams[0].max_stream_data_local_sent == 1 << 30,
    ),
    "CRYPTO": (
        lambda sender: sender.engine._crypto_streams[tls.Epoch.ONE_RTT].sender.write(b"x"),
        lambda it: not len(it._crypto_streams[tls.Epoch.ONE_RTT].sender._pending),
    ),
    "RESET_STREAM": (
        _reset,
        lambda it: not any(stream.sender.reset_pending for stream in it._streams.values()),
    ),
    "STOP_SENDING": (_stop, lambda it: not it._streams[0].receiver.stop_pending),
    "nothing, but a stream is done": (_end, lambda it: not it.has_stream(0)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_else_waits_for_the_end_of_a_transfer(other: str) -> None:
    happen, is_said = OTHERS[other]
    sender = Sender()
    sender.write(0)
    happen(sender)
    sender.write(400 * DATA)
    assert not is_said(sender.engine)
    sender.send()
    assert is_said(sender.engine)
    assert len(sender.runs) == 1


def test_an_end_that_waits_for_what_is_sent_again_is_not_forgotten() -> None:
    sender = Sender()
    sender.write(4 * DATA)
    sender.send()
    sender.engine.send_stream_data(0, b"", True)
    sender.channel.dialer.written[0].finished = True
    for _ in range(3):
        sender.engine._loss.reschedule_data(now=sender.now)
    sender.engine._probe_pending = False
    sender.send()
    assert sender.runs == [(1, DATA, 3 * DATA, False), (3, DATA, 0, False)]
    assert not sender.engine._streams[0].sender.buffer_is_empty
    sender.finish()


def test_streams_share_what_may_be_sent() -> None:
    sender = Sender()
    for _ in range(3):
        sender.write(100 * DATA)
    room = sender.engine.congestion_window // SIZE
    sender.send()
    shares = [packets for packets, *_ in sender.runs]
    assert sum(shares) == room
    assert len(shares) == 3
    assert max(shares) - min(shares) <= 1
    assert sender.engine._loss.bytes_in_flight <= sender.engine.congestion_window
    sender.finish()


def test_the_stream_that_got_least_is_first_in_the_next_turn() -> None:
    sender = Sender()
    first, second = sender.write(100 * DATA), sender.write(DATA * 100)
    sender.write(10)
    sender.send()
    assert [stream.stream_id for stream in sender.engine._streams_queue][-2:] == [first, second]


# -- flow control ------------------------------------------------------------------------------------------


def test_a_stream_sends_no_more_than_its_credit() -> None:
    sender = Sender()
    sender.write(10 * DATA)
    stream = sender.engine._streams[0]
    stream.max_stream_data_remote = 4 * DATA + 10
    sender.send()
    assert sender.runs == [(4, DATA, 0, False)]
    sender.send()
    assert sender.singles == 1  # the ten bytes, the library's way
    assert stream.sender.highest_offset == 4 * DATA + 10
    assert sender.send() == []
    stream.max_stream_data_remote = 1 << 20
    sender.finish()


def test_all_streams_send_no_more_than_the_connection_has_credit_for() -> None:
    sender = Sender()
    first, second = sender.write(4 * DATA), sender.write(4 * DATA)
    engine = sender.engine
    limit = engine._remote_max_data
    engine._remote_max_data = engine._remote_max_data_used + 5 * DATA
    for _ in range(3):
        sender.send()
    assert sum(engine._streams[stream_id].sender.highest_offset for stream_id in (first, second)) == 5 * DATA
    assert engine._remote_max_data_used == engine._remote_max_data
    engine._remote_max_data = limit
    sender.finish()


def test_what_is_sent_again_needs_no_credit() -> None:
    sender = Sender()
    sender.write(4 * DATA)
    sender.send()
    sender.engine._remote_max_data = sender.engine._remote_max_data_used
    run = runs_of(sender.engine)[0]
    sender.engine._loss._pto_count = 0
    for _ in range(4):
        sender.engine._loss.reschedule_data(now=sender.now)
    assert runs_of(sender.engine) == []
    sender.send()
    assert sender.runs == [(4, DATA, 0, False)]
    assert runs_of(sender.engine)[0].start > run.start
    assert sender.engine._remote_max_data_used == 4 * DATA
    sender.engine._remote_max_data = 1 << 20
    sender.finish()


def test_gaps_are_filled_before_new_data() -> None:
    sender = Sender()
    sender.write(6 * DATA)
    sender.send()
    [run] = runs_of(sender.engine)
    stream = sender.engine._streams[0]
    sender.engine.send_stream_data(0, pattern(0, 6 * DATA, 3 * DATA))
    sender.channel.dialer.written[0].data += pattern(0, 6 * DATA, 3 * DATA)
    for _ in range(2):
        sender.engine._loss.reschedule_data(now=sender.now)
    assert list(stream.sender._pending) == [range(2 * DATA), range(6 * DATA, 9 * DATA)]
    sender.send()
    assert sender.runs == [(4, DATA, 2 * DATA, False), (2, DATA, 0, False), (3, DATA, 6 * DATA, False)]
    assert run.stop <= runs_of(sender.engine)[1].start
    sender.finish()


# -- congestion and pace -----------------------------------------------------------------------------------


def test_no_more_than_the_window_is_in_flight() -> None:
    sender = Sender()
    sender.write(200 * DATA)
    sender.send()
    in_flight = sender.engine._loss.bytes_in_flight
    assert sender.engine.congestion_window - SIZE < in_flight <= sender.engine.congestion_window
    assert sender.send() == []
    assert not sender.engine.has_more_to_send
    sender.finish()


# -- what is unusual ---------------------------------------------------------------------------------------


def test_nothing_goes_by_runs_while_a_qlog_is_written(tmp_path: Any) -> None:
    from aioquic.quic.logger import QuicFileLogger

    def logged(configuration: Configuration) -> None:
        configuration.quic_logger = QuicFileLogger(str(tmp_path))

    channel = Channel(BatchConnection, BatchConnection, configure=logged)
    channel.dialer.write(0, 5 * DATA, False)
    channel.run(0.005)
    assert runs_of(channel.dialer.engine) == []
    channel.settle()
    assert channel.listener.read[0].data == pattern(0, 0, 5 * DATA)


def test_a_requested_key_update_is_done_by_the_library() -> None:
    sender = Sender()
    sender.write(5 * DATA)
    sender.engine.request_key_update()
    sender.send()
    assert sender.runs == []
    assert sender.engine._cryptos[tls.Epoch.ONE_RTT].send.key_phase == 1
    sender.engine.send_stream_data(0, pattern(0, 5 * DATA, 3 * DATA))
    sender.channel.dialer.written[0].data += pattern(0, 5 * DATA, 3 * DATA)
    sender.send()
    assert sender.runs == [(3, DATA, 5 * DATA, False)]
    sender.finish()


def test_keys_are_updated_in_time_by_one_who_only_sends_runs() -> None:
    sender = Sender()
    sender.engine._key_update_at = sender.engine._packet_number + 5
    for _ in range(4):
        sender.write(2 * SIZE)
        sender.send()
    assert sender.engine._cryptos[tls.Epoch.ONE_RTT].send.key_phase == 1
    sender.finish()


def test_packet_numbers_are_left_out_by_one_who_only_sends_runs() -> None:
    sender = Sender()
    sender.engine._skip_at = 0
    number = sender.engine._packet_number
    sender.write(4 * DATA)
    sender.send()
    assert runs_of(sender.engine)[0].start == number + 1
    assert not sender.engine._spaces[tls.Epoch.ONE_RTT].sent_packets[number].in_flight
    sender.finish()


def test_after_a_reset_nothing_of_the_stream_is_sent() -> None:
    sender = Sender()
    sender.write(200 * DATA)
    sender.send()
    sender.engine.reset_stream(0, 5)
    sender.channel.dialer.written[0].reset = True
    runs = sender.runs
    sender.channel.now += 0.001
    sender.send()
    assert sender.runs == runs
    sender.finish()


def test_it_goes_on_by_runs_after_the_dialer_has_moved() -> None:
    sender = Sender(listener_class=BatchConnection)
    listener = sender.channel.listener
    sender.write(50 * DATA)
    sender.channel.run(0.03)
    sender.channel.move()
    sender.channel.settle()
    assert len(listener.engine._network_paths) == 2
    assert sender.channel.dialer.address != CLIENT
    listener.write(0, 50 * DATA, False)
    listener.step(sender.now)
    assert runs_of(listener.engine)


def test_an_address_that_is_not_validated_gets_three_times_what_it_sent() -> None:
    sender = Sender(listener_class=BatchConnection)
    dialer, listener = sender.channel.sides
    elsewhere = ("203.0.113.9", 9)
    listener.write(0, 100 * DATA, False)
    dialer.ping(sender.now)
    datagrams = [datagram for datagram, _ in dialer.step(sender.now)]
    give(listener.engine, datagrams, elsewhere, sender.now)
    sent = 0
    for _ in range(10):
        sender.channel.now += 0.01
        sent += sum(len(datagram) for datagram, address in listener.step(sender.now) if address == elsewhere)
    assert 0 < sent <= 3 * sum(map(len, datagrams))
    assert runs_of(listener.engine) == []


def test_it_takes_in_by_runs_after_connection_ids_have_changed() -> None:
    sender = Sender(listener_class=BatchConnection)
    dialer, listener = sender.channel.sides
    for side in (dialer, listener, dialer):
        side.engine.change_connection_id()
        sender.channel.settle()
    for ours, theirs in ((dialer, listener), (listener, dialer)):
        ours.write(0, 8 * DATA, False)
        datagrams = [datagram for datagram, _ in ours.step(sender.now)]
        give(theirs.engine, datagrams, ours.address, sender.now)
        events = [theirs.engine.next_event(), theirs.engine.next_event()]
        assert [event is None for event in events] == [False, True]


def test_a_connection_id_that_was_retired_is_not_taken_any_more() -> None:
    sender = Sender(listener_class=BatchConnection)
    dialer, listener = sender.channel.sides
    listener.write(0, 8 * DATA, False)
    late = [datagram for datagram, _ in listener.step(sender.now)]
    listener.engine.change_connection_id()
    sender.channel.settle()
    largest = dialer.engine._spaces[tls.Epoch.ONE_RTT].largest_received_packet
    give(dialer.engine, late, listener.address, sender.now)
    assert dialer.engine._spaces[tls.Epoch.ONE_RTT].largest_received_packet == largest
    assert not dialer.read.get(1) or len(dialer.read[1].data) <= 8 * DATA


@pytest.mark.parametrize(
    "cipher_suite",
    [
        CipherSuite.AES_128_GCM_SHA256,
        CipherSuite.AES_256_GCM_SHA384,
        CipherSuite.CHACHA20_POLY1305_SHA256,
    ],
)
def test_masks_are_the_librarys(cipher_suite: CipherSuite) -> None:
    def configure(configuration: Configuration) -> None:
        configuration.cipher_suites = [cipher_suite]

    channel = Channel(BatchConnection, QuicConnection, configure=configure)
    send = channel.dialer.engine._cryptos[tls.Epoch.ONE_RTT].send
    assert send.hp is not None
    samples = [bytes([n]) * SAMPLE_SIZE for n in range(20)]
    expected = [send.hp._mask(sample) for sample in samples]
    masks = list(header_masks(send, samples))
    assert masks == [(mask[0], mask[1] << 8 | mask[2]) for mask in expected]
    assert list(header_masks(send, [*samples[:3], b"short", *samples])) == masks[:3]
    assert list(header_masks(send, [b"", *samples])) == []
    assert SAMPLE.stop - SAMPLE.start == SAMPLE_SIZE


# -- small requests and answers ----------------------------------------------------------------------------


def asked() -> tuple[Pair, list[bytes]]:
    """A listener that was just asked something small, and what it has to say before it answers."""
    pair = connected_engines()
    pair.attacker.send_stream_data(0, b"?", end_stream=True)
    pair.carry(pair.attacker)
    return pair, sent_by(pair.victim, pair.now)


def sent_by(engine: HardenedConnection, now: float) -> list[bytes]:
    return [datagram for datagrams, _ in engine.bursts_to_send(now) for datagram in datagrams]


def test_an_ack_goes_along_with_a_small_answer() -> None:
    pair, before = asked()
    assert before == []  # it can wait
    pair.victim.send_stream_data(0, b"!", end_stream=True)
    assert len(sent_by(pair.victim, pair.now)) == 1
    assert pair.victim._spaces[tls.Epoch.ONE_RTT].ack_at is None


def test_the_ack_of_a_question_waits_for_an_answer_but_not_for_ever() -> None:
    pair, _ = asked()
    at = pair.victim.get_timer()
    assert at is not None
    assert at == pytest.approx(pair.now + config.ACK_DELAY_MAX_S)
    assert len(sent_by(pair.victim, at)) == 1


def test_finished_streams_are_discarded_while_there_is_nothing_to_say() -> None:
    pair = connected_engines()
    for stream_id in range(0, 4 * 120, 4):  # so many that the attacker is told of more
        pair.attacker.send_stream_data(stream_id, b"?", end_stream=True)
        pair.exchange(2)
        pair.victim.send_stream_data(stream_id, b"!", end_stream=True)
        pair.exchange(2)
    assert pair.closed is None
    assert not pair.victim._streams
    assert pair.victim._streams_queue == []
    assert pair.attacker._remote_max_streams_bidi > 128
