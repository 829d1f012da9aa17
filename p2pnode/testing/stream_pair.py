"""A stream between two processes of this machine, with nothing above QUIC: what the transport alone gives.

    python -m p2pnode.testing.stream_pair serve DATAGRAM_SIZE_MAX BYTES     prints its port, serves one stream
    python -m p2pnode.testing.stream_pair fetch DATAGRAM_SIZE_MAX PORT      prints bytes and seconds

`p2pnode bench` runs both: the bytes come from memory and go nowhere. `give` and `take` are for other ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from p2pnode import config
from p2pnode.quic import Credentials, Endpoint, EndpointOptions, NodeKey, NoTrust, open_udp_socket

ALPN: Final = "p2pnode-bench"
LOCALHOST: Final = "127.0.0.1"
CHUNK: Final = 256 * config.KIB


@asynccontextmanager
async def open_end(datagram_size: int, datagram_size_max: int, port: int = 0) -> AsyncIterator[Endpoint]:
    """An endpoint on this machine, whose datagrams begin with one size and grow to the other."""
    socket = await open_udp_socket((LOCALHOST, port))
    options = EndpointOptions(alpns=[ALPN], datagram_size=datagram_size, datagram_size_max=datagram_size_max)
    try:
        async with Endpoint(socket, Credentials.from_node_key(NodeKey.generate()), options) as endpoint:
            yield endpoint
    finally:
        socket.close()


async def give(endpoint: Endpoint, parts: Iterable[bytes]) -> None:
    """Give all parts to the first who asks, and wait until he has gone."""
    connection = await endpoint.accept()
    stream = await connection.accept_stream()
    for part in parts:
        await stream.send_all(part)
    await stream.send_eof()
    await connection.wait_closed()


async def take(
    endpoint: Endpoint, port: int, *, begin: Callable[[], None], on_data: Callable[[bytes], None]
) -> None:
    """Take all that the end at `port` gives; `begin` is called right before the request."""
    connection = await endpoint.dial((LOCALHOST, port), alpn=ALPN, server_name=LOCALHOST, trust=NoTrust())
    async with await connection.open_stream() as stream:
        begin()
        await stream.send_eof()
        while data := await stream.receive_some():
            on_data(data)


async def _serve(datagram_size_max: int, size: int) -> None:
    async with open_end(min(datagram_size_max, config.DATAGRAM_SIZE), datagram_size_max) as endpoint:
        _say(endpoint.local_address[1])
        await give(endpoint, _random_parts(size))


def _random_parts(size: int) -> Iterator[bytes]:
    chunk = os.urandom(CHUNK)
    for start in range(0, size, CHUNK):
        yield chunk[: size - start]


class _Meter:
    """Counts and times what comes, and drops it."""

    def __init__(self) -> None:
        self.received = 0

    def begin(self) -> None:
        self._began_at = time.perf_counter()

    def count(self, data: bytes) -> None:
        self.received += len(data)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began_at


async def _fetch(datagram_size_max: int, port: int) -> None:
    meter = _Meter()
    async with open_end(min(datagram_size_max, config.DATAGRAM_SIZE), datagram_size_max) as endpoint:
        await take(endpoint, port, begin=meter.begin, on_data=meter.count)
        _say(meter.received, meter.seconds)


def _say(*values: float) -> None:
    sys.stdout.write(" ".join(map(str, values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    role, first, second = sys.argv[1:]
    trio.run(_serve if role == "serve" else _fetch, int(first), int(second))
