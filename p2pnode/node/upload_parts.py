"""What a request for pieces is sent as: batches of pieces, each a chain of frames, hashes and bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from p2pnode import config
from p2pnode.node.transfer import pieces_in
from p2pnode.storage import PieceData
from p2pnode.torrent import Metainfo
from p2pnode.wire.communication import FileChunk, PieceRanges
from p2pnode.wire.framing import frame

SMALL_PART: Final = 128 * config.KIB  # parts up to this size are joined before they are sent

Batch = list[tuple[int, PieceData]]
"""Pieces that were read in one hop to a thread."""


def batches(ranges: PieceRanges, piece_length: int) -> Iterator[list[int]]:
    """Group the pieces so that one hop to a thread reads about `UPLOAD_READ_AHEAD` bytes."""
    count = max(1, config.UPLOAD_READ_AHEAD // piece_length)
    batch: list[int] = []
    for piece in pieces_in(ranges):
        batch.append(piece)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def memory_of(ranges: PieceRanges, metainfo: Metainfo) -> int:
    """Bytes that a request holds at most, if it asks for so much.

    A batch that is being sent, the next, and a part of the one before, of which a byte is not acknowledged.
    """
    enough = 2 * max(config.UPLOAD_READ_AHEAD, metainfo.piece_length) + config.CHUNK_SIZE
    size = 0
    for piece in pieces_in(ranges):
        size += max(config.BLOCK_SIZE, metainfo.piece(piece).length)  # a tiny one is not for nothing either
        if size >= enough:
            return enough
    return size


Part = tuple[bytes | memoryview, int]
"""What is sent in one go, and how many of the bytes are the file's."""


def chunk_parts(piece: int, data: PieceData, first_block: int) -> Iterator[Part]:
    """What a piece is sent as, from a block on: for each chunk its frame and the piece's hashes, then its bytes."""
    hashes = data.block_hashes
    skipped, start = first_block * config.BLOCK_SIZE, 0
    for part in data.parts:
        end = start + len(part)
        if rest := memoryview(part)[max(0, skipped - start) :]:
            yield frame(FileChunk(piece, end - len(rest), len(rest), len(hashes) // 32)) + hashes, 0
            yield rest, len(rest)
            hashes = b""
        start = end


def batch_parts(batch: Batch, first_block: int) -> Iterator[Part]:
    """The same of several pieces, the first of them from a block on."""
    for piece, data in batch:
        yield from chunk_parts(piece, data, first_block)
        first_block = 0


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    """The same bytes, with small parts joined: to send a part costs more than to copy a small one."""
    small: list[bytes | memoryview] = []
    size = file_size = 0
    for data, of_file in parts:
        if small and size + len(data) > SMALL_PART:
            yield b"".join(small), file_size
            small, size, file_size = [], 0, 0
        if len(data) > SMALL_PART:
            yield data, of_file
        else:
            small.append(data)
            size += len(data)
            file_size += of_file
    if small:
        yield b"".join(small), file_size
