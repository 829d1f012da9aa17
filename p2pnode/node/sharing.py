"""What this node offers: files and trees by file id, and the watch over them.

Watched is each top-level entry of the shared directory, and whatever was shared by its path. Hashes come from the
catalogue where nothing changed, else from all cores. What is gone or changed is un-shared; what changed a moment
ago waits.

A fetch lends what it has so far: others can ask for it, and it is no item of the list before it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import NotFound, P2PNodeError, StorageError
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.events import FileShared, FileUnshared, NodeEvent, NodeWarning
from p2pnode.node.hashing import with_progress
from p2pnode.storage import Catalogue, FileStore, Item, PieceData, find_item, hash_item, list_items
from p2pnode.torrent import Metainfo, Selection, printable
from p2pnode.torrent.bitfield import Ranges

SKIPPED_SHOWN_MAX: Final = 3  # entries that a warning names: one line for a person


@dataclass(frozen=True)
class Shared:
    """One item that we offer, complete and verified; or a lent one, which grows."""

    metainfo: Metainfo
    path: Path
    store: FileStore

    @property
    def file_id(self) -> bytes:
        """Its id, 32 bytes."""
        return self.metainfo.file_id

    @property
    def name(self) -> str:
        """Its name: the base name of its path."""
        return self.metainfo.name

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self.metainfo.size

    def has(self, ranges: Ranges) -> bool:
        """Whether all of these pieces are here, verified and written."""
        bits = self.store.have().bits
        return all(bits >> first & (mask := (1 << count) - 1) == mask for first, count in ranges)

    def read_pieces(self, pieces: list[int]) -> list[tuple[int, PieceData]]:
        """Read and check several pieces in one go; runs in a thread."""
        return [(piece, self.store.read_piece(piece)) for piece in pieces]


class Shares:
    """The table of shared items. `changed(shared, offered)` is called for each that comes or goes."""

    def __init__(
        self,
        files_dir: Path | None,
        catalogue: Catalogue,
        run_blocking: RunBlocking,
        publish: Callable[[NodeEvent], None],
        changed: Callable[[Shared, bool], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self._files_dir = files_dir
        self._catalogue = catalogue
        self._run_blocking = run_blocking
        self._publish = publish
        self._changed = changed
        self._wall_clock = wall_clock
        self._by_id: dict[bytes, Shared] = {}
        self._by_path: dict[Path, tuple[Item, Shared]] = {}
        self._lent: list[Shared] = []  # one for each fetch under way: few
        self._asked_for: dict[Path, Selection] = {}  # shared by their paths, wherever they lie
        self._doubted: set[Path] = set()  # their bytes were found changed, whatever their status says
        self._failed: dict[Path, Item] = {}
        self._trouble = ""  # why the directory could not be read last time

    def __iter__(self) -> Iterator[Shared]:
        return iter(list(self._by_id.values()))

    def by_id(self, file_id: bytes) -> Shared | None:
        """The item with this id, if it is offered."""
        return self._by_id.get(file_id)

    def piece_count(self, file_id: bytes) -> int | None:
        """How many pieces the item with this id has, all of them here, if it is offered."""
        shared = self._by_id.get(file_id)
        return None if shared is None else shared.metainfo.piece_count

    def readable(self, file_id: bytes) -> Shared | None:
        """What requests for this torrent are answered from: the item that is offered, else the most that is lent."""
        if (shared := self._by_id.get(file_id)) is not None:
            return shared
        lent = [shared for shared in self._lent if shared.file_id == file_id]
        return max(lent, key=lambda shared: shared.store.bytes_stored, default=None)

    async def share(self, path: Path, select: Selection = Selection()) -> Shared:  # noqa: B008 (it is frozen)
        """Offer a file or tree, or what is selected of it: hash it unless the catalogue knows it.

        Raises `StorageError` and kin.
        """
        shared = await self._share_item(await self._run_blocking(find_item, path, select))
        self._asked_for[path] = select
        return shared

    def lend(self, metainfo: Metainfo, store: FileStore, path: Path) -> Shared:
        """Answer requests from what a fetch has in `store`, which is to become `path`, until `take_back`.

        It is not listed, and of no event. The store is closed by `take_back`, and by nobody else.
        """
        shared = Shared(metainfo, path, store)
        self._doubted.discard(path)  # the store has hashed what was there
        self._lent.append(shared)
        return shared

    def take_back(self, lent: Shared) -> None:
        """The fetch is over: close its store, unless `adopt` took it. Who reads from it finds nothing any more.

        A read under way ends as it would have. A second call does nothing.
        """
        if not any(shared is lent for shared in self._by_id.values()):
            self._stop_lending(lent)
            lent.store.close()

    def _stop_lending(self, lent: Shared) -> None:
        self._lent = [shared for shared in self._lent if shared is not lent]

    async def adopt(self, metainfo: Metainfo, path: Path) -> None:
        """Offer what a fetch just verified and put there, without hashing it again.

        If it was lent, it is offered from the same store: requests under way go on. What was withdrawn meanwhile
        is neither offered nor remembered.
        """
        item = await self._run_blocking(find_item, path)
        if path in self._doubted:
            return
        await self._remember(item, metainfo)
        if path.parent == self._files_dir and path not in self._doubted:
            here = (shared for shared in self._lent if shared.path == path)  # one: stores lock their targets
            self._offer(item, metainfo, next(here, None))

    def withdraw(self, shared: Shared, reason: str) -> None:
        """Stop offering an item whose bytes are no longer what they were; the next scan hashes it anew.

        A lent one is not given out any more, and not adopted. A second call does nothing.
        """
        if any(lent is shared for lent in self._lent):
            self._doubted.add(shared.path)
            self._stop_lending(shared)
            return
        self._doubted.update(path for path, (_, known) in self._by_path.items() if known is shared)
        self._drop(shared, reason)

    def _drop(self, shared: Shared, reason: str) -> None:
        """Stop offering an item."""
        for path, (_, known) in list(self._by_path.items()):
            if known is shared:
                del self._by_path[path]
        if self._by_id.get(shared.file_id) is shared:
            del self._by_id[shared.file_id]
            self._publish(
                FileUnshared(file_id=shared.file_id, name=shared.name, path=shared.path, reason=reason)
            )
            self._changed(shared, False)
        shared.store.close()

    async def watch(self) -> None:
        """Keep the table in step with what is watched, for ever."""
        while True:
            await self.rescan()
            await trio.sleep(config.RESCAN_INTERVAL_S)

    async def rescan(self) -> None:
        """Compare what is watched with the table once."""
        before = dict(self._by_path)  # what a fetch puts there while we look is not judged by what we saw
        items = {item.path: item for item in await self._look()}
        for path, entry in before.items():
            known, shared = entry
            if self._by_path.get(path) is entry and items.get(path) != known:
                self._drop(shared, "it changed" if path in items else "it is gone")
        for path, item in items.items():
            if (
                path not in self._by_path
                and not any(lent.path == path for lent in self._lent)  # `adopt` will know it without hashing
                and self._failed.get(path) != item
                and item.is_settled(self._wall_clock())
            ):
                await self._try_share(item)

    async def _look(self) -> list[Item]:
        """What is there now of all that is watched."""
        items = [] if self._files_dir is None else await self._list_items(self._files_dir)
        if self._asked_for:
            items += await self._run_blocking(_find_items, dict(self._asked_for))
        return items

    async def _list_items(self, files_dir: Path) -> list[Item]:
        """What lies in the directory; nothing, and one warning, while it cannot be read."""
        try:
            items = await self._run_blocking(list_items, files_dir)
        except StorageError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                self._publish(NodeWarning(text=self._trouble))
            return []
        self._trouble = ""
        return items

    async def _try_share(self, item: Item) -> None:
        """Share one item of the directory; one that cannot be read is named once and left out."""
        try:
            await self._share_item(item)
        except P2PNodeError as error:
            self._failed[item.path] = item
            self._publish(NodeWarning(text=f"{printable(item.path.name)} is not shared: {error}"))

    async def _share_item(self, item: Item) -> Shared:
        """Offer what was found, and say what of it had to be left out."""
        shared = self._offer(item, await self._metainfo_of(item))
        if item.skipped:
            shown = "; ".join(item.skipped[:SKIPPED_SHOWN_MAX])
            more = "; …" if len(item.skipped) > SKIPPED_SHOWN_MAX else ""
            self._publish(NodeWarning(text=f"{len(item.skipped)} left out of {item.path}: {shown}{more}"))
        return shared

    async def _metainfo_of(self, item: Item) -> Metainfo:
        """From the catalogue, else by hashing it."""
        raw = None
        if item.path not in self._doubted:
            raw = await self._run_blocking(self._catalogue.lookup, item.path, item.fingerprint)
        if raw is not None:
            # 100,000 files take seconds to decode: not in the event loop.
            return await self._run_blocking(Metainfo.decode_canonical, raw)
        metainfo = await with_progress(
            item.path, partial(hash_item, item), run_blocking=self._run_blocking, publish=self._publish
        )
        await self._remember(item, metainfo)
        self._doubted.discard(item.path)
        return metainfo

    async def _remember(self, item: Item, metainfo: Metainfo) -> None:
        await self._run_blocking(self._catalogue.remember, item.path, item.fingerprint, metainfo.encode())

    def _offer(self, item: Item, metainfo: Metainfo, lent: Shared | None = None) -> Shared:
        known = self._by_id.get(metainfo.file_id)
        if known is not None:
            self._by_path[item.path] = (item, known)
            return known
        if lent is not None:
            self._stop_lending(lent)
        shared = lent or Shared(metainfo, item.path, FileStore.share(metainfo, item.path))
        self._by_id[shared.file_id] = shared
        self._by_path[item.path] = (item, shared)
        self._publish(
            FileShared(file_id=shared.file_id, name=shared.name, size=shared.size, path=shared.path)
        )
        self._changed(shared, True)
        return shared

    def close(self) -> None:
        """Close every open file, but for those of fetches, which come to `take_back`."""
        for shared in self._by_id.values():
            shared.store.close()
        self._catalogue.close()


def _find_items(paths: Mapping[Path, Selection]) -> list[Item]:
    """What is there of these; runs in a thread."""
    items = []
    for path, select in paths.items():
        with suppress(NotFound, StorageError):
            items.append(find_item(path, select))
    return items
