"""Waiting until the device has what was written."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection

from p2pnode.storage.faults import translated
from p2pnode.storage.open_files import OpenFiles

_FILES_SYNCED_ALONE = 32  # a sync costs a millisecond or more: with more files, one for all is cheaper


def sync_data(fd: int) -> None:
    """The file's bytes and its size are on the device when this returns."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_files(files: OpenFiles, indices: Collection[int], directory_fd: int, shown: str) -> None:
    """The bytes of these files, all on the file system of `directory_fd`, are on the device when this returns.

    StorageError when the device fails; `OSError` when a file cannot be opened, which says nothing about it.
    """
    if len(indices) > _FILES_SYNCED_ALONE and _reports_failures():
        with translated("keep what was written to", shown):
            if _sync_file_system(directory_fd):
                return
    for index in indices:
        with files.borrow(index) as fd, translated("keep what was written to", shown):
            sync_data(fd)


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
