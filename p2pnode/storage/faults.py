"""What the operating system says, in our words: one line that tells what failed, where, and why."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.errors import DiskFull, StorageError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "larger than the file system or a limit of this process allows",
    errno.ELOOP: "it is a symbolic link, which is never written through",
    errno.ENOTDIR: "a file or a symbolic link stands where a directory should be",
    errno.EISDIR: "a directory stands where a file should be",
    errno.ENXIO: "it is not a regular file",
    errno.ENOENT: "it is not there (was it deleted?)",
    errno.EXDEV: "it would cross from one device to another",
    errno.EMFILE: "too many open files (raise `ulimit -n`)",
    errno.ENFILE: "too many open files in the whole system",
    errno.EIO: "the device reports an error; what was written last cannot be trusted",
    errno.ENAMETOOLONG: "the name is too long for the file system",
}


def storage_error(error: OSError, action: str, shown: str | os.PathLike[str]) -> StorageError:
    """The `StorageError` (`DiskFull` where no room is left) that says what `error` means for a person."""
    place = repr(os.fspath(shown))  # repr: a name may hold control characters
    if error.errno in _NO_ROOM:
        return DiskFull(f"cannot {action} {place}: no room is left on the device")
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return StorageError(f"cannot {action} {place}: {reason}")


@contextmanager
def translated(action: str, shown: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever `OSError` the body meets leaves as a `StorageError`: "cannot {action} '{shown}': reason"."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, action, shown) from error
