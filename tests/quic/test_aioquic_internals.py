"""Every override of the engine, each against the attack that it answers."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.h3.connection import H3Connection
from aioquic.quic.connection import QuicConnection, QuicConnectionError
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicTransportParameters,
    encode_quic_retry,
    push_quic_transport_parameters,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketRecovery

from p2pnode import config
from p2pnode.quic import (
    aioquic_batches,
    aioquic_flow,
    aioquic_http3,
    aioquic_internals,
    aioquic_packets,
    aioquic_path_mtu,
    aioquic_recovery,
    aioquic_sending,
)
from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.aioquic_recovery import Recovery
from tests.quic.engines import (
    CLIENT,
    SERVER,
    STEP_S,
    Pair,
    connected,
    credentials,
    dialer_configuration,
    seal,
    stream_frame,
    varints,
)

pytestmark = pytest.mark.usefixtures("both_ways")

STREAM = 0  # the dialer's first
WINDOW = config.STREAM_RECEIVE_WINDOW

PRIVATE_NAMES = {
    "connection": {
        "_ack_delay",
        "_ack_eliciting_sent_since_receipt",
        "_alpn_handler",
        "_assert_stream_can_receive",
        "_close_at",
        "_close_event",
        "_close_pending",
        "_connect",
        "_consume_peer_cid",
        "_crypto_streams",
        "_cryptos",
        "_events",
        "_flush_builder",
        "_get_or_create_stream",
        "_get_or_create_stream_for_send",
        "_handle_ack_frame",
        "_handle_crypto_frame",
        "_handle_reset_stream_frame",
        "_handle_stop_sending_frame",
        "_handshake_confirmed",
        "_handshake_done_pending",
        "_host_cids",
        "_idle_timeout",
        "_initialize",
        "_is_client",
        "_local_max_data",
        "_local_max_streams_bidi",
        "_local_max_streams_uni",
        "_local_next_stream_id_bidi",
        "_local_next_stream_id_uni",
        "_logger",
        "_loss",
        "_max_datagram_size",
        "_network_paths",
        "_pacing_at",
        "_packet_number",
        "_parse_transport_parameters",
        "_payload_received",
        "_peer_cid",
        "_peer_cid_available",
        "_ping_pending",
        "_probe_pending",
        "_quic_logger",
        "_receive_retry_packet",
        "_remote_max_data",
        "_remote_max_data_used",
        "_remote_max_idle_timeout",
        "_remote_max_streams_bidi",
        "_remote_max_streams_uni",
        "_retire_connection_ids",
        "_send_probe",
        "_send_probing_frames",
        "_serialize_transport_parameters",
        "_spaces",
        "_spin_bit",
        "_spin_highest_pn",
        "_state",
        "_stream_limit",
        "_streams",
        "_streams_blocked_pending",
        "_streams_queue",
        "_update_traffic_key",
        "_version",
        "_write_ack_frame",
        "_write_connection_limits",
        "_write_stream_frame",
        "_write_stream_limits",
    },
    "builder": {"_packet"},
    "loss": {
        "_cc",
        "_detect_loss",
        "_log_metrics_updated",
        "_on_packets_lost",
        "_pacer",
        "_pto_count",
        "_quic_logger",
        "_rtt_first_sample_time",
        "_rtt_initial",
        "_rtt_initialized",
        "_rtt_latest",
        "_rtt_min",
        "_rtt_smoothed",
        "_rtt_variance",
        "_send_probe",
        "_time_of_last_sent_ack_eliciting_packet",
    },
    "tls": {"_peer_certificate", "_peer_certificate_chain", "_receive_buffer"},
    "sender": {
        "_buffer",
        "_buffer_fin",
        "_buffer_start",
        "_buffer_stop",
        "_pending",
        "_pending_eof",
        "_reset_error_code",
    },
    "receiver": {"_buffer", "_buffer_start", "_final_size", "_ranges", "_stop_error_code"},
    "crypto": {"_update_key_requested"},
    "aead": {"_aead", "_iv"},
    "header protection": {"_encryptor", "_is_chacha20", "_mask"},
    "http3": {
        "_blocked_streams",
        "_decoder",
        "_get_local_settings",
        "_init_connection",
        "_max_table_capacity",
        "_stream",
        "_validate_settings",
    },
}
ROOMS = [
    aioquic_batches,
    aioquic_flow,
    aioquic_http3,
    aioquic_internals,
    aioquic_packets,
    aioquic_path_mtu,
    aioquic_recovery,
    aioquic_sending,
]


def test_private_names_of_aioquic_are_all_there() -> None:
    pair = connected()
    pair.attacker.send_stream_data(STREAM, b"x")
    pair.exchange()
    stream = pair.victim._streams[STREAM]
    crypto = pair.attacker._cryptos[tls.Epoch.ONE_RTT]
    owners = {
        "connection": pair.attacker,  # a stock one
        "builder": QuicPacketBuilder(
            host_cid=b"", peer_cid=b"", version=1, is_client=True, max_datagram_size=1200
        ),
        "loss": pair.attacker._loss,
        "tls": pair.attacker.tls,
        "sender": stream.sender,
        "receiver": stream.receiver,
        "crypto": crypto,
        "aead": crypto.send.aead,
        "header protection": crypto.send.hp,
        "http3": H3Connection(pair.attacker),
    }
    missing = {
        f"{owner}.{name}"
        for owner, names in PRIVATE_NAMES.items()
        for name in names
        if not hasattr(owners[owner], name)
    }
    assert not missing


def test_private_names_are_all_listed_here() -> None:
    used: set[str] = set()
    ours: set[str] = set()
    for room in ROOMS:
        tree = ast.parse(inspect.getsource(room))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                used.add(node.name)
        ours |= {name for name, value in vars(room).items() if inspect.isfunction(value)}
    ours |= set(dir(BatchConnection)) - set(dir(QuicConnection))
    ours |= set(vars(aioquic_path_mtu.PathProber))
    ours |= {"_port"}  # what HTTP/3 has for a connection
    ours |= set(dir(Recovery)) - set(dir(QuicPacketRecovery))
    mine, stock = (
        BatchConnection(dialer_configuration()),
        QuicConnection(configuration=dialer_configuration()),
    )
    ours |= set(vars(mine)) - set(vars(stock))
    ours |= set(vars(mine._loss)) - set(vars(stock._loss))
    private = {name for name in used if name.startswith("_") and not name.startswith("__")} - ours
    assert private == set().union(*PRIVATE_NAMES.values())


def test_every_room_with_private_names_is_looked_at() -> None:
    here = Path(aioquic_internals.__file__).parent
    assert {Path(room.__file__ or "") for room in ROOMS} == set(here.glob("aioquic_*.py"))


# -- receiving ---------------------------------------------------------------------------------------------


def test_Q1_sparse_stream_data_never_holds_more_than_the_window() -> None:
    pair = connected()
    for _ in range(9):
        limit = pair.victim._streams[STREAM].max_stream_data_local if pair.victim._streams else WINDOW
        pair.inject(stream_frame(STREAM, limit - 1, b"x"))
        pair.exchange(1)
    assert pair.closed is None
    assert len(pair.victim._streams[STREAM].receiver._buffer) == WINDOW


def test_Q1_data_beyond_the_stream_window_closes_the_connection() -> None:
    pair = connected()
    pair.inject(stream_frame(STREAM, WINDOW, b"x"))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.FLOW_CONTROL_ERROR


def test_Q1_data_beyond_the_connection_window_closes_the_connection() -> None:
    pair = connected()
    for stream_id in (0, 4):
        pair.inject(stream_frame(stream_id, WINDOW - 1, b"x"))
    assert pair.closed is None
    pair.inject(stream_frame(8, 0, b"x"))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.FLOW_CONTROL_ERROR


def test_Q2_a_consumer_that_does_not_read_stops_the_sender() -> None:
    pair = connected()
    pair.attacker.send_stream_data(STREAM, bytes(2 * WINDOW))
    pair.exchange(400)
    received = [event for event in pair.events[pair.victim] if isinstance(event, StreamDataReceived)]
    assert sum(len(event.data) for event in received) == WINDOW


def test_Q2_a_consumer_that_does_not_read_stops_all_streams_together() -> None:
    pair = connected()
    for stream_id in (0, 4, 8, 12):
        pair.attacker.send_stream_data(stream_id, bytes(WINDOW))
    pair.exchange(400)
    received = [event for event in pair.events[pair.victim] if isinstance(event, StreamDataReceived)]
    assert sum(len(event.data) for event in received) == config.CONNECTION_RECEIVE_WINDOW


def test_Q2_consuming_lets_the_sender_go_on() -> None:
    pair = connected()
    size = 3 * config.CONNECTION_RECEIVE_WINDOW
    pair.attacker.send_stream_data(STREAM, bytes(size))
    offset = 0
    for _ in range(2000):
        pair.exchange(1)
        for event in pair.events[pair.victim]:
            if isinstance(event, StreamDataReceived):
                offset += len(event.data)
                pair.victim.consumed(STREAM, len(event.data), offset)
        pair.events[pair.victim].clear()
    assert offset == size


def test_credit_moves_in_steps_of_a_quarter_window() -> None:
    pair = connected()
    pair.attacker.send_stream_data(STREAM, bytes(WINDOW))
    pair.exchange(400)
    step = WINDOW // 4
    assert not pair.victim.consumed(STREAM, step - 1, step - 1)
    assert pair.victim.consumed(STREAM, 1, step)
    pair.exchange(1)
    assert pair.victim._streams[STREAM].max_stream_data_local == step + WINDOW
    assert pair.attacker._streams[STREAM].max_stream_data_remote == step + WINDOW


def test_a_stream_that_we_stopped_gets_no_more_credit() -> None:
    pair = connected()
    pair.attacker.send_stream_data(STREAM, bytes(WINDOW))
    pair.exchange(400)
    pair.victim.stop_stream(STREAM, 1)
    pair.victim.consumed(STREAM, WINDOW, WINDOW)
    assert pair.victim._streams[STREAM].max_stream_data_local == WINDOW
    assert pair.victim._local_max_data.value == WINDOW + config.CONNECTION_RECEIVE_WINDOW


def test_credit_of_a_reset_stream_returns_and_its_bytes_are_freed() -> None:
    pair = connected()
    for stream_id in range(0, 40, 4):  # 20 MiB in all, five times the connection's window
        pair.inject(stream_frame(stream_id, WINDOW - 1, b"x"))
        pair.inject(varints(0x04, stream_id, 7, WINDOW))
        assert pair.victim._streams[stream_id].receiver._buffer == b""
    assert pair.closed is None
    unconsumed = pair.victim._local_max_data.value - pair.victim._local_max_data.used
    assert unconsumed == config.CONNECTION_RECEIVE_WINDOW


def test_a_repeated_reset_returns_no_credit_twice() -> None:
    pair = connected()
    for _ in range(3):
        pair.inject(varints(0x04, STREAM, 7, WINDOW))
    assert pair.victim._consumed_bytes == WINDOW


def test_a_reset_with_a_final_size_beyond_the_window_closes_the_connection() -> None:
    pair = connected()
    pair.inject(varints(0x04, STREAM, 7, WINDOW + 1))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.FLOW_CONTROL_ERROR


def test_a_stream_of_nothing_but_gaps_ends_the_connection() -> None:
    pair = connected()
    offset = 1
    while pair.closed is None:
        pair.inject(b"".join(stream_frame(STREAM, offset + 2 * n, b"x") for n in range(100)))
        offset += 200
    assert pair.closed.error_code == QuicErrorCode.INTERNAL_ERROR
    assert len(pair.victim._streams[STREAM].receiver._ranges) == config.STREAM_GAPS_MAX + 1


def test_a_handshake_of_nothing_but_gaps_ends_the_connection() -> None:
    pair = connected()
    pair.inject(b"".join(varints(0x06, 1 + 2 * n, 1) + b"x" for n in range(100)))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
    assert len(pair.victim._crypto_streams[tls.Epoch.ONE_RTT].receiver._ranges) == config.CRYPTO_GAPS_MAX + 1


def test_unidirectional_streams_of_the_remote_are_refused() -> None:
    pair = connected()
    pair.inject(stream_frame(2, 0, b"x"))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.STREAM_LIMIT_ERROR


# -- sending -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_remote", [False, True])
def test_what_will_never_be_sent_is_not_held(by_remote: bool) -> None:
    pair = connected(victim_is_client=True)
    stream_id = pair.victim.open_stream()
    pair.victim.send_stream_data(stream_id, bytes(100_000))
    assert pair.victim.send_buffered(stream_id) == pair.victim.send_buffered_total == 100_000
    if by_remote:
        pair.inject(varints(0x05, stream_id, 9))
    else:
        pair.victim.reset_stream(stream_id, 9)
    assert pair.victim.send_buffered(stream_id) == 0
    pair.exchange()
    assert pair.closed is None


def test_stream_credit_of_the_remote_is_seen() -> None:
    pair = connected(victim_is_client=True)
    opened = 0
    while pair.victim.can_open_stream:
        pair.victim.open_stream()
        opened += 1
    assert opened == 128


# -- acknowledgements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 2**40])
def test_Q8_an_ack_of_a_packet_never_sent_closes_the_connection(ahead: int) -> None:
    pair = connected()
    pair.inject(varints(0x02, pair.victim._packet_number + ahead, 0, 0, 0))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.PROTOCOL_VIOLATION


def test_Q8_an_ack_of_a_packet_number_that_was_left_out_closes_the_connection() -> None:
    pair = connected()
    pair.victim._skip_at = pair.victim._packet_number
    skipped = pair.victim._packet_number
    pair.victim.send_ping(1)
    pair.victim.datagrams_to_send(pair.now)  # these are lost, and acknowledged all the same
    pair.inject(varints(0x02, pair.victim._packet_number - 1, 0, 0, 1))
    assert pair.victim._packet_number == skipped + 2
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.PROTOCOL_VIOLATION


def test_Q8_an_optimistic_receiver_is_caught_soon() -> None:
    pair = connected(victim_is_client=True)
    stream_id = pair.victim.open_stream()
    for _ in range(config.PACKET_NUMBER_SKIP_MAX):
        pair.victim.send_stream_data(stream_id, bytes(3000))
        pair.victim.datagrams_to_send(pair.now)
        largest = pair.victim._packet_number - 1
        pair.inject(varints(0x02, largest, 0, 0, min(largest, 200)))
        pair.now += STEP_S
        if pair.closed is not None:
            break
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.PROTOCOL_VIOLATION


def test_left_out_packet_numbers_harm_nobody_honest() -> None:
    pair = connected(victim_is_client=True)
    stream_id = pair.victim.open_stream()
    for _ in range(300):
        pair.victim._skip_at = 0  # at every step
        pair.victim.send_stream_data(stream_id, bytes(1000))
        pair.exchange(1)
    pair.exchange(20)
    assert pair.closed is None
    assert pair.victim.send_buffered(stream_id) == 0


def test_the_congestion_window_has_a_ceiling() -> None:
    pair = connected(victim_is_client=True, datagram_size_max=config.DATAGRAM_SIZE)
    pair.victim._loss._cc.window_max = 20_000
    stream_id = pair.victim.open_stream()
    pair.victim.send_stream_data(stream_id, bytes(1_000_000))
    pair.exchange(200)
    assert pair.victim.congestion_window == 20_000
    assert config.PACKETS_IN_FLIGHT_MAX < 32_768


# -- handshake ---------------------------------------------------------------------------------------------


def test_the_exporter_is_equal_on_both_ends_and_bound_to_label_context_and_connection() -> None:
    pair = connected(attacker_class=HardenedConnection)
    dialer, listener = pair.dialer, pair.listener
    assert isinstance(dialer, HardenedConnection)
    assert isinstance(listener, HardenedConnection)
    secret = dialer.exporter("label", b"context", 32)
    assert secret == listener.exporter("label", b"context", 32)
    other = connected(attacker_class=HardenedConnection).victim
    different = {
        secret,
        dialer.exporter("label", b"", 32),
        dialer.exporter("other", b"context", 32),
        other.exporter("label", b"context", 32),
    }
    assert len(different) == 4
    assert len(dialer.exporter("label", b"", 48)) == 48


def test_the_exporter_is_not_there_before_the_keys() -> None:
    with pytest.raises(ValueError, match="once the handshake is complete"):
        Pair(victim_is_client=True).victim.exporter("label", b"", 32)


def test_peer_certificates() -> None:
    pair = connected(victim_is_client=True)
    assert pair.victim.peer_certificates == [credentials().certificate]
    assert connected().victim.peer_certificates == []


def test_Q9_a_tls_message_of_16_mb_is_refused_at_64_kib() -> None:
    pair = Pair()
    pair.carry(pair.dialer)  # the ClientHello; the attacker has the Initial keys
    claimed = b"\x0b\xff\xff\xff"
    hold = pair.victim.tls._receive_buffer
    assert hold == b""
    context = _CryptoContext()
    sent = 0
    with pytest.raises(QuicConnectionError) as refused:
        for chunk in [claimed, *[bytes(1000)] * 100]:
            pair.victim._handle_crypto_frame(context, 6, _crypto_frame(pair, context, chunk))
            sent += len(chunk)
    assert refused.value.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
    assert sent <= config.TLS_MESSAGE_SIZE_MAX


def test_crypto_data_with_a_far_gap_is_not_held() -> None:
    pair = connected()
    pair.inject(varints(0x06, config.TLS_MESSAGE_SIZE_MAX, 1) + b"x")
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
    assert pair.victim._crypto_streams[tls.Epoch.ONE_RTT].receiver._buffer == b""


class _CryptoContext:
    epoch = tls.Epoch.HANDSHAKE
    version = 1
    time = 1.0


def _crypto_frame(pair: Pair, context: _CryptoContext, data: bytes) -> Buffer:
    offset = pair.victim._crypto_streams[context.epoch].receiver.starting_offset()
    return Buffer(data=varints(offset, len(data)) + data)


def _retry(dialer: HardenedConnection, token: bytes) -> bytes:
    return encode_quic_retry(
        version=1,
        source_cid=bytes(8),
        destination_cid=dialer.host_cid,
        original_destination_cid=dialer.original_destination_connection_id,
        retry_token=token,
    )


def test_what_was_sent_before_a_retry_is_not_in_flight_for_ever() -> None:
    dialer = HardenedConnection(dialer_configuration())
    dialer.connect(SERVER, 1.0)
    assert dialer.datagrams_to_send(1.0)
    assert dialer._loss.bytes_in_flight > 0
    dialer.receive_datagram(_retry(dialer, b"token"), SERVER, 1.1)
    assert dialer._loss.bytes_in_flight == 0
    assert dialer.datagrams_to_send(1.1)
    [packet] = dialer._spaces[tls.Epoch.INITIAL].sent_packets.values()
    assert dialer._loss.bytes_in_flight == packet.sent_bytes


@pytest.mark.parametrize("size", [config.RETRY_TOKEN_SIZE_MAX, config.RETRY_TOKEN_SIZE_MAX + 1])
def test_a_retry_token_that_leaves_no_room_is_ignored(size: int) -> None:
    dialer = HardenedConnection(dialer_configuration())
    dialer.connect(SERVER, 1.0)
    dialer.receive_datagram(_retry(dialer, bytes(size)), SERVER, 1.1)
    assert (dialer._peer_token == b"") is (size > config.RETRY_TOKEN_SIZE_MAX)
    dialer.close(reason_phrase="x" * 5000)
    assert dialer.datagrams_to_send(1.2)


def test_an_idle_timeout_of_zero_is_none() -> None:
    dialer = HardenedConnection(dialer_configuration())
    dialer.connect(SERVER, 1.0)
    dialer._remote_initial_source_connection_id = b"12345678"
    parameters = Buffer(capacity=512)
    push_quic_transport_parameters(
        parameters,
        QuicTransportParameters(
            max_idle_timeout=0,
            initial_source_connection_id=b"12345678",
            original_destination_connection_id=dialer.original_destination_connection_id,
        ),
    )
    dialer._parse_transport_parameters(parameters.data)
    assert dialer.idle_timeout_s == config.IDLE_TIMEOUT_S


# -- connection ids ----------------------------------------------------------------------------------------


def new_connection_id(sequence: int, retire_prior_to: int) -> bytes:
    return varints(0x18, sequence, retire_prior_to) + b"\x08" + sequence.to_bytes(8, "big") + bytes(16)


def test_Q3_retiring_every_connection_id_closes_the_connection() -> None:
    pair = connected()
    victim = pair.victim
    port = 2000
    while victim._peer_cid_available:  # each address that probes reserves an id for its path
        probe = seal(pair.attacker, b"\x1a" + bytes(8))
        victim.receive_datagram(probe, ("198.51.100.7", port), pair.now)
        victim.datagrams_to_send(pair.now)
        port += 1
    last = max(path.peer_cid.sequence_number for path in victim._network_paths if path.peer_cid is not None)
    pair.inject(new_connection_id(last, last))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.PROTOCOL_VIOLATION
    assert victim.datagrams_to_send(pair.now)


def test_Q3_a_flood_of_connection_ids_closes_the_connection() -> None:
    pair = connected()
    for sequence in range(100, 200):
        pair.inject(new_connection_id(sequence, sequence))
    assert pair.closed is not None
    assert pair.closed.error_code == QuicErrorCode.CONNECTION_ID_LIMIT_ERROR


# -- paths and parameters ----------------------------------------------------------------------------------


def test_Q14_Q15_addresses_that_were_not_validated_get_at_most_three_times_what_they_sent() -> None:
    pair = connected()
    pair.victim.send_stream_data(1, bytes(1_000_000))
    received: Counter[object] = Counter()
    sent: Counter[object] = Counter()
    for number in range(2000):
        address = (f"198.51.100.{number % 250}", 1000 + number)
        challenge = seal(pair.attacker, b"\x1a" + bytes(8) + (b"\x01" if number % 2 else b""))
        pair.victim.receive_datagram(challenge, address, pair.now)
        received[address] += len(challenge)
        for data, target in pair.victim.datagrams_to_send(pair.now):
            sent[target] += len(data)
        pair.now += 0.001
    assert pair.closed is None
    assert len(pair.victim._network_paths) <= 8
    assert all(sent[address] <= 3 * size for address, size in received.items())


def _odd_parameters(engine: QuicConnection) -> None:
    engine.configuration.idle_timeout = 0
    engine._local_ack_delay_exponent = 20
    engine._local_active_connection_id_limit = 2**62 - 1
    engine._local_max_data.value = 0
    engine._local_max_stream_data_bidi_remote = 0
    engine._local_max_streams_bidi.value = 0


@pytest.mark.parametrize("victim_is_client", [False, True])
def test_Q21_odd_transport_parameters_do_no_harm(victim_is_client: bool) -> None:
    pair = connected(victim_is_client=victim_is_client, prepare=_odd_parameters)
    pair.exchange(20)
    assert pair.closed is None
    assert pair.victim.idle_timeout_s == config.IDLE_TIMEOUT_S
    assert not pair.victim.can_open_stream
    assert len(pair.victim._host_cids) <= 8


def test_Q22_no_session_tickets_are_given() -> None:
    assert connected().attacker.tls._new_session_ticket is None
    assert not connected().victim.tls.session_resumed


# -- keys --------------------------------------------------------------------------------------------------


def test_keys_are_updated_before_their_limit() -> None:
    pair = connected(victim_is_client=True)
    stream_id = pair.victim.open_stream()
    phases = set()
    for _ in range(4):
        pair.victim._key_update_at = 0
        pair.victim.send_stream_data(stream_id, b"x" * 1000)
        pair.exchange(4)
        phases.add(pair.victim._cryptos[tls.Epoch.ONE_RTT].key_phase)
    assert phases == {0, 1}
    assert pair.closed is None
    received = [event for event in pair.events[pair.attacker] if isinstance(event, StreamDataReceived)]
    assert sum(len(event.data) for event in received) == 4000
    assert config.KEY_UPDATE_PACKETS < 2**23


# -- close and timers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["x" * 5000, "\udc80" * 300, "\ud800", "é" * 300, "\0\n\x1b[31m"])
def test_Q5_any_close_reason_can_be_sent(reason: str) -> None:
    pair = connected()
    pair.victim.close(reason_phrase=reason)
    assert pair.carry(pair.victim) > 0
    assert pair.victim.close_datagrams
    closed = pair.attacker._close_event
    assert closed is not None
    assert len(closed.reason_phrase.encode()) <= config.CLOSE_REASON_SIZE_MAX


def test_an_engine_without_a_peer_has_nothing_to_do() -> None:
    victim = Pair().victim
    assert victim.datagrams_to_send(1.0) == []
    assert victim.get_timer() is None
    victim.handle_timer(99.0)
    assert not victim.is_begun


def test_the_end_is_known_at_once() -> None:
    pair = connected()
    pair.attacker.close(error_code=5, reason_phrase="bye")
    pair.carry(pair.attacker)
    assert pair.victim.ending is not None
    assert pair.victim.ending.error_code == 5
    assert pair.victim.closed_by_remote
    assert not pair.victim.must_send_close
    pair.exchange(60)
    assert pair.victim.get_timer() is None
    pair.victim.handle_timer(pair.now)


def test_heard_at_counts_only_what_the_remote_can_make() -> None:
    pair = connected()
    heard_at = pair.victim.heard_at
    pair.now += 1
    pair.victim.receive_datagram(b"\x40" + pair.victim.host_cid + bytes(40), CLIENT, pair.now)
    assert pair.victim.heard_at == heard_at
    pair.inject(b"\x01")
    assert pair.victim.heard_at == pair.now


def test_lost_packets_are_probed_for_at_least_once_a_second() -> None:
    """Stock doubles the wait without end: the tenth probe of a 40 ms path would wait a minute."""
    pair = connected()
    pair.victim.send_stream_data(pair.victim.get_next_available_stream_id(), b"x")
    sent_at = [pair.now]
    for _ in range(12):
        while not pair.victim.datagrams_to_send(pair.now):  # and nothing is carried
            timer = pair.victim.get_timer()
            assert timer is not None
            pair.now = max(timer, pair.now + 0.001)
            pair.victim.handle_timer(pair.now)
        sent_at.append(pair.now)
    gaps = [after - before for before, after in pairwise(sent_at)]
    assert max(gaps) <= config.PROBE_INTERVAL_MAX_S + 0.01
    assert max(gaps) > 4 * gaps[1]  # they do double, up to there
