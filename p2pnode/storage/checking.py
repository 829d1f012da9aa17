"""Comparing bytes with their hashes before they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.config import BLOCK_SIZE
from p2pnode.errors import HashMismatch, InvalidData
from p2pnode.storage.journal import Run
from p2pnode.torrent.merkle import HASH_SIZE, block_hashes
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.torrent.pieces import Piece


@dataclass(frozen=True, slots=True)
class WholePiece:
    """A piece that came whole: its number, the hashes of its blocks (32 bytes each), and its bytes."""

    index: int
    block_hashes: bytes
    data: bytes | memoryview


def run_in(piece: Piece, first_block: int, size: int) -> Run:
    """What `size` bytes from `first_block` on are; InvalidData unless they are whole blocks of the piece."""
    end = first_block * BLOCK_SIZE + size
    if first_block < 0 or not size or end > piece.length or (size % BLOCK_SIZE and end != piece.length):
        raise InvalidData(f"{size} bytes from block {first_block} on are no blocks of piece {piece.index}")
    return Run(piece.index, first_block, -(-size // BLOCK_SIZE))


def require_equal(run: Run, found: bytes, expected: bytes) -> None:
    """HashMismatch, which names the first block of the run whose hash is not the one that is expected."""
    if found == expected:
        return
    pairs = zip(_hashes_in(found), _hashes_in(expected), strict=True)
    block = run.first_block + next(number for number, pair in enumerate(pairs) if pair[0] != pair[1])
    raise HashMismatch(f"block {block} of piece {run.piece} is not what its hash says")


def _hashes_in(joined: bytes) -> list[bytes]:
    return [joined[start : start + HASH_SIZE] for start in range(0, len(joined), HASH_SIZE)]


def count_right(metainfo: Metainfo, pieces: Sequence[WholePiece]) -> int:
    """How many of these pieces, from the first on, are what they should be.

    HashMismatch or InvalidData when the first one is not.
    """
    for count, piece in enumerate(pieces):
        try:
            _require_right(metainfo, piece)
        except (HashMismatch, InvalidData):
            if count:
                return count
            raise
    return len(pieces)


def _require_right(metainfo: Metainfo, piece: WholePiece) -> None:
    try:
        fits = metainfo.check_block_hashes(piece.index, piece.block_hashes)
    except IndexError:
        raise InvalidData(f"{metainfo.name!r} has no piece {piece.index}") from None
    if not fits:
        raise HashMismatch(f"the block hashes of piece {piece.index} do not fold to its root")
    found = block_hashes(piece.data)
    if found != piece.block_hashes:
        run = run_in(metainfo.piece(piece.index), 0, len(piece.data))
        require_equal(run, found, piece.block_hashes[: len(found)])
        raise InvalidData(f"{len(piece.data)} bytes are not the whole of piece {piece.index}")
