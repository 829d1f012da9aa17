"""Every way, in the order of the table."""

from __future__ import annotations

from typing import Final

from benchmarks.measuring import Way
from benchmarks.pair import PairWay
from benchmarks.ways.engine_bound import EngineBoundWay
from benchmarks.ways.get import GetWay
from benchmarks.ways.nginx_curl import NginxCurlWay

WAYS: Final[tuple[Way, ...]] = (
    PairWay("raw-1452", "p2pnode raw stream, 1452", "raw_stream", "1452", is_ours=True),
    PairWay("raw-mtu", "p2pnode raw stream, path MTU discovered", "raw_stream", "mtu", is_ours=True),
    GetWay(),
    EngineBoundWay(),
    PairWay("asyncio", "aioquic.asyncio serve and connect, 1452", "asyncio_pair"),
    PairWay("tight-loop", "aioquic's class in a tight loop, 1452", "tight_loop", "stock"),
    PairWay(
        "tight-loop-ours",
        "p2pnode's class in the tight loop, batch way off, 1452",
        "tight_loop",
        "ours",
        is_ours=True,
    ),
    PairWay(
        "tight-loop-batch", "p2pnode's class in the tight loop, 1452", "tight_loop", "batch", is_ours=True
    ),
    PairWay("qh3", "qh3 (core in Rust) in the tight loop, 1452", "tight_loop", "qh3", needs=("qh3",)),
    PairWay("libp2p", "py-libp2p over QUIC (trio, aioquic)", "libp2p_pair", needs=("libp2p",)),
    PairWay("libtorrent-tcp", "libtorrent over plain TCP", "libtorrent_pair", "tcp", needs=("libtorrent",)),
    PairWay("libtorrent-utp", "libtorrent over uTP", "libtorrent_pair", "utp", needs=("libtorrent",)),
    NginxCurlWay(),
)
