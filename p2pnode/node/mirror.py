"""A mirroring peer fetches whatever its server lists, and keeps up with it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, P2PNodeError
from p2pnode.node.events import FetchCompleted
from p2pnode.wire.communication import FileItem


class Mirroring(Protocol):
    """What mirroring needs of a node."""

    def offers(self, file_id: bytes) -> bool:
        """Whether the node shares it already."""

    async def list_files(self) -> list[FileItem]:
        """What the server lists."""

    async def fetch(self, reference: bytes, *, to: Path) -> FetchCompleted:
        """Fetch one of them."""


async def mirror_for_ever(node: Mirroring, files_dir: Path) -> None:
    """Ask for the list again and again; fetch what is new, a few at a time, and try what failed again later."""
    limiter = trio.CapacityLimiter(config.MIRROR_AT_ONCE)
    under_way: set[bytes] = set()

    async def fetch(item: FileItem) -> None:
        async with limiter:
            try:
                await node.fetch(item.file_id, to=files_dir)
            except P2PNodeError:
                await trio.sleep(config.RESCAN_INTERVAL_S)  # the node published why; it is listed again later
        under_way.discard(item.file_id)

    async with trio.open_nursery() as nursery:
        while True:
            try:
                files = await node.list_files()
            except REMOTE_FAULTS:
                files = []
            for item in files:
                if item.file_id not in under_way and not node.offers(item.file_id):
                    under_way.add(item.file_id)
                    nursery.start_soon(fetch, item)
            await trio.sleep(config.MIRROR_INTERVAL_S)
