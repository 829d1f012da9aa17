"""One download: the task that drives `swarm.Download` and carries out what it decides.

The loop is the house's: wait for an event or the deadline → feed → drain → carry out. Bytes never pass through
the machine; they go from stream to store, and it hears of stored blocks. Each `RequestPieces` runs as one task.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from typing import assert_never

import trio

from p2pnode import config
from p2pnode.errors import (
    REMOTE_FAULTS,
    Busy,
    ConnectionClosed,
    NotFound,
    Refused,
    RemoteProtocolError,
    StreamReset,
    TimedOut,
)
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.bottleneck import Bottleneck
from p2pnode.node.diagnosis import FetchDiagnosis
from p2pnode.node.events import FetchProgress, FetchSourceLost, NodeEvent
from p2pnode.node.loop_load import BusySeconds
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.piece_request import PieceRequest
from p2pnode.node.rate_limits import RateLimits, Throttles
from p2pnode.node.sources import Acquaintance, Sources
from p2pnode.node.storing import PieceMismatch, Stored, Storing
from p2pnode.node.swarm_news import Following, Standing, SwarmNews
from p2pnode.node.transfer import Transfer
from p2pnode.storage import FileStore
from p2pnode.swarm import (
    BlockStored,
    BytesWasted,
    CancelRequest,
    Command,
    DeadlinePassed,
    Download,
    DownloadLimits,
    DropPeer,
    Event,
    Finish,
    PeerLeft,
    PieceCorrupt,
    PieceVerified,
    RequestFailed,
    RequestFinished,
    RequestPieces,
    ShortenRequest,
)
from p2pnode.torrent import Bitfield


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all downloads of a node have in common; `node_id` is our own.

    `blame` takes a node id, and what it is proven to have sent; `wasted` the bytes that came for nothing.
    """

    node_id: bytes
    news: SwarmNews
    blame: Callable[[bytes, str], None]
    wasted: Callable[[int], None]
    run_blocking: RunBlocking
    publish: Callable[[NodeEvent], None]
    rng: Random
    throttles: Throttles
    busy_s: BusySeconds


class Downloader:
    """Fetches what a store lacks from whoever has it; `run` returns when every piece is verified and written."""

    def __init__(
        self,
        store: FileStore,
        acquaintance: Acquaintance,
        surroundings: Surroundings,
        patience: Patience,
        *,
        sequential: bool = False,
    ) -> None:
        self._store = store
        self._metainfo = store.metainfo
        self._surroundings = surroundings
        self._publish = surroundings.publish
        self._patience = patience
        self._is_banned = acquaintance.is_banned
        self._storing = Storing(store, surroundings.run_blocking)
        self._diagnosis = FetchDiagnosis(store.times, surroundings.busy_s)
        sizes = [self._metainfo.piece(piece).length for piece in range(self._metainfo.piece_count)]
        limits = _download_limits(surroundings.throttles.limits, self._metainfo.piece_length)
        self._machine = Download(
            sizes,
            have=store.have(),
            rng=surroundings.rng,
            limits=limits,
            wanted=store.wanted,
            sequential=sequential,
            own_id=surroundings.node_id,
        )
        # Without a bound, so that who is cancelled can still tell: nobody tells more than one hop to a thread gave.
        self._send_event, self._events = trio.open_memory_channel[Event | None](inf)
        self._sources = Sources(
            self._metainfo,
            acquaintance,
            surroundings.news,
            patience,
            tell=self._send_event.send_nowait,
            lost=self._source_lost,
            is_idle=lambda: not self._requests,
            is_starved=lambda: self._machine.is_starved,
        )
        self._requests: dict[int, PieceRequest] = {}
        self.following = Following(
            self._metainfo.file_id, self._standing, self._sources.hear, self._sources.hear_over
        )
        self.bytes_by_source: Counter[bytes] = Counter()
        self.duplicate_bytes = 0  # file bytes that came for nothing
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
        if node_id in self._sources.links:
            self._diagnosis.source_told(node_id, word)

    async def run(self) -> None:
        """Drive the machine until it says `Finish`. Raises `NoSource` and what the store raises."""
        async with open_flat_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._sources.run)
            nursery.start_soon(self._checkpoint)
            nursery.start_soon(self._diagnose)
            nursery.start_soon(self._report)
            while not self._carry_out(self._machine.commands()):
                for event in await self._next_events():
                    self._machine.receive(event, trio.current_time())
            nursery.cancel_scope.cancel()

    async def _next_events(self) -> list[Event]:
        deadline = self._machine.next_deadline()
        with trio.move_on_at(inf if deadline is None else deadline):
            event = await self._events.receive()
            return self._sources.take_words() if event is None else [event]
        return [DeadlinePassed()]

    def _carry_out(self, commands: Iterator[Command]) -> bool:
        """Start what the machine asks for; true when it is finished."""
        for command in commands:
            match command:
                case RequestPieces():
                    wanted = Bitfield.from_ranges(command.ranges, self._metainfo.piece_count)
                    request = self._requests[command.request] = PieceRequest(command.peer, wanted)
                    self._nursery.start_soon(self._request, command.request, request)
                    self._surroundings.news.changed(self._metainfo.file_id)
                case ShortenRequest():
                    if command.request in self._requests:
                        wanted = Bitfield.from_ranges(command.ranges, self._metainfo.piece_count)
                        self._requests[command.request].shorten(wanted)
                case CancelRequest():
                    if command.request in self._requests:  # it may have ended a moment ago
                        self._requests[command.request].scope.cancel()
                case DropPeer():
                    self._sources.refuse(command.peer, "it sent bytes that are not what their hash says")
                case Finish():
                    return True
                case _:
                    assert_never(command)
        return False

    def _source_lost(self, node_id: bytes, reason: str) -> None:
        self._diagnosis.source_left(node_id)
        for request in self._requests.values():
            if request.peer == node_id:
                request.scope.cancel()
        self._publish(FetchSourceLost(file_id=self._metainfo.file_id, node_id=node_id, reason=reason))

    def _standing(self) -> Standing:
        """What others are told: the pieces that are here, and those that somebody was asked for."""
        coming = Bitfield(self._metainfo.piece_count)
        for request in self._requests.values():
            coming |= request.wanted
        return Standing(self._store.have(), coming)

    # -- requests ------------------------------------------------------------------------------------------

    async def _request(self, number: int, request: PieceRequest) -> None:
        """Carry out one `RequestPieces`; whatever comes of it becomes one event."""
        event: Event | None = None
        with request.scope:
            event = await self._outcome(number, request)
        del self._requests[number]
        if event is not None:
            self._send_event.send_nowait(event)

    async def _outcome(self, number: int, request: PieceRequest) -> Event:
        peer = request.peer
        link = self._sources.link(peer)
        if link is None:
            return PeerLeft(peer)
        try:
            await self._transfer(link, request)
        except PieceMismatch as error:
            return self._lied(number, peer, error)
        except Busy as busy:
            self._patience.failed(busy)
            if busy.retry_after_s >= config.SOURCES_REFRESH_S:
                self._sources.gives_nothing(peer)
            return RequestFailed(number, retryable=True, retry_after_s=busy.retry_after_s)
        except StreamReset as reset:
            self._patience.failed(reset)
            return RequestFailed(number, retryable=True, retry_after_s=config.RESET_RETRY_S)
        except (Refused, NotFound) as error:
            self._patience.failed(error)
            self._sources.gives_nothing(peer)
            return RequestFailed(number, retryable=False)
        except RemoteProtocolError as error:
            self._patience.failed(error)
            self._sources.close(peer, str(error))
            return PeerLeft(peer)
        except REMOTE_FAULTS as error:
            self._patience.failed(error)
            if isinstance(error, ConnectionClosed) and self._sources.link(peer) is not None:
                return RequestFailed(number, retryable=True)  # another link to it stands
            if isinstance(error, TimedOut):
                self._sources.stalled(peer, str(error))
            else:
                self._sources.lose(peer, str(error))
            return PeerLeft(peer)
        return RequestFinished(number)

    def _lied(self, number: int, peer: bytes, error: PieceMismatch) -> Event:
        """The first bad piece of a node may be a fault of its disk; whether it is one too many is not ours to say."""
        self._patience.failed(error)
        self._send_event.send_nowait(PieceCorrupt(peer, error.piece))
        self._surroundings.blame(peer, str(error))
        if self._is_banned(peer):
            self._sources.refuse(peer, str(error))
            return PeerLeft(peer)
        return RequestFailed(number, retryable=True)

    async def _transfer(self, link: PeerLink, request: PieceRequest) -> None:
        for piece in request.wanted & self._store.have():  # a request that was cancelled since stored it
            self._send_event.send_nowait(PieceVerified(request.peer, piece))
        throttle = self._surroundings.throttles.download(link.node_id)
        with self._diagnosis.request(request.peer) as task:

            def begin(stream: MessageStream) -> Transfer:
                return Transfer(
                    stream,
                    self._storing,
                    partial(self._stored, request.peer),
                    partial(self._wasted, request.peer),
                    throttle,
                    task,
                )

            try:
                await request.run(self._store, link.request, begin)
            finally:
                self.limit_waited_s += throttle.waited_s

    def _stored(self, peer: bytes, stored: list[Stored]) -> None:
        for run in stored:
            if run.new:
                self._sources.gave(peer)
                self.bytes_by_source[peer] += run.new
                self._send_event.send_nowait(BlockStored(peer, run.piece, run.new))
                if run.is_complete:
                    self._send_event.send_nowait(PieceVerified(peer, run.piece))
                    self._surroundings.news.changed(self._metainfo.file_id)

    def _wasted(self, peer: bytes, size: int) -> None:
        self.duplicate_bytes += size
        self._surroundings.wasted(size)
        self._send_event.send_nowait(BytesWasted(peer, size))

    # -- beside the loop -----------------------------------------------------------------------------------

    async def _checkpoint(self) -> None:
        """Make what is written durable from time to time, so that a power cut costs little."""
        while True:
            await trio.sleep(config.CHECKPOINT_INTERVAL_S / 4)
            if self._store.checkpoint_due(trio.current_time()):
                await self._surroundings.run_blocking(self._store.checkpoint)

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
                    file_id=self._metainfo.file_id,
                    name=self._metainfo.name,
                    size=self._store.size,
                    bytes_done=self.bytes_done,
                    rate_bytes_per_s=rate,
                    peers=len(self._sources.links),
                    duplicate_bytes=self.duplicate_bytes,
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
