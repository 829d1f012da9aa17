"""What lies in a directory that is shared, and whether it changed since last time.

Nothing is read here but directories and the status of files: a fingerprint changes with any name, size,
time of change or inode below an item, so that a look every few seconds costs a `stat` for each file and no
hashing. Symbolic links to regular files are followed (model caches are made of them), links to directories
are not. Names that start with a dot, our own partial files among them, are never seen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from p2pnode.config import SETTLE_S
from p2pnode.errors import NotFound, StorageError
from p2pnode.storage.faults import translated
from p2pnode.torrent.selection import Selection


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file changes; `changed_ns` is set by the kernel alone."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Signature:
        """Read it from a status."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file: `parts` are the names that lead to it below its item, none when it is the item."""

    parts: tuple[str, ...]
    signature: Signature
    is_executable: bool  # by its owner


@dataclass(frozen=True, slots=True)
class Item:
    """Something to share: a file, or a directory as one tree with its files sorted by name.

    Of a directory, `select` says which files. `skipped` has a line for each entry that cannot be shared.
    `changed_at` is when anything in it last changed, in seconds since 1970.
    """

    path: Path
    is_directory: bool
    files: tuple[FoundFile, ...]
    skipped: tuple[str, ...]
    select: Selection = Selection()  # noqa: RUF009 (it is frozen)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.signature.size for file in self.files)

    @property
    def changed_at(self) -> float:
        """When a file of it last changed, seconds since 1970."""
        return max((file.signature.changed_ns for file in self.files), default=0) / 1e9

    def is_settled(self, now: float) -> bool:
        """Whether nothing changed in the last `SETTLE_S`; a clock that runs ahead does not hold it up."""
        return not 0 <= now - self.changed_at < SETTLE_S

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that are another as soon as any name, size, time of change or inode is."""
        digest = sha256(b"directory" if self.is_directory else b"file")
        for file in self.files:
            names = "/".join(file.parts).encode()
            found = file.signature
            digest.update(b"%d:%b" % (len(names), names))
            digest.update(b"%d %d %d %d;" % (found.size, found.modified_ns, found.changed_ns, found.inode))
        return digest.digest()


def list_items(files_dir: Path) -> list[Item]:
    """The items of a shared directory: each top-level entry, sorted by name.

    StorageError when the directory cannot be read. An entry that vanishes meanwhile, or that cannot be
    shared, is not among them.
    """
    with translated("list", files_dir):
        names = sorted(entry.name for entry in os.scandir(files_dir) if _is_offered(entry.name))
    return [item for item in map(_item_or_none, (files_dir / name for name in names)) if item is not None]


def _item_or_none(path: Path) -> Item | None:
    try:
        if path.is_symlink() and path.is_dir():
            return None
        return find_item(path)
    except (OSError, NotFound, StorageError):
        return None  # a link's target may have a name that is too long, or lie where we may not look


def find_item(path: Path, select: Selection = Selection()) -> Item:  # noqa: B008 (it is frozen)
    """The item at `path`; of a directory, what is selected.

    NotFound where nothing is, and when the patterns fit no file; StorageError for what cannot be shared.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotFound(f"there is no file or directory {os.fspath(path)!r}") from None
    except OSError as error:
        raise StorageError(f"cannot look at {os.fspath(path)!r}: {error.strerror}") from error
    if not _is_utf8(path.name):
        raise StorageError(f"the name {path.name!r} is not UTF-8 and cannot be shared")
    if stat.S_ISREG(found.st_mode):
        if not select.fits((path.name,)):
            raise NotFound(f"the patterns do not fit {os.fspath(path)!r}")
        return Item(path, False, (_file((), found),), (), select)
    if not stat.S_ISDIR(found.st_mode):
        raise StorageError(f"{os.fspath(path)!r} is neither a file nor a directory")
    skipped: list[str] = []
    files = sorted(_walk(path, skipped), key=lambda file: file.parts)
    if select:
        files = [file for file in files if select.fits(file.parts)]
        if not files:
            raise NotFound(f"the patterns fit no file below {os.fspath(path)!r}")
    return Item(path, True, tuple(files), tuple(sorted(skipped)), select)


def _file(parts: tuple[str, ...], found: os.stat_result) -> FoundFile:
    return FoundFile(parts, Signature.of(found), bool(found.st_mode & stat.S_IXUSR))


def _walk(root: Path, skipped: list[str]) -> Iterator[FoundFile]:
    """All files below `root` that can be shared, in any order."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parents = waiting.pop()
        try:
            entries = list(os.scandir(root.joinpath(*parents)))
        except OSError as error:
            skipped.append(f"{'/'.join(parents)!r} cannot be read: {error.strerror}")
            continue
        for entry in entries:
            if not _is_offered(entry.name):
                continue
            parts = (*parents, entry.name)
            try:
                if not _is_utf8(entry.name):
                    skipped.append(f"{'/'.join(parts)!r} has a name that is not UTF-8")
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(parts)
                elif stat.S_ISREG((found := entry.stat()).st_mode):
                    yield _file(parts, found)
                else:
                    skipped.append(f"{'/'.join(parts)!r} is not a regular file")
            except OSError as error:  # gone, or a link to nothing, to itself, or to where we may not look
                skipped.append(f"{'/'.join(parts)!r} cannot be read: {error.strerror}")


def _is_offered(name: str) -> bool:
    return not name.startswith(".")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
