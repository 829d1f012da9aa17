"""The links that stand, and how a link to a given node comes about.

A node accepts several connections of one node id. Only two that were dialed from both sides at once are merged:
the dial of the smaller node id stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, ConnectFailed, ConnectionClosed, NotFound, P2PNodeError, TrustError
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.quic import Address
from p2pnode.torrent import printable

Establish = Callable[[Address, bytes], Awaitable[PeerLink]]  # (address, expected node id)
AskToConnect = Callable[[bytes], Awaitable[bool]]  # (node id) → whether anybody could be asked
Dialed = TypeVar("Dialed")


class LinkTable:
    """All live links, by node id."""

    def __init__(self, own_id: bytes) -> None:
        self._own_id = own_id
        self._links: defaultdict[bytes, list[PeerLink]] = defaultdict(list)
        self._arrived = trio.Event()

    def __iter__(self) -> Iterator[PeerLink]:
        return iter([link for links in self._links.values() for link in links])

    def add(self, link: PeerLink) -> None:
        """Take a link in. Of two dials that crossed, the larger id's is closed by the one who dialed it."""
        twin = self._crossed_twin(link)
        self._links[link.node_id].append(link)
        self._arrived.set()
        self._arrived = trio.Event()
        if twin is not None:
            loser = link if self._is_larger_ids_dial(link) else twin
            if loser.dialed and not loser.is_server:
                loser.supersede()

    def remove(self, link: PeerLink) -> None:
        """Forget a link that ended."""
        self._links[link.node_id].remove(link)
        if not self._links[link.node_id]:
            del self._links[link.node_id]

    def has_other(self, link: PeerLink) -> bool:
        """Whether another link to the same node stands."""
        others = self._links.get(link.node_id, ())
        return any(other is not link and other.connection.is_open for other in others)

    def best(self, node_id: bytes) -> PeerLink | None:
        """The link to use for a new request: of crossed dials the one that stays, else the newest.

        A node that dials again may have died or moved without a word on its older link.
        """
        links = [link for link in self._links.get(node_id, ()) if link.connection.is_open]
        return min(reversed(links), key=self._is_larger_ids_dial) if links else None

    def find_peers(self, target: str) -> list[PeerLink]:
        """The peers that dialed us and that a person means: all, or by name, or by the start of a node id."""
        peers = {
            link.node_id: link
            for link in self
            if link.peer.role == "peer" and not link.dialed and link.connection.is_open
        }
        if target == "all":
            found = list(peers.values())
        else:
            found = [link for link in peers.values() if _is_meant(link, target)]
        if not found:
            whom = "no peer" if target == "all" else f"no peer {printable(target)!r}"
            raise NotFound(f"{whom} is connected")
        return found

    async def wait_for(self, node_id: bytes) -> PeerLink:
        """Wait until a link to this node stands."""
        while (link := self.best(node_id)) is None:
            await self._arrived.wait()
        return link

    def _is_larger_ids_dial(self, link: PeerLink) -> bool:
        return link.dialed == (self._own_id > link.node_id)

    def _crossed_twin(self, link: PeerLink) -> PeerLink | None:
        for other in self._links.get(link.node_id, ()):
            close_in_time = abs(other.established_at - link.established_at) < config.DIAL_TRY_TIMEOUT_S
            if other.dialed != link.dialed and close_in_time and other.connection.is_open:
                return other
        return None


def _is_meant(link: PeerLink, target: str) -> bool:
    digits = target.lower()
    return link.peer.name == target or (len(digits) >= 4 and link.node_id.hex().startswith(digits))


def close_duplicate(link: PeerLink) -> None:
    """End a link that was too late."""
    link.connection.close(CloseCode.DUPLICATE_LINK, "another address answered first")


async def dial_first(
    addresses: Sequence[Address],
    dial: Callable[[Address], Awaitable[Dialed]],
    undo: Callable[[Dialed], None],
) -> Dialed:
    """What comes first of dialing any of `addresses`, which are taken up one after the other (RFC 8305).

    The next one is dialed too when one fails or takes `DIAL_NEXT_ADDRESS_S`; a dial that is too late is undone.
    Raises a `TrustError` if there was one, since somebody answered there; else how the last dial failed.
    """
    answered: list[Dialed] = []
    failures: list[P2PNodeError] = []

    async def dial_one(address: Address, failed: trio.Event) -> None:
        try:
            dialed = await dial(address)
        except REMOTE_FAULTS as error:
            failures.append(error)
            failed.set()
            return
        if answered:
            undo(dialed)
        answered.append(dialed)
        nursery.cancel_scope.cancel()

    async with open_flat_nursery() as nursery:
        for address in addresses:
            failed = trio.Event()
            nursery.start_soon(dial_one, address, failed)
            with trio.move_on_after(config.DIAL_NEXT_ADDRESS_S):
                await failed.wait()
    if answered:
        return answered[0]
    distrust = [error for error in failures if isinstance(error, TrustError)]
    raise (distrust or failures or [ConnectFailed("there is no address that can be dialed")])[-1]


class Dialer:
    """Gives a link to a node: the one that stands, or a new one; never two dials to one node at a time."""

    def __init__(self, links: LinkTable, establish: Establish, ask_to_connect: AskToConnect) -> None:
        self._links = links
        self._establish = establish
        self._ask_to_connect = ask_to_connect
        self._dialing: dict[bytes, trio.Lock] = {}

    async def link_to(
        self, node_id: bytes, addresses: tuple[Address, ...], *, may_ask: bool = True
    ) -> PeerLink:
        """Return a live link, or raise `ConnectFailed` (or `TrustError` where another node answers).

        `may_ask` is false for one who was asked to dial himself, or two nodes would ask each other for ever.
        """
        lock = self._dialing.setdefault(node_id, trio.Lock())
        try:
            async with lock:
                return self._links.best(node_id) or await self._dial(node_id, addresses, may_ask)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._dialing.pop(node_id, None)

    async def _dial(self, node_id: bytes, addresses: tuple[Address, ...], may_ask: bool) -> PeerLink:
        """Dial; meanwhile, after a while, let a common acquaintance ask the node to dial us. A link is a link."""
        found: list[PeerLink] = []
        failures: list[P2PNodeError] = []

        async def dial_it() -> None:
            try:
                found.append(
                    await dial_first(
                        addresses, lambda address: self._establish(address, node_id), close_duplicate
                    )
                )
                race.cancel_scope.cancel()
            except REMOTE_FAULTS as error:
                failures.append(error)

        async def ask_it_to_dial() -> None:
            await trio.sleep(wait_s)
            try:
                is_asked = await self._ask_to_connect(node_id)
            except ConnectionClosed:
                return
            if is_asked:
                await trio.sleep(config.DIAL_TRY_TIMEOUT_S)

        async def be_dialed() -> None:
            await trio.sleep(wait_s)  # two who drop their own dial for the other's at once would have none
            found.append(await self._links.wait_for(node_id))
            race.cancel_scope.cancel()

        wait_s = config.DIAL_CONNECT_TO_ME_AFTER_S if addresses else 0
        async with open_flat_nursery() as race:
            race.start_soon(be_dialed)
            async with open_flat_nursery() as attempts:
                attempts.start_soon(dial_it)
                if may_ask:
                    attempts.start_soon(ask_it_to_dial)
            race.cancel_scope.cancel()
        if not found:
            raise failures[0]
        return found[0]
