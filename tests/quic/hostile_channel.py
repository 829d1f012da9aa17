"""Two engines, each with an application on it, and a channel between them that does its worst.

Everything happens in virtual time, without IO: one heap of what is under way. After each step what an engine
holds must add up: see `check_books`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from random import Random

from aioquic import tls
from aioquic.quic.connection import END_STATES, QuicConnection
from aioquic.quic.events import QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset
from aioquic.quic.stream import QuicStream, QuicStreamSender

from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.aioquic_recovery import Recovery, SentRun
from p2pnode.quic.configuration import Configuration
from p2pnode.quic.datagrams import Address, Datagram
from tests.quic.engines import (
    CLIENT,
    SERVER,
    datagrams_of,
    dialer_configuration,
    give,
    listener_configuration,
)

TICK_S = 0.001  # what arrives within one tick arrives as one burst
TIMER_GRANULARITY_S = 0.001
KEEP_ALIVE_S = 1.0
DATAGRAM_SIZE_MAX = 9000
STREAMS_MAX = 40  # that either side opens
DATA = Random(4).randbytes(1 << 16)

EngineClass = Callable[..., QuicConnection]


@dataclass(frozen=True)
class Weather:
    """What a channel does to datagrams: shares of them, and seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay_s: float = 0.01
    jitter_s: float = 0.0


CALM = Weather()


def pattern(stream_id: int, start: int, size: int) -> bytes:
    """The bytes of a stream: every place in it looks different."""
    at = (start + 7919 * stream_id) % 65_521
    return (DATA[at:] + DATA * (1 + size // len(DATA)))[:size] if size else b""


@dataclass
class Written:
    """What one application did with its sending side of a stream."""

    data: bytearray = field(default_factory=bytearray)
    finished: bool = False
    reset: bool = False


@dataclass
class Read:
    """What the other one has seen of it."""

    data: bytearray = field(default_factory=bytearray)
    unread: int = 0
    finished: bool = False
    reset: bool = False
    stopped: bool = False


class Side:
    """An engine and its application."""

    def __init__(self, engine: QuicConnection, address: Address) -> None:
        self.engine = engine
        self.address = address
        self.written: dict[int, Written] = {}
        self.read: dict[int, Read] = {}
        self.is_reading = True
        self.pinged_at = 0.0
        self.pings = 0
        self.opened = 0

    @property
    def hardened(self) -> HardenedConnection | None:
        return self.engine if isinstance(self.engine, HardenedConnection) else None

    # -- the application -----------------------------------------------------------------------------------

    def open_stream(self) -> int | None:
        if self.opened >= STREAMS_MAX:
            return None
        self.opened += 1
        stream_id = self.engine.get_next_available_stream_id()
        self.engine.send_stream_data(stream_id, b"")
        self.written[stream_id] = Written()
        self.read[stream_id] = Read()
        return stream_id

    def stream(self, choice: int) -> int | None:
        """One of those that this side may still write to; a new one now and then."""
        open_ones = [stream_id for stream_id, it in self.written.items() if not (it.finished or it.reset)]
        if choice % 4 == 0 or not open_ones:
            return self.open_stream()
        return open_ones[choice % len(open_ones)]

    def write(self, choice: int, size: int, fin: bool) -> None:
        stream_id = self.stream(choice)
        if stream_id is not None:
            written = self.written[stream_id]
            data = pattern(stream_id, len(written.data), size)
            self.engine.send_stream_data(stream_id, data, fin)
            written.data += data
            written.finished = fin

    def reset(self, choice: int) -> None:
        stream_id = self.stream(choice)
        if stream_id is not None:
            self.engine.reset_stream(stream_id, 77)
            self.written[stream_id].reset = True

    def stop(self, choice: int) -> None:
        known = [stream_id for stream_id in self.read if stream_id in self.engine._streams]
        if known:
            stream_id = known[choice % len(known)]
            self.engine.stop_stream(stream_id, 78)
            self.read[stream_id].stopped = True

    def finish(self) -> None:
        for stream_id, written in self.written.items():
            if not (written.finished or written.reset):
                self.engine.send_stream_data(stream_id, b"", True)
                written.finished = True

    def consume(self) -> None:
        """Read everything that has come."""
        for stream_id, read in self.read.items():
            if read.unread and self.is_reading:
                if self.hardened is not None:
                    self.hardened.consumed(stream_id, read.unread, len(read.data))
                read.unread = 0

    def take(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            read = self._read_of(event.stream_id)
            assert not (read.finished or read.reset), "data after the end of a stream"
            read.data += event.data
            read.unread += len(event.data)
            read.finished = event.end_stream
        elif isinstance(event, StreamReset):
            read = self._read_of(event.stream_id)
            assert not (read.finished or read.reset), "a reset after the end of a stream"
            read.reset = True
        elif isinstance(event, StopSendingReceived):
            self._read_of(event.stream_id)
            self.written[event.stream_id].reset = True

    def _read_of(self, stream_id: int) -> Read:
        if stream_id not in self.read:
            self.read[stream_id] = Read()
            self.written[stream_id] = Written()
        return self.read[stream_id]

    # -- the engine ----------------------------------------------------------------------------------------

    def step(self, now: float) -> list[Datagram]:
        """What the driver does each time it wakes; what is to be sent."""
        if not self.engine._network_paths:
            return []  # a listener before the first datagram
        timer = self.engine.get_timer()
        if timer is not None and timer <= now:
            self.engine.handle_timer(now)
        if now - self.pinged_at > KEEP_ALIVE_S:
            self.ping(now)
        self._take_events()
        self.consume()
        sent = datagrams_of(self.engine, now)
        self._take_events()
        check_books(self.engine)
        return sent

    def ping(self, now: float) -> None:
        self.pinged_at = now
        self.pings += 1
        self.engine.send_ping(self.pings)

    def _take_events(self) -> None:
        while (event := self.engine.next_event()) is not None:
            self.take(event)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing waits to be sent, acknowledged or read."""
        space = self.engine._spaces[tls.Epoch.ONE_RTT]
        return (
            not space.ack_eliciting_in_flight
            and space.ack_at is None
            and not self.engine._ping_pending
            and all(
                stream.sender.buffer_is_empty and not stream.sender.reset_pending
                for stream in self.engine._streams.values()
            )
            and not any(read.unread for read in self.read.values())
        )


class Channel:
    """A dialer, a listener, and what lies between."""

    def __init__(
        self,
        dialer_class: EngineClass,
        listener_class: EngineClass,
        *,
        seed: int = 0,
        weather: Weather = CALM,
        configure: Callable[[Configuration], None] = lambda _: None,
    ) -> None:
        self.rng = Random(seed)
        self.weather = CALM
        self.carries = DATAGRAM_SIZE_MAX  # bytes; larger datagrams are lost
        self.now = 1.0
        configurations = [dialer_configuration(), listener_configuration()]
        for configuration in configurations:
            configure(configuration)
        dialer = dialer_class(configuration=configurations[0])
        listener = listener_class(
            configuration=configurations[1],
            original_destination_connection_id=dialer.original_destination_connection_id,
        )
        self.dialer, self.listener = Side(dialer, CLIENT), Side(listener, SERVER)
        self.sides = [self.dialer, self.listener]
        self._under_way: list[tuple[float, int, bytes, Address, Address]] = []
        self._sent = 0
        dialer.connect(SERVER, self.now)
        self.run(0.5)
        assert dialer._handshake_confirmed
        assert listener._handshake_confirmed
        self.weather = weather

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        self._step()
        while (at := self._next_at()) < until:
            self.now = at
            self._step()
        self.now = until

    def settle(self) -> None:
        """Calm down, and wait until both sides have nothing to do."""
        self.weather = CALM
        for side in self.sides:
            side.is_reading = True
        self.run(1.0)
        for _ in range(200):
            if all(side.is_quiet for side in self.sides) and not self._under_way:
                return
            self.run(0.1)
        raise AssertionError("they never come to rest")

    def move(self) -> None:
        """The dialer has a new address from now on, as behind a NAT that forgot it."""
        if self._have_the_same_keys:
            host, port = self.dialer.address
            self.dialer.address = host, port + 1

    def update_keys(self, side: Side) -> None:
        """Only when both have the same keys (RFC 9001 §6.1), which stock does not check.

        And not while the listener looks for the dialer in the wrong place: stock keeps no old keys, so that
        it could not read from where the dialer speaks now.
        """
        if self._have_the_same_keys and self.listener.engine.get_peer_address() == self.dialer.address:
            side.engine.request_key_update()

    @property
    def _have_the_same_keys(self) -> bool:
        pairs = [side.engine._cryptos[tls.Epoch.ONE_RTT] for side in self.sides]
        return pairs[0].send.secret == pairs[1].recv.secret and not any(
            it._update_key_requested for it in pairs
        )

    def _next_at(self) -> float:
        begun = [side for side in self.sides if side.engine._network_paths]
        timers = [side.engine.get_timer() for side in begun]
        at = [max(timer, self.now + TIMER_GRANULARITY_S) for timer in timers if timer is not None]
        at += [side.pinged_at + KEEP_ALIVE_S + TICK_S for side in begun]
        if self._under_way:
            at.append(self._under_way[0][0])
        return max(min(at), self.now)

    def _step(self) -> None:
        arrived = []
        while self._under_way and self._under_way[0][0] <= self.now + TICK_S:
            _, _, datagram, source, target = heapq.heappop(self._under_way)
            arrived.append((source, target, datagram))
        if arrived:
            self.now += TICK_S
        for (source, target), burst in groupby(arrived, key=itemgetter(0, 1)):
            for side in self.sides:
                if side.address == target:
                    give(side.engine, [datagram for _, _, datagram in burst], source, self.now)
        for side in self.sides:
            for datagram, target in side.step(self.now):
                self.carry(datagram, side.address, target)

    def carry(self, datagram: bytes, source: Address, target: Address) -> None:
        """Put a datagram on its way."""
        rng, weather = self.rng, self.weather
        if rng.random() < weather.loss or len(datagram) > self.carries:
            return
        for _ in range(1 + (rng.random() < weather.duplicate)):
            if rng.random() < weather.corrupt:
                datagram = damaged(rng, datagram)
            at = self.now + weather.delay_s + rng.random() * weather.jitter_s
            self._sent += 1
            heapq.heappush(self._under_way, (at, self._sent, datagram, source, target))


def damaged(rng: Random, datagram: bytes) -> bytes:
    """One bit flipped, cut short, or with something at its end."""
    damage = rng.randrange(3)
    if damage == 0:
        flipped = bytearray(datagram)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if damage == 1:
        return datagram[: rng.randrange(len(datagram))]
    return datagram + rng.randbytes(rng.randrange(1, 40))


# -- what must hold at any time ----------------------------------------------------------------------------


def check_books(engine: QuicConnection) -> None:
    """Whatever an engine counts is the sum of what it tracks, and no byte of a stream is lost or tracked twice."""
    assert engine._state not in END_STATES, engine._close_event
    tracked: dict[QuicStreamSender, list[tuple[int, int]]] = {}
    in_flight = 0
    for space in engine._loss.spaces:
        runs = runs_of(engine) if space.is_application_data else []
        packets = list(space.sent_packets.values())
        assert [packet.packet_number for packet in packets] == sorted(
            packet.packet_number for packet in packets
        )
        in_flight += sum(packet.sent_bytes for packet in packets if packet.in_flight)
        in_flight += sum((run.stop - run.start) * run.packet_size for run in runs)
        eliciting = sum(packet.is_ack_eliciting for packet in packets) + sum(
            run.stop - run.start for run in runs
        )
        assert space.ack_eliciting_in_flight == eliciting
        numbers = {packet.packet_number for packet in packets}
        for before, run in zip([None, *runs], runs, strict=False):
            assert run.start < run.stop
            assert before is None or before.stop <= run.start
            assert numbers.isdisjoint(range(run.start, run.stop))
            end = run.offset + (run.stop - run.start) * run.data_size
            tracked.setdefault(_sender_of(run), []).append((run.offset, end))
        for packet in packets:
            for handler, arguments in packet.delivery_handlers:
                sender = getattr(handler, "__self__", None)
                if handler.__name__ == "on_data_delivery" and isinstance(sender, QuicStreamSender):
                    tracked.setdefault(sender, []).append(arguments[:2])
    assert engine._loss.bytes_in_flight == in_flight
    for stream in engine._streams.values():
        _check_sender(stream, tracked.get(stream.sender, []))


def _check_sender(stream: QuicStream, sent: list[tuple[int, int]]) -> None:
    sender = stream.sender
    if sender._reset_error_code is not None:
        assert sender.buffer_is_empty
        return
    pending = [(part.start, part.stop) for part in sender._pending]
    if sender.buffer_is_empty:
        assert not pending
        assert not sender._pending_eof
    acknowledged = [(part.start, part.stop) for part in sender._acked]
    parts = sorted(part for part in sent + pending + acknowledged if part[0] < part[1])
    at = sender._buffer_start
    for start, stop in parts:
        assert start == at, f"bytes {at} to {start} of stream {stream.stream_id}"
        at = stop
    assert at == sender._buffer_stop
    assert len(sender._buffer) == sender._buffer_stop - sender._buffer_start
    assert sender.highest_offset <= stream.max_stream_data_remote


def _sender_of(run: SentRun) -> QuicStreamSender:
    assert isinstance(run.sender, QuicStreamSender)
    return run.sender


def runs_of(engine: QuicConnection) -> list[SentRun]:
    return list(engine._loss._runs) if isinstance(engine._loss, Recovery) else []


# -- what must hold at the end -----------------------------------------------------------------------------


def check_equal(channel: Channel) -> None:
    """Each side has seen exactly what the other one did, and nobody ended the connection."""
    for ours, theirs in ((channel.dialer, channel.listener), (channel.listener, channel.dialer)):
        assert ours.engine._close_event is None
        for stream_id, written in ours.written.items():
            read = theirs.read.get(stream_id, Read())
            if written.reset or read.stopped:
                assert read.finished or read.reset or stream_id not in theirs.read
                assert written.data[: len(read.data)] == read.data
            else:
                assert written.data == read.data
                assert written.finished == read.finished
                assert not read.reset


def check_at_rest(channel: Channel) -> None:
    """Nothing is in flight or tracked as sent; what one side counts is what the other one counts."""
    for ours, theirs in ((channel.dialer, channel.listener), (channel.listener, channel.dialer)):
        engine, other = ours.engine, theirs.engine
        space, others = engine._spaces[tls.Epoch.ONE_RTT], other._spaces[tls.Epoch.ONE_RTT]
        assert engine._loss.bytes_in_flight == 0
        assert runs_of(engine) == []
        assert not any(packet.in_flight for packet in space.sent_packets.values())
        assert engine._remote_max_data_used == other._local_max_data.used
        assert engine._remote_max_data <= other._local_max_data.value
        assert space.largest_received_packet < other._packet_number
        assert space.largest_acked_packet <= others.largest_received_packet
        assert len(space.ack_queue) and space.ack_queue[-1].stop == space.largest_received_packet + 1
        for part in space.ack_queue:
            assert part.start in space.received_packets
            assert part.stop - 1 in space.received_packets
            assert part.stop not in space.received_packets or part.stop <= 0
        assert (
            engine._cryptos[tls.Epoch.ONE_RTT].send.key_phase
            == engine._cryptos[tls.Epoch.ONE_RTT].recv.key_phase
        )
        for stream_id, stream in engine._streams.items():
            assert stream.sender.buffer_is_empty
            assert len(stream.sender._pending) == 0
            assert len(stream.sender._buffer) == 0
            mirror = other._streams[stream_id]
            assert stream.sender.highest_offset == mirror.receiver.highest_offset
