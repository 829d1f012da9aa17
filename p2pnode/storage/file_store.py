"""Blocks in files: what the user shares, and downloads that survive kill -9, a full disk and a power cut.

A download grows in a hidden partial beside its target and is published under its name when every piece is
there. Each block is verified, written, and then journalled; nothing waits for the device but `checkpoint`,
`publish` and the start. Wherever it is stopped, the next `FileStore.download` of the same target goes on.
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from p2pnode.config import BLOCK_SIZE, CHECKPOINT_BYTES, CHECKPOINT_INTERVAL_S, CHUNK_SIZE
from p2pnode.errors import (
    InvalidData,
    LocalProtocolError,
    NotFound,
    SourceChanged,
    StorageError,
)
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.checking import WholePiece, count_right, require_equal, run_in
from p2pnode.storage.faults import translated
from p2pnode.storage.journal import (
    Run,
    encode_checkpoint,
    encode_doubted,
    encode_hashes,
    encode_pieces,
    encode_run,
)
from p2pnode.storage.open_files import OpenFiles, read_at, write_at
from p2pnode.storage.partial import Partial
from p2pnode.storage.shared_files import SharedFiles
from p2pnode.storage.starting import Unfinished, begin, require_v2
from p2pnode.storage.store import PieceData
from p2pnode.storage.syncing import sync_files
from p2pnode.storage.threads import OnProgress
from p2pnode.storage.work_times import WorkTimes
from p2pnode.torrent.bitfield import Bitfield, Ranges, runs_of
from p2pnode.torrent.merkle import block_hashes
from p2pnode.torrent.metainfo import Metainfo
from p2pnode.torrent.pieces import Piece
from p2pnode.torrent.selection import pieces_of

_IDLE_FILES_OF_SHARE = 0  # a thousand shared files must not hold a thousand descriptors
_IDLE_FILES_OF_DOWNLOAD = 64  # so that the many chunks of a file do not each open it


class StoreState(enum.Enum):
    """The life of a `FileStore`; `_MOVES` says what may follow what."""

    PARTIAL = "pieces are missing, or it is not yet published"
    COMPLETE = "everything that is wanted is here under its own name"
    FAILED = "the device did not keep what was written; a new start finds out what it has"
    DOUBTED = "it was changed by somebody else while it was fetched; run it again"
    CLOSED = "closed"


_MOVES: dict[StoreState, set[StoreState]] = {
    StoreState.PARTIAL: {StoreState.COMPLETE, StoreState.FAILED, StoreState.DOUBTED, StoreState.CLOSED},
    StoreState.COMPLETE: {StoreState.CLOSED},
    StoreState.FAILED: {StoreState.CLOSED},
    StoreState.DOUBTED: {StoreState.CLOSED},
    StoreState.CLOSED: set(),
}


class FileStore:
    """A `Store` in files, made by `FileStore.share` or `FileStore.download`."""

    def __init__(
        self, metainfo: Metainfo, path: Path, wanted: Bitfield, blocks: BlockMap, download: Unfinished | None
    ) -> None:
        self.metainfo = metainfo
        self.path = path
        self.wanted = wanted  # the pieces that it is complete with …
        self.size = metainfo.size - sum(
            metainfo.piece(piece).length for piece in ~wanted
        )  # … and their bytes
        self.times = WorkTimes()
        self._blocks = blocks
        self._download = download
        # Taken in this order. `_lock` guards all that is here and is never held while a disk works, so that an
        # event loop may ask what is here; who appends to the journal holds `_journaling`, a checkpoint `_syncing`.
        self._syncing = threading.Lock()
        self._journaling = threading.Lock()
        self._lock = threading.Lock()
        if download is None:
            self._state = StoreState.COMPLETE
            self._files = OpenFiles(SharedFiles(metainfo, path).open_unchanged, _IDLE_FILES_OF_SHARE)
        else:
            self._state = StoreState.PARTIAL
            self._files = OpenFiles(download.partial.open_part, _IDLE_FILES_OF_DOWNLOAD)

    # -- making one ----------------------------------------------------------------------------------------

    @classmethod
    def share(cls, metainfo: Metainfo, path: Path) -> FileStore:
        """The complete file or tree at `path`, to be read only; files are opened when they are asked for."""
        require_v2(metainfo)
        blocks = BlockMap(metainfo)
        blocks.add_pieces(0, metainfo.piece_count)
        return cls(metainfo, path, blocks.have, blocks, None)

    @classmethod
    def download(
        cls,
        metainfo: Metainfo,
        target: Path,
        *,
        files: Collection[int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> FileStore:
        """A download to `target`, new or continued; `on_progress` is told of hashing what was found.

        With `files`, by index, only those of a tree are wanted and published. What is published so may be added to
        by another download to the same target, as long as the journal stays that is left beside it.

        When the target has the right bytes already, the store is complete. Raises TargetExists when it has
        others, AlreadyInProgress when somebody works on it, DiskFull when what is missing has no room,
        StorageError where it cannot be written, MetainfoError for a torrent that is v1 only.
        """
        require_v2(metainfo)
        begun = begin(metainfo, target, files, on_progress)
        return cls.share(metainfo, target) if begun is None else cls(metainfo, target, *begun)

    # -- what is here --------------------------------------------------------------------------------------

    def have(self) -> Bitfield:
        """The pieces that are here whole, verified and written."""
        with self._lock:
            return self._blocks.have

    @property
    def bytes_stored(self) -> int:
        """How many verified bytes of what is wanted are here, those of partly written pieces included."""
        with self._lock:
            beside = self._download.bytes_beside if self._download is not None else 0
            return self._blocks.bytes_here - beside

    def missing_blocks(self, piece: int) -> Ranges:
        """The blocks of a piece that are still to be fetched, as runs of (first, count)."""
        self._piece(piece)
        with self._lock:
            return self._blocks.missing_blocks(piece)

    def begun(self) -> Bitfield:
        """The pieces of which something is here, but not all."""
        with self._lock:
            pieces = sorted(self._blocks.partial)
        return Bitfield.from_ranges(((piece, 1) for piece in pieces), self.metainfo.piece_count)

    def blocks_stored(self, piece: int) -> int:
        """How many blocks of a piece are here, counted from its start up to the first that is missing."""
        missing = self.missing_blocks(piece)
        return missing[0][0] if missing else self._piece(piece).block_count

    def bytes_in(self, piece: int, first_block: int, count: int) -> int:
        """How many bytes of `count` blocks of a piece are here."""
        with self._lock:
            return self._blocks.bytes_in(piece, first_block, count)

    def read_piece(self, piece: int) -> PieceData:
        """A whole piece that fits its root; errors as `Store.read_piece` says."""
        with self._lock:
            if self._state is StoreState.CLOSED or piece not in self._blocks.have:
                raise NotFound(f"piece {piece} of {self.metainfo.name!r} is not here")
        described = self._piece(piece)
        with (
            translated("read", self.path),
            self.times.disk,
            self._files.borrow(described.file_index) as fd,
        ):
            end = described.offset + described.length
            parts = tuple(
                read_at(fd, min(CHUNK_SIZE, end - at), at) for at in range(described.offset, end, CHUNK_SIZE)
            )
        with self.times.hashing:
            hashes = b"".join(map(block_hashes, parts))
            is_whole = sum(map(len, parts)) == described.length
            is_right = is_whole and self.metainfo.check_block_hashes(piece, hashes)
        if not is_right:
            self._doubt(described.file_index)
            raise SourceChanged(f"piece {piece} of {os.fspath(self.path)!r} is no longer what it was")
        return PieceData(hashes, parts)

    def _doubt(self, file_index: int) -> None:
        """A file was changed by somebody else: what is not published yet never is, before a new start hashed it."""
        with self._syncing, self._journaling, translated("write the journal of", self.path):
            with self._lock:
                if self._state is StoreState.PARTIAL:
                    self._move_to(StoreState.DOUBTED)
                download = self._download
            if download is not None:
                download.journal.append(encode_doubted(file_index))
                download.journal.sync()

    # -- writing -------------------------------------------------------------------------------------------

    def begin_piece(self, piece: int, block_hashes: bytes) -> bool:
        """Take a piece's list of block hashes; False when it does not fit the piece's root."""
        self._piece(piece)
        if not self.metainfo.check_block_hashes(piece, block_hashes):
            return False
        with self._journaling, translated("write the journal of", self.path):
            with self._lock:
                if piece in self._blocks.have or piece in self._blocks.partial:
                    return True
                download = self._working()
            download.journal.append(encode_hashes(piece, block_hashes))
            with self._lock:
                self._blocks.begin(piece, block_hashes)
        return True

    def write_blocks(self, piece: int, first_block: int, data: bytes | memoryview) -> bool:
        """Verify and keep blocks; whether the piece is whole now. Errors as `Store.write_blocks` says."""
        described = self._piece(piece)
        run = run_in(described, first_block, len(data))
        with self._lock:
            if self._blocks.has_blocks(run.piece, run.first_block, run.count):
                return piece in self._blocks.have
            self._working()
            expected = self._blocks.hashes_of(run.piece, run.first_block, run.count)
        if expected is None:
            raise LocalProtocolError(f"blocks of piece {piece} before its hashes")
        with self.times.hashing:
            require_equal(run, block_hashes(data), expected)
        with translated("write", self.path), self.times.disk:
            with self._files.borrow(described.file_index) as fd:
                write_at(fd, data, described.offset + first_block * BLOCK_SIZE)
            return self._written(run, described.file_index, len(data))

    def _written(self, run: Run, file_index: int, size: int) -> bool:
        """Journal blocks whose data is written; whether their piece is whole now."""
        with self._journaling:
            with self._lock:
                download = self._working()
                if self._blocks.has_blocks(run.piece, run.first_block, run.count):
                    return run.piece in self._blocks.have  # another thread was faster
            download.journal.append(encode_run(run))
            with self._lock:
                self._blocks.add(run.piece, run.first_block, run.count)
                download.unsynced_files.add(file_index)
                download.unsynced_bytes += size
                return run.piece in self._blocks.have

    def write_pieces(self, pieces: Sequence[WholePiece]) -> int:
        """Verify and keep pieces that came whole, so many small files at little cost; as `Store.write_pieces`."""
        with self._lock:
            partial, have = self._working().partial, self._blocks.have
        with self.times.hashing:
            right = pieces[: count_right(self.metainfo, pieces)]
        written: list[int] = []
        with translated("write", self.path), self.times.disk:
            try:
                for piece in right:
                    if piece.index not in have:
                        self._write_piece(partial, self._piece(piece.index), piece.data)
                    written.append(piece.index)
            except (OSError, StorageError):
                if not written:
                    raise
            self._pieces_written(written)
        return len(written)

    def _write_piece(self, partial: Partial, piece: Piece, data: bytes | memoryview) -> None:
        is_whole_file = piece.length == self.metainfo.files[piece.file_index].size
        if is_whole_file and partial.create_file(piece.file_index, data):
            return
        with self._files.borrow(piece.file_index) as fd:
            write_at(fd, data, piece.offset)

    def _pieces_written(self, pieces: Sequence[int]) -> None:
        """Journal whole pieces whose data is written."""
        with self._journaling:
            with self._lock:
                download, have = self._working(), self._blocks.have
            new = [piece for piece in pieces if piece not in have]
            if not new:
                return
            runs = runs_of(new)
            download.journal.append(b"".join(encode_pieces(first, count) for first, count in runs))
            described = [self._piece(piece) for piece in new]
            with self._lock:
                for first, count in runs:
                    self._blocks.add_pieces(first, count)
                download.unsynced_files.update(piece.file_index for piece in described)
                download.unsynced_bytes += sum(piece.length for piece in described)

    def _working(self) -> Unfinished:
        """The download, which must go on; the lock is held."""
        if self._download is None or self._state is not StoreState.PARTIAL:
            raise StorageError(f"{os.fspath(self.path)!r} cannot be written any more: {self._state.value}")
        return self._download

    def _piece(self, index: int) -> Piece:
        try:
            return self.metainfo.piece(index)
        except IndexError:
            raise InvalidData(f"{self.metainfo.name!r} has no piece {index}") from None

    # -- making it last ------------------------------------------------------------------------------------

    def checkpoint_due(self, now: float) -> bool:
        """Whether so much was written since the last checkpoint, or so long ago, that it is time for one."""
        with self._lock:
            download = self._download
            if download is None or self._state is not StoreState.PARTIAL or not download.unsynced_bytes:
                return False
            if download.unsynced_since is None:
                download.unsynced_since = now
            is_old = now - download.unsynced_since >= CHECKPOINT_INTERVAL_S
            return is_old or download.unsynced_bytes >= CHECKPOINT_BYTES

    def checkpoint(self) -> None:
        """Wait until the device has all that was written before the call; writing may go on meanwhile.

        StorageError when the device fails to: then nothing can be written any more, since nobody knows what
        it has; the next `download` finds out.
        """
        with self._syncing, translated("write", self.path):
            if self._state is not StoreState.COMPLETE:  # published meanwhile: it is all there
                self._checkpoint()

    def _checkpoint(self) -> None:
        with self._journaling, self._lock:
            download = self._working()
            if not download.unsynced_files:
                return
            covered, files = download.journal.end, download.unsynced_files
            download.unsynced_files, download.unsynced_bytes, download.unsynced_since = set(), 0, None
        try:
            sync_files(self._files, files, download.partial.directory_fd, os.fspath(self.path))
        except StorageError:
            with self._lock:
                self._move_to(StoreState.FAILED)
            raise
        except OSError:  # not opened, too many files perhaps: the next checkpoint tries again
            with self._lock:
                download.unsynced_files |= files
            raise
        with self._journaling:
            download.journal.append(encode_checkpoint(covered))
        download.journal.sync()

    def publish(self) -> Path:
        """Give the complete download its name, durably, and return its path; a second call does nothing.

        TargetExists when something has that name: it stays as it is, and so does the download.
        """
        with self._syncing, translated("publish", self.path):
            with self._lock:
                if self._state is StoreState.COMPLETE:
                    return self.path
                download = self._working()
                if (self.wanted - self._blocks.have).bits:
                    raise LocalProtocolError("published before it was complete")
            changed = download.partial.finish_files()
            with self._lock:
                download.unsynced_files |= changed
            self._checkpoint()
            download.partial.publish()
            published = pieces_of(self.metainfo, download.partial.published_files())
            with self._lock:
                self._move_to(StoreState.COMPLETE)
                self._blocks.keep_only(published)
                self._download = None
                shared = SharedFiles(self.metainfo, self.path)
                self._files.reopen(shared.open_unchanged, _IDLE_FILES_OF_SHARE)
            download.partial.close()
        return self.path

    # -- the end -------------------------------------------------------------------------------------------

    def discard(self) -> None:
        """Close it and remove what was downloaded; what is published or shared stays."""
        self._close(remove=True)

    def close(self) -> None:
        """Close it; the next `download` goes on from here. One without a single block leaves nothing."""
        self._close(remove=False)

    def _close(self, *, remove: bool) -> None:
        with self._syncing, self._journaling:
            with self._lock:
                if self._state is StoreState.CLOSED:
                    return
                self._move_to(StoreState.CLOSED)
                download, self._download = self._download, None
                self._files.close()
            if download is None:
                return
            try:
                if remove or self._blocks.is_empty:
                    with translated("remove", self.path):
                        download.partial.remove()
            finally:
                download.partial.close()

    def _move_to(self, state: StoreState) -> None:
        assert state in _MOVES[self._state], f"{self._state} → {state}"
        self._state = state
