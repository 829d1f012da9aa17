"""What a download remembers of itself: an append-only file that survives kill -9 and a power cut.

All numbers are big-endian. A header is followed by records::

    header      "p2pnodeJ", version (2), inode of the partial (8), length of the file id (1), file id,
                length of the metainfo (4), the bencoded metainfo, CRC-32 of all that (4)
    record      kind (1), three numbers (8, 4, 4), for HASHES the hashes, CRC-32 of all that (4)

    PIECES      first piece, count          whole pieces that are here
    HASHES      piece, 0, count, hashes     the list of a piece's block hashes, checked against its root
    RUN         piece, first block, count   blocks that are verified and written
    CHECKPOINT  offset                      the data of what stands before that offset is on the device
    PUBLISHED   inode                       a part of the tree is published already, as this directory
    DOUBTED     file, by its index          somebody else changed it: nothing that is said of it counts

A RUN is appended after its data was written, and nothing waits for the device. A kill of the process loses
neither; a power cut may keep the RUN and lose the data, so what no CHECKPOINT covers is a *suspect*: it is
hashed again before it counts. A record that is torn or damaged ends the journal. A journal is never repaired:
at each start a short new one is written from what was found to be true, and renamed over the old one.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from p2pnode.config import BLOCKS_PER_PIECE_MAX, METAINFO_SIZE_MAX
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.open_files import write_at
from p2pnode.storage.syncing import sync_data
from p2pnode.torrent.merkle import HASH_SIZE
from p2pnode.torrent.metainfo import Metainfo

VERSION = 1
_MAGIC = b"p2pnodeJ"
_HEADER = struct.Struct(">8sHQB")
_LENGTH = struct.Struct(">I")
_CRC = struct.Struct(">I")
_RECORD = struct.Struct(">BQII")


class _Kind(enum.IntEnum):
    PIECES = 1
    HASHES = 2
    RUN = 3
    CHECKPOINT = 4
    PUBLISHED = 5
    DOUBTED = 6


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks of one piece."""

    piece: int
    first_block: int
    count: int


@dataclass(frozen=True, slots=True)
class Header:
    """Whose journal it is; `inode` is the partial's, so that a copy of it is not taken for it."""

    inode: int
    file_id: bytes
    metainfo: bytes

    def encode(self) -> bytes:
        """The bytes of the header."""
        start = _HEADER.pack(_MAGIC, VERSION, self.inode, len(self.file_id))
        return _sealed(start + self.file_id + _LENGTH.pack(len(self.metainfo)) + self.metainfo)


def encode_pieces(first: int, count: int) -> bytes:
    """The record that whole pieces are here."""
    return _sealed(_RECORD.pack(_Kind.PIECES, first, count, 0))


def encode_hashes(piece: int, block_hashes: bytes) -> bytes:
    """The record of a piece's list of block hashes; it comes before the first run of that piece."""
    count = len(block_hashes) // HASH_SIZE
    return _sealed(_RECORD.pack(_Kind.HASHES, piece, 0, count) + block_hashes)


def encode_run(run: Run) -> bytes:
    """The record that blocks are verified and written."""
    return _sealed(_RECORD.pack(_Kind.RUN, run.piece, run.first_block, run.count))


def encode_checkpoint(offset: int) -> bytes:
    """The record that the data of everything before `offset` of the journal is on the device."""
    return _sealed(_RECORD.pack(_Kind.CHECKPOINT, offset, 0, 0))


def encode_published(inode: int) -> bytes:
    """The record that a part of the tree is published already, as the directory of this inode."""
    return _sealed(_RECORD.pack(_Kind.PUBLISHED, inode, 0, 0))


def encode_doubted(file_index: int) -> bytes:
    """The record that a file has other bytes than were written: a new start hashes it."""
    return _sealed(_RECORD.pack(_Kind.DOUBTED, file_index, 0, 0))


def encode_state(blocks: BlockMap) -> bytes:
    """The records that say all of `blocks`, without a checkpoint."""
    records = [encode_pieces(first, count) for first, count in blocks.have.ranges()]
    for piece, progress in blocks.partial.items():
        records.append(encode_hashes(piece, progress.block_hashes))
        records += [encode_run(Run(piece, *run)) for run in progress.written.ranges()]
    return b"".join(records)


def _sealed(content: bytes) -> bytes:
    return content + _CRC.pack(zlib.crc32(content))


class Journal:
    """The journal of a download that goes on, open at `fd`, whose bytes end at `end`."""

    def __init__(self, fd: int, end: int) -> None:
        self._fd = fd
        self._end = end

    @property
    def end(self) -> int:
        """How many bytes of it count."""
        return self._end

    def append(self, record: bytes) -> None:
        """Add a record; when that fails (OSError), the journal is as it was."""
        try:
            write_at(self._fd, record, self._end)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(record)

    def sync(self) -> None:
        """What was appended is on the device when this returns."""
        sync_data(self._fd)


@dataclass(slots=True)
class Replay:
    """What a journal says: `blocks` that a checkpoint covers, and `suspects` that none does.

    `published` is the inode of the directory that a part of the tree was published as, or 0. As long as nothing more
    came, that may be `inode` too: a partial keeps its inode when it gets its name.
    """

    inode: int
    published: int
    blocks: BlockMap
    suspects: list[Run]


def read_header(fd: int) -> Header | None:
    """The header of the journal open at `fd`; None when it is damaged or of another version."""
    with _reading(fd) as file:
        return _read_header(file)


def replay(fd: int, metainfo: Metainfo) -> Replay | None:
    """Read the journal open at `fd`; None when it is not one of this torrent that we understand."""
    with _reading(fd) as file:
        header = _read_header(file)
        if header is None or header.file_id != metainfo.file_id:
            return None
        reader = _Reader(metainfo)
        for record in _records(file):
            if not reader.take(record):
                break
        reader.drop_doubted()
        return Replay(header.inode, reader.published, reader.blocks, reader.suspects())


def _reading(fd: int) -> BinaryIO:
    file = os.fdopen(os.dup(fd), "rb", buffering=1 << 20)
    file.seek(0)
    return file


def _read_header(file: BinaryIO) -> Header | None:
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size:
        return None
    magic, version, inode, id_length = _HEADER.unpack(start)
    if magic != _MAGIC or version != VERSION:
        return None
    middle = file.read(id_length + _LENGTH.size)
    if len(middle) < id_length + _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(middle, id_length)
    if length > METAINFO_SIZE_MAX:
        return None
    metainfo = file.read(length)
    seal = file.read(_CRC.size)
    if seal != _CRC.pack(zlib.crc32(start + middle + metainfo)):
        return None
    return Header(inode, middle[:id_length], metainfo)


@dataclass(frozen=True, slots=True)
class _Record:
    offset: int
    kind: int
    first: int
    second: int
    third: int
    hashes: bytes


def _records(file: BinaryIO) -> Iterator[_Record]:
    """The records up to the end or to the first one that is torn or damaged."""
    offset = file.tell()
    while len(start := file.read(_RECORD.size)) == _RECORD.size:
        kind, first, second, third = _RECORD.unpack(start)
        if kind == _Kind.HASHES and third > BLOCKS_PER_PIECE_MAX:
            return
        hashes = file.read(third * HASH_SIZE) if kind == _Kind.HASHES else b""
        if file.read(_CRC.size) != _CRC.pack(zlib.crc32(hashes, zlib.crc32(start))):
            return
        yield _Record(offset, kind, first, second, third, hashes)
        offset = file.tell()


class _Reader:
    """Carries out records, as far as they make sense for this torrent."""

    def __init__(self, metainfo: Metainfo) -> None:
        self._metainfo = metainfo
        self._uncovered: list[_Record] = []  # PIECES and RUN since the last checkpoint
        self._doubted: set[int] = set()  # indices of files
        self.blocks = BlockMap(metainfo)
        self.published = 0

    def take(self, record: _Record) -> bool:
        """Carry out one record; False when it cannot be one of ours."""
        match record.kind:
            case _Kind.CHECKPOINT:
                self._cover(record.first)
                return True
            case _Kind.PUBLISHED:
                self.published = record.first
                return True
            case _Kind.DOUBTED:
                if record.first >= len(self._metainfo.files):
                    return False
                self._doubted.add(record.first)
                return True
            case _Kind.PIECES:
                fits = 0 < record.second <= self._metainfo.piece_count - record.first
            case _Kind.HASHES:
                fits = self._takes_hashes(record)
            case _Kind.RUN:
                fits = self._is_run(record)
            case _:
                return False
        if fits and record.kind != _Kind.HASHES:
            self._uncovered.append(record)
        return fits

    def drop_doubted(self) -> None:
        """Believe nothing of files that somebody else changed, whatever stands before or behind."""
        for index in self._doubted:
            self.blocks.drop_pieces(self._metainfo.pieces_of(index))

    def suspects(self) -> list[Run]:
        """The runs that no checkpoint covers, and whose hashes are known."""
        runs = [Run(r.first, r.second, r.third) for r in self._uncovered if r.kind == _Kind.RUN]
        return [run for run in runs if run.piece in self.blocks.partial]

    def _takes_hashes(self, record: _Record) -> bool:
        if record.first >= self._metainfo.piece_count:
            return False
        if record.third != self._metainfo.piece(record.first).block_count:
            return False
        self.blocks.begin(record.first, record.hashes)
        return True

    def _is_run(self, record: _Record) -> bool:
        if record.first not in self.blocks.partial and record.first not in self.blocks.have:
            return False
        block_count = self._metainfo.piece(record.first).block_count
        return 0 < record.third <= block_count - record.second

    def _cover(self, offset: int) -> None:
        covered = [record for record in self._uncovered if record.offset < offset]
        self._uncovered = self._uncovered[len(covered) :]
        for record in covered:
            if record.kind == _Kind.PIECES:
                self.blocks.add_pieces(record.first, record.second)
            else:
                self.blocks.add(record.first, record.second, record.third)
