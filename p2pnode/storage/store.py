"""Where blocks live: what the rest of the program may ask of a store.

A store knows one torrent. Its methods do blocking work and belong into worker threads; several threads may
use one store at once. Every implementation passes the conformance tests of this interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from p2pnode.storage.checking import WholePiece
from p2pnode.torrent.bitfield import Bitfield, Ranges
from p2pnode.torrent.metainfo import Metainfo


@dataclass(frozen=True, slots=True)
class PieceData:
    """A verified piece: the hashes of its blocks (32 bytes for each 16 KiB) and its bytes.

    They come in parts of `CHUNK_SIZE`, the last one perhaps shorter: who holds one of them does not hold all.
    """

    block_hashes: bytes
    parts: tuple[bytes, ...]


class Store(Protocol):
    """The blocks of one torrent, verified before they are written and before they are given out."""

    metainfo: Metainfo

    def have(self) -> Bitfield:
        """The pieces that are here whole, verified and written."""
        ...

    def missing_blocks(self, piece: int) -> Ranges:
        """The blocks of a piece that are still to be fetched, as runs of (first, count)."""
        ...

    def read_piece(self, piece: int) -> PieceData:
        """A whole piece that fits its root. NotFound when it is not here, SourceChanged when its bytes are no
        longer what they were, StorageError when they cannot be read."""
        ...

    def begin_piece(self, piece: int, block_hashes: bytes) -> bool:
        """Take the hashes of a piece's blocks, 32 bytes each; False when they do not fit the piece's root.

        It comes before the first `write_blocks` of the piece, and may come again from another source. Blocks
        that are here already stay.
        """
        ...

    def write_blocks(self, piece: int, first_block: int, data: bytes | memoryview) -> bool:
        """Verify whole blocks (the last one of a file may be short) and keep them, all or none.

        It says whether the piece is whole now.

        HashMismatch names the first block that is not what its hash says; InvalidData when the blocks do not
        lie in the piece; DiskFull and StorageError when they cannot be written, after which the same call may
        be tried again. Blocks that are here already are taken without an effect.
        """
        ...

    def write_pieces(self, pieces: Sequence[WholePiece]) -> int:
        """Verify and keep pieces that came whole, in order; how many of them, at least one, are here now.

        It ends before a piece that is wrong or cannot be written. When that is the first one, it raises:
        HashMismatch, InvalidData for what is no whole piece, DiskFull, StorageError. Pieces that are here
        already are taken without an effect.
        """
        ...

    def close(self) -> None:
        """Give back what is open; nothing else may be called afterwards."""
        ...
