"""Reading and hashing pieces of files, never more than a little at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from p2pnode.config import MIB
from p2pnode.storage.open_files import read_at
from p2pnode.torrent.merkle import block_hashes
from p2pnode.torrent.pieces import Piece

STEP = MIB  # what one thread reads and hashes in one go: large enough for the disk, small enough for memory


def read_in_steps(fd: int, offset: int, length: int) -> Iterator[bytes]:
    """`length` bytes from `offset` on, in parts of whole blocks; fewer where the file ends."""
    end = offset + length
    while offset < end and (data := read_at(fd, min(STEP, end - offset), offset)):
        yield data
        offset += len(data)


def hash_blocks(fd: int, offset: int, length: int) -> bytes:
    """The hashes of the blocks of `length` bytes from `offset` on, 32 bytes each."""
    return b"".join(map(block_hashes, read_in_steps(fd, offset, length)))


def may_hold(fd: int, piece: Piece) -> bool:
    """Whether anything was ever written where the piece lies; a hole in a sparse file is not."""
    seek_data = getattr(os, "SEEK_DATA", None)
    if seek_data is None:
        return True
    try:
        return os.lseek(fd, piece.offset, seek_data) < piece.offset + piece.length
    except OSError as error:
        return error.errno != errno.ENXIO  # nothing but a hole up to the end; otherwise: cannot tell
