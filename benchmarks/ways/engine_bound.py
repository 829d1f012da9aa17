"""What our connection class can do if all the rest costs nothing: two of them in one process, no socket, no disk.

    python -m benchmarks.ways.engine_bound SIZE CERTIFICATE KEY

The CPU time of each side is taken apart; the rate is that of the slower one, as two processes would work at
once. The memory is that of the one process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioquic.quic.events import HandshakeCompleted, QuicEvent, StreamDataReceived

from benchmarks import engines
from benchmarks.measuring import MB, Place, Sample
from benchmarks.programs import Program, module
from benchmarks.receipt import CHUNK_SIZE
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.datagrams import Address, Burst

DIALER: Final = ("127.0.0.1", 1)
LISTENER: Final = ("127.0.0.1", 2)
TURN_S: Final = 0.0001  # by which the clock moves in a turn: the round trip of a loopback
BACKLOG: Final = 2 * 1024 * 1024


@dataclass(frozen=True)
class EngineBoundWay:
    """A `Way`."""

    name: str = "engine"
    title: str = "p2pnode's class in memory, no socket, no disk, 1452"
    is_ours: bool = True

    def why_not(self) -> str | None:
        """It is always there."""
        return None

    def measure(self, place: Place) -> Sample:
        """One process for both sides."""
        command = module("engine_bound", place.size, place.certificate, place.key)
        with Program(command, time_limit_s=place.time_limit_s) as program:
            spent = json.loads(program.wait_for("cpu_s_sender"))
            rss_mb = program.rss_peak() / MB
        return Sample(
            mb_per_s=place.size / max(spent.values()) / MB,
            rss_mb_sender=rss_mb,
            rss_mb_receiver=rss_mb,
            **spent,
        )


class Side:
    """One connection, and the CPU time that it took."""

    def __init__(self, engine: engines.Engine) -> None:
        self.engine = engine
        self.connection: HardenedConnection = engine.connection
        self.cpu_s = 0.0
        self.arrived = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """What happens in the block is this side's work."""
        began_at = time.thread_time()
        yield
        self.cpu_s += time.thread_time() - began_at

    def take_in(self, bursts: list[Burst], sender: Address, now: float) -> list[QuicEvent]:
        """Everything that the other side sent."""
        with self.working():
            for datagrams, _ in bursts:
                self.connection.receive_burst(datagrams, sender, now)
            timer = self.connection.get_timer()
            if timer is not None and timer <= now:
                self.connection.handle_timer(now)
            happened = self.connection.take_events()
            for event in happened:
                if isinstance(event, StreamDataReceived):
                    self.arrived += len(event.data)
                    self.connection.consumed(event.stream_id, len(event.data), self.arrived)
        return happened

    def bursts(self, now: float) -> list[Burst]:
        """What it sends now."""
        with self.working():
            return self.connection.bursts_to_send(now)


def connect(certificate: Path, key: Path) -> tuple[Side, Side, float]:
    """A dialer and a listener whose handshake is complete, and the time on their clock."""
    now = time.monotonic()
    dialer = Side(engines.dialer("batch"))
    dialer.connection.connect(LISTENER, now)
    bursts = dialer.bursts(now)
    listener = Side(engines.listener("batch", certificate, key, bursts[0][0][0]))
    is_complete = False
    while not is_complete:
        now += TURN_S
        listener.take_in(bursts, DIALER, now)
        happened = dialer.take_in(listener.bursts(now), LISTENER, now)
        is_complete = any(isinstance(event, HandshakeCompleted) for event in happened)
        bursts = dialer.bursts(now)
    listener.take_in(bursts, DIALER, now)
    return dialer, listener, now


def transfer(size: int, certificate: Path, key: Path) -> tuple[Side, Side]:
    """The listener sends `size` bytes on a stream of its own."""
    receiver, sender, now = connect(certificate, key)
    receiver.cpu_s = sender.cpu_s = 0.0
    chunk = os.urandom(CHUNK_SIZE)
    unsent, stream_id = size, sender.connection.open_stream()
    while receiver.arrived < size:
        now += TURN_S
        with sender.working():
            while unsent and sender.engine.unsent(stream_id) < BACKLOG:
                data = chunk[:unsent]
                unsent -= len(data)
                sender.connection.send_stream_data(stream_id, data, end_stream=not unsent)
        receiver.take_in(sender.bursts(now), LISTENER, now)
        sender.take_in(receiver.bursts(now), DIALER, now)
    return sender, receiver


def main() -> None:
    size, certificate, key = sys.argv[1:]
    sender, receiver = transfer(int(size), Path(certificate), Path(key))
    print(json.dumps({"cpu_s_sender": sender.cpu_s, "cpu_s_receiver": receiver.cpu_s}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
