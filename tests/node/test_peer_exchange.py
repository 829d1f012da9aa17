"""Sources found through peers: who is asked, what is believed, and what one tells of others."""

from __future__ import annotations

from contextlib import suppress

import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import REMOTE_FAULTS
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.references import Wanted
from p2pnode.quic import Address
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import FindSources, NodeItem, Sources
from tests.node.conftest import SERVER, Swarm, Watched
from tests.node.hand_made import Content, HandMadeNode, Request
from tests.node.test_announcer import reference_to
from tests.node.test_offers import content_in, pieces


class Gossip(HandMadeNode):
    """Answers every question for sources with the same items, and counts them."""

    items: tuple[NodeItem, ...] = ()
    delay_s = 0.0
    questions = 0

    async def _answer(self, stream: MessageStream) -> None:
        request: Request = await stream.receive()
        if isinstance(request, FindSources):
            self.questions += 1
            await trio.sleep(self.delay_s)
            await stream.send(Sources(self.items))
        await stream.aclose()


def invented(number: int, address: Address, file_id: bytes) -> NodeItem:
    return NodeItem(bytes([number]) * 32, (address,), file_id, is_fetching=True)


async def found_by(asker: Watched, wanted: Wanted) -> dict[bytes, NodeItem]:
    return {item.node_id: item for item in await asker.node._exchange.find(wanted)}


async def linked(asker: Watched, gossip: HandMadeNode, content: Content) -> Wanted:
    """A reference that names `gossip`, to which there is a link."""
    source = content.source(gossip)
    await asker.node._exchange.link_to(source)
    return Wanted(file_id=content.file_id, sources=(source,))


async def test_peers_that_have_it_are_asked_who_else_has(autojump_clock: MockClock, swarm: Swarm) -> None:
    content = content_in(swarm)
    asker = await swarm.start("10.0.1.1")
    other = await swarm.start("10.0.1.2")
    gossip = Gossip(swarm.network, "10.0.2.1")
    third = NodeItem(other.node.node_id, (("10.0.1.2", PORT),), content.file_id, is_fetching=True)
    gossip.items = (third, NodeItem(asker.node.node_id, (("10.0.1.1", PORT),), content.file_id))
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        wanted = await linked(asker, gossip, content)
        found = await found_by(asker, wanted)
        assert found[other.node.node_id] == third
        assert set(found) == {gossip.node_id, other.node.node_id}
        link = await asker.node._exchange.link_to(third)
        assert link.node_id == other.node.node_id
        nursery.cancel_scope.cancel()


async def test_a_peer_is_asked_once_and_again_only_after_a_while(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    content = content_in(swarm)
    asker = await swarm.start("10.0.1.1")
    many = [Gossip(swarm.network, f"10.0.2.{number}") for number in range(1, 8)]
    async with trio.open_nursery() as nursery:
        sources = []
        for gossip in many:
            await nursery.start(gossip.run)
            sources.append(content.source(gossip))
            await asker.node._exchange.link_to(sources[-1])
        wanted = Wanted(file_id=content.file_id, sources=tuple(sources))
        counts = []
        for _ in range(4):
            await found_by(asker, wanted)
            counts.append(sum(gossip.questions for gossip in many))
        assert counts == [4, 7, 7, 7]
        for extra in range(1, 9):
            await trio.sleep(config.SOURCES_REFRESH_S)
            await found_by(asker, wanted)
            assert sum(gossip.questions for gossip in many) == 7 + extra
        assert {gossip.questions for gossip in many} == {2, 3}
        nursery.cancel_scope.cancel()


async def test_who_answers_late_holds_up_nothing_and_is_heard_next_time(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    content = content_in(swarm)
    asker = await swarm.start("10.0.1.1")
    gossip = Gossip(swarm.network, "10.0.2.1")
    gossip.items, gossip.delay_s = (invented(7, ("10.0.9.9", 5), content.file_id),), 3.0
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        wanted = await linked(asker, gossip, content)
        before = trio.current_time()
        assert set(await found_by(asker, wanted)) == {gossip.node_id}
        assert trio.current_time() - before <= config.SOURCES_ANSWER_S + 0.01
        await trio.sleep(3)
        assert set(await found_by(asker, wanted)) == {gossip.node_id, bytes([7]) * 32}
        assert gossip.questions == 1
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer_is_asked_once_at_a_time(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    content = content_in(swarm)
    server = Gossip(swarm.network, SERVER)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        asker = await swarm.start_peer(server=reference_to(server))
        server.delay_s = 4.0
        server.items = (invented(7, ("10.0.9.9", 5), content.file_id),)
        wanted = Wanted(file_id=content.file_id)
        for _ in range(5):
            assert await found_by(asker, wanted) == {}
        assert server.questions == 1
        await trio.sleep(4)
        assert set(await found_by(asker, wanted)) == {bytes([7]) * 32}
        nursery.cancel_scope.cancel()


async def test_a_server_is_asked_once_it_knows_what_we_fetch(autojump_clock: MockClock, swarm: Swarm) -> None:
    """So of two who begin in one moment, whoever is answered later finds the other."""
    content = content_in(swarm)
    await swarm.start_server()
    one, other = await swarm.start_peer(), await swarm.start_peer()
    found: list[dict[bytes, NodeItem]] = []

    async def begin(peer: Watched) -> None:
        peer.node._swarm_changed(content.metainfo, pieces(), fetching=True)
        found.append(await found_by(peer, Wanted(file_id=content.file_id)))

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin, one)
            nursery.start_soon(begin, other)
        assert sum(len(sources) for sources in found) >= 1
        for peer in (one, other):
            peer.node._swarm_changed(content.metainfo, None, fetching=False)
        found.clear()
        await trio.sleep(1)


async def test_T1_a_lying_peer_cannot_have_us_dial_a_third_party_more_than_a_few_times(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    content = content_in(swarm)
    asker = await swarm.start("10.0.1.1")
    liar = Gossip(swarm.network, "10.0.2.1")
    victim, resolver, ourselves = ("10.0.9.9", 443), ("10.0.9.9", 53), ("127.0.0.1", 80)
    dialed: set[bytes] = set()

    async def dial(item: NodeItem) -> None:
        dialed.add(item.node_id)
        with suppress(*REMOTE_FAULTS):
            await asker.node._exchange.link_to(item)

    async with trio.open_nursery() as nursery:
        await nursery.start(liar.run)
        wanted = await linked(asker, liar, content)
        began = trio.current_time()
        for batch in range(10):
            liar.items = tuple(
                NodeItem(bytes([batch, number]) * 16, (resolver, victim, ourselves), content.file_id)
                for number in range(50)
            )
            found = await found_by(asker, wanted)
            del found[liar.node_id]
            assert {item.addresses for item in found.values()} <= {(victim,)}
            async with trio.open_nursery() as dials:
                for item in found.values():
                    dials.start_soon(dial, item)
            await trio.sleep(config.SOURCES_REFRESH_S)
        minutes = (trio.current_time() - began) / config.RUMOUR_DIAL_REGAINED_S
        nursery.cancel_scope.cancel()
    assert config.RUMOUR_DIALS <= len(dialed) <= config.RUMOUR_DIALS + minutes


async def test_what_is_private_is_asked_of_no_peer(autojump_clock: MockClock, swarm: Swarm) -> None:
    content = content_in(swarm)
    asker = await swarm.start("10.0.1.1")
    gossip = Gossip(swarm.network, "10.0.2.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(gossip.run)
        wanted = await linked(asker, gossip, content)
        private = Wanted(file_id=content.file_id, sources=wanted.sources, is_private=True)
        assert set(await found_by(asker, private)) == {gossip.node_id}
        assert gossip.questions == 0
        nursery.cancel_scope.cancel()


async def test_searches_are_remembered_up_to_a_bound(autojump_clock: MockClock, swarm: Swarm) -> None:
    asker = await swarm.start("10.0.1.1")
    for number in range(config.SEARCHES_MAX + 5):
        assert await found_by(asker, Wanted(file_id=number.to_bytes(32, "big"))) == {}
    assert len(asker.node._exchange._searches) == config.SEARCHES_MAX
