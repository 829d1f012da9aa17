"""A socket that delays and loses what it sends."""

from __future__ import annotations

from random import Random

import trio
from trio.testing import MockClock as Clock

from p2pnode.quic import Impairment
from p2pnode.quic.impairment import QUEUE_BYTES_MAX, ImpairedSocket
from p2pnode.testing.network import LinkProfile, Network, NetworkSocket

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 2)
IDEAL = LinkProfile(delay_s=0.0, mtu=65_507)


async def received(socket: NetworkSocket, count: int) -> list[bytes]:
    datagrams: list[bytes] = []
    while len(datagrams) < count:
        for burst, _ in await socket.receive_batch():
            datagrams += burst
    return datagrams


async def test_what_is_sent_leaves_later_in_its_order(autojump_clock: Clock) -> None:
    async with Network(profile=IDEAL) as network:
        other = network.socket(THERE)
        async with ImpairedSocket(network.socket(HERE), Impairment(delay_s=0.02), Random(1)) as impaired:
            assert impaired.local_address == HERE
            started = trio.current_time()
            await impaired.send_batch([([b"1", b"2"], THERE)])
            await trio.sleep(0.01)
            await impaired.send_batch([([b"3"], THERE)])
            assert await received(other, 2) == [b"1", b"2"]
            assert trio.current_time() - started == 0.02
            assert await received(other, 1) == [b"3"]
            assert trio.current_time() - started == 0.03


async def test_what_is_received_comes_as_it_is(autojump_clock: Clock) -> None:
    async with Network(profile=IDEAL) as network:
        other = network.socket(THERE)
        async with ImpairedSocket(
            network.socket(HERE), Impairment(delay_s=9.0, loss=1.0), Random(1)
        ) as impaired:
            await other.send_batch([([b"1"], HERE)])
            assert await impaired.receive_batch() == [([b"1"], THERE)]
            assert trio.current_time() < 9.0


async def test_some_are_lost(autojump_clock: Clock) -> None:
    async with Network(profile=IDEAL) as network:
        other = network.socket(THERE)
        async with ImpairedSocket(network.socket(HERE), Impairment(loss=0.25), Random(1)) as impaired:
            for _ in range(100):
                await impaired.send_batch([([b"x"] * 10, THERE)])
            await trio.sleep(1)
        assert 200 <= 1000 - network.counters(HERE[0], THERE[0]).delivered <= 300
        other.close()


async def test_what_is_too_much_is_lost(autojump_clock: Clock) -> None:
    async with Network(profile=IDEAL) as network:
        other = network.socket(THERE)
        async with ImpairedSocket(network.socket(HERE), Impairment(delay_s=1.0), Random(1)) as impaired:
            for _ in range(QUEUE_BYTES_MAX // 60_000 + 10):
                await impaired.send_batch([([bytes(60_000)], THERE)])
            await trio.sleep(2)
        assert network.counters(HERE[0], THERE[0]).bytes_sent <= QUEUE_BYTES_MAX
        other.close()


async def test_leaving_it_drops_what_is_under_way(autojump_clock: Clock) -> None:
    async with Network(profile=IDEAL) as network:
        below = network.socket(HERE)
        async with ImpairedSocket(below, Impairment(delay_s=1.0), Random(1)) as impaired:
            await impaired.send_batch([([b"1"], THERE)])
            impaired.close()
            await trio.sleep(2)
        assert network.counters(HERE[0], THERE[0]).sent == 0
