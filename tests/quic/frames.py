"""Frames that are almost legal: they name streams, offsets, connection ids and packets near those in use."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

from aioquic import tls
from aioquic.quic.connection import QuicConnection

from p2pnode import config
from p2pnode.quic.aioquic_internals import HardenedConnection
from tests.quic.engines import varints

PAYLOAD_MAX = 1100


class AlmostLegal:
    """Makes what an attacker who has looked closely at its victim would send."""

    def __init__(self, rng: Random, victim: HardenedConnection, attacker: QuicConnection) -> None:
        self.rng = rng
        self.victim = victim
        self.attacker = attacker

    def payload(self) -> bytes:
        """One to eight frames."""
        payload = b""
        for _ in range(self.rng.choice([1, 1, 1, 2, 4, 8])):
            frame = self.rng.choice(FRAMES)(self)
            if len(payload) + len(frame) <= PAYLOAD_MAX:
                payload += frame
        return payload or b"\x01"

    def _number(self, *near: int) -> int:
        """Mostly a number near those that mean something now; sometimes an edge of the encoding."""
        rng = self.rng
        if rng.random() < 0.01:
            return rng.choice([0, 63, 64, 16383, 16384, 2**30 - 1, 2**30, 2**62 - 1])
        return min(
            2**62 - 1, max(0, rng.choice(near) + rng.choice([0] * 12 + [-1, 1, rng.randrange(-20, 20)]))
        )

    def _stream_id(self) -> int:
        attackers = 4 * self.rng.randrange(40) + (not self.attacker._is_client)
        if self.rng.random() < 0.1:
            attackers = attackers % 32 | 2  # a unidirectional one; mostly they may open a few of those
        if self.rng.random() < 0.01:
            return self._number(attackers, 4 * 127)
        victims = (
            {2 | self.victim._is_client ^ 1} if self.rng.random() < 0.97 else set()
        )  # it only sends on those
        return self.rng.choice(
            [attackers, *[it for it in self.victim._streams if it & 3 not in victims][-6:]]
        )

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

    def run(self) -> list[bytes]:
        """Packets of a run: bytes of one stream that follow each other, mostly from where it stands."""
        rng = self.rng
        open_ones = [
            stream_id
            for stream_id, stream in self.victim._streams.items()
            if not stream.receiver.is_finished and stream.receiver._final_size is None
        ]
        stream_id = rng.choice(open_ones) if open_ones and rng.random() < 0.97 else self._stream_id()
        stream = self.victim._streams.get(stream_id)
        at = stream.receiver.highest_offset if stream else 0
        offset, size = self._number(at, at, at, at, 0), rng.choice([0, 1, 100, 1000])
        payloads = []
        for _ in range(rng.randrange(1, 12)):
            offset = min(offset, 2**62 - 1)
            place = (offset | 3 << 62).to_bytes(8, "big")
            payloads.append(varints(0x0C | (rng.random() < 0.002), stream_id) + place + os.urandom(size))
            offset += size
            if rng.random() < 0.02:
                size = rng.randrange(1000)
        if rng.random() < 0.003:
            payloads[-1] = payloads[-1][: rng.randrange(1, 12)]
        return payloads

    def _ack_frame(self) -> bytes:
        sent = self.victim._packet_number - 1
        if self.rng.random() < 0.97:  # one that is right
            space = self.victim._spaces[tls.Epoch.ONE_RTT]
            numbers = [n for n, packet in space.sent_packets.items() if packet.in_flight]
            runs = self.victim._recovery._runs
            if runs and self.rng.random() < 0.7:
                run = self.rng.choice(runs)
                first = self.rng.randrange(run.start, run.stop)
                last = self.rng.randrange(first, run.stop)
                return varints(0x02, last, self.rng.randrange(1000), 0, last - first)
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


FRAMES: list[Callable[[AlmostLegal], bytes]] = [
    AlmostLegal._stream_frame,
    AlmostLegal._stream_frame,
    AlmostLegal._stream_frame,
    AlmostLegal._ack_frame,
    AlmostLegal._ack_frame,
    AlmostLegal._new_connection_id,
    AlmostLegal._new_connection_id,
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
    AlmostLegal._close_frame,
]
