"""Packets under the right keys that a decent engine would not send: each part of them can be chosen."""

from __future__ import annotations

from random import Random

from aioquic import tls
from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import next_key_phase

from p2pnode.quic.aioquic_internals import HardenedConnection
from tests.quic.engines import varints
from tests.quic.hostile_channel import pattern

RESERVED = 0x18
SPIN = 0x20
KEY_PHASE = 0x04
LENGTHS = {1: 0x00, 2: 0x40, 4: 0x80, 8: 0xC0}  # of a variable-length integer (RFC 9000 §16)


def wide(value: int, size: int) -> bytes:
    """A number in so many bytes, even where fewer would do; in 8 when it does not fit."""
    if value >= 1 << 8 * size - 2:
        size = 8
    encoded = bytearray(value.to_bytes(size, "big"))
    encoded[0] |= LENGTHS[size]
    return bytes(encoded)


def run_frame(stream_id: int, offset: int, data: bytes, *, id_size: int = 1, offset_size: int = 8) -> bytes:
    """STREAM with an offset, to the end of the packet: what packets of a run carry."""
    return b"\x0c" + wide(stream_id, id_size) + wide(offset, offset_size) + data


def sealed(
    attacker: QuicConnection,
    payload: bytes,
    number: int,
    *,
    flags: int = 0,
    connection_id: bytes | None = None,
    number_size: int = 2,
    next_keys: bool = False,
) -> bytes:
    """A 1-RTT packet. `flags` are flipped in its first byte; `next_keys`: of the key phase that comes next."""
    send = attacker._cryptos[tls.Epoch.ONE_RTT].send
    assert send.aead is not None
    assert send.hp is not None
    payload = payload.ljust(4 - number_size, b"\x00")  # or there is nothing to make a mask of
    aead, phase = send.aead, send.key_phase
    if next_keys:
        following = next_key_phase(send)
        assert following.aead is not None
        aead, phase = following.aead, following.key_phase
    first = (0x40 | phase << 2 | number_size - 1) ^ flags
    truncated = (number & (1 << 8 * number_size) - 1).to_bytes(number_size, "big")
    header = bytes([first]) + (connection_id or attacker._peer_cid.cid) + truncated
    return send.hp.apply(header, aead.encrypt(payload, header, number))


class Forger:
    """Chooses frames near what its victim has, and remembers what it sent."""

    def __init__(self, rng: Random, attacker: QuicConnection, victim: HardenedConnection) -> None:
        self.rng = rng
        self.attacker = attacker
        self.victim = victim
        self.number = attacker._packet_number
        self.issued = [it.cid for it in victim._host_cids]
        self.sent: list[bytes] = []
        self.offsets: dict[int, int] = {}  # where the bytes of each stream go on
        self.theirs = int(attacker._is_client)  # the victim's first stream
        self.ours = [stream_id + 1 - self.theirs for stream_id in (0, 4, 64)]

    def burst(self, size: int) -> list[bytes]:
        """Datagrams that arrive together: mostly packets of runs, some of which are wrong."""
        return [self._datagram() for _ in range(size)]

    def _datagram(self) -> bytes:
        rng = self.rng
        if self.sent and rng.random() < 0.06:
            return rng.choice(self.sent)
        datagram = self._packet()
        if rng.random() < 0.05:
            datagram = self._damaged(datagram)
        self.sent.append(datagram)
        return datagram

    def _packet(self) -> bytes:
        rng = self.rng
        payload = self._run() if rng.random() < 0.8 else rng.choice(self._others())
        if rng.random() < 0.1:
            self.number += rng.choice([1, 2, 5])
        number = self.number
        self.number += 1
        if rng.random() < 0.04:
            number = max(0, number - rng.choice([1, 2, 10]))
        if rng.random() < 0.9:
            return sealed(self.attacker, payload, number)
        return sealed(
            self.attacker,
            payload,
            number,
            flags=rng.choice([0, SPIN, SPIN, KEY_PHASE, 0x40, 0x80, RESERVED if rng.random() < 0.1 else 0]),
            connection_id=rng.choice([None, None, *self.issued, rng.randbytes(8)]),
            number_size=rng.choice([1, 2, 2, 3, 4]),
            next_keys=rng.random() < 0.02,
        )

    def _run(self) -> bytes:
        rng = self.rng
        stream_id = rng.choice([*self.ours[:1] * 3, *self.ours, self.theirs])
        at = self.offsets.get(stream_id, 0)
        size = rng.choice([1, 30, 30, 500])
        offset = at
        if rng.random() < 0.1:
            offset = rng.choice([0, max(0, at - 20), at + 700])
        elif rng.random() < 0.005:
            offset = rng.choice([1 << 20, 1 << 22, (1 << 62) - size - 1, (1 << 62) - 1])
        elif rng.random() < 0.02:
            size = 0
        if offset < 1 << 19:
            self.offsets[stream_id] = max(at, offset + size)
        if rng.random() < 0.005:
            stream_id = rng.choice([1, 2, 3, 5, 4000, 1 << 20, 1 << 40])
        id_size = rng.choice([1, 1, 1, 1, 2, 4, 8])
        offset_size = rng.choice([8] * 12 + [2, 4])
        data = pattern(stream_id, offset, size)
        return run_frame(stream_id, offset, data, id_size=id_size, offset_size=offset_size)

    def _others(self) -> list[bytes]:
        """A packet with other frames, before or after a frame of the same kind as in runs."""
        rng = self.rng
        stream_id = rng.choice([*self.ours, self.theirs])
        at = self.offsets.get(stream_id, 0)
        space = self.victim._spaces[tls.Epoch.ONE_RTT]
        largest = self.victim._packet_number - rng.choice([1, 1, 1, 5, 0 if rng.random() < 0.05 else 2])
        first = rng.randrange(max(1, min(largest, 20)))
        frames = [
            b"\x01",
            bytes(rng.randrange(1, 30)),
            varints(0x02, largest, 10, 0, first),
            varints(0x10, self.victim._remote_max_data + rng.randrange(1000)),
            varints(0x11, self.theirs, rng.randrange(1 << 22)),
            varints(0x0F if rng.random() < 0.2 else 0x0E, stream_id, at, 10) + pattern(stream_id, at, 10),
            varints(0x0D if rng.random() < 0.2 else 0x0C, stream_id, at) + pattern(stream_id, at, 10),
            b"\x1a" + rng.randbytes(8),
            varints(0x14, 1 << 20),
        ]
        if rng.random() < 0.1:
            frames = [
                varints(0x04, stream_id, 5, at),
                varints(0x04, stream_id, 5, max(0, at - 1)),
                varints(0x05, rng.choice([*self.ours, self.theirs]), 6),
                varints(0x19, rng.randrange(8)),
                varints(0x1D, 9, 0),
                varints(0x0C) + wide(stream_id, 8)[: rng.randrange(8)],
                run_frame(stream_id, at, b"")[: rng.randrange(1, 10)],
                encode_uint_var(0x21),
                b"\x40\x0c\x00" + wide(at, 8) + b"x",
                varints(0x02, len(space.sent_packets), 0, 30, 0),
            ]
        frame = rng.choice(frames)
        if rng.random() < 0.3:
            frame += self._run()
        return [frame]

    def _damaged(self, datagram: bytes) -> bytes:
        rng = self.rng
        damage = rng.randrange(4)
        if damage == 0:
            return datagram[: rng.randrange(len(datagram))]
        if damage == 1:
            return datagram + rng.randbytes(rng.randrange(1, 20))
        if damage == 2:
            return b""
        flipped = bytearray(datagram)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
