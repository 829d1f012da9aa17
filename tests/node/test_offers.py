"""What a node says that it has and fetches, and what its server makes of that."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import NotFound
from p2pnode.node.events import FileShared, NodeWarning
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.node import Node
from p2pnode.node.offers import Offer
from p2pnode.storage import hash_path
from p2pnode.testing.network import Network
from p2pnode.torrent import Bitfield
from p2pnode.wire.communication import FileAcknowledge, FileAnnounce, FindSources, NodeItem, Sources
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import Content, HandMadeNode, ask, hand_made
from tests.node.test_announcer import reference_to

SIZE = 40 * 16_384


def content_in(swarm: Swarm) -> Content:
    write_random(swarm.root / "elsewhere" / "a.bin", SIZE)
    return Content.of(swarm.root / "elsewhere" / "a.bin")


def known_to(node: Node, file_id: bytes) -> dict[bytes, NodeItem]:
    """What a server's registry says of a torrent."""
    return {item.node_id: item for item in node._presence.known_sources(file_id, None)}


def pieces(*numbers: int) -> Bitfield:
    return Bitfield(40, sum(1 << number for number in numbers))


class Listener(HandMadeNode):
    """A server that notes each announce, and when it came."""

    def __init__(self, network: Network, host: str) -> None:
        super().__init__(network, host)
        self.told: list[tuple[float, FileAnnounce]] = []

    async def _answer(self, stream: MessageStream) -> None:
        while isinstance(request := await stream.receive(), FileAnnounce):
            self.told.append((trio.current_time(), request))
            await stream.send(FileAcknowledge(request.file_id, accepted=True))
        await stream.aclose()


async def test_a_fetch_is_announced_before_its_first_piece_and_until_its_end(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    peer = await swarm.start_peer()
    content = content_in(swarm)
    peer.node._swarm_changed(content.metainfo, pieces(), fetching=True)
    await trio.sleep(0.1)
    [item] = known_to(server.node, content.file_id).values()
    assert (item.node_id, item.have, item.is_fetching) == (peer.node.node_id, (), True)
    assert await server.node.list_files() == []
    peer.node._swarm_changed(content.metainfo, None, fetching=False)
    await trio.sleep(0.1)
    assert known_to(server.node, content.file_id) == {}


async def test_pieces_are_told_now_and_then_and_the_end_at_once(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    content = content_in(swarm)
    server = Listener(swarm.network, SERVER)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        peer = await swarm.start_peer(server=reference_to(server))
        began = trio.current_time()
        for number in range(37):
            peer.node._swarm_changed(content.metainfo, Bitfield(40).adding(0, number), fetching=True)
            await trio.sleep(0.3)
        peer.node._swarm_changed(content.metainfo, Bitfield.full(40), fetching=False)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    told = [(time - began, announce) for time, announce in server.told]
    counts = [sum(count for _, count in announce.have) for _, announce in told]
    assert counts[0] == 0 and counts[-1] == 40 and counts == sorted(set(counts))
    times = [round(time / config.OFFER_RENEW_S, 1) for time, _ in told[:3]]
    assert times == [0.0, 1.0, 2.0]
    assert [announce.is_fetching for _, announce in told] == [True, True, True, False]


async def test_what_is_shared_stays_shared_when_a_fetch_of_it_ends(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    peer = await swarm.start_peer()
    content = content_in(swarm)
    peer.node._swarm_changed(content.metainfo, pieces(1), fetching=True)
    await trio.sleep(0.1)
    write_random(peer.files_dir / "a.bin", SIZE)
    await peer.wait_for(FileShared)
    for have in (pieces(1, 2), None):
        peer.node._swarm_changed(content.metainfo, have, fetching=have is not None)
        await trio.sleep(2 * config.OFFER_RENEW_S)
        [item] = known_to(server.node, content.file_id).values()
        assert (item.have, item.is_fetching) == (((0, 40),), False)
        [listed] = await server.node.list_files()
        assert (listed.sources, listed.fetching) == (1, 0)
    assert [offer.is_fetching for offer in peer.node._offers] == [False]


async def test_a_fetch_that_is_over_and_given_on_is_offered_whole(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    client = await swarm.start_peer(role="client")
    content = content_in(swarm)
    client.node._swarm_changed(content.metainfo, pieces(), fetching=True)
    client.node._swarm_changed(content.metainfo, Bitfield.full(40), fetching=False)
    await trio.sleep(0.1)
    [listed] = await server.node.list_files()
    assert (listed.name, listed.sources) == ("a.bin", 1)


async def test_of_what_is_being_fetched_there_are_tickets(autojump_clock: MockClock, swarm: Swarm) -> None:
    peer = await swarm.start("10.0.1.1")
    content = content_in(swarm)
    with pytest.raises(NotFound):
        await peer.node.ticket(content.file_id)
    peer.node._swarm_changed(content.metainfo, pieces(), fetching=True)
    ticket = await peer.node.ticket(content.file_id)
    assert (ticket.name, ticket.size) == ("a.bin", SIZE)
    assert [node.node_id for node in ticket.nodes] == [peer.node.node_id]


async def test_a_node_that_is_asked_lists_itself_while_it_fetches(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    peer = await swarm.start("10.0.1.1")
    content = content_in(swarm)
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial(("10.0.1.1", 4433))
        assert await ask(link, FindSources(content.file_id)) == Sources()
        peer.node._swarm_changed(content.metainfo, pieces(3), fetching=True)
        answer = await ask(link, FindSources(content.file_id))
        assert isinstance(answer, Sources)
        [item] = answer.sources
        assert (item.node_id, item.addresses, item.is_fetching) == (peer.node.node_id, (), True)
        assert await peer.node.list_files() == []
        peer.node._swarm_changed(content.metainfo, None, fetching=False)
        assert await ask(link, FindSources(content.file_id)) == Sources()


async def test_what_cannot_be_listed_is_said(autojump_clock: MockClock, swarm: Swarm) -> None:
    peer = await swarm.start("10.0.1.1")
    content = content_in(swarm)
    peer.node._presence.offer_own = lambda announce: "no room"  # type: ignore[method-assign]
    peer.node._swarm_changed(content.metainfo, pieces(), fetching=True)
    assert "no room" in (await peer.wait_for(NodeWarning)).text


def test_of_too_many_runs_the_longest_are_told(tmp_path: Path) -> None:
    write_random(tmp_path / "b.bin", 20_000)
    have = Bitfield(5000, sum(1 << 2 * number for number in range(2000)) | 0b1111 << 4500)
    ranges = Offer(hash_path(tmp_path / "b.bin"), have, is_fetching=True).message().have
    assert len(ranges) == config.RANGES_PER_MESSAGE_MAX
    assert (4500, 4) in ranges


# -- clients -----------------------------------------------------------------------------------------------


async def test_a_client_is_a_peer_while_it_fetches_and_no_target_of_pushes(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    client = await swarm.start_peer(role="client")
    content = content_in(swarm)
    assert await server.node.list_peers() == []
    client.node._swarm_changed(content.metainfo, pieces(1), fetching=True)
    await trio.sleep(3 * config.PRESENCE_LASTS_S)
    [report] = await server.node.list_peers()
    assert (report.node_id, report.role, report.files) == (client.node.node_id, "client", 1)
    [item] = known_to(server.node, content.file_id).values()
    assert item.addresses == (client.node.listen_address,)
    with pytest.raises(NotFound):
        server.node._link_service.links.find_peers("all")
    await client.stop()
    await trio.sleep(0.1)
    assert await server.node.list_peers() == []
    assert known_to(server.node, content.file_id) == {}


async def test_another_command_of_the_same_user_does_not_take_a_fetch_s_place(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """They share a key; whoever only asks is not where others can be dialed."""
    state = swarm.root / "user"
    server = await swarm.start_server()
    fetching = await swarm.start_peer(role="client", state_dir=state, lock_state=False)
    content = content_in(swarm)
    fetching.node._swarm_changed(content.metainfo, pieces(1), fetching=True)
    await trio.sleep(0.1)
    asking = await swarm.start_peer(role="client", state_dir=state, lock_state=False)
    assert asking.node.node_id == fetching.node.node_id
    for _ in range(2):
        [item] = known_to(server.node, content.file_id).values()
        assert item.addresses == (fetching.node.listen_address,)
        await asking.stop()
        await trio.sleep(2 * config.PRESENCE_LASTS_S)
