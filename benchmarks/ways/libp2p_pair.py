"""py-libp2p over QUIC: the same trio and the same aioquic as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from libp2p import new_host
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.stream.net_stream import INetStream
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.transport.quic.config import QUICTransportConfig
from multiaddr import Multiaddr

from benchmarks.pair import Offer, Order, run_pair, tell_ready
from benchmarks.receipt import CHUNK_SIZE, Receipt

PROTOCOL = TProtocol("/benchmark/1.0.0")
WINDOW = 16 * 1024 * 1024


def a_host(port: int) -> tuple[Any, Multiaddr]:
    address = Multiaddr(f"/ip4/127.0.0.1/udp/{port}/quic-v1")
    settings = QUICTransportConfig(max_datagram_size=1452, connection_window=WINDOW, stream_window=WINDOW)
    return new_host(listen_addrs=[address], enable_quic=True, quic_transport_opt=settings), address


def identity_file(root: Path) -> Path:
    return root / "libp2p.identity"


async def serve(offer: Offer) -> None:
    host, address = a_host(offer.port)

    async def answer(stream: INetStream) -> None:
        await stream.read(1)
        with offer.source.open("rb", buffering=0) as file:
            while data := file.read(CHUNK_SIZE):
                await stream.write(data)
        await stream.close()

    host.set_stream_handler(PROTOCOL, answer)
    async with host.run(listen_addrs=[address]):
        identity_file(offer.certificate.parent).write_text(f"{address}/p2p/{host.get_id()}")
        tell_ready()
        await trio.sleep_forever()


async def fetch(order: Order) -> None:
    host, address = a_host(0)
    async with host.run(listen_addrs=[address]):
        peer = info_from_p2p_addr(Multiaddr(identity_file(order.target.parent).read_text()))
        await host.connect(peer)
        stream = await host.new_stream(peer.peer_id, [PROTOCOL])
        receipt = Receipt(order.target)
        receipt.begin()
        await stream.write(b"x")
        while data := await _read(stream):
            receipt.write(data)
        receipt.end()


async def _read(stream: INetStream) -> bytes:
    try:
        data: bytes = await stream.read(CHUNK_SIZE)
    except StreamEOF:
        return b""
    else:
        return data


if __name__ == "__main__":
    run_pair(lambda offer: trio.run(serve, offer), lambda order: trio.run(fetch, order))
