"""Path MTU discovery on connections: what a path carries is found, used and given up in time."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from aioquic import tls

from p2pnode import config
from p2pnode.quic import Connection, Diagnostics
from p2pnode.quic.aioquic_internals import HardenedConnection
from p2pnode.quic.path_mtu import RAISE_INTERVAL_S
from p2pnode.testing.network import Datagram, LinkProfile, Network
from tests.quic import shrinking_loopback
from tests.quic.endpoints import DIALER, LISTENER, connect, endpoint_at, receive_all, send_and_finish
from tests.quic.engines import CLIENT, SERVER, Pair, connected, seal

pytestmark = pytest.mark.usefixtures("both_ways")

Clock = trio.testing.MockClock

JUMBO = LinkProfile(mtu=65_507)
NARROW = LinkProfile(mtu=1300)
UP = (DIALER[0], LISTENER[0])
DOWN = (LISTENER[0], DIALER[0])


class Sizes:
    """Counts the datagrams of each size that are sent one way; a network's tap."""

    def __init__(self, network: Network, way: tuple[str, str]) -> None:
        self.sent: Counter[int] = Counter()
        self._way = way
        network.tap(self)

    def __call__(self, datagram: Datagram) -> bytes:
        if (datagram.source[0], datagram.destination[0]) == self._way:
            self.sent[len(datagram.data)] += 1
        return datagram.data


@asynccontextmanager
async def connected_on(network: Network, **options: Any) -> AsyncIterator[tuple[Connection, Connection]]:
    """The dialer's and the listener's end; `options` are those of both endpoints."""
    async with (
        endpoint_at(network, DIALER, **options) as dialer,
        endpoint_at(network, LISTENER, **options) as listener,
    ):
        yield await connect(dialer, listener)


async def send(source: Connection, target: Connection, size: int) -> None:
    """Send so many bytes over a new stream, compare them and hear that they arrived."""
    data = os.urandom(size)
    async with trio.open_nursery() as nursery:
        stream = await source.open_stream()
        nursery.start_soon(send_and_finish, stream, data)
        theirs = await target.accept_stream()
        assert await receive_all(theirs) == data
        await theirs.send_eof()
        assert await receive_all(stream) == b""


async def send_often(source: Connection, target: Connection) -> None:
    """Send so much, and for so many round trips, that nothing is left to try."""
    for _ in range(20):
        await send(source, target, 50_000)


# -- finding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batching", [True, False])
@pytest.mark.parametrize(
    ("mtu", "found"), [(65_507, 16_000), (8972, 8900), (1472, 1472), (1452, 1452), (1300, 1280), (1200, 1200)]
)
async def test_the_path_decides(autojump_clock: Clock, mtu: int, found: int, batching: bool) -> None:
    async with (
        Network(profile=LinkProfile(mtu=mtu)) as network,
        connected_on(network, diagnostics=Diagnostics(batching=batching)) as (dialled, accepted),
    ):
        await send_often(dialled, accepted)
        assert dialled.statistics.datagram_size == found
        assert accepted.statistics.datagram_size == 1200  # it sends next to nothing, and needs no more
        await send_often(accepted, dialled)
        assert accepted.statistics.datagram_size == found


async def test_a_jumbo_path_is_in_use_after_a_few_round_trips(autojump_clock: Clock) -> None:
    async with Network(profile=JUMBO) as network, connected_on(network) as (dialled, accepted):
        sizes = Sizes(network, UP)
        await send(dialled, accepted, 10_000_000)
        assert dialled.statistics.datagram_size == 16_000
        assert sum(count for size, count in sizes.sent.items() if 1000 < size < 16_000) < 200
        assert dialled.statistics.packets_lost == 0


async def test_each_direction_is_a_path_of_its_own(autojump_clock: Clock) -> None:
    async with Network(profile=JUMBO) as network, connected_on(network) as (dialled, accepted):
        network.set_profile(*DOWN, NARROW)
        await send_often(dialled, accepted)
        await send_often(accepted, dialled)
        assert dialled.statistics.datagram_size == 16_000
        assert accepted.statistics.datagram_size == 1280


@pytest.mark.parametrize("seed", range(5, 10))  # with some others each probe of one size is lost
async def test_loss_by_chance_does_not_hide_what_a_path_carries(autojump_clock: Clock, seed: int) -> None:
    profile = LinkProfile(mtu=65_507, loss=0.1)
    async with Network(seed, profile) as network, connected_on(network) as (dialled, accepted):
        await send_often(dialled, accepted)
        assert dialled.statistics.datagram_size >= 8900


async def test_who_sends_nothing_probes_nothing(autojump_clock: Clock) -> None:
    async with Network(profile=JUMBO) as network, connected_on(network) as (dialled, _accepted):
        up, down = Sizes(network, UP), Sizes(network, DOWN)
        await trio.sleep(2 * RAISE_INTERVAL_S)
        assert max(up.sent) <= 1200
        assert max(down.sent) <= 1200
        assert dialled.is_open


# -- limits ------------------------------------------------------------------------------------------------


async def test_an_endpoint_may_limit_it_or_turn_it_off(autojump_clock: Clock) -> None:
    async with Network(profile=JUMBO) as network:
        async with connected_on(network, datagram_size_max=5000) as (dialled, accepted):
            await send(dialled, accepted, 1_000_000)
            assert dialled.statistics.datagram_size == 5000
        fixed = {"datagram_size": 1452, "datagram_size_max": 1452}
        async with connected_on(network, **fixed) as (dialled, accepted):
            sizes = Sizes(network, UP)
            await send(dialled, accepted, 1_000_000)
            assert dialled.statistics.datagram_size == max(sizes.sent) == 1452


class _Modest(HardenedConnection):
    """Says that it takes datagrams of so many bytes."""

    limit = 5000

    def _serialize_transport_parameters(self) -> bytes:
        parameters: bytes = super()._serialize_transport_parameters()
        return parameters + b"\x03\x02" + (self.limit | 0x4000).to_bytes(2, "big")


class _VeryModest(_Modest):
    limit = 1250


@pytest.mark.parametrize("victim_is_client", [False, True])
def test_the_remote_is_sent_no_more_than_it_says_it_takes(victim_is_client: bool) -> None:
    pair = connected(victim_is_client=victim_is_client, attacker_class=_Modest)
    assert largest_sent_by(pair) == pair.victim.datagram_size == 5000
    fixed = {"datagram_size": 1452, "datagram_size_max": 1452}
    pair = connected(victim_is_client=victim_is_client, attacker_class=_VeryModest, **fixed)
    assert largest_sent_by(pair) == pair.victim.datagram_size == 1250


def largest_sent_by(pair: Pair) -> int:
    """Make the victim send, on a path that carries everything; its largest datagram."""
    victim = pair.victim
    stream_id = victim.get_next_available_stream_id()
    largest = 0
    for _ in range(20):
        victim.send_stream_data(stream_id, bytes(20_000))
        sent = victim.datagrams_to_send(pair.now)
        largest = max([largest, *(len(data) for data, _ in sent)])
        for data, _ in sent:
            pair.attacker.receive_datagram(data, SERVER if victim is pair.listener else CLIENT, pair.now)
        pair.exchange(1)
    return largest


# -- losing ------------------------------------------------------------------------------------------------


async def longest_silence(dialled: Connection, accepted: Connection, size: int) -> float:
    """Send up; the longest time in which nothing new was received."""
    stream = await dialled.open_stream()
    silence, heard_at = 0.0, trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_finish, stream, bytes(size))
        theirs = await accepted.accept_stream()
        while await theirs.receive_some():
            silence = max(silence, trio.current_time() - heard_at)
            heard_at = trio.current_time()
    return silence


@pytest.mark.parametrize("batching", [True, False])
@pytest.mark.parametrize("narrow", [8972, 1300, 1200])
async def test_a_path_that_shrinks_in_mid_transfer_and_grows_again(
    autojump_clock: Clock, narrow: int, batching: bool
) -> None:
    slow = LinkProfile(mtu=65_507, rate_bytes_per_s=2_000_000, queue_bytes=160_000)
    async with (
        Network(profile=slow) as network,
        connected_on(network, diagnostics=Diagnostics(batching=batching)) as (dialled, accepted),
    ):
        await send(dialled, accepted, 1_000_000)
        assert dialled.statistics.datagram_size == 16_000
        async with trio.open_nursery() as nursery:

            async def shrink() -> None:
                await trio.sleep(0.6)  # the queue that slow start overran is empty again
                network.set_profile(*UP, replace(slow, mtu=narrow))

            nursery.start_soon(shrink)
            assert await longest_silence(dialled, accepted, 3_000_000) < 2
        assert narrow - 72 <= dialled.statistics.datagram_size <= narrow
        network.set_profile(*UP, slow)
        await trio.sleep(RAISE_INTERVAL_S)
        with trio.fail_after(30):  # a queue that this very transfer keeps full drops most probes
            while dialled.statistics.datagram_size < 16_000:
                await send(dialled, accepted, 1_000_000)


async def test_a_path_that_shrinks_under_many_small_messages(autojump_clock: Clock) -> None:
    """The small ones arrive, so that there is never a silence: only the large ones tell."""
    async with Network(profile=JUMBO) as network, connected_on(network) as (dialled, accepted):
        await send(dialled, accepted, 1_000_000)
        network.set_profile(*UP, NARROW)

        async def chatter(stop: trio.CancelScope) -> None:
            with stop:
                while True:
                    await send(dialled, accepted, 100)

        async with trio.open_nursery() as nursery:
            stop = trio.CancelScope()
            large = await dialled.open_stream()
            nursery.start_soon(send_and_finish, large, bytes(1_000_000))
            theirs = await accepted.accept_stream()
            nursery.start_soon(chatter, stop)
            with trio.fail_after(20):
                assert len(await receive_all(theirs)) == 1_000_000
            stop.cancel()
        assert dialled.statistics.datagram_size <= 1300


async def test_a_path_that_loses_one_datagram_now_and_then_is_no_black_hole(autojump_clock: Clock) -> None:
    async with Network(profile=JUMBO) as network, connected_on(network) as (dialled, accepted):
        await send(dialled, accepted, 1_000_000)
        for _ in range(10):
            network.block(*UP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, dialled, accepted, 100)
                await trio.sleep(0.01)
                network.unblock(*UP)
        assert network.counters(*UP).lost >= 10
        assert dialled.statistics.datagram_size == 16_000


async def test_lost_probes_are_no_congestion(autojump_clock: Clock) -> None:
    """Connections that differ in nothing but what they try have the same window, and lose nothing."""
    windows = []
    profile = LinkProfile(mtu=1452)
    for limit in (1452, config.DATAGRAM_SIZE_MAX):
        async with (
            Network(profile=profile) as network,
            connected_on(network, datagram_size_max=limit) as (dialled, accepted),
        ):
            sizes = Sizes(network, UP)
            await send(dialled, accepted, 1_500_000)
            probes_lost = sum(count for size, count in sizes.sent.items() if size > 1452)
            assert (probes_lost > 0) is (limit > 1452)
            assert network.counters(*UP).lost == probes_lost
            assert dialled.statistics.packets_lost == 0
            windows.append(dialled.statistics.congestion_window)
    assert windows[1] >= 0.95 * windows[0]


def test_a_probe_is_not_in_flight_and_arms_no_timer() -> None:
    pair = connected(victim_is_client=True, attacker_class=HardenedConnection)
    victim, control = pair.victim, pair.victim._loss._cc
    stream_id = victim.open_stream()
    victim.send_stream_data(stream_id, bytes(1100))
    before = victim.datagrams_to_send(pair.now)
    victim.send_stream_data(stream_id, bytes(3000))
    packets = len(victim._spaces[tls.Epoch.ONE_RTT].sent_packets)
    in_flight = control.bytes_in_flight
    sent = [data for data, _ in victim.datagrams_to_send(pair.now)]
    assert before
    assert max(map(len, sent[:-1])) == 1200
    assert len(sent[-1]) == 1452
    assert control.bytes_in_flight - in_flight == sum(map(len, sent[:-1]))
    space = victim._spaces[tls.Epoch.ONE_RTT]
    assert len(space.sent_packets) - packets == len(sent)
    assert not list(space.sent_packets.values())[-1].is_ack_eliciting


@pytest.mark.parametrize("mtus", [(1300,), (65_536, 9000, 1300)])
async def test_sockets_of_the_kernel_tell_what_a_real_path_carries(mtus: tuple[int, ...]) -> None:
    """On an interface that grows no larger, and on one that shrinks twice while it is in use."""
    program = ["unshare", "--map-root-user", "--net", sys.executable, "-m", shrinking_loopback.__name__]
    with trio.fail_after(60):
        done = await trio.run_process([*program, *map(str, mtus)], capture_stdout=True)
    found = {65_536: 16_000, 9000: 8900, 1300: 1232}  # IPv4 and UDP take 28 bytes
    assert [int(line) for line in done.stdout.split()] == [found[mtu] for mtu in mtus]


# -- other paths -------------------------------------------------------------------------------------------


async def test_another_path_is_another_search(autojump_clock: Clock) -> None:
    """The dialer moves to a network that carries less; its listener must not learn that by a silence."""
    async with Network(profile=JUMBO) as network, connected_on(network) as (dialled, accepted):
        await send(accepted, dialled, 2_000_000)
        assert accepted.statistics.datagram_size == 16_000
        elsewhere = ("10.0.0.3", 7)
        network.set_profile(LISTENER[0], elsewhere[0], NARROW)
        network.rebind(dialled._socket, elsewhere)
        sizes = Sizes(network, (LISTENER[0], elsewhere[0]))
        await send(dialled, accepted, 1000)
        assert max(sizes.sent) <= 1200
        assert accepted.statistics.datagram_size == 1200
        await send_often(accepted, dialled)
        assert accepted.statistics.datagram_size == 1280


def test_a_path_is_challenged_with_what_every_path_carries() -> None:
    pair = connected(attacker_class=HardenedConnection)
    largest_sent_by(pair)
    assert pair.victim.datagram_size == 16_000
    elsewhere = ("198.51.100.7", 7)
    probe = seal(pair.attacker, b"\x1a" + bytes(8))  # PATH_CHALLENGE: somebody may come from there
    pair.victim.receive_datagram(probe.ljust(1200, b"\0"), elsewhere, pair.now)
    sizes = [len(data) for data, address in pair.victim.datagrams_to_send(pair.now) if address == elsewhere]
    assert sizes
    assert max(sizes) <= 1200
    assert pair.victim.datagram_size == 16_000
