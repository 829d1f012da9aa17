"""Our own stream, without node, hashes and journal: one `p2pnode.quic` endpoint in each process.

The variant is the size of all datagrams, or `mtu` for what the path is found to carry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from benchmarks.pair import Offer, Order, run_pair, tell_ready
from benchmarks.receipt import CHUNK_SIZE, Receipt
from p2pnode import config
from p2pnode.quic import Credentials, Endpoint, EndpointOptions, NodeKey, NoTrust, open_udp_socket

ALPN = "benchmark"
SIZES = {"mtu": (config.DATAGRAM_SIZE, config.DATAGRAM_SIZE_MAX)}  # of datagrams: at first, and at most


@asynccontextmanager
async def an_endpoint(variant: str, port: int, credentials: Credentials) -> AsyncIterator[Endpoint]:
    socket = await open_udp_socket(("127.0.0.1", port))
    first, most = SIZES.get(variant) or (int(variant), int(variant))
    options = EndpointOptions(alpns=[ALPN], datagram_size=first, datagram_size_max=most)
    async with Endpoint(socket, credentials, options) as endpoint:
        yield endpoint
    socket.close()


async def serve(offer: Offer) -> None:
    async with an_endpoint(
        offer.variant, offer.port, Credentials.load(offer.certificate, offer.key)
    ) as endpoint:
        tell_ready()
        connection = await endpoint.accept()
        stream = await connection.accept_stream()
        with offer.source.open("rb", buffering=0) as file:
            while data := file.read(CHUNK_SIZE):
                await stream.send_all(data)
        await stream.send_eof()
        await connection.wait_closed()


async def fetch(order: Order) -> None:
    receipt = Receipt(order.target)
    async with an_endpoint(order.variant, 0, Credentials.from_node_key(NodeKey.generate())) as endpoint:
        connection = await endpoint.dial(
            ("127.0.0.1", order.port), alpn=ALPN, server_name="127.0.0.1", trust=NoTrust()
        )
        async with await connection.open_stream() as stream:
            receipt.begin()
            await stream.send_all(b"x")
            await stream.send_eof()
            while data := await stream.receive_some():
                receipt.write(data)
        receipt.end()


if __name__ == "__main__":
    run_pair(lambda offer: trio.run(serve, offer), lambda order: trio.run(fetch, order))
