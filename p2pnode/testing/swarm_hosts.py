"""Who takes part in a simulated swarm: the coordinator, sources (honest or not), leechers. Each runs a real node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from pathlib import Path
from typing import Any, Final

import trio

from p2pnode.errors import P2PNodeError
from p2pnode.node.events import FetchCompleted, FetchProgress, NodeBanned, NodeEvent
from p2pnode.node.node import Node
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import PinTrust
from p2pnode.testing.disks import Disk
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import PORT, simulated_node
from p2pnode.torrent import Bitfield, Metainfo, Ticket

FILE_NAME: Final = "data.bin"

Wanted = bytes | Ticket
"""What a leecher is told to fetch: a file id, or a ticket when nobody else could say who has it."""


class Host(ABC):
    """A place in the network, and the node that lives there.

    `server` is what the node registers with. `node_ids` are all that it ever had, `banned` all that it banned.
    """

    def __init__(
        self, network: Network, name: str, zone: str, address: str, seed: int, *, disk: Disk, **options: Any
    ) -> None:
        self.name = name
        self.zone = zone
        self.address = address
        self.disk = disk
        self.server: ServerReference | None = None
        self.node: Node | None = None
        self.node_ids: set[bytes] = set()
        self.banned: set[bytes] = set()
        self._network = network
        self._options = {
            "name": name,
            "zone": zone,
            "seed": seed,
            "run_blocking": disk.run_blocking,
        } | options
        self._living = trio.Lock()
        self._scope = trio.CancelScope()

    async def live(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until stopped; started once the node is registered. A second life begins when the first is over."""
        async with self._living:
            options: dict[str, Any] = self._options | {"server": self.server}
            node = simulated_node(self._network, self.address, **options)
            with trio.CancelScope() as self._scope:
                async with node, node.events() as events, trio.open_nursery() as nursery:
                    self.node = node
                    self.node_ids.add(node.node_id)
                    nursery.start_soon(self._listen, events)
                    await self._work(node, task_status)
                    await trio.sleep_forever()

    async def _listen(self, events: trio.MemoryReceiveChannel[NodeEvent]) -> None:
        async for event in events:
            self._note(event)

    def _note(self, event: NodeEvent) -> None:
        """Remember what is asked for later."""
        if isinstance(event, NodeBanned):
            self.banned.add(event.node_id)

    @abstractmethod
    async def _work(self, node: Node, task_status: trio.TaskStatus[None]) -> None:
        """Do what this one is here for."""

    def stop(self) -> None:
        """End the node."""
        self.node = None
        self._scope.cancel()


class Coordinator(Host):
    """A server without files."""

    @property
    def reference(self) -> ServerReference:
        """How others find it, while it lives."""
        assert self.node is not None, "it lives"
        return ServerReference(f"{self.address}:{PORT}", PinTrust(self.node.node_id.hex()))

    async def lists(self, *, sources: int) -> bool:
        """Whether it knows of a file with so many sources."""
        assert self.node is not None, "it lives"
        return any(item.sources == sources for item in await self.node.list_files())

    async def _work(self, node: Node, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()


class Source(Host):
    """Whoever offers the file from the start; what it gives depends on its disk. `metainfo` once it has started."""

    metainfo: Metainfo

    def __init__(self, *place: Any, file: Path, disk: Disk) -> None:
        super().__init__(*place, disk=disk)
        self._file = file

    async def _work(self, node: Node, task_status: trio.TaskStatus[None]) -> None:
        self.metainfo = (await node.share(self._file)).metainfo
        await node.wait_for_server()
        task_status.started()


class Leecher(Host):
    """Fetches the file into a directory of its own once it is told, and gives what it has.

    One that was stopped may `live` again, with the same directory and key. `over_at` is when it had the file, or
    gave up; then `failure` says why.
    """

    def __init__(self, *place: Any, directory: Path, disk: Disk) -> None:
        files_dir = directory / "files"
        files_dir.mkdir(parents=True)
        super().__init__(*place, disk=disk, files_dir=files_dir, state_dir=directory / "state")
        self.path = files_dir / FILE_NAME
        self.completed: FetchCompleted | None = None
        self.failure = ""
        self.over_at = inf
        self._duplicate_bytes: list[int] = []  # of each life
        self._wanted: Wanted = b""
        self._told = trio.Event()

    @property
    def is_told(self) -> bool:
        """Whether it knows what to fetch."""
        return self._told.is_set()

    def tell(self, wanted: Wanted) -> None:
        """Have it fetch this, now or as soon as it lives."""
        self._wanted = wanted
        self._told.set()

    def give_up(self, reason: str) -> None:
        """Call it a failure now."""
        self.failure = reason
        self.over_at = trio.current_time()

    def pieces(self, file_id: bytes) -> Bitfield | None:
        """What it has now, if it has begun and lives."""
        return None if self.node is None else self.node.pieces(file_id)

    @property
    def duplicate_bytes(self) -> int:
        """Bytes of the file that came for nothing, in all its lives."""
        return sum(self._duplicate_bytes)

    async def _work(self, node: Node, task_status: trio.TaskStatus[None]) -> None:
        self._duplicate_bytes.append(0)
        if not self.is_told:
            await node.wait_for_server()
        task_status.started()
        await self._told.wait()
        try:
            self.completed = await node.fetch(self._wanted, to=self.path.parent)
            self.over_at = trio.current_time()
        except P2PNodeError as error:
            self.give_up(str(error))

    def _note(self, event: NodeEvent) -> None:
        super()._note(event)
        if isinstance(event, FetchProgress | FetchCompleted):
            self._duplicate_bytes[-1] = event.duplicate_bytes
