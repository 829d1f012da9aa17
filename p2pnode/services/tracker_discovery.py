"""Nodes find each other through BitTorrent trackers, of any language: what we share or fetch is announced there.

A tracker names addresses and nothing else, of programs of any kind. So each is dialed once, a few at a time, and who
proves a node key there is handed to the node as one who may have the torrent. Whatever becomes of the trackers, a
transfer goes on.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS
from p2pnode.node.discovery import Ourselves
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.quic import Address, Credentials, Endpoint, NodeKey, open_udp_socket
from p2pnode.services.announcer import AnnouncedTorrent, OpenClient, Progress, TorrentAnnouncer
from p2pnode.services.tracker_clients import TrackerClients
from p2pnode.torrent.urls import Tiers
from p2pnode.wire.communication import NodeItem

__all__ = ["TrackerDiscovery"]

_INFO_HASH_SIZE: Final = 20  # trackers know a v2 torrent by so much of its hash (BEP 52)
_PEER_ID_PREFIX: Final = b"-PN0100-"


class TrackerDiscovery:
    """A `Discovery` at trackers in tiers (BEP 12), of which `typed` are those that the user gave himself.

    `keeps_private` says that they are a private torrent's own, and no others.
    """

    def __init__(
        self, trackers: Tiers, *, typed: Collection[str] = (), keeps_private: bool = False, rng: Random
    ) -> None:
        self.keeps_private: Final = keeps_private
        self._trackers = trackers
        self._typed = typed
        self._rng = rng
        self._running: _Running | None = None

    async def run(self, ourselves: Ourselves) -> None:
        """Run until cancelled; then say that we leave, for a bounded time. `NetworkError` without a UDP socket."""
        async with open_flat_nursery() as nursery:
            running = _Running(ourselves, self._trackers, self._typed, self._rng, nursery)
            await nursery.start(self._announce_shielded, running)
            try:
                await trio.sleep_forever()
            finally:
                self._running = None
                running.stop()

    async def _announce_shielded(self, running: _Running, *, task_status: trio.TaskStatus[None]) -> None:
        """Whoever cancels us is waited for until all trackers are told: they need their endpoint to the end."""
        with trio.CancelScope(shield=True):
            socket = await open_udp_socket(("::", 0))
            try:
                credentials = Credentials.from_node_key(NodeKey.generate())  # never shown: nobody dials this
                async with Endpoint(socket, credentials) as endpoint, open_flat_nursery() as announcers:
                    self._running = running
                    running.begin(TrackerClients(self._rng, endpoint).client, announcers)
                    task_status.started()
                    await running.stopped.wait()
            finally:
                socket.close()

    def look_for(self, file_id: bytes) -> None:
        """Announce it, if it is not yet; ask again, as soon as the trackers allow, while nobody was found."""
        if self._running is not None:
            self._running.look_for(file_id)

    def offer(self, file_id: bytes) -> None:
        """Announce it; tell it when we have everything."""
        if self._running is not None:
            self._running.offer(file_id)

    def withdraw(self, file_id: bytes) -> None:
        """Tell the trackers that we left."""
        if self._running is not None:
            self._running.withdraw(file_id)

    def found(self, file_id: bytes) -> Iterator[NodeItem]:
        """Nodes that were met where a tracker sent us."""
        torrent = self._running and self._running.torrents.get(file_id)
        if torrent:
            for address, node_id in torrent.nodes.items():
                yield NodeItem(node_id, (address,), file_id, is_fetching=True)


@dataclass
class _Missing:
    """Bytes that a torrent misses; None while nothing is known of it. The last word counts: it outlives an offer."""

    first: int | None = None
    now: int | None = None

    def progress(self, left: int | None) -> Progress:
        """What to tell trackers, now that `left` bytes are missing, if that is known."""
        if left is not None:
            self.now = left
            self.first = left if self.first is None else self.first
        if self.first is None or self.now is None:
            return Progress(0, 0, config.BLOCK_SIZE)  # of unknown size: not nothing
        return Progress(0, max(0, self.first - self.now), self.now)


@dataclass
class _Torrent:
    """One that is announced: what of it is missing, where somebody was sought, and who was met there."""

    announcer: TorrentAnnouncer
    missing: _Missing
    is_complete: bool
    dialed: dict[Address, None] = field(default_factory=dict)  # the oldest is first
    nodes: dict[Address, bytes] = field(default_factory=dict)


class _Running:
    """A discovery as long as it runs. Peers are dialed in `dials`, which ends before the announcers do."""

    def __init__(
        self,
        ourselves: Ourselves,
        trackers: Tiers,
        typed: Collection[str],
        rng: Random,
        dials: trio.Nursery,
    ) -> None:
        self.torrents: dict[bytes, _Torrent] = {}  # by file id
        self.stopped = trio.Event()
        self._ourselves = ourselves
        self._trackers = trackers
        self._typed = typed
        self._rng = rng
        self._dials = dials
        self._dials_at_once = trio.CapacityLimiter(config.TRACKER_DIALS_AT_ONCE)
        self._open_client: OpenClient
        self._announcers: trio.Nursery

    def begin(self, open_client: OpenClient, announcers: trio.Nursery) -> None:
        """Announce what there is already."""
        self._open_client = open_client
        self._announcers = announcers
        for file_id in self._ourselves.offered():
            self.offer(file_id)

    def stop(self) -> None:
        """Stop all announcers, and take no more."""
        self.stopped.set()
        for torrent in self.torrents.values():
            torrent.announcer.stop()

    def look_for(self, file_id: bytes) -> None:
        torrent = self._announced(file_id)
        if torrent is not None and not torrent.nodes:
            torrent.announcer.need_peers()

    def offer(self, file_id: bytes) -> None:
        torrent = self._announced(file_id)
        if torrent is None:
            return
        torrent.missing.progress(self._ourselves.bytes_left(file_id))
        if torrent.missing.now == 0 and not torrent.is_complete:
            torrent.is_complete = True
            torrent.announcer.complete()

    def withdraw(self, file_id: bytes) -> None:
        if (torrent := self.torrents.pop(file_id, None)) is not None:
            torrent.announcer.stop()

    def _announced(self, file_id: bytes) -> _Torrent | None:
        """None where there are too many."""
        if file_id not in self.torrents and len(self.torrents) < config.TRACKER_TORRENTS_MAX:
            self.torrents[file_id] = self._start(file_id)
        return self.torrents.get(file_id)

    def _start(self, file_id: bytes) -> _Torrent:
        missing = _Missing()

        def progress() -> Progress:
            return missing.progress(self._ourselves.bytes_left(file_id))

        def found(addresses: Sequence[Address]) -> None:
            for address in addresses:
                self._seek(torrent, address)

        announced = AnnouncedTorrent(
            file_id[:_INFO_HASH_SIZE],
            self._trackers,
            _PEER_ID_PREFIX + os.urandom(20 - len(_PEER_ID_PREFIX)),
            self._ourselves.listen_address[1],
            self._typed,
        )
        announcer = TorrentAnnouncer(announced, self._open_client, progress, found, self._rng)
        torrent = _Torrent(announcer, missing, is_complete=missing.now == 0)
        self._announcers.start_soon(announcer.run)
        return torrent

    # -- who is there --------------------------------------------------------------------------------------

    def _seek(self, torrent: _Torrent, address: Address) -> None:
        """Dial an address once, and again only when it was forgotten."""
        if self.stopped.is_set() or address in torrent.dialed or address[1] in config.PORTS_NEVER_DIALED:
            return
        torrent.dialed[address] = None
        if len(torrent.dialed) > config.TRACKER_FOUND_MAX:
            oldest = next(iter(torrent.dialed))
            del torrent.dialed[oldest]
            torrent.nodes.pop(oldest, None)
        self._dials.start_soon(self._meet, torrent, address)

    async def _meet(self, torrent: _Torrent, address: Address) -> None:
        try:
            async with self._dials_at_once:
                node_id = await self._ourselves.meet(address)
        except REMOTE_FAULTS:
            torrent.dialed.pop(
                address, None
            )  # it is no node, or gone: a tracker that names it again is heard
            return
        if address in torrent.dialed:
            torrent.nodes[address] = node_id
