"""A mirroring peer fetches whatever its server lists, and keeps up with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, NetworkError, P2PNodeError, TargetExists
from p2pnode.node.events import FetchCompleted, NodeEvent, NodeWarning
from p2pnode.node.fetching import target_path
from p2pnode.wire.communication import FileItem


class Mirroring(Protocol):
    """What mirroring needs of a node."""

    def offers(self, file_id: bytes) -> bool:
        """Whether the node shares it already."""

    async def list_files(self) -> list[FileItem]:
        """What the server lists."""

    async def fetch(self, reference: bytes, *, to: Path) -> FetchCompleted:
        """Fetch one of them."""


@dataclass
class _Failures:
    """How often a file could not be fetched, when it is tried again, and what stood in its place."""

    count: int = 0
    again_at: float = 0.0
    obstacle: tuple[int, int, int] | None = None


class _Mirror:
    def __init__(self, node: Mirroring, files_dir: Path, publish: Callable[[NodeEvent], None]) -> None:
        self._node = node
        self._files_dir = files_dir
        self._publish = publish
        self._slots = trio.Semaphore(config.MIRROR_AT_ONCE)
        self._under_way: set[bytes] = set()
        self._failures: dict[bytes, _Failures] = {}
        self._warned_of = ""

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                files = await self._list()
                listed_at = trio.current_time()
                for item in self._due(files):
                    await self._slots.acquire()
                    self._under_way.add(item.file_id)
                    nursery.start_soon(self._fetch, item)
                    if trio.current_time() > listed_at + config.RESCAN_INTERVAL_S:
                        break  # the list is old by now
                else:
                    await trio.sleep(config.MIRROR_INTERVAL_S)

    async def _list(self) -> list[FileItem]:
        """What the server lists; nothing while it is away, which the node itself tells of."""
        try:
            files = await self._node.list_files()
        except REMOTE_FAULTS as error:
            if not isinstance(error, NetworkError) and str(error) != self._warned_of:
                self._warned_of = str(error)
                self._publish(NodeWarning(text=f"the server gives no list to mirror: {error}"))
            return []
        self._warned_of = ""
        listed = {item.file_id for item in files}
        self._failures = {id: failures for id, failures in self._failures.items() if id in listed}
        return files

    def _due(self, files: list[FileItem]) -> list[FileItem]:
        """What is to be fetched now, what failed least often first."""
        due = [
            item
            for item in files
            if item.file_id not in self._under_way
            and not self._node.offers(item.file_id)
            and self._is_due(item)
        ]
        return sorted(due, key=lambda item: self._failures.get(item.file_id, _Failures()).count)

    def _is_due(self, item: FileItem) -> bool:
        failures = self._failures.get(item.file_id)
        if failures is None or failures.again_at <= trio.current_time():
            return True
        return failures.obstacle is not None and failures.obstacle != self._obstacle_of(item)

    def _obstacle_of(self, item: FileItem) -> tuple[int, int, int] | None:
        """What has the name of a file that is to be fetched: a change of this tells that it may be out of the way."""
        try:
            status = target_path(self._files_dir, item.name).lstat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    async def _fetch(self, item: FileItem) -> None:
        try:
            await self._node.fetch(item.file_id, to=self._files_dir)
            self._failures.pop(item.file_id, None)
        except P2PNodeError as error:  # the node published why
            self._failed(item, error)
        finally:
            self._under_way.remove(item.file_id)
            self._slots.release()

    def _failed(self, item: FileItem, error: P2PNodeError) -> None:
        """Try it later; what stands in its place is hashed at each try, so wait long unless that changes."""
        failures = self._failures.setdefault(item.file_id, _Failures())
        pause_s = min(config.RESCAN_INTERVAL_S * 2**failures.count, config.MIRROR_RETRY_MAX_S)
        failures.count = min(failures.count + 1, 10)
        failures.obstacle = None
        if isinstance(error, TargetExists):
            pause_s, failures.obstacle = config.MIRROR_OBSTACLE_RETRY_S, self._obstacle_of(item)
        failures.again_at = trio.current_time() + pause_s


async def mirror_for_ever(node: Mirroring, files_dir: Path, publish: Callable[[NodeEvent], None]) -> None:
    """Ask for the list again and again; fetch what is new, a few at a time, and what failed later and later."""
    await _Mirror(node, files_dir, publish).run()
