"""Whole nodes in an in-memory network. Tests name `autojump_clock` themselves: only then is it the clock."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from p2pnode.node.events import NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import Address, Diagnostics, PinTrust
from p2pnode.testing.network import LinkProfile, Network, NetworkSocket
from p2pnode.testing.nodes import PORT, simulated_node
from tests.support.batching import BATCHING

Seen = TypeVar("Seen", bound=NodeEvent)
SERVER = "10.0.0.1"


def write_random(path: Path, size: int) -> bytes:
    """Pseudo-random bytes under a name, long settled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = random.Random(f"{path.name} {size}").randbytes(size)
    path.write_bytes(data)
    past = time.time() - 60
    os.utime(path, (past, past))
    return data


@dataclass
class Watched:
    """A node and every event that it published."""

    node: Node
    files_dir: Path
    events: list[NodeEvent] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _over: trio.Event = field(default_factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until stopped, and collect what happens."""
        with self._scope:
            async with self.node, self.node.events() as channel:
                task_status.started()
                async for event in channel:
                    self.events.append(event)
                    self._news.set()
                    self._news = trio.Event()
        self._over.set()

    async def stop(self) -> None:
        """End the node in good order."""
        self._scope.cancel()
        await self._over.wait()

    def all(self, kind: type[Seen]) -> list[Seen]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[Seen], count: int = 1) -> Seen:
        """Wait for the `count`-th event of a kind."""
        while len(self.all(kind)) < count:
            await self._news.wait()
        return self.all(kind)[count - 1]


class RecordingNetwork(Network):
    """A network that remembers the socket that was bound to each address last."""

    def __init__(self, seed: int, profile: LinkProfile | None = None) -> None:
        super().__init__(seed, profile)
        self.bound: dict[Address, NetworkSocket] = {}

    def socket(self, address: Address) -> NetworkSocket:
        socket = self.bound[address] = super().socket(address)
        return socket


class Swarm:
    """Makes nodes; the server is at 10.0.0.1, peers at 10.0.1.1 and on."""

    def __init__(self, network: RecordingNetwork, root: Path, nursery: trio.Nursery) -> None:
        self.network = network
        self.root = root
        self._nursery = nursery
        self._peers = 0
        self.server: Watched | None = None

    async def start(self, host: str, **options: Any) -> Watched:
        """A node that runs until the end of the test, or of the returned node's own `stop`."""
        files_dir = options.pop("files_dir", self.root / host)
        files_dir.mkdir(parents=True, exist_ok=True)
        options = {"diagnostics": Diagnostics(batching=BATCHING.get())} | options
        node = simulated_node(self.network, host, files_dir=files_dir, **options)
        watched = Watched(node, files_dir)
        await self._nursery.start(watched.run)
        return watched

    async def start_server(self, **options: Any) -> Watched:
        """The server."""
        self.server = await self.start(SERVER, role="server", **options)
        return self.server

    def rebind(self, host: str, address: Address) -> None:
        """From now on others see the node that listens at `host` at another address."""
        self.network.rebind(self.network.bound[host, PORT], address)

    def reference(self) -> ServerReference:
        """How peers reach the server."""
        assert self.server is not None
        return ServerReference(f"{SERVER}:{PORT}", PinTrust(self.server.node.node_id.hex()))

    async def start_peer(self, **options: Any) -> Watched:
        """The next peer, registered with the server."""
        self._peers += 1
        if "server" not in options:
            options["server"] = self.reference()
        peer = await self.start(f"10.0.1.{self._peers}", **options)
        await peer.node.wait_for_server()
        return peer


@pytest.fixture
async def swarm(tmp_path: Path) -> AsyncIterator[Swarm]:
    async with RecordingNetwork(seed=7) as network, trio.open_nursery() as nursery:
        nursery.start_soon(end_a_test_that_hangs)
        yield Swarm(network, tmp_path, nursery)
        nursery.cancel_scope.cancel()


async def end_a_test_that_hangs() -> None:
    """In virtual time, so that a slow machine ends none."""
    await trio.sleep(5_000)
    pytest.fail("nothing happened any more")


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    """Wait in virtual time until a condition holds."""
    with trio.fail_after(within_s):
        while not await condition():  # noqa: ASYNC110 - there is nothing to wait for but time
            await trio.sleep(0.1)
