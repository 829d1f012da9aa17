from __future__ import annotations

import pytest

from p2pnode.swarm.pipeline import Pace, ahead_s


def paced(rate: int, latency_s: float = 0.04, seconds: float = 2.0) -> tuple[Pace, float]:
    """A peer that gave steadily for a while."""
    pace, now = Pace(), 100.0
    pace.asked(now)
    now += latency_s
    pace.stored(rate // 100, now, asked_at=100.0)
    for _ in range(int(seconds * 100)):
        now += 0.01
        pace.stored(rate // 100, now, asked_at=None)
    return pace, now


def test_a_rate_is_what_came_while_something_was_asked_for() -> None:
    pace, now = paced(1_000_000)
    assert pace.rate == pytest.approx(1_000_000, rel=0.05)
    pace.idle(now)
    pace.asked(now + 60)
    for step in range(1, 101):
        pace.stored(10_000, now + 60 + step * 0.01, asked_at=None)
    assert pace.rate == pytest.approx(1_000_000, rel=0.05)


def test_as_much_is_asked_ahead_as_comes_in_the_time_and_the_round_trip() -> None:
    pace, _ = paced(1_000_000, latency_s=0.5)
    assert pace.bytes_ahead(1.0, 1000) == pytest.approx(1_500_000, rel=0.1)


def test_a_new_peer_begins_with_two_pieces_and_what_came_opens_the_way_for_more() -> None:
    pace = Pace()
    pace.asked(0.0)
    assert pace.bytes_ahead(3.0, 1000) == 2000
    pace.stored(2000, 0.1, asked_at=0.0)
    assert pace.bytes_ahead(3.0, 1000) == 4000
    assert pace.rate == 0


def test_at_least_two_pieces_are_asked_ahead_of_a_slow_peer() -> None:
    pace, _ = paced(1000)
    assert pace.bytes_ahead(1.0, 16_384) == 32_768


def test_the_shorter_the_rest_the_less_is_asked_ahead() -> None:
    assert [ahead_s(size, 1_000_000.0) for size in (10**9, 8 * 10**6, 10**5)] == [3.0, 1.0, 0.25]
    assert ahead_s(10**9, 0.0) == 3.0


def test_silence_is_a_second_and_four_times_the_usual_gap() -> None:
    steady, now = paced(1_000_000)
    assert not steady.is_silent(now + 0.9, 1.0)
    assert steady.is_silent(now + 1.0, 1.0)
    slow = Pace()
    slow.asked(0.0)
    for step in range(1, 40):
        slow.stored(1000, step * 2.0, asked_at=None)
    assert not slow.is_silent(78.0 + 7.5, 1.0)
    assert slow.is_silent(78.0 + 8.5, 1.0)


def test_who_owes_nothing_is_not_silent() -> None:
    pace, now = paced(1_000_000)
    pace.idle(now)
    assert not pace.is_silent(now + 60, 1.0)


def test_what_is_owed_takes_as_long_as_its_bytes_and_no_less_than_the_silence_so_far() -> None:
    pace, now = paced(1_000_000)
    assert pace.seconds_for(500_000, now, 1.0) == pytest.approx(0.54, rel=0.1)
    assert pace.seconds_for(1000, now + 2, 1.0) == 2
    assert Pace().seconds_for(1000, now, 500.0) == 2
