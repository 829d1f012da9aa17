"""What is said of pieces over a link, and what is made of what is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import RemoteProtocolError
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.node.swarm_news import Following, Standing, SwarmNews, Word
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import PORT
from p2pnode.torrent import Bitfield
from p2pnode.wire.communication import Have
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import HandMadeNode, hand_made

ID, SHARED, UNKNOWN = b"f" * 32, b"s" * 32, b"u" * 32
PIECES = 5000


def pieces(*numbers: int) -> Bitfield:
    return Bitfield.from_ranges([(number, 1) for number in numbers], PIECES)


class Talk:
    """Our news over a real link to a node that notes what it is told."""

    def __init__(self, us: HandMadeNode, link: PeerLink, theirs: PeerLink, zone: str = "") -> None:
        self.us = us
        self.link = link
        self.theirs = theirs
        self.news = SwarmNews(us.nursery, lambda file_id: PIECES if file_id == SHARED else None, zone)
        self.news.link_began(link)
        self.standing = Standing(pieces(), pieces())
        self.heard: list[Word] = []
        self.told: list[tuple[float, Have]] = []
        self.over: list[PeerLink] = []
        self.following = Following(
            ID, lambda: self.standing, lambda link, word: self.heard.append(word), self.over.append
        )

    async def listen(self) -> None:
        while True:
            message = await self.theirs.control.receive()
            if isinstance(message, Have):
                self.told.append((trio.current_time(), message))

    def has(self, have: Bitfield, coming: Bitfield | None = None) -> None:
        self.standing = Standing(have, coming or pieces())
        self.news.changed(ID)

    @property
    def messages(self) -> list[Have]:
        return [message for _, message in self.told]


@asynccontextmanager
async def talking(zone: str = "") -> AsyncIterator[Talk]:
    async with (
        Network(seed=3) as network,
        hand_made(network, "10.0.0.1") as us,
        hand_made(network, "10.0.0.2") as other,
        trio.open_nursery() as nursery,
    ):
        link = await us.dial(other.address)
        await trio.sleep(1)
        talk = Talk(us, link, other.links[0], zone)
        nursery.start_soon(talk.listen)
        yield talk
        nursery.cancel_scope.cancel()


# -- telling -----------------------------------------------------------------------------------------------


async def test_the_first_word_is_whole_and_then_only_what_is_new_is_said(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.standing = Standing(pieces(1, 2), pieces(7))
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        await trio.sleep(0.5)
        assert talk.messages == [Have(ID, ((1, 2),), coming=((7, 1),), whole=True)]
        talk.has(pieces(1, 2, 7), pieces(7, 9))
        await trio.sleep(0.5)
        assert talk.messages[1:] == [Have(ID, ((7, 1),), coming=((9, 1),))]
        talk.news.changed(ID)
        talk.news.begin(talk.link, ID)
        await trio.sleep(2)
        assert len(talk.messages) == 2  # nothing is new


async def test_news_is_told_in_batches(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        have = pieces()
        for piece in range(200):
            await trio.sleep(0.01)
            have = have.adding(piece)
            talk.has(have)
        await trio.sleep(1)
        assert len(talk.messages) <= 2 + 2 / config.NEWS_INTERVAL_S
        told = pieces()
        for message in talk.messages:
            told |= Bitfield.from_ranges(message.ranges, PIECES)
        assert told == have


async def test_a_node_of_another_zone_is_told_less_often(autojump_clock: MockClock) -> None:
    async with talking(zone="here") as talk:
        assert not talk.news.is_near(talk.link)
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        have = pieces()
        for piece in range(100):
            await trio.sleep(0.05)
            have = have.adding(piece)
            talk.has(have)
        await trio.sleep(2)
        assert len(talk.messages) <= 2 + 5 / config.NEWS_INTERVAL_FAR_S


async def test_runs_beyond_one_message_go_into_several(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        have = pieces(*range(0, PIECES, 2))
        talk.standing = Standing(have, ~have)
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        await trio.sleep(1)
        assert [message.whole for message in talk.messages] == [True, False, False]
        for told, wanted in (("ranges", have), ("coming", ~have)):
            parts = [Bitfield.from_ranges(getattr(message, told), PIECES) for message in talk.messages]
            assert parts[0] | parts[1] | parts[2] == wanted


async def test_what_is_coming_for_long_is_said_again(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.standing = Standing(pieces(), pieces(5))
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        await trio.sleep(config.COMING_LASTS_S + 0.5)
        talk.has(pieces(1), pieces(5))
        await trio.sleep(0.5)
        assert [message.coming for message in talk.messages] == [((5, 1),), ((5, 1),)]


async def test_who_lost_pieces_says_all_anew(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.standing = Standing(pieces(1, 2), pieces())
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        await trio.sleep(0.5)
        talk.has(pieces(2))
        await trio.sleep(0.5)
        assert talk.messages[-1] == Have(ID, ((2, 1),), whole=True)


async def test_a_fetch_that_ends_is_over_and_one_that_is_resumed_begins_anew(
    autojump_clock: MockClock,
) -> None:
    async with talking() as talk:
        talk.standing = Standing(pieces(1), pieces())
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        await trio.sleep(0.5)
        talk.news.unfollow(talk.following)
        await trio.sleep(0.5)
        assert talk.messages[-1] == Have(ID, over=True)
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        await trio.sleep(0.5)
        assert talk.messages[-1] == Have(ID, ((1, 1),), whole=True)
        assert len(talk.messages) == 3


async def test_who_does_not_read_holds_up_nobody_else(autojump_clock: MockClock) -> None:
    rng = Random(1)
    async with (
        Network(seed=3) as network,
        hand_made(network, "10.0.0.1") as us,
        hand_made(network, "10.0.0.2") as deaf,
        hand_made(network, "10.0.0.3") as other,
        trio.open_nursery() as nursery,
    ):
        links = [await us.dial(deaf.address), await us.dial(other.address)]
        await trio.sleep(1)
        talk = Talk(us, links[1], other.links[0])
        talk.news.link_began(links[0])
        nursery.start_soon(talk.listen)
        talk.news.follow(talk.following)
        for link in links:
            talk.news.begin(link, ID)
        for _ in range(600):  # 8 KiB each: more than the windows and buffers of a stream
            talk.has(Bitfield(PIECES, rng.getrandbits(PIECES)))
            await trio.sleep(config.NEWS_INTERVAL_S)
        assert links[0].is_telling
        await trio.sleep(2)
        told = pieces()
        for message in talk.messages:
            told = Bitfield.from_ranges(message.ranges, PIECES) | (pieces() if message.whole else told)
        assert told == talk.standing.have
        nursery.cancel_scope.cancel()


# -- hearing -----------------------------------------------------------------------------------------------


async def test_a_word_is_answered_with_a_word_and_the_answer_is_not(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        for _ in range(3):
            talk.news.hear(talk.link, Have(SHARED, ((0, 3),), whole=True))
            await trio.sleep(0.5)
        assert talk.messages == [Have(SHARED, ((0, PIECES),), whole=True)]
        assert list(talk.news.heard(SHARED)) == [(talk.link, pieces(0, 1, 2))]


async def test_of_what_is_unknown_it_is_said_that_it_is_over(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.news.hear(talk.link, Have(UNKNOWN, over=True))
        await trio.sleep(0.5)
        assert talk.messages == []
        talk.news.hear(talk.link, Have(UNKNOWN, ((0, 3),), whole=True))
        await trio.sleep(0.5)
        assert talk.messages == [Have(UNKNOWN, over=True)]
        assert list(talk.news.heard(UNKNOWN)) == []


async def test_words_come_to_the_fetch_and_add_up(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.news.follow(talk.following)
        talk.news.hear(talk.link, Have(ID, ((0, 2),), whole=True))
        talk.news.hear(talk.link, Have(ID, ((4, 1),), coming=((9, 1),)))
        assert talk.heard == [
            Word(pieces(0, 1), pieces(), whole=True),
            Word(pieces(4), pieces(9), whole=False),
        ]
        assert talk.heard[0].then(talk.heard[1]) == Word(pieces(0, 1, 4), pieces(9), whole=True)
        assert talk.heard[1].then(talk.heard[0]) == talk.heard[0]
        assert talk.news.begin(talk.link, ID) == pieces(0, 1, 4)
        talk.news.hear(talk.link, Have(ID, over=True))
        assert talk.over == [talk.link]
        assert len(talk.heard) == 2
        assert list(talk.news.heard(ID)) == []


async def test_who_says_it_is_over_is_answered_when_he_begins_again(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        for _ in range(2):
            talk.news.hear(talk.link, Have(SHARED, ((0, 1),), whole=True))
            await trio.sleep(0.5)
            talk.news.hear(talk.link, Have(SHARED, over=True))
        assert talk.messages == 2 * [Have(SHARED, ((0, PIECES),), whole=True)]


@pytest.mark.parametrize("file_id", [ID, SHARED])
@pytest.mark.parametrize("field", ["ranges", "coming"])
async def test_pieces_that_there_are_not_are_the_remotes_fault(
    autojump_clock: MockClock, file_id: bytes, field: str
) -> None:
    async with talking() as talk:
        talk.news.follow(talk.following)
        with pytest.raises(RemoteProtocolError, match="pieces that there are not"):
            talk.news.hear(talk.link, Have(file_id, **{field: ((PIECES - 1, 2),)}))
        assert talk.heard == []


async def test_a_flood_is_the_remotes_fault(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.news.follow(talk.following)
        with pytest.raises(RemoteProtocolError, match="too much news"):
            for _ in range(2 * config.NEWS_BURST):
                talk.news.hear(talk.link, Have(ID, ((0, 1),)))
        assert len(talk.heard) == config.NEWS_BURST


async def test_T6_who_tells_of_torrents_without_end_and_reads_no_answer_is_at_fault(
    autojump_clock: MockClock,
) -> None:
    large = Have(ID, tuple((2**60 + number, 1) for number in range(0, 2000, 2)))  # more than 10 KiB
    async with (
        Network(seed=3) as network,
        hand_made(network, "10.0.0.1") as us,
        hand_made(network, "10.0.0.2") as deaf,
        trio.open_nursery() as nursery,
    ):
        link = await us.dial(deaf.address)
        news = Talk(us, link, deaf.links[0]).news
        for _ in range(500):  # more than the windows and buffers of a stream
            nursery.start_soon(link.tell, large)
        await trio.sleep(10)
        tasks = len(us.nursery.child_tasks)
        with pytest.raises(RemoteProtocolError, match="none is read"):
            for number in range(2 * config.NEWS_BURST):
                news.hear(link, Have(number.to_bytes(32, "big")))
                await trio.sleep(1 / config.NEWS_PER_S)
        assert len(us.nursery.child_tasks) - tasks < config.NEWS_TORRENTS_PER_LINK_MAX + 5
        nursery.cancel_scope.cancel()


async def test_T6_of_very_many_ranges_a_few_messages_are_a_flood(autojump_clock: MockClock) -> None:
    """Each range costs as much work as a small message."""
    scattered = tuple((number, 1) for number in range(0, 2 * config.RANGES_PER_MESSAGE_MAX, 2))
    cost = 2 * config.RANGES_PER_MESSAGE_MAX / config.NEWS_RANGES_AS_ONE
    async with talking() as talk:
        talk.news.follow(talk.following)
        with pytest.raises(RemoteProtocolError, match="too much news"):
            for _ in range(config.NEWS_BURST):
                talk.news.hear(talk.link, Have(ID, scattered, coming=scattered))
        assert len(talk.heard) == config.NEWS_BURST // cost


async def test_a_link_talks_of_a_bounded_number_of_torrents(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.news = SwarmNews(talk.us.nursery, lambda file_id: 1)
        talk.news.link_began(talk.link)
        many = [number.to_bytes(32, "big") for number in range(config.NEWS_TORRENTS_PER_LINK_MAX + 50)]
        for file_id in many:
            talk.news.hear(talk.link, Have(file_id, whole=True))
        await trio.sleep(5)
        assert len(talk.messages) == config.NEWS_TORRENTS_PER_LINK_MAX
        assert talk.news.begin(talk.link, many[-1]) is None


async def test_a_link_that_ended_is_talked_over_no_more(autojump_clock: MockClock) -> None:
    async with talking() as talk:
        talk.news.follow(talk.following)
        talk.news.begin(talk.link, ID)
        talk.news.hear(talk.link, Have(ID, ((0, 1),), whole=True))
        talk.news.link_ended(talk.link)
        talk.has(pieces(1))
        assert talk.news.begin(talk.link, ID) is None
        assert list(talk.news.heard(ID)) == []
        await trio.sleep(1)
        assert talk.messages == []


async def test_news_of_pieces_that_there_are_not_ends_the_link(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    write_random(server.files_dir / "a.bin", 100_000)
    shared = await server.node.share(server.files_dir / "a.bin")
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        await link.tell(Have(shared.file_id, whole=True))
        answer = await link.control.receive_as(Have)
        assert answer == Have(shared.file_id, ((0, shared.metainfo.piece_count),), whole=True)
        await link.tell(Have(shared.file_id, ((shared.metainfo.piece_count, 1),)))
        with trio.fail_after(5):
            closed = await link.connection.wait_closed()
        assert closed.code == CloseCode.PROTOCOL_ERROR
