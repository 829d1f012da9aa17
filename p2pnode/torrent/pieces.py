"""How a torrent is cut into pieces, and pieces into blocks."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.config import BLOCK_SIZE, PIECE_LENGTH_MAX, PIECE_LENGTH_MIN, PIECES_AIM

__all__ = ["Piece", "PieceSpan", "block_count", "piece_count", "piece_length_for"]


def piece_length_for(size: int) -> int:
    """Give the piece length of a canonical metainfo for a file or tree of `size` bytes.

    It is the least power of two from 16 KiB on with at most 1024 pieces, and never more than 16 MiB.
    """
    length = PIECE_LENGTH_MIN
    while length < PIECE_LENGTH_MAX and size > length * PIECES_AIM:
        length *= 2
    return length


def piece_count(size: int, piece_length: int) -> int:
    """Say how many pieces `size` bytes make, the last of them perhaps short."""
    return -(-size // piece_length)


def block_count(length: int) -> int:
    """Say how many blocks of 16 KiB a piece of `length` bytes has, the last of them perhaps short."""
    return -(-length // BLOCK_SIZE)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a torrent.

    In v2 and hybrid torrents a piece belongs to one file: `offset` is where it starts in that file, `length`
    how many of the file's bytes it has, `root` (32 bytes) the root of its blocks. In a torrent that is v1
    only a piece may run over several files: the first is named here, `Metainfo.spans` gives all; `root` is
    None and only the whole piece can be verified.
    """

    index: int
    file_index: int
    offset: int
    length: int
    root: bytes | None

    @property
    def block_count(self) -> int:
        """How many blocks of 16 KiB it has, the last of them perhaps short."""
        return block_count(self.length)


@dataclass(frozen=True, slots=True)
class PieceSpan:
    """A part of a piece: `length` bytes at `offset` of a file, or zeros of a pad file where that is None."""

    file_index: int | None
    offset: int
    length: int
