"""Waiting until the device has what was written."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection
from contextlib import closing

from p2pnode.config import DISK_THREADS
from p2pnode.storage import confined
from p2pnode.storage.faults import translated
from p2pnode.storage.open_files import OpenFiles
from p2pnode.storage.threads import in_threads

# A sync costs a millisecond or more, so with more files or directories one for all is cheaper: 10,000 files of 4 KiB
# take 0.1 to 0.3 s together and 1.3 s one by one in eight threads (ext4 on a virtual disk). But it waits for what
# others wrote too, so it is not for a few.
_SYNCED_ALONE = 32


def sync_data(fd: int) -> None:
    """The file's bytes and its size are on the device when this returns."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_files(files: OpenFiles, indices: Collection[int], directory_fd: int, shown: str) -> None:
    """The bytes of these files, all on the file system of `directory_fd`, are on the device when this returns.

    StorageError when the device fails; `OSError` when a file cannot be opened, which says nothing about it.
    """
    with translated("keep what was written to", shown):
        if _sync_together(len(indices), directory_fd):
            return

    def sync(index: int) -> None:
        with files.borrow(index) as fd, translated("keep what was written to", shown):
            sync_data(fd)

    with closing(in_threads(sync, indices, threads=min(len(indices), DISK_THREADS))) as synced:
        for _ in synced:
            pass


def sync_directories(root_fd: int, directories: Collection[tuple[str, ...]]) -> None:
    """The entries of these directories below the root, and of the root, are on the device."""
    if _sync_together(len(directories), root_fd):
        return

    def sync(parts: tuple[str, ...]) -> None:
        fd = confined.open_directory(root_fd, parts)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    with closing(in_threads(sync, directories, threads=min(len(directories), DISK_THREADS))) as synced:
        for _ in synced:
            pass
    os.fsync(root_fd)


def _sync_together(count: int, fd: int) -> bool:
    """Sync the whole file system of `fd` if that serves so many files or directories better."""
    return count > _SYNCED_ALONE and _reports_failures() and _sync_file_system(fd)


def _reports_failures() -> bool:
    """Whether syncfs tells of data that was lost; Linux does from 5.8 on."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (
        os.uname().sysname == "Linux" and release is not None and tuple(map(int, release.groups())) >= (5, 8)
    )


def _sync_file_system(fd: int) -> bool:
    """Sync everything on the file system of `fd`; False where there is no such call."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    if syncfs(fd):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return True
