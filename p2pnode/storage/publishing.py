"""Giving a finished download its name, without ever taking that name away from something else.

Linux has a rename that refuses to replace (renameat2). Elsewhere, and on file systems that lack it, a file
gets its name by a hard link. What has neither, and every tree, first takes the name with an empty
placeholder, made so that it fails when anything is there, and is renamed onto that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from p2pnode.errors import TargetExists
from p2pnode.storage.faults import translated

_Way = Callable[[int, str, int, str], None]
"""Renames (directory, name) to (directory, name)."""

_RENAME_NOREPLACE = 1
# What link and renameat2 answer on systems, file systems and kernels that do not have them.
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})


def publish(directory_fd: int, hidden: str, name: str, *, is_directory: bool) -> None:
    """The file or tree `hidden` becomes `name` in the same directory, and stays so after a power cut.

    TargetExists when something has that name already: both are left as they are.
    """
    ways = [_rename_without_replacing, *_WAYS[is_directory]]
    with translated("publish", name):
        try:
            _use_first_that_works(ways, directory_fd, hidden, directory_fd, name)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _exists(name) from None
            raise
        os.fsync(directory_fd)


def move_file(source_fd: int, target_fd: int, name: str) -> None:
    """The file `name` moves from one open directory to another; FileExistsError when something there has its name.

    It is for the caller to sync the directories.
    """
    _use_first_that_works([_rename_without_replacing, *_WAYS[False]], source_fd, name, target_fd, name)


def _use_first_that_works(ways: Sequence[_Way], old_fd: int, old: str, new_fd: int, new: str) -> None:
    for way in ways[:-1]:
        try:
            return way(old_fd, old, new_fd, new)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return ways[-1](old_fd, old, new_fd, new)


def _exists(name: str) -> TargetExists:
    return TargetExists(f"{name!r} appeared meanwhile and is left alone; move it away and fetch again")


def _rename_without_replacing(old_fd: int, old: str, new_fd: int, new: str) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(old_fd, os.fsencode(old), new_fd, os.fsencode(new), _RENAME_NOREPLACE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), new)


def _link(old_fd: int, old: str, new_fd: int, new: str) -> None:
    os.link(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
    os.unlink(old, dir_fd=old_fd)


def _replace_placeholder_file(old_fd: int, old: str, new_fd: int, new: str) -> None:
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=new_fd))
    try:
        os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
    except OSError:
        os.unlink(new, dir_fd=new_fd)
        raise


def _replace_placeholder_directory(old_fd: int, old: str, new_fd: int, new: str) -> None:
    os.mkdir(new, dir_fd=new_fd)
    try:  # onto a directory that is not empty this fails: nothing that somebody puts there is lost
        os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
    except OSError:
        with suppress(OSError):
            os.rmdir(new, dir_fd=new_fd)
        raise


# By whether it is a directory, after renameat2; the last one always exists.
_WAYS = {False: (_link, _replace_placeholder_file), True: (_replace_placeholder_directory,)}


def is_executable(found: os.stat_result) -> bool:
    """Whether everybody who may read the file with this status may run it too."""
    return found.st_mode & 0o111 == (found.st_mode & 0o444) >> 2


def let_execute(fd: int) -> None:
    """Whoever may read the file may run it too, where the file system knows such a thing."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    try:
        os.fchmod(fd, mode | (mode & 0o444) >> 2)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise


def remove_tree(directory_fd: int, name: str) -> None:
    """Remove a directory and all in it, following no link; nothing happens when it is not there."""
    with translated("remove", name), suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=directory_fd)
