"""Pushes: a server tells peers to fetch, and a peer does what its own server tells it.

What a peer fetches for a push lands only in its shared directory, under a safe name, up to a size that the
peer's owner sets; the fetch goes on when the server goes away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, Busy, NotFound, P2PNodeError
from p2pnode.node.dialer import LinkTable
from p2pnode.node.events import FetchCompleted, NodeEvent, PushReceived
from p2pnode.node.fetching import Fetcher
from p2pnode.node.message_stream import text_of
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.presence import Presence
from p2pnode.node.references import Wanted
from p2pnode.node.requests import ask
from p2pnode.torrent import printable
from p2pnode.wire.communication import (
    FileItem,
    FileList,
    FindSources,
    PushOrder,
    PushReport,
    PushRequest,
    PushStatus,
)

Told = TypeVar("Told")
Tell = Callable[[Told], Awaitable[None]]

FINAL_STATES = frozenset({"complete", "refused", "failed"})


class PushReceiver:
    """The peer's side: fetches what its server asks for, and reports."""

    def __init__(
        self,
        *,
        fetcher: Fetcher,
        files_dir: Path | None,
        size_max: int,
        nursery: trio.Nursery,
        publish: Callable[[NodeEvent], None],
    ) -> None:
        self._fetcher = fetcher
        self._files_dir = files_dir
        self._size_max = size_max
        self._nursery = nursery
        self._publish = publish
        self._under_way = 0

    async def accept(self, request: PushRequest, tell: Tell[PushStatus]) -> None:
        """Answer one `PushRequest` with its states until the final one."""
        self._publish(PushReceived(file_id=request.file_id, name=request.name, size=request.size))
        if self._files_dir is None:
            await tell(PushStatus("refused", text="this peer has no directory for files"))
            return
        if request.size > self._size_max:
            await tell(PushStatus("refused", text=f"larger than this peer takes ({self._size_max} bytes)"))
            return
        if self._under_way >= config.PUSHES_AT_ONCE:
            await tell(PushStatus("refused", text=f"{self._under_way} pushes at once are enough"))
            return
        outcome = _Outcome()
        self._under_way += 1
        self._nursery.start_soon(self._fetch, request, self._files_dir, outcome)
        await tell(PushStatus("accepted"))
        while not outcome.over.is_set():
            with trio.move_on_after(config.ACK_INTERVAL_S):
                await outcome.over.wait()
            downloader = self._fetcher.active(request.file_id)
            if downloader is not None:
                limit = downloader.bottleneck
                text = f"limited by {limit.phrase}" if limit is not None else ""
                await tell(PushStatus("fetching", bytes_done=downloader.bytes_done, text=text))
        await tell(outcome.status)

    async def _fetch(self, request: PushRequest, files_dir: Path, outcome: _Outcome) -> None:
        """Runs beside the request, so that it outlives a server that goes away."""
        wanted = Wanted(file_id=request.file_id, sources=request.sources, size_max=self._size_max)
        try:
            done = await self._fetcher.fetch(wanted, to=files_dir, wait=False)
            outcome.end(PushStatus("complete", bytes_done=done.size, seconds=done.seconds))
        except P2PNodeError as error:
            outcome.end(PushStatus("failed", text=text_of(error)))
        finally:
            self._under_way -= 1


class _Outcome:
    """How a pushed fetch ended."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.status = PushStatus("accepted")

    def end(self, status: PushStatus) -> None:
        self.status = status
        self.over.set()


class Pusher:
    """The server's side: finds what to push and to whom, and collects what each one did; asks peers for lists."""

    def __init__(
        self,
        *,
        own_id: bytes,
        own_name: str,
        presence: Presence,
        links: LinkTable,
        fetch_here: Callable[[bytes], Awaitable[FetchCompleted]],
    ) -> None:
        self._own_id = own_id
        self._own_name = own_name
        self._presence = presence
        self._links = links
        self._fetch_here = fetch_here

    async def carry_out(self, order: PushOrder, tell: Tell[PushReport]) -> None:
        """Push, and tell what each peer does, until all have ended. Raises `NotFound` before anything starts."""
        item = self._find_file(order.reference)
        lock = trio.Lock()

        async def report(node_id: bytes, name: str, status: PushStatus) -> None:
            async with lock:
                await tell(
                    PushReport(
                        node_id,
                        name,
                        item.file_id,
                        item.name,
                        item.size,
                        status.state,
                        status.bytes_done,
                        status.seconds,
                        status.text,
                    )
                )

        async with open_flat_nursery() as nursery:
            if order.target == "server":
                nursery.start_soon(self._fetch_ourselves, item, report)
                return
            for link in self._links.find_peers(order.target):
                nursery.start_soon(self._push_to, link, item, report)

    def _find_file(self, reference: str) -> FileItem:
        found = [
            item
            for item in self._presence.all_files()
            if item.name == reference
            or (len(reference) >= 8 and item.file_id.hex().startswith(reference.lower()))
        ]
        if not found:
            raise NotFound(f"nobody offers {printable(reference)!r}")
        if len(found) > 1:
            raise NotFound(
                f"{len(found)} files fit {printable(reference)!r}: "
                + ", ".join(item.file_id.hex() for item in found[:8])
            )
        return found[0]

    async def list_peer(self, asked: FileList) -> FileList:
        """A page of what one peer offers, as the peer itself says; `NotFound` or `Busy` when it gives none."""
        [link, *others] = self._links.find_peers(asked.peer)
        if others:
            raise NotFound(f"several peers are called {printable(asked.peer)!r}: name one by its node id")
        try:
            return await ask(link.request, FileList(asked.prefix, asked.after, asked.limit), FileList)
        except Busy as busy:
            raise Busy(_of_peer(link, busy), retry_after_s=busy.retry_after_s) from busy
        except REMOTE_FAULTS as error:  # the peer's, not the one's who asks
            raise NotFound(_of_peer(link, error)) from error

    async def _push_to(
        self, link: PeerLink, item: FileItem, report: Callable[[bytes, str, PushStatus], Awaitable[None]]
    ) -> None:
        name = link.peer.name
        try:
            stream = await link.request()
            try:
                asked = FindSources(item.file_id)
                sources = self._presence.answer_sources(
                    link.node_id, link.connection.remote_address, asked
                ).sources
                await stream.send(PushRequest(item.file_id, item.name, item.size, sources))
                await stream.send_eof()
                status = PushStatus("accepted")
                while status.state not in FINAL_STATES:
                    status = await stream.receive_as(PushStatus)
                    await report(link.node_id, name, status)
            finally:
                await stream.aclose()
        except REMOTE_FAULTS as error:
            await report(link.node_id, name, PushStatus("failed", text=text_of(error)))

    async def _fetch_ourselves(
        self, item: FileItem, report: Callable[[bytes, str, PushStatus], Awaitable[None]]
    ) -> None:
        try:
            done = await self._fetch_here(item.file_id)
            status = PushStatus("complete", bytes_done=done.size, seconds=done.seconds)
        except P2PNodeError as error:
            status = PushStatus("failed", text=text_of(error))
        await report(self._own_id, self._own_name, status)


def _of_peer(link: PeerLink, error: P2PNodeError) -> str:
    return f"peer {printable(link.peer.name)!r} ({link.node_id.hex()[:12]}) gives no list: {error}"
