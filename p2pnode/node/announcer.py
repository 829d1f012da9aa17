"""The link to the server that we chose: dialed, kept, announced to, dialed again when it is lost.

On each new link everything we share or fetch is announced, then what changes; presence is announced again before
it expires. So a server that was killed and restarted knows us and our files again without anybody's help. How far a
fetch is changes all the time, and is told only now and then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from math import inf
from random import Random
from typing import NoReturn

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, NetworkError, P2PNodeError
from p2pnode.node.events import NodeEvent, NodeWarning, ServerConnected, ServerLost
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.offers import Offer
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.quic import Address
from p2pnode.wire.communication import FileAcknowledge, FileAnnounce, PresenceAnnounce

Connect = Callable[[], Awaitable[PeerLink]]


class Announcer:
    """Keeps us registered with one server."""

    def __init__(
        self,
        address: Address,
        connect: Connect,
        presence: Callable[[], PresenceAnnounce],
        offers: Callable[[], Iterable[Offer]],
        publish: Callable[[NodeEvent], None],
        rng: Random,
    ) -> None:
        self._address = address
        self._connect = connect
        self._presence = presence
        self._offers = offers
        self._publish = publish
        self._rng = rng
        self._pending: dict[bytes, Offer] = {}
        self._something_pending = trio.Event()
        self._being_told: set[bytes] = (
            set()
        )  # file ids of which the server has not acknowledged the last word
        self._acknowledged = trio.Event()
        self._fetching_told_at: dict[bytes, float] = {}  # what the server knows that we fetch
        self._first_attempt_over = trio.Event()
        self._first_failure: P2PNodeError | None = None
        self._scope = trio.CancelScope()
        self.link: PeerLink | None = None

    def announce(self, offer: Offer) -> None:
        """Tell the server of a change, as soon as it can be told; a later change of the same file replaces it.

        That a fetch has more pieces is told no sooner than `OFFER_RENEW_S` after the last word about it.
        """
        self._pending[offer.file_id] = offer
        self._something_pending.set()

    async def wait_told(self, file_id: bytes) -> None:
        """Wait until the server knows what is to be told of this file now; not while it cannot be told."""
        while self.link is not None and (file_id in self._being_told or self._is_due(file_id)):
            await self._acknowledged.wait()

    async def wait_first_attempt(self) -> None:
        """Wait until we are connected, or know that we are not."""
        await self._first_attempt_over.wait()

    async def wait_connected(self) -> PeerLink:
        """Wait for the first attempt; raise why it failed."""
        await self._first_attempt_over.wait()
        if self.link is None:
            raise self._first_failure or NetworkError("the server is gone")
        return self.link

    def stop(self) -> None:
        """We leave: what becomes of the link from now on is no loss."""
        self._scope.cancel()

    async def run(self) -> None:
        """Stay registered until stopped."""
        with self._scope:
            await self._stay_registered()

    async def _stay_registered(self) -> None:
        wait_s = config.RECONNECT_MIN_S
        while True:
            try:
                await self._stay_connected()
            except REMOTE_FAULTS as error:
                reason = str(error)
                self._first_failure = self._first_failure or error
            if self.link is not None:
                self.link = None
                wait_s = config.RECONNECT_MIN_S
            self._first_attempt_over.set()
            pause_s = wait_s * self._rng.uniform(0.5, 1.0)
            self._publish(ServerLost(address=self._address, reason=reason, retry_s=pause_s))
            await trio.sleep(pause_s)
            wait_s = min(2 * wait_s, config.RECONNECT_MAX_S)

    async def _stay_connected(self) -> NoReturn:
        link = await self._connect()
        self.link = link
        self._pending = {offer.file_id: offer for offer in self._offers()}
        self._fetching_told_at.clear()
        self._something_pending.set()
        self._publish(
            ServerConnected(
                address=link.connection.remote_address,
                node_id=link.node_id,
                verified=link.verified,
                observed_address=link.observed_address or ("", 0),
            )
        )
        self._first_attempt_over.set()
        try:
            async with open_flat_nursery() as nursery:
                nursery.start_soon(self._announce_files, link)
                nursery.start_soon(self._announce_presence, link)
                raise await link.connection.wait_closed()
        except REMOTE_FAULTS as error:
            link.connection.close(CloseCode.NO_ERROR, str(error))  # or each new try would add a connection
            raise

    async def _announce_presence(self, link: PeerLink) -> None:
        while True:
            await trio.sleep(config.PRESENCE_LASTS_S / 3)
            await link.tell(self._presence())

    async def _announce_files(self, link: PeerLink) -> None:
        while True:
            with trio.move_on_at(min(map(self._due_at, self._pending.values()), default=inf)):
                await self._something_pending.wait()
            self._something_pending = trio.Event()
            now = trio.current_time()
            batch = [offer for offer in self._pending.values() if self._due_at(offer) <= now]
            for offer in batch:
                del self._pending[offer.file_id]
                self._fetching_told_at.pop(offer.file_id, None)
                if offer.is_fetching:
                    self._fetching_told_at[offer.file_id] = now
            self._being_told = {offer.file_id for offer in batch}
            try:
                if batch:
                    await self._announce_batch(link, [offer.message() for offer in batch])
            finally:
                self._being_told.clear()
                self._acknowledged.set()
                self._acknowledged = trio.Event()

    def _is_due(self, file_id: bytes) -> bool:
        offer = self._pending.get(file_id)
        return offer is not None and self._due_at(offer) <= trio.current_time()

    def _due_at(self, offer: Offer) -> float:
        """When the server is told of this."""
        told_at = self._fetching_told_at.get(offer.file_id)
        return -inf if told_at is None or not offer.is_fetching else told_at + config.OFFER_RENEW_S

    async def _announce_batch(self, link: PeerLink, offers: list[FileAnnounce]) -> None:
        """Announce several files on one stream; each is acknowledged in order."""
        stream = await link.request()

        async def send() -> None:
            for offer in offers:
                await stream.send(offer)
            await stream.send_eof()

        try:
            async with open_flat_nursery() as nursery:
                nursery.start_soon(send)
                for offer in offers:
                    answer = await stream.receive_as(FileAcknowledge)
                    if not answer.accepted:
                        self._publish(
                            NodeWarning(text=f"the server does not list {offer.name!r}: {answer.reason}")
                        )
        finally:
            await stream.aclose()
