"""What nodes of a swarm tell each other of their pieces: `Have` on the control streams, from and to every link.

Who fetches a torrent says on each link to a source what it has of it; the source answers with what it has. From
then on each says what comes in addition, and what it has asked somebody for, a moment's worth at a time. Nobody
keeps a list of what is still to be said: it is the difference between what is here and what was told, so it never
grows, however slow a link is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

import trio

from p2pnode import config
from p2pnode.errors import ConnectionClosed, InvalidData, RemoteProtocolError
from p2pnode.node.peer_link import PeerLink
from p2pnode.quic import Connection
from p2pnode.quic.budget import Budget
from p2pnode.torrent import Bitfield
from p2pnode.torrent.bitfield import Ranges
from p2pnode.wire.communication import Have


@dataclass(frozen=True, slots=True)
class Word:
    """What a node says of a torrent: with `whole` all that it has, else what it has besides; and what is coming."""

    have: Bitfield
    coming: Bitfield
    whole: bool

    def then(self, later: Word) -> Word:
        """Both, one after the other."""
        if later.whole:
            return later
        return Word(self.have | later.have, self.coming | later.coming, self.whole)


@dataclass(frozen=True, slots=True)
class Standing:
    """What this node has of a torrent now, and what is coming to it."""

    have: Bitfield
    coming: Bitfield


@dataclass(frozen=True)
class Following:
    """A fetch that tells and hears; `on_word(link, word)` is called for whatever a node says, in order.

    `on_over(link)` is called when a node says that it has nothing of it any more.
    """

    file_id: bytes
    standing: Callable[[], Standing]
    on_word: Callable[[PeerLink, Word], None]
    on_over: Callable[[PeerLink], None]


@dataclass(slots=True)
class _Conversation:
    """What one link and we have told each other of one torrent."""

    link: PeerLink
    file_id: bytes
    told: Bitfield | None = None  # None: nothing that still holds
    coming_told: Bitfield | None = None
    coming_told_at: float = 0.0
    heard: Bitfield | None = None
    is_telling: bool = False

    def messages(self, standing: Standing, now: float) -> list[Have]:
        """What is to be said now so that the other side knows how things stand, noted as told."""
        have, coming = standing.have, standing.coming - standing.have
        nothing = Bitfield(have.piece_count)
        whole = self.told is None or bool((self.told - have).bits)
        if whole or now - self.coming_told_at >= config.COMING_LASTS_S:
            self.coming_told, self.coming_told_at = nothing, now  # the other side has forgotten it by now
        new_have = have if whole or self.told is None else have - self.told
        new_coming = coming - (self.coming_told or nothing)
        self.told, self.coming_told = have, coming | (self.coming_told or nothing)
        if not (whole or new_have.bits or new_coming.bits):
            return []
        return list(_haves(self.file_id, new_have.ranges(), new_coming.ranges(), whole=whole))


def _haves(file_id: bytes, have: Ranges, coming: Ranges, *, whole: bool) -> Iterator[Have]:
    """As many messages as it takes; the first with `whole`."""
    for have_part, coming_part in zip_longest(_parts(have) or [()], _parts(coming), fillvalue=()):
        yield Have(file_id, have_part, coming=coming_part, whole=whole)
        whole = False


def _parts(ranges: Ranges) -> list[Ranges]:
    size = config.RANGES_PER_MESSAGE_MAX
    return [ranges[start : start + size] for start in range(0, len(ranges), size)]


@dataclass(slots=True)
class _LinkNews:
    """What we keep for one link."""

    budget: Budget = field(default_factory=lambda: Budget(config.NEWS_PER_S, config.NEWS_BURST))
    conversations: dict[bytes, _Conversation] = field(default_factory=dict)  # by file id
    untold: int = 0  # words that wait for the other side to read


class SwarmNews:
    """All conversations of a node. They run in `nursery`, each for itself: who does not read holds up nobody else.

    `shared(file_id)` is how many pieces a torrent has that is shared here, None for any other; `zone` is our own.
    """

    def __init__(self, nursery: trio.Nursery, shared: Callable[[bytes], int | None], zone: str = "") -> None:
        self._nursery = nursery
        self._shared = shared
        self._zone = zone
        self._links: dict[Connection, _LinkNews] = {}
        self._followings: dict[bytes, list[Following]] = {}

    def is_near(self, link: PeerLink) -> bool:
        """Whether what comes over this link costs nothing scarce; without a zone of our own, everybody is near."""
        return not self._zone or link.peer.zone == self._zone

    # -- links ---------------------------------------------------------------------------------------------

    def link_began(self, link: PeerLink) -> None:
        """From now on it may be talked over."""
        self._links[link.connection] = _LinkNews()

    def link_ended(self, link: PeerLink) -> None:
        """Forget what was said over it."""
        del self._links[link.connection]

    # -- fetches -------------------------------------------------------------------------------------------

    def follow(self, following: Following) -> None:
        """A fetch takes part from now on."""
        self._followings.setdefault(following.file_id, []).append(following)

    def unfollow(self, following: Following) -> None:
        """It does no longer. If the torrent is not shared here either, it is over for whoever was told of it."""
        followings = self._followings[following.file_id]
        followings.remove(following)
        if not followings:
            del self._followings[following.file_id]
        self.changed(following.file_id)

    def begin(self, link: PeerLink, file_id: bytes) -> Bitfield | None:
        """Tell this link what we have, unless it knows; give what it has, if it has said so."""
        conversation = self._conversation(link, file_id)
        if conversation is None:
            return None
        if conversation.told is None:
            self._tell(conversation)
        return conversation.heard

    def changed(self, file_id: bytes) -> None:
        """How a torrent stands here has changed: tell all who were told of it."""
        for link_news in self._links.values():
            conversation = link_news.conversations.get(file_id)
            if conversation is not None and conversation.told is not None:
                self._tell(conversation)

    def heard(self, file_id: bytes) -> Iterable[tuple[PeerLink, Bitfield]]:
        """Who has told us what it has of a torrent."""
        for link_news in self._links.values():
            conversation = link_news.conversations.get(file_id)
            if conversation is not None and conversation.heard is not None:
                yield conversation.link, conversation.heard

    # -- what others say -----------------------------------------------------------------------------------

    def hear(self, link: PeerLink, message: Have) -> None:
        """Take in what came over a link. `RemoteProtocolError` for pieces that there are not, and for a flood."""
        link_news = self._links[link.connection]
        ranges = len(message.ranges) + len(message.coming)
        if not link_news.budget.spend(trio.current_time(), max(1, ranges / config.NEWS_RANGES_AS_ONE)):
            raise RemoteProtocolError("too much news of pieces")
        if link_news.untold > config.NEWS_TORRENTS_PER_LINK_MAX:
            raise RemoteProtocolError("news of pieces is sent, and none is read")
        if message.over:
            self._end(link, message.file_id)
            return
        conversation = self._conversation(link, message.file_id)
        if conversation is None:
            return
        if (standing := self._standing(message.file_id)) is not None:
            self._note(conversation, _word(message, standing.have.piece_count))
        if conversation.told is None:
            self._tell(conversation)

    def _end(self, link: PeerLink, file_id: bytes) -> None:
        """Both sides forget what they told each other; whoever has something to say again begins anew."""
        self._links[link.connection].conversations.pop(file_id, None)
        for following in self._followings.get(file_id, ()):
            following.on_over(link)

    def _note(self, conversation: _Conversation, word: Word) -> None:
        """Remember what was said, and pass it on to whoever fetches it."""
        earlier = None if word.whole else conversation.heard
        conversation.heard = word.have if earlier is None else earlier | word.have
        for following in self._followings.get(conversation.file_id, ()):
            following.on_word(conversation.link, word)

    # -- telling -------------------------------------------------------------------------------------------

    def _conversation(self, link: PeerLink, file_id: bytes) -> _Conversation | None:
        """That of a link about a torrent; None when the link has ended, or talks of too many."""
        link_news = self._links.get(link.connection)
        if link_news is None:
            return None
        known = link_news.conversations.get(file_id)
        if known is None and len(link_news.conversations) < config.NEWS_TORRENTS_PER_LINK_MAX:
            known = link_news.conversations[file_id] = _Conversation(link, file_id)
        return known

    def _standing(self, file_id: bytes) -> Standing | None:
        """How a torrent stands: as it is shared, or as the fetch of it stands that has most."""
        if (piece_count := self._shared(file_id)) is not None:
            return Standing(Bitfield.full(piece_count), Bitfield(piece_count))
        fetched = [following.standing() for following in self._followings.get(file_id, ())]
        return max(fetched, key=lambda standing: len(standing.have), default=None)

    def _tell(self, conversation: _Conversation) -> None:
        """See to it that the other side hears how things stand; at once, or when the pause is over."""
        if not conversation.is_telling:
            conversation.is_telling = True
            self._nursery.start_soon(self._keep_telling, conversation)

    async def _keep_telling(self, conversation: _Conversation) -> None:
        """Say what is new, wait, and again, until nothing is."""
        link = conversation.link
        pause_s = config.NEWS_INTERVAL_S if self.is_near(link) else config.NEWS_INTERVAL_FAR_S
        try:
            while messages := self._messages(conversation):
                await self._send(link, messages)
                await trio.sleep(pause_s)
        except ConnectionClosed:
            pass  # nobody is left to be told
        conversation.is_telling = False

    async def _send(self, link: PeerLink, messages: list[Have]) -> None:
        link_news = self._links[link.connection]
        link_news.untold += 1
        try:
            for message in messages:
                await link.tell(message)
        finally:
            link_news.untold -= 1

    def _messages(self, conversation: _Conversation) -> list[Have]:
        """What is to be said now; nothing when the conversation is over, or its link."""
        file_id = conversation.file_id
        link_news = self._links.get(conversation.link.connection)
        if link_news is None or link_news.conversations.get(file_id) is not conversation:
            return []
        standing = self._standing(file_id)
        if standing is None:
            del link_news.conversations[file_id]
            return [Have(file_id, over=True)]
        return conversation.messages(standing, trio.current_time())


def _word(message: Have, piece_count: int) -> Word:
    """What a message means for a torrent of so many pieces; `RemoteProtocolError` if it names others."""
    nothing = Bitfield(piece_count)
    try:
        have = Bitfield.from_ranges(message.ranges, piece_count) if message.ranges else nothing
        coming = Bitfield.from_ranges(message.coming, piece_count) if message.coming else nothing
    except InvalidData as error:
        raise RemoteProtocolError(f"news of pieces that there are not: {error}") from None
    return Word(have, coming, message.whole)
