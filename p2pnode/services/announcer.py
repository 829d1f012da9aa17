"""One torrent and its trackers: announced when it starts, at intervals, when it is complete, and when we leave.

The house's loop over `tracker.schedule`: wait for an event or the deadline → feed → drain → carry out. Peers that
trackers name are handed on as they come, and never taken back: a transfer goes on with those it knows, whatever becomes
of the trackers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from random import Random
from typing import NoReturn

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, ConfigError
from p2pnode.quic import Address
from p2pnode.services.outbound import Author
from p2pnode.services.tracker_clients import AnnounceRequest, TrackerAnswer, TrackerClient
from p2pnode.torrent import printable
from p2pnode.torrent.urls import Tiers
from p2pnode.tracker.announces import AnnounceEvent, SwarmPeer
from p2pnode.tracker.schedule import (
    AnnounceFailed,
    AnnounceSucceeded,
    DeadlinePassed,
    PeersNeeded,
    Schedule,
    ScheduleEvent,
    SendAnnounce,
    TrackerStatus,
    TransferCompleted,
    TransferStopped,
)

__all__ = ["AnnouncedTorrent", "OpenClient", "Progress", "TorrentAnnouncer", "TrackerReport"]

OpenClient = Callable[[str, Author], TrackerClient]
"""Gives who asks the tracker at a URL: `TrackerClients.client`. `AddressError`, `ConfigError`."""


@dataclass(frozen=True, slots=True)
class AnnouncedTorrent:
    """What is announced, where, and by whom. `trackers` are tiers (BEP 12); `typed` are those a user gave himself."""

    info_hash: bytes  # 20; a v2 hash cut to 20 (BEP 52)
    trackers: Tiers
    peer_id: bytes  # 20
    port: int  # where we listen
    typed: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is, in bytes; up and down since it started. What is left of an unknown size is not 0."""

    uploaded: int
    downloaded: int
    left: int


@dataclass(frozen=True, slots=True)
class TrackerReport:
    """A tracker as people are shown it; of its last answer, None where there was none or it does not say."""

    status: TrackerStatus
    complete: int | None = None
    incomplete: int | None = None
    peer_count: int | None = None
    warning: str = ""


class TorrentAnnouncer:
    """Announces one torrent as long as `run` runs.

    ::

        announcer = TorrentAnnouncer(torrent, TrackerClients(rng, endpoint).client, progress, found, rng)
        nursery.start_soon(announcer.run)

    `progress` is asked at each announce. `found` is given the addresses that a tracker names, at each of its answers;
    they may be dialed, and nothing more is known of them: we may be among them ourselves.
    """

    def __init__(
        self,
        torrent: AnnouncedTorrent,
        open_client: OpenClient,
        progress: Callable[[], Progress],
        found: Callable[[Sequence[Address]], None],
        rng: Random,
    ) -> None:
        self._torrent = torrent
        self._open_client = open_client
        self._clients: dict[str, TrackerClient] = {}
        self._progress = progress
        self._found = found
        self._key = rng.getrandbits(32)
        self._schedule = Schedule(torrent.trackers, rng=rng, is_complete=not progress().left)
        self._answers: dict[str, TrackerAnswer] = {}
        self._under_way: dict[str, SendAnnounce] = {}
        # Without a bound, but few: one announce is under way at a time, and a transfer has little to tell.
        self._send_event, self._events = trio.open_memory_channel[ScheduleEvent](inf)
        self._scope = trio.CancelScope()

    @property
    def trackers(self) -> tuple[TrackerReport, ...]:
        """How the trackers are doing, in the order in which they are asked."""
        return tuple(_report(status, self._answers.get(status.url)) for status in self._schedule.trackers)

    def next_announce(self) -> float | None:
        """When, on trio's clock; None while one is under way, and where there are no trackers."""
        return self._schedule.next_deadline()

    def need_peers(self) -> None:
        """The transfer has nobody left: ask sooner, as far as trackers allow."""
        self._send_event.send_nowait(PeersNeeded())

    def complete(self) -> None:
        """We have everything now: tell it at once."""
        self._send_event.send_nowait(TransferCompleted())

    def stop(self) -> None:
        """We leave: `run` tells those who know us, and returns."""
        self._scope.cancel()

    async def run(self) -> None:
        """Announce until `stop`, or until cancelled; both end within twice `ANNOUNCE_STOPPED_TIMEOUT_S`.

        That is for telling that we completed, if that is not told yet, and for telling that we leave.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._drive(nursery)
        finally:
            with trio.move_on_after(config.ANNOUNCE_STOPPED_TIMEOUT_S, shield=True):
                await self._tell_what_is_untold()
            with trio.move_on_after(config.ANNOUNCE_STOPPED_TIMEOUT_S, shield=True):
                await self._leave()

    async def _drive(self, nursery: trio.Nursery) -> NoReturn:
        while True:
            for command in self._schedule.commands():
                nursery.start_soon(self._announce, command, self._send_event.send_nowait)
            self._schedule.receive(await self._next_event(), trio.current_time())

    async def _next_event(self) -> ScheduleEvent:
        deadline = self._schedule.next_deadline()
        with trio.move_on_at(inf if deadline is None else deadline):
            return await self._events.receive()
        return DeadlinePassed()

    async def _tell_what_is_untold(self) -> None:
        """That we completed, a moment ago: who fetches one thing leaves as soon as he has it."""
        commands = [*self._under_way.values()]
        while True:
            for command in commands:
                if command.event is AnnounceEvent.COMPLETED:
                    await self._announce(command, self._send_event.send_nowait)
            with suppress(trio.WouldBlock):
                while True:
                    self._schedule.receive(self._events.receive_nowait(), trio.current_time())
            commands = [*self._schedule.commands()]
            if not any(command.event is AnnounceEvent.COMPLETED for command in commands):
                return

    async def _leave(self) -> None:
        """Say "stopped" to all who are to hear it, at once. No other announce is under way any more."""

        def tell(event: ScheduleEvent) -> None:
            self._schedule.receive(event, trio.current_time())

        tell(TransferStopped())
        async with trio.open_nursery() as nursery:
            for command in self._schedule.commands():
                nursery.start_soon(self._announce, command, tell)

    # -- one announce --------------------------------------------------------------------------------------

    async def _announce(self, command: SendAnnounce, tell: Callable[[ScheduleEvent], None]) -> None:
        url = command.url
        self._under_way[url] = command  # and stays there when it is cut short
        try:
            with trio.fail_after(config.ANNOUNCE_TIMEOUT_S):
                answer = await self._client(url).announce(self._request(command.event))
        except trio.TooSlowError:
            tell(AnnounceFailed(url, f"no answer within {config.ANNOUNCE_TIMEOUT_S:g} s"))
        except (*REMOTE_FAULTS, ConfigError) as error:
            tell(AnnounceFailed(url, printable(str(error))))
        else:
            self._answers[url] = answer
            self._hand_on(answer.peers)
            tell(AnnounceSucceeded(url, answer.interval_s, answer.interval_min_s, len(answer.peers)))
        del self._under_way[url]

    def _client(self, url: str) -> TrackerClient:
        if url not in self._clients:
            author = Author.USER if url in self._torrent.typed else Author.TORRENT
            self._clients[url] = self._open_client(url, author)
        return self._clients[url]

    def _request(self, event: AnnounceEvent) -> AnnounceRequest:
        progress = self._progress()
        return AnnounceRequest(
            info_hash=self._torrent.info_hash,
            peer_id=self._torrent.peer_id,
            port=self._torrent.port,
            uploaded=progress.uploaded,
            downloaded=progress.downloaded,
            left=progress.left,
            event=event,
            numwant=0 if event is AnnounceEvent.STOPPED else config.ANNOUNCE_PEERS_WANTED,
            key=self._key,
        )

    def _hand_on(self, peers: Iterable[SwarmPeer]) -> None:
        others = [(peer.host, peer.port) for peer in peers if peer.peer_id != self._torrent.peer_id]
        if others:
            self._found(others)


def _report(status: TrackerStatus, answer: TrackerAnswer | None) -> TrackerReport:
    if answer is None:
        return TrackerReport(status)
    return TrackerReport(
        status, answer.complete, answer.incomplete, len(answer.peers), printable(answer.warning)
    )
