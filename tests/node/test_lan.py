"""Finding each other by multicast: when something is said, who answers, and what is remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import NetworkError, NoSource
from p2pnode.node.discovery import Ourselves
from p2pnode.node.events import NodeWarning
from p2pnode.node.lan import LanDiscovery
from p2pnode.node.lan_sockets import Group, is_near
from p2pnode.quic import Address
from p2pnode.torrent import TorrentVersion
from p2pnode.wire.local_search import LocalSearch, decode, encode, short_hash
from tests.node.conftest import Swarm, write_random

Heard = tuple[bytes, Address]


class Air:
    """Carries what is said to the group to all members, and answers to one, after a moment."""

    def __init__(self) -> None:
        self.members: dict[Address, Member] = {}
        self.said: list[tuple[float, Address, LocalSearch]] = []
        self.answered: list[tuple[Address, LocalSearch]] = []

    def join(self, host: str) -> Member:
        address = host, 30_000 + len(self.members)
        member = self.members[address] = Member(self, address)
        return member

    async def open(self, host: str) -> Sequence[Group]:
        return [self.join(host)]

    def say(self, datagram: bytes, sender: Address) -> None:
        search = decode(datagram)
        assert search is not None
        self.said.append((trio.current_time(), sender, search))
        for member in self.members.values():
            member.to_group.send_nowait((datagram, sender))


@dataclass
class Member:
    air: Air
    address: Address
    name: str = "239.192.152.143:6771"
    to_group: trio.MemorySendChannel[Heard] = field(init=False)
    to_us: trio.MemorySendChannel[Heard] = field(init=False)

    def __post_init__(self) -> None:
        self.to_group, self._group = trio.open_memory_channel[Heard](1000)
        self.to_us, self._us = trio.open_memory_channel[Heard](1000)

    async def hear(self) -> Heard:
        return await self._group.receive()

    async def hear_answer(self) -> Heard:
        return await self._us.receive()

    async def say(self, datagram: bytes) -> None:
        await trio.sleep(0.001)
        self.air.say(datagram, self.address)

    async def answer(self, datagram: bytes, address: Address) -> None:
        await trio.sleep(0.001)
        search = decode(datagram)
        assert search is not None
        self.air.answered.append((self.address, search))
        self.air.members[address].to_us.send_nowait((datagram, self.address))

    def close(self) -> None:
        del self.air.members[self.address]


async def nobody(address: Address) -> bytes:
    raise NetworkError(f"nobody is at {address}")


def torrent(number: int) -> bytes:
    return bytes([number]) * 32


@asynccontextmanager
async def running(air: Air, number: int, offered: Sequence[bytes] = ()) -> AsyncIterator[LanDiscovery]:
    """A node at 10.0.0.`number`, whose port is 4000 + `number`."""
    discovery = LanDiscovery(air.open)
    ourselves = Ourselves(
        bytes([number]) * 32, (f"10.0.0.{number}", 4000 + number), lambda: offered, lambda _: 0, nobody
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(discovery.run, ourselves)
        await trio.sleep(0.2)
        yield discovery
        nursery.cancel_scope.cancel()
    assert (f"10.0.0.{number}", 0) not in air.members


def found(discovery: LanDiscovery, file_id: bytes) -> dict[int, tuple[Address, ...]]:
    return {item.node_id[0]: item.addresses for item in discovery.found(file_id)}


async def test_who_looks_is_answered_at_once_by_who_has_it(autojump_clock: MockClock) -> None:
    air = Air()
    async with running(air, 1, [torrent(7), torrent(8)]), running(air, 2) as seeker, running(air, 3) as other:
        air.said.clear()
        seeker.look_for(torrent(7))
        other.look_for(torrent(9))
        await trio.sleep(0.2)
        assert found(seeker, torrent(7)) == {1: (("10.0.0.1", 4001),)}
        assert found(other, torrent(9)) == {}
        [(_, answer)] = air.answered
        assert answer.info_hashes == (short_hash(torrent(7)),)
        [item] = seeker.found(torrent(7))
        assert (item.file_id, item.is_fetching) == (torrent(7), True)


async def test_two_who_look_find_each_other(autojump_clock: MockClock) -> None:
    air = Air()
    async with running(air, 1) as one, running(air, 2) as two:
        one.look_for(torrent(7))
        await trio.sleep(0.2)
        two.look_for(torrent(7))
        await trio.sleep(0.2)
        assert found(one, torrent(7)) == {2: (("10.0.0.2", 4002),)}
        assert found(two, torrent(7)) == {}  # until the first says it again
        await trio.sleep(config.LAN_TORRENT_INTERVAL_S)
        one.look_for(torrent(7))
        await trio.sleep(0.2)
        assert found(two, torrent(7)) == {1: (("10.0.0.1", 4001),)}


async def test_what_we_have_is_said_at_the_start_and_every_few_minutes(autojump_clock: MockClock) -> None:
    air = Air()
    offered = [torrent(number) for number in range(config.LAN_HASHES_MAX + 5)]
    async with running(air, 1, offered):
        assert [len(search.info_hashes) for _, _, search in air.said] == [config.LAN_HASHES_MAX, 5]
        await trio.sleep(config.LAN_INTERVAL_S + 1)
        assert len(air.said) == 4


async def test_one_torrent_is_named_no_more_than_once_a_minute(autojump_clock: MockClock) -> None:
    air = Air()
    async with running(air, 1) as one:
        for _ in range(240):
            one.look_for(torrent(7))
            one.offer(torrent(7))
            await trio.sleep(0.5)
    times = [time for time, _, _ in air.said]
    assert len(times) == 2
    assert times[1] - times[0] >= config.LAN_TORRENT_INTERVAL_S


async def test_what_is_offered_later_is_said_then(autojump_clock: MockClock) -> None:
    air, offered = Air(), list[bytes]()
    async with running(air, 1, offered) as one, running(air, 2) as two:
        two.look_for(torrent(7))
        await trio.sleep(5)
        offered.append(torrent(7))
        one.offer(torrent(7))
        await trio.sleep(0.2)
        assert found(two, torrent(7)) == {1: (("10.0.0.1", 4001),)}


async def test_who_was_not_heard_for_long_is_forgotten(autojump_clock: MockClock) -> None:
    air = Air()
    async with running(air, 2) as seeker:
        async with running(air, 1, [torrent(7)]):
            seeker.look_for(torrent(7))
            await trio.sleep(1)
        await trio.sleep(config.LAN_FOUND_LASTS_S - 10)
        assert set(found(seeker, torrent(7))) == {1}
        await trio.sleep(20)
        assert found(seeker, torrent(7)) == {}


def said(number: int, port: int = 5, file_id: bytes = b"", **fields: Any) -> bytes:
    node_id = number.to_bytes(32, "big")
    search = LocalSearch(port, (short_hash(file_id or torrent(7)),), **({"node_id": node_id} | fields))
    return encode(search, "group")


@pytest.mark.parametrize(
    ("datagram", "sender"),
    [
        (b"garbage", ("10.0.0.9", 6771)),
        (said(9, node_id=None), ("10.0.0.9", 6771)),  # another program
        (said(9, node_id=bytes([2]) * 32), ("10.0.0.9", 6771)),  # ourselves, by another way
        (said(9, port=53), ("10.0.0.9", 6771)),
        (said(9), ("8.8.8.8", 6771)),
    ],
)
async def test_T1_what_comes_from_elsewhere_or_means_nobody_is_not_heard(
    autojump_clock: MockClock, datagram: bytes, sender: Address
) -> None:
    air = Air()
    async with running(air, 2, [torrent(7)]) as seeker:
        seeker.look_for(torrent(7))
        [member] = air.members.values()
        member.to_group.send_nowait((datagram, sender))
        member.to_us.send_nowait((datagram, sender))
        await trio.sleep(0.1)
        assert found(seeker, torrent(7)) == {}
        assert air.answered == []


async def test_T6_what_is_remembered_of_the_network_is_bounded(autojump_clock: MockClock) -> None:
    air = Air()
    async with running(air, 2) as seeker:
        [member] = air.members.values()
        seeker.look_for(torrent(7))
        for number in range(100, 100 + config.LAN_FOUND_MAX + 5):
            member.to_group.send_nowait((said(number), ("10.0.0.9", 1)))
            member.to_group.send_nowait((said(number, file_id=torrent(8)), ("10.0.0.9", 1)))
            await trio.sleep(0.01)
        for port in range(1000, 1000 + config.ADDRESSES_PER_NODE_MAX + 3):
            member.to_group.send_nowait((said(104, port), ("10.0.0.9", 1)))
        await trio.sleep(0.01)
        heard = list(seeker.found(torrent(7)))
        assert len(heard) == config.LAN_FOUND_MAX
        assert max(len(item.addresses) for item in heard) == config.ADDRESSES_PER_NODE_MAX
        assert list(seeker.found(torrent(8))) == []
        for number in range(config.LAN_LOOKED_FOR_MAX):
            seeker.look_for(number.to_bytes(20, "big"))
        assert list(seeker.found(torrent(7))) == []


async def test_T6_a_flood_of_questions_is_answered_at_a_bounded_rate(autojump_clock: MockClock) -> None:
    air = Air()
    async with running(air, 1, [torrent(7)]), running(air, 2):
        [asked, asker] = air.members.values()
        for number in range(500):
            asked.to_group.send_nowait((said(number + 100), asker.address))
        await trio.sleep(1)
        assert len(air.answered) <= config.LAN_ANSWERS_BURST + 2 * config.LAN_ANSWERS_PER_S


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", True),
        ("192.168.3.4", True),
        ("169.254.1.1", True),
        ("fe80::1%2", True),
        ("fd00::1", True),
        ("8.8.8.8", False),
        ("198.51.101.9", True),
        ("198.51.102.9", False),
        ("2a00:1:2:3:ffff::1", True),
        ("2a00:1:2:4::1", False),
    ],
)
def test_who_counts_as_near(monkeypatch: pytest.MonkeyPatch, host: str, near: bool) -> None:
    monkeypatch.setattr("p2pnode.node.lan_sockets.local_hosts", lambda: ["198.51.101.7", "2a00:1:2:3::5"])
    assert is_near(host) is near


# -- whole nodes -------------------------------------------------------------------------------------------


async def test_nodes_of_one_network_need_no_server(autojump_clock: MockClock, swarm: Swarm) -> None:
    air = Air()
    holder = await swarm.start("10.0.1.1", discoveries=[LanDiscovery(air.open)])
    data = write_random(holder.files_dir / "a.bin", 300_000)
    shared = await holder.node.share(holder.files_dir / "a.bin")
    fetching = await swarm.start("10.0.1.2", role="client", discoveries=[LanDiscovery(air.open)])
    completed = await fetching.node.fetch(shared.file_id, to=fetching.files_dir)
    assert completed.target.read_bytes() == data
    assert completed.seconds < 5


async def test_without_multicast_a_node_says_so_and_lives(autojump_clock: MockClock, swarm: Swarm) -> None:
    async def none(host: str) -> Sequence[Group]:
        raise NetworkError("no multicast here")

    node = await swarm.start("10.0.1.1", discoveries=[LanDiscovery(none)])
    assert "no multicast" in (await node.wait_for(NodeWarning)).text
    with pytest.raises(NoSource):
        await node.node.fetch(torrent(1), to=node.files_dir)


async def test_what_a_private_torrent_names_is_never_said(autojump_clock: MockClock, swarm: Swarm) -> None:
    from p2pnode.assembly import torrent_of

    air = Air()
    path = swarm.root / "elsewhere" / "a.bin"
    data = write_random(path, 300_000)
    private = torrent_of(path, version=TorrentVersion.HYBRID, is_private=True)
    public = torrent_of(path, version=TorrentVersion.HYBRID)
    await swarm.start_server()
    holder = await swarm.start_peer()
    shared = await holder.node.share(path)
    fetching = await swarm.start_peer(discoveries=[LanDiscovery(air.open)])
    completed = await fetching.node.fetch(private, to=fetching.files_dir)
    assert completed.target.read_bytes() == data
    assert fetching.node.offers(shared.file_id)
    await trio.sleep(2 * config.LAN_INTERVAL_S)
    assert air.said == []
    other = await swarm.start("10.0.3.1", discoveries=[LanDiscovery(air.open)])
    with trio.move_on_after(5):
        await other.node.fetch(public, to=other.files_dir)
    assert [search.info_hashes for _, _, search in air.said] == [(short_hash(shared.file_id),)]
    assert air.answered == []
