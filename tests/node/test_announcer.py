"""Staying registered: announces are told, repeated, and told again to a server that came back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConfigError, ConnectFailed, Refused, TrustError
from p2pnode.node.events import NodeWarning, ServerConnected, ServerLost
from p2pnode.node.message_stream import MessageStream
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import PinTrust
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import Error, ErrorCode, FileAcknowledge, FileAnnounce, PresenceAnnounce
from tests.node.conftest import SERVER, Swarm, Watched, eventually, write_random
from tests.node.hand_made import HandMadeNode, Request, hand_made


def reference_to(server: HandMadeNode) -> ServerReference:
    return ServerReference(f"{SERVER}:{PORT}", PinTrust(server.node_id.hex()))


async def names(server: Watched) -> list[str]:
    return [item.name for item in await server.node.list_files()]


async def test_what_comes_and_goes_is_announced_and_withdrawn(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    peer = await swarm.start_peer()
    for name in ("a.bin", "b.bin", "empty"):
        write_random(peer.files_dir / name, 0 if name == "empty" else 100)

    async def all_listed() -> bool:
        return await names(server) == ["a.bin", "b.bin", "empty"]

    await eventually(all_listed)
    (peer.files_dir / "a.bin").unlink()

    async def one_gone() -> bool:
        return await names(server) == ["b.bin", "empty"]

    await eventually(one_gone)
    await peer.stop()
    assert await names(server) == []


async def test_presence_is_repeated_as_long_as_the_link_stands(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    server = await swarm.start_server()
    await swarm.start_peer()
    await trio.sleep(20 * config.PRESENCE_LASTS_S)
    assert len(await server.node.list_peers()) == 1


async def test_the_first_failure_is_told_and_dialing_goes_on(autojump_clock: MockClock, swarm: Swarm) -> None:
    nobody = HandMadeNode(swarm.network, SERVER)
    peer = await swarm.start("10.0.1.1", server=reference_to(nobody))
    with pytest.raises(ConnectFailed):
        await peer.node.wait_for_server()
    async with trio.open_nursery() as nursery:
        await nursery.start(nobody.run)
        await peer.wait_for(ServerConnected)
        await peer.node.wait_for_server()
        nursery.cancel_scope.cancel()


async def test_another_server_than_the_pinned_one_is_not_trusted(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    other = HandMadeNode(swarm.network, "10.0.0.2")
    peer = await swarm.start("10.0.1.1", server=reference_to(other))
    with pytest.raises(TrustError):
        await peer.node.wait_for_server()
    assert peer.all(ServerConnected) == []


async def test_a_server_that_is_closed_to_us_says_so(autojump_clock: MockClock, swarm: Swarm) -> None:
    server = await swarm.start_server(allow=frozenset({bytes(32)}))
    peer = await swarm.start("10.0.1.1", server=swarm.reference())
    with pytest.raises(Refused, match="--allow"):
        await peer.node.wait_for_server()
    await trio.sleep(60)
    waits = [event.retry_s for event in peer.all(ServerLost)]
    assert max(waits) > config.RECONNECT_MAX_S / 2
    assert server.node.statistics["links"] == 0


async def test_a_server_that_lets_us_in_is_used(autojump_clock: MockClock, swarm: Swarm) -> None:
    state = swarm.root / "state"
    peer = await swarm.start("10.0.9.9", state_dir=state)
    await peer.stop()
    await swarm.start_server(allow=frozenset({peer.node.node_id}))
    again = await swarm.start_peer(state_dir=state)
    assert again.node.statistics["links"] == 1


async def test_without_a_server_there_is_none_to_wait_for(autojump_clock: MockClock, swarm: Swarm) -> None:
    peer = await swarm.start("10.0.1.1")
    with pytest.raises(ConfigError):
        await peer.node.wait_for_server()


async def test_what_a_server_does_not_list_is_said_once(autojump_clock: MockClock, swarm: Swarm) -> None:
    async def refuse(stream: MessageStream, request: Request) -> None:
        assert isinstance(request, FileAnnounce)
        await stream.send(FileAcknowledge(request.file_id, accepted=False, reason="too\x1b many"))

    async with hand_made(swarm.network, SERVER, refuse) as server:
        peer = await swarm.start_peer(server=reference_to(server))
        write_random(peer.files_dir / "a.bin", 100)
        await peer.node.share(peer.files_dir / "a.bin")
        warning = await peer.wait_for(NodeWarning)
        assert "a.bin" in warning.text and "too" in warning.text
        await trio.sleep(60)
        assert len(peer.all(NodeWarning)) == 1


async def test_a_server_that_fails_on_announces_is_dialed_anew_on_one_link_at_a_time(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async def fail(stream: MessageStream, request: Request) -> None:
        await stream.send(Error(ErrorCode.INTERNAL, "out of order"))

    async with hand_made(swarm.network, SERVER, fail) as server:
        peer = await swarm.start("10.0.1.1", server=reference_to(server))
        write_random(peer.files_dir / "a.bin", 100)
        await peer.node.share(peer.files_dir / "a.bin")
        await peer.wait_for(ServerLost, 5)
        assert len(server.links) >= 5
        assert sum(link.connection.is_open for link in server.links) <= 1


async def test_presence_says_how_we_are_reached(autojump_clock: MockClock, swarm: Swarm) -> None:
    async with hand_made(swarm.network, SERVER) as server:
        peer = await swarm.start_peer(server=reference_to(server), name="alice", zone="rack-3")
        [link] = server.links
        assert (link.peer.name, link.peer.zone, link.peer.addresses) == (
            "alice",
            "rack-3",
            (peer.node.listen_address,),
        )
        with trio.fail_after(config.PRESENCE_LASTS_S):
            again = await link.control.receive()
        assert isinstance(again, PresenceAnnounce)
        assert again.listen_port == PORT
