"""Opening files below a directory so that no name, however hostile, leads outside it.

Every path is walked component by component from a directory descriptor. No symbolic link is followed on the
way, the last component is opened without waiting (a FIFO would block for ever), and what was opened, not
what the name meant a moment ago, is examined: a regular file with this one name. So a link, a FIFO, a device
or a directory planted beforehand or during the walk is refused, and there is no race to win.

What the operating system refuses leaves as the `OSError` it is; `faults` puts it into words.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from p2pnode.errors import StorageError

_HAS_OPENAT = os.open in os.supports_dir_fd
# 0 where a system lacks one: such a system has no openat either, and `open_root` refuses there.
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)

READ = os.O_RDONLY
UPDATE = os.O_RDWR
CREATE = os.O_RDWR | os.O_CREAT
CREATE_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


def check_component(name: str) -> None:
    """StorageError unless `name` names an entry of the directory it is looked up in, and nothing else."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise StorageError(f"{name!r} cannot be the name of a file")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise StorageError(f"{name!r} cannot be the name of a file") from None


def open_root(path: Path) -> int:
    """A descriptor of the directory that everything else is opened below; its own path is the user's."""
    if not _HAS_OPENAT:
        raise StorageError("this system cannot confine files to a directory (it lacks openat)")
    return os.open(path, os.O_RDONLY | _DIRECTORY)


def open_directory(root_fd: int, parts: Sequence[str], *, create: bool = False) -> int:
    """A descriptor of the directory `parts` below `root_fd` (of the root itself when empty)."""
    fd = os.dup(root_fd)
    for name in parts:
        try:
            child = _step_into(fd, name, create)
        finally:
            os.close(fd)
        fd = child
    return fd


def _step_into(fd: int, name: str, create: bool) -> int:
    check_component(name)
    if create:
        with suppress(FileExistsError):  # what it is shows when it is opened
            os.mkdir(name, dir_fd=fd)
    return os.open(name, os.O_RDONLY | _DIRECTORY | _NO_FOLLOW, dir_fd=fd)


def open_file(root_fd: int, parts: Sequence[str], flags: int, mode: int = 0o666) -> int:
    """Open the file `parts` below `root_fd` with READ, UPDATE, CREATE or CREATE_NEW.

    With a creating flag the directories on the way are made too. StorageError when what is there is not a
    regular file with this one name.
    """
    *directories, name = parts
    check_component(name)
    parent_fd = open_directory(root_fd, directories, create=bool(flags & os.O_CREAT))
    try:
        return open_entry(parent_fd, name, flags, mode)
    finally:
        os.close(parent_fd)


def open_entry(parent_fd: int, name: str, flags: int, mode: int = 0o666) -> int:
    """The same of the entry `name` of a directory that is open."""
    check_component(name)
    fd = os.open(name, flags | _NO_FOLLOW | _NO_WAIT, mode, dir_fd=parent_fd)
    if flags & os.O_EXCL:
        return fd  # it is new, so it is plain
    try:
        require_plain(os.fstat(fd), name)
    except StorageError:
        os.close(fd)
        raise
    return fd


def open_readable(parent_fd: int, name: str) -> int:
    """Open for reading the regular file `name` of a directory that is open, hard link or not.

    StorageError for whatever else has that name; the symbolic link itself is an `OSError`.
    """
    check_component(name)
    return _require_regular(os.open(name, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT, dir_fd=parent_fd), name)


def require_plain(found: os.stat_result, name: str) -> None:
    """StorageError unless that is the status of a regular file with one name."""
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(f"{name!r} is not a regular file; it is left alone")
    if found.st_nlink > 1:
        raise StorageError(f"{name!r} has other names too (a hard link); it is left alone")


def remove_file(root_fd: int, directories: Sequence[str], name: str) -> None:
    """Remove the entry `name`, no directory, of a directory below `root_fd`."""
    check_component(name)
    parent_fd = open_directory(root_fd, directories)
    try:
        os.unlink(name, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def remove_directory(root_fd: int, parts: Sequence[str]) -> None:
    """Remove the directory `parts` below `root_fd`, which must be empty."""
    check_component(parts[-1])
    parent_fd = open_directory(root_fd, parts[:-1])
    try:
        os.rmdir(parts[-1], dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def open_shared(root: Path, parts: Sequence[str]) -> int:
    """Open for reading what the user shares: `parts` below `root`, or `root` itself when there are none.

    A link to a regular file is followed, a link to a directory is not.
    """
    if not parts:
        return _open_readable(root, None)
    root_fd = open_root(root)
    try:
        parent_fd = open_directory(root_fd, parts[:-1])
    finally:
        os.close(root_fd)
    try:
        check_component(parts[-1])
        return _open_readable(parts[-1], parent_fd)
    finally:
        os.close(parent_fd)


def _open_readable(path: str | Path, dir_fd: int | None) -> int:
    return _require_regular(os.open(path, os.O_RDONLY | _NO_WAIT, dir_fd=dir_fd), path)


def _require_regular(fd: int, path: str | Path) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageError(f"{os.fspath(path)!r} is not a regular file")
    return fd
