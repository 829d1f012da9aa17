"""One download: the task that drives `swarm.Download` and carries out what it decides.

The loop is the house's: wait for an event or the deadline → feed → drain → carry out. Bytes never pass through
the machine; they go from stream to store, and it hears of stored blocks. Each `RequestPieces` runs as one task
over one stream.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from random import Random
from typing import assert_never

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, Busy, NotFound, Refused, RemoteProtocolError, StreamReset, TimedOut
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.diagnosis import FetchDiagnosis
from p2pnode.node.events import FetchProgress, FetchSourceLost, NodeEvent
from p2pnode.node.loop_load import BusySeconds
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.rate_limits import RateLimits, Throttles
from p2pnode.node.storing import PieceMismatch, Stored, Storing
from p2pnode.node.transfer import Transfer, open_in_time, pieces_in, requests_for
from p2pnode.storage import FileStore
from p2pnode.swarm import (
    BlockStored,
    CancelRequest,
    Command,
    DeadlinePassed,
    Download,
    DownloadLimits,
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
    ShortenRequest,
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
        throttles: Throttles,
        busy_s: BusySeconds,
    ) -> None:
        self._store = store
        self._metainfo = store.metainfo
        self._file_id = self._metainfo.file_id
        self._find_sources = find_sources
        self._link_to = link_to
        self._run_blocking = run_blocking
        self._storing = Storing(store, run_blocking)
        self._publish = publish
        self._patience = patience
        self._throttles = throttles
        self._diagnosis = FetchDiagnosis(store.times, busy_s)
        sizes = [self._metainfo.piece(piece).length for piece in range(self._metainfo.piece_count)]
        limits = _download_limits(throttles.limits, self._metainfo.piece_length)
        self._machine = Download(sizes, have=store.have(), wanted=store.wanted, rng=rng, limits=limits)
        self._send_event, self._events = trio.open_memory_channel[Event](config.DOWNLOAD_EVENTS_MAX)
        self._seen: set[bytes] = set()  # everybody who was ever said to have it
        self._joining: set[bytes] = set()  # those who are dialed, or linked
        self._dialed: set[bytes] = (
            set()
        )  # whose first dial is over: only that one is waited for with patience
        self._links: dict[bytes, PeerLink] = {}
        self._banned: set[bytes] = set()  # whoever lied: is not asked again
        self._stalled: set[bytes] = set()  # whoever kept us waiting: is asked again only for want of others
        self._useless: set[bytes] = (
            set()
        )  # linked, but refused or long busy: others may be linked beside them
        self._requests: dict[int, tuple[bytes, trio.CancelScope]] = {}
        self.bytes_by_source: Counter[bytes] = Counter()
        self.limit_waited_s = 0.0  # of all its requests together, for our rate limits
        self.limited_s: defaultdict[Bottleneck, float] = defaultdict(float)  # for how long by what

    @property
    def bytes_done(self) -> int:
        """Verified bytes of it that are here, those of earlier runs included."""
        return self._store.bytes_stored

    @property
    def have(self) -> Bitfield:
        """The pieces that are here, verified and written."""
        return self._store.have()

    @property
    def bottleneck(self) -> Bottleneck | None:
        """What limited the last second; None in the first one."""
        return self._diagnosis.bottleneck

    def source_told(self, node_id: bytes, word: str) -> None:
        """A node says what limits its sending; that of a source of ours counts."""
        if node_id in self._links:
            self._diagnosis.source_told(node_id, word)

    async def run(self) -> None:
        """Drive the machine until it says `Finish`. Raises `NoSource` and what the store raises."""
        async with open_flat_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._look_for_sources)
            nursery.start_soon(self._checkpoint)
            nursery.start_soon(self._diagnose)
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
                    self._requests[command.request] = (command.peer, trio.CancelScope())
                    self._nursery.start_soon(self._request, command)
                case ShortenRequest():
                    pass  # it brings what it was asked for, and what is here already is not written again
                case CancelRequest():
                    self._cancel(command.request)
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
            sources = await self._find_sources()
            if not self._seen.issuperset(source.node_id for source in sources):
                self._patience.renew()
                self._seen.update(source.node_id for source in sources)
            if not self._requests and not self._joining - self._links.keys() - self._dialed:
                self._patience.check(f"nobody gives {printable(self._metainfo.name)!r}")
            for source in filter(self._is_wanted, sources):
                if len(self._joining - self._useless) < config.SOURCES_LINKED_MAX:
                    self._joining.add(source.node_id)
                    self._nursery.start_soon(self._join, source)
            await trio.sleep(config.SOURCES_REFRESH_S if self._links else self._patience.pause_s)

    def _is_wanted(self, source: NodeItem) -> bool:
        if source.node_id in self._joining or source.node_id in self._banned:
            return False
        return source.node_id not in self._stalled or self._machine.is_starved

    async def _join(self, source: NodeItem) -> None:
        """Link to a source, tell the machine, and tell it again when the link ends."""
        try:
            have = self._pieces_of(source)
            link = await self._link_to(source)
        except REMOTE_FAULTS as error:
            self._patience.failed(error)
            self._joining.discard(source.node_id)
            return
        finally:
            self._dialed.add(source.node_id)
        self._links[source.node_id] = link
        await self._send_event.send(PeerJoined(source.node_id, have))
        closed = await link.connection.wait_closed()
        if self._links.get(source.node_id) is link:
            self._patience.failed(closed)
            self._lose(source.node_id, str(closed))
            await self._send_event.send(PeerLeft(source.node_id))

    def _pieces_of(self, source: NodeItem) -> Bitfield:
        """What it is said to have; one of whom nothing is said, as in a ticket, is asked for everything."""
        if not source.have:
            return Bitfield.full(self._metainfo.piece_count)
        return Bitfield.from_ranges(source.have, self._metainfo.piece_count)

    def _lose(self, node_id: bytes, reason: str) -> None:
        """A source is of no use now, and nothing more is taken from it; it may be found and joined again."""
        self._joining.discard(node_id)
        self._diagnosis.source_left(node_id)
        for request, (peer, _) in self._requests.items():
            if peer == node_id:
                self._cancel(request)
        if self._links.pop(node_id, None) is not None:
            self._publish(FetchSourceLost(file_id=self._file_id, node_id=node_id, reason=reason))

    def _ban(self, node_id: bytes, reason: str) -> None:
        """A source lied, or broke a rule: close its link, and never ask it for this again."""
        link = self._links.get(node_id)
        self._banned.add(node_id)
        self._lose(node_id, reason)
        if link is not None:
            link.connection.close(CloseCode.PROTOCOL_ERROR, reason)

    # -- requests ------------------------------------------------------------------------------------------

    def _cancel(self, request: int) -> None:
        """End a request, unless it has just ended and the machine has not heard of that yet."""
        if request in self._requests:
            _, scope = self._requests[request]
            scope.cancel()

    async def _request(self, command: RequestPieces) -> None:
        """Carry out one `RequestPieces`; whatever comes of it becomes one event."""
        event: Event | None = None
        _, scope = self._requests[command.request]
        with scope:
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
            self._ban(command.peer, str(error))
            return PieceCorrupt(command.peer, error.piece)
        except Busy as busy:
            self._patience.failed(busy)
            if busy.retry_after_s >= config.SOURCES_REFRESH_S:
                self._useless.add(command.peer)
            return RequestFailed(command.request, retryable=True, retry_after_s=busy.retry_after_s)
        except StreamReset as reset:
            self._patience.failed(reset)
            return RequestFailed(command.request, retryable=True, retry_after_s=config.RESET_RETRY_S)
        except (Refused, NotFound) as error:
            self._patience.failed(error)
            self._useless.add(command.peer)
            return RequestFailed(command.request, retryable=False)
        except RemoteProtocolError as error:
            self._patience.failed(error)
            self._ban(command.peer, str(error))
            return PeerLeft(command.peer)
        except REMOTE_FAULTS as error:
            self._patience.failed(error)
            if isinstance(error, TimedOut):
                self._stalled.add(command.peer)
            self._lose(command.peer, str(error))
            return PeerLeft(command.peer)
        return RequestFinished(command.request)

    async def _transfer(self, link: PeerLink, command: RequestPieces) -> None:
        async def on_stored(stored: list[Stored]) -> None:
            if stored:
                self._patience.renew()
                self._useless.discard(command.peer)
                self.bytes_by_source[command.peer] += sum(run.size for run in stored)
            for run in stored:
                await self._send_event.send(BlockStored(command.peer, run.piece, run.size))
                if run.is_complete:
                    await self._send_event.send(PieceVerified(command.peer, run.piece))

        for piece in pieces_in(command.ranges):
            if piece in self._store.have():  # stored by a request that was cancelled before it could say so
                await self._send_event.send(PieceVerified(command.peer, piece))
        with self._diagnosis.request(command.peer) as task:
            for request in requests_for(self._store, command.ranges):
                stream = await open_in_time(link.request)
                throttle = self._throttles.download(link.node_id)
                transfer = Transfer(stream, self._storing, on_stored, throttle, task)
                try:
                    await transfer.fetch(request)
                finally:
                    self.limit_waited_s += throttle.waited_s
                    await stream.aclose()

    # -- beside the loop -----------------------------------------------------------------------------------

    async def _checkpoint(self) -> None:
        """Make what is written durable from time to time, so that a power cut costs little."""
        while True:
            await trio.sleep(config.CHECKPOINT_INTERVAL_S / 4)
            if self._store.checkpoint_due(trio.current_time()):
                await self._run_blocking(self._store.checkpoint)

    async def _diagnose(self) -> None:
        """Name each second's bottleneck."""
        while True:
            await trio.sleep(config.DIAGNOSIS_INTERVAL_S)
            self._diagnosis.look(self._why_idle())
            if self.bottleneck is not None:
                self.limited_s[self.bottleneck] += config.DIAGNOSIS_INTERVAL_S

    def _why_idle(self) -> Bottleneck | None:
        if self._machine.is_starved:
            return Bottleneck.TOO_FEW_SOURCES
        return Bottleneck.PEER_BUSY if self._machine.is_put_off else None

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
                    size=self._store.size,
                    bytes_done=self.bytes_done,
                    rate_bytes_per_s=rate,
                    peers=len(self._links),
                    bottleneck=self.bottleneck,
                )
            )


def _download_limits(limits: RateLimits, piece_length: int) -> DownloadLimits:
    """How a download goes about under rate limits: not to spread a low one over several sources, nor to call a
    source slow that gives what it may.
    """
    sources, most = config.SOURCES_AT_ONCE, config.SOURCES_LINKED_MAX
    rate = inf if limits.peer is None else limits.peer
    if limits.down is not None:
        sources = most = max(1, min(sources, int(limits.down / config.RATE_PER_SOURCE_MIN)))
        rate = min(rate, limits.down / sources)
    piece_s = config.REQUESTS_PER_SOURCE * piece_length / rate
    return DownloadLimits(
        peers_at_once=sources,
        peers_at_once_max=most,
        relieve_after_s=max(config.RELIEVE_AFTER_S, 2 * piece_s),
    )
