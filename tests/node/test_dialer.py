"""Links to a given node: dialed where it may be, asked for elsewhere, one at a time; the newest counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import ConnectFailed, NotFound, P2PNodeError, TrustError
from p2pnode.node.dialer import Dialer, LinkTable, close_duplicate, dial_first
from p2pnode.node.events import FetchCompleted, PeerConnected
from p2pnode.node.peer_link import CloseCode, PeerLink
from p2pnode.quic import Address
from p2pnode.testing.network import Network
from p2pnode.testing.nodes import PORT
from tests.node.conftest import SERVER, Swarm, write_random
from tests.node.hand_made import HandMadeNode, hand_made

GOOD = ("10.0.0.2", PORT)
DEAD = ("10.0.0.3", PORT)


class Dialing:
    """A dialer over real links from one hand-made node to another, and what it did."""

    def __init__(self, network: Network, us: HandMadeNode, them: HandMadeNode) -> None:
        self.network = network
        self.us = us
        self.them = them
        self.links = LinkTable(us.node_id)
        self.dialer = Dialer(self.links, self.establish, self.ask)
        self.dialed: list[Address] = []
        self.asked = 0
        self.is_asked = False
        self.failure: P2PNodeError | None = None

    async def establish(self, address: Address, node_id: bytes) -> PeerLink:
        self.dialed.append(address)
        if self.failure is not None and len(self.dialed) == 1:
            raise self.failure
        link = await self.us.dial(address)
        self.links.add(link)
        return link

    async def ask(self, node_id: bytes) -> bool:
        self.asked += 1
        return self.is_asked

    async def link(self, *addresses: Address, may_ask: bool = True) -> PeerLink:
        return await self.dialer.link_to(self.them.node_id, addresses, may_ask=may_ask)

    async def be_dialed(self) -> PeerLink:
        await self.them.dial(self.us.address)
        [link] = [link for link in self.us.links if not link.dialed]
        self.links.add(link)
        return link


@pytest.fixture
async def dialing() -> AsyncIterator[Dialing]:
    async with (
        Network(seed=3) as network,
        hand_made(network, "10.0.0.1") as us,
        hand_made(network, GOOD[0]) as them,
    ):
        yield Dialing(network, us, them)


async def test_a_link_that_stands_is_used_again(autojump_clock: MockClock, dialing: Dialing) -> None:
    link = await dialing.link(GOOD)
    assert await dialing.link(GOOD) is link
    assert dialing.dialed == [GOOD]
    link.connection.close()
    assert await dialing.link(GOOD) is not link


async def test_two_who_want_the_same_node_share_one_dial(autojump_clock: MockClock, dialing: Dialing) -> None:
    links: list[PeerLink] = []

    async def link() -> None:
        links.append(await dialing.link(GOOD))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link)
        nursery.start_soon(link)
    assert links[0] is links[1]
    assert dialing.dialed == [GOOD]


@pytest.mark.parametrize("failure", [ConnectFailed("nobody"), TrustError("another"), NotFound("odd")])
async def test_the_next_address_is_dialed_after_any_fault(
    autojump_clock: MockClock, dialing: Dialing, failure: P2PNodeError
) -> None:
    dialing.failure = failure
    assert (await dialing.link(DEAD, GOOD)).node_id == dialing.them.node_id
    assert dialing.dialed == [DEAD, GOOD]


async def test_where_nobody_answers_the_reason_is_told(autojump_clock: MockClock, dialing: Dialing) -> None:
    with pytest.raises(ConnectFailed, match="nobody answers"):
        await dialing.link(DEAD)
    with pytest.raises(ConnectFailed, match="no address"):
        await dialing.link()


async def test_all_addresses_are_dialed_soon_though_the_first_ones_are_silent(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    silent = [(f"10.0.3.{number}", PORT) for number in range(3)]
    link = await dialing.link(*silent, GOOD, DEAD, may_ask=False)
    assert link.connection.is_open
    assert trio.current_time() < 4 * config.DIAL_NEXT_ADDRESS_S
    assert dialing.dialed == [*silent, GOOD]
    assert [*dialing.links] == [link]


async def test_the_slower_of_two_addresses_that_answer_is_given_up(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    link = await dialing.us.dial(GOOD)
    late = await dialing.us.dial(GOOD)
    both_are_there = trio.Event()

    async def dial(address: Address) -> PeerLink:
        with trio.CancelScope(shield=True):  # as when both come about in the same moment
            if address == DEAD:
                both_are_there.set()
                return late
            await both_are_there.wait()
            await trio.sleep(1)
            return link

    assert await dial_first([GOOD, DEAD], dial, close_duplicate) is late
    assert link.connection.is_open is False
    assert late.connection.is_open


async def test_that_somebody_else_answered_is_told_rather_than_that_nobody_did(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    async def dial(address: Address) -> PeerLink:
        if address == GOOD:
            raise TrustError("another node id")
        await trio.sleep(5)
        raise ConnectFailed("nobody answers")

    with pytest.raises(TrustError):
        await dial_first([GOOD, DEAD], dial, close_duplicate)
    with pytest.raises(TrustError):
        await dial_first([DEAD, GOOD], dial, close_duplicate)


async def test_who_dials_us_meanwhile_is_taken_without_being_asked(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialing.be_dialed)
        link = await dialing.link(DEAD, may_ask=False)
    assert not link.dialed
    assert trio.current_time() < config.DIAL_TRY_TIMEOUT_S


async def test_who_cannot_be_dialed_is_asked_for_and_taken_when_he_dials(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    dialing.is_asked = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialing.be_dialed)
        link = await dialing.link(DEAD)
    assert not link.dialed
    assert trio.current_time() < config.DIAL_CONNECT_TO_ME_AFTER_S + 1


async def test_who_answers_in_time_is_not_asked_for(autojump_clock: MockClock, dialing: Dialing) -> None:
    await dialing.link(GOOD)
    assert dialing.asked == 0


async def test_who_was_asked_himself_asks_nobody(autojump_clock: MockClock, dialing: Dialing) -> None:
    with pytest.raises(ConnectFailed):
        await dialing.link(DEAD, may_ask=False)
    assert dialing.asked == 0


async def test_who_was_asked_and_does_not_come_is_waited_for_a_while(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    dialing.is_asked = True
    with pytest.raises(ConnectFailed):
        await dialing.link()
    assert trio.current_time() == pytest.approx(config.DIAL_TRY_TIMEOUT_S, abs=0.1)


async def test_of_several_links_the_newest_is_used(autojump_clock: MockClock, dialing: Dialing) -> None:
    first = await dialing.link(GOOD)
    second = await dialing.establish(GOOD, dialing.them.node_id)
    assert dialing.links.best(dialing.them.node_id) is second
    assert dialing.links.has_other(first) and dialing.links.has_other(second)
    second.connection.close()
    assert dialing.links.best(dialing.them.node_id) is first
    assert not dialing.links.has_other(first)


@pytest.mark.parametrize("order", ["dialed first", "accepted first"])
async def test_W12_of_crossed_dials_the_smaller_ids_stays(
    autojump_clock: MockClock, dialing: Dialing, order: str
) -> None:
    makers: list[Callable[[], object]] = [lambda: dialing.establish(GOOD, b""), dialing.be_dialed]
    if order == "accepted first":
        makers.reverse()
    for make in makers:
        await make()
    best = dialing.links.best(dialing.them.node_id)
    assert best is not None
    assert best.dialed == (dialing.us.node_id < dialing.them.node_id)
    open_here = [link for link in dialing.links if link.connection.is_open]
    # Each side closes only what it dialed itself, so the other one is still open here if we are the smaller.
    assert len(open_here) == (2 if best.dialed else 1)
    [loser] = [link for link in dialing.links if link is not best]
    if loser.dialed:
        assert (await loser.connection.wait_closed()).code == CloseCode.DUPLICATE_LINK


async def test_W12_a_crossed_dial_ends_only_when_our_requests_on_it_have(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    dialed = await dialing.us.dial(GOOD)
    await dialing.them.dial(dialing.us.address)
    [accepted] = [link for link in dialing.us.links if not link.dialed]
    table = LinkTable(b"\xff" * 32)  # of one whose dials always lose
    stream, other = await dialed.request(), await dialed.request()
    table.add(dialed)
    table.add(accepted)
    await stream.aclose()
    assert dialed.connection.is_open
    await other.aclose()
    assert not dialed.connection.is_open
    assert accepted.connection.is_open


async def test_links_made_long_after_each_other_are_not_merged(
    autojump_clock: MockClock, dialing: Dialing
) -> None:
    await dialing.link(GOOD)
    await trio.sleep(config.DIAL_TRY_TIMEOUT_S + 1)
    await dialing.be_dialed()
    assert all(link.connection.is_open for link in dialing.links)


# -- in a node ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def restarted_without_a_word(swarm: Swarm) -> AsyncIterator[Swarm]:
    """A server, and a peer at 10.0.1.1 that died and runs again at 10.0.1.9 under the same key."""
    await swarm.start_server(state_dir=swarm.root / "server")
    state = swarm.root / "state"
    first = await swarm.start_peer(state_dir=state)
    swarm.network.block(SERVER, "10.0.1.1")
    await first.stop()
    await swarm.start("10.0.1.9", server=swarm.reference(), state_dir=state)
    yield swarm


async def test_a_peer_that_died_without_a_word_is_pushed_to_on_its_new_link(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    async with restarted_without_a_word(swarm):
        server = swarm.server
        assert server is not None
        write_random(server.files_dir / "a.bin", 100)
        await server.node.share(server.files_dir / "a.bin")
        await server.wait_for(PeerConnected, 2)
        assert server.node.statistics["links"] == 2  # the old one is not known to be dead yet
        [target] = server.node._link_service.links.find_peers("all")
        assert target.connection.remote_address[0] == "10.0.1.9"
        best = server.node._link_service.links.best(target.node_id)
        assert best is target


async def test_bye_on_one_of_several_links_keeps_what_the_others_announced(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Two commands of one user share a node key: when one ends, the other's file is still there."""
    server = await swarm.start_server()
    state = swarm.root / "state"
    stays = await swarm.start_peer(state_dir=state, lock_state=False)
    ends = await swarm.start_peer(state_dir=state, lock_state=False)
    assert stays.node.node_id == ends.node.node_id
    write_random(stays.files_dir / "a.bin", 100)
    await stays.node.share(stays.files_dir / "a.bin")
    await trio.sleep(1)
    await ends.stop()
    await trio.sleep(1)
    assert [item.name for item in await server.node.list_files()] == ["a.bin"]
    fetching = await swarm.start_peer()
    done: FetchCompleted = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert done.size == 100
    await stays.stop()
    await trio.sleep(1)
    assert [item.name for item in await server.node.list_files()] == ["a.bin"]  # now of who fetched it
