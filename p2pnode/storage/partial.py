"""The hidden files of one download: where they lie, how they are opened, made and removed.

Beside a target `NAME` lie the partial `.NAME.p2pnode-part`, a file or a directory as the target will be, and
the journal `.NAME.p2pnode-journal`, whose lock says that somebody is at work. Everything is reached from one
descriptor of the directory they are in, so that nothing that happens to its path can lead elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from p2pnode.config import COMPONENT_SIZE_MAX, JOURNAL_SUFFIX, METAINFO_SIZE_MAX, PARTIAL_SUFFIX
from p2pnode.errors import DiskFull, InvalidData, StorageError
from p2pnode.storage import confined, publishing
from p2pnode.storage.block_map import BlockMap
from p2pnode.storage.directories import Directories
from p2pnode.storage.earlier_tree import EarlierTree
from p2pnode.storage.journal import (
    Header,
    Journal,
    encode_checkpoint,
    encode_published,
    encode_state,
    read_header,
    replay,
)
from p2pnode.storage.locking import TargetLock
from p2pnode.storage.open_files import write_at
from p2pnode.storage.syncing import sync_directories
from p2pnode.torrent.metainfo import Metainfo

_NEW_SUFFIX = "-new"  # of a journal that is being written afresh


def hidden_name(name: str, suffix: str) -> str:
    """The name beside `name` that starts with a dot and ends in `suffix`; a long one is cut, yet unique."""
    whole = os.fsencode(name)
    room = COMPONENT_SIZE_MAX - len(suffix) - 1
    if len(whole) > room:
        digest = sha256(whole).hexdigest()[:16]
        name = whole[: room - len(digest) - 1].decode("utf-8", "ignore") + "~" + digest
    return f".{name}{suffix}"


def journal_name(target: Path) -> str:
    """The name of the journal of a download to `target`, in the same directory."""
    return hidden_name(target.name, JOURNAL_SUFFIX)


class Partial:
    """The partial and the journal of one target, locked until `close`; AlreadyInProgress when somebody else
    works on it. Methods raise `OSError` where the system refuses, StorageError for what is planted there."""

    def __init__(self, metainfo: Metainfo, target: Path, wanted: Collection[int] | None = None) -> None:
        """`wanted` are the files that shall be published, by index; None: all."""
        self.wanted = range(len(metainfo.files)) if wanted is None else wanted
        self.earlier: EarlierTree | None = None
        self._metainfo = metainfo
        self._target = target
        self._hidden = hidden_name(target.name, PARTIAL_SUFFIX)
        self._made = bytearray(len(metainfo.files))  # by file: is it there, with its full size
        self._tree_fd: int | None = None
        self._directories: Directories | None = None  # of the tree, as soon as it is there
        self._inode = 0  # of the partial that is worked on
        self._directory_fd = confined.open_root(target.parent)
        try:
            self._lock = TargetLock(self._directory_fd, journal_name(target), target)
        except BaseException:
            os.close(self._directory_fd)
            raise

    # -- files ---------------------------------------------------------------------------------------------

    def open_found(self, index: int) -> int:
        """A descriptor of file `index`; FileNotFoundError where it was not made yet."""
        fd = self._open(index, confined.UPDATE)
        self._made[index] = os.fstat(fd).st_size == self._metainfo.files[index].size
        return fd

    def open_part(self, index: int) -> int:
        """A descriptor of file `index`, made with its full size, sparse, when it is opened first.

        One that vanishes or is cut later is not mended: zeros would stand where blocks were. One that is published
        already is opened for reading.
        """
        if self.earlier is not None and index in self.earlier.files:
            return self.earlier.open(index)
        fd = self._open(index, confined.UPDATE if self._made[index] else confined.CREATE)
        try:
            self._require_size(fd, index)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _require_size(self, fd: int, index: int) -> None:
        size = self._metainfo.files[index].size
        if os.fstat(fd).st_size != size:
            if self._made[index]:
                raise StorageError(f"{self._parts(index)[-1]!r} was changed by somebody else")
            os.ftruncate(fd, size)
        self._made[index] = True

    def create_file(self, index: int, data: bytes | memoryview) -> bool:
        """Make file `index` with all of its bytes; False, and nothing done, when it was made before.

        A kill may leave a part of it: that has not the full size, so nobody takes it for the file.
        """
        if self._made[index]:
            return False
        try:
            fd = self._open(index, confined.CREATE_NEW)
        except FileExistsError:
            return False
        try:
            write_at(fd, data, 0)
        finally:
            os.close(fd)
        self._made[index] = True
        return True

    def _open(self, index: int, flags: int) -> int:
        mode = 0o777 if self._metainfo.files[index].is_executable else 0o666
        if not self._metainfo.is_directory:
            return confined.open_file(self._directory_fd, (self._hidden,), flags, mode)
        return self._open_tree().open_file(self._metainfo.files[index].path, flags, mode)

    def _open_tree(self, *, create: bool = False) -> Directories:
        if self._directories is None:
            self._tree_fd = confined.open_directory(self._directory_fd, (self._hidden,), create=create)
            self._directories = Directories(self._tree_fd)
        return self._directories

    def _parts(self, index: int) -> tuple[str, ...]:
        return self._metainfo.files[index].path if self._metainfo.is_directory else (self._hidden,)

    @property
    def hidden(self) -> str:
        """The name of the partial."""
        return self._hidden

    @property
    def directory_fd(self) -> int:
        """The directory that everything is in."""
        return self._directory_fd

    @property
    def inode(self) -> int:
        """The number of the partial's inode, 0 when there is none: what is copied elsewhere has another."""
        try:
            return os.stat(self._hidden, dir_fd=self._directory_fd, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return 0

    def target_exists(self) -> bool:
        """Whether anything at all has the target's name."""
        try:
            os.stat(self._target.name, dir_fd=self._directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def find_earlier(self) -> bool:
        """Whether the target is what an earlier fetch of a part of this tree left; then it is `earlier`."""
        said = replay(self.journal_fd, self._metainfo)
        if said is None or not self._metainfo.is_directory:
            return False
        found = os.stat(self._target.name, dir_fd=self._directory_fd, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) or found.st_ino not in {said.inode, said.published}:
            return False
        fd = confined.open_directory(self._directory_fd, (self._target.name,))
        self.earlier = EarlierTree(self._metainfo, self._target, fd)
        return True

    def require_room(self, size: int) -> None:
        """DiskFull unless `size` more bytes have room on the device."""
        found = os.fstatvfs(self._directory_fd)
        free = found.f_bavail * found.f_frsize
        if found.f_blocks and free < size:
            raise DiskFull(
                f"no room for {self._target.name!r}: {size:,} bytes are to come, {free:,} are free,"
                f" {size - free:,} are missing"
            )

    # -- journal -------------------------------------------------------------------------------------------

    @property
    def journal_fd(self) -> int:
        """The journal as it was found; empty when there was none."""
        return self._lock.fd

    def start_journal(self, blocks: BlockMap) -> Journal:
        """Make the partial where it is missing, and replace the journal by one that says `blocks`.

        The data of `blocks` must be on the device.
        """
        self._make_partial()
        self._inode = self.inode
        header = Header(self._inode, self._metainfo.file_id, self._metainfo.encode()).encode()
        content = header + encode_state(blocks)
        if self.earlier is not None:
            content += encode_published(self.earlier.inode)
        content += encode_checkpoint(len(content))
        new_name = hidden_name(self._target.name, JOURNAL_SUFFIX + _NEW_SUFFIX)
        with suppress(FileNotFoundError):
            os.unlink(new_name, dir_fd=self._directory_fd)
        fd = confined.open_file(self._directory_fd, (new_name,), confined.CREATE_NEW)
        try:
            write_at(fd, content, 0)
            os.fsync(fd)
            self._lock.move_to(new_name, fd)
        except BaseException:
            os.close(fd)
            os.unlink(new_name, dir_fd=self._directory_fd)
            raise
        os.fsync(self._directory_fd)
        return Journal(fd, len(content))

    def _make_partial(self) -> None:
        if self._metainfo.is_directory:
            self._open_tree(create=True)
        else:
            os.close(self.open_part(0))

    # -- the end -------------------------------------------------------------------------------------------

    def finish_files(self) -> set[int]:
        """Make the files that have no bytes, let those be executed that should be, and miss none.

        The files that were made or changed: they are not on the device yet.
        """
        by_directory: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for index in self._to_publish():
            by_directory[self._parts(index)[:-1]].append(index)
        changed: set[int] = set()
        for directory, indices in by_directory.items():
            root_fd = self._directory_fd if self._tree_fd is None else self._tree_fd
            fd = confined.open_directory(root_fd, directory, create=True)
            try:
                changed.update(index for index in indices if self._finish_file(index, fd))
            finally:
                os.close(fd)
        return changed

    def _finish_file(self, index: int, parent_fd: int) -> bool:
        """Whether anything had to be done to file `index` in the directory that is open."""
        file, name = self._metainfo.files[index], self._parts(index)[-1]
        if not self._made[index]:
            os.close(self.open_part(index))
            return True
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        confined.require_plain(found, name)
        if found.st_size != file.size:
            raise StorageError(f"{name!r} was changed by somebody else")
        if not file.is_executable or publishing.is_executable(found):
            return False
        fd = self.open_part(index)
        try:
            publishing.let_execute(fd)
        finally:
            os.close(fd)
        return True

    def publish(self) -> None:
        """Give the partial its name; TargetExists when something has it. Then the journal goes."""
        if self.inode != self._inode:
            raise StorageError(f"{self._hidden!r} was removed or replaced meanwhile")
        if self._tree_fd is not None and self.earlier is not None:
            self.earlier.add(self._tree_fd, self._to_publish())
            publishing.remove_tree(self._directory_fd, self._hidden)
        else:
            if self._tree_fd is not None:
                self._remove_unwanted(self._tree_fd)
                sync_directories(self._tree_fd, self._directories_of(self.wanted))
            publishing.publish(
                self._directory_fd, self._hidden, self._target.name, is_directory=self._metainfo.is_directory
            )
        if len(self.published_files()) == len(self._metainfo.files):
            self._remove_journal()

    def published_files(self) -> frozenset[int]:
        """The files that are under the target's name when it is published."""
        return frozenset(self.wanted) | (self.earlier.files if self.earlier is not None else frozenset())

    def _to_publish(self) -> list[int]:
        there = self.earlier.files if self.earlier is not None else ()
        return sorted(index for index in self.wanted if index not in there)

    def _directories_of(self, files: Iterable[int]) -> set[tuple[str, ...]]:
        """All directories below the root of the tree that lead to these files."""
        paths = {self._metainfo.files[index].path[:-1] for index in files}
        return {path[:depth] for path in paths for depth in range(1, len(path) + 1)}

    def _remove_unwanted(self, tree_fd: int) -> None:
        """Remove files that an interrupted fetch with other patterns left, and directories without wanted files."""
        kept = frozenset(self.wanted)
        unwanted = [index for index in range(len(self._metainfo.files)) if index not in kept]
        for index in unwanted:
            *directory, name = self._metainfo.files[index].path
            with suppress(FileNotFoundError):
                confined.remove_file(tree_fd, directory, name)
        needless = self._directories_of(unwanted) - self._directories_of(kept)
        for parts in sorted(needless, key=len, reverse=True):
            with suppress(OSError):  # somebody put something there
                confined.remove_directory(tree_fd, parts)

    def remove(self) -> None:
        """Remove the partial and the journal, whatever is in them."""
        if self._metainfo.is_directory:
            publishing.remove_tree(self._directory_fd, self._hidden)
        else:
            with suppress(FileNotFoundError):
                os.unlink(self._hidden, dir_fd=self._directory_fd)
        if self.earlier is None:  # it says what that is
            self._remove_journal()

    def _remove_journal(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(journal_name(self._target), dir_fd=self._directory_fd)

    def close(self) -> None:
        """Let the next one in. A journal that was never begun goes."""
        found = os.fstat(self._lock.fd)
        if not found.st_size and found.st_nlink:
            self._remove_journal()
        self._lock.release()
        if self.earlier is not None:
            self.earlier.close()
        if self._directories is not None:
            self._directories.close()
        if self._tree_fd is not None:
            os.close(self._tree_fd)
        os.close(self._directory_fd)


def peek_journal(target: Path) -> Metainfo | None:
    """The metainfo of an interrupted download to `target`, if there is one that can be read.

    What was planted in its place, a link or a FIFO perhaps, is none.
    """
    try:
        fd = _open_journal(target)
    except (OSError, StorageError):
        return None
    try:
        header = read_header(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    if header is None:
        return None
    try:
        return Metainfo.decode(header.metainfo, size_max=METAINFO_SIZE_MAX)
    except InvalidData:
        return None


def _open_journal(target: Path) -> int:
    directory_fd = confined.open_root(target.parent)
    try:
        return confined.open_file(directory_fd, (journal_name(target),), confined.READ)
    finally:
        os.close(directory_fd)
