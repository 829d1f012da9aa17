"""How fast one core of this machine does what a transfer is made of. All rates are bytes a second.

`p2pnode bench` shows them beside what p2pnode itself reaches, so that it is plain what could be the limit.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Final

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2pnode import config
from p2pnode.quic import open_udp_socket

MEASURED_S: Final = 0.3  # for each rate: long enough for a timer, short enough for a person
PACKET: Final = 1400  # what AES-GCM is given at a time where datagrams are of the usual size
DATAGRAMS: Final = 40  # sent at a time; they fit into any socket buffer


def _rate(size: int, work: Callable[[], object]) -> float:
    """`work` does `size` bytes; over and over."""
    done, began_at = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began_at) < MEASURED_S:
        work()
        done += size
    return done / elapsed


def encryption() -> float:
    """AES-128-GCM by packets, as QUIC does it."""
    cipher, nonce, packet = AESGCM(os.urandom(16)), os.urandom(12), os.urandom(PACKET)
    return _rate(PACKET, lambda: cipher.encrypt(nonce, packet, b""))


def hashing() -> float:
    """SHA-256 by blocks, as each one is verified."""
    block = os.urandom(config.BLOCK_SIZE)
    return _rate(config.BLOCK_SIZE, lambda: hashlib.sha256(block).digest())


async def datagrams() -> float:
    """UDP on loopback, sent and received by one core in batches of 1,452 bytes each."""
    sender, receiver = await open_udp_socket(("127.0.0.1", 0)), await open_udp_socket(("127.0.0.1", 0))
    try:
        burst = [([os.urandom(1452)] * DATAGRAMS, receiver.local_address)]
        received, began_at = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began_at) < MEASURED_S:
            await sender.send_batch(burst)
            with trio.move_on_after(MEASURED_S):
                received += sum(len(data) for got, _ in await receiver.receive_batch() for data in got)
        return received / elapsed
    finally:
        sender.close()
        receiver.close()


def disk(directory: Path, size: int) -> float:
    """Writing a file of `size` bytes in `directory`, until it is safe from a power cut. OSError."""
    warm_page_cache(directory, size)
    with _scratch_file(directory) as file:
        began_at = time.perf_counter()
        fill(file, size)
        os.fsync(file.fileno())
        return size / (time.perf_counter() - began_at)


def warm_page_cache(directory: Path, size: int) -> None:
    """Have the memory touched that a file of `size` bytes will need, so that what is measured next is not slowed.

    A virtual machine may get it from its host only when it is written to, at ten times the cost of the write.
    """
    with _scratch_file(directory) as file:
        fill(file, size)


def fill(file: IO[bytes], size: int) -> None:
    """Write `size` bytes that no disk can compress."""
    chunk = os.urandom(config.MIB)
    for start in range(0, size, len(chunk)):
        file.write(chunk[: size - start])


def _scratch_file(directory: Path) -> AbstractContextManager[IO[bytes]]:
    return tempfile.NamedTemporaryFile(dir=directory, prefix=".p2pnode-bench-", buffering=0)
