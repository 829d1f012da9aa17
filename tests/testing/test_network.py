from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from p2pnode.errors import AddressInUse
from p2pnode.quic import DatagramSocket
from p2pnode.testing.network import (
    BATCH_MAX,
    EPHEMERAL_PORT_FIRST,
    RECEIVE_BUFFER_BYTES,
    Datagram,
    LinkProfile,
    Network,
    NetworkSocket,
)

ALICE = ("10.0.0.1", 1000)
BOB = ("10.0.0.2", 2000)
PERFECT = LinkProfile(delay_s=0.0)


def numbered(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(count)]


async def received_within(socket: NetworkSocket, seconds: float) -> list[bytes]:
    """All that arrives until nothing more can have been on its way."""
    received: list[bytes] = []
    with trio.move_on_after(seconds):
        while True:
            received += [data for datagrams, _ in await socket.receive_batch() for data in datagrams]
    return received


async def carried(profile: LinkProfile, datagrams: list[bytes], seed: int = 1) -> list[bytes]:
    """What Bob gets of what Alice sends him at once."""
    async with Network(seed, profile) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([(datagrams, BOB)])
        return await received_within(bob, 60)


async def test_a_datagram_arrives_with_its_source_after_the_delay(autojump_clock: MockClock) -> None:
    async with Network(profile=LinkProfile(delay_s=1.5)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        started = trio.current_time()
        await alice.send_batch([([b"hello"], BOB)])
        assert await bob.receive_batch() == [([b"hello"], ALICE)]
        assert trio.current_time() - started == pytest.approx(1.5)


async def test_its_sockets_are_what_quic_takes(autojump_clock: MockClock) -> None:
    async with Network() as network:
        socket: DatagramSocket = network.socket(ALICE)
        await socket.send_batch([([b"to myself"], socket.local_address)])
        assert await socket.receive_batch() == [([b"to myself"], ALICE)]
        socket.close()


async def test_an_earlier_arrival_overtakes_one_that_is_waited_for(autojump_clock: MockClock) -> None:
    async with Network() as network:
        alice, bob, carol = (network.socket((host, 1)) for host in ("alice", "bob", "carol"))
        network.set_profile("alice", "bob", LinkProfile(delay_s=10))
        network.set_profile("carol", "bob", LinkProfile(delay_s=1))
        await alice.send_batch([([b"slow"], bob.local_address)])
        await wait_all_tasks_blocked()
        await carol.send_batch([([b"fast"], bob.local_address)])
        assert await received_within(bob, 20) == [b"fast", b"slow"]


async def test_what_arrives_together_is_one_batch_up_to_a_bound(autojump_clock: MockClock) -> None:
    async with Network(profile=PERFECT) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([(numbered(BATCH_MAX + 5), BOB)])
        await trio.sleep(1)
        [(first, _)] = await bob.receive_batch()
        [(second, _)] = await bob.receive_batch()
        assert (len(first), len(second)) == (BATCH_MAX, 5)


async def test_what_arrives_at_one_time_keeps_its_order(autojump_clock: MockClock) -> None:
    datagrams = list(reversed(numbered(20)))
    assert await carried(PERFECT, datagrams) == datagrams


async def test_a_profile_holds_for_its_direction_only(autojump_clock: MockClock) -> None:
    async with Network(profile=LinkProfile(delay_s=1)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        network.set_profile(ALICE[0], BOB[0], LinkProfile(loss=1.0))
        await alice.send_batch([([b"there"], BOB)])
        await bob.send_batch([([b"back"], ALICE)])
        assert await received_within(bob, 10) == []
        assert await received_within(alice, 10) == [b"back"]


async def test_loss_is_of_the_size_that_was_set(autojump_clock: MockClock) -> None:
    received = await carried(LinkProfile(loss=0.3), numbered(2000))
    assert 1300 < len(received) < 1500


async def test_lost_runs_are_no_longer_than_allowed(autojump_clock: MockClock) -> None:
    received = await carried(LinkProfile(loss=1.0, loss_run_max=3), numbered(8))
    assert received == [numbered(8)[3], numbered(8)[7]]


async def test_equal_seeds_lose_the_same_datagrams(autojump_clock: MockClock) -> None:
    profile = LinkProfile(loss=0.5, reorder=0.5, duplicate=0.5, corrupt=0.5, jitter_s=0.1)
    first = await carried(profile, numbered(100), seed=3)
    assert first == await carried(profile, numbered(100), seed=3)
    assert first != await carried(profile, numbered(100), seed=4)


async def test_jitter_spreads_arrivals_and_keeps_their_order(autojump_clock: MockClock) -> None:
    async with Network(profile=LinkProfile(delay_s=1, jitter_s=1)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        started = trio.current_time()
        await alice.send_batch([(numbered(50), BOB)])
        received: list[bytes] = []
        times: list[float] = []
        while len(received) < 50:
            received += [data for datagrams, _ in await bob.receive_batch() for data in datagrams]
            times.append(trio.current_time() - started)
        assert received == numbered(50)
        assert len(times) > 1
        assert times[0] >= 1
        assert times[-1] <= 2


async def test_reordered_datagrams_all_arrive(autojump_clock: MockClock) -> None:
    received = await carried(LinkProfile(reorder=0.3), numbered(200))
    assert received != numbered(200)
    assert sorted(received) == numbered(200)


async def test_a_duplicate_arrives_beside_the_first(autojump_clock: MockClock) -> None:
    assert await carried(LinkProfile(duplicate=1.0), [b"a", b"b"]) == [b"a", b"a", b"b", b"b"]


async def test_corruption_flips_one_bit(autojump_clock: MockClock) -> None:
    [received] = await carried(LinkProfile(corrupt=1.0), [bytes(100)])
    assert len(received) == 100
    assert sum(byte.bit_count() for byte in received) == 1


async def test_corruption_of_an_empty_datagram_leaves_it_empty(autojump_clock: MockClock) -> None:
    assert await carried(LinkProfile(corrupt=1.0), [b""]) == [b""]


async def test_larger_than_the_mtu_vanishes(autojump_clock: MockClock) -> None:
    assert await carried(LinkProfile(mtu=1300), [bytes(1301), bytes(1300)]) == [bytes(1300)]


async def test_a_rate_spaces_datagrams(autojump_clock: MockClock) -> None:
    async with Network(profile=LinkProfile(delay_s=0, rate_bytes_per_s=1000)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        started = trio.current_time()
        await alice.send_batch([([bytes(500)] * 10, BOB)])
        await bob.receive_batch()
        assert trio.current_time() - started == pytest.approx(0.5)
        assert len(await received_within(bob, 4.6)) == 9


async def test_a_full_queue_drops_until_it_drains(autojump_clock: MockClock) -> None:
    profile = LinkProfile(rate_bytes_per_s=1000, queue_bytes=2000)
    async with Network(profile=profile) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(1000)] * 5, BOB)])
        assert len(await received_within(bob, 60)) == 2
        await alice.send_batch([([bytes(1000)], BOB)])
        assert len(await received_within(bob, 60)) == 1


async def test_a_block_swallows_both_directions_until_it_ends(autojump_clock: MockClock) -> None:
    async with Network() as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        network.block(BOB[0], ALICE[0])
        await alice.send_batch([([b"1"], BOB)])
        await bob.send_batch([([b"2"], ALICE)])
        assert await received_within(alice, 1) + await received_within(bob, 1) == []
        network.unblock(ALICE[0], BOB[0])
        await alice.send_batch([([b"3"], BOB)])
        assert await received_within(bob, 1) == [b"3"]


async def test_a_rebound_socket_is_seen_at_its_new_address_alone(autojump_clock: MockClock) -> None:
    moved = ("203.0.113.9", 77)
    async with Network() as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await bob.send_batch([([b"on its way"], ALICE)])
        network.rebind(alice, moved)
        await alice.send_batch([([b"here I am"], BOB)])
        assert await bob.receive_batch() == [([b"here I am"], moved)]
        await bob.send_batch([([b"to the old"], ALICE), ([b"to the new"], moved)])
        assert await received_within(alice, 1) == [b"to the new"]
        assert alice.local_address == ALICE
        assert network.seen_address(alice) == moved
        assert network.socket(ALICE).local_address == ALICE  # the old address is free again


async def test_an_address_has_one_socket(autojump_clock: MockClock) -> None:
    async with Network() as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        with pytest.raises(AddressInUse):
            network.socket(ALICE)
        with pytest.raises(AddressInUse):
            network.rebind(alice, BOB)
        await bob.send_batch([([b"still there"], ALICE)])
        assert await received_within(alice, 1) == [b"still there"]


async def test_port_0_is_the_next_free_port(autojump_clock: MockClock) -> None:
    async with Network() as network:
        ports = [network.socket(("alice", 0)).local_address[1] for _ in range(3)]
        assert ports == [EPHEMERAL_PORT_FIRST, EPHEMERAL_PORT_FIRST + 1, EPHEMERAL_PORT_FIRST + 2]
        assert network.socket(("bob", 0)).local_address == ("bob", EPHEMERAL_PORT_FIRST)


async def test_taps_see_change_and_drop(autojump_clock: MockClock) -> None:
    seen: list[Datagram] = []

    def record(datagram: Datagram) -> bytes:
        seen.append(datagram)
        return datagram.data

    async with Network() as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        network.tap(lambda datagram: None if datagram.data == b"drop" else datagram.data.upper())
        network.tap(record)
        await alice.send_batch([([b"keep", b"drop"], BOB)])
        assert await received_within(bob, 1) == [b"KEEP"]
        assert network.counters(ALICE[0], BOB[0]).lost == 1
    assert seen == [Datagram(ALICE, BOB, b"KEEP")]


async def test_a_forged_source_needs_no_socket(autojump_clock: MockClock) -> None:
    async with Network() as network:
        bob = network.socket(BOB)
        network.send(("198.51.100.1", 5), BOB, b"forged")
        assert await bob.receive_batch() == [([b"forged"], ("198.51.100.1", 5))]


async def test_sending_to_nobody_is_loss(autojump_clock: MockClock) -> None:
    async with Network() as network:
        alice = network.socket(ALICE)
        await alice.send_batch([([b"?"], BOB)])
        await trio.sleep(1)
        assert network.counters(ALICE[0], BOB[0]).lost == 1


async def test_counters_add_up(autojump_clock: MockClock) -> None:
    profile = LinkProfile(loss=0.2, duplicate=0.2, mtu=1000)
    async with Network(5, profile) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(100)] * 100 + [bytes(1001)], BOB)])
        received = await received_within(bob, 10)
        counters = network.counters(ALICE[0], BOB[0])
    assert counters.sent == 101
    assert counters.bytes_sent == 100 * 100 + 1001
    assert counters.lost > 1
    assert counters.duplicated > 1
    assert counters.delivered == len(received) == counters.sent + counters.duplicated - counters.lost
    assert counters.bytes_delivered == 100 * len(received)


async def test_an_unread_socket_holds_a_bounded_number_of_bytes(autojump_clock: MockClock) -> None:
    size = 1000
    fit = RECEIVE_BUFFER_BYTES // size
    async with Network(profile=PERFECT) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        await alice.send_batch([([bytes(size)] * (fit + 3), BOB)])
        await trio.sleep(1)
        assert network.counters(ALICE[0], BOB[0]).lost == 3
        assert len(await received_within(bob, 1)) == fit
        await alice.send_batch([([bytes(size)], BOB)])
        assert len(await received_within(bob, 1)) == 1


async def test_close_wakes_who_waits_and_frees_the_address(autojump_clock: MockClock) -> None:
    async def wait_for_close() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await bob.receive_batch()

    async with Network() as network, trio.open_nursery() as nursery:
        bob = network.socket(BOB)
        nursery.start_soon(wait_for_close)
        await wait_all_tasks_blocked()
        bob.close()
        bob.close()
        with pytest.raises(trio.ClosedResourceError):
            await bob.send_batch([([b"late"], ALICE)])
        network.socket(BOB).close()


async def test_an_error_inside_is_raised_as_it_is(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(LookupError):
        async with Network() as network:
            network.socket(ALICE)
            raise LookupError


async def test_hours_of_silence_cost_nothing(autojump_clock: MockClock) -> None:
    async with Network(profile=LinkProfile(delay_s=7200)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        for _ in range(5):
            await alice.send_batch([([b"ping"], BOB)])
            await bob.receive_batch()
        assert trio.current_time() >= 36_000


async def test_sending_and_receiving_let_others_run(autojump_clock: MockClock) -> None:
    async with Network(profile=PERFECT) as network:
        alice = network.socket(ALICE)
        with assert_checkpoints():
            await alice.send_batch([([b"1"], ALICE)])
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            assert await alice.receive_batch() == [([b"1"], ALICE)]


async def test_what_a_closed_socket_had_not_read_is_gone(autojump_clock: MockClock) -> None:
    async with Network(profile=PERFECT) as network:
        alice = network.socket(ALICE)
        await alice.send_batch([([b"1"], ALICE)])
        await wait_all_tasks_blocked()
        alice.close()
        with pytest.raises(trio.ClosedResourceError):
            await alice.receive_batch()


async def test_it_runs_under_the_real_clock_too() -> None:
    async with Network(profile=LinkProfile(delay_s=0.001, jitter_s=0.001)) as network:
        alice, bob = network.socket(ALICE), network.socket(BOB)
        for number in range(5):
            await alice.send_batch([([bytes([number])], BOB)])
            assert await bob.receive_batch() == [([bytes([number])], ALICE)]
