"""What requests may hold: of one node, of one network, of all."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from p2pnode import config
from p2pnode.errors import Busy
from p2pnode.node.upload_memory import UploadMemory

MIB = config.MIB
LARGEST = 2 * config.PIECE_LENGTH_MAX + config.CHUNK_SIZE  # what a request of large pieces holds


def held_at_most(memory: UploadMemory, stack: ExitStack, keys: range, network: str, size: int) -> int:
    """How many of these nodes get so much."""
    count = 0
    for key in keys:
        try:
            stack.enter_context(memory.reserved(bytes([key]), network, size))
            count += 1
        except Busy:
            pass
    return count


def test_Q13_node_keys_of_one_network_share_what_one_network_may_hold() -> None:
    """Seven keys at one address, each with the largest request there is, make nobody else wait."""
    memory = UploadMemory()
    with ExitStack() as stack:
        attackers = held_at_most(memory, stack, range(7), "192.0.2.1", LARGEST)
        assert attackers * LARGEST <= config.UPLOAD_MEMORY_PER_NETWORK_MAX
        honest = held_at_most(memory, stack, range(10, 20), "198.51.100.1", 3 * MIB)
        assert honest == 10


def test_who_has_nothing_yet_gets_some_of_what_is_kept_back() -> None:
    memory = UploadMemory()
    with ExitStack() as stack:
        for number in range(4):
            held_at_most(memory, stack, range(4), f"192.0.2.{number}", LARGEST)
        late = stack.enter_context(memory.reserved(b"late", "198.51.100.1", LARGEST))
        with pytest.raises(Busy):
            stack.enter_context(memory.reserved(b"late", "198.51.100.1", LARGEST))
        late.keep(0)
        stack.enter_context(memory.reserved(b"late", "198.51.100.1", LARGEST))


def test_one_node_gets_its_share_and_what_is_given_back_can_be_had_again() -> None:
    memory = UploadMemory()
    for _ in range(3):
        with ExitStack() as stack:
            first = stack.enter_context(memory.reserved(b"a", "192.0.2.1", LARGEST))
            with pytest.raises(Busy) as busy:
                stack.enter_context(memory.reserved(b"a", "192.0.2.1", LARGEST))
            assert busy.value.retry_after_s > 0
            first.keep(MIB)
            first.keep(2 * MIB)  # there is no way back
            stack.enter_context(memory.reserved(b"a", "192.0.2.1", LARGEST))


def test_all_that_is_held_is_bounded_however_many_networks_there_are() -> None:
    memory = UploadMemory()
    with ExitStack() as stack:
        held = sum(
            held_at_most(memory, stack, range(3), f"192.0.2.{number}", LARGEST) for number in range(100)
        )
        assert held * LARGEST <= 2 * config.UPLOAD_MEMORY_MAX
