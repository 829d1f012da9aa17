"""Who is there: announced, repeated, expired, gone with a word."""

from __future__ import annotations

import socket
from contextlib import nullcontext

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import NotFound, Refused
from p2pnode.node.events import FileShared, FileUnshared, NodeWarning
from p2pnode.node.presence import Presence
from p2pnode.testing.nodes import PORT
from p2pnode.tracker.node_registry import NodeRegistryLimits
from p2pnode.wire.communication import Error, ErrorCode, FileAnnounce, FileList, PresenceAnnounce
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import HandMadeNode, announce, ask, hand_made

FILE = FileAnnounce(bytes(32), "a.bin", 5, 16384, have=((0, 1),))


async def names(swarm: Swarm) -> list[str]:
    assert swarm.server is not None
    return [report.name for report in await swarm.server.node.list_peers()]


class SilentNode(HandMadeNode):
    """Announces its presence once, and keeps the connection."""

    async def _announce_presence(self, link: object, role: str) -> None:
        return


async def test_a_presence_that_is_not_repeated_expires_with_its_files(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    node = SilentNode(swarm.network, "10.0.2.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        link = await node.dial((SERVER, PORT))
        await announce(link, FILE)
        await trio.sleep(config.PRESENCE_LASTS_S - 1)
        assert await names(swarm) == ["10.0.2.1"]
        assert len(await server.node.list_files()) == 1
        await trio.sleep(2)
        assert await names(swarm) == []
        assert await server.node.list_files() == []
        [refused] = await announce(link, FILE)  # the link stands, but who is it?
        assert not refused.accepted
        await link.tell(PresenceAnnounce(config.PROTOCOL_VERSION, name="back", listen_port=PORT))
        await trio.sleep(0.1)
        assert [answer.accepted for answer in await announce(link, FILE)] == [True]
        assert await names(swarm) == ["back"]
        nursery.cancel_scope.cancel()


async def test_bye_is_heard_at_once(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    peer = await swarm.start_peer()
    assert await names(swarm) == ["10.0.1.1"]
    await peer.stop()
    await trio.sleep(0.1)
    assert await names(swarm) == []


async def test_a_node_whose_link_broke_may_be_back_in_a_moment(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        await announce(link, FILE)
        link.connection.close()
        await trio.sleep(config.PRESENCE_AFTER_LINK_LOST_S - 1)
        assert len(await server.node.list_files()) == 1
        await trio.sleep(2)
        assert await server.node.list_files() == []


@pytest.mark.parametrize(
    ("role", "is_listed"), [("peer", True), ("seedbox", True), ("client", False), ("server", False)]
)
async def test_who_counts_as_a_peer(
    autojump_clock: MockClock, swarm: Swarm, role: str, is_listed: bool
) -> None:
    """A role of a later version counts as a peer."""
    await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        await node.dial((SERVER, PORT), role=role)
        assert (await names(swarm) == ["10.0.2.1"]) is is_listed
        assert swarm.server is not None
        with nullcontext() if is_listed else pytest.raises(NotFound):
            found = swarm.server.node._link_service.links.find_peers("all")
            assert [link.node_id for link in found] == [node.node_id]


async def test_a_server_that_is_full_says_so(
    autojump_clock: MockClock, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await swarm.start_server()
    limits = NodeRegistryLimits(nodes=2)  # the server itself, and one more
    monkeypatch.setattr(server.node._presence._registry, "_limits", limits)
    async with (
        hand_made(swarm.network, "10.0.2.1") as one,
        hand_made(swarm.network, "10.0.2.2") as other,
    ):
        await one.dial((SERVER, PORT))
        with pytest.raises(Refused, match="as it can hold"):
            await other.dial((SERVER, PORT))
        assert await names(swarm) == ["10.0.2.1"]


async def test_a_page_has_as_many_rows_as_fit(autojump_clock: MockClock, swarm: Swarm) -> None:
    """48 names of 1,024 characters of four bytes do not fit a frame; none is left out all the same."""
    server = await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        offers = [
            FileAnnounce(bytes([number]) * 32, "\U0001f600" * 255 + str(number), 5, 16384, have=((0, 1),))
            for number in range(100)
        ]
        assert all(answer.accepted for answer in await announce(link, *offers))
        found, after, pages = [], b"", 0
        while True:
            page = await ask(link, FileList(after=after))
            assert isinstance(page, FileList)
            found += page.files
            pages += 1
            if not (after := page.next):
                break
    assert sorted(item.file_id for item in found) == [offer.file_id for offer in offers]
    assert len(found) == len(set(found)) and pages >= 3
    assert await server.node.list_files("nothing begins so") == []


async def test_a_node_that_listens_everywhere_gives_the_addresses_of_its_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def presence(host: str) -> Presence:
        return Presence(node_id=bytes(32), name="a", role="peer", zone="", listen_address=(host, 5))

    assert presence("10.0.0.7").own_addresses() == (("10.0.0.7", 5),)
    everywhere = presence("::").own_addresses()
    assert all(port == 5 for _, port in everywhere)
    assert not {"::", "0.0.0.0"} & {host for host, _ in everywhere}

    class NoRoute(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError("no route")

    monkeypatch.setattr(socket, "socket", NoRoute)
    assert presence("::").own_addresses() == ()


async def test_an_error_on_the_control_stream_is_no_answer(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        link = await node.dial((SERVER, PORT))
        await link.tell(Error(ErrorCode.INTERNAL))
        assert (await link.connection.wait_closed()).code == 1


async def test_T6_a_stranger_cannot_keep_our_own_share_out_of_the_list(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    write_random(swarm.root / "elsewhere" / "a.bin", 100)
    other = await swarm.start("10.0.1.9")
    shared = await other.node.share(swarm.root / "elsewhere" / "a.bin")
    await other.stop()
    async with hand_made(swarm.network, "10.0.2.1") as node:
        lie = FileAnnounce(shared.file_id, "b.bin", 7, 16384, have=((0, 1),))
        [answer] = await announce(await node.dial((SERVER, PORT)), lie)
        assert answer.accepted
        await server.node.share(swarm.root / "elsewhere" / "a.bin")
        [listed] = await server.node.list_files()
        assert (listed.name, listed.size, listed.sources) == ("a.bin", 100, 2)
    assert server.all(NodeWarning) == []


async def test_an_empty_file_that_is_gone_is_not_listed(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server()
    write_random(server.files_dir / "empty", 0)
    await server.wait_for(FileShared)
    assert [item.name for item in await server.node.list_files()] == ["empty"]
    (server.files_dir / "empty").unlink()
    await server.wait_for(FileUnshared)
    assert await server.node.list_files() == []
