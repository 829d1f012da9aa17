"""Bytes arrive equal through whatever a network does to them."""

from __future__ import annotations

import os

import pytest
import trio

from p2pnode import config
from p2pnode.quic import ConnectionStatistics
from p2pnode.testing.network import LinkProfile, Network
from tests.quic.endpoints import connected, receive_all, send_and_finish, streams

pytestmark = pytest.mark.usefixtures("both_ways")

Clock = trio.testing.MockClock


async def transfer(profile: LinkProfile, size: int, seed: int = 1) -> tuple[Network, ConnectionStatistics]:
    """Send `size` bytes each way at once through such weather, and compare; what was counted meanwhile."""
    upwards, downwards = os.urandom(size), os.urandom(size)
    async with Network(seed=seed, profile=profile) as network, connected(network) as (dialled, accepted):

        async def answer() -> None:
            theirs = await accepted.accept_stream()
            async with trio.open_nursery() as both:
                both.start_soon(send_and_finish, theirs, downwards)
                assert await receive_all(theirs) == upwards

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            ours = await dialled.open_stream()
            nursery.start_soon(send_and_finish, ours, upwards)
            assert await receive_all(ours) == downwards
        return network, dialled.statistics


async def test_loss_of_30_percent(autojump_clock: Clock) -> None:
    network, statistics = await transfer(LinkProfile(delay_s=0.02, loss=0.3, loss_run_max=8), 150_000)
    counters = network.counters("10.0.0.1", "10.0.0.2")
    assert counters.lost > counters.sent / 5
    assert statistics.packets_lost > counters.lost / 4


async def test_W13_reordering(autojump_clock: Clock) -> None:
    await transfer(LinkProfile(delay_s=0.02, reorder=0.2, reorder_delay_s=0.03), 400_000)


async def test_W13_duplication(autojump_clock: Clock) -> None:
    network, _ = await transfer(LinkProfile(delay_s=0.02, duplicate=0.3), 400_000)
    assert network.counters("10.0.0.1", "10.0.0.2").duplicated > 50


async def test_W13_corruption(autojump_clock: Clock) -> None:
    await transfer(LinkProfile(delay_s=0.02, corrupt=0.02), 400_000)


async def test_W13_everything_at_once(autojump_clock: Clock) -> None:
    profile = LinkProfile(
        delay_s=0.03, jitter_s=0.02, loss=0.05, loss_run_max=8, reorder=0.05, duplicate=0.05, corrupt=0.05
    )
    await transfer(profile, 300_000)


async def test_F5_a_round_trip_of_1_5_s(autojump_clock: Clock) -> None:
    await transfer(LinkProfile(delay_s=0.75), 1_000_000)


async def test_F5_ten_kilobits_a_second(autojump_clock: Clock) -> None:
    await transfer(LinkProfile(delay_s=0.05, rate_bytes_per_s=1250, queue_bytes=20_000), 30_000)


async def test_Q25_a_path_that_carries_1300_bytes(autojump_clock: Clock) -> None:
    await transfer(LinkProfile(mtu=1300), 400_000)


@pytest.mark.parametrize("seed", range(20))
async def test_Q27_handshakes_under_30_percent_loss(autojump_clock: Clock, seed: int) -> None:
    began_at = trio.current_time()
    await transfer(LinkProfile(delay_s=0.02, loss=0.3, loss_run_max=3), 1000, seed)
    assert trio.current_time() - began_at < 20


async def test_both_ways_at_once_share_a_narrow_link(autojump_clock: Clock) -> None:
    """Each side acknowledges what the other sends, a thousand times a second, beside what it sends itself."""
    profile = LinkProfile(delay_s=0.02, rate_bytes_per_s=1_250_000)
    size = 3 * config.MIB
    async with Network(profile=profile) as network, streams(network) as (ours, theirs):
        began_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for one, other in ((ours, theirs), (theirs, ours)):
                nursery.start_soon(send_and_finish, one, os.urandom(size))
                nursery.start_soon(receive_all, other)
        assert trio.current_time() - began_at < 2.5 * size / 1_250_000
