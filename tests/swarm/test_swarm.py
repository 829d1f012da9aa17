"""Whole swarms of `Download` machines over simulated links: how long they take, and what comes twice."""

from __future__ import annotations

import pytest

from p2pnode.torrent.bitfield import Bitfield
from tests.swarm.simulator import MBIT, Host, Simulation

RATE = 100 * MBIT
SIZE = 40_000_000


def wasted(simulation: Simulation) -> float:
    """The part of the file that came twice to whomever it came twice most."""
    fetching = [host for host in simulation.hosts if host.machine is not None]
    for host in fetching:
        assert host.machine is not None
        assert host.machine.duplicate_bytes <= host.machine.duplicate_budget
    return max(host.wasted for host in fetching) / simulation.size


@pytest.mark.parametrize(("count", "ratio"), [(1, 1.10), (2, 1.12), (8, 1.20)])
def test_a_swarm_takes_little_longer_than_it_must(count: int, ratio: float) -> None:
    swarm = Simulation(SIZE)
    swarm.host(RATE, RATE, have=swarm.everything)
    for _ in range(count):
        swarm.host(RATE, RATE)
    swarm.join(*swarm.hosts)
    assert swarm.run(until_s=60) / swarm.bound() <= ratio
    assert wasted(swarm) <= 0.02


def sources(count: int) -> tuple[Simulation, list[Host]]:
    """Sources that are together as fast as the one who fetches, or faster."""
    swarm = Simulation(SIZE)
    seeds = [swarm.host(RATE / 6, RATE, have=swarm.everything) for _ in range(count)]
    swarm.host(RATE, RATE)
    return swarm, seeds


def test_a_slow_source_and_one_that_freezes_hold_up_nothing() -> None:
    good, _ = sources(6)
    good.join(*good.hosts)
    swarm, seeds = sources(8)
    seeds[0].up /= 20

    def freeze(host: Host, piece: int) -> None:
        if host.have.bit_count() >= 0.95 * len(swarm.sizes):
            seeds[1].is_frozen = True

    swarm.on_piece = freeze
    swarm.join(*swarm.hosts)
    assert swarm.run(until_s=60) <= 1.10 * good.run(until_s=60)
    assert wasted(swarm) <= 0.02


@pytest.mark.parametrize("liars", [1, 7])
def test_liars_are_banned_after_two_pieces(liars: int) -> None:
    swarm = Simulation(SIZE // 2)
    for number in range(8):
        swarm.host(RATE, RATE, have=swarm.everything, liar=number < liars)
    fetching = swarm.host(RATE, RATE)
    swarm.join(*swarm.hosts)
    swarm.run(until_s=60)
    assert fetching.bad_pieces
    assert max(fetching.bad_pieces.values()) <= 2


def test_a_zone_pulls_each_piece_about_once() -> None:
    swarm = Simulation(SIZE // 4, gateway=RATE / 2)
    swarm.host(RATE, RATE, have=swarm.everything)
    for number in range(8):
        swarm.host(RATE, RATE, zone=number % 2)
    swarm.join(*swarm.hosts)
    swarm.run(until_s=60)
    assert swarm.wide_bytes / (2 * swarm.size) <= 1.0  # one copy each is 0.5: the seed's own zone needs none


def test_partial_sources_that_have_it_all_together_are_enough() -> None:
    swarm = Simulation(SIZE // 2)
    count = len(swarm.sizes)
    for part in range(4):
        have = Bitfield(count, sum(1 << piece for piece in range(part, count, 4)))
        swarm.host(RATE, RATE, have=have)
    swarm.host(RATE, RATE)
    swarm.join(*swarm.hosts)
    assert swarm.run(until_s=60) < 1.5 * swarm.size / RATE
    assert wasted(swarm) <= 0.02


def test_a_peer_leaves_and_returns_and_another_joins_late() -> None:
    swarm = Simulation(SIZE)
    swarm.host(RATE, RATE, have=swarm.everything)
    leechers = [swarm.host(RATE, RATE) for _ in range(4)]
    swarm.join(*swarm.hosts)
    swarm.at(1.0, lambda: swarm.leave(leechers[0]))
    swarm.at(2.0, lambda: swarm.come_back(leechers[0]))
    swarm.at(3.0, lambda: swarm.join(swarm.host(RATE, RATE)))
    swarm.run(until_s=60)
    others = [host.completed_at for host in leechers[1:]]
    assert all(at is not None and at < 1.5 * swarm.bound() for at in others)


def test_when_the_seed_dies_the_others_have_what_they_need_of_each_other() -> None:
    swarm = Simulation(SIZE // 2)
    seed = swarm.host(RATE, RATE, have=swarm.everything)
    leechers = [swarm.host(RATE, RATE) for _ in range(4)]
    swarm.join(*swarm.hosts)

    def die_when_it_can(host: Host, piece: int) -> None:
        union = 0
        for leecher in leechers:
            union |= leecher.have
        if seed.is_here and union == swarm.everything.bits:
            swarm.leave(seed)

    swarm.on_piece = die_when_it_can
    swarm.run(until_s=60)
    assert not seed.is_here
    assert all(leecher.have == swarm.everything.bits for leecher in leechers)


def test_the_last_piece_may_be_one_byte() -> None:
    swarm = Simulation(10 * 128 * 1024 + 1)
    swarm.host(RATE, RATE, have=swarm.everything)
    for _ in range(3):
        swarm.host(RATE, RATE)
    swarm.join(*swarm.hosts)
    swarm.run(until_s=10)
