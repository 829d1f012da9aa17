"""One worker on one target: a lock that other processes and other tasks of this one both meet.

The lock is held on the journal's file (flock). On network file systems that lock may belong to the whole
process or not exist at all, so a registry inside the process stands beside it.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

from p2pnode.errors import AlreadyInProgress
from p2pnode.storage import confined
from p2pnode.storage.faults import translated

_Key = tuple[int, int, str]  # device and inode of the directory, name of the journal

_held: set[_Key] = set()
_held_guard = threading.Lock()


class TargetLock:
    """The journal's file, made where missing, open and locked; AlreadyInProgress where somebody has it."""

    def __init__(self, directory_fd: int, journal_name: str, target: Path) -> None:
        self._directory_fd = directory_fd
        self._journal_name = journal_name
        self._shown = target.with_name(journal_name)
        self._busy = AlreadyInProgress(
            f"{target.name!r} is being fetched already, here or by another process"
        )
        found = os.fstat(directory_fd)
        self._key: _Key = (found.st_dev, found.st_ino, journal_name)
        with _held_guard:
            if self._key in _held:
                raise self._busy
            _held.add(self._key)
        try:
            self.fd = self._open_locked()
        except BaseException:
            self._forget()
            raise

    def _open_locked(self) -> int:
        while True:
            with translated("open the journal", self._shown):
                fd = confined.open_file(self._directory_fd, (self._journal_name,), confined.CREATE)
            try:
                self._lock(fd)
                if self._is_current(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its last owner replaced or removed it between our open and our lock

    def _is_current(self, fd: int) -> bool:
        try:
            named = os.stat(self._journal_name, dir_fd=self._directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))

    def _lock(self, fd: int) -> None:
        try:
            import fcntl
        except ImportError:
            return  # no such lock on this system: the registry has to do
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy from None
        except OSError as error:
            if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
                raise

    def move_to(self, temporary_name: str, fd: int) -> None:
        """Rename the complete new journal open at `fd` over the old one; the lock never lapses on the way."""
        self._lock(fd)
        directory = self._directory_fd
        os.rename(temporary_name, self._journal_name, src_dir_fd=directory, dst_dir_fd=directory)
        os.close(self.fd)
        self.fd = fd

    def release(self) -> None:
        """Let the next one in; the journal's file is closed."""
        os.close(self.fd)
        self._forget()

    def _forget(self) -> None:
        with _held_guard:
            _held.discard(self._key)
