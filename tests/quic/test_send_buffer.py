"""The bytes that wait: as aioquic's `bytearray` would hold them."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from p2pnode.quic.send_buffer import COPIED_MAX, SendBuffer

sizes = st.one_of(st.integers(0, 40), st.integers(COPIED_MAX - 2, COPIED_MAX + 2), st.just(3 * COPIED_MAX))
kinds = st.sampled_from([bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])


@given(
    steps=st.lists(st.tuples(sizes, kinds, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=30)
)
def test_it_is_a_bytearray_that_grows_at_one_end_and_shrinks_at_the_other(steps: list) -> None:  # type: ignore[type-arg]
    ours, model = SendBuffer(), bytearray()
    for size, kind, *at, taken in steps:
        data = os.urandom(size)
        ours += kind(data)
        model += data
        start, stop = sorted(int(share * len(model)) for share in at)
        assert ours[start:stop] == model[start:stop] == bytes(ours.view(start, stop))
        del ours[: int(taken * len(model))]
        del model[: int(taken * len(model))]
        assert len(ours) == len(model)
        assert ours[0 : len(model)] == model


def test_what_the_caller_may_change_is_copied() -> None:
    data = bytearray(2 * COPIED_MAX)
    buffer = SendBuffer()
    buffer += memoryview(data)
    data[0] = 1
    assert buffer[0:1] == b"\0"


def test_large_pieces_are_kept_as_they_are() -> None:
    data = os.urandom(2 * COPIED_MAX)
    buffer = SendBuffer()
    buffer += memoryview(data)
    assert buffer.view(1, COPIED_MAX).obj is data


def test_many_small_pieces_take_few_objects() -> None:
    buffer = SendBuffer()
    for _ in range(COPIED_MAX):
        buffer += b"x"
    assert len(buffer) == COPIED_MAX
    assert len(buffer._pieces) <= 2
