"""The least time is that of the paper: whichever of source, slowest leecher and sum of uplinks is scarcest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.testing.bounds import Rates, least_seconds, least_seconds_in_zones

rates = st.builds(Rates, st.floats(1, 1e9), st.floats(1, 1e9))


@pytest.mark.parametrize(
    ("source_up", "leechers", "seconds"),
    [
        (10, [Rates(1000, 1000)] * 3, 10),  # the source gives each byte once
        (1000, [Rates(1000, 1000), Rates(1000, 5)], 20),  # the slowest has to take it all
        (10, [Rates(0, 1000)] * 4, 40),  # nobody else gives anything
        (10, [Rates(5, 1000)] * 4, 400 / 30),
        (10, [Rates(10, 10)] * 8, 10),  # everybody alike: as if there was one
    ],
)
def test_the_scarcest_counts(source_up: float, leechers: list[Rates], seconds: float) -> None:
    assert least_seconds(100, source_up, leechers) == pytest.approx(seconds)


def test_zones_are_as_fast_as_their_gateways() -> None:
    zones = [[Rates(10, 10)] * 8] * 4
    assert least_seconds_in_zones(100, 10, zones, Rates(2, 2)) == pytest.approx(50)
    assert least_seconds_in_zones(100, 10, zones, Rates(1000, 1000)) == least_seconds(
        100, 10, [Rates(10, 10)] * 32
    )


def test_a_zone_without_leechers_slows_nobody() -> None:
    zones = [[Rates(10, 10)], []]
    assert least_seconds_in_zones(100, 10, zones, Rates(10, 10)) == pytest.approx(10)


@given(st.floats(1, 1e9), st.lists(rates, min_size=1, max_size=8), rates)
def test_one_leecher_more_makes_nothing_faster_unless_it_gives_more_than_the_average(
    source_up: float, leechers: list[Rates], gateway: Rates
) -> None:
    before = least_seconds(1000, source_up, leechers)
    assert least_seconds(1000, source_up, [*leechers, Rates(0, 1e9)]) >= before
    assert least_seconds_in_zones(1000, source_up, [leechers], gateway) >= before
