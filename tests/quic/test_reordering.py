from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.quic.reordering import PACKET_THRESHOLD, TIMER_GRANULARITY_S, ReorderingWindow


def test_it_begins_as_rfc_9002_says() -> None:
    window = ReorderingWindow()
    assert window.packet_threshold == 3
    assert window.time_threshold(0.08, 0.1) == window.time_threshold(0.1, 0.08) == 0.1 * 9 / 8
    assert window.time_threshold(0.0001, 0.0001) == TIMER_GRANULARITY_S


def test_what_came_after_all_is_waited_for_the_next_time() -> None:
    window = ReorderingWindow()
    window.on_spurious(100, 0.03, 5.0)
    assert window.packet_threshold > 100
    assert 0.13 < window.time_threshold(0.1, 0.1) < 0.15
    window.on_spurious(10, 0.001, 6.0)  # a smaller one teaches nothing new
    assert window.packet_threshold > 100
    assert 0.13 < window.time_threshold(0.1, 0.1) < 0.15


def test_nobody_makes_it_wait_for_ever() -> None:
    window = ReorderingWindow()
    window.on_spurious(2**40, 1000.0, 5.0)
    assert window.packet_threshold == config.PACKETS_IN_FLIGHT_MAX
    assert window.time_threshold(0.1, 0.1) == 0.2


def test_reordering_that_ended_is_forgotten() -> None:
    window = ReorderingWindow()
    window.on_spurious(100, 0.03, 5.0)
    wide = window.packet_threshold
    window.on_lost(5.0 + config.REORDERING_MEMORY_S / 2)
    assert window.packet_threshold == wide
    now = 5.0 + config.REORDERING_MEMORY_S
    window.on_lost(now)
    window.on_lost(now)  # one judgement, however many losses it brings
    assert window.packet_threshold == wide // 2
    for _ in range(20):
        now += config.REORDERING_MEMORY_S
        window.on_lost(now)
    assert window.packet_threshold == PACKET_THRESHOLD
    assert window.time_threshold(0.1, 0.1) == 0.1 * 9 / 8


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 2**62), st.floats(-10, 10)),
            st.floats(0, 60),
        ),
        max_size=30,
    ),
    st.floats(0, 10),
)
def test_it_stays_within_bounds(happened: list[tuple[int, float] | float], rtt: float) -> None:
    window, now = ReorderingWindow(), 0.0
    for what in happened:
        if isinstance(what, tuple):
            window.on_spurious(*what, now)
        else:
            now += what
            window.on_lost(now)
        assert PACKET_THRESHOLD <= window.packet_threshold <= config.PACKETS_IN_FLIGHT_MAX
        assert max(TIMER_GRANULARITY_S, 9 / 8 * rtt) <= window.time_threshold(rtt, rtt)
        assert window.time_threshold(rtt, rtt) <= max(TIMER_GRANULARITY_S, 2 * rtt)
