"""Whom a download links to: who comes uninvited, who is invented, and who goes at the wrong moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectFailed, NoSource
from p2pnode.node.patience import Patience
from p2pnode.node.peer_link import PeerLink
from p2pnode.node.sources import Acquaintance, Sources
from p2pnode.node.swarm_news import Following, Standing, SwarmNews
from p2pnode.swarm import Event, PeerJoined, PeerLeft
from p2pnode.testing.network import Network
from p2pnode.torrent import Bitfield
from p2pnode.wire.communication import Have, NodeItem
from tests.node.conftest import write_random
from tests.node.hand_made import Content, HandMadeNode, hand_made

PLACES = 3


class Search:
    """The sources of a download that never asks for anything: `events` are what its machine would be told."""

    def __init__(self, network: Network, us: HandMadeNode, content: Content) -> None:
        self.network = network
        self.us = us
        self.content = content
        self.found: list[NodeItem] = []
        self.links: dict[bytes, PeerLink] = {}
        self.events: list[Event] = []
        self.lost: list[bytes] = []
        self.news = SwarmNews(us.nursery, lambda file_id: None)
        acquaintance = Acquaintance(list, self.find, self.link_to, self.links.get, lambda node_id: False)
        self.sources = Sources(
            content.metainfo,
            acquaintance,
            self.news,
            Patience(endless=False),
            tell=self.tell,
            lost=lambda node_id, reason: self.lost.append(node_id),
            is_idle=lambda: True,
            is_starved=lambda: True,
        )
        nothing = Bitfield(content.metainfo.piece_count)
        self.news.follow(
            Following(
                content.file_id,
                lambda: Standing(nothing, nothing),
                self.sources.hear,
                self.sources.hear_over,
            )
        )

    def tell(self, event: Event | None) -> None:
        if event is not None:
            self.events.append(event)

    async def find(self) -> list[NodeItem]:
        return self.found

    async def link_to(self, source: NodeItem) -> PeerLink:
        if not source.addresses:
            await trio.sleep(1)
            raise ConnectFailed("nobody answers")
        return await self.link(source.node_id, source.addresses[0])

    async def link(self, node_id: bytes, address: tuple[str, int]) -> PeerLink:
        link = self.links[node_id] = await self.us.dial(address)
        self.news.link_began(link)
        return link

    def hear(self, node: HandMadeNode, *, over: bool = False) -> None:
        """A node says that it has nothing, or nothing any more."""
        self.news.hear(self.links[node.node_id], Have(self.content.file_id, whole=not over, over=over))

    @asynccontextmanager
    async def nodes(self, count: int) -> AsyncIterator[list[HandMadeNode]]:
        """Nodes that we have links to."""
        nodes = [HandMadeNode(self.network, f"10.0.3.{number}") for number in range(count)]
        async with trio.open_nursery() as nursery:
            for node in nodes:
                await nursery.start(node.run)
                await self.link(node.node_id, node.address)
            yield nodes
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def searching(tmp_path: Path) -> AsyncIterator[Search]:
    write_random(tmp_path / "a.bin", 100_000)
    content = Content.of(tmp_path / "a.bin")
    async with Network(seed=5) as network, hand_made(network, "10.0.0.1") as us:
        yield Search(network, us, content)


async def test_those_who_come_with_nothing_take_no_place_of_who_is_found(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SOURCES_LINKED_MAX", PLACES)
    async with (
        searching(tmp_path) as search,
        search.nodes(2 * PLACES) as many,
        hand_made(search.network, "10.0.4.1") as seed,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(search.sources.run)
        await trio.sleep(1)
        for node in many:
            search.hear(node)
        search.found.append(search.content.source(seed))
        await trio.sleep(3 * config.SOURCES_REFRESH_S)
        full = Bitfield.full(search.content.metainfo.piece_count)
        assert PeerJoined(seed.node_id, full, True) in search.events
        assert len(search.sources.links) <= 2 * PLACES
        nursery.cancel_scope.cancel()


async def test_who_is_lost_in_the_moment_when_it_was_taken_is_not_used(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with (
        searching(tmp_path) as search,
        search.nodes(1) as [node],
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(search.sources.run)
        await trio.sleep(1)
        search.hear(node)
        search.sources.lose(node.node_id, "it was lost")
        await trio.sleep(2 * config.NEWS_FIRST_WORD_S)
        assert search.sources.links == {}
        assert search.sources.take_words() == search.events == []
        nursery.cancel_scope.cancel()


async def test_over_ends_a_source_and_makes_none(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with (
        searching(tmp_path) as search,
        search.nodes(2) as [source, stranger],
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(search.sources.run)
        await trio.sleep(1)
        search.hear(source)
        assert list(search.sources.links) == [source.node_id]
        search.sources.take_words()
        for node in (source, stranger):
            search.hear(node, over=True)
        assert search.sources.links == {}
        assert search.lost == [source.node_id]
        assert search.sources.take_words() == [PeerLeft(source.node_id)]
        search.hear(source)  # and if it has something again
        assert list(search.sources.links) == [source.node_id]
        nursery.cancel_scope.cancel()


async def test_inventing_nodes_does_not_keep_a_download_from_giving_up(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with searching(tmp_path) as search:
        invented = 0

        async def invent() -> None:
            nonlocal invented
            while True:
                search.found = [
                    NodeItem(number.to_bytes(32, "big"), (), search.content.file_id)
                    for number in range(invented, invented + 5)
                ]
                invented += 5
                await trio.sleep(0.2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(invent)
            with trio.fail_after(4 * config.NO_SOURCE_TIMEOUT_S):
                with pytest.raises(NoSource):
                    await search.sources.run()
            nursery.cancel_scope.cancel()
        assert invented > config.SOURCES_TRUSTED_MAX
