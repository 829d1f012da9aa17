"""The yardstick: `aioquic.asyncio` `serve` and `connect`, as its documentation shows them, at their best setting.

The variant is `-`, or other settings to try: `cc=cubic,size=1200,window=1048576`.
"""

from __future__ import annotations

import asyncio
import ssl

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from benchmarks.pair import Offer, Order, run_pair, tell_ready
from benchmarks.receipt import CHUNK_SIZE, Receipt

ALPN = "benchmark"
WINDOW = 16 * 1024 * 1024


def settings(variant: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in variant.split(",") if pair != "-")


def make_configuration(variant: str, *, is_client: bool) -> QuicConfiguration:
    chosen = settings(variant)
    window = int(chosen.get("window", WINDOW))
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        max_datagram_size=int(chosen.get("size", 1452)),
        congestion_control_algorithm=chosen.get("cc", "reno"),
        max_data=window,
        max_stream_data=window,
    )


async def serve_file(offer: Offer) -> None:
    configuration = make_configuration(offer.variant, is_client=False)
    configuration.load_cert_chain(offer.certificate, offer.key)
    tasks = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        with offer.source.open("rb", buffering=0) as file:
            while data := file.read(CHUNK_SIZE):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)
        writer.write_eof()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(answer(reader, writer)))

    await serve("127.0.0.1", offer.port, configuration=configuration, stream_handler=on_stream)
    tell_ready()
    await asyncio.Event().wait()


async def fetch_file(order: Order) -> None:
    configuration = make_configuration(order.variant, is_client=True)
    configuration.verify_mode = ssl.CERT_NONE
    receipt = Receipt(order.target)
    async with connect("127.0.0.1", order.port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        receipt.begin()
        writer.write(b"x")
        while data := await reader.read(CHUNK_SIZE):
            receipt.write(data)
        receipt.end()


if __name__ == "__main__":
    run_pair(lambda offer: asyncio.run(serve_file(offer)), lambda order: asyncio.run(fetch_file(order)))
