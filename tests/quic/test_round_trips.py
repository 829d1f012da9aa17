from __future__ import annotations

import pytest

from p2pnode.quic.round_trips import RTT_MEMORY_S, SAMPLES_MIN, RoundTrips

DATAGRAM = 1200


def one(rounds: RoundTrips, now: float, rtt: float, *, packets: int = 100, lost: int = 0) -> None:
    """A round trip that takes `rtt`, measured often enough, and ends at `now`."""
    rounds.acked_packets += packets
    rounds.acked_bytes += packets * DATAGRAM
    rounds.lost_packets += lost
    for _ in range(SAMPLES_MIN):
        rounds.add_rtt(rtt)
    rounds.begin(now)


def test_a_longer_round_trip_means_a_queue() -> None:
    rounds = RoundTrips(DATAGRAM)
    assert not rounds.has_queue
    one(rounds, 0.1, 0.1)
    one(rounds, 0.2, 0.102)
    assert not rounds.has_queue
    one(rounds, 0.3, 0.14)
    assert rounds.has_queue
    one(rounds, 0.4, 0.1)
    assert not rounds.has_queue


def test_a_delay_that_a_smaller_window_does_not_end_is_no_queue() -> None:
    rounds = RoundTrips(DATAGRAM)
    one(rounds, 0.1, 0.1)
    one(rounds, 0.2, 0.11)
    rounds.settle()
    for now in (0.3, 0.4, 0.5, 0.6):
        one(rounds, now, 0.11)
        assert not rounds.has_queue
    one(rounds, 0.7, 0.115)
    assert rounds.has_queue


def test_the_queue_before_a_reduction_is_no_queue_after_it() -> None:
    rounds = RoundTrips(DATAGRAM)
    one(rounds, 0.1, 0.1)
    one(rounds, 0.2, 0.14)
    assert rounds.has_queue
    rounds.settle()
    for now in (0.3, 0.4):  # of what was sent before
        assert not rounds.has_queue
        one(rounds, now, 0.14)
    assert not rounds.has_queue
    one(rounds, 0.5, 0.14)
    assert rounds.has_queue


def test_but_only_a_small_one() -> None:
    rounds = RoundTrips(DATAGRAM)
    one(rounds, 0.1, 0.1)
    rounds.settle()
    for now in (0.3, 0.5, 0.7):
        one(rounds, now, 0.2)
    assert rounds.has_queue


def test_a_burst_on_a_slow_path_is_no_queue() -> None:
    rounds = RoundTrips(DATAGRAM)
    for now, rtt in ((0.1, 0.04), (0.2, 0.05), (0.3, 0.05)):
        one(rounds, now, rtt, packets=10)  # 100 a second: four take 40 ms
    rounds.settle()
    for now in (0.4, 0.5, 0.6):
        one(rounds, now, 0.06, packets=10)
    assert not rounds.has_queue


def test_a_long_queue_is_a_round_trip_more_and_at_least_100_ms() -> None:
    rounds = RoundTrips(DATAGRAM)
    for path_rtt, long in ((0.3, 0.61), (0.02, 0.13)):
        rounds = RoundTrips(DATAGRAM)
        one(rounds, 1.0, path_rtt)
        assert not rounds.has_long_queue
        one(rounds, 2.0, long - 0.02)
        assert not rounds.has_long_queue
        one(rounds, 3.0, long)
        assert rounds.has_long_queue


@pytest.mark.parametrize(("packets", "tolerated"), [(10, 1), (100, 6), (1000, 51)])
def test_one_loss_and_a_twentieth_are_tolerated(packets: int, tolerated: int) -> None:
    rounds = RoundTrips(DATAGRAM)
    one(rounds, 0.1, 0.1, packets=packets)
    rounds.lost_packets = tolerated
    assert not rounds.loses_too_much
    rounds.lost_packets += 1
    assert rounds.loses_too_much


def test_what_a_path_carries_is_its_rate_for_its_shortest_round_trip() -> None:
    rounds = RoundTrips(DATAGRAM)
    one(rounds, 0.1, 0.1)
    for now in (0.3, 0.5):
        one(rounds, now, 0.2, packets=200)  # 1,000 a second
    assert rounds.carried == pytest.approx(100 * DATAGRAM)


def test_clumps_of_acknowledgements_are_no_rate() -> None:
    rounds = RoundTrips(DATAGRAM)
    one(rounds, 0.1, 0.1)
    rate = rounds.rate
    for index in range(4):
        one(rounds, 0.1 + index * 0.001, 0.0001)
    assert rounds.rate == rate


def test_the_shortest_round_trip_is_forgotten_in_time() -> None:
    rounds = RoundTrips(DATAGRAM)
    now = 0.1
    one(rounds, now, 0.02)
    while now < 3 * RTT_MEMORY_S:
        now += 0.1
        one(rounds, now, 0.1)
    assert rounds.path_rtt == 0.1
