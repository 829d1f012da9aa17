"""What a node takes from the other side of a link, and whom it dials because its server asks for it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.node.peer_link import CloseCode
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import NoTrust
from p2pnode.testing.nodes import PORT
from p2pnode.wire.communication import ConnectToMe, Message, PresenceAnnounce, PresenceResponse
from p2pnode.wire.framing import frame
from tests.node.conftest import SERVER, Swarm, eventually
from tests.node.hand_made import hand_made

ANNOUNCE = PresenceAnnounce(config.PROTOCOL_VERSION, name="odd")
RESPONSE = PresenceResponse(config.PROTOCOL_VERSION, ("10.0.0.9", 1), 30.0)


@pytest.mark.parametrize("role", ["dialed", "accepted"])
async def test_presence_from_the_wrong_side_ends_the_link(
    autojump_clock: MockClock, swarm: Swarm, role: str
) -> None:
    async with hand_made(swarm.network, SERVER) as odd:
        server = ServerReference(f"{SERVER}:{PORT}", NoTrust())
        peer = await swarm.start_peer(server=server)
        wrong: Message
        if role == "dialed":
            link, wrong = await odd.dial(peer.node.listen_address), RESPONSE
        else:
            link, wrong = odd.links[0], ANNOUNCE
        await link.tell(wrong)
        with trio.fail_after(5):
            closed = await link.connection.wait_closed()
        assert closed.code == CloseCode.PROTOCOL_ERROR


async def test_wishes_of_one_node_to_be_dialed_do_not_keep_others_out(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with hand_made(swarm.network, SERVER) as server, hand_made(swarm.network, "10.0.2.1") as other:
        await swarm.start_peer(server=ServerReference(f"{SERVER}:{PORT}", NoTrust()))
        [link] = server.links
        await link.control.send_bytes(3000 * frame(ConnectToMe(b"x" * 32, (("10.0.9.9", PORT),))))
        await link.tell(ConnectToMe(other.node_id, (other.address,)))

        async def is_dialed() -> bool:
            return len(other.links) == 1

        await eventually(is_dialed, within_s=3)
        await link.tell(ConnectToMe(other.node_id, (other.address,)))
        await trio.sleep(3)
        assert len(other.links) == 1  # where a link stands, nobody is dialed again


async def test_a_burst_of_wishes_opens_no_more_dials_than_are_allowed_at_once(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with hand_made(swarm.network, SERVER) as server:
        peer = await swarm.start_peer(server=ServerReference(f"{SERVER}:{PORT}", NoTrust()))
        [link] = server.links
        wishes = [
            ConnectToMe(number.to_bytes(32, "big"), ((f"10.0.9.{number}", PORT),)) for number in range(1, 200)
        ]
        await link.control.send_bytes(b"".join(map(frame, wishes)))
        await trio.sleep(1)
        reached = {
            number
            for number in range(1, 200)
            if swarm.network.counters(peer.node.listen_address[0], f"10.0.9.{number}").sent
        }
        assert len(reached) == config.DIAL_BACKS_MAX
