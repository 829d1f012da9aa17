"""Whole nodes on the in-memory network, under a test clock.

::

    async with Network(seed=1) as network:
        async with simulated_node(network, "10.0.0.1", role="server") as server:
            trust = PinTrust(server.node_id.hex())
            reference = ServerReference("10.0.0.1:4433", trust)
            async with simulated_node(network, "10.0.0.2", server=reference, files_dir=directory) as peer:
                ...
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar, TypeVarTuple

import trio

from p2pnode import config
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.node import Node
from p2pnode.quic import Address, DatagramSocket
from p2pnode.testing.network import Network

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

PORT = 4433  # where a simulated node listens unless told otherwise


def inline_blocking(cost_s: float = 0.0) -> RunBlocking:
    """A `run_blocking` that works in the calling task and takes `cost_s` of virtual time for each call.

    A real thread would let hours of virtual time pass while it works.
    """

    async def run_blocking(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        await trio.sleep(cost_s)
        return function(*arguments)

    return run_blocking


def simulated_node(network: Network, host: str, *, port: int = PORT, seed: int = 0, **options: Any) -> Node:
    """A node at `host` of the network; `options` are those of `Node`."""

    async def open_socket(address: Address) -> DatagramSocket:
        return network.socket(address)

    # Files change in the time of the machine, and virtual time hardly lets any pass: call them settled.
    defaults: dict[str, Any] = {
        "run_blocking": inline_blocking(),
        "name": host,
        "wall_clock": lambda: time.time() + config.SETTLE_S,
        "loop_busy_s": lambda: 0.0,  # the loop works in no virtual time at all
    }
    return Node(listen=(host, port), open_socket=open_socket, rng=Random(seed), **(defaults | options))
