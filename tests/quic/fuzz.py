"""A fuzzer that knows the protocol: real handshakes, then frames that are almost legal, under the right keys.

Random bytes die in the first check. This one keeps a stock connection as accomplice: it completes handshakes
(or tampers with their TLS messages), then seals packets whose frames name streams, offsets, connection ids and
packet numbers near those in use. Nothing may escape from the engine, and what it holds for the remote stays
within its windows.

    python -m tests.quic.fuzz --seconds 60 --seed 1
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from random import Random

from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived

from p2pnode import config
from p2pnode.quic.guard import Escape, guard
from tests.quic.engines import CLIENT, SERVER, Pair, seal, varints

ADDRESSES_OF_OTHERS = [("198.51.100.1", port) for port in range(1, 12)]
PAYLOAD_MAX = 1100
STEPS_PER_SESSION = 400


class Session:
    """One connection from its handshake to its death, and everything that a fuzzer does to it."""

    def __init__(self, rng: Random, counts: Counter[str]) -> None:
        self.rng = rng
        self.counts = counts
        self.pair = Pair(victim_is_client=rng.random() < 0.5)
        self.victim, self.attacker = self.pair.victim, self.pair.attacker
        self.consumed: dict[int, int] = {}
        self.unread: list[StreamDataReceived] = []
        self.opened: list[int] = []

    def run(self) -> None:
        """Handshake, then steps until the victim has had enough. `Escape` when something escaped."""
        self.counts["sessions"] += 1
        self._handshake(tampered=self.rng.random() < 0.3)
        if not (self.victim._handshake_confirmed and self.attacker._handshake_confirmed):
            self.counts["handshakes broken"] += 1
            return
        steps: list[Callable[[], None]] = [
            *[self._hostile_packet] * 12,
            *[self._victim_sends] * 3,
            *[self._time_passes] * 2,
            self._attacker_behaves,
            self._application_reads,
            self._application_acts,
            self._damaged_packet,
        ]
        for _ in range(STEPS_PER_SESSION):
            self.rng.choice(steps)()
            self._check_held()
            if self.victim.ending is not None:
                break
        guard(self.victim.datagrams_to_send, self.pair.now)
        ending = self.victim.ending
        self.counts[f"ended with {ending.error_code:#x}" if ending else "survived"] += 1

    # -- the handshake -------------------------------------------------------------------------------------

    def _handshake(self, tampered: bool) -> None:
        for _ in range(8):
            if tampered and self.attacker._crypto_streams:
                self._tamper()
            self._carry(self.attacker)
            self._carry(self.victim)
            self._time_passes()

    def _tamper(self) -> None:
        """Change the attacker's TLS bytes before they are encrypted."""
        epoch = self.rng.choice([tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE])
        buffer = self.attacker._crypto_streams[epoch].sender._buffer
        for _ in range(self.rng.randrange(1, 4) if buffer else 0):
            buffer[self.rng.randrange(len(buffer))] = self.rng.randrange(256)

    # -- what the victim's driver does ---------------------------------------------------------------------

    def _deliver(self, datagram: bytes, address: tuple[str, int]) -> None:
        self.counts["datagrams"] += 1
        guard(self.victim.receive_datagram, datagram, address, self.pair.now)
        for event in guard(self.victim.take_events):
            if isinstance(event, StreamDataReceived):
                self.unread.append(event)

    @property
    def _attackers_address(self) -> tuple[str, int]:
        return CLIENT if self.attacker is self.pair.dialer else SERVER

    @property
    def _victims_address(self) -> tuple[str, int]:
        return CLIENT if self.victim is self.pair.dialer else SERVER

    def _carry(self, source: QuicConnection) -> None:
        if source is self.victim:
            self._victim_sends()
        elif source._network_paths:
            for datagram, _ in source.datagrams_to_send(self.pair.now):
                self._deliver(datagram, self._attackers_address)

    def _victim_sends(self) -> None:
        datagrams = guard(self.victim.datagrams_to_send, self.pair.now)
        guard(self.victim.get_timer)
        for datagram, address in datagrams:
            if address == self._attackers_address and self.rng.random() < 0.9:
                self.attacker.receive_datagram(datagram, self._victims_address, self.pair.now)
        while self.attacker.next_event() is not None:
            pass

    def _time_passes(self) -> None:
        self.pair.now += self.rng.choice([0.0001, 0.003, 0.03, 0.3])
        timer = guard(self.victim.get_timer)
        if timer is not None and timer <= self.pair.now:
            guard(self.victim.handle_timer, self.pair.now)

    def _application_reads(self) -> None:
        for event in self.unread:
            offset = self.consumed.get(event.stream_id, 0) + len(event.data)
            self.consumed[event.stream_id] = offset
            self.victim.consumed(event.stream_id, len(event.data), offset)
        self.unread.clear()

    def _application_acts(self) -> None:
        rng, victim = self.rng, self.victim
        if rng.random() < 0.01:
            victim.close(rng.randrange(1 << 20), reason_phrase="x" * rng.randrange(3000))
        elif self.opened and rng.random() < 0.3:
            victim.reset_stream(rng.choice(self.opened), rng.randrange(1 << 20))
        elif victim.can_open_stream and rng.random() < 0.3:
            self.opened.append(victim.open_stream())
        elif self.opened:
            stream = victim._streams.get(rng.choice(self.opened))
            if (
                stream is not None
                and stream.sender._reset_error_code is None
                and stream.sender._buffer_fin is None
            ):
                victim.send_stream_data(stream.stream_id, bytes(rng.randrange(5000)), rng.random() < 0.1)

    def _check_held(self) -> None:
        held = sum(len(stream.receiver._buffer) for stream in self.victim._streams.values())
        held += sum(len(event.data) for event in self.unread)
        self.counts["held at most"] = max(self.counts["held at most"], held)
        assert held <= config.CONNECTION_RECEIVE_WINDOW, "more is held than the window allows"

    # -- what the attacker does ----------------------------------------------------------------------------

    def _attacker_behaves(self) -> None:
        stream_id = self.attacker.get_next_available_stream_id()
        if stream_id // 4 < self.attacker._remote_max_streams_bidi and self.attacker._state.value == 1:
            self.attacker.send_stream_data(
                stream_id, os.urandom(self.rng.randrange(3000)), self.rng.random() < 0.5
            )
        self._carry(self.attacker)

    def _hostile_packet(self) -> None:
        payload = b""
        for _ in range(self.rng.choice([1, 1, 1, 2, 4, 8])):
            frame = self.rng.choice(FRAMES)(self)
            if len(payload) + len(frame) <= PAYLOAD_MAX:
                payload += frame
        address = self.rng.choice([self._attackers_address] * 8 + ADDRESSES_OF_OTHERS)
        if payload:
            self._deliver(seal(self.attacker, payload), address)

    def _damaged_packet(self) -> None:
        datagram = bytearray(seal(self.attacker, self.rng.choice(FRAMES)(self) or b"\x01"))
        damage = self.rng.randrange(3)
        if damage == 0:
            datagram[self.rng.randrange(len(datagram))] ^= 1 << self.rng.randrange(8)
        elif damage == 1:
            del datagram[self.rng.randrange(len(datagram)) :]
        else:
            datagram += os.urandom(self.rng.randrange(100))
        self._deliver(bytes(datagram), self._attackers_address)

    def _number(self, *near: int) -> int:
        """Mostly a number near those that mean something now; sometimes an edge of the encoding."""
        rng = self.rng
        if rng.random() < 0.01:
            return rng.choice([0, 63, 64, 16383, 16384, 2**30 - 1, 2**30, 2**62 - 1])
        return min(
            2**62 - 1, max(0, rng.choice(near) + rng.choice([0] * 12 + [-1, 1, rng.randrange(-20, 20)]))
        )

    def _stream_id(self) -> int:
        attackers = 4 * self.rng.randrange(40) + (self.attacker is self.pair.listener)
        if self.rng.random() < 0.01:
            return self._number(attackers, 4 * 127)
        return self.rng.choice([attackers, *list(self.victim._streams)[-6:]])

    def _stream_frame(self) -> bytes:
        stream_id = self._stream_id()
        stream = self.victim._streams.get(stream_id)
        at, limit = (
            (stream.receiver.highest_offset, stream.max_stream_data_local)
            if stream
            else (0, config.STREAM_RECEIVE_WINDOW)
        )
        size = self.rng.choice([0, 1, 10, 500])
        offset = self._number(at, at, at, 0, max(0, limit - size - self.rng.randrange(10)))
        kind = 0x0E | (self.rng.random() < 0.1)
        return varints(kind, stream_id, offset, size) + os.urandom(size)

    def _ack_frame(self) -> bytes:
        sent = self.victim._packet_number - 1
        if self.rng.random() < 0.97:  # one that is right
            space = self.victim._spaces[tls.Epoch.ONE_RTT]
            numbers = [n for n, packet in space.sent_packets.items() if packet.in_flight]
            largest = self.rng.choice(numbers) if numbers else 0
            return varints(0x02, largest, self.rng.randrange(1000), 0, 0)
        ranges = self.rng.randrange(3)
        frame = varints(
            0x02 | (self.rng.random() < 0.1), self._number(sent), self.rng.randrange(1 << 20), ranges
        )
        return frame + varints(*[self._number(0, 1, 5) for _ in range(1 + 2 * ranges)])

    def _new_connection_id(self) -> bytes:
        known = [path.peer_cid.sequence_number for path in self.victim._network_paths if path.peer_cid]
        known += [cid.sequence_number for cid in self.victim._peer_cid_available]
        known.append(self.victim._peer_cid.sequence_number or 0)
        sequence = self._number(*known, max(known) + 1)
        retire = min(sequence, self._number(0, 0, 0, sequence, min(known), max(known)))
        size = self.rng.choice([8] * 40 + [0, 1, 20, 21])
        return varints(0x18, sequence, retire) + bytes([size]) + os.urandom(size + 16)

    def _close_frame(self) -> bytes:
        if self.rng.random() < 0.99:
            return b"\x01"
        reason = os.urandom(self.rng.randrange(50))
        return varints(0x1D, self._number(0, 0x100), len(reason)) + reason

    def _reset(self) -> tuple[int, int, int]:
        stream_id = self._stream_id()
        stream = self.victim._streams.get(stream_id)
        return stream_id, self._number(0), self._number(stream.receiver.highest_offset if stream else 0, 1000)

    def _path_response(self) -> bytes:
        challenges = [bytes(data) for path in self.victim._network_paths for data in path.local_challenges]
        return self.rng.choice(challenges) if challenges else os.urandom(8)


FRAMES: list[Callable[[Session], bytes]] = [
    Session._stream_frame,
    Session._stream_frame,
    Session._stream_frame,
    Session._ack_frame,
    Session._ack_frame,
    Session._new_connection_id,
    Session._new_connection_id,
    lambda it: varints(0x04, *it._reset()),
    lambda it: varints(0x05, it._stream_id(), it._number(0)),
    lambda it: varints(0x06, it._number(0, 1000), 20) + os.urandom(20),
    lambda it: varints(0x07, 20) + os.urandom(20) if it.rng.random() < 0.01 else b"\x00",
    lambda it: varints(0x10, it._number(2**20, 2**30)),
    lambda it: varints(0x11, it._stream_id(), it._number(2**20, 2**30)),
    lambda it: varints(0x12, it._number(128, 200)),
    lambda it: varints(0x14, it._number(2**20)),
    lambda it: varints(0x15, it._stream_id(), it._number(2**20)),
    lambda it: varints(0x16, it._number(128)),
    lambda it: varints(0x19, it._number(it.victim._host_cid_seq - 1, 0, 1)),
    lambda it: b"\x1a" + os.urandom(8),
    lambda it: b"\x1b" + it._path_response(),
    lambda it: b"\x1e" if it.rng.random() < 0.01 else b"\x01",
    lambda it: bytes(it.rng.randrange(1, 50)),
    lambda it: os.urandom(it.rng.randrange(1, 30)) if it.rng.random() < 0.01 else b"\x01",
    Session._close_frame,
]


def fuzz(seed: int, is_over: Callable[[Counter[str]], bool]) -> Counter[str]:
    """Run sessions until it is over; what happened, by name. Escapes are counted and shown, not raised."""
    rng = Random(seed)
    counts: Counter[str] = Counter()
    while not is_over(counts):
        try:
            Session(rng, counts).run()
        except Escape as escape:
            counts["escapes"] += 1
            counts[f"escape: {escape}"] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the QUIC engine.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    ends_at = time.monotonic() + options.seconds
    counts = fuzz(options.seed, lambda _: time.monotonic() >= ends_at)
    for name, count in sorted(counts.items()):
        print(f"{count:12,}  {name}")  # noqa: T201 - a command line tool
    raise SystemExit(1 if counts["escapes"] else 0)


if __name__ == "__main__":
    main()
