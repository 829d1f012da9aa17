"""Checking what lies on the disk against a torrent, on all cores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import StorageError
from p2pnode.storage.faults import storage_error
from p2pnode.storage.open_files import OpenFiles, read_at
from p2pnode.storage.reading import STEP, hash_blocks
from p2pnode.storage.shared_files import SharedFiles
from p2pnode.storage.threads import OnProgress, in_threads
from p2pnode.torrent.bitfield import Bitfield
from p2pnode.torrent.metainfo import Metainfo, PieceMatch

_IDLE_FILES = 16


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found: `bad_files` has a reason for each file (safe path) that is not as the torrent says.

    `is_zero_padded`: the last piece fits only as some programs hash it, against BEP 3.
    """

    bad_pieces: Bitfield
    bad_files: dict[tuple[str, ...], str]
    is_zero_padded: bool

    @property
    def is_good(self) -> bool:
        """Whether every file is there with the right bytes."""
        return not self.bad_pieces.bits and not self.bad_files


def verify_path(
    metainfo: Metainfo, path: Path, on_progress: OnProgress | None = None, *, threads: int | None = None
) -> Verification:
    """Compare the file or tree at `path` with a torrent, v1, v2 or hybrid.

    Whatever is missing, cannot be read or is no regular file is bad; no error is raised for it.
    """
    return _Verifier(metainfo, path).run(on_progress, threads)


def has_right_sizes(metainfo: Metainfo, path: Path) -> bool:
    """Whether every file of a torrent is at `path` with its size; nothing is read, so that a no comes at once."""
    return not any(_Verifier(metainfo, path).check_sizes())


class _Verifier:
    def __init__(self, metainfo: Metainfo, path: Path) -> None:
        self._metainfo = metainfo
        self._shared = SharedFiles(metainfo, path)
        self._files = OpenFiles(self._shared.open, _IDLE_FILES)

    def run(self, on_progress: OnProgress | None, threads: int | None) -> Verification:
        metainfo = self._metainfo
        bad_files = dict(self.check_sizes())
        bad: list[int] = []
        is_zero_padded = False
        done = 0
        try:
            with closing(in_threads(self._check, self._batches(), threads=threads)) as results:
                for batch, matches in results:
                    bad += [
                        i for i, match in zip(batch, matches, strict=True) if match is PieceMatch.DIFFERENT
                    ]
                    is_zero_padded |= PieceMatch.ZERO_PADDED in matches
                    done += sum(metainfo.piece(piece).length for piece in batch)
                    if on_progress is not None:
                        on_progress(min(done, metainfo.size), metainfo.size)
        finally:
            self._files.close()
        self._blame(bad, bad_files)
        return Verification(
            Bitfield.from_ranges(((piece, 1) for piece in bad), metainfo.piece_count),
            {metainfo.files[index].path: bad_files[index] for index in sorted(bad_files)},
            is_zero_padded,
        )

    def check_sizes(self) -> Iterator[tuple[int, str]]:
        """The files, by index, that cannot be right whatever is in them."""
        for index, file in enumerate(self._metainfo.files):
            try:
                fd = self._shared.open(index)
            except FileNotFoundError:
                yield index, "missing"
            except OSError as error:
                yield index, str(storage_error(error, "open", file.path[-1]))
            except StorageError as error:
                yield index, str(error)
            else:
                size = os.fstat(fd).st_size
                os.close(fd)
                if size != file.size:
                    yield index, f"{size:,} bytes instead of {file.size:,}"

    def _batches(self) -> Iterator[range]:
        """Pieces, enough of them together to be worth a thread's while."""
        step = max(1, STEP // self._metainfo.piece_length)
        for first in range(0, self._metainfo.piece_count, step):
            yield range(first, min(first + step, self._metainfo.piece_count))

    def _check(self, batch: range) -> list[PieceMatch]:
        match_piece = self._match_v1 if self._metainfo.info_hash_v2 is None else self._match_v2
        matches = []
        for piece in batch:
            try:
                matches.append(match_piece(piece))
            except (OSError, StorageError):
                matches.append(PieceMatch.DIFFERENT)
        return matches

    def _match_v2(self, index: int) -> PieceMatch:
        piece = self._metainfo.piece(index)
        with self._files.borrow(piece.file_index) as fd:
            hashes = hash_blocks(fd, piece.offset, piece.length)
        fits = self._metainfo.check_block_hashes(index, hashes)
        return PieceMatch.EXACT if fits else PieceMatch.DIFFERENT

    def _match_v1(self, index: int) -> PieceMatch:
        data = bytearray()
        for span in self._metainfo.spans(index):
            if span.file_index is None:
                data += bytes(span.length)
                continue
            with self._files.borrow(span.file_index) as fd:
                data += read_at(fd, span.length, span.offset)
        if len(data) != self._metainfo.piece(index).length:
            return PieceMatch.DIFFERENT
        return self._metainfo.match_piece_v1(index, data)

    def _blame(self, bad: list[int], bad_files: dict[int, str]) -> None:
        """Give each file with bad pieces a reason, unless it has one already."""
        counts: Counter[int] = Counter()
        for piece in bad:
            spans = self._metainfo.spans(piece)
            counts.update({span.file_index for span in spans if span.file_index is not None})
        for index, count in counts.items():
            total = self._metainfo.files[index].piece_count
            bad_files.setdefault(index, f"{count} of its {total} pieces are wrong")
