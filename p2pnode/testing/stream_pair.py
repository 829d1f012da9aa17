"""A stream between two processes of this machine, with nothing above QUIC: what the transport alone gives.

    python -m p2pnode.testing.stream_pair serve DATAGRAM_SIZE_MAX BYTES     prints its port, serves one stream
    python -m p2pnode.testing.stream_pair fetch DATAGRAM_SIZE_MAX PORT      prints bytes, seconds and CPU seconds

`p2pnode bench` runs both. The bytes come from memory and go nowhere.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from p2pnode import config
from p2pnode.quic import Credentials, Endpoint, EndpointOptions, NodeKey, NoTrust, open_udp_socket

ALPN: Final = "p2pnode-bench"
LOCALHOST: Final = "127.0.0.1"
CHUNK: Final = 256 * config.KIB


@asynccontextmanager
async def _endpoint(datagram_size_max: int) -> AsyncIterator[Endpoint]:
    socket = await open_udp_socket((LOCALHOST, 0))
    try:
        options = EndpointOptions(
            alpns=[ALPN],
            datagram_size=min(datagram_size_max, config.DATAGRAM_SIZE),
            datagram_size_max=datagram_size_max,
        )
        async with Endpoint(socket, Credentials.from_node_key(NodeKey.generate()), options) as endpoint:
            yield endpoint
    finally:
        socket.close()


async def serve(datagram_size_max: int, size: int) -> None:
    """Give `size` bytes to the first who asks."""
    async with _endpoint(datagram_size_max) as endpoint:
        _say(endpoint.local_address[1])
        connection = await endpoint.accept()
        stream = await connection.accept_stream()
        chunk = os.urandom(CHUNK)
        for start in range(0, size, CHUNK):
            await stream.send_all(chunk[: size - start])
        await stream.send_eof()
        await connection.wait_closed()


async def fetch(datagram_size_max: int, port: int) -> None:
    """Take all that comes, and say how long that took."""
    async with _endpoint(datagram_size_max) as endpoint:
        connection = await endpoint.dial((LOCALHOST, port), alpn=ALPN, server_name=LOCALHOST, trust=NoTrust())
        async with await connection.open_stream() as stream:
            began_at, cpu = time.perf_counter(), time.process_time()
            await stream.send_eof()
            received = 0
            while data := await stream.receive_some():
                received += len(data)
            _say(received, time.perf_counter() - began_at, time.process_time() - cpu)


def _say(*values: float) -> None:
    sys.stdout.write(" ".join(map(str, values)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    role, first, second = sys.argv[1:]
    trio.run(serve if role == "serve" else fetch, int(first), int(second))
