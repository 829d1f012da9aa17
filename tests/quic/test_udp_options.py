"""What the kernel is asked for, and how datagrams are put into runs and cut out of them."""

from __future__ import annotations

import socket
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.quic import udp_options
from p2pnode.quic.udp_options import (
    RUN_BYTES_MAX,
    RUN_LENGTH_MAX,
    buffer_hint,
    cut_received,
    forbid_fragments,
    has_segmentation,
    join_received,
    runs_of,
)

sizes = st.one_of(
    st.sampled_from([0, 1, 500, 1200, 1452, 8900, 40_000, 65_487, 65_530]), st.integers(0, 2000)
)
repeated = st.tuples(sizes, st.integers(1, 150)).map(lambda pair: [bytes(pair[0])] * pair[1])


@given(st.lists(repeated, max_size=6).map(lambda parts: [data for part in parts for data in part]))
def test_runs_are_what_the_kernel_takes_and_as_long_as_they_can_be(datagrams: list[bytes]) -> None:
    runs = runs_of(datagrams)
    assert [data for run in runs for data in run] == datagrams
    for run in runs:
        assert is_run(run)
    for run, after in pairwise(runs):
        assert not is_run([*run, after[0]])


def is_run(datagrams: list[bytes]) -> bool:
    *full, last = map(len, datagrams)
    if not full:
        return True
    size = full[0]
    fits = len(datagrams) <= RUN_LENGTH_MAX and size * len(datagrams) <= RUN_BYTES_MAX
    return fits and set(full) == {size} and 0 < last <= size


def test_what_came_joined_is_cut_where_the_kernel_says() -> None:
    data = bytes(range(250))
    controls = [(17, 104, (100).to_bytes(4, sys.byteorder))]
    assert cut_received(data, controls) == [data[:100], data[100:200], data[200:]]
    assert cut_received(data, []) == [data]
    assert cut_received(data, [(1, 2, b"else")]) == [data]


def test_options_are_there_on_udp_and_nowhere_else() -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(family, socket.SOCK_DGRAM) as udp:
            assert has_segmentation(udp)
            assert join_received(udp)
            assert forbid_fragments(udp)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        assert not has_segmentation(other)
        assert not join_received(other)
        assert not forbid_fragments(other)


def test_elsewhere_than_on_linux_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_options, "_IS_LINUX", False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert not has_segmentation(udp)
        assert not join_received(udp)
        assert not forbid_fragments(udp)
        assert buffer_hint(udp) is None


def test_a_kernel_that_gives_less_buffer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
        hint = buffer_hint(udp)
        assert hint is not None
        assert "64 KiB only" in hint
        assert "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304" in hint
        monkeypatch.setattr(udp_options, "SOCKET_BUFFER_SIZE", 100 * 1024)
        hint = buffer_hint(udp)
        assert hint is not None
        assert "wmem" not in hint
        monkeypatch.setattr(udp_options, "SOCKET_BUFFER_SIZE", 64 * 1024)
        assert buffer_hint(udp) is None
