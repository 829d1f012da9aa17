from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.torrent.pieces import Piece, block_count, piece_count, piece_length_for

KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, 16 * KIB),
        (1, 16 * KIB),
        (16 * MIB, 16 * KIB),
        (16 * MIB + 1, 32 * KIB),
        (1024 * MIB, 1 * MIB),
        (16 * 1024 * MIB, 16 * MIB),
        (16 * 1024 * MIB + 1, 16 * MIB),
        (2**50, 16 * MIB),
    ],
)
def test_the_table_of_piece_lengths(size: int, length: int) -> None:
    assert piece_length_for(size) == length


@given(st.integers(0, 2**45))
def test_the_least_length_with_few_pieces(size: int) -> None:
    length = piece_length_for(size)
    assert length & (length - 1) == 0
    assert length == 16 * MIB or piece_count(size, length) <= 1024
    assert length == 16 * KIB or piece_count(size, length // 2) > 1024


def test_counts_round_up() -> None:
    assert [piece_count(size, 10) for size in (0, 1, 10, 11)] == [0, 1, 1, 2]
    assert [block_count(length) for length in (0, 1, 16 * KIB, 16 * KIB + 1)] == [0, 1, 1, 2]
    assert Piece(index=0, file_index=0, offset=0, length=40 * KIB, root=None).block_count == 3
