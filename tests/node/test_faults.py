"""Nodes that die, links that break, addresses that change, disks that hang: files arrive all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode import config
from p2pnode.errors import DiskFull, NoSource
from p2pnode.node.blocking import RunBlocking
from p2pnode.node.events import (
    FetchCompleted,
    FetchProgress,
    FetchSourceLost,
    FetchStarted,
    FileUnshared,
    NodeBanned,
    PeerConnected,
    PeerDisconnected,
    ServerConnected,
    ServerLost,
)
from p2pnode.node.server_reference import ServerReference
from p2pnode.quic import PinTrust
from p2pnode.testing.network import Datagram, LinkProfile
from p2pnode.testing.nodes import PORT
from tests.node.conftest import SERVER, Swarm, Watched, eventually, write_random

KIB = 1024
MIB = 1024 * KIB
SLOW = LinkProfile(rate_bytes_per_s=200_000)


async def start_sources(swarm: Swarm, count: int, size: int = MIB) -> tuple[list[Watched], bytes]:
    """Peers at 10.0.1.1 and on that all share `a.bin`, known to the server."""
    sources = []
    for number in range(count):
        data = write_random(swarm.root / f"10.0.1.{number + 1}" / "a.bin", size)
        sources.append(await swarm.start_peer())
    await listed(swarm, "a.bin", count)
    return sources, data


async def listed(swarm: Swarm, name: str, sources: int) -> None:
    assert swarm.server is not None
    server = swarm.server.node

    async def is_listed() -> bool:
        found = [item.sources for item in await server.list_files(name) if item.name == name]
        return found == ([sources] if sources else [])

    await eventually(is_listed, 60)


async def reached(fetching: Watched, bytes_done: int) -> None:
    """Wait until a fetch has so much."""
    count = 1
    while (await fetching.wait_for(FetchProgress, count)).bytes_done < bytes_done:
        count += 1


async def stop_at(source: Watched, fetching: Watched, bytes_done: int) -> None:
    """End a source when a fetch has so much."""
    await reached(fetching, bytes_done)
    await source.stop()


def slow_down(swarm: Swarm, profile: LinkProfile = SLOW) -> None:
    """Make every link to the fetching peer slow."""
    for host in (SERVER, "10.0.1.1", "10.0.1.2"):
        swarm.network.set_profile(host, "10.0.1.3", profile)


# -- sources -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["stopped", "vanished"])
async def test_another_source_continues_from_the_verified_block(
    autojump_clock: MockClock, swarm: Swarm, death: str
) -> None:
    await swarm.start_server()
    sources, data = await start_sources(swarm, 2)
    fetching = await swarm.start_peer()
    slow_down(swarm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await reached(fetching, MIB // 3)
        dying = max(sources, key=lambda source: source.node.statistics["bytes_sent"])
        if death == "stopped":
            await dying.stop()
        else:
            swarm.network.block(dying.files_dir.name, "10.0.1.3")
    done = await fetching.wait_for(FetchCompleted)
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)
    assert len(done.sources) == 2 and min(done.sources.values()) > MIB // 8
    if death == "stopped":  # the other one is relieved before its silence counts as loss
        assert [event.node_id for event in fetching.all(FetchSourceLost)][:1] == [dying.node.node_id]


async def test_a_source_that_restarts_is_found_again(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    state = swarm.root / "state"
    write_random(swarm.root / "10.0.1.1" / "a.bin", MIB)
    source = await swarm.start_peer(state_dir=state)
    await listed(swarm, "a.bin", 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow_down(swarm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await reached(fetching, MIB // 3)
        await source.stop()
        again = await swarm.start("10.0.1.1", state_dir=state, server=swarm.reference())
        assert again.node.node_id == source.node.node_id
    done = await fetching.wait_for(FetchCompleted)
    assert done.bytes_fetched == MIB
    assert list(done.sources) == [source.node.node_id]


async def test_without_any_source_the_fetch_ends_and_the_next_one_resumes(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    [source], data = await start_sources(swarm, 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow_down(swarm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_at, source, fetching, MIB // 3)
        with pytest.raises(NoSource):
            await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert not (fetching.files_dir / "a.bin").exists()
    stored = fetching.all(FetchProgress)[-1].bytes_done
    await swarm.start("10.0.1.1", server=swarm.reference())
    await listed(swarm, "a.bin", 1)
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert done.target.read_bytes() == data
    assert fetching.all(FetchStarted)[-1].bytes_resumed >= stored
    assert done.bytes_fetched == len(data) - fetching.all(FetchStarted)[-1].bytes_resumed


async def test_Q17_a_source_whose_address_changes_is_noticed_and_resumed(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    _, data = await start_sources(swarm, 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow_down(swarm)
    swarm.network.set_profile("10.0.9.9", "10.0.1.3", SLOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await reached(fetching, MIB // 3)
        moved_at = trio.current_time()
        swarm.rebind("10.0.1.1", ("10.0.9.9", PORT))
        await fetching.wait_for(FetchSourceLost)
        assert trio.current_time() - moved_at <= config.IDLE_TIMEOUT_S + 1
    done = await fetching.wait_for(FetchCompleted)
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)
    assert fetching.all(PeerConnected)[-1].address == ("10.0.9.9", PORT)


async def test_Q16_a_requester_whose_address_changes_every_5_s_loses_nothing(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    _, data = await start_sources(swarm, 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow = LinkProfile(rate_bytes_per_s=50_000)
    slow_down(swarm, slow)
    moves = 0

    async def move() -> None:
        nonlocal moves
        while True:
            await trio.sleep(5)
            moves += 1
            swarm.rebind("10.0.1.3", ("10.0.1.3", 20_000 + moves))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move)
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
        nursery.cancel_scope.cancel()
    assert moves >= 3
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)
    assert fetching.all(FetchSourceLost) == []  # the very connection lived on


# -- the server --------------------------------------------------------------------------------------------


async def test_a_transfer_between_peers_outlives_the_server(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    _, data = await start_sources(swarm, 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow_down(swarm, LinkProfile(rate_bytes_per_s=40_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await reached(fetching, MIB // 10)
        swarm.network.block(SERVER, "10.0.1.1")
        swarm.network.block(SERVER, "10.0.1.3")
        await fetching.wait_for(ServerLost)
    done = await fetching.wait_for(FetchCompleted)
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)


async def test_peers_register_again_with_a_server_that_was_killed(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """Killed means: not a word, and a fresh one under the same key knows nothing."""
    state = swarm.root / "server state"
    server = await swarm.start_server(state_dir=state)
    [source], _ = await start_sources(swarm, 1, 100 * KIB)
    other = await swarm.start("10.0.1.3", server=swarm.reference())
    await other.node.wait_for_server()
    for host in ("10.0.1.1", "10.0.1.3"):
        swarm.network.block(SERVER, host)
    await server.stop()
    assert (await source.wait_for(ServerLost)).retry_s <= config.RECONNECT_MAX_S
    for host in ("10.0.1.1", "10.0.1.3"):
        swarm.network.unblock(SERVER, host)
    again = await swarm.start_server(state_dir=state)
    assert again.node.node_id == server.node.node_id
    await listed(swarm, "a.bin", 1)
    await other.wait_for(ServerConnected, 2)
    assert [item.name for item in await other.node.list_files()] == ["a.bin"]
    done = await other.node.fetch("a.bin", to=other.files_dir)
    assert done.bytes_fetched == 100 * KIB


async def test_a_server_that_is_away_for_long_is_dialed_again_and_again(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    peer = await swarm.start_peer()
    swarm.network.block(SERVER, "10.0.1.1")
    await trio.sleep(600)
    waits = [event.retry_s for event in peer.all(ServerLost)]
    assert all(config.RECONNECT_MIN_S / 2 <= wait <= config.RECONNECT_MAX_S for wait in waits)
    assert max(waits) > config.RECONNECT_MAX_S / 2  # it backs off
    swarm.network.unblock(SERVER, "10.0.1.1")
    back_at = trio.current_time()
    await peer.wait_for(ServerConnected, 2)
    assert trio.current_time() - back_at <= config.RECONNECT_MAX_S + config.DIAL_TIMEOUT_S


async def test_a_partial_fetch_is_resumed_through_another_server(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    [source], data = await start_sources(swarm, 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow_down(swarm)
    with trio.move_on_after(3):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    await fetching.stop()
    await source.stop()
    write_random(swarm.root / "10.0.5.1" / "a.bin", MIB)
    elsewhere = await swarm.start("10.0.5.1", role="server")
    reference = ServerReference(f"10.0.5.1:{PORT}", PinTrust(elsewhere.node.node_id.hex()))
    again = await swarm.start("10.0.1.3", server=reference)
    await again.node.wait_for_server()
    done = await again.node.fetch("a.bin", to=again.files_dir)
    [started] = again.all(FetchStarted)
    assert started.bytes_resumed > MIB // 4
    assert done.bytes_fetched == len(data) - started.bytes_resumed
    assert done.target.read_bytes() == data


# -- links -------------------------------------------------------------------------------------------------


async def test_W12_peers_that_dial_each_other_at_once_keep_one_link(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    names = ["one.bin", "two.bin"]
    peers = []
    for number, name in enumerate(names):
        write_random(swarm.root / f"10.0.1.{number + 1}" / name, 300 * KIB)
        peers.append(await swarm.start_peer())
    for name in names:
        await listed(swarm, name, 1)
    for host, other in (("10.0.1.1", "10.0.1.2"), ("10.0.1.2", "10.0.1.1")):
        swarm.network.set_profile(host, other, LinkProfile(delay_s=0.1, rate_bytes_per_s=300_000))
    done: list[FetchCompleted] = []

    async def fetch(peer: Watched, name: str) -> None:
        done.append(await peer.node.fetch(name, to=peer.files_dir))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, peers[0], "two.bin")
        nursery.start_soon(fetch, peers[1], "one.bin")
    assert [event.bytes_fetched for event in done] == [300 * KIB, 300 * KIB]
    both = [event for event in peers[0].all(PeerConnected) if event.node_id == peers[1].node.node_id]
    assert sorted(event.dialed for event in both) == [False, True]  # or this test shows nothing
    await trio.sleep(2)
    assert [peer.node.statistics["links"] for peer in peers] == [2, 2]  # the server, and each other
    smaller = min(peers, key=lambda peer: peer.node.node_id)
    [stays] = [link for link in smaller.node._link_service.links if not link.is_server]
    assert stays.dialed


async def test_a_peer_that_cannot_be_dialed_is_asked_to_dial(autojump_clock: MockClock, swarm: Swarm) -> None:
    """As behind a NAT: what comes to it from a host that it did not talk to first is dropped."""
    await swarm.start_server()
    spoken_to: set[str] = set()

    def nat(datagram: Datagram) -> bytes | None:
        source, destination, data = datagram.source[0], datagram.destination[0], datagram.data
        if source == "10.0.1.1":
            spoken_to.add(destination)
        return None if destination == "10.0.1.1" and source not in spoken_to else data

    swarm.network.tap(nat)
    [source], data = await start_sources(swarm, 1, 300 * KIB)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert done.target.read_bytes() == data
    [link] = [event for event in fetching.all(PeerConnected) if event.node_id == source.node.node_id]
    assert not link.dialed
    assert done.seconds < config.DIAL_TRY_TIMEOUT_S


async def test_two_peers_that_nobody_can_dial_do_not_ask_each_other_for_ever(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    await start_sources(swarm, 1, 300 * KIB)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    swarm.network.block("10.0.1.1", "10.0.1.3")
    sent = swarm.network.counters(SERVER, "10.0.1.1").sent
    with pytest.raises(NoSource), trio.fail_after(4 * config.NO_SOURCE_TIMEOUT_S):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert swarm.network.counters(SERVER, "10.0.1.1").sent - sent < 500


@pytest.mark.parametrize("flap_s", [2.0, 10.0])
async def test_a_link_that_flaps_delays_and_loses_nothing(
    autojump_clock: MockClock, swarm: Swarm, flap_s: float
) -> None:
    await swarm.start_server()
    _, data = await start_sources(swarm, 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    slow_down(swarm)

    async def flap() -> None:
        while True:
            await trio.sleep(1.0)
            swarm.network.block("10.0.1.1", "10.0.1.3")
            await trio.sleep(flap_s)
            swarm.network.unblock("10.0.1.1", "10.0.1.3")
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flap)
        done = await fetching.node.fetch("a.bin", to=fetching.files_dir, wait=True)
        nursery.cancel_scope.cancel()
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)


# -- disks -------------------------------------------------------------------------------------------------


def hanging_disk(hang_s: float, at: Callable[[str], bool]) -> RunBlocking:
    """A `run_blocking` that hangs once, at the first call of a function whose name fits, with all calls after it."""
    works_again_at = -1.0

    async def run_blocking(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal works_again_at
        if works_again_at < 0 and at(getattr(function, "__name__", "")):
            works_again_at = trio.current_time() + hang_s
        await trio.sleep_until(works_again_at)
        return function(*arguments)

    return run_blocking


async def test_Q2_a_disk_that_hangs_stops_the_sender_and_blames_nobody(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    hops = 0

    def in_the_middle(name: str) -> bool:
        nonlocal hops
        hops += name == "_store"
        return hops == 5

    size = 16 * MIB
    waiting = (
        config.REQUESTS_PER_SOURCE * 2 * (config.STORE_AHEAD + config.RUN_SIZE)
    )  # for a thread, and in it
    await start_sources(swarm, 1, size)
    fetching = await swarm.start_peer(run_blocking=hanging_disk(60.0, in_the_middle))
    for host, other in (("10.0.1.1", "10.0.1.2"), ("10.0.1.2", "10.0.1.1")):
        swarm.network.set_profile(host, other, LinkProfile(delay_s=0.001))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await trio.sleep(30)  # in the middle of the hang
        counters = swarm.network.counters("10.0.1.1", "10.0.1.2")
        held = counters.bytes_delivered
        assert hops == 5
        written = fetching.all(FetchProgress)[-1].bytes_done
        assert held < 1.1 * (config.CONNECTION_RECEIVE_WINDOW + written + waiting) < size
        await trio.sleep(20)
        assert counters.bytes_delivered - held < 10_000  # keep-alives
    done = await fetching.wait_for(FetchCompleted)
    assert done.seconds > 60
    assert done.bytes_fetched == size
    assert fetching.all(FetchSourceLost) == []


async def test_a_source_whose_disk_hangs_is_left_for_another(autojump_clock: MockClock, swarm: Swarm) -> None:
    await swarm.start_server()
    data = write_random(swarm.root / "10.0.1.1" / "a.bin", 300 * KIB)
    hanging = await swarm.start_peer(run_blocking=hanging_disk(3600.0, lambda name: name == "read_pieces"))
    await listed(swarm, "a.bin", 1)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await fetching.wait_for(FetchStarted)
        write_random(swarm.root / "10.0.1.2" / "a.bin", 300 * KIB)
        await swarm.start("10.0.1.2", server=swarm.reference())
    done = await fetching.wait_for(FetchCompleted)
    assert done.target.read_bytes() == data
    assert done.seconds < config.STALL_TIMEOUT_S + config.SOURCES_REFRESH_S
    assert hanging.node.node_id not in done.sources


async def test_a_full_disk_ends_the_fetch_with_its_reason_and_keeps_the_node(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    await swarm.start_server()
    await start_sources(swarm, 1, 20 * config.BLOCK_SIZE)
    stored = 0

    async def run_blocking(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal stored
        await trio.lowlevel.checkpoint()
        stored += getattr(function, "__name__", "") == "_store"
        if stored == 5:
            raise DiskFull("no room is left")
        return function(*arguments)

    fetching = await swarm.start("10.0.1.3", server=swarm.reference(), run_blocking=run_blocking)
    await fetching.node.wait_for_server()
    with pytest.raises(DiskFull):
        await fetching.node.fetch("a.bin", to=fetching.files_dir)
    stored = 100  # there is room again
    done = await fetching.node.fetch("a.bin", to=fetching.files_dir)
    assert fetching.all(FetchStarted)[-1].bytes_resumed >= 4 * config.BLOCK_SIZE
    assert done.bytes_fetched == 20 * config.BLOCK_SIZE - fetching.all(FetchStarted)[-1].bytes_resumed


async def test_a_file_that_changes_under_its_sharer_is_fetched_elsewhere(
    autojump_clock: MockClock, swarm: Swarm
) -> None:
    """The source says so, between two chunks, and is not taken for a liar."""
    await swarm.start_server()
    [source], data = await start_sources(swarm, 1, 3 * MIB)
    fetching = await swarm.start("10.0.1.3", server=swarm.reference())
    await fetching.node.wait_for_server()
    (source.files_dir / "a.bin").write_bytes(data[:-1] + b"?")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fetching.node.fetch("a.bin", to=fetching.files_dir))
        await source.wait_for(FileUnshared)
        write_random(swarm.root / "10.0.1.2" / "a.bin", 3 * MIB)
        other = await swarm.start("10.0.1.2", server=swarm.reference())
    done = await fetching.wait_for(FetchCompleted)
    assert done.target.read_bytes() == data
    assert done.bytes_fetched == len(data)
    assert set(done.sources) == {source.node.node_id, other.node.node_id}
    assert {lost.reason for lost in fetching.all(FetchSourceLost)} <= {"it has nothing of it any more"}
    assert fetching.all(NodeBanned) == []
    assert fetching.all(PeerDisconnected) == []
