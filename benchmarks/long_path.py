"""Goodput over a long and lossy path, in the simulated network: whole connections, in virtual time.

    python -m benchmarks.long_path [--rtt-ms 100] [--loss 0.01] [--mbit 100] [--seconds 20] [--seed 1] [--json]

The share of the link that is file bytes, from the first packet of the handshake on and in the second half.
Losses are by chance, in both directions; the queue before the link holds a quarter of a megabyte.
"""

from __future__ import annotations

import argparse
import json

import trio
import trio.testing

from p2pnode import config
from p2pnode.quic import Credentials, Endpoint, NodeKey, NoTrust, Stream
from p2pnode.testing.network import LinkProfile, Network

SENDER, RECEIVER = ("10.0.0.1", 1000), ("10.0.0.2", 1000)


async def send_for_ever(stream: Stream) -> None:
    while True:
        await stream.send_all(bytes(256 * config.KIB))


async def measure(profile: LinkProfile, seconds: float, seed: int) -> tuple[int, int]:
    """Bytes that arrived in the first and in the second half."""
    async with (
        Network(seed=seed, profile=profile) as network,
        Endpoint(network.socket(SENDER), Credentials.from_node_key(NodeKey.generate())) as sender,
        Endpoint(network.socket(RECEIVER), Credentials.from_node_key(NodeKey.generate())) as receiver,
        trio.open_nursery() as nursery,
    ):
        began_at = trio.current_time()
        halves = [0, 0]
        connection = await sender.dial(RECEIVER, server_name=None, trust=NoTrust())
        accepted = await receiver.accept()
        nursery.start_soon(send_for_ever, await connection.open_stream())
        stream = await accepted.accept_stream()
        with trio.move_on_at(began_at + seconds):
            while data := await stream.receive_some():
                halves[trio.current_time() - began_at >= seconds / 2] += len(data)
        nursery.cancel_scope.cancel()
    return halves[0], halves[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rtt-ms", type=float, default=100)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--mbit", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rate = options.mbit * 1e6 / 8
    profile = LinkProfile(delay_s=options.rtt_ms / 2000, loss=options.loss, rate_bytes_per_s=rate)
    clock = trio.testing.MockClock(autojump_threshold=0)
    first, second = trio.run(measure, profile, options.seconds, options.seed, clock=clock)
    share, late_share = (first + second) / rate / options.seconds, second / rate / (options.seconds / 2)
    name = f"{options.mbit:g} Mbit/s, {options.rtt_ms:g} ms, {options.loss:.1%} lost"
    if options.json:
        print(json.dumps({"event": "measurement", "name": name, "share": share, "late_share": late_share}))
    else:
        print(
            f"{name}: {share:.2f} of the link from the first packet on, {late_share:.2f} in the second half"
        )


if __name__ == "__main__":
    main()
