"""Where the files of a torrent lie among its pieces.

The *torrent space* is one long row of bytes, cut into pieces of equal length. In v1 the files follow each
other in it without gaps, except for pad files, which are zeros and never written (BEP 47). In v2 every file
starts at a piece, and what is left of the last piece of a file does not exist (BEP 52). A hybrid torrent has
pad files exactly there, so both halves number the pieces alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from p2pnode.errors import MetainfoError
from p2pnode.torrent.names import safe_paths
from p2pnode.torrent.pieces import piece_count

__all__ = ["EntryKind", "FileEntry", "TorrentFile", "lay_out", "offsets_v1", "offsets_v2"]


class EntryKind(Enum):
    """What an entry of the list of files stands for (`attr` of BEP 47)."""

    FILE = "a file"
    PAD = "zeros up to the next piece, never written"
    SYMLINK = "a symbolic link, never created: it could lead anywhere"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An entry as the info dictionary has it: nothing is made safe yet. The path of the file of a
    single-file torrent is the torrent's name."""

    path: tuple[bytes, ...]
    size: int
    pieces_root: bytes | None = None
    kind: EntryKind = EntryKind.FILE
    is_executable: bool = False


@dataclass(frozen=True, slots=True)
class TorrentFile:
    """A file of a torrent.

    `path` is safe to create: below the torrent's directory, or `(name,)` in a single-file torrent.
    `raw_path` is what the torrent says, for those who look for the file where it was shared from.
    `pieces_root` (32 bytes) is None for an empty file and in a torrent that is v1 only. `offset` is where
    the file starts in the torrent space. Its pieces are `first_piece` and the following `piece_count`, none
    for an empty file; in a torrent that is v1 only it may share the first and last with its neighbours.
    """

    path: tuple[str, ...]
    raw_path: tuple[bytes, ...]
    size: int
    pieces_root: bytes | None
    offset: int
    first_piece: int
    piece_count: int
    is_executable: bool


def offsets_v1(entries: Iterable[FileEntry], piece_length: int) -> list[int]:
    """Say where each entry starts when they follow each other; MetainfoError for a pad file that does not
    end where a piece ends."""
    offsets, end = [], 0
    for entry in entries:
        offsets.append(end)
        end += entry.size
        if entry.kind is EntryKind.PAD and (entry.size >= piece_length or end % piece_length):
            raise MetainfoError("a pad file that does not fill up a piece")
    return offsets


def offsets_v2(entries: Iterable[FileEntry], piece_length: int) -> list[int]:
    """Say where each file starts when each starts at a piece."""
    offsets, end = [], 0
    for entry in entries:
        offsets.append(end)
        end += piece_count(entry.size, piece_length) * piece_length
    return offsets


def lay_out(
    entries: Iterable[FileEntry], offsets: Iterable[int], piece_length: int, *, name: str, is_directory: bool
) -> tuple[TorrentFile, ...]:
    """Place the entries that are files; MetainfoError if there is none.

    `name` is the torrent's, made safe: the only file of a torrent that is no directory gets it.
    """
    placed = [
        (entry, offset)
        for entry, offset in zip(entries, offsets, strict=True)
        if entry.kind is EntryKind.FILE
    ]
    if not placed:
        raise MetainfoError("a torrent without files")
    paths = safe_paths(entry.path for entry, _ in placed) if is_directory else [(name,)]
    return tuple(
        TorrentFile(
            path=path,
            raw_path=entry.path,
            size=entry.size,
            pieces_root=entry.pieces_root,
            offset=offset,
            first_piece=offset // piece_length,
            piece_count=piece_count(offset % piece_length + entry.size, piece_length) if entry.size else 0,
            is_executable=entry.is_executable,
        )
        for (entry, offset), path in zip(placed, paths, strict=True)
    )
