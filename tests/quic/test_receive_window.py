"""The receive window: it follows what is read and how long the path is, and nothing else."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.quic.receive_window import ReceiveWindow
from p2pnode.testing.network import LinkProfile, Network
from tests.quic.endpoints import receive_all, send_and_finish, streams

SIZE = 1000
Clock = trio.testing.MockClock


def read(window: ReceiveWindow, *, rate: float, rtt: float, seconds: float) -> None:
    """Read at so many bytes a second, and look every hundredth of a second."""
    for tick in range(int(seconds * 100)):
        window.on_read(int(rate / 100), tick / 100, rtt)


def test_it_grows_while_whole_windows_are_read_in_each_round_trip() -> None:
    window = ReceiveWindow(SIZE, growth_max=8)
    read(window, rate=SIZE / 0.1, rtt=0.1, seconds=1)
    assert window.size > SIZE


def test_it_grows_no_further_than_the_path_needs() -> None:
    window = ReceiveWindow(SIZE, growth_max=64)
    read(window, rate=1.9 * SIZE / 0.1, rtt=0.1, seconds=10)
    assert window.size == 16 * SIZE  # eight round trips of the rate, and the power of two above that


@pytest.mark.parametrize("rtt", [0.001, 0.01])
def test_it_does_not_grow_where_little_is_under_way(rtt: float) -> None:
    window = ReceiveWindow(SIZE, growth_max=8)
    read(window, rate=SIZE / 0.1, rtt=rtt, seconds=10)
    assert window.size == SIZE


def test_a_reader_that_stands_still_never_makes_it_grow() -> None:
    window = ReceiveWindow(SIZE, growth_max=8)
    for second in range(100):
        window.on_read(0, float(second), 10.0)
    assert window.size == SIZE


@given(
    reads=st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 10), st.floats(0.001, 10)), max_size=100)
)
def test_it_never_shrinks_and_never_passes_its_bound(reads: list[tuple[int, float, float]]) -> None:
    window, now, before = ReceiveWindow(SIZE, growth_max=4), 0.0, SIZE
    for size, pause, rtt in reads:
        now += pause
        window.on_read(size, now, rtt)
        assert before <= window.size <= 4 * SIZE
        before = window.size


async def test_a_long_fat_path_is_filled(autojump_clock: Clock) -> None:
    """400 Mbit/s over 200 ms hold 10 MB: five times the window that a stream begins with."""
    profile = LinkProfile(delay_s=0.1, rate_bytes_per_s=50e6, queue_bytes=4 * config.MIB)
    data = os.urandom(64 * config.MIB)
    async with Network(profile=profile) as network, streams(network) as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_finish, ours, data)
            began = trio.current_time()
            assert await receive_all(theirs) == data
        window = theirs.connection._engine._receive_window
        assert window.size > config.CONNECTION_RECEIVE_WINDOW
        assert len(data) / (trio.current_time() - began) > 12e6  # 10e6 is all that the first window lets go
