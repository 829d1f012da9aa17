"""A fetch from reference to file: find out what it is, who has it, download, publish under its name.

It resumes by itself: the journal beside the target holds the metainfo and what is verified, so a fetch that was
interrupted needs neither the same server nor the same source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Protocol

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, AlreadyInProgress, InvalidData, NotFound, P2PNodeError, Refused
from p2pnode.node.bans import Bans
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.bottleneck import Bottleneck, added, largest
from p2pnode.node.downloader import Downloader, Surroundings
from p2pnode.node.events import FetchCompleted, FetchFailed, FetchStarted, NodeEvent
from p2pnode.node.hashing import with_progress
from p2pnode.node.loop_load import BusySeconds
from p2pnode.node.metainfo_search import MetainfoSearch
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.patience import Patience
from p2pnode.node.peer_exchange import PeerExchange
from p2pnode.node.rate_limits import Throttles
from p2pnode.node.references import Reference, Wanted, pick_by_name, wanted_from
from p2pnode.node.sharing import Shares
from p2pnode.node.sources import Acquaintance, BestLink
from p2pnode.node.swarm_news import SwarmNews
from p2pnode.node.transfer import fetch_metainfo, open_in_time
from p2pnode.storage import FileStore, OnProgress, peek_journal
from p2pnode.torrent import Bitfield, Metainfo, Selection, printable, safe_name
from p2pnode.wire.communication import FileItem, NodeItem

ListFiles = Callable[[str], Awaitable[list[FileItem]]]


class SwarmChanged(Protocol):
    """Lets others find out that we fetch a torrent, and what is here of it; None: it is over."""

    def __call__(self, metainfo: Metainfo, have: Bitfield | None, *, fetching: bool) -> None: ...  # noqa: D102


class _Joined:
    """A fetch under way that others, who want the same at the same place, wait for."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.completed: FetchCompleted | None = None
        self.failure: P2PNodeError | None = None

    async def outcome(self) -> FetchCompleted:
        await self.over.wait()
        if self.completed is not None:
            return self.completed
        raise AlreadyInProgress(f"another fetch of it ended early: {self.failure or 'it was cancelled'}")


class Fetcher:
    """Runs fetches. There may be several of one torrent, to several targets."""

    def __init__(
        self,
        *,
        node_id: bytes,
        shares: Shares,
        exchange: PeerExchange,
        list_files: ListFiles,
        best_link: BestLink,
        bans: Bans,
        blame: Callable[[bytes, str], None],
        news: SwarmNews,
        swarm_changed: SwarmChanged,
        run_blocking: RunBlocking,
        publish: Callable[[NodeEvent], None],
        rng: Random,
        throttles: Throttles,
        busy_s: BusySeconds,
    ) -> None:
        self._shares = shares
        self._exchange = exchange
        self._list_files = list_files
        self._best_link = best_link
        self._bans = bans
        self._news = news
        self._swarm_changed = swarm_changed
        self._run_blocking = run_blocking
        self._publish = publish
        self._surroundings = Surroundings(
            node_id, news, blame, self._wasted, run_blocking, publish, rng, throttles, busy_s
        )
        self._duplicate_bytes = 0  # file bytes that came for nothing, of all fetches
        self._limited_s: dict[Bottleneck, float] = {}  # of the fetches that are over
        self._active: list[Downloader] = []  # few
        self._under_way: dict[tuple[bytes, Path, Selection], _Joined] = {}

    @property
    def statistics(self) -> dict[str, int | float]:
        """What came for nothing, who was banned for it, and for how many seconds fetches were limited by what."""
        limited_s = added(self._limited_s, *(downloader.limited_s for downloader in self._active))
        return {
            "duplicate_bytes": self._duplicate_bytes,
            "nodes_banned": self._bans.count,
            **{f"fetch_limited_by_{word}_s": limited_s.get(word, 0.0) for word in Bottleneck},
        }

    @property
    def given(self) -> Mapping[bytes, int] | None:
        """The bytes that each node gave to the fetches under way; None when there are none."""
        active = self._active
        return sum((downloader.bytes_by_source for downloader in active), Counter()) if active else None

    def active(self, file_id: bytes) -> Downloader | None:
        """The fetch of a torrent that is under way; of several, the one that has most."""
        return max(self._active_of(file_id), key=lambda downloader: downloader.bytes_done, default=None)

    def _active_of(self, file_id: bytes) -> Iterator[Downloader]:
        return (downloader for downloader in self._active if downloader.following.file_id == file_id)

    def source_told(self, node_id: bytes, file_id: bytes, word: str) -> None:
        """A node says what limits what it sends us of a torrent."""
        for downloader in self._active_of(file_id):
            downloader.source_told(node_id, word)

    async def fetch(
        self, reference: Reference | Wanted, *, to: Path, wait: bool, select: Selection | None = None
    ) -> FetchCompleted:
        """Fetch what `reference` names into the directory `to`, or to the path `to` itself.

        Of a tree only what `select` says; `NotFound` when that is nothing.

        Raises what can go wrong, each with one line: `NotFound`, `NoSource`, `InvalidData`, `TargetExists`,
        `AlreadyInProgress`, `DiskFull`, `StorageError`, and `Refused` for more bytes than are wanted.
        """
        wanted = wanted_from(reference)
        if select is not None:
            wanted = replace(wanted, select=select)
        try:
            wanted = await self._resolve(wanted, Patience(wait))
            return await self._fetch(wanted, to, wait)
        except P2PNodeError as error:
            self._publish(
                FetchFailed(
                    file_id=wanted.file_id or b"",
                    name=wanted.name or "",
                    reason=str(error),
                    exit_code=error.exit_code,
                )
            )
            raise

    async def _resolve(self, wanted: Wanted, patience: Patience) -> Wanted:
        """Turn a name into a file id; with patience, wait until somebody offers it."""
        if wanted.file_id is not None or wanted.pieces_root is not None:
            return wanted
        assert wanted.name is not None
        while True:
            try:
                files = await self._list_files(wanted.name)
                if not patience.endless and not any(item.name == wanted.name for item in files):
                    files = await self._list_files("")  # for near names
                return replace(wanted, file_id=pick_by_name(wanted.name, files).file_id)
            except REMOTE_FAULTS:  # the server may be away, too
                if not patience.endless:
                    raise
                await trio.sleep(config.SOURCES_REFRESH_S)

    async def _fetch(self, wanted: Wanted, to: Path, wait: bool) -> FetchCompleted:
        metainfo = await self._metainfo(wanted, to, Patience(wait))
        if wanted.size_max is not None and metainfo.size > wanted.size_max:
            raise Refused(f"{metainfo.size} bytes are more than are taken here ({wanted.size_max})")
        target = target_path(to, wanted.name or metainfo.name)
        key = (metainfo.file_id, target, wanted.select)
        if (other := self._under_way.get(key)) is not None:
            return await other.outcome()  # a push of what is being mirrored, say
        joined = self._under_way[key] = _Joined()
        try:
            joined.completed = await self._fetch_to(target, metainfo, wanted, wait)
        except P2PNodeError as error:
            joined.failure = error
            raise
        finally:
            del self._under_way[key]
            joined.over.set()
        return joined.completed

    async def _fetch_to(self, target: Path, metainfo: Metainfo, wanted: Wanted, wait: bool) -> FetchCompleted:
        started = trio.current_time()
        files = _selected(metainfo, wanted.select)
        store = await self._open_store(metainfo, target, files)
        lent = self._shares.lend(metainfo, store, target)
        try:
            downloader = self._downloader(store, replace(wanted, file_id=metainfo.file_id), wait)
            with self._taking_part(metainfo, downloader):
                self._publish(
                    FetchStarted(
                        file_id=metainfo.file_id,
                        name=metainfo.name,
                        size=store.size,
                        target=target,
                        bytes_resumed=store.bytes_stored,
                    )
                )
                await self._download(metainfo, downloader)
                await self._run_blocking(store.publish)
                if store.wanted.is_complete:
                    await self._shares.adopt(metainfo, target)
        finally:
            self._shares.take_back(lent)  # last of all: the disk may fail
        completed = FetchCompleted(
            file_id=metainfo.file_id,
            name=metainfo.name,
            size=store.size,
            target=target,
            seconds=trio.current_time() - started,
            bytes_fetched=sum(downloader.bytes_by_source.values()),
            sources=dict(downloader.bytes_by_source),
            duplicate_bytes=downloader.duplicate_bytes,
            limit_waited_s=downloader.limit_waited_s,
            bottleneck=largest(downloader.limited_s),
        )
        self._publish(completed)
        return completed

    async def _open_store(self, metainfo: Metainfo, target: Path, files: frozenset[int] | None) -> FileStore:
        """Open the store in a thread. Cancelled meanwhile, it is closed again: it would lock its target for ever."""
        opened: list[FileStore] = []

        def open_it(on_progress: OnProgress) -> None:
            opened.append(FileStore.download(metainfo, target, files=files, on_progress=on_progress))

        try:
            await with_progress(target, open_it, run_blocking=self._run_blocking, publish=self._publish)
        except BaseException:
            for store in opened:
                store.close()
            raise
        return opened[0]

    @contextmanager
    def _taking_part(self, metainfo: Metainfo, downloader: Downloader) -> Iterator[None]:
        """While the body runs, a fetch tells and hears; the last one of its torrent withdraws what was offered."""
        self._active.append(downloader)
        self._news.follow(downloader.following)
        try:
            yield
        finally:
            self._active.remove(downloader)
            self._limited_s = added(self._limited_s, downloader.limited_s)
            self._news.unfollow(downloader.following)
            if self.active(metainfo.file_id) is None:
                self._swarm_changed(metainfo, None, fetching=False)

    async def _download(self, metainfo: Metainfo, downloader: Downloader) -> None:
        async with open_flat_nursery() as nursery:
            nursery.start_soon(self._announce, metainfo, downloader)
            await downloader.run()
            nursery.cancel_scope.cancel()
        self._swarm_changed(metainfo, downloader.have, fetching=True)  # who counts hears that it is complete

    async def _announce(self, metainfo: Metainfo, downloader: Downloader) -> None:
        """Let our server know from the first moment on, so that of any two who fetch it one finds the other."""
        told: Bitfield | None = None
        while True:
            most = self.active(metainfo.file_id) or downloader
            if (have := most.have) != told:
                self._swarm_changed(metainfo, have, fetching=True)
                told = have
            await trio.sleep(config.OFFER_RENEW_S)

    def _downloader(self, store: FileStore, wanted: Wanted, wait: bool) -> Downloader:
        def known_sources() -> list[NodeItem]:
            return self._exchange.known(wanted)

        async def find_sources() -> list[NodeItem]:
            return await self._exchange.find(wanted)

        acquaintance = Acquaintance(
            known_sources, find_sources, self._exchange.link_to, self._best_link, self._bans.is_banned
        )
        patience = Patience(wait)
        return Downloader(store, acquaintance, self._surroundings, patience, sequential=wanted.is_sequential)

    def _wasted(self, size: int) -> None:
        self._duplicate_bytes += size

    async def _metainfo(self, wanted: Wanted, to: Path, patience: Patience) -> Metainfo:
        """The metainfo: known already, in a journal here, of what we share, or from a source."""
        if wanted.metainfo is not None:
            return wanted.metainfo
        if wanted.file_id is not None and (shared := self._shares.by_id(wanted.file_id)) is not None:
            return shared.metainfo
        if wanted.name is not None:
            known = await self._run_blocking(peek_journal, target_path(to, wanted.name))
            if known is not None and _fits(known, wanted):
                return known
        return await self._metainfo_from_sources(wanted, patience)

    async def _metainfo_from_sources(self, wanted: Wanted, patience: Patience) -> Metainfo:
        async def find_sources() -> list[NodeItem]:
            sources = await self._exchange.find(wanted)
            self._exchange.meet(sources)
            return sources

        async def ask(source: NodeItem) -> Metainfo:
            return await self._metainfo_from(source, wanted)

        what = printable(wanted.name) if wanted.name else (wanted.file_id or b"").hex()
        return await MetainfoSearch(find_sources, ask, patience).run(what)

    async def _metainfo_from(self, source: NodeItem, wanted: Wanted) -> Metainfo:
        link = await self._exchange.link_to(source)
        stream = await open_in_time(link.request)
        try:
            metainfo = await fetch_metainfo(stream, source.file_id, self._run_blocking)
        finally:
            await stream.aclose()
        if not _fits(metainfo, wanted):
            raise InvalidData("the source sent the metainfo of another file")
        return metainfo


def _selected(metainfo: Metainfo, select: Selection) -> frozenset[int] | None:
    """The files that are wanted; None: all."""
    if not select:
        return None
    files = select.files_of(metainfo)
    if not files:
        raise NotFound(
            f"the patterns fit none of the {len(metainfo.files)} files of {printable(metainfo.name)!r}"
        )
    return files


def _fits(metainfo: Metainfo, wanted: Wanted) -> bool:
    if wanted.file_id is not None:
        return metainfo.file_id == wanted.file_id
    return not metainfo.is_directory and metainfo.files[0].pieces_root == wanted.pieces_root


def target_path(to: Path, name: str) -> Path:
    """Where a torrent of this name lands: in `to` when that is a directory, else at `to` itself."""
    return to / safe_name(name) if to.is_dir() else to
