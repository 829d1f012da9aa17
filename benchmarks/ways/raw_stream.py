"""Our own stream, without node, hashes and journal: one `p2pnode.quic` endpoint in each process.

The variant is the size of all datagrams, or `mtu` for what the path is found to carry.
"""

from __future__ import annotations

from functools import partial

import trio

from benchmarks.pair import Offer, Order, run_pair, tell_ready
from benchmarks.receipt import CHUNK_SIZE, Receipt
from p2pnode import config
from p2pnode.testing.stream_pair import give, open_end, take

MTU = (config.DATAGRAM_SIZE, config.DATAGRAM_SIZE_MAX)  # bytes of datagrams: at first, and at most


def sizes(variant: str) -> tuple[int, int]:
    return MTU if variant == "mtu" else (int(variant), int(variant))


async def serve(offer: Offer) -> None:
    async with open_end(*sizes(offer.variant), offer.port) as endpoint:
        tell_ready()
        with offer.source.open("rb", buffering=0) as file:
            await give(endpoint, iter(partial(file.read, CHUNK_SIZE), b""))


async def fetch(order: Order) -> None:
    receipt = Receipt(order.target)
    async with open_end(*sizes(order.variant)) as endpoint:
        await take(endpoint, order.port, begin=receipt.begin, on_data=receipt.write)
        receipt.end()


if __name__ == "__main__":
    run_pair(lambda offer: trio.run(serve, offer), lambda order: trio.run(fetch, order))
