"""What of an interrupted download is true.

The journal says what was written; a power cut, a copied directory or a failing disk may have made it wrong.
Blocks that a checkpoint covers are believed as long as the file they are in is the one that was written, and
has its size. Other blocks are hashed against the journalled hashes. And where the partial holds data that
the journal does not account for, whole pieces are hashed against the metainfo: so a journal that is damaged,
or of another version, costs time but nothing that would have to be fetched again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing

from p2pnode.config import BLOCK_SIZE
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.faults import translated
from p2pnode.storage.journal import Run, replay
from p2pnode.storage.open_files import OpenFiles
from p2pnode.storage.partial import Partial
from p2pnode.storage.reading import hash_blocks, may_hold
from p2pnode.storage.syncing import sync_files
from p2pnode.storage.threads import OnProgress, in_threads
from p2pnode.torrent.metainfo import Metainfo

_IDLE_FILES = 16


def recover(metainfo: Metainfo, partial: Partial, on_progress: OnProgress | None) -> BlockMap:
    """The blocks that are here and verified, those of the partial on the device when this returns.

    StorageError when something that is not a plain file lies where the partial should be, or when the device
    fails. TargetExists when a wanted file has other bytes in what was published earlier.
    """
    with translated("continue from", partial.hidden):
        blocks = _recover_partial(metainfo, partial, on_progress) if partial.inode else BlockMap(metainfo)
        if partial.earlier is not None:
            partial.earlier.check(blocks, partial.wanted)
        return blocks


def _recover_partial(metainfo: Metainfo, partial: Partial, on_progress: OnProgress | None) -> BlockMap:
    recovery = _Recovery(metainfo, partial)
    try:
        recovery.check_files()
        recovery.check_suspects()
        recovery.look_for_pieces(on_progress)
    finally:
        recovery.files.close()
    return recovery.blocks


class _Recovery:
    def __init__(self, metainfo: Metainfo, partial: Partial) -> None:
        self._metainfo = metainfo
        self._partial = partial
        self._found: set[int] = set()  # indices of the files that are there
        self.blocks = BlockMap(metainfo)
        self._suspects: list[Run] = []
        self.files = OpenFiles(partial.open_found, _IDLE_FILES)
        said = replay(partial.journal_fd, metainfo)
        if said is not None and said.inode == partial.inode:
            self.blocks = said.blocks
            self._suspects = said.suspects

    def check_files(self) -> None:
        """Believe nothing of a file that is missing or has another size than it was made with."""
        for index, file in enumerate(self._metainfo.files):
            if file.size and self._size_found(index) != file.size:
                self.blocks.drop_pieces(self._metainfo.pieces_of(index))
        for piece, progress in list(self.blocks.partial.items()):
            if not self._metainfo.check_block_hashes(piece, progress.block_hashes):
                self.blocks.drop_pieces(range(piece, piece + 1))

    def _size_found(self, index: int) -> int | None:
        try:
            with self.files.borrow(index) as fd:
                self._found.add(index)
                return os.fstat(fd).st_size
        except FileNotFoundError:
            return None

    def check_suspects(self) -> None:
        """Keep the blocks that fit the hashes that were journalled with them."""
        runs = [run for run in self._suspects if run.piece in self.blocks.partial]
        self._sync(self._metainfo.piece(run.piece).file_index for run in runs)
        with closing(in_threads(self._hash_run, runs)) as results:
            for run, hashes in results:
                if hashes == self.blocks.hashes_of(run.piece, run.first_block, run.count):
                    self.blocks.add(run.piece, run.first_block, run.count)

    def _hash_run(self, run: Run) -> bytes:
        piece = self._metainfo.piece(run.piece)
        start = run.first_block * BLOCK_SIZE
        end = min(start + run.count * BLOCK_SIZE, piece.length)
        with self.files.borrow(piece.file_index) as fd:
            return _hash_on_device(fd, piece.offset + start, end - start)

    def look_for_pieces(self, on_progress: OnProgress | None) -> None:
        """Hash every piece that is not known to be here where the partial holds something."""
        pieces = [piece for index in self._found for piece in self._pieces_to_look_at(index)]
        self._sync(self._metainfo.piece(piece).file_index for piece in pieces)
        total = sum(self._metainfo.piece(piece).length for piece in pieces)
        done = 0
        with closing(in_threads(self._fits, sorted(pieces))) as results:
            for piece, fits in results:
                if fits:
                    self.blocks.add_pieces(piece, 1)
                done += self._metainfo.piece(piece).length
                if on_progress is not None:
                    on_progress(done, total)

    def _pieces_to_look_at(self, index: int) -> Iterator[int]:
        with self.files.borrow(index) as fd:
            for piece in self._metainfo.pieces_of(index):
                if piece not in self.blocks.have and may_hold(fd, self._metainfo.piece(piece)):
                    yield piece

    def _fits(self, index: int) -> bool:
        piece = self._metainfo.piece(index)
        with self.files.borrow(piece.file_index) as fd:
            hashes = _hash_on_device(fd, piece.offset, piece.length)
        return self._metainfo.check_block_hashes(index, hashes)

    def _sync(self, indices: Iterable[int]) -> None:
        """What is about to be believed must be on the device: a killed process leaves it in memory alone."""
        sync_files(self.files, set(indices), self._partial.directory_fd, self._partial.hidden)


def _hash_on_device(fd: int, offset: int, length: int) -> bytes:
    """The hashes of blocks that are synced. After a sync that failed memory keeps the good bytes, and calls
    them clean, while the device has others: so memory's copy is given up before they are read."""
    if advise := getattr(os, "posix_fadvise", None):
        advise(fd, offset, length, os.POSIX_FADV_DONTNEED)
    return hash_blocks(fd, offset, length)
