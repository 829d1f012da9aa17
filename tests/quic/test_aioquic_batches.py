"""Packets taken in by runs: whatever comes, the outcome is that of the library's own way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.events import PingAcknowledged, QuicEvent, StopSendingReceived, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.quic.aioquic_batches import BatchConnection
from p2pnode.quic.configuration import Configuration
from p2pnode.quic.packet_numbers import RANGES_MAX
from tests.quic.engines import varints
from tests.quic.forger import KEY_PHASE, RESERVED, SPIN, Forger, run_frame, sealed, wide
from tests.quic.hostile_channel import Channel, Side, pattern
from tests.quic.twins import outcome, twin_of

DATA = 400  # bytes of a stream in each packet of these tests


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """aioquic warns of each broken rule."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


class Attack:
    """A listener and its twin that takes packets in one by one; both get the same bursts from the dialer."""

    def __init__(self, *, victim_is_dialer: bool = False, cipher_suite: CipherSuite | None = None) -> None:
        def configure(configuration: Configuration) -> None:
            if cipher_suite is not None:
                configuration.cipher_suites = [cipher_suite]

        self.channel = Channel(BatchConnection, BatchConnection, configure=configure)
        sides = [self.channel.dialer, self.channel.listener]
        victim_side, attacker_side = sides if victim_is_dialer else reversed(sides)
        victim_side.write(0, 8_000, False)
        self.channel.run(0.012)
        assert isinstance(victim_side.engine, BatchConnection)
        self.attacker: Side = attacker_side
        self.victim = victim_side.engine
        self.twin = twin_of(self.victim)
        self.told: list[QuicEvent] = []
        self.told_twin: list[QuicEvent] = []
        self.number = self.attacker.engine._packet_number
        self.stream = int(victim_is_dialer)  # the attacker's first

    def deliver(self, datagrams: list[bytes]) -> dict[str, Any]:
        """Both take the burst in; what became of it, which is the same for both."""
        now = self.channel.now = self.channel.now + 0.005
        self.victim.receive_burst(list(datagrams), self.attacker.address, now)
        self.twin.receive_burst(list(datagrams), self.attacker.address, now)
        self.told += self.victim.take_events()
        self.told_twin += self.twin.take_events()
        ours, theirs = outcome(self.victim, self.told), outcome(self.twin, self.told_twin)
        if ours["ending"] is None and theirs["ending"] is None:
            # An ACK of our ACK makes stock forget packets of the same burst that came before it.
            assert ours.pop("acknowledgements") >= theirs.pop("acknowledgements")
        assert ours == theirs
        return ours

    def packet(self, payload: bytes, **options: Any) -> bytes:
        """The attacker's next packet."""
        self.number += 1
        return sealed(self.attacker.engine, payload, self.number - 1, **options)

    def run(self, count: int, at: int = 0, **options: Any) -> list[bytes]:
        """Packets of a run on the attacker's first stream, from its `at`-th piece on."""
        return [
            self.packet(run_frame(self.stream, DATA * n, pattern(self.stream, DATA * n, DATA)), **options)
            for n in range(at, at + count)
        ]

    @property
    def received(self) -> bytes:
        """What the application was given of the attacker's first stream."""
        return b"".join(
            event.data
            for event in self.told
            if isinstance(event, StreamDataReceived) and event.stream_id == self.stream
        )

    @property
    def closed_with(self) -> int | None:
        return None if self.victim.ending is None else self.victim.ending.error_code


# -- any burst ---------------------------------------------------------------------------------------------


@given(
    st.integers(0, 1 << 32),
    st.booleans(),
    st.sampled_from([None, CipherSuite.AES_256_GCM_SHA384, CipherSuite.CHACHA20_POLY1305_SHA256]),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_any_burst_has_the_outcome_of_its_packets_one_by_one(
    seed: int, victim_is_dialer: bool, cipher_suite: CipherSuite | None, sizes: list[int]
) -> None:
    attack = Attack(victim_is_dialer=victim_is_dialer, cipher_suite=cipher_suite)
    forger = Forger(Random(seed), attack.attacker.engine, attack.victim)
    for size in sizes:
        if attack.deliver(forger.burst(size))["ending"] is not None:
            break


# -- what is told of a run ---------------------------------------------------------------------------------


def test_a_run_is_one_event_and_one_range() -> None:
    attack = Attack()
    attack.deliver(attack.run(50))
    [event] = [event for event in attack.told if isinstance(event, StreamDataReceived)]
    assert event.data == pattern(0, 0, 50 * DATA)
    space = attack.victim._spaces[tls.Epoch.ONE_RTT]
    assert space.ack_queue[-1] == range(space.ack_queue[-1].start, attack.number)


@given(
    st.permutations(range(12)),
    st.lists(st.integers(0, 11), max_size=4),
    st.sets(st.integers(0, 11), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_a_run_out_of_order_with_copies_and_gaps(order: list[int], again: list[int], lost: set[int]) -> None:
    attack = Attack()
    run = attack.run(12)
    attack.deliver([run[n] for n in [*order, *again] if n not in lost])
    attack.deliver([run[n] for n in sorted(lost)] + [run[n] for n in again])
    assert attack.received == pattern(0, 0, 12 * DATA)


def test_streams_that_take_turns() -> None:
    attack = Attack()
    datagrams = []
    for n in range(10):
        for stream_id in (0, 4, 400):
            data = pattern(stream_id, n * DATA, DATA)
            datagrams.append(attack.packet(run_frame(stream_id, n * DATA, data, id_size=2)))
    told = attack.deliver(datagrams)["told"]
    assert [told[stream_id] for stream_id in (0, 4, 400)] == [
        [pattern(stream_id, 0, 10 * DATA)] for stream_id in (0, 4, 400)
    ]


@pytest.mark.parametrize("id_size", [1, 2, 4, 8])
def test_stream_ids_of_any_size(id_size: int) -> None:
    attack = Attack()
    attack.deliver(
        [attack.packet(run_frame(0, n * DATA, pattern(0, n * DATA, DATA), id_size=id_size)) for n in range(5)]
    )
    assert attack.received == pattern(0, 0, 5 * DATA)


@pytest.mark.parametrize("offset_size", [1, 2, 4])
def test_offsets_of_other_sizes_are_left_to_the_library(offset_size: int) -> None:
    attack = Attack()
    attack.deliver([attack.packet(run_frame(0, n, b"x", offset_size=offset_size)) for n in range(5)])
    assert attack.received == b"xxxxx"


def test_fin_in_and_after_a_run() -> None:
    attack = Attack()
    end = varints(0x0D, attack.stream, 5 * DATA) + b"last"
    story = attack.deliver([*attack.run(5), attack.packet(end)])["told"][attack.stream]
    assert story == [pattern(0, 0, 5 * DATA) + b"last", "end"]


def test_a_run_that_comes_before_what_precedes_it() -> None:
    attack = Attack()
    first, rest = attack.run(1), attack.run(9, at=1)
    attack.deliver(rest)
    assert attack.received == b""
    attack.deliver(first)
    assert attack.received == pattern(0, 0, 10 * DATA)


def test_a_run_on_a_stream_that_is_over_is_ignored() -> None:
    attack = Attack()
    attack.deliver([attack.packet(varints(0x0D, attack.stream, 0) + b"all")])
    attack.deliver([attack.packet(run_frame(attack.stream, 0, b"al")) for _ in range(3)])
    assert attack.closed_with is None
    assert attack.received == b"all"


def test_a_run_on_a_stream_that_was_discarded_is_ignored() -> None:
    attack = Attack()
    attack.deliver(attack.run(2))
    for engine in (attack.victim, attack.twin):
        del engine._streams[0]  # as the library does when both directions are done
    attack.deliver(attack.run(5, at=2))
    assert attack.closed_with is None
    assert attack.received == pattern(0, 0, 2 * DATA)


def test_a_run_on_a_stream_that_was_reset_is_ignored() -> None:
    attack = Attack()
    attack.deliver([*attack.run(3), attack.packet(varints(0x04, attack.stream, 5, 10 * DATA))])
    attack.deliver(attack.run(5, at=3))
    assert attack.closed_with is None


# -- what breaks a rule, in the middle of a run ------------------------------------------------------------

LIMIT = config.STREAM_RECEIVE_WINDOW

BROKEN_FRAMES = {
    "cut before the stream id": (b"\x0c\x40", QuicErrorCode.FRAME_ENCODING_ERROR),
    "cut in the offset": (b"\x0c\x00" + wide(1, 8)[:5], QuicErrorCode.FRAME_ENCODING_ERROR),
    "beyond 2^62 - 1": (b"\x0c\x00" + b"\xff" * 8 + b"x", QuicErrorCode.FRAME_ENCODING_ERROR),
    "beyond the stream's limit": (run_frame(0, LIMIT, b"x"), QuicErrorCode.FLOW_CONTROL_ERROR),
    "on a stream that only we open": (run_frame(5, 0, b"x"), QuicErrorCode.STREAM_STATE_ERROR),
    "on a stream that only we send on": (run_frame(3, 0, b"x"), QuicErrorCode.STREAM_STATE_ERROR),
    "on a unidirectional stream": (run_frame(2, 0, b"x"), QuicErrorCode.STREAM_LIMIT_ERROR),
    "on one stream too many": (run_frame(4 * 128, 0, b"x"), QuicErrorCode.STREAM_LIMIT_ERROR),
    "on the largest stream": (run_frame((1 << 62) - 4, 0, b"x"), QuicErrorCode.STREAM_LIMIT_ERROR),
    "no frame that exists": (varints(0x21), QuicErrorCode.FRAME_ENCODING_ERROR),
}


@pytest.mark.parametrize("broken", BROKEN_FRAMES)
def test_a_broken_frame_in_a_run_ends_the_connection(broken: str) -> None:
    payload, code = BROKEN_FRAMES[broken]
    attack = Attack()
    attack.deliver([*attack.run(5), attack.packet(payload), *attack.run(5, at=5)])
    assert attack.closed_with == code


def test_a_run_beyond_the_connection_limit_ends_the_connection() -> None:
    attack = Attack()
    step = LIMIT - DATA
    far = [attack.packet(run_frame(stream_id, step, bytes(DATA))) for stream_id in (4, 8)]
    attack.deliver(far)
    assert attack.closed_with is None
    attack.deliver(attack.run(5))
    assert attack.closed_with == QuicErrorCode.FLOW_CONTROL_ERROR


def test_a_run_beyond_the_final_size_ends_the_connection() -> None:
    attack = Attack()
    attack.deliver([attack.packet(varints(0x0D, attack.stream, 3 * DATA) + b"end")])
    attack.deliver(attack.run(3))
    assert attack.closed_with is None
    attack.deliver(attack.run(3, at=3))
    assert attack.closed_with == QuicErrorCode.FINAL_SIZE_ERROR


def test_a_run_of_gaps_ends_the_connection() -> None:
    attack = Attack()
    for first in range(0, config.STREAM_GAPS_MAX + 10, 100):
        burst = [attack.packet(run_frame(0, 10 + 20 * n, b"0123456789")) for n in range(first, first + 100)]
        attack.deliver(burst)
    assert attack.closed_with == QuicErrorCode.INTERNAL_ERROR


def test_a_run_of_nothing_opens_a_stream_and_says_nothing() -> None:
    attack = Attack()
    told = attack.deliver([attack.packet(run_frame(0, 0, b"")) for _ in range(4)])
    assert attack.received == b""
    assert 0 in told["streams"]


# -- packets that are not what they seem -------------------------------------------------------------------


def test_reserved_bits_end_the_connection_only_under_the_right_keys() -> None:
    attack = Attack()
    forged = bytearray(attack.run(1)[0])
    forged[0] ^= RESERVED
    attack.deliver([*attack.run(2), bytes(forged), *attack.run(2, at=2)])
    assert attack.closed_with is None
    attack.deliver([*attack.run(2, at=4), *attack.run(1, at=6, flags=RESERVED), *attack.run(2, at=7)])
    assert attack.closed_with == QuicErrorCode.PROTOCOL_VIOLATION


def test_a_key_phase_that_is_no_key_update_is_ignored() -> None:
    attack = Attack()
    attack.deliver([*attack.run(3), *attack.run(1, at=3, flags=KEY_PHASE), *attack.run(3, at=4)])
    assert attack.received == pattern(0, 0, 3 * DATA)


def test_a_key_update_in_a_run() -> None:
    attack = Attack()
    before, after = attack.run(5), attack.run(5, at=5, next_keys=True)
    state = attack.deliver([*before[:4], *after[:3], before[4], *after[3:]])
    assert state["phase"] == 1
    assert attack.received == pattern(0, 0, 4 * DATA)  # stock keeps no old keys: one packet counts as lost


@pytest.mark.parametrize("at", [0, 1, 8, 9, 10, 12, 13, 28, 29, 100, -17, -1])
def test_a_flipped_bit_costs_one_packet(at: int) -> None:
    attack = Attack()
    run = attack.run(7)
    flipped = bytearray(run[3])
    flipped[at] ^= 0x01
    attack.deliver([*run[:3], bytes(flipped), *run[4:]])
    assert attack.received == pattern(0, 0, 3 * DATA)
    attack.deliver([run[3]])
    assert attack.received == pattern(0, 0, 7 * DATA)


@pytest.mark.parametrize("size", [0, 1, 8, 9, 10, 20, 28, 29, 30, 50])
def test_a_datagram_that_was_cut_costs_one_packet(size: int) -> None:
    attack = Attack()
    run = attack.run(7)
    attack.deliver([*run[:3], run[3][:size], *run[4:]])
    attack.deliver([run[3]])
    assert attack.received == pattern(0, 0, 7 * DATA)


def test_connection_ids_that_change_in_a_burst() -> None:
    attack = Attack()
    ids = [it.cid for it in attack.victim._host_cids]
    burst = [attack.run(1, at=n, connection_id=ids[n // 3])[0] for n in range(9)]
    burst.insert(4, attack.run(1, at=9, connection_id=b"nobody's")[0])
    attack.deliver(burst)
    assert attack.received == pattern(0, 0, 9 * DATA)
    assert attack.victim.host_cid == ids[2]


@pytest.mark.parametrize("number_size", [1, 3, 4])
def test_packet_numbers_of_other_sizes_are_left_to_the_library(number_size: int) -> None:
    attack = Attack()
    attack.deliver([*attack.run(3), *attack.run(3, at=3, number_size=number_size), *attack.run(3, at=6)])
    assert attack.received == pattern(0, 0, 9 * DATA)


# -- duplicates --------------------------------------------------------------------------------------------


def _stops(events: list[QuicEvent]) -> int:
    return sum(isinstance(event, StopSendingReceived) for event in events)


@pytest.mark.parametrize("alone_before", [0, 1, 2, 3])
def test_a_packet_is_taken_in_once(alone_before: int) -> None:
    """In whatever ways it and those before it came: stock's idea of the next number is not always right."""
    attack = Attack(victim_is_dialer=True)
    for _ in range(alone_before):
        datagram = attack.packet(b"\x01")
        attack.victim.receive_datagram(datagram, attack.attacker.address, attack.channel.now)
        attack.twin.receive_datagram(datagram, attack.attacker.address, attack.channel.now)
    packet = attack.packet(varints(0x05, 0, 9))
    attack.victim.receive_datagram(packet, attack.attacker.address, attack.channel.now)
    attack.twin.receive_datagram(packet, attack.attacker.address, attack.channel.now)
    attack.deliver([packet, *attack.run(3), packet])
    attack.deliver([packet])
    attack.deliver([*attack.run(3, at=3), packet])
    assert _stops(attack.told) == 1


def test_copies_within_a_burst_are_taken_in_once() -> None:
    attack = Attack(victim_is_dialer=True)
    packet = attack.packet(varints(0x05, 0, 9))
    attack.deliver([packet, packet, *attack.run(3), packet])
    assert _stops(attack.told) == 1


def test_a_burst_is_reordered_by_more_than_stock_remembers() -> None:
    attack = Attack()
    run = attack.run(1000)
    now = attack.channel.now
    attack.victim.receive_burst(run[500:], attack.attacker.address, now)
    attack.victim.receive_burst(run[:500], attack.attacker.address, now)
    events = attack.victim.take_events()
    assert sum(len(event.data) for event in events if isinstance(event, StreamDataReceived)) == 1000 * DATA


# -- acknowledgements --------------------------------------------------------------------------------------


def test_an_ack_of_what_was_never_sent_ends_the_connection() -> None:
    attack = Attack()
    never = varints(0x02, attack.victim._packet_number, 0, 0, 0)
    attack.deliver([*attack.run(3), attack.packet(never), *attack.run(3, at=3)])
    assert attack.closed_with == QuicErrorCode.PROTOCOL_VIOLATION


def test_an_ack_of_a_number_that_was_left_out_ends_the_connection() -> None:
    attack = Attack()
    attack.victim._skip_at = attack.twin._skip_at = 0
    for engine in (attack.victim, attack.twin):
        engine.send_ping(1)
        engine.bursts_to_send(attack.channel.now)
    assert attack.victim._packet_number == attack.twin._packet_number
    largest = attack.victim._packet_number - 1
    attack.deliver([*attack.run(3), attack.packet(varints(0x02, largest, 0, 0, largest))])
    assert attack.closed_with == QuicErrorCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("number", [0, 3])
def test_an_ack_below_zero_ends_the_connection(number: int) -> None:
    attack = Attack()
    attack.deliver([*attack.run(2), attack.packet(varints(0x02, number, 0, 0, number + 1))])
    assert attack.closed_with == QuicErrorCode.FRAME_ENCODING_ERROR


def test_an_ack_of_thousands_of_ranges_changes_nothing_but_what_it_acknowledges() -> None:
    attack = Attack()
    largest = attack.victim._packet_number - 1
    pairs = [number for _ in range(largest // 2 - 1) for number in (0, 0)]
    frame = varints(0x02, largest, 0, len(pairs) // 2, 0, *pairs)
    attack.deliver([attack.packet(frame), *attack.run(3), attack.packet(frame)])
    assert attack.closed_with is None


def test_all_ranges_of_a_burst_are_acknowledged_up_to_a_bound() -> None:
    attack = Attack()
    datagrams = []
    for n in range(300):
        attack.number += 1
        datagrams += attack.run(1, at=n)
    attack.victim.receive_burst(datagrams, attack.attacker.address, attack.channel.now)
    assert len(attack.victim._spaces[tls.Epoch.ONE_RTT].ack_queue) == RANGES_MAX
    assert attack.victim._spaces[tls.Epoch.ONE_RTT].ack_queue[-1].stop == attack.number


def test_many_packets_are_acknowledged_at_once_and_few_a_moment_later() -> None:
    attack = Attack()
    attack.deliver(attack.run(1))
    attack.victim.bursts_to_send(attack.channel.now + 1)  # nothing left to acknowledge
    space = attack.victim._spaces[tls.Epoch.ONE_RTT]
    now = attack.channel.now + 1
    attack.victim.receive_burst(attack.run(10), attack.attacker.address, now)
    attack.victim.receive_burst(
        attack.run(config.ACK_PACKETS - 11, at=10), attack.attacker.address, now + 0.0001
    )
    round_trip_s = attack.victim._loss._rtt_min
    assert space.ack_at == now + round_trip_s / config.ACKS_PER_ROUND_TRIP
    assert 0.001 < round_trip_s / config.ACKS_PER_ROUND_TRIP < config.ACK_DELAY_MAX_S
    attack.victim.receive_burst(attack.run(1, at=99), attack.attacker.address, now + 0.0002)
    assert space.ack_at == now + 0.0002


def test_a_gap_is_acknowledged_at_once() -> None:
    attack = Attack()
    attack.deliver(attack.run(1))
    attack.victim.bursts_to_send(attack.channel.now + 1)
    now = attack.channel.now + 1
    attack.number += 1
    attack.victim.receive_burst(attack.run(2), attack.attacker.address, now)
    assert attack.victim._spaces[tls.Epoch.ONE_RTT].ack_at == now


def test_what_asks_for_no_ack_gets_none() -> None:
    attack = Attack()
    attack.victim.bursts_to_send(attack.channel.now + 1)
    largest = attack.victim._packet_number - 1
    attack.victim.receive_burst(
        [attack.packet(varints(0x02, largest, 0, 0, 0)) for _ in range(100)],
        attack.attacker.address,
        attack.channel.now + 1,
    )
    assert attack.victim._spaces[tls.Epoch.ONE_RTT].ack_at is None


# -- everything else ---------------------------------------------------------------------------------------


def test_frames_of_all_kinds_between_runs() -> None:
    attack = Attack()
    for engine in (attack.victim, attack.twin):
        engine.send_ping(5)
        engine.bursts_to_send(attack.channel.now + 1)
    largest = attack.victim._packet_number - 1
    limit = attack.victim._remote_max_data
    others = [
        varints(0x02, largest, 0, 0, 0),
        varints(0x10, limit + 1000),
        varints(0x11, 1, 1 << 30),
        b"\x1a" + bytes(8),
        b"\x01" + run_frame(attack.stream, 10 * DATA, b"more"),
    ]
    burst = []
    for n, other in enumerate(others):
        burst += [*attack.run(2, at=2 * n), attack.packet(other)]
    state = attack.deliver(burst)
    assert attack.received == pattern(0, 0, 10 * DATA) + b"more"
    assert any(isinstance(event, PingAcknowledged) for event in attack.told)
    assert state["limit"] == limit + 1000
    assert state["challenges"] == [bytes(8)]


def test_a_close_in_a_run_ends_it_there() -> None:
    attack = Attack()
    attack.deliver([*attack.run(3), attack.packet(varints(0x1D, 9, 0)), *attack.run(3, at=3)])
    assert attack.closed_with == 9
    assert attack.received == pattern(0, 0, 3 * DATA)
    assert attack.victim.closed_by_remote


@pytest.mark.parametrize("victim_is_dialer", [False, True])
def test_the_spin_bit_follows_the_newest_valid_packet(victim_is_dialer: bool) -> None:
    attack = Attack(victim_is_dialer=victim_is_dialer)
    spinning = attack.run(2, flags=SPIN)
    forged = bytearray(attack.run(1, at=2)[0])
    forged[-1] ^= 1
    late = attack.run(1, at=3)[0]
    attack.deliver([late, spinning[0], *attack.run(1, at=4, flags=SPIN), spinning[1], bytes(forged)])
    assert attack.victim._spin_bit is not victim_is_dialer


def test_a_burst_from_elsewhere_is_a_new_path() -> None:
    attack = Attack()
    elsewhere = ("203.0.113.9", 9)
    burst = attack.run(5)
    for engine in (attack.victim, attack.twin):
        engine.receive_burst(list(burst), elsewhere, attack.channel.now)
        assert engine.get_peer_address() == elsewhere
    assert outcome(attack.victim, attack.victim.take_events()) == outcome(
        attack.twin, attack.twin.take_events()
    )


@pytest.mark.parametrize(
    ("round_trip_s", "wait_s"), [(0.0001, 0.001), (0.02, 0.005), (3.0, config.ACK_DELAY_MAX_S)]
)
def test_an_ack_waits_for_a_part_of_a_round_trip(round_trip_s: float, wait_s: float) -> None:
    attack = Attack()
    attack.deliver(attack.run(1))
    attack.victim.bursts_to_send(attack.channel.now + 1)
    attack.victim._loss._rtt_min = round_trip_s
    now = attack.channel.now + 1
    attack.victim.receive_burst(attack.run(2), attack.attacker.address, now)
    assert attack.victim._spaces[tls.Epoch.ONE_RTT].ack_at == now + wait_s
