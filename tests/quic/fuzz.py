"""A fuzzer that knows the protocol: real handshakes, then frames that are almost legal, under the right keys.

Random bytes die in the first check. This one keeps a stock connection as accomplice: it completes handshakes
(or tampers with their TLS messages), then seals packets whose frames name streams, offsets, connection ids and
packet numbers near those in use. Nothing may escape from the engine, and what it holds for the remote stays
within its windows.

What is delivered comes in bursts, as from a socket: the packets of a run among it, and hostile ones between.

    python -m tests.quic.fuzz --seconds 60 --seed 1 [--packet-by-packet]
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
from tests.quic.engines import CLIENT, SERVER, Pair, datagrams_of, seal
from tests.quic.frames import AlmostLegal
from tests.support.batching import BATCHING

ADDRESSES_OF_OTHERS = [("198.51.100.1", port) for port in range(1, 12)]
STEPS_PER_SESSION = 400
BURST_MAX = 40  # datagrams; about as many as one read of a socket gives


class Session:
    """One connection from its handshake to its death, and everything that a fuzzer does to it."""

    def __init__(self, rng: Random, counts: Counter[str]) -> None:
        self.rng = rng
        self.counts = counts
        # Few sessions die of a unidirectional stream that the victim never allowed.
        allowed = {"unidirectional_streams": {config.ALPN: rng.choice([0, 8, 8, 8])}}
        self.pair = Pair(victim_is_client=rng.random() < 0.5, **allowed)
        self.victim, self.attacker = self.pair.victim, self.pair.attacker
        self.frames = AlmostLegal(rng, self.victim, self.attacker)
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
            *[self._hostile_burst] * 4,
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
        guard(self.victim.bursts_to_send, self.pair.now)
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

    def _deliver(self, datagrams: list[bytes], address: tuple[str, int]) -> None:
        self.counts["datagrams"] += len(datagrams)
        guard(self.victim.receive_burst, datagrams, address, self.pair.now)
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
            datagrams = [datagram for datagram, _ in datagrams_of(source, self.pair.now)]
            for at in range(0, len(datagrams), BURST_MAX):
                self._deliver(datagrams[at : at + BURST_MAX], self._attackers_address)

    def _victim_sends(self) -> None:
        bursts = guard(self.victim.bursts_to_send, self.pair.now)
        guard(self.victim.get_timer)
        for datagrams, address in bursts:
            for datagram in datagrams:
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
        elif victim.can_open_unidirectional_stream and rng.random() < 0.1:
            self.opened.append(victim.open_stream(unidirectional=True))
        elif self.opened:
            stream_id = rng.choice(self.opened)
            stream = victim._streams.get(stream_id)
            if (
                stream is not None
                and stream.sender._reset_error_code is None
                and stream.sender._buffer_fin is None
            ):
                size = rng.choice([5_000, 5_000, 60_000])
                victim.send_stream_data(stream_id, bytes(rng.randrange(size)), rng.random() < 0.1)

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
        address = self.rng.choice([self._attackers_address] * 8 + ADDRESSES_OF_OTHERS)
        self._deliver([seal(self.attacker, self.frames.payload())], address)

    def _hostile_burst(self) -> None:
        """Packets of a run on any stream, with what belongs to no run between them."""
        burst: list[bytes] = []
        while len(burst) < BURST_MAX and self.rng.random() < 0.9:
            roll = self.rng.random()
            if roll < 0.7:
                burst += [seal(self.attacker, payload) for payload in self.frames.run()]
            elif roll < 0.8:
                burst.append(seal(self.attacker, self.frames.payload()))
            elif roll < 0.9:
                burst.append(self._damaged(seal(self.attacker, self.frames.payload())))
            elif burst:
                burst.append(self.rng.choice(burst))
            if self.rng.random() < 0.05:
                self.attacker._packet_number += self.rng.randrange(1, 5)
        if self.rng.random() < 0.2:
            self.rng.shuffle(burst)
        if burst:
            self._deliver(burst, self._attackers_address)

    def _damaged_packet(self) -> None:
        self._deliver([self._damaged(seal(self.attacker, self.frames.payload()))], self._attackers_address)

    def _damaged(self, packet: bytes) -> bytes:
        datagram = bytearray(packet)
        damage = self.rng.randrange(3)
        if damage == 0:
            datagram[self.rng.randrange(len(datagram))] ^= 1 << self.rng.randrange(8)
        elif damage == 1:
            del datagram[self.rng.randrange(len(datagram)) :]
        else:
            datagram += os.urandom(self.rng.randrange(100))
        return bytes(datagram)


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
    parser.add_argument("--packet-by-packet", action="store_true", help="without the batch way")
    options = parser.parse_args()
    BATCHING.set(not options.packet_by_packet)
    logging.disable(logging.WARNING)
    ends_at = time.monotonic() + options.seconds
    counts = fuzz(options.seed, lambda _: time.monotonic() >= ends_at)
    for name, count in sorted(counts.items()):
        print(f"{count:12,}  {name}")  # noqa: T201 - a command line tool
    raise SystemExit(1 if counts["escapes"] else 0)


if __name__ == "__main__":
    main()
