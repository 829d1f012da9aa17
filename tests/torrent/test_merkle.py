from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.torrent.merkle import (
    FileHasher,
    FileHashes,
    PieceHasherV1,
    block_hashes,
    merkle_root,
    piece_leaf_count,
    root_of_layer,
)
from tests.torrent import naive

BLOCK = 16384
SIZES_OF_INTEREST = [
    0,
    1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    3 * BLOCK,
    4 * BLOCK - 1,
    4 * BLOCK,
    4 * BLOCK + 1,
]

sizes = st.sampled_from(SIZES_OF_INTEREST) | st.integers(0, 10 * BLOCK)
piece_lengths = st.sampled_from([BLOCK, 2 * BLOCK, 4 * BLOCK, 16 * BLOCK])


def content(size: int) -> bytes:
    """Bytes of which no two blocks are equal."""
    return b"".join(number.to_bytes(8, "big") for number in range(size // 8 + 1))[:size]


def hashed(data: bytes, piece_length: int, parts: list[int] | None = None) -> FileHashes:
    hasher = FileHasher(piece_length)
    rest = memoryview(data)
    for part in parts or []:
        hasher.update(rest[:part])
        rest = rest[part:]
    hasher.update(rest)
    return hasher.finish()


@given(sizes, piece_lengths, st.lists(st.integers(0, 3 * BLOCK), max_size=6))
@settings(max_examples=60)
def test_any_split_gives_what_the_bep_says(size: int, piece_length: int, parts: list[int]) -> None:
    data = content(size)
    hashes = hashed(data, piece_length, parts)
    assert hashes.size == size
    assert hashes.piece_layer == b"".join(naive.piece_layer(data, piece_length))
    assert hashes.pieces_root == (naive.pieces_root(data) if data else None)


@given(sizes, piece_lengths)
@settings(max_examples=40)
def test_pieces_hashed_apart_join_to_the_same(size: int, piece_length: int) -> None:
    data = content(size)
    leaves = piece_leaf_count(size, piece_length)
    roots = b"".join(
        merkle_root(block_hashes(data[start : start + piece_length]), leaves)
        for start in range(0, size, piece_length)
    )
    assert FileHashes.of_pieces(size, piece_length, roots) == hashed(data, piece_length)


def test_known_root_of_one_short_block() -> None:
    assert hashed(b"hello", BLOCK) == FileHashes(5, sha256(b"hello").digest(), b"")


def test_a_file_of_exactly_one_piece_has_no_layer() -> None:
    assert hashed(content(4 * BLOCK), 4 * BLOCK).piece_layer == b""
    assert len(hashed(content(4 * BLOCK + 1), 4 * BLOCK).piece_layer) == 64


def test_block_hashes_take_any_buffer_without_copying_it() -> None:
    data = content(BLOCK + 5)
    expected = b"".join(naive.leaves(data))
    assert block_hashes(data) == block_hashes(bytearray(data)) == block_hashes(memoryview(data)) == expected
    assert block_hashes(b"") == b""


def test_the_layer_of_a_huge_file_is_padded_without_computing_its_leaves() -> None:
    layer = sha256(b"piece").digest() * 5
    padding = naive.parent([bytes(32)] * 4)
    expected = naive.parent([layer[:32]] * 5 + [padding] * 3)
    assert root_of_layer(layer, 4 * BLOCK) == expected
    assert len(merkle_root(layer, 2**40)) == 32


@pytest.mark.parametrize(
    ("hashes", "leaves"), [(b"", 1), (bytes(31), 1), (bytes(64), 1), (bytes(32), 3), (bytes(32), 0)]
)
def test_lists_that_are_no_leaves_are_our_own_mistake(hashes: bytes, leaves: int) -> None:
    with pytest.raises(ValueError, match="no hashes"):
        merkle_root(hashes, leaves)


def test_roots_must_fit_the_size() -> None:
    with pytest.raises(ValueError, match="not the roots"):
        FileHashes.of_pieces(BLOCK + 1, BLOCK, bytes(32))


@pytest.mark.parametrize("piece_length", [0, -1, 1, BLOCK // 2, BLOCK + 1, 3 * BLOCK])
def test_a_file_hasher_needs_a_piece_length_of_v2(piece_length: int) -> None:
    with pytest.raises(ValueError, match="piece length"):
        FileHasher(piece_length)


@given(st.binary(max_size=300), st.integers(1, 64), st.lists(st.integers(0, 100), max_size=5))
def test_v1_pieces_of_any_split(data: bytes, piece_length: int, parts: list[int]) -> None:
    hasher = PieceHasherV1(piece_length)
    rest = data
    for part in parts:
        hasher.update(rest[:part])
        rest = rest[part:]
    hasher.update(rest)
    assert hasher.finish() == naive.hashes_v1(data, piece_length)


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 32))
def test_aligned_files_are_hashed_as_with_pad_files(files: list[bytes], piece_length: int) -> None:
    hasher = PieceHasherV1(piece_length)
    joined = b""
    for data in files:
        hasher.align()
        hasher.update(data)
        joined += bytes(-len(joined) % piece_length) + data
    assert hasher.finish() == naive.hashes_v1(joined, piece_length)


def test_a_v1_hasher_needs_a_piece_length() -> None:
    with pytest.raises(ValueError, match="piece length"):
        PieceHasherV1(0)
