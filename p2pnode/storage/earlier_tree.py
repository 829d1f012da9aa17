"""The files of a tree that an earlier fetch of a part of it has published.

They are the user's now: what of them is as the torrent says counts as here and stays where it is, what is not is never
replaced. What a later fetch adds grows in a hidden partial, as ever, and is moved beside them when it is complete.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

from p2pnode.errors import StorageError, TargetExists
from p2pnode.storage import confined, publishing
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.directories import Directories
from p2pnode.storage.open_files import OpenFiles
from p2pnode.storage.reading import hash_blocks
from p2pnode.storage.syncing import sync_directories
from p2pnode.storage.threads import in_threads
from p2pnode.torrent.metainfo import Metainfo

_IDLE_FILES = 16


class EarlierTree:
    """The tree at `target`, open at `fd`, which it closes. `files` of the torrent are there and right."""

    def __init__(self, metainfo: Metainfo, target: Path, fd: int) -> None:
        self._metainfo = metainfo
        self._target = target
        self._fd = fd
        self._directories = Directories(fd)
        self.inode = os.fstat(fd).st_ino
        self.files: set[int] = set()

    def open(self, index: int) -> int:
        """A descriptor of a file, for reading."""
        return self._directories.open_file(self._metainfo.files[index].path, confined.READ)

    def check(self, blocks: BlockMap, wanted: Collection[int]) -> None:
        """Find `files`, and add their pieces to `blocks`. TargetExists for a wanted file with other bytes."""
        files = OpenFiles(self.open, _IDLE_FILES)

        def is_right(index: int) -> bool | None:  # None: nothing is there
            try:
                return self._is_right(files, index)
            except FileNotFoundError:
                return None
            except (OSError, StorageError):  # a directory, or a link perhaps
                return False

        try:
            with closing(in_threads(is_right, range(len(self._metainfo.files)))) as results:
                for index, is_it in results:
                    if is_it:
                        self.files.add(index)
                        pieces = self._metainfo.pieces_of(index)
                        blocks.add_pieces(pieces.start, len(pieces))
                    elif is_it is not None and index in wanted:
                        raise self._conflict(index)
        finally:
            files.close()

    def _is_right(self, files: OpenFiles, index: int) -> bool:
        with files.borrow(index) as fd:
            if os.fstat(fd).st_size != self._metainfo.files[index].size:
                return False
            described = map(self._metainfo.piece, self._metainfo.pieces_of(index))
            return all(
                self._metainfo.check_block_hashes(piece.index, hash_blocks(fd, piece.offset, piece.length))
                for piece in described
            )

    def add(self, tree_fd: int, indices: Iterable[int]) -> None:
        """Move files here from the same places in another tree, durably. TargetExists where something is in the way."""
        by_directory: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for index in indices:
            by_directory[self._metainfo.files[index].path[:-1]].append(index)
        for directory, members in by_directory.items():
            source_fd = confined.open_directory(tree_fd, directory)
            try:
                self._add_to_directory(directory, source_fd, members)
            finally:
                os.close(source_fd)
        # Also those of a call that failed half-way: an entry may have been made there.
        paths = {self._metainfo.files[index].path[:-1] for index in self.files}
        sync_directories(self._fd, {path[:end] for path in paths for end in range(1, len(path) + 1)})

    def _add_to_directory(self, directory: tuple[str, ...], source_fd: int, members: Iterable[int]) -> None:
        fd = confined.open_directory(self._fd, directory, create=True)
        try:
            for index in members:
                name = self._metainfo.files[index].path[-1]
                try:
                    publishing.move_file(source_fd, fd, name)
                except FileExistsError:
                    raise self._conflict(index) from None
                self.files.add(index)
        finally:
            os.close(fd)

    def _conflict(self, index: int) -> TargetExists:
        path = self._target.joinpath(*self._metainfo.files[index].path)
        return TargetExists(f"{os.fspath(path)!r} exists with other content and is left alone")

    def close(self) -> None:
        """Close what is open."""
        self._directories.close()
        os.close(self._fd)
