"""Merkle trees of SHA-256 over 16 KiB blocks (BEP 52).

A *leaf* is the hash of one block of a file; the last block may be short and is hashed as it is. A file of at
most one piece has a tree over its own blocks, filled up to a power of two with zero hashes. A larger file has
one subtree for each piece, every one with `piece_length / 16 KiB` leaves, the last filled up with zero
hashes; the roots of these subtrees are its *piece layer*, which is itself filled up to a power of two with
the root of a piece that has no block at all.

Lists of hashes are `bytes`, 32 for each hash: a list of a million costs 32 MB and one object. hashlib
releases the GIL for blocks of this size, so several threads may hash different pieces at once: each gives
`merkle_root(block_hashes(data), piece_leaf_count(…))`, and `FileHashes.of_pieces` joins them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import Final

from p2pnode.config import BLOCK_SIZE

__all__ = [
    "HASH_SIZE",
    "FileHasher",
    "FileHashes",
    "PieceHasherV1",
    "block_hashes",
    "merkle_root",
    "piece_leaf_count",
    "root_of_layer",
    "zeros",
]

Buffer = bytes | bytearray | memoryview

HASH_SIZE: Final = 32
ZERO_HASH: Final = bytes(HASH_SIZE)
_ZEROS: Final = memoryview(bytes(BLOCK_SIZE))


def block_hashes(data: Buffer) -> bytes:
    """Give the hashes of the blocks of `data`, which starts at a block boundary; no bytes are copied."""
    view = memoryview(data).cast("B")
    return b"".join(
        [sha256(view[start : start + BLOCK_SIZE]).digest() for start in range(0, len(view), BLOCK_SIZE)]
    )


def piece_leaf_count(file_size: int, piece_length: int) -> int:
    """Say how many leaves the tree of one piece has in a file of this size: always a power of two."""
    if file_size > piece_length:
        return piece_length // BLOCK_SIZE
    return _power_of_two(-(-file_size // BLOCK_SIZE))


def merkle_root(hashes: bytes, leaf_count: int, *, padding: bytes = ZERO_HASH) -> bytes:
    """Fold a list of hashes, filled up with `padding` to `leaf_count` (a power of two), into its root.

    Subtrees of nothing but padding are not computed leaf by leaf, so a short list in a wide tree is cheap.
    """
    if (
        leaf_count & (leaf_count - 1)
        or not 0 < len(hashes) <= leaf_count * HASH_SIZE
        or len(hashes) % HASH_SIZE
    ):
        raise ValueError(f"{len(hashes)} bytes are no hashes for {leaf_count} leaves")
    pair = 2 * HASH_SIZE
    while leaf_count > 1:
        if len(hashes) % pair:
            hashes += padding
        hashes = b"".join(
            [sha256(hashes[start : start + pair]).digest() for start in range(0, len(hashes), pair)]
        )
        padding = sha256(padding + padding).digest()
        leaf_count //= 2
    return hashes


def root_of_layer(layer: bytes, piece_length: int) -> bytes:
    """Fold a piece layer into the root of its file."""
    padding = merkle_root(ZERO_HASH, piece_length // BLOCK_SIZE)
    return merkle_root(layer, _power_of_two(len(layer) // HASH_SIZE), padding=padding)


@dataclass(frozen=True, slots=True)
class FileHashes:
    """What BEP 52 says of a file's bytes: `pieces_root` is None for an empty file, `piece_layer` is empty for
    a file of at most one piece."""

    size: int
    pieces_root: bytes | None
    piece_layer: bytes

    @classmethod
    def of_pieces(cls, size: int, piece_length: int, roots: bytes) -> FileHashes:
        """Join the roots of all pieces of a file, in order, 32 bytes each."""
        if len(roots) != HASH_SIZE * -(-size // piece_length):
            raise ValueError(
                f"{len(roots)} bytes are not the roots of {size} bytes in pieces of {piece_length}"
            )
        if size == 0:
            return cls(0, None, b"")
        if size <= piece_length:
            return cls(size, roots, b"")
        return cls(size, root_of_layer(roots, piece_length), roots)


class FileHasher:
    """Hashes one file as its bytes come; keeps the hashes of one piece and the roots of those before it."""

    def __init__(self, piece_length: int) -> None:
        if piece_length < BLOCK_SIZE or piece_length & (piece_length - 1):
            raise ValueError(f"a piece length of {piece_length} is no power of two from {BLOCK_SIZE} on")
        self._piece_length = piece_length
        self._size = 0
        self._block = sha256()  # of the block that is not yet full
        self._blocks = bytearray()  # hashes of the full blocks of the piece that is not yet full
        self._roots = bytearray()

    def update(self, data: Buffer) -> None:
        """Take the next bytes of the file; any split gives the same result."""
        view = memoryview(data).cast("B")
        missing = -self._size % BLOCK_SIZE
        if missing:
            head, view = view[:missing], view[missing:]
            self._block.update(head)
            self._size += len(head)
            if len(head) == missing:
                self._add_blocks(self._block.digest())
                self._block = sha256()
        whole = len(view) - len(view) % BLOCK_SIZE
        self._add_blocks(block_hashes(view[:whole]))
        self._block.update(view[whole:])
        self._size += len(view)

    def finish(self) -> FileHashes:
        """Give the hashes; the hasher must not be used afterwards."""
        if self._size % BLOCK_SIZE:
            self._add_blocks(self._block.digest())
        if self._blocks:
            self._roots += merkle_root(bytes(self._blocks), piece_leaf_count(self._size, self._piece_length))
        return FileHashes.of_pieces(self._size, self._piece_length, bytes(self._roots))

    def _add_blocks(self, hashes: bytes) -> None:
        self._blocks += hashes
        leaves = self._piece_length // BLOCK_SIZE
        piece = leaves * HASH_SIZE
        while len(self._blocks) >= piece:
            self._roots += merkle_root(bytes(self._blocks[:piece]), leaves)
            del self._blocks[:piece]


def zeros(count: int) -> Iterator[memoryview]:
    """Give `count` zero bytes in parts, for what only a hash has to see."""
    for start in range(0, count, BLOCK_SIZE):
        yield _ZEROS[: count - start]


class PieceHasherV1:
    """The SHA-1 hashes of the pieces of a whole torrent (BEP 3), as the bytes of its files come.

    In a hybrid torrent every file starts at a piece, so `align()` stands before each file that has bytes.
    """

    def __init__(self, piece_length: int) -> None:
        if piece_length < 1:
            raise ValueError(f"a piece length of {piece_length}")
        self._piece_length = piece_length
        self._piece = sha1()
        self._filled = 0
        self._hashes = bytearray()

    def update(self, data: Buffer) -> None:
        """Take the next bytes of the torrent; any split gives the same result."""
        view = memoryview(data).cast("B")
        while view:
            part = view[: self._piece_length - self._filled]
            self._piece.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self._piece_length:
                self._end_piece()

    def align(self) -> None:
        """Fill the current piece up with zeros, as a pad file does (BEP 47); nothing at a boundary."""
        if self._filled:
            for part in zeros(self._piece_length - self._filled):
                self.update(part)

    def finish(self) -> bytes:
        """Give the hashes, 20 bytes each; the hasher must not be used afterwards."""
        if self._filled:
            self._end_piece()
        return bytes(self._hashes)

    def _end_piece(self) -> None:
        self._hashes += self._piece.digest()
        self._piece = sha1()
        self._filled = 0


def _power_of_two(count: int) -> int:
    """Give the least power of two that is not below `count`."""
    return 1 << max(count - 1, 0).bit_length()
