"""Hosts whose traffic shares queues, zones with gateways, power cuts, and the grid of deliveries."""

from __future__ import annotations

from math import inf

import pytest
import trio
from trio.testing import MockClock

from p2pnode.testing.network import (
    HostProfile,
    LinkProfile,
    Network,
    NetworkSocket,
    QueueCounters,
)
from p2pnode.testing.network_queues import QUEUE_BYTES_MIN, TRAIN_DATAGRAMS_MAX
from tests.testing.test_network import PERFECT, numbered, received_within

ALICE, BOB, CAROL, DAVE = (("alice", 1), ("bob", 1), ("carol", 1), ("dave", 1))
SIZE = 1000
RATE = 1e6  # bytes a second: a datagram of SIZE takes a millisecond
DELAYED = LinkProfile(delay_s=0.02)


async def arrival_times(socket: NetworkSocket, count: int) -> list[float]:
    """When each of so many datagrams was received, in seconds of virtual time."""
    times: list[float] = []
    while len(times) < count:
        for datagrams, _ in await socket.receive_batch():
            times += [trio.current_time()] * len(datagrams)
    return times


async def keep_sending(
    socket: NetworkSocket, destination: tuple[str, int], rate: float, burst: int = 8
) -> None:
    """Bursts at a rate of bytes a second, until cancelled."""
    at = trio.current_time()
    while True:
        await socket.send_batch([([bytes(SIZE)] * burst, destination)])
        at += burst * SIZE / rate
        await trio.sleep_until(at)


def check_conserved(counters: QueueCounters, waiting: int = 0) -> None:
    assert counters.datagrams_in == counters.datagrams_out + counters.datagrams_dropped + waiting
    assert counters.bytes_in == counters.bytes_out + counters.bytes_dropped + waiting * SIZE


@pytest.mark.parametrize("side", ["up", "down"])
async def test_a_host_has_its_rate_to_the_digit(autojump_clock: MockClock, side: str) -> None:
    async with Network(profile=DELAYED) as network:
        host, profile = {
            "up": ("alice", HostProfile(up_bytes_per_s=RATE)),
            "down": ("bob", HostProfile(down_bytes_per_s=RATE)),
        }[side]
        network.set_host(host, profile)
        alice, bob = network.socket(ALICE), network.socket(BOB)
        began_at = trio.current_time()
        await alice.send_batch([([bytes(SIZE)] * 100, BOB)])
        times = await arrival_times(bob, 100)
        assert times[-1] - began_at == pytest.approx(0.02 + 100 * SIZE / RATE, rel=1e-9)
        assert times[0] - began_at == pytest.approx(0.02 + 2 * SIZE / RATE, rel=1e-9)  # a train of 2 ms


async def test_a_train_is_on_time_behind_two_equal_queues(autojump_clock: MockClock) -> None:
    """The second queue begins when the first datagram is there, not when the whole train is."""
    async with Network(profile=DELAYED) as network:
        for host in ("alice", "bob"):
            network.set_host(host, HostProfile(100 * RATE, 100 * RATE))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        began_at = trio.current_time()
        await alice.send_batch([([bytes(SIZE)] * TRAIN_DATAGRAMS_MAX, BOB)])
        [_, *_, last] = await arrival_times(bob, TRAIN_DATAGRAMS_MAX)
        both = (TRAIN_DATAGRAMS_MAX + 1) * SIZE / (100 * RATE)
        assert last - began_at == pytest.approx(0.02 + both, rel=1e-9)


async def test_a_slow_sender_does_not_hold_a_fast_receiver(autojump_clock: MockClock) -> None:
    """While a train of his trickles in, the downlink serves others."""
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE))
        network.set_host("carol", HostProfile(down_bytes_per_s=20 * RATE))
        alice, bob, carol = (network.socket(address) for address in (ALICE, BOB, CAROL))
        began_at = trio.current_time()
        await alice.send_batch([([bytes(SIZE)] * 2, CAROL)])  # there after 22 ms
        await bob.send_batch([([bytes(SIZE)], CAROL)])  # there after 20 ms
        [(_, sender)] = await carol.receive_batch()
        assert sender == BOB
        assert trio.current_time() - began_at == pytest.approx(0.02 + SIZE / (20 * RATE))
        [(_, sender)] = await carol.receive_batch()
        assert sender == ALICE
        assert trio.current_time() - began_at == pytest.approx(0.022 + SIZE / (20 * RATE))


async def test_an_uplink_is_shared_by_all_destinations(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network, trio.open_nursery() as nursery:
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE))
        alice = network.socket(ALICE)
        for destination in (BOB, CAROL):
            nursery.start_soon(keep_sending, alice, destination, RATE)
        await trio.sleep(1)  # the queue is full
        before = network.host_counters("alice").up.datagrams_out
        await trio.sleep(10)
        up = network.host_counters("alice").up
        assert abs(up.datagrams_out - before - 10 * RATE / SIZE) <= 2
        assert up.datagrams_dropped > 0
        nursery.cancel_scope.cancel()


async def test_a_downlink_is_shared_by_all_sources_in_the_order_of_arrival(autojump_clock: MockClock) -> None:
    """Who sends later over a shorter way is served first."""
    async with Network() as network:
        network.set_profile("alice", "carol", LinkProfile(delay_s=0.05))
        network.set_profile("bob", "carol", LinkProfile(delay_s=0.01))
        network.set_host("carol", HostProfile(down_bytes_per_s=RATE))
        alice, bob, carol = (network.socket(address) for address in (ALICE, BOB, CAROL))
        await alice.send_batch([([b"a" * SIZE] * 10, CAROL)])
        await trio.sleep(0.02)
        await bob.send_batch([([b"b" * SIZE] * 30, CAROL)])
        received = b"".join(data[:1] for data in await received_within(carol, 1))
        # Bob's first come at 0.03, Alice's all at 0.05, behind 30 of Bob's: those had the queue for themselves.
        assert received == b"b" * 30 + b"a" * 10
        check_conserved(network.host_counters("carol").down)


async def test_an_uplink_is_first_in_first_out(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(10 * RATE, RATE))
        network.set_host("bob", HostProfile(RATE, 10 * RATE))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        for number in numbered(100):
            await alice.send_batch([([number + bytes(SIZE)] * 2, BOB)])
        received = await received_within(bob, 5)
        assert [data[:4] for data in received] == [number for number in numbered(100) for _ in range(2)]


@pytest.mark.parametrize("queue_bytes", [None, 50 * SIZE])
async def test_what_finds_no_room_is_dropped_and_counted(
    autojump_clock: MockClock, queue_bytes: int | None
) -> None:
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE, queue_bytes=queue_bytes))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(SIZE)] * 1000, BOB)])
        fit = (queue_bytes or QUEUE_BYTES_MIN) // SIZE
        up = network.host_counters("alice").up
        assert up.datagrams_dropped == 1000 - fit
        check_conserved(up, waiting=fit - 2)  # a train has begun
        assert len(await received_within(bob, 5)) == fit
        check_conserved(up)
        link = network.counters("alice", "bob")
        assert (link.delivered, link.lost) == (fit, 1000 - fit)
        await alice.send_batch([([bytes(SIZE)], BOB)])
        assert len(await received_within(bob, 5)) == 1


async def test_a_queue_of_the_usual_size_grows_with_the_rate(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(up_bytes_per_s=10 * RATE))
        await network.socket(ALICE).send_batch([([bytes(SIZE)] * 3000, BOB)])
        assert network.host_counters("alice").up.datagrams_dropped == 2000  # 100 ms hold 1000


async def test_a_rate_may_change_while_a_queue_is_full(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        began_at = trio.current_time()
        await alice.send_batch([([bytes(SIZE)] * 200, BOB)])
        await trio.sleep(0.1)
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE / 10))
        await trio.sleep(0.2)
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE * 4))
        times = await arrival_times(bob, 200)
        # 100 and 20 of them at the first rates; a train of two was under way at each change.
        assert times[-1] - began_at == pytest.approx(0.02 + 0.3 + 80 * SIZE / (4 * RATE), abs=0.02)
        check_conserved(network.host_counters("alice").up)


@pytest.mark.parametrize("host", ["alice", "bob"])
async def test_without_a_rate_what_waited_leaves_at_once_and_in_order(
    autojump_clock: MockClock, host: str
) -> None:
    async with Network(profile=PERFECT) as network:
        network.set_host(host, HostProfile(RATE, RATE))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([(numbered(1000), BOB)])
        await trio.sleep(0.0015)  # 4 bytes take 4 microseconds
        network.set_host(host, HostProfile())
        await alice.send_batch([([b"last"], BOB)])
        assert await received_within(bob, 0.0005) == [*numbered(1000), b"last"]
        counters = network.host_counters(host)
        check_conserved(counters.up)
        check_conserved(counters.down)


@pytest.mark.parametrize("rate", [0.0, -1.0])
async def test_a_rate_is_above_zero(autojump_clock: MockClock, rate: float) -> None:
    async with Network() as network:
        with pytest.raises(ValueError, match="above 0"):
            network.set_host("alice", HostProfile(up_bytes_per_s=rate))


async def test_hosts_of_which_nothing_was_set_are_counted_too(autojump_clock: MockClock) -> None:
    async with Network(profile=LinkProfile(loss=0.5)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(SIZE)] * 100, BOB)])
        received = await received_within(bob, 1)
        assert 0 < len(received) < 100
        up, down = network.host_counters("alice").up, network.host_counters("bob").down
        assert (up.datagrams_out, up.bytes_out) == (100, 100 * SIZE)
        assert (down.datagrams_out, down.bytes_out) == (len(received), len(received) * SIZE)


# -- zones -------------------------------------------------------------------------------------------------


def zoned(network: Network, **zones: str) -> None:
    for host, zone in zones.items():
        network.set_host(host, HostProfile(zone=zone))


async def test_a_gateway_is_shared_by_its_zone(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network, trio.open_nursery() as nursery:
        zoned(network, alice="north", bob="north", carol="south", dave="south")
        network.set_zone_gateway("north", up_bytes_per_s=RATE, down_bytes_per_s=inf)
        sockets = {address: network.socket(address) for address in (ALICE, BOB, CAROL, DAVE)}
        for source, destination in ((ALICE, CAROL), (BOB, DAVE)):
            nursery.start_soon(keep_sending, sockets[source], destination, RATE)
        await trio.sleep(1)
        before = network.zone_counters("north").up.bytes_out
        await trio.sleep(10)
        assert network.zone_counters("north").up.bytes_out - before == pytest.approx(10 * RATE, abs=2 * SIZE)
        nursery.cancel_scope.cancel()


async def test_a_gateway_sees_wide_traffic_alone(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        zoned(network, alice="north", bob="north", carol="south")
        alice, bob, carol = (network.socket(address) for address in (ALICE, BOB, CAROL))
        await alice.send_batch([([bytes(SIZE)] * 5, BOB), ([bytes(SIZE)] * 3, CAROL)])
        assert len(await received_within(bob, 1)) == 5
        assert len(await received_within(carol, 1)) == 3
        north, south = network.zone_counters("north"), network.zone_counters("south")
        assert (north.up.bytes_out, north.down.bytes_out) == (3 * SIZE, 0)
        assert (south.up.bytes_out, south.down.bytes_out) == (0, 3 * SIZE)


async def test_wide_traffic_passes_both_gateways(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        zoned(network, alice="north", bob="south")
        network.set_zone_gateway("north", up_bytes_per_s=10 * RATE, queue_bytes=60 * SIZE)
        network.set_zone_gateway("south", down_bytes_per_s=RATE, queue_bytes=20 * SIZE)
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(SIZE)] * 100, BOB)])
        received = await received_within(bob, 1)
        up, down = network.zone_counters("north").up, network.zone_counters("south").down
        assert up.datagrams_dropped == 40
        assert down.datagrams_in == 60
        assert 30 <= down.datagrams_dropped <= 40  # it took 6 ms to come in
        assert len(received) == down.datagrams_out
        check_conserved(up)
        check_conserved(down)


async def test_a_host_may_change_its_zone(autojump_clock: MockClock) -> None:
    async with Network(profile=PERFECT) as network:
        zoned(network, alice="north", bob="south")
        alice = network.socket(ALICE)
        await alice.send_batch([([bytes(SIZE)], BOB)])
        zoned(network, bob="north")
        await alice.send_batch([([bytes(SIZE)], BOB)])
        assert network.zone_counters("north").up.datagrams_out == 1


# -- power cuts --------------------------------------------------------------------------------------------


async def test_a_killed_host_neither_sends_nor_receives(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(RATE, RATE))
        alice, other, bob = network.socket(ALICE), network.socket(("alice", 2)), network.socket(BOB)
        await alice.send_batch([([bytes(SIZE)] * 50, BOB)])
        await bob.send_batch([([b"to the dead"], ALICE)])
        await trio.sleep(0.0105)
        network.kill("alice")
        await alice.send_batch([([b"from the dead"], BOB)])
        await other.send_batch([([b"from the dead"], BOB)])
        assert len(await received_within(bob, 5)) == 12  # what had left, and the train that was leaving
        assert await received_within(alice, 5) == []
        up = network.host_counters("alice").up
        assert (up.datagrams_out, up.datagrams_dropped) == (12, 38)
        assert network.counters("bob", "alice").lost == 1
        alice.close()


async def test_a_killed_host_may_come_back(autojump_clock: MockClock) -> None:
    async with Network(profile=DELAYED) as network:
        dead, bob = network.socket(ALICE), network.socket(BOB)
        network.kill("alice")
        reborn = network.socket(ALICE)
        dead.close()
        await bob.send_batch([([b"welcome back"], ALICE)])
        assert await received_within(reborn, 1) == [b"welcome back"]
        await reborn.send_batch([([b"thank you"], BOB)])
        assert await received_within(bob, 1) == [b"thank you"]


async def test_what_waits_after_a_power_cut_is_served_in_its_turn(autojump_clock: MockClock) -> None:
    """The queue's next turn was due for what is gone."""
    async with Network(profile=DELAYED) as network:
        network.set_host("alice", HostProfile(RATE, RATE))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        began_at = trio.current_time()
        await alice.send_batch([([bytes(SIZE)] * 10, BOB)])
        network.kill("alice")
        await network.socket(ALICE).send_batch([([bytes(SIZE)] * 6, BOB)])
        times = await arrival_times(bob, 2 + 6)  # the train that was leaving, and what came after it
        assert [time - began_at for time in times[1::2]] == pytest.approx([0.022, 0.024, 0.026, 0.028])
        check_conserved(network.host_counters("alice").up)


# -- chance ------------------------------------------------------------------------------------------------


async def test_what_others_carry_changes_no_losses(autojump_clock: MockClock) -> None:
    async def received(with_carol: bool) -> list[bytes]:
        async with Network(seed=5, profile=LinkProfile(loss=0.3)) as network:
            alice, bob, carol = (network.socket(address) for address in (ALICE, BOB, CAROL))
            for number in numbered(100):
                if with_carol:
                    await carol.send_batch([([b"noise"] * 3, BOB)])
                await alice.send_batch([([number], BOB)])
            return [data for data in await received_within(bob, 1) if data != b"noise"]

    assert await received(with_carol=True) == await received(with_carol=False)


# -- the grid ----------------------------------------------------------------------------------------------


async def test_a_tick_moves_deliveries_to_its_grid_and_nothing_else(autojump_clock: MockClock) -> None:
    tick_s = 0.25
    async with Network(profile=LinkProfile(delay_s=0.6), tick_s=tick_s) as network:
        network.set_host("alice", HostProfile(up_bytes_per_s=RATE / 100))
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(SIZE)] * 20, BOB)])  # a tenth of a second each
        began_at = trio.current_time()
        times = await arrival_times(bob, 20)
    exact = [began_at + 0.6 + 0.1 * (number + 1) for number in range(20)]
    assert all(0 <= time - due < tick_s + 1e-9 for time, due in zip(times, exact, strict=True))
    assert all(abs(time / tick_s - round(time / tick_s)) < 1e-6 for time in times)
