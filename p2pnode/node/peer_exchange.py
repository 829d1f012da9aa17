"""Who has a torrent, as the server, the reference and our peers say; and our own answer to who asks us.

So a server is a help and no need: whoever is linked to one node of a swarm finds the others through it. What peers
say of third nodes is only a rumour (`tracker/rumours.py`), and a node is believed to be one when it has proven its
key. Nobody holds up a question: who answers late is heard at the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import trio
from msgspec.structs import replace

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, NetworkError
from p2pnode.node.announcer import Announcer
from p2pnode.node.dialer import LinkTable
from p2pnode.node.discovery import Discovery, Ourselves
from p2pnode.node.events import NodeEvent, NodeWarning
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.presence import Presence
from p2pnode.node.references import Wanted
from p2pnode.node.requests import ask_sources
from p2pnode.quic import Address
from p2pnode.torrent import Bitfield, Metainfo
from p2pnode.tracker import RecentAskers, Rumours, believable, known_addresses, visible_addresses
from p2pnode.wire.codec import rows_that_fit
from p2pnode.wire.communication import FindSources, NodeItem, PieceRanges, Sources

LinkTo = Callable[[NodeItem], Awaitable[PeerLink]]

Heard = Callable[[bytes], Iterable[tuple[PeerLink, Bitfield]]]
"""(file id) → the links over which somebody told us what he has of it."""


@dataclass
class _Search:
    """What is known of one torrent that is looked for."""

    by_server: dict[bytes, NodeItem] = field(default_factory=dict)  # as it said last
    asked_at: dict[bytes, float] = field(default_factory=dict)  # peers, who was asked longest ago first
    under_way: set[bytes] = field(default_factory=set)  # who has not answered yet
    answered: trio.Event = field(default_factory=trio.Event)


class PeerExchange:
    """Asks for sources, and answers who asks. Questions run in `nursery`."""

    def __init__(
        self,
        *,
        own_id: bytes,
        presence: Presence,
        links: LinkTable,
        link_to: LinkTo,
        announcer: Callable[[], Announcer | None],
        heard: Heard,
        discoveries: Sequence[Discovery],
        nursery: trio.Nursery,
    ) -> None:
        self._own_id = own_id
        self._presence = presence
        self._links = links
        self._dial = link_to
        self._announcer = announcer
        self._heard = heard
        self._discoveries = discoveries
        self._nursery = nursery
        self._rumours = Rumours()
        self._private_roots: set[bytes | None] = set()
        self._searches: dict[tuple[bytes | None, bytes | None], _Search] = {}  # by file id and pieces root
        self._askers = RecentAskers()

    # -- asking --------------------------------------------------------------------------------------------

    def known(self, wanted: Wanted) -> list[NodeItem]:
        """Everybody who is known to have it, without a question; no rumours."""
        return list(self._known(wanted, self._search(wanted)).values())

    async def find(self, wanted: Wanted) -> list[NodeItem]:
        """Everybody who is known to have it; asks the server, and some peers who have it themselves."""
        search = self._search(wanted)
        found = self._known(wanted, search)
        self._ask_server(wanted, search)
        if wanted.is_private:
            self._private_roots.add(wanted.pieces_root)
        else:
            self._ask_peers(wanted, search, found)
        self._discover(wanted)
        with trio.move_on_after(config.SOURCES_ANSWER_S):
            while search.under_way:
                await search.answered.wait()
        found = self._known(wanted, search)
        file_ids = {wanted.file_id, wanted.likely_id, *(item.file_id for item in found.values())}
        rumours = self._rumours.take(
            filter(None, file_ids),
            trio.current_time(),
            known={self._own_id, *found},
            is_linked=lambda node_id: self._links.best(node_id) is not None,
        )
        return [*found.values(), *rumours]

    def meet(self, sources: Iterable[NodeItem]) -> None:
        """Link to those who fetch it too, beside all else: by the time that we know what it is, the links stand."""

        async def link_to(source: NodeItem) -> None:
            try:
                await self.link_to(source)
            except REMOTE_FAULTS:
                return  # who draws from it tries again, and says why not

        for source in islice((item for item in sources if item.is_fetching), config.SOURCES_LINKED_MAX):
            if self._links.best(source.node_id) is None:
                self._nursery.start_soon(link_to, source)

    async def link_to(self, source: NodeItem) -> PeerLink:
        """Link to a source that was found; whoever told us of it is believed so much more, or less."""
        try:
            link = await self._dial(source)
        except REMOTE_FAULTS:
            self._rumours.dialed(source.node_id, None)
            raise
        self._rumours.dialed(source.node_id, link.connection.remote_address)
        return link

    def _search(self, wanted: Wanted) -> _Search:
        key = wanted.file_id, wanted.pieces_root
        search = self._searches.pop(key, None) or _Search()
        self._searches[key] = search
        if len(self._searches) > config.SEARCHES_MAX:
            del self._searches[next(iter(self._searches))]
        return search

    def _known(self, wanted: Wanted, search: _Search) -> dict[bytes, NodeItem]:
        """Those that the reference, we ourselves, our links or the server name; whoever says it best counts."""
        found = {source.node_id: source for source in wanted.sources}
        for source in self._presence.known_sources(wanted.file_id, wanted.pieces_root):
            found[source.node_id] = source
        for link, item in self._neighbours(wanted.file_id):
            found.setdefault(link.node_id, item)
        found.update(search.by_server)
        found.pop(self._own_id, None)
        return found

    @property
    def _server(self) -> PeerLink | None:
        announcer = self._announcer()
        return None if announcer is None else announcer.link

    def _ask_server(self, wanted: Wanted, search: _Search) -> None:
        if self._server is not None and self._server.node_id not in search.under_way:
            self._begin(self._server, search, partial(self._hear_server, wanted, search))

    async def _hear_server(self, wanted: Wanted, search: _Search, link: PeerLink) -> None:
        """Ask it once it knows what we fetch: whoever asks later finds us, whoever asked earlier we find."""
        announcer = self._announcer()
        if announcer is not None and wanted.file_id is not None:
            with trio.move_on_after(config.SOURCES_ANSWER_S):
                await announcer.wait_told(wanted.file_id)
        sources = await _ask(link, wanted)
        search.by_server = {source.node_id: source for source in sources}

    def _ask_peers(self, wanted: Wanted, search: _Search, found: dict[bytes, NodeItem]) -> None:
        """Ask those who have it and were never asked, a few at a time; else, after a while, one of them again."""
        now = trio.current_time()
        server = self._server
        links = [link for link in map(self._links.best, found) if link is not None and link is not server]
        chosen = [link for link in links if link.node_id not in search.asked_at][: config.PEERS_ASKED_AT_ONCE]
        if not chosen and max(search.asked_at.values(), default=now) <= now - config.SOURCES_REFRESH_S:
            chosen = sorted(links, key=lambda link: search.asked_at[link.node_id])[:1]
        for link in chosen:
            if link.node_id not in search.under_way:
                search.asked_at[link.node_id] = now
                self._begin(link, search, partial(self._hear_peer, wanted))

    async def _hear_peer(self, wanted: Wanted, link: PeerLink) -> None:
        told = believable(await _ask(link, wanted), link.connection.remote_address[0])
        self._rumours.hear(link.node_id, told, trio.current_time())

    def _begin(self, link: PeerLink, search: _Search, hear: Callable[[PeerLink], Awaitable[None]]) -> None:
        async def ask() -> None:
            try:
                await hear(link)
            except REMOTE_FAULTS:
                return  # whoever keeps the link notices; others may have it meanwhile
            finally:
                search.under_way.remove(link.node_id)
                search.answered.set()
                search.answered = trio.Event()

        search.under_way.add(link.node_id)
        self._nursery.start_soon(ask)

    # -- without anybody --------------------------------------------------------------------------------------

    async def run_discoveries(self, ourselves: Ourselves, publish: Callable[[NodeEvent], None]) -> None:
        """Find others, and be found, in all the ways that this node was given."""

        async def run(discovery: Discovery) -> None:
            try:
                await discovery.run(ourselves)
            except NetworkError as error:
                publish(NodeWarning(text=str(error)))

        async with open_flat_nursery() as nursery:
            for discovery in self._discoveries:
                nursery.start_soon(run, discovery)

    def may_tell(self, metainfo: Metainfo) -> bool:
        """Whether anybody may hear that we have or fetch this: not if it was asked for by a private torrent."""
        return not any(file.pieces_root in self._private_roots for file in metainfo.files if file.size)

    def offer_changed(self, metainfo: Metainfo, *, is_offered: bool) -> None:
        """We have or fetch this from now on, have more of it, or neither any more."""
        for discovery in self._may_hear(is_private=not self.may_tell(metainfo)):
            tell = discovery.offer if is_offered else discovery.withdraw
            tell(metainfo.file_id)

    def _may_hear(self, *, is_private: bool) -> Iterator[Discovery]:
        return (discovery for discovery in self._discoveries if discovery.keeps_private or not is_private)

    def _discover(self, wanted: Wanted) -> None:
        """Look, and note who was found: on his own word, which counts as much as that of his address."""
        for file_id in {wanted.file_id, wanted.likely_id} - {None}:
            assert file_id is not None
            for discovery in self._may_hear(is_private=wanted.is_private):
                discovery.look_for(file_id)
                for item in discovery.found(file_id):
                    for address in item.addresses:
                        teller = address[0].encode()
                        self._rumours.hear(teller, [replace(item, addresses=(address,))], trio.current_time())

    # -- answering -----------------------------------------------------------------------------------------

    def answer(self, node_id: bytes, address: Address, asked: FindSources) -> Sources:
        """Who has it, as the asker may know it: as is announced here, as our peers told us, and who asked too."""
        rows = list(self._presence.answer_sources(node_id, address, asked).sources)
        named = {node_id, *(row.node_id for row in rows)}
        for link, item in chain(self._neighbours(asked.file_id), self._recent_askers(asked.file_id)):
            if len(rows) >= asked.limit:
                break
            addresses = _addresses(link, address)
            if link.node_id not in named and addresses:
                named.add(link.node_id)
                rows.append(replace(item, addresses=addresses))
        if rows and asked.file_id is not None:
            self._askers.note(asked.file_id, node_id, trio.current_time())
        return Sources(rows_that_fit(rows, asked.limit))

    def _neighbours(self, file_id: bytes | None) -> Iterator[tuple[PeerLink, NodeItem]]:
        """Those who told us what they have; each tells others himself, unless it is all there is."""
        if file_id is not None:
            for link, have in self._heard(file_id):
                ranges = have.ranges() if have.is_complete else ()
                yield link, _item(link, file_id, ranges, is_fetching=not have.is_complete)

    def _recent_askers(self, file_id: bytes | None) -> Iterator[tuple[PeerLink, NodeItem]]:
        """Those who asked us a moment ago, as if they had told that they fetch it."""
        if file_id is not None:
            for node_id in self._askers.recent(file_id, trio.current_time()):
                if (link := self._links.best(node_id)) is not None:
                    yield link, _item(link, file_id, (), is_fetching=True)


async def _ask(link: PeerLink, wanted: Wanted) -> list[NodeItem]:
    return await ask_sources(link.request, file_id=wanted.file_id, pieces_root=wanted.pieces_root)


def _item(link: PeerLink, file_id: bytes, have: PieceRanges, *, is_fetching: bool) -> NodeItem:
    return NodeItem(link.node_id, (), file_id, have, link.peer.zone, is_fetching)


def _addresses(link: PeerLink, asker: Address) -> tuple[Address, ...]:
    """Where the asker can dial a node that we are linked to."""
    observed = link.connection.remote_address
    return visible_addresses(known_addresses(observed, link.peer.addresses, 0), observed[0], asker[0])
