"""What waits for a connection's driver: in order, bounded, and never lost in a split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.quic.inbox import OVERHEAD, Inbox

HERE, THERE = ("192.0.2.1", 1), ("192.0.2.2", 2)


def packet(number: int, connection_id: bytes = b"8 bytes.") -> bytes:
    return b"\x40" + connection_id + number.to_bytes(4, "big")


def test_bursts_of_one_path_become_one() -> None:
    inbox = Inbox()
    assert not inbox
    inbox.put([packet(0), packet(1)], HERE)
    inbox.put([packet(2)], HERE)
    inbox.put([packet(3)], THERE)
    inbox.put([packet(4)], HERE)
    assert inbox
    assert len(inbox) == 5
    assert inbox.take() == [
        ([packet(0), packet(1), packet(2)], HERE, 3 * 13),
        ([packet(3)], THERE, 13),
        ([packet(4)], HERE, 13),
    ]
    assert not inbox
    assert inbox.take() == []


def test_datagrams_larger_than_any_of_ours_are_dropped() -> None:
    """One of 60,000 bytes holds 10,000 frames; each looks through all gaps of its stream."""
    inbox = Inbox()
    fits, too_large = bytes(config.DATAGRAM_SIZE_MAX), bytes(config.DATAGRAM_SIZE_MAX + 1)
    assert inbox.put([too_large, fits, too_large], HERE) == 2
    assert inbox.take() == [([fits], HERE, len(fits))]
    assert inbox.put([too_large], HERE) == 1
    assert not inbox


def test_bursts_with_different_connection_ids_stay_apart() -> None:
    inbox = Inbox()
    inbox.put([packet(0, b"old id..")], HERE)
    inbox.put([packet(1, b"new id..")], HERE)
    assert inbox.take() == [
        ([packet(0, b"old id..")], HERE, 13),
        ([packet(1, b"new id..")], HERE, 13),
    ]


def test_what_finds_no_room_is_dropped_at_the_end() -> None:
    inbox = Inbox()
    size = config.DATAGRAM_SIZE_MAX
    fit = config.INBOX_SIZE_MAX // (size + OVERHEAD)
    assert inbox.put([bytes(size)] * (fit + 3), HERE) == 3
    assert inbox.put([bytes(size)], HERE) == 1
    assert len(inbox) == fit
    assert inbox.put([b""], HERE) == 0
    while inbox:
        inbox.take()
    assert inbox.size == 0


def test_W1_empty_datagrams_take_room_too() -> None:
    inbox = Inbox()
    assert inbox.put([b""] * (config.INBOX_SIZE_MAX // OVERHEAD + 7), HERE) == 7


@given(st.lists(st.tuples(st.integers(1, 600), st.sampled_from([HERE, THERE])), max_size=8))
def test_all_comes_out_in_order_and_bit_by_bit(bursts: list[tuple[int, tuple[str, int]]]) -> None:
    inbox = Inbox()
    sent = []
    for count, address in bursts:
        datagrams = [packet(len(sent) + number) for number in range(count)]
        sent += [(data, address) for data in datagrams]
        assert inbox.put(datagrams, address) == 0
    received = []
    while inbox:
        bursts_taken = inbox.take()
        assert all(burst.size == sum(map(len, burst.datagrams)) for burst in bursts_taken)
        taken = [(data, burst.address) for burst in bursts_taken for data in burst.datagrams]
        assert len(taken) == min(config.TAKE_IN_MAX, len(sent) - len(received))
        received += taken
    assert received == sent
    assert inbox.size == 0
