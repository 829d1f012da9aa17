"""Whom a download draws from: those who are found, and those who tell us that they have some of it.

It links to the ones, hears what all of them have, and makes of that the machine's `PeerJoined`, `PeerHas`,
`PeerComing` and `PeerLeft`. Whoever dialed, a link is used both ways, and a node may have several of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS, ConnectionClosed
from p2pnode.node.nurseries import open_flat_nursery
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.swarm_news import SwarmNews, Word
from p2pnode.swarm import Event, PeerComing, PeerHas, PeerJoined, PeerLeft
from p2pnode.torrent import Bitfield, Metainfo, printable
from p2pnode.wire.communication import NodeItem

FindSources = Callable[[], Awaitable[list[NodeItem]]]
LinkTo = Callable[[NodeItem], Awaitable[PeerLink]]
BestLink = Callable[[bytes], PeerLink | None]


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """How a download finds sources and reaches them.

    `known_sources` are those that need not be asked for; `best_link` is the link to a node that new requests use.
    """

    known_sources: Callable[[], list[NodeItem]]
    find_sources: FindSources
    link_to: LinkTo
    best_link: BestLink
    is_banned: Callable[[bytes], bool]


class Sources:
    """The sources of one download; `tell` takes events for its machine, None for `take_words`.

    `is_idle` is whether nothing is asked for, `is_starved` whether only new sources could help.
    """

    def __init__(
        self,
        metainfo: Metainfo,
        acquaintance: Acquaintance,
        news: SwarmNews,
        patience: Patience,
        *,
        tell: Callable[[Event | None], None],
        lost: Callable[[bytes, str], None],
        is_idle: Callable[[], bool],
        is_starved: Callable[[], bool],
    ) -> None:
        self._metainfo = metainfo
        self._file_id = metainfo.file_id
        self._acquaintance = acquaintance
        self._news = news
        self._patience = patience
        self._tell = tell
        self._lost = lost
        self._is_idle = is_idle
        self._is_starved = is_starved
        self._nursery: trio.Nursery | None = None  # None: not running
        self._trusted: set[bytes] = (
            set()
        )  # whose first dial was waited for with patience: so many, and no more
        self._awaited: set[bytes] = set()  # those of them who are dialed now
        self._joining: set[bytes] = set()  # those who are dialed, or linked
        self._joined: set[bytes] = set()  # those whom the machine may ask
        self._words: dict[bytes, Word] = {}  # heard, and not told the machine yet
        self._gone: set[bytes] = set()  # who said that it is over, before these words
        self._refused: set[bytes] = set()  # whoever broke a rule: is not asked again
        self._stalled: set[bytes] = set()  # whoever kept us waiting: is asked again only for want of others
        self._useless: set[bytes] = set()  # linked, but gives nothing: others may be linked beside them
        self._givers: set[bytes] = set()  # whoever ever gave something
        self._replaced: set[bytes] = set()  # whoever gave nothing while others were there to be tried
        self._gave_at = trio.current_time()  # when somebody gave last
        self.links: dict[bytes, PeerLink] = {}
        self._kept: dict[bytes, trio.CancelScope] = {}  # the task of each link

    async def run(self) -> None:
        """Ask again and again who has it, and link to those whom we do not have yet. Raises `NoSource`."""
        try:
            async with open_flat_nursery() as self._nursery:
                for link, _ in list(self._news.heard(self._file_id)):
                    self._take(link)
                await self._look(self._nursery)
        finally:
            self._nursery = None

    # -- what the download says ----------------------------------------------------------------------------

    def link(self, node_id: bytes) -> PeerLink | None:
        """The link for a new request to a source; None when it is none any more."""
        return self._acquaintance.best_link(node_id) if node_id in self.links else None

    def gave(self, node_id: bytes) -> None:
        """It sent something that was stored."""
        self._patience.renew()
        self._useless.discard(node_id)
        self._givers.add(node_id)
        self._gave_at = trio.current_time()

    def gives_nothing(self, node_id: bytes) -> None:
        """It refused, or will be busy for long."""
        self._useless.add(node_id)

    def stalled(self, node_id: bytes, reason: str) -> None:
        """It kept us waiting for too long."""
        self._stalled.add(node_id)
        self.lose(node_id, reason)

    def lose(self, node_id: bytes, reason: str) -> None:
        """A source is of no use now, and nothing more is taken from it; it may be found and joined again."""
        self._joining.discard(node_id)
        self._joined.discard(node_id)
        self._words.pop(node_id, None)
        if self.links.pop(node_id, None) is not None:
            self._kept.pop(node_id).cancel()
            self._lost(node_id, reason)

    def refuse(self, node_id: bytes, reason: str) -> None:
        """Never ask it for this again."""
        self._refused.add(node_id)
        self.lose(node_id, reason)

    def close(self, node_id: bytes, reason: str) -> None:
        """A source broke a rule: close its link, and never ask it for this again."""
        link = self.links.get(node_id)
        self.refuse(node_id, reason)
        if link is not None:
            link.connection.close(CloseCode.PROTOCOL_ERROR, reason)

    # -- what sources say ----------------------------------------------------------------------------------

    def hear(self, link: PeerLink, word: Word) -> None:
        """A node says what it has. It is a source from now on, if there is room for another."""
        node_id = link.node_id
        if self._nursery is None or not self._is_welcome(node_id):
            return
        if node_id not in self.links and not self._take(link):
            return
        self._tell_of_words()
        earlier = self._words.get(node_id)
        self._words[node_id] = word if earlier is None else earlier.then(word)

    def hear_over(self, link: PeerLink) -> None:
        """A node has nothing any more. If it is still said to have some, it is joined again, and so asked anew."""
        node_id = link.node_id
        if node_id in self.links:
            self._tell_of_words()
            self._gone.add(node_id)
            self.lose(node_id, "it has nothing of it any more")

    def _tell_of_words(self) -> None:
        if not (self._words or self._gone):
            self._tell(None)

    def take_words(self) -> list[Event]:
        """What was heard since the last call, as events."""
        words, self._words = self._words, {}
        gone, self._gone = self._gone, set()
        events: list[Event] = [PeerLeft(node_id) for node_id in gone]
        for node_id, word in words.items():
            if word.whole or node_id not in self._joined:
                events.append(self._joins(node_id, word.have))
            elif word.have.bits:
                events.append(PeerHas(node_id, word.have))
            if word.coming.bits:
                events.append(PeerComing(node_id, word.coming))
        return events

    def _joins(self, node_id: bytes, have: Bitfield) -> PeerJoined:
        self._joined.add(node_id)
        return PeerJoined(node_id, have, self._news.is_near(self.links[node_id]))

    def _take(self, link: PeerLink) -> bool:
        """Use a link that stands, whoever dialed; false when there are enough."""
        if self._nursery is None or len(self.links) >= 2 * config.SOURCES_LINKED_MAX:
            return False
        self._use(link, Bitfield(self._metainfo.piece_count), self._nursery)
        return True

    def _use(self, link: PeerLink, said: Bitfield, nursery: trio.Nursery) -> None:
        self._joining.add(link.node_id)
        self.links[link.node_id] = link
        scope = self._kept[link.node_id] = trio.CancelScope()
        nursery.start_soon(self._keep, link, said, scope)

    # -- links ---------------------------------------------------------------------------------------------

    async def _look(self, nursery: trio.Nursery) -> None:
        began_at = trio.current_time()
        self._join_all(self._acquaintance.known_sources(), nursery)
        while True:
            sources = await self._acquaintance.find_sources()
            self._join_all(sources, nursery)
            if self._is_idle() and not self._awaited:
                self._patience.check(f"nobody gives {printable(self._metainfo.name)!r}")
            is_young = trio.current_time() - began_at < config.SOURCES_EAGER_S
            is_served = self.links and not is_young
            await trio.sleep(config.SOURCES_REFRESH_S if is_served else self._patience.pause_s)

    def _join_all(self, sources: list[NodeItem], nursery: trio.Nursery) -> None:
        """Link to those who are wanted, while there is room."""
        for source in sorted(filter(self._is_wanted, sources), key=self._was_replaced):
            if self._has_room:
                self._joining.add(source.node_id)
                if source.node_id not in self._trusted and len(self._trusted) < config.SOURCES_TRUSTED_MAX:
                    self._trusted.add(source.node_id)
                    self._awaited.add(source.node_id)
                nursery.start_soon(self._join, source, nursery)

    @property
    def _has_room(self) -> bool:
        """Whether one more may be dialed. While nobody gives anything, those who are linked hold no place: they may
        be there to keep others out.
        """
        is_dry = trio.current_time() - self._gave_at >= config.SOURCES_REFRESH_S
        placed = self._joining - (self.links.keys() if is_dry else self._useless)
        return len(placed) < config.SOURCES_LINKED_MAX

    def _make_room(self) -> None:
        """For one who was found: of too many links, the oldest that never gave anything is not used any more."""
        if len(self.links) >= 2 * config.SOURCES_LINKED_MAX:
            node_id = next((node_id for node_id in self.links if node_id not in self._givers), None)
            if node_id is not None:
                self._replaced.add(node_id)
                self.lose(node_id, "it gave nothing, and others are tried instead")
                self._tell(PeerLeft(node_id))

    def _is_wanted(self, source: NodeItem) -> bool:
        return source.node_id not in self._joining and self._is_welcome(source.node_id)

    def _was_replaced(self, source: NodeItem) -> bool:
        return source.node_id in self._replaced

    def _is_welcome(self, node_id: bytes) -> bool:
        if node_id in self._refused or self._acquaintance.is_banned(node_id):
            return False
        return node_id not in self._stalled or self._is_starved()

    async def _join(self, source: NodeItem, nursery: trio.Nursery) -> None:
        """Link to a source that was found."""
        try:
            have = self._pieces_of(source)
            link = await self._acquaintance.link_to(source)
            if source.node_id in self._awaited:
                self._patience.renew()
        except REMOTE_FAULTS as error:
            self._patience.failed(error)
            if source.node_id not in self.links:
                self._joining.discard(source.node_id)
            return
        finally:
            self._awaited.discard(source.node_id)
        if source.node_id not in self.links:  # it may have dialed us meanwhile
            self._make_room()
            self._use(link, have, nursery)

    async def _keep(self, link: PeerLink, said: Bitfield, scope: trio.CancelScope) -> None:
        """Use a source until its last link ends, or it is lost; `said` is what others say that it has."""
        if scope.cancel_called:  # lost since it was taken
            return
        with scope:
            heard = self._news.begin(link, self._file_id)
            if heard is not None or said.is_complete:
                self._tell(self._joins(link.node_id, said if heard is None else heard))
            with trio.move_on_after(config.NEWS_FIRST_WORD_S):
                await link.connection.wait_closed()
            is_used = self.links.get(link.node_id) is link and link.connection.is_open
            if is_used and link.node_id not in self._joined:
                self._tell(self._joins(link.node_id, said))
            await self._mind(link)

    async def _mind(self, link: PeerLink) -> None:
        """See when the last link to a source ends."""
        node_id = link.node_id
        while True:
            closed = await link.connection.wait_closed()
            if self.links.get(node_id) is not link:
                return
            other = self._acquaintance.best_link(node_id)
            if other is None:
                break
            self.links[node_id] = link = other  # both had dialed at once, or it has dialed us anew
            self._news.begin(link, self._file_id)
        self._end(node_id, closed)

    def _end(self, node_id: bytes, closed: ConnectionClosed) -> None:
        self._patience.failed(closed)
        self.lose(node_id, str(closed))
        self._tell(PeerLeft(node_id))

    def _pieces_of(self, source: NodeItem) -> Bitfield:
        """What it is said to have; one of whom nothing is said, as in a ticket, is asked for everything."""
        piece_count = self._metainfo.piece_count
        if not source.have and not source.is_fetching:
            return Bitfield.full(piece_count)
        return Bitfield.from_ranges(source.have, piece_count)
