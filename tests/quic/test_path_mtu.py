"""The search for a path's datagram size, and the retreat from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.quic.path_mtu import (
    BLACK_HOLE_LOSSES,
    BLACK_HOLE_TIMEOUTS,
    CROWDED_PROBES_MAX,
    PROBE_TIMEOUT_S,
    PROBES_MAX,
    RAISE_INTERVAL_S,
    SIZES,
    PathMtu,
)

BASE = 1200
LARGEST = 16_000


def search(mtu: PathMtu, carries: int, now: float = 0.0) -> list[int]:
    """Answer for a path that carries so much until nothing is left to try; the probes it took."""
    probes = []
    while (size := mtu.probe_due(now)) is not None:
        assert size > mtu.size
        mtu.on_probe_sent(size, now)
        assert mtu.probe_due(now) is None  # one at a time
        if size <= carries:
            mtu.on_probe_acked(size)
        else:
            mtu.on_probe_lost(size)
        probes.append(size)
    return probes


def found(carries: int) -> PathMtu:
    mtu = PathMtu(BASE, LARGEST)
    search(mtu, carries)
    return mtu


def best(carries: int) -> int:
    return max(size for size in (BASE, *SIZES) if size <= carries)


# -- the search --------------------------------------------------------------------------------------------


def test_a_path_that_carries_everything_is_known_after_three_probes() -> None:
    mtu = PathMtu(BASE, LARGEST)
    assert mtu.size == BASE
    assert search(mtu, 65_507) == [1452, 8900, 16_000]
    assert mtu.size == LARGEST


def test_ethernet_is_used_after_one_probe_and_known_after_a_few() -> None:
    mtu = PathMtu(BASE, LARGEST)
    assert search(mtu, 1472) == [1452] + [8900] * PROBES_MAX + [4000] * PROBES_MAX + [1472]
    assert mtu.size == 1472


@given(st.integers(BASE, 20_000))
def test_the_largest_size_that_fits_is_found_with_few_probes(carries: int) -> None:
    mtu = PathMtu(BASE, LARGEST)
    assert len(search(mtu, carries)) <= 4 * PROBES_MAX + 3
    assert mtu.size == best(carries)


@given(st.integers(BASE, 20_000), st.integers(BASE, 20_000))
def test_a_limit_is_reached_and_never_exceeded(carries: int, limit: int) -> None:
    mtu = PathMtu(BASE, limit)
    assert all(size <= limit for size in search(mtu, carries))
    assert mtu.size == (limit if limit <= carries else best(carries))


@pytest.mark.parametrize("limit", [0, 1199, 1200])
def test_a_limit_that_leaves_nothing_to_find_ends_the_search(limit: int) -> None:
    mtu = PathMtu(BASE, limit)
    assert mtu.probe_due(0.0) is None
    assert mtu.probe_due(RAISE_INTERVAL_S) is None
    assert mtu.size == BASE


def test_a_size_is_refused_only_after_several_lost_probes() -> None:
    mtu = PathMtu(BASE, LARGEST)
    for _ in range(PROBES_MAX - 1):
        assert mtu.probe_due(0.0) == 1452
        mtu.on_probe_sent(1452, 0.0)
        mtu.on_probe_lost(1452)
    assert mtu.probe_due(0.0) == 1452
    mtu.on_probe_sent(1452, 0.0)
    mtu.on_probe_acked(1452)
    assert mtu.size == 1452
    assert search(mtu, 1452)[:PROBES_MAX] == [8900] * PROBES_MAX  # losses of one size are not another's


def test_a_probe_lost_among_packets_that_fit_hardly_speaks_against_its_size() -> None:
    mtu = PathMtu(BASE, LARGEST)
    for number in range(CROWDED_PROBES_MAX):
        assert mtu.probe_due(number) == 1452
        mtu.on_probe_sent(1452, number)
        mtu.on_probe_lost(1452)
        mtu.on_lost(BASE, number, number)
    after = mtu.probe_due(CROWDED_PROBES_MAX)
    assert after is not None
    assert after < 1452


def test_a_probe_of_which_nothing_is_heard_is_lost() -> None:
    mtu = PathMtu(BASE, LARGEST)
    mtu.on_probe_sent(1452, 5.0)
    assert mtu.probe_due(5.0 + PROBE_TIMEOUT_S - 0.01) is None
    for probe in range(1, PROBES_MAX):
        assert mtu.probe_due(5.0 + probe * PROBE_TIMEOUT_S) == 1452
        mtu.on_probe_sent(1452, 5.0 + probe * PROBE_TIMEOUT_S)
    after = mtu.probe_due(5.0 + PROBES_MAX * PROBE_TIMEOUT_S)
    assert after is not None
    assert after < 1452


def test_news_of_a_probe_that_is_not_awaited_means_nothing() -> None:
    mtu = PathMtu(BASE, LARGEST)
    mtu.on_probe_acked(1452)
    mtu.on_probe_sent(1452, 0.0)
    mtu.on_probe_acked(8900)
    for _ in range(PROBES_MAX):
        mtu.on_probe_lost(8900)
    assert mtu.size == BASE
    mtu.on_probe_acked(1452)
    assert mtu.probe_due(0.0) == 8900


def test_what_was_refused_is_tried_again_after_a_while() -> None:
    mtu = found(1300)
    assert mtu.size == 1280
    assert mtu.probe_due(RAISE_INTERVAL_S - 0.01) is None
    assert mtu.size == 1280
    assert search(mtu, 9000, RAISE_INTERVAL_S)[0] == 1452
    assert mtu.size == 8900
    assert search(mtu, 9000, 2 * RAISE_INTERVAL_S) == [16_000] * PROBES_MAX
    assert mtu.size == 8900


# -- black holes -------------------------------------------------------------------------------------------


def test_large_packets_that_are_lost_again_and_again_while_small_ones_arrive_show_a_black_hole() -> None:
    mtu = found(16_000)
    for second in range(1, BLACK_HOLE_LOSSES + 1):
        assert mtu.size == 16_000
        mtu.on_lost(16_000, second - 0.5, float(second))
        mtu.on_acked(60)
        mtu.on_acked(BASE)
    assert mtu.size == BASE


def lose_again_and_again(mtu: PathMtu) -> None:
    for second in range(1, BLACK_HOLE_LOSSES + 1):
        mtu.on_lost(mtu.size, second - 0.5, float(second))
    assert mtu.size == BASE


def fall_silent(mtu: PathMtu) -> None:
    for _ in range(BLACK_HOLE_TIMEOUTS):
        mtu.on_timeout()
    assert mtu.size == BASE


def test_what_a_path_lost_again_and_again_is_not_tried_soon_but_what_is_below() -> None:
    mtu = found(16_000)
    lose_again_and_again(mtu)
    assert 16_000 not in search(mtu, 65_507)
    assert mtu.size == 8900
    search(mtu, 65_507, RAISE_INTERVAL_S)
    assert mtu.size == 16_000


def test_after_a_silence_everything_is_tried_at_once() -> None:
    """Mostly it was an outage, and the path carries what it did before."""
    mtu = found(1472)
    fall_silent(mtu)
    assert search(mtu, 65_507) == [1452, 8900, 16_000]


@pytest.mark.parametrize("fall", [lose_again_and_again, fall_silent])
@given(carries=st.integers(BASE, 15_999))
def test_after_a_black_hole_the_largest_size_that_still_fits_is_found(
    fall: Callable[[PathMtu], None], carries: int
) -> None:
    mtu = found(16_000)
    fall(mtu)
    search(mtu, carries)
    assert mtu.size == best(carries)


def test_a_burst_of_losses_is_congestion() -> None:
    mtu = found(16_000)
    for sent_at in range(100):
        mtu.on_lost(16_000, 1.0 + sent_at / 1000, 2.0)
    assert mtu.size == 16_000


def test_losses_between_which_large_packets_arrive_are_no_black_hole() -> None:
    mtu = found(16_000)
    for second in range(1, 20):
        mtu.on_lost(16_000, second - 0.5, float(second))
        if second % (BLACK_HOLE_LOSSES - 1) == 0:
            mtu.on_acked(16_000)
    assert mtu.size == 16_000


def test_packets_that_are_smaller_than_those_lost_prove_nothing() -> None:
    """The ends of messages are of any size: a path that carries 9,000 still loses 16,000."""
    mtu = found(16_000)
    for second in range(1, BLACK_HOLE_LOSSES + 1):
        mtu.on_lost(16_000, second - 0.5, float(second))
        mtu.on_acked(7000)
    assert mtu.size == BASE


def test_an_arrival_as_large_as_the_smallest_loss_is_a_proof() -> None:
    mtu = found(16_000)
    for second in range(1, 20):
        mtu.on_lost(3000, second - 0.5, second - 0.25)
        mtu.on_lost(16_000, second - 0.2, float(second))
        mtu.on_acked(4000)
    assert mtu.size == 16_000


def test_losses_of_small_packets_mean_nothing() -> None:
    mtu = found(1472)
    for second in range(1, 20):
        mtu.on_lost(BASE, second - 0.5, float(second))
    assert mtu.size == 1472


def test_losses_of_packets_larger_than_those_sent_now_are_old_news() -> None:
    mtu = found(16_000)
    fall_silent(mtu)
    search(mtu, 1300)
    assert mtu.size == 1280
    for second in range(1, 20):
        mtu.on_lost(16_000, second - 0.5, float(second))
    assert mtu.size == 1280


def test_silence_shows_a_black_hole_but_any_arrival_ends_silence() -> None:
    mtu = found(1472)
    for _ in range(10):
        for _ in range(BLACK_HOLE_TIMEOUTS - 1):
            mtu.on_timeout()
        mtu.on_acked(40)
    assert mtu.size == 1472
    fall_silent(mtu)


def test_the_base_has_nothing_to_fall_back_to() -> None:
    mtu = found(BASE)
    fall_silent(mtu)
    assert mtu.probe_due(1.0) is None  # and what was refused stays refused until it is time


def test_a_probe_on_its_way_is_forgotten_in_a_black_hole() -> None:
    mtu = PathMtu(BASE, LARGEST)
    mtu.on_probe_sent(1452, 0.0)
    mtu.on_probe_acked(1452)
    mtu.on_probe_sent(8900, 0.0)
    fall_silent(mtu)
    mtu.on_probe_acked(8900)
    assert mtu.size == BASE
    assert search(mtu, 1300)[-1] < 1452


def test_it_shows_its_size() -> None:
    assert repr(found(1472)) == "<PathMtu 1472>"
