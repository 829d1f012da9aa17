"""The token bucket, as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.node.token_bucket import TokenBucket


def test_a_new_bucket_gives_nothing_away() -> None:
    bucket = TokenBucket(100, burst=10, now=5.0)
    assert bucket.ready_at(1, 5.0) == pytest.approx(5.01)
    assert bucket.ready_at(10, 5.0) == pytest.approx(5.1)


def test_after_a_pause_a_burst_is_there_and_no_more() -> None:
    bucket = TokenBucket(100, burst=10, now=0.0)
    assert bucket.ready_at(10, 60.0) == 60.0
    bucket.take(10, 60.0)
    assert bucket.ready_at(5, 60.0) == pytest.approx(60.05)


def test_more_than_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = TokenBucket(100, burst=10, now=0.0)
    assert bucket.ready_at(50, 0.0) == pytest.approx(0.1)
    bucket.take(50, 0.1)
    assert bucket.ready_at(10, 0.1) == pytest.approx(0.6)


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    bucket = TokenBucket(100, burst=10, now=1.0)
    assert bucket.ready_at(1, 0.5) == pytest.approx(0.51)


@given(
    st.floats(1e3, 1e9),
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 2), st.floats(0, 0.001)), min_size=1, max_size=200),
)
def test_whoever_waits_never_gets_more_than_the_rate_and_one_burst(
    rate: float, takes: list[tuple[float, float, float]]
) -> None:
    burst = rate / 10
    bucket = TokenBucket(rate, burst, now=0.0)
    now, taken = 0.0, []
    for share, pause, late in takes:
        now += pause
        now = bucket.ready_at(share * burst, now) + late
        bucket.take(share * burst, now)
        taken.append((now, share * burst))
    for start, (begun, _) in enumerate(taken):
        total = 0.0
        for at, size in taken[start:]:
            total += size
            assert total <= (rate * (at - begun) + burst) * (1 + 1e-6)
