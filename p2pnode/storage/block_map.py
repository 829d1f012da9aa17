"""Which blocks are here: whole pieces as bits, and for each piece in flight its hashes and its blocks.

A piece is in exactly one of three places: in `have`, in `partial`, or in neither. What is kept in memory is
one bit for each piece and, for pieces in flight alone, 32 bytes and a bit for each block.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.config import BLOCK_SIZE
from p2pnode.torrent.bitfield import Bitfield, Ranges
from p2pnode.torrent.merkle import HASH_SIZE
from p2pnode.torrent.metainfo import Metainfo


@dataclass(slots=True)
class PieceProgress:
    """A piece in flight: its verified list of block hashes, and the blocks that are written."""

    block_hashes: bytes
    written: Bitfield


class BlockMap:
    """The state of a torrent's blocks; whoever owns it keeps threads apart."""

    def __init__(self, metainfo: Metainfo) -> None:
        self._metainfo = metainfo
        self.have = Bitfield(metainfo.piece_count)
        self.partial: dict[int, PieceProgress] = {}
        self._whole_bytes = 0  # of the pieces in `have`

    def begin(self, piece: int, block_hashes: bytes) -> None:
        """The list of hashes of a piece is known. Nothing changes when it was known already."""
        if piece not in self.have and piece not in self.partial:
            count = self._metainfo.piece(piece).block_count
            self.partial[piece] = PieceProgress(block_hashes, Bitfield(count))

    def add(self, piece: int, first_block: int, count: int) -> None:
        """Blocks are written. With its last block a piece moves from `partial` to `have`."""
        if piece in self.have:
            return
        progress = self.partial[piece]
        progress.written = progress.written.adding(first_block, count)
        if progress.written.is_complete:
            self.add_pieces(piece, 1)

    def add_pieces(self, first: int, count: int) -> None:
        """Whole pieces are here."""
        self._whole_bytes += sum(
            self._metainfo.piece(piece).length
            for piece in range(first, first + count)
            if piece not in self.have
        )
        self.have = self.have.adding(first, count)
        for piece in range(first, first + count):
            self.partial.pop(piece, None)

    def drop_pieces(self, pieces: range) -> None:
        """Nothing of these pieces is here."""
        self._whole_bytes -= sum(self._metainfo.piece(piece).length for piece in pieces if piece in self.have)
        self.have = self.have.removing(pieces.start, len(pieces))
        for piece in pieces:
            self.partial.pop(piece, None)

    def keep_only(self, pieces: Bitfield) -> None:
        """Nothing but whole ones of these pieces is here."""
        for first, count in (self.have - pieces).ranges():
            self.drop_pieces(range(first, first + count))
        self.partial.clear()

    def has_blocks(self, piece: int, first_block: int, count: int) -> bool:
        """Whether all of these blocks are here."""
        if piece in self.have:
            return True
        progress = self.partial.get(piece)
        return progress is not None and all(
            block in progress.written for block in range(first_block, first_block + count)
        )

    def bytes_in(self, piece: int, first_block: int, count: int) -> int:
        """How many bytes of these blocks are here."""
        described = self._metainfo.piece(piece)
        if piece in self.have:
            written = (1 << described.block_count) - 1
        else:
            progress = self.partial.get(piece)
            written = 0 if progress is None else progress.written.bits
        written &= (1 << count) - 1 << first_block
        tail = described.block_count * BLOCK_SIZE - described.length  # what the last block lacks
        return written.bit_count() * BLOCK_SIZE - tail * (written >> described.block_count - 1)

    def hashes_of(self, piece: int, first_block: int, count: int) -> bytes | None:
        """The hashes that these blocks must have, 32 bytes each; None when the piece is not in flight."""
        progress = self.partial.get(piece)
        if progress is None:
            return None
        return progress.block_hashes[first_block * HASH_SIZE : (first_block + count) * HASH_SIZE]

    def missing_blocks(self, piece: int) -> Ranges:
        """The blocks of a piece that are not here, as runs of (first, count)."""
        if piece in self.have:
            return ()
        if piece in self.partial:
            return (~self.partial[piece].written).ranges()
        return ((0, self._metainfo.piece(piece).block_count),)

    def bytes_missing(self, pieces: Bitfield) -> int:
        """How many bytes of these pieces are still to come."""
        whole = sum(self._metainfo.piece(piece).length for piece in pieces - self.have)
        return whole - sum(self._bytes_of_part(piece) for piece in self.partial if piece in pieces)

    @property
    def bytes_here(self) -> int:
        """How many bytes are here, those of partly written pieces included."""
        return self._whole_bytes + sum(map(self._bytes_of_part, self.partial))

    def _bytes_of_part(self, piece: int) -> int:
        length = self._metainfo.piece(piece).length
        runs = self.partial[piece].written.ranges()
        return sum(min((first + count) * BLOCK_SIZE, length) - first * BLOCK_SIZE for first, count in runs)

    @property
    def is_empty(self) -> bool:
        """Whether not one block is here."""
        return not self.have.bits and not any(progress.written.bits for progress in self.partial.values())
