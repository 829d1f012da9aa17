"""One download: the task that drives `swarm.Download` and carries out what it decides.

The loop is the house's: wait for an event or the deadline → feed → drain → carry out. Bytes never pass through
the machine; they go from stream to store, and it hears of stored blocks. Each `RequestPieces` runs as one task
over one stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import assert_never

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, Busy, NotFound, Refused, RemoteProtocolError, StreamReset
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.events import FetchProgress, FetchSourceLost, NodeEvent
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.transfer import PieceMismatch, Transfer, requests_for
from p2pnode.storage import FileStore
from p2pnode.swarm import (
    BlockStored,
    CancelRequest,
    Command,
    DeadlinePassed,
    Download,
    DropPeer,
    Event,
    Finish,
    PeerJoined,
    PeerLeft,
    PieceCorrupt,
    PieceVerified,
    RequestFailed,
    RequestFinished,
    RequestPieces,
)
from p2pnode.torrent import Bitfield, printable
from p2pnode.wire.communication import NodeItem

FindSources = Callable[[], Awaitable[list[NodeItem]]]
LinkTo = Callable[[NodeItem], Awaitable[PeerLink]]


class Downloader:
    """Fetches what a store lacks from whoever has it; `run` returns when every piece is verified and written."""

    def __init__(
        self,
        store: FileStore,
        *,
        find_sources: FindSources,
        link_to: LinkTo,
        run_blocking: RunBlocking,
        publish: Callable[[NodeEvent], None],
        rng: Random,
        patience: Patience,
    ) -> None:
        self._store = store
        self._metainfo = store.metainfo
        self._file_id = self._metainfo.file_id
        self._find_sources = find_sources
        self._link_to = link_to
        self._run_blocking = run_blocking
        self._publish = publish
        self._patience = patience
        sizes = [self._metainfo.piece(piece).length for piece in range(self._metainfo.piece_count)]
        self._machine = Download(sizes, have=store.have(), rng=rng)
        self._send_event, self._events = trio.open_memory_channel[Event](config.DOWNLOAD_EVENTS_MAX)
        self._joining: set[bytes] = set()
        self._links: dict[bytes, PeerLink] = {}
        self._requests: dict[int, trio.CancelScope] = {}
        self.bytes_done = 0
        self.bytes_by_source: Counter[bytes] = Counter()

    async def run(self) -> None:
        """Drive the machine until it says `Finish`. Raises `NoSource` and what the store raises."""
        self.bytes_done = self._store.bytes_stored
        async with open_flat_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._look_for_sources)
            nursery.start_soon(self._checkpoint)
            nursery.start_soon(self._report)
            while not self._carry_out(self._machine.commands()):
                event = await self._next_event()
                self._machine.receive(event, trio.current_time())
            nursery.cancel_scope.cancel()

    async def _next_event(self) -> Event:
        deadline = self._machine.next_deadline()
        with trio.move_on_at(float("inf") if deadline is None else deadline):
            return await self._events.receive()
        return DeadlinePassed()

    def _carry_out(self, commands: Iterator[Command]) -> bool:
        """Start what the machine asks for; true when it is finished."""
        for command in commands:
            match command:
                case RequestPieces():
                    self._requests[command.request] = trio.CancelScope()
                    self._nursery.start_soon(self._request, command)
                case CancelRequest():
                    self._requests[command.request].cancel()
                case DropPeer():
                    self._lose(command.peer, "it sent bytes that are not what their hash says")
                case Finish():
                    return True
                case _:
                    assert_never(command)
        return False

    # -- sources -------------------------------------------------------------------------------------------

    async def _look_for_sources(self) -> None:
        """Ask again and again who has it, and link to those whom we do not have yet."""
        while True:
            for source in await self._find_sources():
                if len(self._joining) >= config.SOURCES_LINKED_MAX:
                    break
                if source.node_id not in self._joining and source.node_id not in self._machine.banned:
                    self._joining.add(source.node_id)
                    self._nursery.start_soon(self._join, source)
            self._give_up_without_sources()
            await trio.sleep(config.SOURCES_REFRESH_S if self._links else config.SOURCES_RETRY_S)

    def _give_up_without_sources(self) -> None:
        if not self._machine.is_starved:
            self._patience.renew()
        elif self._joining <= self._links.keys():  # nobody is being dialed
            self._patience.check(f"nobody gives the rest of {printable(self._metainfo.name)!r}")

    async def _join(self, source: NodeItem) -> None:
        """Link to a source, tell the machine, and tell it again when the link ends."""
        try:
            link = await self._link_to(source)
        except REMOTE_FAULTS as error:
            self._patience.last_failure = error
            self._joining.discard(source.node_id)
            return
        have = Bitfield.from_ranges(source.have, self._metainfo.piece_count)
        self._links[source.node_id] = link
        await self._send_event.send(PeerJoined(source.node_id, have))
        closed = await link.connection.wait_closed()
        if self._links.get(source.node_id) is link:
            self._patience.last_failure = closed
            self._lose(source.node_id, str(closed))
            await self._send_event.send(PeerLeft(source.node_id))

    def _lose(self, node_id: bytes, reason: str) -> None:
        """A source is of no use now; it may be found and joined again."""
        self._joining.discard(node_id)
        if self._links.pop(node_id, None) is not None:
            self._publish(FetchSourceLost(file_id=self._file_id, node_id=node_id, reason=reason))

    # -- requests ------------------------------------------------------------------------------------------

    async def _request(self, command: RequestPieces) -> None:
        """Carry out one `RequestPieces`; whatever comes of it becomes one event."""
        event: Event | None = None
        with self._requests[command.request]:
            event = await self._outcome(command)
        del self._requests[command.request]
        if event is not None:
            await self._send_event.send(event)

    async def _outcome(self, command: RequestPieces) -> Event:
        link = self._links.get(command.peer)
        if link is None:
            return PeerLeft(command.peer)
        try:
            await self._transfer(link, command)
        except PieceMismatch as error:
            self._lose(command.peer, str(error))
            link.connection.close(CloseCode.PROTOCOL_ERROR, str(error))
            return PieceCorrupt(command.peer, error.piece)
        except Busy as busy:
            return RequestFailed(command.request, retryable=True, retry_after_s=busy.retry_after_s)
        except StreamReset:
            return RequestFailed(command.request, retryable=True, retry_after_s=config.RESET_RETRY_S)
        except (Refused, NotFound) as error:
            self._patience.last_failure = error
            return RequestFailed(command.request, retryable=False)
        except REMOTE_FAULTS as error:
            self._patience.last_failure = error
            self._lose(command.peer, str(error))
            if isinstance(error, RemoteProtocolError):
                link.connection.close(CloseCode.PROTOCOL_ERROR, str(error))
            return PeerLeft(command.peer)
        return RequestFinished(command.request)

    async def _transfer(self, link: PeerLink, command: RequestPieces) -> None:
        async def stored(piece: int, size: int, complete: bool) -> None:
            self.bytes_done += size
            self.bytes_by_source[command.peer] += size
            await self._send_event.send(BlockStored(command.peer, piece, size))
            if complete:
                await self._send_event.send(PieceVerified(command.peer, piece))

        for request in requests_for(self._store, command.ranges):
            stream = await link.request()
            try:
                await Transfer(stream, self._store, self._run_blocking, stored).fetch(request)
            finally:
                await stream.aclose()

    # -- beside the loop -----------------------------------------------------------------------------------

    async def _checkpoint(self) -> None:
        """Make what is written durable from time to time, so that a power cut costs little."""
        while True:
            await trio.sleep(config.CHECKPOINT_INTERVAL_S / 4)
            if self._store.checkpoint_due(trio.current_time()):
                await self._run_blocking(self._store.checkpoint)

    async def _report(self) -> None:
        """Publish progress a few times a second while bytes arrive."""
        last = self.bytes_done
        while True:
            await trio.sleep(config.PROGRESS_INTERVAL_S)
            rate = (self.bytes_done - last) / config.PROGRESS_INTERVAL_S
            last = self.bytes_done
            self._publish(
                FetchProgress(
                    file_id=self._file_id,
                    name=self._metainfo.name,
                    size=self._metainfo.size,
                    bytes_done=self.bytes_done,
                    rate_bytes_per_s=rate,
                    peers=len(self._links),
                )
            )
